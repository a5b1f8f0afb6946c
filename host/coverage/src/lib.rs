//! How much of what events say a mapper carries over to ECS: events and their documents in, a
//! report out.
//!
//! **Shares** are of the events that became documents. An event has a field if one of its
//! documents has it, nested or with dots in its name, and it is not empty.
//!
//! **Unmapped** is a source field that still stands where a mapper leaves what it does not know:
//! under `teleport.audit`, at its own path, with its own value, and that the index template of
//! `lockgate assets elasticsearch` does not declare there.
//! - A field is a leaf; a list is one leaf. Maps whose keys are users' own, such as labels, are one
//!   field too, else each key would be.
//! - What is empty (null, `""`, `{}`, `[]`) does not count as a field, nor inside one.
//! - A key with a dot may also be nested: `"addr.local"` as `addr.local`.
//! - A value that a mapper moved away and wrote back unchanged looks like one that stayed.
//! - Without `teleport.audit` in any document, nothing can be reported.
//!
//! Memory is bounded, whatever the events are: see [`TYPES`], [`FIELDS`] and the lengths next to
//! them.

mod report;
mod table;
mod tally;
mod template;
mod unmapped;

use std::collections::HashMap;

use lockgate_model::escape;
use serde_json::Value;

pub use self::report::CoverageReport;
use self::tally::Tally;

/// Event types with a row of their own; all further ones share one.
const TYPES: usize = 1_000;
/// Distinct unmapped fields that are listed for one event type. Of further ones only the
/// occurrences are counted.
const FIELDS: usize = 100;
/// Bytes of an event type that are shown, and of a field's path.
const NAME: usize = 120;
/// Bytes of a `pipeline_error`'s message.
const MESSAGE: usize = 300;

/// Counts while events pass by.
#[derive(Default)]
pub struct Coverage {
    types: HashMap<String, Tally>,
    /// Of the types past [`TYPES`].
    others: Option<Tally>,
    /// A document had `teleport.audit`.
    audit_seen: bool,
    /// Events that are nested too deep to be parsed, or whose documents are.
    unexamined: u64,
}

impl Coverage {
    /// An event, a JSON object, and what the mapper made of it: one document or more.
    pub fn mapped(&mut self, event_type: &str, payload: &str, documents: &[String]) {
        let event: Result<Value, _> = serde_json::from_str(payload);
        let documents: Result<Vec<Value>, _> = documents
            .iter()
            .map(|text| serde_json::from_str(text))
            .collect();
        let (Ok(event), Ok(documents)) = (event, documents) else {
            self.unexamined += 1;
            self.tally(event_type).mapped += 1;
            return;
        };
        let places: Vec<&Value> = documents
            .iter()
            .filter_map(|document| unmapped::at(document, "teleport.audit"))
            .filter(|audit| audit.is_object())
            .collect();
        self.audit_seen |= !places.is_empty();
        let tally = self.tally(event_type);
        tally.add(&documents);
        unmapped::visit(&event, &places, &mut |name| tally.stayed(name));
    }

    /// An event that the mapper did not want, or made no document of on purpose.
    pub fn dropped(&mut self, event_type: &str) {
        self.tally(event_type).dropped += 1;
    }

    /// An event that has no result.
    pub fn failed(&mut self, event_type: &str) {
        self.tally(event_type).no_result += 1;
    }

    /// `problems`: events without a result, and lines that are not events.
    pub fn report(self, component: &str, problems: u64) -> CoverageReport {
        CoverageReport::new(self, component, problems)
    }

    fn tally(&mut self, event_type: &str) -> &mut Tally {
        let name = escape(event_type, NAME);
        if !self.types.contains_key(&*name) && self.types.len() >= TYPES {
            return self.others.get_or_insert_default();
        }
        self.types.entry(name.into_owned()).or_default()
    }
}

#[cfg(test)]
mod tests;
