use lockgate_model::Commit;
use rusqlite::params;

use super::{Fault, Writer};
use crate::encoded::{EncodedCommit, letter_checksum};
use crate::schema::Checksum;
use crate::{StoreError, blocks, chain, rows};

impl Writer {
    /// The inner error: refused, nothing was written.
    pub fn commit(&mut self, encoded: &EncodedCommit) -> Result<Result<(), StoreError>, Fault> {
        let commit = &encoded.commit;
        let (index, generation) = match self.admit(commit) {
            Ok(admitted) => admitted,
            Err(refusal) => return Ok(Err(StoreError::Conflict(refusal))),
        };
        let epoch = &self.epochs[index].row;
        let range = commit.range.clone();
        let mut touched = Vec::new();
        for block in blocks::extents(&self.connection, epoch.stream_id, range.start, range.end)? {
            touched.extend(block.first_seq.to_be_bytes());
            touched.extend(block.checksum);
        }
        let hash = chain::Link {
            previous: epoch.chain,
            pipeline: &commit.pipeline,
            stream: &commit.stream,
            epoch: commit.epoch,
            generation: (commit.generation, generation),
            range: range.clone(),
            outcomes: &encoded.outcomes,
            reasons: &encoded.reasons,
            days: &encoded.days,
            at: commit.batch.at,
            batch: &encoded.batch,
            blocks: &touched,
            dead: &encoded.dead,
            state: &encoded.state,
        }
        .hash();
        let id = epoch.id;
        let sql = "INSERT INTO commits (epoch_id, generation, first_seq, end_seq, outcomes, reasons, days, at, batch, blocks, dead, state, \
                   hash) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)";
        self.connection.prepare_cached(sql)?.execute(params![
            id,
            commit.generation,
            range.start,
            range.end,
            encoded.outcomes,
            encoded.reasons,
            encoded.days,
            commit.batch.at,
            encoded.batch,
            touched,
            encoded.dead,
            encoded.state,
            hash
        ])?;
        self.letters(id, commit)?;
        self.state(commit)?;
        let epoch = &mut self.epochs[index];
        epoch.row.progress.finish(range);
        epoch.row.chain = hash;
        epoch.dirty = true;
        Ok(Ok(()))
    }

    /// The pass it belongs to and the digest of its generation, or why it is refused.
    fn admit(&self, commit: &Commit) -> Result<(usize, Checksum), String> {
        let (pipeline, stream) = (&commit.pipeline, &commit.stream);
        let Some(&index) = self.by_lane.get(&(pipeline.clone(), stream.clone())) else {
            return Err(format!(
                "pipeline `{pipeline}` is not registered on `{stream}`"
            ));
        };
        let epoch = &self.epochs[index];
        if epoch.row.epoch != commit.epoch {
            return Err(format!(
                "it is of epoch {} of `{pipeline}`, which is in epoch {}",
                commit.epoch, epoch.row.epoch
            ));
        }
        let Some(&generation) = self.generations.get(&(pipeline.clone(), commit.generation)) else {
            return Err(format!(
                "`{pipeline}` has no generation {}",
                commit.generation
            ));
        };
        let (range, next) = (&commit.range, self.streams[epoch.stream].row.next);
        if range.end > next {
            return Err(format!(
                "entries {range:?} of `{stream}` are beyond its last, {}",
                next - 1
            ));
        }
        if epoch.row.progress.touches(range) {
            return Err(format!(
                "of the entries {range:?} of `{stream}`, some have an outcome in `{pipeline}` already"
            ));
        }
        Ok((index, generation))
    }

    fn letters(&self, epoch_id: i64, commit: &Commit) -> Result<(), Fault> {
        let sql = "INSERT INTO dead_letters (epoch_id, seq, at, generation, key, event_type, time, cause, reason, payload, checksum) \
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)";
        for letter in &commit.dead {
            self.connection.prepare_cached(sql)?.execute(params![
                epoch_id,
                letter.seq,
                commit.batch.at,
                commit.generation,
                letter.key,
                letter.event_type,
                letter.time,
                letter.cause,
                letter.reason,
                letter.payload,
                letter_checksum(letter)
            ])?;
        }
        Ok(())
    }

    fn state(&self, commit: &Commit) -> Result<(), Fault> {
        for write in &commit.state {
            match &write.value {
                Some(value) => {
                    let checksum =
                        rows::state_checksum(&commit.pipeline, write.stage, &write.key, value);
                    let sql = "INSERT INTO state (pipeline, stage, key, value, checksum) VALUES (?1, ?2, ?3, ?4, ?5) \
                               ON CONFLICT DO UPDATE SET value = ?4, checksum = ?5";
                    self.connection.prepare_cached(sql)?.execute(params![
                        commit.pipeline,
                        write.stage,
                        write.key,
                        value,
                        checksum
                    ])?;
                }
                None => {
                    let sql = "DELETE FROM state WHERE pipeline = ?1 AND stage = ?2 AND key = ?3";
                    self.connection.prepare_cached(sql)?.execute(params![
                        commit.pipeline,
                        write.stage,
                        write.key
                    ])?;
                }
            }
        }
        Ok(())
    }
}
