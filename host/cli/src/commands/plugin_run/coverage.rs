//! How much of what went into a mapper came out as ECS: by event type, and by source field.

use std::collections::BTreeMap;
use std::fmt::Write;

use lockgate_observe::escape;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::commands::assets;

/// Event types that are told apart. Names come from the input, which may be anything.
const TYPES_MAX: usize = 1000;

/// Different unmapped fields of one event type that are told apart.
const FIELDS_MAX: usize = 100;

/// Bytes of a name or a message that are kept, escaped.
const NAME_MAX: usize = 200;

/// Bytes of a line of fields.
const LINE: usize = 110;

/// Where the mapper leaves what it does not know.
const LEFT: &str = "teleport.audit";

/// Fields that a search needs, with the heading of their column.
const ASKED: [(&str, &str); 7] = [
    ("event.category", "category"),
    ("event.type", "type"),
    ("event.outcome", "outcome"),
    ("user.name", "user.name"),
    ("related.ip", "related.ip"),
    ("related.hosts", ".hosts"),
    ("related.user", ".user"),
];

/// What became of one event.
pub(super) enum Mapped<'a> {
    Documents(&'a [String]),
    Dropped,
    /// No result: the problem is told elsewhere.
    Failed,
}

/// Counts of one run, in memory that does not grow with the input.
#[derive(Debug, Default)]
pub(super) struct Coverage {
    types: BTreeMap<String, Row>,
    /// All event types past [`TYPES_MAX`].
    others: Row,
}

/// Of one event type.
#[derive(Clone, Debug, Default, Serialize)]
struct Row {
    events: u64,
    documents: u64,
    dropped: u64,
    /// Without a result.
    failed: u64,
    /// With a document whose `event.kind` is `pipeline_error`.
    pipeline_errors: u64,
    first_error: Option<String>,
    /// Events with a document that has the field.
    #[serde(flatten)]
    has: BTreeMap<&'static str, u64>,
    /// Events that hold the field, by path.
    unmapped: BTreeMap<String, u64>,
    /// Occurrences of further fields.
    unmapped_left_out: u64,
}

impl Coverage {
    /// `source`: the event's text, a JSON object.
    pub(super) fn add(&mut self, source: &str, mapped: Mapped<'_>) {
        let source: Value = serde_json::from_str(source).unwrap_or_default();
        let name = escape(source.get("event").and_then(Value::as_str).unwrap_or("(no type)"), NAME_MAX);
        let known = self.types.len() < TYPES_MAX || self.types.contains_key(&*name);
        let row = if known { self.types.entry(name.into_owned()).or_default() } else { &mut self.others };
        row.events += 1;
        match mapped {
            Mapped::Dropped => row.dropped += 1,
            Mapped::Failed => row.failed += 1,
            Mapped::Documents(texts) => {
                let documents: Vec<Value> = texts.iter().filter_map(|text| serde_json::from_str(text).ok()).collect();
                row.add(&source, &documents);
            }
        }
    }

    /// For people: one line an event type, then the fields.
    pub(super) fn table(&self) -> String {
        let mut rows: Vec<(&str, &Row)> = self.types.iter().map(|(name, row)| (name.as_str(), row)).collect();
        rows.sort_by_key(|(name, row)| (std::cmp::Reverse(row.events), *name));
        let left_out = format!("(types past {TYPES_MAX})");
        if self.others.events > 0 {
            rows.push((&left_out, &self.others));
        }
        let mut all = Row::default();
        rows.iter().for_each(|(_, row)| all.sum(row));

        let width = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0).clamp("event type".len(), 48);
        let mut text = format!("{:width$} {:>9} {:>7}", "event type", "events", "errors");
        ASKED.iter().for_each(|(_, heading)| _ = write!(text, " {:>1$}", heading, column(heading)));
        text.push('\n');
        for (name, row) in rows.iter().copied().chain([("all", &all)]) {
            _ = write!(text, "{name:width$} {:>9} {:>7}", row.events, row.pipeline_errors + row.failed);
            for (field, heading) in ASKED {
                _ = write!(text, " {:>1$}", share(row.has.get(field).copied().unwrap_or(0), row.events - row.dropped), column(heading));
            }
            text.push('\n');
        }
        if all.dropped > 0 {
            _ = writeln!(text, "\n{} of these events were dropped by the mapper; shares are of the others.", all.dropped);
        }
        errors(&mut text, &rows);
        fields(&mut text, &rows);
        text
    }

    /// For scripts: one object. Figures are events, not shares.
    pub(super) fn json(&self) -> String {
        #[derive(Serialize)]
        struct Report<'a> {
            types: &'a BTreeMap<String, Row>,
            /// Of the event types that are not told apart.
            types_left_out: Option<&'a Row>,
        }
        let report = Report { types: &self.types, types_left_out: Some(&self.others).filter(|others| others.events > 0) };
        // Strings and numbers alone: it cannot fail.
        serde_json::to_string(&report).unwrap_or_default() + "\n"
    }
}

impl Row {
    fn add(&mut self, source: &Value, documents: &[Value]) {
        self.documents += documents.len() as u64;
        let any = |holds: &dyn Fn(&Value) -> bool| documents.iter().any(holds);
        for (field, _) in ASKED {
            *self.has.entry(field).or_default() += u64::from(any(&|document| at(document, field).is_some()));
        }
        let failed = |document: &Value| at(document, "event.kind").is_some_and(|kind| kind == "pipeline_error");
        if let Some(document) = documents.iter().find(|document| failed(document)) {
            self.pipeline_errors += 1;
            self.first_error.get_or_insert_with(|| match at(document, "error.message") {
                Some(Value::String(message)) => escape(message, NAME_MAX).into_owned(),
                Some(Value::Array(messages)) if messages.len() == 1 && messages[0].is_string() => {
                    escape(messages[0].as_str().unwrap_or_default(), NAME_MAX).into_owned()
                }
                Some(message) => escape(&message.to_string(), NAME_MAX).into_owned(),
                None => "no `error.message`".into(),
            });
        }
        let left: Vec<&Value> = documents.iter().filter_map(|document| at(document, LEFT)).collect();
        if let Value::Object(source) = source {
            self.compare(source, &left, LEFT, "");
        }
    }

    /// Counts the fields below `source` that are at the same place below one of `left`, and that no index template of ours declares.
    fn compare(&mut self, source: &Map<String, Value>, left: &[&Value], declared: &str, path: &str) {
        for (key, value) in source {
            let left: Vec<&Value> = left.iter().filter_map(|left| left.get(key)).collect();
            let declared = format!("{declared}.{key}");
            // Something else may have been put under the same name.
            let same = left.iter().any(|left| match value {
                Value::Object(_) => left.is_object(),
                // Nothing empty stays in a list either.
                Value::Array(_) => left.is_array(),
                scalar => scalar == *left,
            });
            if !same || assets::is_declared(&declared) {
                continue;
            }
            let path = if path.is_empty() { shown(key) } else { format!("{path}.{}", shown(key)) };
            match value {
                Value::Object(inner) if !inner.is_empty() => self.compare(inner, &left, &declared, &path),
                _ if self.unmapped.len() < FIELDS_MAX || self.unmapped.contains_key(&path) => *self.unmapped.entry(path).or_default() += 1,
                _ => self.unmapped_left_out += 1,
            }
        }
    }

    fn sum(&mut self, other: &Row) {
        self.events += other.events;
        self.dropped += other.dropped;
        self.failed += other.failed;
        self.pipeline_errors += other.pipeline_errors;
        other.has.iter().for_each(|(field, count)| *self.has.entry(field).or_default() += count);
    }
}

/// Why documents are errors, the first message of each event type.
fn errors(text: &mut String, rows: &[(&str, &Row)]) {
    let mut heading = Some("\nErrors, with the first message:\n");
    for (name, row) in rows {
        let Some(message) = &row.first_error else { continue };
        text.push_str(heading.take().unwrap_or_default());
        _ = writeln!(text, "{:>9}  {name}: {}", row.pipeline_errors, message);
    }
}

fn fields(text: &mut String, rows: &[(&str, &Row)]) {
    if rows.iter().all(|(_, row)| row.unmapped.is_empty()) {
        text.push_str(if rows.is_empty() { "\nThere were no events.\n" } else { "\nEvery source field was mapped.\n" });
        return;
    }
    text.push_str(
        "\nSource fields that were not mapped, with the number of events that hold them; in the documents they are below `teleport.audit`:\n",
    );
    for (name, row) in rows.iter().filter(|(_, row)| !row.unmapped.is_empty()) {
        _ = writeln!(text, "{name}");
        let mut fields: Vec<_> = row.unmapped.iter().collect();
        fields.sort_by_key(|(path, count)| (std::cmp::Reverse(**count), *path));
        let mut line = String::new();
        for (number, (path, count)) in fields.iter().enumerate() {
            let comma = if number + 1 < fields.len() { "," } else { "" };
            let item = format!("{path} {count}{comma}");
            if !line.is_empty() && line.len() + item.len() > LINE {
                _ = writeln!(text, "   {line}");
                line.clear();
            }
            _ = write!(line, " {item}");
        }
        _ = writeln!(text, "   {line}");
        if row.unmapped_left_out > 0 {
            _ = writeln!(text, "    and others {} times: no more than {FIELDS_MAX} are told apart", row.unmapped_left_out);
        }
    }
}

/// A path of names without dots.
fn at<'a>(document: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(document, |value, key| value.get(key))
}

/// A key as it is, or as a JSON string where its dots or other characters would mislead.
fn shown(key: &str) -> String {
    let plain = |character: char| character.is_alphanumeric() || "_-@".contains(character);
    let key = escape(key, NAME_MAX);
    if !key.is_empty() && key.chars().all(plain) { key.into_owned() } else { format!("\"{key}\"") }
}

fn column(heading: &str) -> usize {
    heading.len().max(5) + 1
}

/// Whole per cent. 100 and 0 stand for all and none only.
fn share(part: u64, whole: u64) -> String {
    match part {
        _ if whole == 0 => "-".into(),
        0 => "0%".into(),
        _ if part >= whole => "100%".into(),
        _ => match part * 100 / whole {
            0 => "<1%".into(),
            share => format!("{share}%"),
        },
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn one(source: Value, document: Value) -> Coverage {
        let mut coverage = Coverage::default();
        coverage.add(&source.to_string(), Mapped::Documents(&[document.to_string()]));
        coverage
    }

    #[test]
    fn a_field_is_unmapped_where_it_still_stands_and_nothing_declares_it() {
        let unmapped = |source: Value, left: Value| -> Vec<String> {
            let coverage = one(json!({ "event": "t", "x": source }), json!({ "teleport": { "audit": { "x": left } } }));
            coverage.types["t"].unmapped.keys().cloned().collect()
        };
        for (source, left, expected) in [
            (json!(1), json!(1), vec!["x"]),
            (json!([1, null]), json!([1]), vec!["x"]),
            (json!({ "a": 1, "b": { "c": 2, "d": 3 } }), json!({ "a": 1, "b": { "d": 3 } }), vec!["x.a", "x.b.d"]),
            (json!({ "a.b": 1, "a": { "b": 2 }, "\u{1b}[2J": 3 }), json!({ "a.b": 1, "a": { "b": 2 }, "\u{1b}[2J": 3 }), {
                vec![r#"x."\u{1b}[2J""#, r#"x."a.b""#, "x.a.b"]
            }),
            (json!("bob"), json!({ "kind": "human" }), vec![]),
            (json!(2), json!("MACOS"), vec![]),
            (json!({}), Value::Null, vec![]),
        ] {
            assert_eq!(unmapped(source.clone(), left), expected, "{source}");
        }
        let device = json!({ "device_id": "d", "asset_tag": "a", "later": 1 });
        let coverage = one(json!({ "event": "device.create", "device": device }), json!({ "teleport": { "audit": { "device": device } } }));
        let keys: Vec<_> = coverage.types["device.create"].unmapped.keys().collect();
        assert_eq!(keys, ["device.later"], "the others are where the index template declares them");
    }

    #[test]
    fn shares_are_all_or_none_only_where_they_are() {
        for (part, whole, expected) in
            [(0, 0, "-"), (0, 9, "0%"), (1, 1000, "<1%"), (1, 2, "50%"), (999, 1000, "99%"), (1000, 1000, "100%")]
        {
            assert_eq!(share(part, whole), expected);
        }
    }

    #[test]
    fn hostile_input_costs_no_memory() {
        let mut coverage = Coverage::default();
        for number in 0..3000 {
            let event = json!({ "event": format!("t{number}\n"), "x": 1 }).to_string();
            coverage.add(&event, Mapped::Failed);
        }
        let many: Map<String, Value> = (0..500).map(|number| (format!("f{number}"), json!(1))).collect();
        let mut source = many.clone();
        source.insert("event".into(), json!("t0\n"));
        coverage.add(&Value::Object(source).to_string(), Mapped::Documents(&[json!({ "teleport": { "audit": many } }).to_string()]));
        let table = coverage.table();
        assert_eq!((coverage.types.len(), coverage.others.events), (TYPES_MAX, 2000));
        assert!(table.contains("(types past 1000)") && table.contains("and others 400 times"), "{table}");
        assert!(table.contains(r"t0\n") && table.lines().count() < 1200);
        let report: Value = serde_json::from_str(&coverage.json()).unwrap();
        assert_eq!((&report["types"][r"t0\n"]["unmapped_left_out"], &report["types_left_out"]["failed"]), (&json!(400), &json!(2000)));
    }
}
