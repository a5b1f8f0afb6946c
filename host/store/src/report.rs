//! An audit as a document that is kept elsewhere, and compared with the store later.
//!
//! The digest is SHA-256 over the canonical form of the report: JSON without white space, the keys
//! of each object in the order of their bytes. It proves that the report is the one whose digest
//! somebody kept, and nothing about who made it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use lockgate_model::{Books, Day, Gap, Millis};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::LedgerError;
use crate::audit::{Audit, AuditQuery, EpochAudit, Finding};
use crate::reads::Reads;
use crate::verify::Mark;

/// The form of the document.
const VERSION: u64 = 1;

/// The place of a chain in a report: pipeline, stream, epoch.
pub type ChainName = (String, String, u32);

/// Why a report was not written, or cannot be compared.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum ReportError {
    #[error("it is not a report of `lockgate audit --export`: {0}")]
    NotAReport(String),
    #[error("it was changed: its digest is {found}, and it says {said}")]
    Changed { said: String, found: String },
    #[error("it is of another store: its identity is {said}, and that of this store is {found}")]
    AnotherStore { said: String, found: String },
}

/// A report that is what its digest says.
#[derive(Clone, Debug, PartialEq)]
pub struct AuditReport {
    /// In hexadecimal.
    pub digest: String,
    pub made_at: Millis,
    store: String,
    chains: BTreeMap<ChainName, ReportedChain>,
}

#[derive(Clone, Debug, PartialEq)]
struct ReportedChain {
    links: u64,
    head: String,
    anchors: Vec<(u64, String)>,
    days: BTreeMap<Day, Books>,
}

/// How a report compares with the store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    pub findings: Vec<Finding>,
    /// Chains whose reported end is kept: compared link by link, with every count at that link.
    pub exact: u64,
    /// Chains whose reported end was folded since: compared at the anchors, and by the counts of
    /// days that can no longer change.
    pub by_anchor: u64,
}

/// Writes the report of an audit that holds.
pub fn write(audit: &Audit, store: &[u8], made_at: Millis) -> String {
    let chains: Vec<Value> = audit
        .pipelines
        .iter()
        .flat_map(|pipeline| {
            let epochs = pipeline.epochs.iter();
            epochs.map(|epoch| chain(&pipeline.name, epoch))
        })
        .collect();
    let report = json!({
        "version": VERSION,
        "store": hex(store),
        "made-at": made_at,
        "chains": chains,
        "gaps": audit.gaps.iter().map(|(source, gap)| of_gap(source, gap)).collect::<Vec<_>>(),
    });
    let digest = hex(&Sha256::digest(canonical(&report)));
    format!("{}\n", json!({ "report": report, "sha256": digest }))
}

fn of_gap(source: &str, gap: &Gap) -> Value {
    json!({
        "source": source, "feed": gap.feed.name(), "from": gap.from, "to": gap.to,
        "since": gap.since, "attempts": gap.attempts, "what": gap.what, "error": gap.error,
        "state": gap.state.name(), "ended-at": gap.state.at(), "events": gap.state.events(),
    })
}

fn chain(pipeline: &str, epoch: &EpochAudit) -> Value {
    let anchors: Vec<Value> = epoch
        .anchors
        .iter()
        .map(|(links, hash)| json!([links, hex(hash)]))
        .collect();
    let days: Vec<Value> = epoch
        .days
        .iter()
        .map(|row| {
            let books = row.books;
            json!({
                "day": row.day.to_string(), "number": row.day.0, "read": books.read,
                "delivered": books.delivered, "dropped": books.dropped, "dead": books.dead,
                "waiting": books.waiting, "counted-from": row.counted.name(),
            })
        })
        .collect();
    json!({
        "pipeline": pipeline, "stream": epoch.chain.stream, "epoch": epoch.epoch,
        "links": epoch.chain.links(), "head": hex(&epoch.chain.hash), "anchors": anchors,
        "days": days,
    })
}

/// JSON without white space, with the keys of each object in the order of their bytes.
fn canonical(value: &Value) -> String {
    let mut text = String::new();
    append(value, &mut text);
    text
}

fn append(value: &Value, text: &mut String) {
    match value {
        Value::Object(members) => {
            let sorted: BTreeMap<&String, &Value> = members.iter().collect();
            text.push('{');
            for (nth, (key, value)) in sorted.into_iter().enumerate() {
                if nth > 0 {
                    text.push(',');
                }
                let _ = write!(text, "{}:", Value::String(key.clone()));
                append(value, text);
            }
            text.push('}');
        }
        Value::Array(values) => {
            text.push('[');
            for (nth, value) in values.iter().enumerate() {
                if nth > 0 {
                    text.push(',');
                }
                append(value, text);
            }
            text.push(']');
        }
        value => {
            let _ = write!(text, "{value}");
        }
    }
}

impl AuditReport {
    /// Reads a report, and refuses one that is not what its digest says.
    pub fn parse(text: &str) -> Result<AuditReport, ReportError> {
        let not = |what: &str| ReportError::NotAReport(what.to_owned());
        let document: Value = serde_json::from_str(text)
            .map_err(|error| ReportError::NotAReport(error.to_string()))?;
        let members = document
            .as_object()
            .ok_or_else(|| not("it is not an object"))?;
        let said = text_of(members, "sha256").ok_or_else(|| not("it has no `sha256`"))?;
        let report = members
            .get("report")
            .ok_or_else(|| not("it has no `report`"))?;
        let found = hex(&Sha256::digest(canonical(report)));
        if found != said || members.len() != 2 {
            return Err(ReportError::Changed {
                said: said.to_owned(),
                found,
            });
        }
        let report = report
            .as_object()
            .ok_or_else(|| not("`report` is not an object"))?;
        if report.get("version").and_then(Value::as_u64) != Some(VERSION) {
            return Err(not("its version is unknown to this release"));
        }
        let read = || -> Option<AuditReport> {
            let chains = report.get("chains")?.as_array()?.iter();
            Some(AuditReport {
                digest: found.clone(),
                made_at: report.get("made-at")?.as_i64()?,
                store: text_of(report, "store")?.to_owned(),
                chains: chains.map(reported).collect::<Option<_>>()?,
            })
        };
        read().ok_or_else(|| not("a member is missing, or of another type"))
    }

    /// Audits the store and compares it with the report.
    pub(crate) fn compare(
        &self,
        reads: &Reads,
    ) -> Result<Result<(Audit, Comparison), ReportError>, LedgerError> {
        let found = hex(&reads.identity()?);
        if found != self.store {
            return Ok(Err(ReportError::AnotherStore {
                said: self.store.clone(),
                found,
            }));
        }
        let marks = self
            .chains
            .iter()
            .map(|(name, chain)| (name.clone(), chain.links))
            .collect();
        let audit = crate::audit::run(reads, &AuditQuery::default(), &marks)?;
        let mut comparison = Comparison::default();
        for ((pipeline, stream, epoch), reported) in &self.chains {
            let mut find = |day, place: &str, what: String| {
                comparison.findings.push(Finding {
                    pipeline: Some(pipeline.clone()),
                    stream: Some(stream.clone()),
                    day,
                    place: place.to_owned(),
                    what,
                });
            };
            let mut epochs = audit
                .pipelines
                .iter()
                .filter(|found| found.name == *pipeline)
                .flat_map(|found| &found.epochs);
            let now = epochs.find(|now| now.chain.stream == *stream && now.epoch == *epoch);
            match now {
                None => find(
                    None,
                    "the chain of commits",
                    "the report has it, and the store does not".to_owned(),
                ),
                Some(now) => match reported.compare(now, &mut find) {
                    Compared::Exactly => comparison.exact += 1,
                    Compared::ByAnchor => comparison.by_anchor += 1,
                },
            }
        }
        Ok(Ok((audit, comparison)))
    }
}

enum Compared {
    Exactly,
    ByAnchor,
}

impl ReportedChain {
    fn compare(
        &self,
        now: &EpochAudit,
        find: &mut impl FnMut(Option<Day>, &str, String),
    ) -> Compared {
        for (links, hash) in &self.anchors {
            let place = format!("the anchor after {links} links");
            let found = now.anchors.iter().find(|(found, _)| found == links);
            match found {
                None => find(
                    None,
                    &place,
                    "the report has it, and the store does not".to_owned(),
                ),
                Some((_, found)) if hex(found) != *hash => {
                    find(None, &place, "it is not the one in the report".to_owned());
                }
                Some(_) => {}
            }
        }
        match &now.mark {
            Some(mark) => {
                self.compare_at(mark, find);
                Compared::Exactly
            }
            None if now.chain.links() < self.links => {
                let what = format!(
                    "the report has {} links, and the store {}: the end of the chain was removed, or \
                     the store is an older copy",
                    self.links,
                    now.chain.links()
                );
                find(None, "the end of the chain", what);
                Compared::Exactly
            }
            None => {
                self.compare_days(now, find);
                Compared::ByAnchor
            }
        }
    }

    /// The report's end is kept: everything up to it has to be the same.
    fn compare_at(&self, mark: &Mark, find: &mut impl FnMut(Option<Day>, &str, String)) {
        if hex(&mark.hash) != self.head {
            let place = format!("the chain after {} links", self.links);
            find(
                None,
                &place,
                "it is not the one in the report: what the report counts was changed".to_owned(),
            );
        }
        for (&day, said) in &self.days {
            let found = mark.days.get(&day).copied().unwrap_or_default();
            // An entry that waits again is dead no more, and is not counted among the outcomes.
            let (said, found) = (
                (said.delivered, said.dropped, said.dead),
                (found.delivered, found.dropped, found.dead),
            );
            if said != found {
                let what = format!(
                    "the report has delivered, dropped and dead {said:?}, and up to the same link the \
                     store has {found:?}"
                );
                find(Some(day), "the counts of the day", what);
            }
        }
    }

    /// The report's end was folded since. A day on which nothing waited and nothing was dead can
    /// change no more, but for events that are read late: those add to it.
    fn compare_days(&self, now: &EpochAudit, find: &mut impl FnMut(Option<Day>, &str, String)) {
        let days: BTreeMap<Day, Books> = now.days.iter().map(|row| (row.day, row.books)).collect();
        for (&day, said) in &self.days {
            let found = days.get(&day).copied().unwrap_or_default();
            let grew = found.read >= said.read
                && found.delivered >= said.delivered
                && found.dropped >= said.dropped;
            let is_closed = said.waiting == 0 && said.dead == 0 && found.read == said.read;
            if !grew || (is_closed && found != *said) {
                let what = format!("the report has {said:?}, and the store {found:?}");
                find(Some(day), "the counts of the day", what);
            }
        }
    }
}

fn reported(value: &Value) -> Option<(ChainName, ReportedChain)> {
    let members = value.as_object()?;
    let name = (
        text_of(members, "pipeline")?.to_owned(),
        text_of(members, "stream")?.to_owned(),
        u32::try_from(members.get("epoch")?.as_u64()?).ok()?,
    );
    let anchor = |value: &Value| {
        let links = value.get(0)?.as_u64()?;
        Some((links, value.get(1)?.as_str()?.to_owned()))
    };
    let day = |value: &Value| {
        let count = |name: &str| value.get(name).and_then(Value::as_u64);
        let day = Day(i32::try_from(value.get("number")?.as_i64()?).ok()?);
        let books = Books {
            read: count("read")?,
            delivered: count("delivered")?,
            dropped: count("dropped")?,
            dead: count("dead")?,
            waiting: count("waiting")?,
        };
        Some((day, books))
    };
    let chain = ReportedChain {
        links: members.get("links")?.as_u64()?,
        head: text_of(members, "head")?.to_owned(),
        anchors: members
            .get("anchors")?
            .as_array()?
            .iter()
            .map(anchor)
            .collect::<Option<_>>()?,
        days: members
            .get("days")?
            .as_array()?
            .iter()
            .map(day)
            .collect::<Option<_>>()?,
    };
    Some((name, chain))
}

fn text_of<'a>(members: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    members.get(name)?.as_str()
}

/// In hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_canonical_form_has_sorted_keys_and_no_white_space() {
        let value: Value =
            serde_json::from_str(r#" { "b": [1, -2, {"z": null, "a": "\u00e9\n"}], "a": true } "#)
                .unwrap();
        assert_eq!(
            canonical(&value),
            "{\"a\":true,\"b\":[1,-2,{\"a\":\"é\\n\",\"z\":null}]}"
        );
    }

    #[test]
    fn what_is_not_a_report_is_refused() {
        for text in ["", "[]", "{}", r#"{"sha256":"x"}"#] {
            let refused = AuditReport::parse(text);
            assert!(matches!(refused, Err(ReportError::NotAReport(_))), "{text}");
        }
        let changed = AuditReport::parse(r#"{"report":{},"sha256":"00"}"#);
        assert!(matches!(changed, Err(ReportError::Changed { .. })));
    }
}
