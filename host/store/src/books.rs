//! The four figures, counted: from the stream's sequences, from outcome vectors, and from ranges
//! that have none.

use std::collections::{BTreeMap, HashMap};

use lockgate_model::{Books, Day};
use rusqlite::{Connection, params};

use crate::rows::{self, Epoch};
use crate::writer::retention::days_in;
use crate::{StoreError, blocks, codec};

/// What was counted of each pass up to a commit. Commits are only ever added, so counting goes on
/// from there.
#[derive(Default)]
pub struct Tallies(HashMap<i64, Tally>);

#[derive(Default)]
struct Tally {
    last_commit: i64,
    sum: Books,
    days: BTreeMap<Day, Books>,
}

impl Tally {
    fn update(&mut self, connection: &Connection, epoch: &Epoch) -> Result<(), StoreError> {
        // By id and not by the index on (epoch, sequence): what is new stands at the end.
        let sql = "SELECT id, first_seq, end_seq, outcomes, days FROM commits NOT INDEXED WHERE epoch_id = ?1 AND id > ?2 ORDER BY id";
        let mut statement = connection.prepare_cached(sql)?;
        let mut rows = statement.query(params![epoch.id, self.last_commit])?;
        while let Some(row) = rows.next()? {
            let range = row.get(1)?..row.get(2)?;
            let damaged = |what: &dyn std::fmt::Display| {
                StoreError::Damaged(format!(
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
            let days: Vec<(i32, u64, u64, u64)> =
                serde_json::from_str(row.get_ref(4)?.as_str().map_err(rusqlite::Error::from)?)
                    .map_err(|error| damaged(&error))?;
            let (delivered, dropped, dead) = outcomes.count();
            self.sum += Books {
                delivered,
                dropped,
                dead,
                ..Books::default()
            };
            for (day, delivered, dropped, dead) in days {
                *self.days.entry(Day(day)).or_default() += Books {
                    delivered,
                    dropped,
                    dead,
                    ..Books::default()
                };
            }
            self.last_commit = row.get(0)?;
        }
        Ok(())
    }
}

/// For each stream of the pipeline's current epoch.
pub fn books(
    connection: &Connection,
    tallies: &mut Tallies,
    pipeline: &str,
) -> Result<Vec<(String, Books)>, StoreError> {
    let mut all = Vec::new();
    for epoch in rows::current_epochs_of(connection, pipeline)? {
        let head = stream(connection, &epoch)?.next;
        let tally = tallies.0.entry(epoch.id).or_default();
        tally.update(connection, &epoch)?;
        let waiting = epoch
            .progress
            .waiting(head)
            .into_iter()
            .map(|range| range.end - range.start)
            .sum();
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

/// The same by the UTC day of the event's time, over all streams of the pipeline.
pub fn days(
    connection: &Connection,
    tallies: &mut Tallies,
    pipeline: &str,
) -> Result<Vec<(Day, Books)>, StoreError> {
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
        for range in epoch.progress.waiting(stream.next) {
            for block in blocks::extents(connection, stream.id, range.start, range.end)? {
                let part = range.start.max(block.first_seq)..range.end.min(block.end());
                for (day, waiting) in days_in(connection, &stream, &block, &part)? {
                    all.entry(day).or_default().waiting += waiting;
                }
            }
        }
    }
    all.retain(|_, books| *books != Books::default());
    Ok(all.into_iter().collect())
}

fn stream(connection: &Connection, epoch: &Epoch) -> Result<rows::Stream, StoreError> {
    let name = &epoch.progress.stream;
    rows::stream(connection, name)?
        .ok_or_else(|| StoreError::Damaged(format!("the stream `{name}` is gone")))
}
