//! The four figures, counted: from the stream's sequences, from outcome vectors, and from ranges
//! that have none.

use std::collections::{BTreeMap, HashMap};

use lockgate_ledger::LetterCounts;
use lockgate_model::{Books, Day, Seq};
use rusqlite::{Connection, params};

use crate::encoded::{batch_text, count_days};
use crate::error::ReadError;
use crate::letter_operations::{Kind, LetterOperationRow};
use crate::rows::{self, Epoch};
use crate::writer::retention::{days_in, retention_batch};
use crate::{blocks, codec, letter_operations, letters};

/// The counts of each epoch up to a commit. Commits are only ever added, so counting goes on
/// from there.
#[derive(Default)]
pub struct Tallies(HashMap<i64, Tally>);

#[derive(Default)]
struct Tally {
    last_commit: i64,
    last_operation: i64,
    sum: Books,
    days: BTreeMap<Day, Books>,
    letters: LetterCounts,
    /// Of the dropped: removed by retention before the pipeline had finished them.
    removed: u64,
}

impl Tally {
    fn update(&mut self, connection: &Connection, epoch: &Epoch) -> Result<(), ReadError> {
        // By id and not by the index on (epoch, sequence): what is new stands at the end.
        let sql = "SELECT id, first_seq, end_seq, outcomes, days, batch FROM commits NOT INDEXED WHERE epoch_id = ?1 AND id > ?2 ORDER BY id";
        let mut statement = connection.prepare_cached(sql)?;
        let mut rows = statement.query(params![epoch.id, self.last_commit])?;
        while let Some(row) = rows.next()? {
            let (first, end): (Seq, Seq) = (row.get(1)?, row.get(2)?);
            let range = first..end;
            let damaged = |what: &dyn std::fmt::Display| {
                ReadError::Damaged(format!(
                    "the commit of `{}` for {range:?} of `{}`: {what}",
                    epoch.pipeline, epoch.progress.stream
                ))
            };
            let outcomes =
                codec::decode_outcomes(row.get_ref(3)?.as_blob().map_err(rusqlite::Error::from)?)
                    .map_err(|error| damaged(&error))?;
            if !outcomes.covers(&range) {
                return Err(damaged(&"its outcomes are not its entries'"));
            }
            let days =
                letter_operations::days(row.get_ref(4)?.as_str().map_err(rusqlite::Error::from)?)
                    .map_err(|error| damaged(&error))?;
            let (delivered, dropped, dead) = outcomes.count();
            self.sum += of(delivered, dropped, dead);
            let batch = row.get_ref(5)?.as_str().map_err(rusqlite::Error::from)?;
            // A pipeline's own batches have other ids, with slashes.
            if dropped > 0 && batch == batch_text(&retention_batch(first), &[]) {
                self.removed += dropped;
            }
            for day in days {
                *self.days.entry(day.day).or_default() += of(day.delivered, day.dropped, day.dead);
            }
            self.last_commit = row.get(0)?;
        }
        while let Some(row) = letter_operations::after(connection, epoch.id, self.last_operation)? {
            self.operation(&row)?;
            self.last_operation = row.id;
        }
        Ok(())
    }

    /// Counts an operation on dead letters: the outcomes it takes back, those it adds, and its dead
    /// letters.
    fn operation(&mut self, row: &LetterOperationRow) -> Result<(), ReadError> {
        let entries = row.entries()?.len() as u64;
        let mut counted = 0;
        for day in row.tallies()? {
            let total = day.delivered + day.dropped + day.dead;
            counted += total;
            let books = self.days.entry(day.day).or_default();
            for books in [&mut self.sum, books] {
                match row.kind {
                    Kind::Expire => {}
                    Kind::Commit => *books += of(day.delivered, day.dropped, day.dead),
                    Kind::Retry | Kind::Drop => {
                        books.dead = books
                            .dead
                            .checked_sub(total)
                            .ok_or_else(|| row.damaged("it takes back more than was dead"))?;
                        books.dropped += day.dropped;
                    }
                }
            }
        }
        if counted != entries {
            return Err(row.damaged("its days are not its entries'"));
        }
        match row.kind {
            Kind::Retry => self.letters.retried += entries,
            Kind::Drop => self.letters.dropped += entries,
            Kind::Expire => self.letters.expired += entries,
            Kind::Commit => {}
        }
        Ok(())
    }
}

fn of(delivered: u64, dropped: u64, dead: u64) -> Books {
    Books {
        delivered,
        dropped,
        dead,
        ..Books::default()
    }
}

/// For each stream of the pipeline's current epoch.
pub fn books(
    connection: &Connection,
    tallies: &mut Tallies,
    pipeline: &str,
) -> Result<Vec<(String, Books)>, ReadError> {
    let mut all = Vec::new();
    for epoch in rows::current_epochs_of(connection, pipeline)? {
        let head = stream(connection, &epoch)?.next;
        let tally = tallies.0.entry(epoch.id).or_default();
        tally.update(connection, &epoch)?;
        let unfinished: u64 = epoch
            .progress
            .waiting(head)
            .into_iter()
            .map(|range| range.end - range.start)
            .sum();
        let waiting = unfinished + letters::waiting_times(connection, epoch.id)?.len() as u64;
        all.push((
            epoch.progress.stream.clone(),
            Books {
                read: head.saturating_sub(epoch.progress.begin),
                waiting,
                ..tally.sum
            },
        ));
    }
    Ok(all)
}

/// Events that retention removed before the pipeline had finished them, in its current epoch over
/// all streams. They are among the dropped.
pub fn removed(
    connection: &Connection,
    tallies: &mut Tallies,
    pipeline: &str,
) -> Result<u64, ReadError> {
    let mut removed = 0;
    for epoch in rows::current_epochs_of(connection, pipeline)? {
        let tally = tallies.0.entry(epoch.id).or_default();
        tally.update(connection, &epoch)?;
        removed += tally.removed;
    }
    Ok(removed)
}

/// Counts of the pipeline's dead letters in its current epoch, over all streams.
pub fn letters(
    connection: &Connection,
    tallies: &mut Tallies,
    pipeline: &str,
) -> Result<LetterCounts, ReadError> {
    let mut counts = LetterCounts::default();
    for epoch in rows::current_epochs_of(connection, pipeline)? {
        let tally = tallies.0.entry(epoch.id).or_default();
        tally.update(connection, &epoch)?;
        counts.retried += tally.letters.retried;
        counts.dropped += tally.letters.dropped;
        counts.expired += tally.letters.expired;
    }
    Ok(counts)
}

/// The four figures by the UTC day of the event's time, over all streams of the pipeline.
pub fn days(
    connection: &Connection,
    tallies: &mut Tallies,
    pipeline: &str,
) -> Result<Vec<(Day, Books)>, ReadError> {
    let mut all: BTreeMap<Day, Books> = BTreeMap::new();
    for epoch in rows::current_epochs_of(connection, pipeline)? {
        let stream = stream(connection, &epoch)?;
        let tally = tallies.0.entry(epoch.id).or_default();
        tally.update(connection, &epoch)?;
        for (&day, &books) in &tally.days {
            *all.entry(day).or_default() += books;
        }
        let sql = "SELECT s.day, s.appended - coalesce(e.before, 0) FROM stream_days s \
                   LEFT JOIN epoch_days e ON e.epoch_id = ?1 AND e.day = s.day WHERE s.stream_id = ?2";
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
