//! Writes the commit of a batch, or refuses one that does not fit.

use lockgate_model::{Commit, Entries, SeqRange};
use rusqlite::params;

use super::retention::drops_of;
use super::{Fault, Writer};
use crate::encoded::EncodedCommit;
use crate::schema::Checksum;
use crate::{Committed, LedgerError, blocks, chain, letters, rows, tallies};

impl Writer {
    /// The inner error: refused, nothing was written.
    pub fn commit(
        &mut self,
        encoded: &EncodedCommit,
    ) -> Result<Result<Committed, LedgerError>, Fault> {
        let commit = &encoded.commit;
        if let Err(refusal) = self.apply(encoded)? {
            return Ok(Err(refusal));
        }
        if let Some(pipeline) = self.pipelines.get_mut(&commit.pipeline)
            && pipeline.brake != commit.brake
        {
            pipeline.brake.clone_from(&commit.brake);
            pipeline.dirty = true;
        }
        Ok(Ok(self.committed(&commit.pipeline)))
    }

    /// The same, but the pipeline's brake stays as it is.
    pub(super) fn apply(
        &mut self,
        encoded: &EncodedCommit,
    ) -> Result<Result<(), LedgerError>, Fault> {
        let commit = &encoded.commit;
        let (index, generation) = match self.admit(commit) {
            Ok(admitted) => admitted,
            Err(refusal) => return Ok(Err(LedgerError::Conflict(refusal))),
        };
        match &commit.entries {
            Entries::Range(range) => self.commit_range(index, encoded, range, generation)?,
            Entries::Redriven(seqs) => {
                if let Err(refusal) = self.commit_redriven(index, encoded, seqs)? {
                    return Ok(Err(refusal));
                }
            }
        }
        let id = self.epochs[index].row.id;
        let mut bytes = 0;
        for letter in &commit.dead {
            let (generation, at) = (commit.generation, commit.batch.at);
            letters::insert(&self.connection, id, generation, at, letter)?;
            bytes += letter.payload.len() as u64;
        }
        if bytes > 0
            && let Some(pipeline) = self.pipelines.get_mut(&commit.pipeline)
        {
            pipeline.dead_bytes += bytes;
            pipeline.dirty = true;
        }
        self.state(commit)?;
        Ok(Ok(()))
    }

    fn commit_range(
        &mut self,
        index: usize,
        encoded: &EncodedCommit,
        range: &SeqRange,
        generation: Checksum,
    ) -> Result<(), Fault> {
        let commit = &encoded.commit;
        let epoch = &self.epochs[index].row;
        let mut touched = Vec::new();
        for block in blocks::extents(&self.connection, epoch.stream_id, range.start, range.end)? {
            touched.extend(block.first_seq.to_be_bytes());
            touched.extend(block.checksum);
        }
        let hash = chain::ChainedCommit {
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
        let id = self.next_commit;
        let sql = "INSERT INTO commits (epoch_id, generation, first_seq, end_seq, outcomes, \
                   reasons, days, at, batch, blocks, dead, state, hash, id) VALUES (?1, ?2, ?3, \
                   ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)";
        self.connection.prepare_cached(sql)?.execute(params![
            epoch.id,
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
            hash,
            id
        ])?;
        self.next_commit += 1;
        let counts = self.tallies.entry(epoch.id).or_default();
        let drops = drops_of(&commit.batch.id, range.start);
        let (outcomes, reasons) = (&commit.outcomes, &commit.reasons);
        tallies::of_outcomes(outcomes, reasons, &commit.days, drops, counts)
            .map_err(|what| Fault::Damaged(what.to_owned()))?;
        let epoch = &mut self.epochs[index];
        epoch.row.progress.finish(range.clone());
        epoch.row.chain = hash;
        epoch.dirty = true;
        Ok(())
    }

    /// The epoch it belongs to and the digest of its generation, or why it is refused.
    fn admit(&self, commit: &Commit) -> Result<(usize, Checksum), String> {
        let (pipeline, stream) = (&commit.pipeline, &commit.stream);
        let Some(&index) = self.current.get(&(pipeline.clone(), stream.clone())) else {
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
        let Entries::Range(range) = &commit.entries else {
            return Ok((index, generation));
        };
        let next = self.streams[epoch.stream].row.next;
        if range.end > next {
            return Err(format!(
                "entries {range:?} of `{stream}` are beyond its last, {}",
                next - 1
            ));
        }
        if epoch.row.progress.touches(range) {
            return Err(format!(
                "of the entries {range:?} of `{stream}`, some have an outcome in `{pipeline}` \
                 already"
            ));
        }
        Ok((index, generation))
    }

    fn state(&self, commit: &Commit) -> Result<(), Fault> {
        for write in &commit.state {
            match &write.value {
                Some(value) => {
                    let checksum =
                        rows::state_checksum(&commit.pipeline, &write.owner, &write.key, value);
                    let sql = "INSERT INTO state (pipeline, owner, key, value, checksum) VALUES \
                               (?1, ?2, ?3, ?4, ?5) ON CONFLICT DO UPDATE SET value = ?4, checksum \
                               = ?5";
                    self.connection.prepare_cached(sql)?.execute(params![
                        commit.pipeline,
                        write.owner,
                        write.key,
                        value,
                        checksum
                    ])?;
                }
                None => {
                    let sql = "DELETE FROM state WHERE pipeline = ?1 AND owner = ?2 AND key = ?3";
                    self.connection.prepare_cached(sql)?.execute(params![
                        commit.pipeline,
                        write.owner,
                        write.key
                    ])?;
                }
            }
        }
        Ok(())
    }
}
