//! The four figures, counted: from the stream's sequences, from the tallies of outcomes, and from
//! ranges that have none.

use std::collections::BTreeMap;

use lockgate_ledger::LetterCounts;
use lockgate_model::{Books, Day};
use rusqlite::{Connection, params};

use crate::encoded::count_days;
use crate::error::ReadError;
use crate::rows::{self, Epoch};
use crate::tallies::{self, Tallied};
use crate::writer::retention::days_in;
use crate::{blocks, letters};

/// For each stream of the pipeline's current epoch.
pub fn books(connection: &Connection, pipeline: &str) -> Result<Vec<(String, Books)>, ReadError> {
    let mut all = Vec::new();
    for epoch in rows::current_epochs_of(connection, pipeline)? {
        let head = stream(connection, &epoch)?.next;
        let mut sum = Books::default();
        for (kind, count) in tallies::totals(connection, epoch.id)? {
            kind.apply(&mut sum, count)
                .ok_or_else(|| more_taken_back(&epoch))?;
        }
        let unfinished: u64 = epoch
            .progress
            .waiting(head)
            .into_iter()
            .map(|range| range.end - range.start)
            .sum();
        let waiting = unfinished + letters::waiting_count(connection, epoch.id)?;
        all.push((
            epoch.progress.stream.clone(),
            Books {
                read: head.saturating_sub(epoch.progress.begin),
                waiting,
                ..sum
            },
        ));
    }
    Ok(all)
}

/// Events that retention removed before the pipeline had finished them; they are dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// It was not configured to read them any more.
    pub removed: u64,
    /// It had reached its lag limit.
    pub given_up: u64,
}

/// Counts of the pipeline's dead letters in its current epoch, over all streams; and the events
/// that retention removed before the pipeline had finished them, which are among the dropped.
pub fn letters(connection: &Connection, pipeline: &str) -> Result<(LetterCounts, Lost), ReadError> {
    let mut counts = LetterCounts::default();
    let mut lost = Lost::default();
    for epoch in rows::current_epochs_of(connection, pipeline)? {
        for (kind, count) in tallies::totals(connection, epoch.id)? {
            match kind {
                Tallied::Retried => counts.retried += count,
                Tallied::Discarded => counts.dropped += count,
                Tallied::Expired => counts.expired += count,
                Tallied::Removed => lost.removed += count,
                Tallied::GivenUp => lost.given_up += count,
                Tallied::Delivered | Tallied::Dropped | Tallied::Dead => {}
            }
        }
    }
    Ok((counts, lost))
}

/// The four figures by the UTC day of the event's time, over all streams of the pipeline.
pub fn days(connection: &Connection, pipeline: &str) -> Result<Vec<(Day, Books)>, ReadError> {
    let mut all: BTreeMap<Day, Books> = BTreeMap::new();
    for epoch in rows::current_epochs_of(connection, pipeline)? {
        let stream = stream(connection, &epoch)?;
        for (day, books) in outcomes(connection, &epoch)? {
            *all.entry(day).or_default() += books;
        }
        let sql = "SELECT s.day, s.appended - coalesce(e.before, 0) FROM stream_days s LEFT JOIN \
                   epoch_days e ON e.epoch_id = ?1 AND e.day = s.day WHERE s.stream_id = ?2";
        let mut statement = connection.prepare_cached(sql)?;
        for row in statement.query_map(params![epoch.id, stream.id], |row| {
            Ok((Day(row.get(0)?), row.get(1)?))
        })? {
            let (day, read): (Day, u64) = row?;
            all.entry(day).or_default().read += read;
        }
        for (day, waiting) in waiting_days(connection, &epoch, &stream)? {
            all.entry(day).or_default().waiting += waiting;
        }
    }
    all.retain(|_, books| *books != Books::default());
    Ok(all.into_iter().collect())
}

/// Delivered, dropped and dead, by day.
fn outcomes(connection: &Connection, epoch: &Epoch) -> Result<BTreeMap<Day, Books>, ReadError> {
    let rows = tallies::sound_rows(connection, epoch.id)?;
    let counts = rows.iter().map(|row| (row.day, row.kind, row.count));
    let mut days = BTreeMap::new();
    for (day, books) in tallies::books(counts) {
        days.insert(day, books.ok_or_else(|| more_taken_back(epoch))?);
    }
    Ok(days)
}

fn more_taken_back(epoch: &Epoch) -> ReadError {
    ReadError::Damaged(format!(
        "the tallies of `{}` on `{}` have taken back more dead letters than there were",
        epoch.pipeline, epoch.progress.stream
    ))
}

/// The entries without an outcome by day, those that wait again among them.
pub fn waiting_days(
    connection: &Connection,
    epoch: &Epoch,
    stream: &rows::Stream,
) -> Result<BTreeMap<Day, u64>, ReadError> {
    let mut days = count_days(&letters::waiting_times(connection, epoch.id)?);
    for range in epoch.progress.waiting(stream.next) {
        for block in blocks::extents(connection, stream.id, range.start, range.end)? {
            let part = range.start.max(block.first_seq)..range.end.min(block.end());
            for (day, waiting) in days_in(connection, stream, &block, &part)? {
                *days.entry(day).or_default() += waiting;
            }
        }
    }
    Ok(days)
}

fn stream(connection: &Connection, epoch: &Epoch) -> Result<rows::Stream, ReadError> {
    let name = &epoch.progress.stream;
    rows::stream(connection, name)?
        .ok_or_else(|| ReadError::Damaged(format!("the stream `{name}` is gone")))
}
