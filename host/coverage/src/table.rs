//! The report as a table of 120 columns.

use std::fmt::Write;

use super::report::{Counts, CoverageReport, Type};
use super::tally::SHOWN;
use super::{FIELDS, TYPES};

/// Headings of the columns of [`SHOWN`], and their widths.
const COLUMNS: [(&str, usize); SHOWN.len()] = [
    ("category", 8),
    ("type", 4),
    ("outcome", 7),
    ("name", 5),
    ("ip", 4),
    ("hosts", 5),
    ("user", 4),
];

/// Headings above groups of columns, with the width of each group.
const GROUPS: [(&str, usize); 3] = [("event.", 23), ("user.", 5), ("related.", 17)];

/// Widest column of event types, so that the table fits 120 columns. A longer type pushes its own
/// row to the right.
const TYPE_WIDTH: usize = 44;

pub(super) fn render(report: &CoverageReport) -> String {
    let mut text = String::new();
    // A String takes everything.
    let _ = write(&mut text, report);
    text
}

fn write(out: &mut String, report: &CoverageReport) -> std::fmt::Result {
    let total = &report.total;
    writeln!(
        out,
        "coverage of {}: {}, {} mapped",
        report.component,
        count(total.events, "event"),
        total.mapped
    )?;
    for (number, what) in [
        (total.dropped, "dropped by the plugin, or not wanted"),
        (total.no_result, "without a result"),
        (
            total.pipeline_errors,
            "mapped, but ended as `pipeline_error`",
        ),
        (
            report.unexamined,
            "nested too deep to be looked into, shown as having nothing",
        ),
    ] {
        if number > 0 {
            writeln!(out, "  {}: {what}", count(number, "event"))?;
        }
    }
    if report.unreadable_lines > 0 {
        writeln!(
            out,
            "  {}: no JSON object",
            count(report.unreadable_lines, "line")
        )?;
    }
    if total.events > 0 {
        shares(out, report)?;
    }
    unmapped(out, report)?;
    section(
        out,
        report,
        "events that ended as `pipeline_error`, and the first message",
        |kind, out| {
            let message = kind
                .first_pipeline_error
                .as_deref()
                .unwrap_or("(no message)");
            if kind.counts.pipeline_errors > 0 {
                writeln!(
                    out,
                    "{:>9}  {}: {message}",
                    kind.counts.pipeline_errors,
                    kind.shown()
                )
            } else {
                Ok(())
            }
        },
    )?;
    section(out, report, "events without a result", |kind, out| {
        if kind.counts.no_result > 0 {
            writeln!(out, "{:>9}  {}", kind.counts.no_result, kind.shown())
        } else {
            Ok(())
        }
    })
}

/// One row for each type, and the sum.
fn shares(out: &mut String, report: &CoverageReport) -> std::fmt::Result {
    let width = report
        .rows()
        .map(|kind| kind.shown().chars().count())
        .max()
        .unwrap_or(0)
        .clamp("event type".len(), TYPE_WIDTH);
    let digits = report.total.events.to_string().len().max("events".len());
    write!(out, "\n{:width$}  {:digits$}", "", "")?;
    GROUPS
        .iter()
        .try_for_each(|(group, width)| write!(out, "  {group:width$}"))?;
    write!(
        out,
        "  unmapped\n{:width$}  {:>digits$}",
        "event type", "events"
    )?;
    COLUMNS
        .iter()
        .try_for_each(|(heading, width)| write!(out, "  {heading:>width$}"))?;
    writeln!(out, "  {:>8}", "fields")?;
    let mut row = |name: &str, counts: &Counts, fields: &str| {
        write!(out, "{name:width$}  {:>digits$}", counts.events)?;
        for (field, (_, width)) in SHOWN.iter().zip(COLUMNS) {
            write!(out, "  {:>width$}", share(counts.has[field], counts.mapped))?;
        }
        if fields.is_empty() {
            writeln!(out)
        } else {
            writeln!(out, "  {fields:>8}")
        }
    };
    for kind in report.rows() {
        let fields = match (report.unmapped_known, kind.unmapped_not_listed) {
            _ if kind.counts.mapped == 0 => "-".into(),
            (false, _) => "?".into(),
            (true, 0) => kind.unmapped.len().to_string(),
            (true, _) => format!(">{}", kind.unmapped.len()),
        };
        row(kind.shown(), &kind.counts, &fields)?;
    }
    row("total", &report.total, "")?;
    if report.other_types.is_some() {
        writeln!(
            out,
            "the first {TYPES} event types have a row of their own; `(other types)` is all further \
             ones"
        )?;
    }
    Ok(())
}

fn unmapped(out: &mut String, report: &CoverageReport) -> std::fmt::Result {
    if report.total.mapped == 0 {
        return Ok(());
    }
    if !report.unmapped_known {
        return writeln!(
            out,
            "\nunmapped fields are not known: no document has `teleport.audit`, where they would \
             stand"
        );
    }
    if report.rows().all(|kind| kind.unmapped.is_empty()) {
        return writeln!(out, "\nno source field stayed unmapped");
    }
    section(
        out,
        report,
        "source fields that stayed unmapped, under `teleport.audit`, and how many events hold them",
        |kind, out| {
            if kind.unmapped.is_empty() {
                return Ok(());
            }
            writeln!(out, "  {}", kind.shown())?;
            for unmapped in &kind.unmapped {
                writeln!(out, "{:>9}  {}", unmapped.events, unmapped.field)?;
            }
            if kind.unmapped_not_listed > 0 {
                let times = count(kind.unmapped_not_listed, "time");
                writeln!(
                    out,
                    "           the first {FIELDS} fields are listed; further ones occurred {times}"
                )?;
            }
            Ok(())
        },
    )
}

/// Nothing if no type has anything to say.
fn section(
    out: &mut String,
    report: &CoverageReport,
    title: &str,
    lines: impl Fn(&Type, &mut String) -> std::fmt::Result,
) -> std::fmt::Result {
    let mut inner = String::new();
    report.rows().try_for_each(|kind| lines(kind, &mut inner))?;
    if inner.is_empty() {
        Ok(())
    } else {
        write!(out, "\n{title}:\n{inner}")
    }
}

/// Rounded down, so that `100%` is all, and `0%` none.
pub(super) fn share(part: u64, whole: u64) -> String {
    match (u128::from(part) * 100).checked_div(u128::from(whole)) {
        None => "-".into(),
        Some(0) if part > 0 => "<1%".into(),
        Some(percent) => format!("{percent}%"),
    }
}

fn count(number: u64, noun: &str) -> String {
    if number == 1 {
        format!("1 {noun}")
    } else {
        format!("{number} {noun}s")
    }
}
