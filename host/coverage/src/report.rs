//! The report: counts by event type, and the fields that stay unmapped.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use serde::Serialize;

use super::tally::{SHOWN, Tally};
use super::{Coverage, table};

/// The counts, in the order in which they are shown. Its JSON is the answer of `--coverage
/// --json`: all figures are events.
#[derive(Debug, Serialize)]
pub struct CoverageReport {
    pub(super) component: String,
    pub(super) total: Counts,
    /// Most events first, then by name.
    pub(super) types: Vec<Type>,
    /// The event types past the limit, as one.
    pub(super) other_types: Option<Type>,
    /// Lines that are not events.
    pub(super) unreadable_lines: u64,
    /// Mapped events that are nested too deep to be looked into; they count as having nothing.
    pub(super) unexamined: u64,
    /// False: no document had `teleport.audit`, so that nothing is known of unmapped fields.
    pub(super) unmapped_known: bool,
}

/// `events` is the sum of `mapped`, `dropped` and `no_result`.
#[derive(Debug, Serialize)]
pub(super) struct Counts {
    pub(super) events: u64,
    /// Became documents.
    pub(super) mapped: u64,
    pub(super) dropped: u64,
    pub(super) no_result: u64,
    /// Of the mapped ones.
    pub(super) pipeline_errors: u64,
    /// Of the mapped ones, those that have each field.
    pub(super) has: BTreeMap<&'static str, u64>,
}

#[derive(Debug, Serialize)]
pub(super) struct Type {
    /// Empty if events have none.
    #[serde(rename = "type")]
    pub(super) name: String,
    #[serde(flatten)]
    pub(super) counts: Counts,
    pub(super) first_pipeline_error: Option<String>,
    /// Most events first, then by path.
    pub(super) unmapped: Vec<Unmapped>,
    /// How often fields occurred that are past the limit, and not in `unmapped`.
    pub(super) unmapped_not_listed: u64,
}

#[derive(Debug, Serialize)]
pub(super) struct Unmapped {
    pub(super) field: String,
    pub(super) events: u64,
}

impl CoverageReport {
    pub(super) fn new(coverage: Coverage, component: &str, problems: u64) -> CoverageReport {
        let Coverage {
            types,
            others,
            audit_seen,
            unexamined,
        } = coverage;
        let mut total = Tally::default();
        types
            .values()
            .chain(&others)
            .for_each(|tally| total.count_in(tally));
        let mut types: Vec<Type> = types
            .into_iter()
            .map(|(name, tally)| Type::new(name, tally))
            .collect();
        types.sort_by(|one, other| {
            (Reverse(one.counts.events), &one.name)
                .cmp(&(Reverse(other.counts.events), &other.name))
        });
        CoverageReport {
            component: component.to_owned(),
            unreadable_lines: problems.saturating_sub(total.no_result),
            total: Counts::of(&total),
            types,
            other_types: others.map(|tally| Type::new("(other types)".into(), tally)),
            unexamined,
            unmapped_known: audit_seen,
        }
    }

    /// For people.
    pub fn text(&self) -> String {
        table::render(self)
    }

    /// All rows, the one of the further types last.
    pub(super) fn rows(&self) -> impl Iterator<Item = &Type> {
        self.types.iter().chain(&self.other_types)
    }
}

impl Type {
    fn new(name: String, tally: Tally) -> Type {
        let counts = Counts::of(&tally);
        let mut unmapped: Vec<Unmapped> = tally
            .fields
            .into_iter()
            .map(|(field, seen)| Unmapped {
                field,
                events: seen.events,
            })
            .collect();
        unmapped.sort_by(|one, other| {
            (Reverse(one.events), &one.field).cmp(&(Reverse(other.events), &other.field))
        });
        Type {
            name,
            counts,
            first_pipeline_error: tally.first_error,
            unmapped,
            unmapped_not_listed: tally.unlisted,
        }
    }

    pub(super) fn shown(&self) -> &str {
        if self.name.is_empty() {
            "(no type)"
        } else {
            &self.name
        }
    }
}

impl Counts {
    fn of(tally: &Tally) -> Counts {
        Counts {
            events: tally.events(),
            mapped: tally.mapped,
            dropped: tally.dropped,
            no_result: tally.no_result,
            pipeline_errors: tally.pipeline_errors,
            has: SHOWN.into_iter().zip(tally.has).collect(),
        }
    }
}
