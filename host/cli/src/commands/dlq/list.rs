//! `lockgate dlq list`.

use clap::Args;
use lockgate_model::{LINE_MAX, escape};
use lockgate_store::{Inspector, KeptLetter};
use serde::Serialize;

use super::address::Address;
use super::fate::not_a_letter;
use super::rfc3339;
use super::select::{self, Filter};
use crate::failure::Failure;
use crate::place::Place;
use crate::{print, setup};

/// Characters of a reason in the table. `show` prints all of it.
const REASON_CHARS: usize = 240;

#[derive(Debug, Args)]
pub(crate) struct List {
    #[command(flatten)]
    place: Place,

    #[command(flatten)]
    filter: Filter,

    /// How many to list at most: 1 to 10000.
    #[arg(
        long,
        default_value_t = 50,
        value_name = "N",
        value_parser = clap::value_parser!(u16).range(1..=10_000)
    )]
    limit: u16,

    /// Start after this dead letter: the last one of the previous page.
    #[arg(long, value_name = "DEAD_LETTER")]
    after: Option<Address>,

    /// Print one JSON object instead of a table.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Listing {
    dead_letters: Vec<Row>,
    /// More match than `--limit` lets through.
    more: bool,
    /// Removed because of their age, of the pipelines that the filter lets through.
    expired: u64,
}

#[derive(Serialize)]
struct Row {
    address: String,
    pipeline: String,
    stream: String,
    seq: u64,
    /// When it became a dead letter.
    at: String,
    #[serde(rename = "type")]
    event_type: String,
    /// When the event happened.
    time: String,
    cause: String,
    reason: String,
    /// Of the event.
    bytes: usize,
}

pub(crate) fn run(command: &List) -> Result<(), Failure> {
    let inspector = command.place.inspector()?;
    command.place.check_pipeline(&command.filter, &inspector)?;
    let mut dead_letters = Vec::new();
    let mut query = command.filter.query(setup::now());
    if let Some(address) = &command.after {
        let found = inspector.dead_letter(&address.pipeline, &address.stream, address.seq);
        let found = found.map_err(Failure::failed)?;
        query.before = Some(found.ok_or_else(|| not_a_letter(&inspector, address))?.id);
    }
    let found = select::each(&inspector, query, command.limit.into(), |kept| {
        dead_letters.push(row(&kept));
        Ok(())
    })?;
    let report = Listing {
        dead_letters,
        more: found.more,
        expired: expired(&inspector, &command.filter)?,
    };
    if command.json {
        let json = serde_json::to_string(&report).map_err(Failure::failed)?;
        print::data(&format!("{json}\n"))?;
        return found.end();
    }
    if !report.dead_letters.is_empty() {
        print::data(&table(&report.dead_letters))?;
    }
    match report.dead_letters.last() {
        Some(last) if report.more => print::problem(&format!(
            "There are more than these {}. `--after {}` lists the next ones.",
            report.dead_letters.len(),
            last.address
        )),
        Some(_) => {}
        None if command.filter.is_empty() && command.after.is_none() => {
            print::problem("There are no dead letters.");
        }
        None => print::problem("No dead letter matches."),
    }
    match report.expired {
        0 => {}
        1 => print::problem("1 dead letter expired earlier and is no longer kept."),
        count => print::problem(&format!(
            "{count} dead letters expired earlier and are no longer kept."
        )),
    }
    found.end()
}

fn expired(inspector: &Inspector, filter: &Filter) -> Result<u64, Failure> {
    let mut expired = 0;
    for pipeline in inspector.pipelines().map_err(Failure::failed)? {
        if filter.admits_pipeline(&pipeline.name) {
            let counts = inspector.letter_counts(&pipeline.name);
            expired += counts.map_err(Failure::failed)?.expired;
        }
    }
    Ok(expired)
}

fn row(kept: &KeptLetter) -> Row {
    let letter = &kept.letter;
    Row {
        address: Address::of(kept).to_string(),
        pipeline: kept.pipeline.clone(),
        stream: kept.stream.clone(),
        seq: letter.seq,
        at: rfc3339(kept.at),
        event_type: letter.event_type.clone(),
        time: rfc3339(letter.time),
        cause: letter.cause.clone(),
        reason: letter.reason.clone(),
        bytes: letter.payload.len(),
    }
}

fn table(rows: &[Row]) -> String {
    let head = ["dead letter", "since", "type", "cause", "reason"].map(str::to_owned);
    let cells = rows.iter().map(|row| {
        [
            row.address.clone(),
            row.at.clone(),
            escape(&row.event_type, LINE_MAX).into_owned(),
            escape(&row.cause, LINE_MAX).into_owned(),
            cut(&escape(&row.reason, LINE_MAX)),
        ]
    });
    let lines: Vec<[String; 5]> = std::iter::once(head).chain(cells).collect();
    let width = |column: usize| {
        let chars = lines.iter().map(|line| line[column].chars().count());
        chars.max().unwrap_or(0)
    };
    let widths = [width(0), width(1), width(2), width(3)];
    let mut text = String::new();
    for line in &lines {
        let mut cells = String::new();
        for (cell, width) in line.iter().zip(widths) {
            cells += &format!("{cell:width$}  ");
        }
        cells += &line[4];
        text += cells.trim_end();
        text.push('\n');
    }
    text
}

fn cut(text: &str) -> String {
    if text.chars().count() <= REASON_CHARS {
        return text.to_owned();
    }
    let start: String = text.chars().take(REASON_CHARS - 1).collect();
    format!("{start}…")
}
