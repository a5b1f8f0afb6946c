//! Operations on dead letters, as links of the same chain as commits.

use std::collections::BTreeMap;

use lockgate_ledger::limits::LETTERS_PER_OPERATION;
use lockgate_ledger::{Committed, DROPPED_BY_OPERATOR, check_seqs};
use lockgate_model::{Day, DayTally, Millis, Outcome, OutcomeRun, Outcomes, Seq};
use rusqlite::params;

use super::{Fault, Writer};
use crate::LedgerError;
use crate::codec;
use crate::encoded::{EncodedCommit, days_text};
use crate::letter_operations::{Kind, LetterOperationRow};
use crate::letters::{self, Extract};
use crate::links::Link;

impl Writer {
    /// Makes dead letters wait again. The inner error: refused, nothing was written.
    pub fn retry(
        &mut self,
        pipeline: &str,
        stream: &str,
        seqs: &[Seq],
        at: Millis,
    ) -> Result<Result<(), LedgerError>, Fault> {
        let (index, taken) = match self.take_back(pipeline, stream, seqs)? {
            Ok(taken) => taken,
            Err(refusal) => return Ok(Err(refusal)),
        };
        if !self.epochs[index].row.active {
            return Ok(Err(LedgerError::NotRead {
                pipeline: pipeline.to_owned(),
                stream: stream.to_owned(),
            }));
        }
        let days = tallies(&taken, |tally| &mut tally.dead);
        let id = self.link(index, without_batch(Kind::Retry, seqs, &taken, &days, at))?;
        let sql = "UPDATE dead_letters SET redrive = ?3 WHERE epoch_id = ?1 AND seq = ?2";
        let epoch_id = self.epochs[index].row.id;
        for seq in seqs {
            let mut statement = self.connection.prepare_cached(sql)?;
            statement.execute(params![epoch_id, seq, id])?;
        }
        *self.retries.entry(pipeline.into()).or_default() += 1;
        Ok(Ok(()))
    }

    /// Makes dead letters dropped. The inner error: refused, nothing was written.
    pub fn drop_letters(
        &mut self,
        pipeline: &str,
        stream: &str,
        seqs: &[Seq],
        at: Millis,
    ) -> Result<Result<(), LedgerError>, Fault> {
        let (index, taken) = match self.take_back(pipeline, stream, seqs)? {
            Ok(taken) => taken,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let days = tallies(&taken, |tally| &mut tally.dropped);
        let outcomes = Outcomes {
            runs: vec![OutcomeRun {
                outcome: Outcome::Dropped(0),
                len: seqs.len() as u32,
            }],
        };
        let row = LetterOperationRow {
            outcomes: codec::encode_outcomes(&outcomes),
            reasons: serde_json::json!([DROPPED_BY_OPERATOR]).to_string(),
            ..without_batch(Kind::Drop, seqs, &taken, &days, at)
        };
        self.link(index, row)?;
        self.remove_letters(index, seqs, &taken)?;
        Ok(Ok(()))
    }

    /// Removes letters that died before a time, and leaves their entries dead: the oldest, at most
    /// so many of each stream, as far as events show that the time has passed. Answers how many.
    /// The inner error: refused, nothing was written.
    pub fn expire_letters(
        &mut self,
        pipeline: &str,
        before: Millis,
        at: Millis,
    ) -> Result<Result<u64, LedgerError>, Fault> {
        if !self.pipelines.contains_key(pipeline) {
            let unknown = format!("pipeline `{pipeline}`");
            return Ok(Err(LedgerError::Unknown(unknown)));
        }
        // The local clock may be ahead of what events show, and letters are kept for longer by
        // that.
        let now = self.shown_now(at).unwrap_or(Millis::MIN);
        let shown_before = before.saturating_sub(at.saturating_sub(now));
        let mut old = Vec::new();
        for index in 0..self.epochs.len() {
            let epoch = &self.epochs[index].row;
            if *epoch.pipeline != *pipeline {
                continue;
            }
            let id = epoch.id;
            let seqs = letters::older(&self.connection, id, shown_before, LETTERS_PER_OPERATION)?;
            if seqs.is_empty() {
                if !letters::older(&self.connection, id, before, 1)?.is_empty() {
                    self.warn_of_clock(pipeline);
                }
                continue;
            }
            match self.extracts(index, &seqs, false)? {
                Ok(taken) => old.push((index, seqs, taken)),
                Err(refusal) => return Ok(Err(refusal)),
            }
        }
        let mut expired = 0;
        for (index, seqs, taken) in old {
            let days = tallies(&taken, |tally| &mut tally.dead);
            self.link(index, without_batch(Kind::Expire, &seqs, &taken, &days, at))?;
            self.remove_letters(index, &seqs, &taken)?;
            expired += seqs.len() as u64;
        }
        Ok(Ok(expired))
    }

    fn warn_of_clock(&mut self, pipeline: &str) {
        if !std::mem::replace(&mut self.has_warned_of_clock, true) {
            tracing::warn!(
                pipeline,
                "dead letters that are too old by this machine's clock are kept: no newer event \
                 shows that so much time has passed. Is the clock right?"
            );
        }
    }

    /// The outcomes of a redrive. The inner error: refused, nothing was written.
    pub(super) fn commit_redriven(
        &mut self,
        index: usize,
        encoded: &EncodedCommit,
        seqs: &[Seq],
    ) -> Result<Result<(), LedgerError>, Fault> {
        let taken = match self.extracts(index, seqs, true)? {
            Ok(taken) => taken,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let commit = &encoded.commit;
        let row = LetterOperationRow {
            generation: commit.generation,
            outcomes: encoded.outcomes.clone(),
            reasons: encoded.reasons.clone(),
            days: encoded.days.clone(),
            at: commit.batch.at,
            batch: encoded.batch.clone(),
            dead: encoded.dead.clone(),
            state: encoded.state.clone(),
            ..empty(Kind::Commit, seqs)
        };
        self.link(index, row)?;
        self.remove_letters(index, seqs, &taken)?;
        Ok(Ok(()))
    }

    /// Bytes of the pipeline's letters, dead or waiting again.
    pub(super) fn committed(&self, pipeline: &str) -> Committed {
        let dead_bytes = self
            .pipelines
            .get(pipeline)
            .map_or(0, |found| found.dead_bytes);
        Committed { dead_bytes }
    }

    /// The epoch, and what it has of each entry, all of which are dead.
    fn take_back(
        &mut self,
        pipeline: &str,
        stream: &str,
        seqs: &[Seq],
    ) -> Result<Result<(usize, Vec<Extract>), LedgerError>, Fault> {
        if let Err(refusal) = check_seqs(seqs) {
            return Ok(Err(refusal));
        }
        if !self.pipelines.contains_key(pipeline) {
            let unknown = format!("pipeline `{pipeline}`");
            return Ok(Err(LedgerError::Unknown(unknown)));
        }
        let Some(&index) = self.current.get(&(pipeline.into(), stream.into())) else {
            let unknown = format!("stream `{stream}` of the pipeline `{pipeline}`");
            return Ok(Err(LedgerError::Unknown(unknown)));
        };
        Ok(self
            .extracts(index, seqs, false)?
            .map(|taken| (index, taken)))
    }

    fn extracts(
        &self,
        index: usize,
        seqs: &[Seq],
        waits: bool,
    ) -> Result<Result<Vec<Extract>, LedgerError>, Fault> {
        let epoch = &self.epochs[index].row;
        let mut taken = Vec::with_capacity(seqs.len());
        for &seq in seqs {
            let found = letters::extract(&self.connection, epoch.id, seq)?;
            let Some(found) = found.filter(|found| found.waits == waits) else {
                let is_not = if waits {
                    "does not wait again"
                } else {
                    "is not a dead letter"
                };
                return Ok(Err(LedgerError::Conflict(format!(
                    "entry {seq} of `{}` {is_not} of `{}`",
                    epoch.progress.stream, epoch.pipeline
                ))));
            };
            taken.push(found);
        }
        Ok(Ok(taken))
    }

    /// Adds a row to the chain of an epoch; returns its id.
    fn link(&mut self, index: usize, mut row: LetterOperationRow) -> Result<i64, Fault> {
        let epoch = &self.epochs[index].row;
        let pipeline = epoch.pipeline.clone();
        if row.generation == 0 {
            row.generation = self.current_generation(&pipeline);
        }
        let generation = self
            .generations
            .get(&(pipeline.clone(), row.generation))
            .ok_or_else(|| Fault::Damaged(format!("`{pipeline}` has lost its generation")))?;
        row.id = self.next_operation;
        row.after_commit = self.next_commit - 1;
        let stream = &self.streams[self.epochs[index].stream].row.name;
        row.hash = row.chained(&epoch.chain, &pipeline, stream, epoch.epoch, generation);
        row.insert(&self.connection, epoch.id)?;
        self.next_operation += 1;
        let epoch = &mut self.epochs[index];
        epoch.row.chain = row.hash;
        epoch.dirty = true;
        let (id, epoch_id) = (row.id, epoch.row.id);
        self.tally(epoch_id, &Link::Operation(row))?;
        Ok(id)
    }

    fn remove_letters(
        &mut self,
        index: usize,
        seqs: &[Seq],
        taken: &[Extract],
    ) -> Result<(), Fault> {
        let epoch = &self.epochs[index].row;
        let sql = "DELETE FROM dead_letters WHERE epoch_id = ?1 AND seq = ?2";
        for seq in seqs {
            self.connection
                .prepare_cached(sql)?
                .execute(params![epoch.id, seq])?;
        }
        let bytes: u64 = taken.iter().map(|letter| letter.bytes).sum();
        if let Some(pipeline) = self.pipelines.get_mut(&epoch.pipeline) {
            pipeline.dead_bytes = pipeline.dead_bytes.saturating_sub(bytes);
            pipeline.dirty = true;
        }
        Ok(())
    }
}

fn without_batch(
    kind: Kind,
    seqs: &[Seq],
    taken: &[Extract],
    days: &[DayTally],
    at: Millis,
) -> LetterOperationRow {
    LetterOperationRow {
        days: days_text(days),
        at,
        dead: taken.iter().flat_map(|letter| letter.checksum).collect(),
        ..empty(kind, seqs)
    }
}

fn empty(kind: Kind, seqs: &[Seq]) -> LetterOperationRow {
    LetterOperationRow {
        id: 0,
        after_commit: 0,
        generation: 0,
        kind,
        seqs: codec::encode_seqs(seqs),
        outcomes: Vec::new(),
        reasons: "[]".to_owned(),
        days: "[]".to_owned(),
        at: 0,
        batch: r#"{"id":"","requests":[]}"#.to_owned(),
        dead: Vec::new(),
        state: Vec::new(),
        hash: [0; 32],
    }
}

fn tallies(taken: &[Extract], column: impl Fn(&mut DayTally) -> &mut u64) -> Vec<DayTally> {
    let mut days: BTreeMap<Day, DayTally> = BTreeMap::new();
    for letter in taken {
        let day = Day::of(letter.time);
        let tally = days.entry(day).or_insert(DayTally {
            day,
            delivered: 0,
            dropped: 0,
            dead: 0,
        });
        *column(tally) += 1;
    }
    days.into_values().collect()
}
