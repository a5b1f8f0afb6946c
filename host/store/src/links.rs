//! The links of one chain in their order: commits, and operations on dead letters between them.

use lockgate_ledger::Progress;
use lockgate_model::{Millis, Outcome, Outcomes, Seq, SeqRange};
use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::chain::ChainedCommit;
use crate::codec;
use crate::encoded::batch_text;
use crate::error::ReadError;
use crate::letter_operations::{self, Kind, LetterOperationRow};
use crate::schema::Checksum;
use crate::tallies::{self, Counts, Tallied};
use crate::writer::retention::{drops_of, lag_limit_batch, retention_batch};

/// The columns of a commit, as they stand there.
pub struct CommitRow {
    pub id: i64,
    pub generation: u32,
    pub range: SeqRange,
    pub outcomes: Vec<u8>,
    pub reasons: String,
    pub days: String,
    pub at: Millis,
    pub batch: String,
    pub blocks: Vec<u8>,
    pub dead: Vec<u8>,
    pub state: Vec<u8>,
    pub hash: Checksum,
}

impl CommitRow {
    fn read(row: &Row<'_>) -> rusqlite::Result<CommitRow> {
        Ok(CommitRow {
            id: row.get(0)?,
            generation: row.get(1)?,
            range: row.get(2)?..row.get(3)?,
            outcomes: row.get(4)?,
            reasons: row.get(5)?,
            days: row.get(6)?,
            at: row.get(7)?,
            batch: row.get(8)?,
            blocks: row.get(9)?,
            dead: row.get(10)?,
            state: row.get(11)?,
            hash: row.get(12)?,
        })
    }

    /// Its outcomes, one for each entry.
    pub fn outcomes(&self) -> Result<Outcomes, String> {
        let outcomes = codec::decode_outcomes(&self.outcomes).map_err(|error| error.to_string())?;
        if self.range.is_empty() || !outcomes.covers(&self.range) {
            return Err("its outcomes are not its entries'".to_owned());
        }
        Ok(outcomes)
    }
}

/// One link of a chain.
pub enum Link {
    Commit(CommitRow),
    Operation(LetterOperationRow),
}

/// A letter of an entry, by its checksum.
pub type Letter = (Seq, Checksum);

/// The changes of a link to dead letters.
#[derive(Default)]
pub struct LetterChanges {
    /// Entries taken back, and their letters if the link names them.
    pub taken: Vec<(Seq, Option<Checksum>)>,
    /// What they were: waiting again, or dead.
    pub waited: bool,
    pub retried: Vec<Letter>,
    pub died: Vec<Letter>,
}

impl Link {
    pub fn generation(&self) -> u32 {
        match self {
            Link::Commit(row) => row.generation,
            Link::Operation(row) => row.generation,
        }
    }

    /// As it stands there.
    pub fn stored_hash(&self) -> &Checksum {
        match self {
            Link::Commit(row) => &row.hash,
            Link::Operation(row) => &row.hash,
        }
    }

    /// Computed again.
    pub fn hash(
        &self,
        previous: &Checksum,
        pipeline: &str,
        stream: &str,
        epoch: u32,
        generation: &Checksum,
    ) -> Checksum {
        match self {
            Link::Operation(row) => row.chained(previous, pipeline, stream, epoch, generation),
            Link::Commit(row) => ChainedCommit {
                previous: *previous,
                pipeline,
                stream,
                epoch,
                generation: (row.generation, *generation),
                range: row.range.clone(),
                outcomes: &row.outcomes,
                reasons: &row.reasons,
                days: &row.days,
                at: row.at,
                batch: &row.batch,
                blocks: &row.blocks,
                dead: &row.dead,
                state: &row.state,
            }
            .hash(),
        }
    }

    /// Adds its entries to the tallies. `Err`: what contradicts itself.
    pub fn tally(&self, counts: &mut Counts) -> Result<(), String> {
        let text = |error: serde_json::Error| error.to_string();
        match self {
            Link::Commit(row) => {
                let days = letter_operations::days(&row.days).map_err(text)?;
                let reasons: Vec<String> = serde_json::from_str(&row.reasons).map_err(text)?;
                let start = row.range.start;
                let ids = [retention_batch(start), lag_limit_batch(start)];
                let id = ids.iter().find(|id| row.batch == batch_text(id, &[]));
                let drops = drops_of(id.map_or("", String::as_str), start);
                tallies::of_outcomes(&row.outcomes()?, &reasons, &days, drops, counts)?;
            }
            Link::Operation(row) => {
                let days = letter_operations::days(&row.days).map_err(text)?;
                let reasons: Vec<String> = serde_json::from_str(&row.reasons).map_err(text)?;
                let kind = match row.kind {
                    Kind::Commit => {
                        let outcomes = codec::decode_outcomes(&row.outcomes)
                            .map_err(|error| error.to_string())?;
                        tallies::of_outcomes(&outcomes, &reasons, &days, Tallied::Dropped, counts)?;
                        return Ok(());
                    }
                    Kind::Retry => Tallied::Retried,
                    Kind::Drop => Tallied::Discarded,
                    Kind::Expire => Tallied::Expired,
                };
                let reason = reasons.first().cloned().unwrap_or_default();
                for day in days {
                    let count = day.delivered + day.dropped + day.dead;
                    *counts.entry((day.day, kind, reason.clone())).or_default() += count;
                }
            }
        }
        Ok(())
    }

    /// What it changes of dead letters. `Err`: what contradicts itself.
    pub fn letters(&self) -> Result<LetterChanges, String> {
        match self {
            Link::Commit(row) => Ok(LetterChanges {
                died: died(row.range.clone(), &row.outcomes()?, &row.dead)?,
                ..LetterChanges::default()
            }),
            Link::Operation(row) => {
                let seqs = row.entries().map_err(|error| error.what())?;
                let days = row.tallies().map_err(|error| error.what())?;
                let entries: u64 = days
                    .iter()
                    .map(|day| day.delivered + day.dropped + day.dead)
                    .sum();
                if entries != seqs.len() as u64 {
                    return Err("its days are not its entries'".to_owned());
                }
                if row.kind == Kind::Commit {
                    let outcomes =
                        codec::decode_outcomes(&row.outcomes).map_err(|error| error.to_string())?;
                    return Ok(LetterChanges {
                        taken: seqs.iter().map(|&seq| (seq, None)).collect(),
                        waited: true,
                        died: died(seqs.into_iter(), &outcomes, &row.dead)?,
                        retried: Vec::new(),
                    });
                }
                let (letters, rest) = row.dead.as_chunks::<32>();
                if letters.len() != seqs.len() || !rest.is_empty() {
                    return Err("its letters are not its entries'".to_owned());
                }
                let named: Vec<Letter> = seqs.into_iter().zip(letters.iter().copied()).collect();
                Ok(LetterChanges {
                    taken: named
                        .iter()
                        .map(|&(seq, letter)| (seq, Some(letter)))
                        .collect(),
                    retried: if row.kind == Kind::Retry {
                        named
                    } else {
                        Vec::new()
                    },
                    ..LetterChanges::default()
                })
            }
        }
    }
}

fn died(
    seqs: impl Iterator<Item = Seq>,
    outcomes: &Outcomes,
    letters: &[u8],
) -> Result<Vec<Letter>, &'static str> {
    let (letters, rest) = letters.as_chunks::<32>();
    let dead: Vec<Seq> = seqs
        .zip(outcomes.iter())
        .filter(|(_, outcome)| matches!(outcome, Outcome::Dead(_)))
        .map(|(seq, _)| seq)
        .collect();
    if dead.len() > letters.len() {
        Err("it lacks a dead letter")
    } else if dead.len() < letters.len() || !rest.is_empty() {
        Err("it has a dead letter too many")
    } else {
        Ok(dead.into_iter().zip(letters.iter().copied()).collect())
    }
}

/// The links of a pass after some of them.
pub struct Links {
    epoch_id: i64,
    commit: Option<CommitRow>,
    operation: Option<LetterOperationRow>,
}

impl Links {
    /// After the commit and the operation of these ids.
    pub fn after(
        connection: &Connection,
        epoch_id: i64,
        commit: i64,
        operation: i64,
    ) -> rusqlite::Result<Links> {
        Ok(Links {
            epoch_id,
            commit: commit_after(connection, epoch_id, commit)?,
            operation: letter_operations::after(connection, epoch_id, operation)?,
        })
    }

    pub fn next(&mut self, connection: &Connection) -> Result<Option<Link>, ReadError> {
        let commit = self.commit.as_ref().map_or(i64::MAX, |row| row.id);
        if let Some(row) = self.operation.take_if(|row| row.after_commit < commit) {
            self.operation = letter_operations::after(connection, self.epoch_id, row.id)?;
            return Ok(Some(Link::Operation(row)));
        }
        let Some(row) = self.commit.take() else {
            return Ok(None);
        };
        self.commit = commit_after(connection, self.epoch_id, row.id)?;
        Ok(Some(Link::Commit(row)))
    }
}

fn commit_after(
    connection: &Connection,
    epoch_id: i64,
    id: i64,
) -> rusqlite::Result<Option<CommitRow>> {
    // By id and not by the index on (epoch, sequence): that has another order.
    let sql = "SELECT id, generation, first_seq, end_seq, outcomes, reasons, days, at, batch, \
               blocks, dead, state, hash FROM commits NOT INDEXED WHERE epoch_id = ?1 AND id > ?2 \
               ORDER BY id LIMIT 1";
    connection
        .prepare_cached(sql)?
        .query_row(params![epoch_id, id], CommitRow::read)
        .optional()
}

/// Marks the range of a commit done. `Err` if it cannot be.
pub fn finish(progress: &mut Progress, range: &SeqRange, next: Seq) -> Result<(), &'static str> {
    if range.is_empty() || range.end > next || progress.touches(range) {
        return Err("some entry has two outcomes, or was never read");
    }
    progress.finish(range.clone());
    Ok(())
}
