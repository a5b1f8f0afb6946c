//! Commits are chained by hash, for each pipeline and stream: nothing that was committed can be
//! changed unseen.

use std::collections::HashMap;

use lockgate_model::{DeadLetter, Millis, Seq, SeqRange};
use rusqlite::{Connection, Row, params};

use crate::encoded::letter_checksum;
use crate::rows::{self, Epoch};
use crate::schema::{Checksum, digest};
use crate::{Progress, StoreError, blocks};

/// How a verified chain ends. Who keeps it elsewhere can prove later that nothing before it was
/// changed or cut off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainHead {
    pub stream: String,
    pub commits: u64,
    /// The last commit's hash; zeros where there is none.
    pub hash: [u8; 32],
    /// Of the blocks that the commits name, how many are still kept, and were read and found as
    /// they were.
    pub blocks: u64,
}

/// What a commit's hash is taken over, in this order: integers as 8 bytes, texts and blobs after
/// their lengths.
pub struct Link<'a> {
    pub previous: Checksum,
    pub pipeline: &'a str,
    pub stream: &'a str,
    pub epoch: u32,
    /// Its number, and the SHA-256 of its description.
    pub generation: (u32, Checksum),
    pub range: SeqRange,
    pub outcomes: &'a [u8],
    pub reasons: &'a str,
    pub days: &'a str,
    pub at: Millis,
    pub batch: &'a str,
    pub blocks: &'a [u8],
    pub dead: &'a [u8],
    pub state: &'a [u8],
}

impl Link<'_> {
    pub fn hash(&self) -> Checksum {
        digest([
            self.previous.as_slice().into(),
            self.pipeline.into(),
            self.stream.into(),
            self.epoch.into(),
            self.generation.0.into(),
            self.generation.1.as_slice().into(),
            self.range.start.into(),
            self.range.end.into(),
            self.outcomes.into(),
            self.reasons.into(),
            self.days.into(),
            self.at.into(),
            self.batch.into(),
            self.blocks.into(),
            self.dead.into(),
            self.state.into(),
        ])
    }
}

/// Takes every hash of a pipeline's commits anew, reads every block they name, and replays their
/// ranges.
pub fn verify(connection: &Connection, pipeline: &str) -> Result<Vec<ChainHead>, StoreError> {
    let epochs = rows::epochs_of(connection, pipeline)?;
    if epochs.is_empty() {
        return Err(StoreError::Unknown(format!("pipeline `{pipeline}`")));
    }
    let mut heads: Vec<ChainHead> = Vec::new();
    for epoch in &epochs {
        let stream = &epoch.progress.stream;
        if heads.last().is_none_or(|head| head.stream != *stream) {
            heads.push(ChainHead {
                stream: stream.clone(),
                commits: 0,
                hash: [0; 32],
                blocks: 0,
            });
        }
        if let Some(head) = heads.last_mut() {
            Verification::new(connection, epoch)?.run(head)?;
        }
    }
    Ok(heads)
}

struct Verification<'a> {
    connection: &'a Connection,
    epoch: &'a Epoch,
    stream: rows::Stream,
    generations: HashMap<u32, Checksum>,
    /// The last block that was verified: neighbours name the same one.
    last_block: Option<(Seq, Checksum)>,
}

impl<'a> Verification<'a> {
    fn new(connection: &'a Connection, epoch: &'a Epoch) -> Result<Self, StoreError> {
        let stream = rows::stream(connection, &epoch.progress.stream)?.ok_or_else(|| {
            StoreError::Damaged(format!("the stream `{}` is gone", epoch.progress.stream))
        })?;
        Ok(Verification {
            connection,
            epoch,
            stream,
            generations: HashMap::new(),
            last_block: None,
        })
    }

    fn run(&mut self, head: &mut ChainHead) -> Result<(), StoreError> {
        let sql = "SELECT generation, first_seq, end_seq, outcomes, reasons, days, at, batch, blocks, dead, state, hash FROM commits \
                   WHERE epoch_id = ?1 ORDER BY id";
        let mut statement = self.connection.prepare_cached(sql)?;
        let mut rows = statement.query([self.epoch.id])?;
        let mut progress = Progress::new(&self.epoch.progress.stream, self.epoch.progress.begin);
        while let Some(row) = rows.next()? {
            let range = row.get(1)?..row.get(2)?;
            head.hash = self.commit(row, &range, head)?;
            head.commits += 1;
            if range.is_empty() || range.end > self.stream.next || progress.touches(&range) {
                return Err(self.damaged(
                    &range,
                    "some entry got its outcome twice, or was never read",
                ));
            }
            progress.finish(range);
        }
        if head.hash != self.epoch.chain || progress != self.epoch.progress {
            return Err(StoreError::Damaged(format!(
                "the commits of `{}` on `{}` do not end where its progress says",
                self.epoch.pipeline, self.stream.name
            )));
        }
        Ok(())
    }

    fn commit(
        &mut self,
        row: &Row<'_>,
        range: &SeqRange,
        head: &mut ChainHead,
    ) -> Result<Checksum, StoreError> {
        let number: u32 = row.get(0)?;
        let generation = self.generation(number, range)?;
        let (outcomes, reasons): (Vec<u8>, String) = (row.get(3)?, row.get(4)?);
        let (days, batch): (String, String) = (row.get(5)?, row.get(7)?);
        let (blocks, dead, state): (Vec<u8>, Vec<u8>, Vec<u8>) =
            (row.get(8)?, row.get(9)?, row.get(10)?);
        let hash = Link {
            previous: head.hash,
            pipeline: &self.epoch.pipeline,
            stream: &self.stream.name,
            epoch: self.epoch.epoch,
            generation: (number, generation),
            range: range.clone(),
            outcomes: &outcomes,
            reasons: &reasons,
            days: &days,
            at: row.get(6)?,
            batch: &batch,
            blocks: &blocks,
            dead: &dead,
            state: &state,
        }
        .hash();
        if row.get::<_, Checksum>(11)? != hash {
            return Err(self.damaged(range, "its hash differs"));
        }
        head.blocks += self.blocks(&blocks, range)?;
        self.letters(&dead, range)?;
        Ok(hash)
    }

    fn generation(&mut self, number: u32, range: &SeqRange) -> Result<Checksum, StoreError> {
        if let Some(known) = self.generations.get(&number) {
            return Ok(*known);
        }
        let found = rows::generation(self.connection, &self.epoch.pipeline, number)?
            .ok_or_else(|| self.damaged(range, format_args!("its generation {number} is gone")))?;
        self.generations.insert(number, found);
        Ok(found)
    }

    /// Counts the blocks that are seen for the first time.
    fn blocks(&mut self, named: &[u8], range: &SeqRange) -> Result<u64, StoreError> {
        let mut seen = 0;
        for entry in named.chunks(40) {
            let (Some(first_seq), Some(checksum)) = (entry.first_chunk::<8>(), entry.get(8..40))
            else {
                return Err(self.damaged(range, "its list of blocks is broken"));
            };
            let first_seq = u64::from_be_bytes(*first_seq);
            if first_seq < self.stream.oldest {
                continue;
            }
            let found = match self.last_block {
                Some((seq, found)) if seq == first_seq => found,
                _ => {
                    seen += 1;
                    match blocks::at(self.connection, &self.stream, first_seq)? {
                        Some(block) => block.verify(&self.stream)?,
                        None => {
                            return Err(
                                self.damaged(range, format_args!("its block {first_seq} is gone"))
                            );
                        }
                    }
                }
            };
            if found != *checksum {
                return Err(
                    self.damaged(range, format_args!("its block {first_seq} is another one"))
                );
            }
            self.last_block = Some((first_seq, found));
        }
        Ok(seen)
    }

    /// Letters may be gone: an operator removes them. Those that are there are as they were.
    fn letters(&self, checksums: &[u8], range: &SeqRange) -> Result<(), StoreError> {
        if checksums.is_empty() {
            return Ok(());
        }
        for letter in letters(self.connection, self.epoch.id, range)? {
            let found = letter_checksum(&letter);
            if !checksums.chunks(32).any(|known| *known == found) {
                return Err(self.damaged(
                    range,
                    format_args!("the dead letter {} is not what was written", letter.seq),
                ));
            }
        }
        Ok(())
    }

    fn damaged(&self, range: &SeqRange, what: impl std::fmt::Display) -> StoreError {
        StoreError::Damaged(format!(
            "the commit of `{}` for {range:?} of `{}`: {what}",
            self.epoch.pipeline, self.stream.name
        ))
    }
}

fn letters(
    connection: &Connection,
    epoch_id: i64,
    range: &SeqRange,
) -> rusqlite::Result<Vec<DeadLetter>> {
    let sql = "SELECT seq, key, event_type, time, cause, reason, payload FROM dead_letters WHERE epoch_id = ?1 AND seq >= ?2 AND seq < ?3 \
               ORDER BY seq";
    let mut statement = connection.prepare_cached(sql)?;
    statement
        .query_map(params![epoch_id, range.start, range.end], |row| {
            letter(row, 0)
        })?
        .collect()
}

/// A dead letter from seven columns.
pub fn letter(row: &Row<'_>, at: usize) -> rusqlite::Result<DeadLetter> {
    Ok(DeadLetter {
        seq: row.get(at)?,
        key: row.get(at + 1)?,
        event_type: row.get(at + 2)?,
        time: row.get(at + 3)?,
        cause: row.get(at + 4)?,
        reason: row.get(at + 5)?,
        payload: row.get(at + 6)?,
    })
}
