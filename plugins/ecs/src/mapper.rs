//! Runs all stages over one event.

use lockgate_plugin::json;

use crate::document::Document;
use crate::enrich::enrich;
use crate::indexed::Indexed;
use crate::keys::{Key, Name};
use crate::lookup::Lookup;
use crate::machine::Machine;
use crate::row::Row;
use crate::rules::{Active, READY_INTAKE, Rules};
use crate::value::{Object, Value};
use crate::write;

/// The value of `ecs`: the version of the mapping.
const ECS_VERSION: &str = r#"{"version":"8.11.0"}"#;

/// The tag that requests `event.original`.
const PRESERVE: &str = "preserve_original_event";

const TELEPORT: Key = Key::of("teleport");
const AUDIT: Key = Key::of("audit");
const ORIGINAL: Key = Key::of("original");
const TAGS: Key = Key::of("tags");
const ECS: Key = Key::of("ecs");
const EVENT: Key = Key::of("event");
const ACTION: Key = Key::of("action");
const KIND: Key = Key::of("kind");
const CODE: Key = Key::of("code");
const OUTCOME: Key = Key::of("outcome");
const CATEGORY: Key = Key::of("category");
const TYPE: Key = Key::of("type");
const ERROR: Key = Key::of("error");
const MESSAGE: Key = Key::of("message");

/// A configured mapping.
#[derive(Debug)]
pub struct Mapping<L> {
    pub rules: Rules,
    pub preserve_original: bool,
    pub lookup: L,
}

impl<L: Lookup> Mapping<L> {
    /// Maps any event to one document.
    pub fn map(&self, payload: &str) -> String {
        let mut document = Document {
            root: Indexed::with_capacity(16),
            audit: Indexed::with_capacity(40),
            active: Active::default(),
        };
        let complete = self.stages(&mut document, payload);
        let Document {
            mut root, audit, ..
        } = document;
        root.put(
            TELEPORT,
            Value::Object(Object {
                members: vec![(AUDIT.into(), Value::Object(audit.into_object()))],
            }),
        );
        if self.preserve_original || !complete {
            // An event that could not be mapped always keeps its text, and from 1.6 on has a tag
            // that says so (V7).
            event(&mut root).put(ORIGINAL, Value::text(payload));
            if self.preserve_original || self.rules.later {
                root.put(TAGS, Value::List(vec![Value::text(PRESERVE)]));
            }
        }
        let original = if self.preserve_original {
            payload.len() + payload.len() / 4
        } else {
            0
        };
        write::document(
            &root.into_object(),
            complete,
            1024 + 2 * payload.len() + original,
        )
    }

    /// Returns false if a stage failed after which nothing more is done, not even the clean-up.
    fn stages<'a>(&self, document: &mut Document<'a>, payload: &'a str) -> bool {
        let machine = Machine {
            rules: &self.rules,
            lookup: &self.lookup,
        };
        document.root.put(ECS, Value::raw(ECS_VERSION));
        document.root.put(
            EVENT,
            Value::Object(Object {
                members: Vec::with_capacity(12),
            }),
        );

        for field in json::fields(payload) {
            let Ok(field) = field else {
                document.audit.clear();
                fail(document, "E04", "the event is not a JSON object");
                return false;
            };
            let name = Name::of_field(&field);
            if let Name::Known(key) = name {
                self.rules.wake(key, &mut document.active);
            }
            document.audit.push(name, Value::raw(field.value));
        }
        for ready in &READY_INTAKE {
            if let Err(fault) = machine.apply(document, None, ready) {
                fail(document, ready.row.id, fault);
                return false;
            }
        }

        let action = event(&mut document.root)
            .get(ACTION)
            .and_then(|action| action.as_text());
        let action = action.as_deref();
        event(&mut document.root).put(KIND, Value::text("event"));
        self.categorise(document, action);
        if action.is_none() {
            self.rules.wake_without_action(&mut document.active);
        }

        let (leftovers, end) = (self.rules.leftovers, self.rules.rows.len());
        if let Err((row, fault)) = machine.run(document, action, 0, leftovers) {
            fail_at(document, row, fault);
        }
        if let Err((row, fault)) = machine.run(document, action, leftovers, end) {
            fail_at(document, row, fault);
            return false;
        }
        // A failure of the enrichment is silent.
        let _ = enrich(document, &self.rules, &self.lookup, action);
        if self.rules.corrected {
            single_outcome(&mut document.root);
        }
        true
    }

    /// Sets `event.category`, `event.type`, and `event.outcome` as far as the event's code
    /// determines it.
    fn categorise(&self, document: &mut Document<'_>, action: Option<&str>) {
        let event = event(&mut document.root);
        let code = event.get(CODE).and_then(|code| code.as_text());
        let Some(code) = code else { return };
        if code.ends_with(['E', 'W']) {
            event.put(OUTCOME, Value::Words(&["failure"]));
        }
        let Some(action) = action else { return };
        let (category, kind) = self.rules.kinds(action);
        if let Some(category) = category {
            event.put(CATEGORY, Value::Words(category));
        }
        if let Some(kind) = kind {
            event.put(TYPE, Value::Words(kind));
        }
    }
}

/// The object `event`, which only this file creates.
fn event<'d, 'a>(root: &'d mut Indexed<'a>) -> &'d mut Object<'a> {
    if root.position(EVENT).is_none() {
        root.push(EVENT.into(), Value::Object(Object::default()));
    }
    match root.get(EVENT) {
        Some(Value::Object(object)) => object,
        _ => unreachable!("no row writes `event` itself"),
    }
}

fn fail_at(document: &mut Document<'_>, row: &Row, fault: &str) {
    fail(document, row.id, fault);
}

fn fail(document: &mut Document<'_>, rule: &str, fault: &str) {
    let message = Value::Text(format!("Rule `{rule}` of the mapping failed: {fault}.").into());
    let root = &mut document.root;
    match root
        .get(ERROR)
        .and_then(Value::as_object)
        .and_then(|error| error.get(MESSAGE))
        .and_then(Value::as_list)
    {
        Some(messages) => messages.push(message),
        None => {
            let members = vec![(MESSAGE.into(), Value::List(vec![message]))];
            root.put(ERROR, Value::Object(Object { members }));
        }
    }
    event(root).put(KIND, Value::text("pipeline_error"));
}

/// Q7: a single value, not a list. A failure outweighs a success.
fn single_outcome(root: &mut Indexed<'_>) {
    let event = event(root);
    let Some(words) = event.get(OUTCOME).and_then(Value::as_list) else {
        return;
    };
    let failed = words
        .iter()
        .any(|word| word.as_text().is_some_and(|word| word == "failure"));
    let word = if failed { "failure" } else { "success" };
    event.put(OUTCOME, Value::text(word));
}
