//! Gives up the events of a damaged block: they become dead letters of every pipeline that has not
//! finished them.

use std::collections::BTreeMap;

use lockgate_model::{
    BatchRecord, Commit, Day, DayTally, DeadLetter, Entries, Millis, Outcome, OutcomeRun, Outcomes,
    Seq, SeqRange,
};

use super::damaged::Damaged;
use super::{Fault, Writer};
use crate::blocks::StoredBlock;
use crate::damage;
use crate::encoded::EncodedCommit;
use crate::{Heads, LedgerError};

impl Writer {
    /// Answers how many entries became dead letters, over all pipelines. The inner error: refused,
    /// because the block is sound or is not there.
    pub fn write_off(
        &mut self,
        stream: &str,
        seq: Seq,
        at: Millis,
    ) -> Result<Result<u64, LedgerError>, Fault> {
        let Damaged {
            stream: index,
            part,
            stored,
        } = match self.damaged(stream, seq)? {
            Ok(damaged) => damaged,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let row = &self.streams[index].row;
        let count = part.entries.end - part.entries.start;
        let heads = stored.as_ref().and_then(StoredBlock::damaged_heads);
        let mut block = GivenUp {
            read_at: stored.as_ref().map_or(at, |stored| stored.read_at),
            times: stored
                .as_ref()
                .map(|stored| stored.times)
                .filter(|(first, last)| first <= last)
                .unwrap_or(part.times),
            heads: heads.filter(|heads| heads.len() as u64 == count),
            missing: Vec::new(),
            missing_before: 0,
            entries: part.entries,
        };
        if part.row.is_none() {
            let missing = damage::missing_days(&self.connection, row)?;
            block.missing = missing.into_iter().collect();
            let start = block.entries.start;
            block.missing_before = damage::missing_before(&self.connection, row, start)?;
        }
        let mut written_off = 0;
        for epoch in 0..self.epochs.len() {
            if self.epochs[epoch].stream == index {
                written_off += self.write_off_for(epoch, &block, at)?;
            }
        }
        Ok(Ok(written_off))
    }

    fn write_off_for(&mut self, index: usize, block: &GivenUp, at: Millis) -> Result<u64, Fault> {
        let waiting = self.epochs[index].row.progress.waiting(block.entries.end);
        let mut written_off = 0;
        for range in waiting
            .into_iter()
            .map(|range| range.start.max(block.entries.start)..range.end.min(block.entries.end))
            .filter(|range| !range.is_empty())
        {
            let epoch = &self.epochs[index].row;
            let reason = format!(
                "its block {}..{} in the store is damaged, and was given up",
                block.entries.start, block.entries.end
            );
            let letter = |seq: Seq| block.letter(seq, &reason);
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

/// A block without its events.
struct GivenUp {
    entries: SeqRange,
    read_at: Millis,
    /// The earliest and the latest time of its events.
    times: (Millis, Millis),
    heads: Option<Heads>,
    /// If its row is gone: the days of the events that are missing, with their numbers.
    missing: Vec<(Day, u64)>,
    /// How many of these are of blocks before this one.
    missing_before: u64,
}

impl GivenUp {
    /// Without its event. What the damaged columns say of it may be wrong.
    fn letter(&self, seq: Seq, reason: &str) -> DeadLetter {
        let nth = seq - self.entries.start;
        let letter = DeadLetter {
            seq,
            time: self.missing_at(nth).unwrap_or(self.times.0),
            read_at: self.read_at,
            cause: "store".to_owned(),
            reason: reason.to_owned(),
            raw: true,
            ..DeadLetter::default()
        };
        let row = nth as usize;
        match &self.heads {
            None => letter,
            Some(heads) => DeadLetter {
                key: heads.keys.at(row).to_owned(),
                event_type: heads.types.at(row).to_owned(),
                code: heads.codes.at(row).to_owned(),
                session: heads.sessions.at(row).to_owned(),
                index: heads.indexes[row],
                // The days of the block are those of the books.
                time: heads.times[row].clamp(self.times.0, self.times.1),
                ..letter
            },
        }
    }

    /// A time in the day of the missing event of this number.
    fn missing_at(&self, nth: u64) -> Option<Millis> {
        let mut left = self.missing_before.saturating_add(nth);
        let day = self.missing.iter().find(|(_, count)| {
            let is_in_it = left < *count;
            left = left.saturating_sub(*count);
            is_in_it
        });
        day.map(|(day, _)| day.start())
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
