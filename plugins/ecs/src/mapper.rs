//! The stages, one after the other, over one event.

use lockgate_plugin::json;

use crate::document::Document;
use crate::enrich::enrich;
use crate::lookup::Lookup;
use crate::machine::Machine;
use crate::mapping::INTAKE;
use crate::row::Row;
use crate::rules::{Active, Rules};
use crate::value::{Object, Value};
use crate::write;

/// The version of ECS that the mapping is of.
const ECS: &str = "8.11.0";

/// The tag that says `event.original` is wanted.
const PRESERVE: &str = "preserve_original_event";

/// A configured mapping.
#[derive(Debug)]
pub struct Mapping<L> {
    pub rules: Rules,
    pub preserve_original: bool,
    pub lookup: L,
}

impl<L: Lookup> Mapping<L> {
    /// One document for one event, whatever the event is.
    pub fn map(&self, payload: &str) -> String {
        let mut document = Document { root: Object::default(), audit: Object::default(), active: Active::default() };
        let complete = self.stages(&mut document, payload);
        let Document { mut root, audit, .. } = document;
        root.put("teleport", Value::Object(Object { members: vec![("audit".into(), Value::Object(audit))] }));
        if self.preserve_original || !complete {
            // An event that could not be mapped keeps its text in any case, and says so from 1.6 on (V7).
            event(&mut root).put("original", Value::text(payload));
            if self.preserve_original || self.rules.later {
                root.put("tags", Value::List(vec![Value::text(PRESERVE)]));
            }
        }
        let original = if self.preserve_original { payload.len() + payload.len() / 4 } else { 0 };
        write::document(&root, complete, 1024 + 2 * payload.len() + original)
    }

    /// `false`: a stage failed after which nothing more is done, not even the clean-up.
    fn stages<'a>(&self, document: &mut Document<'a>, payload: &'a str) -> bool {
        let machine = Machine { rules: &self.rules, lookup: &self.lookup };
        document.root.members.reserve(16);
        document.root.put("ecs", Value::Object(Object { members: vec![("version".into(), Value::text(ECS))] }));
        document.root.put("event", Value::Object(Object { members: Vec::with_capacity(12) }));

        document.audit.members.reserve(40);
        for field in json::fields(payload) {
            let Ok(field) = field else {
                document.audit.members.clear();
                fail(document, "E04", "the event is no JSON object");
                return false;
            };
            let key = field.key();
            self.rules.wake(&key, &mut document.active);
            document.audit.members.push((key, Value::raw(field.value)));
        }
        for row in INTAKE {
            if let Err(fault) = machine.apply(document, None, row) {
                fail(document, row.id, fault);
                return false;
            }
        }

        let action = event(&mut document.root).get("action").and_then(|action| action.as_text());
        let action = action.as_deref();
        event(&mut document.root).put("kind", Value::text("event"));
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
        // Whatever ends the enrichment ends it silently.
        let _ = enrich(document, &self.rules, &self.lookup, action);
        if self.rules.mended {
            single_outcome(&mut document.root);
        }
        true
    }

    /// `event.category`, `event.type`, and what the event's code says of its outcome.
    fn categorise(&self, document: &mut Document<'_>, action: Option<&str>) {
        let event = event(&mut document.root);
        let code = event.get("code").and_then(|code| code.as_text());
        let Some(code) = code else { return };
        if code.ends_with(['E', 'W']) {
            event.put("outcome", words(&["failure"]));
        }
        let Some(action) = action else { return };
        let (category, kind) = self.rules.kinds(action);
        if let Some(category) = category {
            event.put("category", words(category));
        }
        if let Some(kind) = kind {
            event.put("type", words(kind));
        }
    }
}

fn words<'a>(words: &[&'static str]) -> Value<'a> {
    Value::List(words.iter().map(|word| Value::text(*word)).collect())
}

/// `event`, which nothing but this file makes.
fn event<'d, 'a>(root: &'d mut Object<'a>) -> &'d mut Object<'a> {
    let at = match root.members.iter().position(|(name, _)| name == "event") {
        Some(at) => at,
        None => {
            root.members.push(("event".into(), Value::Object(Object::default())));
            root.members.len() - 1
        }
    };
    match &mut root.members[at].1 {
        Value::Object(object) => object,
        _ => unreachable!("no row writes `event` itself"),
    }
}

fn fail_at(document: &mut Document<'_>, row: &Row, fault: &str) {
    fail(document, row.id, fault);
}

fn fail(document: &mut Document<'_>, rule: &str, fault: &str) {
    let message = Value::Text(format!("Rule `{rule}` of the mapping failed: {fault}.").into());
    let root = &mut document.root;
    match root.at("error.message").and_then(Value::as_list) {
        Some(messages) => messages.push(message),
        None => {
            let members = vec![("message".into(), Value::List(vec![message]))];
            root.put("error", Value::Object(Object { members }));
        }
    }
    event(root).put("kind", Value::text("pipeline_error"));
}

/// Q7: one word and no list; who failed did not succeed.
fn single_outcome(root: &mut Object<'_>) {
    let event = event(root);
    let Some(words) = event.get("outcome").and_then(Value::as_list) else { return };
    let failed = words.iter().any(|word| word.as_text().is_some_and(|word| word == "failure"));
    let word = if failed { "failure" } else { "success" };
    event.put("outcome", Value::text(word));
}
