//! An audit as a document that is kept elsewhere, and compared with the store later.
//!
//! The digest is SHA-256 over the canonical form of the report: JSON without white space, the keys
//! of each object in the order of their bytes. It proves that the report is the one whose digest
//! somebody kept, and nothing about who made it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use lockgate_model::{Books, Day, Millis, Seq, SeqRange};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::LedgerError;
use crate::audit::{Audit, AuditQuery, EpochAudit, Finding, StreamAudit};
use crate::reads::Reads;
use crate::schema::Checksum;
use crate::verify::Mark;

mod gaps;

use gaps::{ReportedGap, of_gap, reported_gap};

/// The form of the document. Version 1 had no streams: their blocks cannot be compared with it.
/// Version 2 did not name its gaps, and had none at first.
const VERSION: u64 = 3;

/// Blocks whose checksums one digest in a report is taken of. Retention removes whole blocks: those
/// that share a digest with a removed one cannot be compared any more.
const BLOCKS_PER_DIGEST: usize = 16;

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
    /// By name. `None`: the report is of version 1.
    streams: Option<BTreeMap<String, ReportedStream>>,
    /// `None`: the release that wrote the report had no gaps.
    gaps: Option<Vec<ReportedGap>>,
}

#[derive(Clone, Debug, PartialEq)]
struct ReportedStream {
    kept: SeqRange,
    read: BTreeMap<Day, u64>,
    blocks: Vec<BlockDigest>,
}

/// The blocks that begin in a part of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
struct BlockDigest {
    entries: SeqRange,
    count: u64,
    digest: String,
}

impl BlockDigest {
    fn of(blocks: &[(Seq, Checksum)], end: Seq) -> BlockDigest {
        let mut hasher = Sha256::new();
        for (first, checksum) in blocks {
            hasher.update(first.to_be_bytes());
            hasher.update(checksum);
        }
        BlockDigest {
            entries: blocks.first().map_or(end, |(first, _)| *first)..end,
            count: blocks.len() as u64,
            digest: hex(&hasher.finalize()),
        }
    }

    fn all(stream: &StreamAudit) -> Vec<BlockDigest> {
        let slices: Vec<_> = stream.blocks.chunks(BLOCKS_PER_DIGEST).collect();
        let ends = slices
            .iter()
            .skip(1)
            .filter_map(|slice| Some(slice.first()?.0));
        let ends = ends.chain([stream.kept.end]);
        let digests = slices.iter().zip(ends);
        digests
            .map(|(slice, end)| BlockDigest::of(slice, end))
            .collect()
    }
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
    /// Blocks whose checksums are those in the report.
    pub blocks: u64,
    /// Blocks of the report that cannot be compared: retention has removed them since, or one
    /// next to them.
    pub removed_blocks: u64,
    /// The report is of version 1, which says nothing about blocks.
    pub is_without_blocks: bool,
    /// Gaps of the report that are on the books as they were, or as what may become of them.
    pub gaps: u64,
    /// The report was written before gaps were on the books.
    pub is_without_gaps: bool,
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
        "streams": audit.streams.iter().map(of_stream).collect::<Vec<_>>(),
        "gaps": audit.gaps.iter().map(|(source, gap)| of_gap(source, gap)).collect::<Vec<_>>(),
    });
    let digest = hex(&Sha256::digest(canonical(&report)));
    format!("{}\n", json!({ "report": report, "sha256": digest }))
}

fn of_stream(stream: &StreamAudit) -> Value {
    let read = stream.read.iter();
    let blocks = BlockDigest::all(stream);
    let blocks = blocks.iter().map(|blocks| {
        json!([
            blocks.entries.start,
            blocks.entries.end,
            blocks.count,
            blocks.digest
        ])
    });
    json!({
        "stream": stream.name, "oldest": stream.kept.start, "next": stream.kept.end,
        "read": read.map(|(day, read)| json!([day.0, read])).collect::<Vec<_>>(),
        "blocks": blocks.collect::<Vec<_>>(),
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
        let version = report.get("version").and_then(Value::as_u64);
        if !version.is_some_and(|version| (1..=VERSION).contains(&version)) {
            return Err(not("its version is unknown to this release"));
        }
        let read = || -> Option<AuditReport> {
            let chains = report.get("chains")?.as_array()?.iter();
            Some(AuditReport {
                digest: found.clone(),
                made_at: report.get("made-at")?.as_i64()?,
                store: text_of(report, "store")?.to_owned(),
                chains: chains.map(reported).collect::<Option<_>>()?,
                streams: match version {
                    Some(1) => None,
                    _ => {
                        let streams = report.get("streams")?.as_array()?.iter();
                        Some(streams.map(reported_stream).collect::<Option<_>>()?)
                    }
                },
                gaps: match report.get("gaps") {
                    None if version < Some(VERSION) => None,
                    gaps => {
                        let gaps = gaps?.as_array()?.iter();
                        Some(gaps.map(reported_gap).collect::<Option<_>>()?)
                    }
                },
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
        let mut comparison = Comparison {
            is_without_blocks: self.streams.is_none(),
            is_without_gaps: self.gaps.is_none(),
            ..Comparison::default()
        };
        for (name, reported) in self.streams.iter().flatten() {
            reported.compare(name, &audit, &mut comparison);
        }
        for gap in self.gaps.iter().flatten() {
            match gap.compare(&audit.gaps) {
                Some(finding) => comparison.findings.push(finding),
                None => comparison.gaps += 1,
            }
        }
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

impl ReportedStream {
    fn compare(&self, name: &str, audit: &Audit, comparison: &mut Comparison) {
        let findings = &mut comparison.findings;
        let mut find = |day, place: String, what: String| {
            findings.push(Finding::in_stream(name, day, place, what));
        };
        let Some(now) = audit.streams.iter().find(|now| now.name == name) else {
            let what = "the report has it, and the store does not".to_owned();
            return find(None, "the stream".to_owned(), what);
        };
        let (said, found) = (&self.kept, &now.kept);
        if found.start < said.start || found.end < said.end {
            let what = format!(
                "the report has entries {}..{}, and the store {}..{}: the end of the stream was \
                 removed, or the store is an older copy",
                said.start, said.end, found.start, found.end
            );
            find(None, "the end of the stream".to_owned(), what);
        }
        for (&day, &said) in &self.read {
            let found = now.read.get(&day).copied().unwrap_or(0);
            if found < said {
                let what = format!("the report has {said}, and the store {found}");
                find(Some(day), "the events read of the day".to_owned(), what);
            }
        }
        for said in &self.blocks {
            if said.entries.start < found.start {
                comparison.removed_blocks += said.count;
                continue;
            }
            let from = |seq| now.blocks.partition_point(|(first, _)| *first < seq);
            let blocks = &now.blocks[from(said.entries.start)..from(said.entries.end)];
            if BlockDigest::of(blocks, said.entries.end) == *said {
                comparison.blocks += said.count;
                continue;
            }
            let place = format!(
                "the blocks of entries {}..{}",
                said.entries.start, said.entries.end
            );
            let what = "they are not those in the report: events were replaced or removed";
            find(None, place, what.to_owned());
        }
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
        // Nothing that was read is ever read less.
        for (&day, said) in &self.days {
            let found = now.days.iter().find(|found| found.day == day);
            let found = found.map_or(0, |found| found.books.read);
            if found < said.read {
                let what = format!("the report has read {}, and the store {found}", said.read);
                find(Some(day), "the events read of the day", what);
            }
        }
        match &now.mark {
            Some(mark) => {
                self.compare_at(mark, find);
                Compared::Exactly
            }
            None if now.chain.links() < self.links => {
                let what = format!(
                    "the report has {} links, and the store {}: the end of the chain was removed, \
                     or the store is an older copy",
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
                    "the report has delivered, dropped and dead {said:?}, and up to the same link \
                     the store has {found:?}"
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
            let grew = found.delivered >= said.delivered && found.dropped >= said.dropped;
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

fn reported_stream(value: &Value) -> Option<(String, ReportedStream)> {
    let members = value.as_object()?;
    let day = |value: &Value| {
        let day = Day(i32::try_from(value.get(0)?.as_i64()?).ok()?);
        Some((day, value.get(1)?.as_u64()?))
    };
    let blocks = |value: &Value| {
        Some(BlockDigest {
            entries: value.get(0)?.as_u64()?..value.get(1)?.as_u64()?,
            count: value.get(2)?.as_u64()?,
            digest: value.get(3)?.as_str()?.to_owned(),
        })
    };
    let of = |name: &str| members.get(name)?.as_array().map(|values| values.iter());
    let stream = ReportedStream {
        kept: members.get("oldest")?.as_u64()?..members.get("next")?.as_u64()?,
        read: of("read")?.map(day).collect::<Option<_>>()?,
        blocks: of("blocks")?.map(blocks).collect::<Option<_>>()?,
    };
    // A stretch that ends before it begins would be compared with nothing.
    let is_sound = stream
        .blocks
        .iter()
        .all(|blocks| !blocks.entries.is_empty());
    is_sound
        .then(|| (text_of(members, "stream").map(str::to_owned), stream))
        .and_then(|(name, stream)| Some((name?, stream)))
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
