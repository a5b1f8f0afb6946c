//! Computes the hashes of a chain of commits again, and replays what it says of each entry.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use lockgate_ledger::Progress;
use lockgate_model::{Outcome, Outcomes, Seq, SeqRange};
use rusqlite::{Connection, Row};

use crate::chain::{ChainHead, Link};
use crate::encoded::is_letter;
use crate::error::ReadError;
use crate::letter_operations::{Kind, LetterOperationRow};
use crate::rows::{self, Epoch};
use crate::schema::Checksum;
use crate::{blocks, codec, letter_operations, letters};

/// Computes every hash of a pipeline's commits again, reads every block they name, and replays
/// their ranges.
pub fn pipeline(connection: &Connection, pipeline: &str) -> Result<Vec<ChainHead>, ReadError> {
    let epochs = rows::epochs_of(connection, pipeline)?;
    if epochs.is_empty() {
        return Err(ReadError::Unknown(format!("pipeline `{pipeline}`")));
    }
    let mut heads: Vec<ChainHead> = Vec::new();
    for epoch in &epochs {
        let stream = &epoch.progress.stream;
        if heads.last().is_none_or(|head| head.stream != *stream) {
            heads.push(ChainHead {
                stream: stream.clone(),
                commits: 0,
                letter_operations: 0,
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
    /// Entries that are dead so far, with the checksums of their letters.
    dead: BTreeMap<Seq, Checksum>,
    /// Entries that wait again.
    waiting: BTreeMap<Seq, Checksum>,
}

impl<'a> Verification<'a> {
    fn new(connection: &'a Connection, epoch: &'a Epoch) -> Result<Self, ReadError> {
        let stream = rows::stream(connection, &epoch.progress.stream)?.ok_or_else(|| {
            ReadError::Damaged(format!("the stream `{}` is gone", epoch.progress.stream))
        })?;
        Ok(Verification {
            connection,
            epoch,
            stream,
            generations: HashMap::new(),
            last_block: None,
            dead: BTreeMap::new(),
            waiting: BTreeMap::new(),
        })
    }

    fn run(&mut self, head: &mut ChainHead) -> Result<(), ReadError> {
        let sql = "SELECT generation, first_seq, end_seq, outcomes, reasons, days, at, batch, blocks, dead, state, hash, id FROM commits \
                   WHERE epoch_id = ?1 ORDER BY id";
        let mut statement = self.connection.prepare_cached(sql)?;
        let mut rows = statement.query([self.epoch.id])?;
        let mut progress = Progress::new(&self.epoch.progress.stream, self.epoch.progress.begin);
        let mut operation = letter_operations::after(self.connection, self.epoch.id, 0)?;
        while let Some(row) = rows.next()? {
            operation = self.operations(operation, row.get(12)?, head)?;
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
        self.operations(operation, i64::MAX, head)?;
        if head.hash != self.epoch.chain || progress != self.epoch.progress {
            return Err(ReadError::Damaged(format!(
                "the commits of `{}` on `{}` do not end where its progress says",
                self.epoch.pipeline, self.stream.name
            )));
        }
        self.letters()
    }

    /// The links that stand before a commit. Answers the first that does not.
    fn operations(
        &mut self,
        mut next: Option<LetterOperationRow>,
        commit: i64,
        head: &mut ChainHead,
    ) -> Result<Option<LetterOperationRow>, ReadError> {
        while let Some(row) = next.take_if(|row| row.after_commit < commit) {
            head.hash = self.operation(&row, &head.hash)?;
            head.letter_operations += 1;
            next = letter_operations::after(self.connection, self.epoch.id, row.id)?;
        }
        Ok(next)
    }

    fn operation(
        &mut self,
        row: &LetterOperationRow,
        previous: &Checksum,
    ) -> Result<Checksum, ReadError> {
        let generation =
            self.known_generation(row.generation, || row.damaged("its generation is gone"))?;
        let epoch = self.epoch;
        let (pipeline, stream) = (&epoch.pipeline, &self.stream.name);
        let hash = row.chained(previous, pipeline, stream, epoch.epoch, &generation);
        if hash != row.hash {
            return Err(row.damaged("its hash differs"));
        }
        let seqs = row.entries()?;
        let outcomes = codec::decode_outcomes(&row.outcomes).map_err(|error| row.damaged(error))?;
        let taken = match row.kind {
            Kind::Retry | Kind::Drop | Kind::Expire => &mut self.dead,
            Kind::Commit => &mut self.waiting,
        };
        let mut letters = Vec::new();
        for seq in &seqs {
            let Some(letter) = taken.remove(seq) else {
                return Err(row.damaged(format_args!("entry {seq} was not there to take back")));
            };
            letters.push(letter);
        }
        match row.kind {
            Kind::Retry | Kind::Drop | Kind::Expire if row.dead != letters.as_flattened() => {
                return Err(row.damaged("it takes back other letters"));
            }
            Kind::Retry => self.waiting.extend(seqs.into_iter().zip(letters)),
            Kind::Drop | Kind::Expire => {}
            Kind::Commit => self
                .die(seqs.into_iter(), &outcomes, &row.dead)
                .map_err(|what| row.damaged(what))?,
        }
        Ok(hash)
    }

    /// Notes which entries died.
    fn die(
        &mut self,
        seqs: impl Iterator<Item = Seq>,
        outcomes: &Outcomes,
        letters: &[u8],
    ) -> Result<(), &'static str> {
        let (letters, rest) = letters.as_chunks::<32>();
        let mut letters = letters.iter();
        let dead = seqs
            .zip(outcomes.iter())
            .filter(|(_, outcome)| matches!(outcome, Outcome::Dead(_)));
        for (seq, _) in dead {
            let letter = letters.next().ok_or("it lacks a dead letter")?;
            self.dead.insert(seq, *letter);
        }
        if letters.next().is_some() || !rest.is_empty() {
            return Err("it has a dead letter too many");
        }
        Ok(())
    }

    fn commit(
        &mut self,
        row: &Row<'_>,
        range: &SeqRange,
        head: &mut ChainHead,
    ) -> Result<Checksum, ReadError> {
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
        if !dead.is_empty() {
            let outcomes =
                codec::decode_outcomes(&outcomes).map_err(|error| self.damaged(range, error))?;
            self.die(range.clone(), &outcomes, &dead)
                .map_err(|what| self.damaged(range, what))?;
        }
        Ok(hash)
    }

    fn generation(&mut self, number: u32, range: &SeqRange) -> Result<Checksum, ReadError> {
        let (pipeline, stream) = (self.epoch.pipeline.clone(), self.stream.name.clone());
        self.known_generation(number, || {
            damaged(&pipeline, &stream, range, "its generation is gone")
        })
    }

    fn known_generation(
        &mut self,
        number: u32,
        gone: impl FnOnce() -> ReadError,
    ) -> Result<Checksum, ReadError> {
        if let Some(known) = self.generations.get(&number) {
            return Ok(*known);
        }
        let found = rows::generation(self.connection, &self.epoch.pipeline, number)?;
        let found = found.ok_or_else(gone)?;
        self.generations.insert(number, found);
        Ok(found)
    }

    /// Counts the blocks that are seen for the first time.
    fn blocks(&mut self, named: &[u8], range: &SeqRange) -> Result<u64, ReadError> {
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

    /// Dead letters may be gone: an operator removed them with another tool. Those that are there
    /// are as they were, and no entry that waits again lacks its event.
    fn letters(&self) -> Result<(), ReadError> {
        let sql = format!(
            "SELECT {}, d.redrive > 0 FROM dead_letters d WHERE d.epoch_id = ?1",
            letters::COLUMNS
        );
        let mut statement = self.connection.prepare_cached(&sql)?;
        let mut rows = statement.query([self.epoch.id])?;
        let mut gone: BTreeSet<Seq> = self.waiting.keys().copied().collect();
        while let Some(row) = rows.next()? {
            let letter = letters::read(row)?;
            let waits: bool = row.get(letters::COUNT)?;
            let known = if waits { &self.waiting } else { &self.dead };
            if !known
                .get(&letter.seq)
                .is_some_and(|known| is_letter(&letter, known))
            {
                return Err(self.damaged(
                    &(letter.seq..letter.seq + 1),
                    format_args!("the dead letter {} is not what was written", letter.seq),
                ));
            }
            gone.remove(&letter.seq);
        }
        match gone.first() {
            None => Ok(()),
            Some(&seq) => Err(self.damaged(
                &(seq..seq + 1),
                format_args!("entry {seq} waits again, and its event is gone"),
            )),
        }
    }

    fn damaged(&self, range: &SeqRange, what: impl std::fmt::Display) -> ReadError {
        damaged(&self.epoch.pipeline, &self.stream.name, range, what)
    }
}

fn damaged(
    pipeline: &str,
    stream: &str,
    range: &SeqRange,
    what: impl std::fmt::Display,
) -> ReadError {
    ReadError::Damaged(format!(
        "the commit of `{pipeline}` for {range:?} of `{stream}`: {what}"
    ))
}
