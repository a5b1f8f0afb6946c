//! `[pipelines.NAME]`: the streams it reads, its stages and its sink.

use std::fmt;
use std::ops::Range;
use std::time::Duration;

use lockgate_model::{FeedKind, show_size};
use toml::de::DeValue;

use crate::defaults::{
    self, BATCH_AGE, BATCH_BYTES, BATCH_EVENTS, DEAD_AGE, DEAD_BYTES, DEAD_IN_A_ROW, DEAD_SHARE,
    IN_FLIGHT, LAG_AGE, LAG_BYTES,
};
use crate::issues::Issue;
use crate::name;
use crate::plugin::{Declared, Plugin, key_hint, refer};
use crate::reading::Reading;
use crate::sink::{self, Sink};
use crate::store::Store;
use crate::table::{Table, list, suggest};
use crate::value::{Item, Value};
use crate::with::With;

#[derive(Clone, Debug, PartialEq)]
pub struct Pipeline {
    pub name: String,
    /// `from`: the streams it reads. Default `["audit"]`.
    pub from: Vec<Input>,
    pub batch: BatchLimits,
    /// `in-flight`: batches processed at the same time. Default 8.
    pub in_flight: usize,
    pub dead_letters: DeadLetterLimits,
    pub lag_limit: LagLimit,
    /// In the order of the text.
    pub stages: Vec<Stage>,
    pub sink: Sink,
    /// The span of the name in the TOML text.
    pub span: Range<usize>,
}

/// One stream that a pipeline reads. Displays as `teleport/audit`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Input {
    pub source: String,
    pub feed: FeedKind,
    pub order: Order,
}

/// `order`. Default: `none` for audit events, which arrive unordered anyway; `session` for session
/// recordings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Batches may overtake each other.
    None,
    /// The events of a session are delivered in order.
    Session,
}

/// `batch`: a batch is full when it reaches the first of these limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchLimits {
    /// Default 500.
    pub events: usize,
    /// Bytes of payload. Default 1 MiB.
    pub bytes: u64,
    /// How long events that do not fill a batch wait for more. Default 1 s.
    pub age: Duration,
}

/// `dead-letters`: when nothing more is dead-lettered, and how long dead letters are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeadLetterLimits {
    /// `in-a-row`. Default 16.
    pub in_a_row: u32,
    /// `share`: thousandths of the last 1,000 entries. Default 10, which is 1%.
    pub share: u32,
    /// `bytes`: of all dead letters that the pipeline keeps. Default 1 GiB.
    pub bytes: u64,
    /// Default 90 days.
    pub age: Duration,
}

/// `lag-limit`: how far the pipeline may hold retention back, per stream. Default: as far as it
/// needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LagLimit {
    /// Of the oldest unfinished event, since it was read.
    pub age: Option<Duration>,
    /// Of the events in the store, from the oldest unfinished one on.
    pub bytes: Option<u64>,
    /// The span of `bytes` in the TOML text.
    pub bytes_span: Range<usize>,
}

/// `[[pipelines.NAME.stage]]`: a filter or a mapper.
#[derive(Clone, Debug, PartialEq)]
pub struct Stage {
    pub plugin: Plugin,
    pub with: With,
}

impl Stage {
    /// The span in the TOML text of a dotted path inside `with`, as plugins report it.
    pub fn locate(&self, path: &str) -> Range<usize> {
        self.with.locate(path)
    }
}

impl Default for BatchLimits {
    fn default() -> BatchLimits {
        BatchLimits {
            events: BATCH_EVENTS.default.0 as usize,
            bytes: BATCH_BYTES.default.0,
            age: BATCH_AGE.default,
        }
    }
}

impl Default for DeadLetterLimits {
    fn default() -> DeadLetterLimits {
        DeadLetterLimits {
            in_a_row: DEAD_IN_A_ROW.default.0 as u32,
            share: DEAD_SHARE.default.0,
            bytes: DEAD_BYTES.default.0,
            age: DEAD_AGE.default,
        }
    }
}

impl fmt::Display for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.source, self.feed.name())
    }
}

/// `sources`: the names of all sources, including those with problems of their own.
pub(crate) fn read(
    r: &mut Reading<'_>,
    root: &mut Table<'_>,
    sources: &[String],
    declared: &Declared,
) -> Vec<Pipeline> {
    let value = root.optional("pipelines");
    let is_missing = value
        .as_ref()
        .is_none_or(|value| matches!(value.node(), DeValue::Table(table) if table.is_empty()));
    let values = value
        .and_then(|value| value.table(r))
        .map(|table| table.named())
        .unwrap_or_default();
    r.known.insert("pipelines.*".into());
    if is_missing {
        let hint = "add `[pipelines.NAME.sink]` with `plugin = \"builtin:fluentd\"` and `url = \
                    \"https://…\"`";
        r.issue(Issue::new(0..0, "No pipeline is configured.", "", hint));
    }
    values
        .iter()
        .filter_map(|value| pipeline(r, value, sources, declared))
        .collect()
}

fn pipeline(
    r: &mut Reading<'_>,
    value: &Value<'_>,
    sources: &[String],
    declared: &Declared,
) -> Option<Pipeline> {
    name::check(r, "pipeline", value);
    let mut table = value.table(r)?;
    let order = table.optional("order");
    let order_span = order.as_ref().map(Value::span);
    let order = order
        .and_then(|value| value.choice(r, &[("none", Order::None), ("session", Order::Session)]));
    let from = from(r, &mut table, sources, order);
    if let (Some(Order::Session), Some(span)) = (order, order_span) {
        note_order(r, &from, span);
    }
    let mut batch = BatchLimits::default();
    if let Some(mut table) = table.optional("batch").and_then(|value| value.table(r)) {
        batch.events = table.quantity(r, "events", BATCH_EVENTS).0 as usize;
        batch.bytes = table.quantity(r, "bytes", BATCH_BYTES).0;
        batch.age = table.quantity(r, "age", BATCH_AGE);
        table.finish(r);
    }
    let in_flight = table.quantity(r, "in-flight", IN_FLIGHT).0 as usize;
    let dead_letters = dead_letters(r, &mut table);
    let lag_limit = lag_limit(r, &mut table);
    let stages = table
        .optional("stage")
        .map(|value| value.tables(r))
        .unwrap_or_default();
    let stages = stages
        .into_iter()
        .filter_map(|table| stage(r, table, declared))
        .collect();
    let sink = match table.optional("sink") {
        Some(sink) => sink::read(r, &sink, &value.name, declared, in_flight),
        None => {
            let message = format!("The pipeline `{}` has no sink.", value.name);
            let hint = format!(
                "add `[pipelines.{}.sink]` with `plugin = \"builtin:fluentd\"` and `url = \
                 \"https://…\"`",
                value.name
            );
            r.issue(Issue::new(value.whole_span(), message, "no sink", hint));
            None
        }
    };
    table.finish_with(r, |key| {
        sink::KEYS
            .contains(&key)
            .then(|| format!("it belongs in `[pipelines.{}.sink]`", value.name))
    });
    Some(Pipeline {
        name: value.name.clone(),
        from,
        batch,
        in_flight,
        dead_letters,
        lag_limit,
        stages,
        sink: sink?,
        span: value.key_span.clone(),
    })
}

fn dead_letters(r: &mut Reading<'_>, table: &mut Table<'_>) -> DeadLetterLimits {
    let value = table.optional("dead-letters");
    let Some(mut table) = value.and_then(|value| value.table(r)) else {
        return DeadLetterLimits::default();
    };
    let limits = DeadLetterLimits {
        in_a_row: table.quantity(r, "in-a-row", DEAD_IN_A_ROW).0 as u32,
        share: table.quantity(r, "share", DEAD_SHARE).0,
        bytes: table.quantity(r, "bytes", DEAD_BYTES).0,
        age: table.quantity(r, "age", DEAD_AGE),
    };
    table.finish(r);
    limits
}

fn lag_limit(r: &mut Reading<'_>, table: &mut Table<'_>) -> LagLimit {
    let value = table.optional("lag-limit");
    let Some((value, mut table)) =
        value.and_then(|value| Some((value.whole_span(), value.table(r)?)))
    else {
        return LagLimit::default();
    };
    let (least, most) = LAG_AGE;
    let age = table
        .optional("age")
        .map(|value| value.quantity(r, least, most, None));
    let (least, most) = LAG_BYTES;
    let bytes_span = table.span_of("bytes").unwrap_or_default();
    let bytes = table
        .optional("bytes")
        .map(|value| value.quantity(r, least, most, None));
    if age.is_none() && bytes.is_none() {
        r.issue(Issue::new(
            value,
            "`lag-limit` has neither `age` nor `bytes`.",
            "no limit",
            "write `lag-limit = { age = \"3d\" }`, for example, or leave it out",
        ));
    }
    table.finish(r);
    LagLimit {
        age: age.flatten(),
        bytes: bytes.flatten().map(|bytes| bytes.0),
        bytes_span,
    }
}

/// Warns of limits that are never reached, because a stream does not become so large.
pub(crate) fn check_lag_limits(r: &mut Reading<'_>, store: &Store, pipelines: &[Pipeline]) {
    for pipeline in pipelines {
        let kept = |input: &Input| match input.feed {
            FeedKind::Audit => store.audit.bytes,
            FeedKind::Sessions => store.sessions.bytes,
        };
        let limit = &pipeline.lag_limit;
        let is_unreachable = |input: &&Input| limit.bytes.is_some_and(|bytes| bytes >= kept(input));
        let unreachable: Vec<String> = pipeline
            .from
            .iter()
            .filter(is_unreachable)
            .map(|input| format!("`{input}`, which keeps at most {}", show_size(kept(input))))
            .collect();
        if unreachable.is_empty() {
            continue;
        }
        r.warnings.push(Issue::warning(
            limit.bytes_span.clone(),
            format!(
                "This limit is never reached in {}.",
                unreachable.join(", and in ")
            ),
            "not below `bytes` in `retain`",
            "choose a smaller one, or raise `bytes` in `retain` of `[store]`",
        ));
    }
}

/// Says what the order of an audit stream is not.
fn note_order(r: &mut Reading<'_>, from: &[Input], span: Range<usize>) {
    let audit: Vec<String> = from
        .iter()
        .filter(|input| input.feed == FeedKind::Audit)
        .map(ToString::to_string)
        .collect();
    if audit.is_empty() {
        return;
    }
    let audit: Vec<&str> = audit.iter().map(String::as_str).collect();
    r.notes.push(Issue::note(
        span,
        format!(
            "The events of a session are delivered in the order in which Teleport serves {}. If \
             the cluster uses bulk export, as with Athena, that is not the order of their times.",
            list(&audit)
        ),
        "in the order of reading",
        "if the receiver needs the order of their times, sort there by the times of the events",
    ));
}

fn stage(r: &mut Reading<'_>, mut table: Table<'_>, declared: &Declared) -> Option<Stage> {
    let plugin = table.required("plugin", "plugin = \"builtin:filter\"");
    let with = match (table.optional("with"), &plugin) {
        (Some(with), _) => With::read(r, &with),
        (None, Some(plugin)) => With::empty(plugin.whole_span()),
        (None, None) => With::empty(table.span.clone()),
    };
    let component = plugin.as_ref().map(|value| value.shown().to_owned());
    table.finish_with(r, |key| match key {
        "plugin" | "with" => None,
        key if sink::KEYS.contains(&key) => Some(
            "a stage is a filter or a mapper, and sends nothing: this key belongs in the \
             pipeline's `sink`"
                .into(),
        ),
        key => key_hint(key, component.as_deref()),
    });
    Some(Stage {
        plugin: refer(r, declared, &plugin?)?,
        with,
    })
}

fn from(
    r: &mut Reading<'_>,
    table: &mut Table<'_>,
    sources: &[String],
    order: Option<Order>,
) -> Vec<Input> {
    let example = "from = [\"audit\", \"sessions\"]";
    let listed = match table.optional("from") {
        Some(value) => {
            let listed = match stream_alone(value.node()) {
                Some(stream) => value.texts(r, &format!("from = [\"{stream}\"]")),
                None => value.texts(r, example),
            };
            let listed = listed.unwrap_or_default();
            if matches!(value.node(), DeValue::Array(array) if array.is_empty()) {
                r.issue(Issue::new(
                    value.span(),
                    format!(
                        "`{}` is empty: the pipeline would read nothing.",
                        value.path
                    ),
                    "empty",
                    example,
                ));
            }
            listed
        }
        None => vec![Item {
            text: defaults::FROM.into(),
            shown: defaults::FROM.into(),
            span: table.span.clone(),
        }],
    };
    let mut inputs: Vec<Input> = Vec::new();
    for item in listed {
        let Some(input) = input(r, &item, sources, order) else {
            continue;
        };
        if inputs.contains(&input) {
            let message = format!("The stream `{input}` is listed twice.");
            r.issue(Issue::new(
                item.span,
                message,
                "duplicate",
                "name each stream once",
            ));
        } else {
            inputs.push(input);
        }
    }
    inputs
}

/// A stream that was written without brackets.
fn stream_alone<'v>(value: &'v DeValue<'_>) -> Option<&'v str> {
    let DeValue::String(text) = value else {
        return None;
    };
    let feed = text.rsplit_once('/').map_or(&**text, |(_, feed)| feed);
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-/".contains(&byte);
    (matches!(feed, "audit" | "sessions") && text.bytes().all(is_plain)).then_some(&**text)
}

/// `audit` or `sessions` if there is one source, `NAME/audit` or `NAME/sessions` always.
fn input(
    r: &mut Reading<'_>,
    item: &Item,
    sources: &[String],
    order: Option<Order>,
) -> Option<Input> {
    let halves = |text| match str::split_once(text, '/') {
        Some((source, feed)) => (Some(source), feed),
        None => (None, text),
    };
    let (source, feed) = halves(&item.text);
    let (shown_source, shown_feed) = halves(&item.shown);
    let span = item.span.clone();
    let kind = match feed {
        "audit" => FeedKind::Audit,
        "sessions" => FeedKind::Sessions,
        _ => {
            let message = format!("Unknown feed `{shown_feed}`.");
            r.issue(Issue::new(
                span,
                message,
                "unknown",
                suggest(feed, &["audit", "sessions"]),
            ));
            return None;
        }
    };
    let source = match (source, sources) {
        (Some(source), _) if sources.iter().any(|known| known == source) => source,
        (Some(source), _) => {
            let message = format!("Unknown source `{}`.", shown_source.unwrap_or(shown_feed));
            r.issue(Issue::new(
                span,
                message,
                "unknown",
                suggest(
                    source,
                    &sources.iter().map(String::as_str).collect::<Vec<_>>(),
                ),
            ));
            return None;
        }
        (None, [only]) => only,
        // The missing source has been reported.
        (None, []) => return None,
        (None, several) => {
            let streams: Vec<String> = several
                .iter()
                .map(|source| format!("{source}/{feed}"))
                .collect();
            let streams: Vec<&str> = streams.iter().map(String::as_str).collect();
            let message = format!(
                "`{feed}` is ambiguous: there are {} sources.",
                several.len()
            );
            r.issue(Issue::new(
                span,
                message,
                "which source?",
                format!("name it in `from`: {}", list(&streams)),
            ));
            return None;
        }
    };
    let order = order.unwrap_or(match kind {
        FeedKind::Audit => Order::None,
        FeedKind::Sessions => Order::Session,
    });
    Some(Input {
        source: source.to_owned(),
        feed: kind,
        order,
    })
}
