//! Counts for one event type.

use std::collections::HashMap;

use lockgate_model::escape;
use serde_json::Value;

use super::unmapped::{at, empty};
use super::{FIELDS, MESSAGE};

/// The ECS fields whose share of documents the report shows.
pub(super) const SHOWN: [&str; 7] = [
    "event.category",
    "event.type",
    "event.outcome",
    "user.name",
    "related.ip",
    "related.hosts",
    "related.user",
];

/// The counts of one event type.
#[derive(Clone, Default)]
pub(super) struct Tally {
    /// Events that became documents.
    pub(super) mapped: u64,
    pub(super) dropped: u64,
    pub(super) no_result: u64,
    /// Events with each of [`SHOWN`].
    pub(super) has: [u64; SHOWN.len()],
    pub(super) pipeline_errors: u64,
    pub(super) first_error: Option<String>,
    /// Unmapped fields by path.
    pub(super) fields: HashMap<String, Field>,
    /// Occurrences of unmapped fields past [`FIELDS`].
    pub(super) unlisted: u64,
}

#[derive(Clone, Default)]
pub(super) struct Field {
    pub(super) events: u64,
    /// `mapped` when it was counted last: two fields of one event whose shown names are equal are
    /// counted once.
    last: u64,
}

impl Tally {
    /// One more event, with its documents.
    pub(super) fn add(&mut self, documents: &[Value]) {
        self.mapped += 1;
        for (count, field) in self.has.iter_mut().zip(SHOWN) {
            let held = documents
                .iter()
                .any(|document| at(document, field).is_some_and(|value| !empty(value)));
            *count += u64::from(held);
        }
        let failed = documents.iter().find(|document| {
            at(document, "event.kind").is_some_and(|kind| says(kind, "pipeline_error"))
        });
        if let Some(document) = failed {
            self.pipeline_errors += 1;
            if self.first_error.is_none() {
                self.first_error = at(document, "error.message")
                    .and_then(first_text)
                    .map(|text| escape(text, MESSAGE).into_owned());
            }
        }
    }

    /// A field of the event added last is unmapped.
    pub(super) fn stayed(&mut self, name: &str) {
        if let Some(field) = self.fields.get_mut(name) {
            field.events += u64::from(field.last != self.mapped);
            field.last = self.mapped;
        } else if self.fields.len() < FIELDS {
            self.fields.insert(
                name.to_owned(),
                Field {
                    events: 1,
                    last: self.mapped,
                },
            );
        } else {
            self.unlisted += 1;
        }
    }

    /// All events of the type.
    pub(super) fn events(&self) -> u64 {
        self.mapped + self.dropped + self.no_result
    }

    /// The counts of another type; its fields and messages stay there.
    pub(super) fn count_in(&mut self, other: &Tally) {
        self.mapped += other.mapped;
        self.dropped += other.dropped;
        self.no_result += other.no_result;
        self.pipeline_errors += other.pipeline_errors;
        self.has
            .iter_mut()
            .zip(other.has)
            .for_each(|(sum, count)| *sum += count);
    }
}

/// ECS allows a list wherever it has a text.
fn says(value: &Value, word: &str) -> bool {
    match value {
        Value::Array(list) => list.iter().any(|value| value == word),
        value => value == word,
    }
}

fn first_text(value: &Value) -> Option<&str> {
    match value {
        Value::Array(list) => list.iter().find_map(Value::as_str),
        value => value.as_str(),
    }
}
