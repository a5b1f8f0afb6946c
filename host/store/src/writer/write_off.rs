//! Gives up the events of a damaged block: they become dead letters of every pipeline that has not
//! finished them.

use std::collections::BTreeMap;

use lockgate_model::{
    BatchRecord, Commit, Day, DayTally, DeadLetter, Entries, Millis, Outcome, OutcomeRun, Outcomes,
    Seq,
};

use super::{Fault, Writer};
use crate::blocks::Extent;
use crate::encoded::EncodedCommit;
use crate::{Heads, LedgerError, blocks};

impl Writer {
    /// Answers how many entries became dead letters, over all pipelines. The inner error: refused,
    /// because the block is sound or is not there.
    pub fn write_off(
        &mut self,
        stream: &str,
        seq: Seq,
        at: Millis,
    ) -> Result<Result<u64, LedgerError>, Fault> {
        let refused = |what: &str| {
            let refusal = format!("the block of entry {seq} of `{stream}` {what}");
            Ok(Err(LedgerError::Conflict(refusal)))
        };
        let Some(&index) = self.by_name.get(stream) else {
            return refused("is not there");
        };
        let row = &self.streams[index].row;
        let extents = blocks::extents(&self.connection, row.id, seq, seq.saturating_add(1))?;
        let Some(block) = extents.first().copied() else {
            return refused("is not there");
        };
        let stored = blocks::at(&self.connection, row, block.first_seq);
        let stored = stored.ok().flatten();
        if stored
            .as_ref()
            .is_some_and(|stored| stored.block(row).is_ok())
        {
            return refused("is not damaged");
        }
        let heads = stored.and_then(|stored| stored.damaged_heads());
        let mut written_off = 0;
        for epoch in 0..self.epochs.len() {
            if self.epochs[epoch].stream == index {
                written_off += self.write_off_for(epoch, &block, heads.as_ref(), at)?;
            }
        }
        Ok(Ok(written_off))
    }

    fn write_off_for(
        &mut self,
        index: usize,
        block: &Extent,
        heads: Option<&Heads>,
        at: Millis,
    ) -> Result<u64, Fault> {
        let waiting = self.epochs[index].row.progress.waiting(block.end());
        let mut written_off = 0;
        for range in waiting
            .into_iter()
            .map(|range| range.start.max(block.first_seq)..range.end.min(block.end()))
            .filter(|range| !range.is_empty())
        {
            let epoch = &self.epochs[index].row;
            let reason = format!(
                "its block {}..{} in the store is damaged, and was given up",
                block.first_seq,
                block.end()
            );
            let letter = |seq: Seq| letter(seq, block, heads, &reason);
            let dead: Vec<DeadLetter> = range.clone().map(letter).collect();
            let commit = Commit {
                pipeline: epoch.pipeline.clone(),
                stream: self.streams[self.epochs[index].stream].row.name.clone(),
                epoch: epoch.epoch,
                generation: self.current_generation(&epoch.pipeline),
                outcomes: Outcomes {
                    runs: vec![OutcomeRun {
                        outcome: Outcome::Dead(0),
                        len: dead.len() as u32,
                    }],
                },
                reasons: vec![reason],
                days: tallies(&dead),
                batch: BatchRecord {
                    id: format!("write-off-{}", range.start),
                    at,
                    requests: Vec::new(),
                },
                dead,
                entries: Entries::Range(range),
                ..Commit::default()
            };
            written_off += commit.entries.len();
            self.apply(&EncodedCommit::new(commit)?)??;
        }
        Ok(written_off)
    }
}

/// Without its event. What the damaged columns say of it may be wrong.
fn letter(seq: Seq, block: &Extent, heads: Option<&Heads>, reason: &str) -> DeadLetter {
    let letter = DeadLetter {
        seq,
        time: block.times.0,
        read_at: block.read_at,
        cause: "store".to_owned(),
        reason: reason.to_owned(),
        raw: true,
        ..DeadLetter::default()
    };
    let row = (seq - block.first_seq) as usize;
    match heads {
        None => letter,
        Some(heads) => DeadLetter {
            key: heads.keys.at(row).to_owned(),
            event_type: heads.types.at(row).to_owned(),
            code: heads.codes.at(row).to_owned(),
            session: heads.sessions.at(row).to_owned(),
            index: heads.indexes[row],
            // The days of the block are those of the books.
            time: heads.times[row].clamp(block.times.0, block.times.1),
            ..letter
        },
    }
}

fn tallies(dead: &[DeadLetter]) -> Vec<DayTally> {
    let mut days: BTreeMap<Day, u64> = BTreeMap::new();
    for letter in dead {
        *days.entry(Day::of(letter.time)).or_default() += 1;
    }
    let tally = |(day, dead)| DayTally {
        day,
        delivered: 0,
        dropped: 0,
        dead,
    };
    days.into_iter().map(tally).collect()
}
