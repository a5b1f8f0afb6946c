//! `lockgate audit`: recounts the books and verifies the store.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use lockgate_model::{Day, Gap};
use lockgate_store::{
    Audit as Audited, AuditQuery, AuditReport, Comparison, EpochAudit, Finding, Inspector,
};
use serde_json::{Value, json};

use crate::args::Audit;
use crate::failure::Failure;
use crate::{print, setup};

pub(crate) fn run(command: &Audit) -> Result<(), Failure> {
    let inspector = command.place.auditor()?;
    let report = command.verify.as_deref().map(read).transpose()?;
    let (audit, comparison) = match &report {
        None => {
            let query = AuditQuery {
                pipeline: command.pipeline.clone(),
                day: command.day,
            };
            (inspector.audit(&query).map_err(Failure::failed)?, None)
        }
        Some((path, report)) => {
            let compared = inspector.compare(report).map_err(Failure::failed)?;
            let (audit, comparison) = compared.map_err(|error| of_report(path, &error))?;
            (audit, Some(comparison))
        }
    };
    let text = if command.json {
        format!("{}\n", document(&audit, comparison.as_ref()))
    } else {
        table(&audit, comparison.as_ref())
    };
    print::data(&text)?;
    let compared = comparison.as_ref().map_or(0, |found| found.findings.len()) as u64;
    let findings = audit.findings_total + compared;
    if findings > 0 {
        let places = if findings == 1 { "place" } else { "places" };
        return Err(Failure::failed(format!(
            "The audit does not hold: {findings} {places} differ."
        ))
        .hint(
            "keep a copy of the store as it is, and compare it with a backup or with a report of \
             `lockgate audit --export`",
        ));
    }
    match &command.export {
        Some(path) => export(path, &inspector, &audit),
        None => Ok(()),
    }
}

/// The value of `--day`.
pub(crate) fn day(text: &str) -> Result<Day, String> {
    let date: Date = text
        .parse()
        .map_err(|_| "write a day as 2026-01-31".to_owned())?;
    let start = date
        .to_zoned(TimeZone::UTC)
        .map_err(|error| error.to_string())?;
    Ok(Day::of(start.timestamp().as_millisecond()))
}

fn read(path: &Path) -> Result<(&Path, AuditReport), Failure> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        Failure::failed(format!("Reading `{}` failed: {error}.", path.display()))
    })?;
    let report = AuditReport::parse(&text).map_err(|error| of_report(path, &error))?;
    Ok((path, report))
}

fn of_report(path: &Path, error: &impl std::fmt::Display) -> Failure {
    Failure::failed(format!(
        "The report `{}` does not hold: {error}.",
        path.display()
    ))
}

fn export(path: &Path, inspector: &Inspector, audit: &Audited) -> Result<(), Failure> {
    let text = inspector
        .audit_report(audit, setup::now())
        .map_err(Failure::failed)?;
    let failed = |error: std::io::Error| {
        Failure::failed(format!("Writing `{}` failed: {error}.", path.display()))
    };
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(|error| match error.kind() {
            std::io::ErrorKind::AlreadyExists => Failure::failed(format!(
                "`{}` already exists, and a report is never overwritten.",
                path.display()
            )),
            _ => failed(error),
        })?;
    let written = file.write_all(text.as_bytes());
    if let Err(error) = written.and_then(|()| file.sync_all()) {
        // A part of a report proves nothing, and would be in the way of the next attempt.
        let _ = std::fs::remove_file(path);
        return Err(failed(error));
    }
    let report = AuditReport::parse(&text).map_err(Failure::failed)?;
    print::problem(&format!(
        "wrote `{}`, SHA-256 digest {}",
        path.display(),
        report.digest
    ));
    Ok(())
}

fn table(audit: &Audited, comparison: Option<&Comparison>) -> String {
    let mut text = String::new();
    for pipeline in &audit.pipelines {
        for epoch in &pipeline.epochs {
            chain(&mut text, &pipeline.name, epoch);
        }
    }
    if audit.pipelines.is_empty() {
        text += "no pipeline has run on this store\n\n";
    }
    let _ = writeln!(
        text,
        "blocks read and found as they were written: {}",
        audit.blocks
    );
    for finding in &audit.findings {
        let _ = writeln!(text, "does not hold: {finding}");
    }
    let more = audit.findings_total - audit.findings.len() as u64;
    if more > 0 {
        let _ = writeln!(text, "does not hold: {more} more");
    }
    if audit.findings_total == 0 {
        text += "the audit holds\n";
    }
    text += &gaps(&audit.gaps);
    if let Some(comparison) = comparison {
        for finding in &comparison.findings {
            let _ = writeln!(text, "differs from the report: {finding}");
        }
        if comparison.exact > 0 {
            let exact = chains(comparison.exact);
            let _ = writeln!(text, "{exact} compared with the report link by link");
        }
        if comparison.by_anchor > 0 {
            let _ = writeln!(
                text,
                "{} compared with the report by anchors and closed days: the end of the report has \
                 been folded into tallies since",
                chains(comparison.by_anchor)
            );
        }
        if comparison.is_without_blocks {
            text += "the report was written by an earlier release and has no digests of blocks: \
                     events that waited then are not compared\n";
        } else {
            let _ = writeln!(text, "blocks that match the report: {}", comparison.blocks);
        }
        if comparison.removed_blocks > 0 {
            let _ = writeln!(
                text,
                "blocks of the report that are not compared, because retention has removed them or \
                 one next to them: {}",
                comparison.removed_blocks
            );
        }
        if comparison.is_without_gaps {
            text += "the report was written by an earlier release and does not list gaps, so \
                     they were not compared\n";
        } else if comparison.gaps > 0 {
            let _ = writeln!(text, "gaps that agree with the report: {}", comparison.gaps);
        }
        if comparison.findings.is_empty() {
            text += "the store agrees with the report\n";
        }
    }
    text
}

/// Events that the books say nothing about.
fn gaps(gaps: &[(String, Gap)]) -> String {
    let missing: Vec<_> = gaps.iter().filter(|(_, gap)| gap.is_missing()).collect();
    let mut text = String::new();
    if missing.is_empty() {
        return text;
    }
    let _ = writeln!(
        text,
        "it says nothing about what Teleport did not return: {} {} on the books",
        missing.len(),
        if missing.len() == 1 {
            "gap is"
        } else {
            "gaps are"
        }
    );
    for (source, gap) in missing {
        let _ = writeln!(
            text,
            "  {}, source {source}: {} from {} to {} could not be read in {} attempts: {}",
            gap.state.name(),
            gap.what,
            crate::commands::dlq::rfc3339(gap.from),
            crate::commands::dlq::rfc3339(gap.to),
            gap.attempts,
            gap.error
        );
    }
    text
}

fn chains(count: u64) -> String {
    format!("{count} chain{}", if count == 1 { "" } else { "s" })
}

fn chain(text: &mut String, pipeline: &str, epoch: &EpochAudit) {
    let chain = &epoch.chain;
    let _ = writeln!(
        text,
        "pipeline {pipeline}, stream {}, epoch {}: {} commits and {} operations on dead letters, \
         {} of both folded into tallies",
        chain.stream, epoch.epoch, chain.commits, chain.letter_operations, chain.folded
    );
    let _ = writeln!(text, "  chain head {}", hex(&chain.hash));
    // A column of its own if a lag limit was reached.
    let has_given_up = epoch.days.iter().any(|row| row.given_up > 0);
    let given_up = |column: String| match has_given_up {
        true => format!("{column:>12} + "),
        false => String::new(),
    };
    let _ = writeln!(
        text,
        "  {:10}  {:>12} = {:>12} + {:>12} + {}{:>8} + {:>12}  counted from",
        "day",
        "read",
        "delivered",
        "dropped",
        given_up("given up".to_owned()),
        "dead",
        "waiting"
    );
    for row in &epoch.days {
        let (books, sign) = (row.books, if row.books.balance() { '=' } else { '≠' });
        let _ = writeln!(
            text,
            "  {:10}  {:>12} {sign} {:>12} + {:>12} + {}{:>8} + {:>12}  {}",
            row.day.to_string(),
            books.read,
            books.delivered,
            books.dropped.saturating_sub(row.given_up),
            given_up(row.given_up.to_string()),
            books.dead,
            books.waiting,
            row.counted.name()
        );
    }
    text.push('\n');
}

fn document(audit: &Audited, comparison: Option<&Comparison>) -> Value {
    let chains = audit.pipelines.iter().flat_map(|pipeline| {
        pipeline.epochs.iter().map(|epoch| {
            let days = epoch.days.iter().map(|row| {
                let books = row.books;
                json!({
                    "day": row.day.to_string(), "read": books.read, "delivered": books.delivered,
                    "dropped": books.dropped, "given_up": row.given_up, "dead": books.dead, "waiting": books.waiting,
                    "balanced": books.balance(), "counted_from": row.counted.name(),
                })
            });
            json!({
                "pipeline": pipeline.name, "stream": epoch.chain.stream, "epoch": epoch.epoch,
                "commits": epoch.chain.commits, "letter_operations": epoch.chain.letter_operations,
                "folded": epoch.chain.folded, "head": hex(&epoch.chain.hash),
                "days": days.collect::<Vec<_>>(),
            })
        })
    });
    let findings = |found: &[Finding]| -> Vec<Value> {
        let found = found.iter().map(|finding| {
            json!({
                "pipeline": finding.pipeline, "stream": finding.stream,
                "day": finding.day.map(|day| day.to_string()), "place": finding.place,
                "what": finding.what,
            })
        });
        found.collect()
    };
    let compared = comparison.map(|comparison| {
        json!({
            "link_by_link": comparison.exact, "by_anchor": comparison.by_anchor,
            "blocks": comparison.blocks, "removed_blocks": comparison.removed_blocks,
            "without_blocks": comparison.is_without_blocks,
            "gaps": comparison.gaps, "without_gaps": comparison.is_without_gaps,
            "findings": findings(&comparison.findings),
        })
    });
    json!({
        "holds": audit.findings_total == 0 && comparison.is_none_or(|found| found.findings.is_empty()),
        "blocks": audit.blocks,
        "chains": chains.collect::<Vec<_>>(),
        "gaps": super::status::gap_rows(&audit.gaps),
        "findings": findings(&audit.findings),
        "findings_total": audit.findings_total,
        "report": compared,
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_dates() {
        assert_eq!(day("1970-01-02"), Ok(Day(1)));
        assert_eq!(day("2026-01-05"), Ok(Day(20_458)));
        for text in ["", "yesterday", "2026-13-01", "2026-02-30"] {
            assert!(day(text).is_err(), "{text}");
        }
    }
}
