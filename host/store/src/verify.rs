//! Walks the chain of one pass: computes every hash again, replays what the links say of each entry
//! and counts it by day. Goes on after what does not hold, so that every place is named.

use std::collections::{BTreeMap, HashMap};

use lockgate_ledger::Progress;
use lockgate_model::{Books, Day, DayTally, Outcome, Outcomes, Seq, SeqRange};
use rusqlite::{Connection, Row};

use crate::audit::{Finding, Findings};
use crate::chain::{ChainHead, Link};
use crate::encoded::is_letter;
use crate::error::ReadError;
use crate::kept_blocks::KeptBlocks;
use crate::letter_operations::{self, Kind, LetterOperationRow};
use crate::rows::{self, Epoch};
use crate::schema::Checksum;
use crate::{codec, letters};

/// What the chain of one pass says.
pub struct Walk {
    pub head: ChainHead,
    /// Delivered, dropped and dead, by the day of the event.
    pub days: BTreeMap<Day, Books>,
    /// Days with outcomes whose events are gone: they cannot be counted by event any more.
    pub events_gone: Vec<Day>,
}

/// Walks the chain. `Err` only where the store could not be read.
pub fn walk(
    connection: &Connection,
    epoch: &Epoch,
    blocks: &mut KeptBlocks,
    findings: &mut Findings,
) -> Result<Walk, ReadError> {
    let mut verification = Verification {
        connection,
        epoch,
        blocks,
        findings,
        generations: HashMap::new(),
        progress: Progress::new(&epoch.progress.stream, epoch.progress.begin),
        dead: BTreeMap::new(),
        waiting: BTreeMap::new(),
        walk: Walk {
            head: ChainHead {
                stream: epoch.progress.stream.clone(),
                commits: 0,
                letter_operations: 0,
                hash: [0; 32],
                blocks: 0,
            },
            days: BTreeMap::new(),
            events_gone: Vec::new(),
        },
        last_block: None,
    };
    match verification.run() {
        // A row that cannot be read at all.
        Err(ReadError::Damaged(what)) => verification.find(None, "the chain of commits", what),
        result => result?,
    }
    Ok(verification.walk)
}

struct Verification<'a> {
    connection: &'a Connection,
    epoch: &'a Epoch,
    blocks: &'a mut KeptBlocks,
    findings: &'a mut Findings,
    generations: HashMap<u32, Option<Checksum>>,
    progress: Progress,
    /// Entries that are dead so far, with the checksums of their letters.
    dead: BTreeMap<Seq, Checksum>,
    /// Entries that wait again.
    waiting: BTreeMap<Seq, Checksum>,
    walk: Walk,
    /// The last block that was counted: neighbours name the same one.
    last_block: Option<Seq>,
}

/// The columns of a commit, as they stand there.
struct CommitRow {
    generation: u32,
    range: SeqRange,
    outcomes: Vec<u8>,
    reasons: String,
    days: String,
    at: i64,
    batch: String,
    blocks: Vec<u8>,
    dead: Vec<u8>,
    state: Vec<u8>,
    hash: Checksum,
    id: i64,
}

impl CommitRow {
    fn read(row: &Row<'_>) -> rusqlite::Result<CommitRow> {
        Ok(CommitRow {
            generation: row.get(0)?,
            range: row.get(1)?..row.get(2)?,
            outcomes: row.get(3)?,
            reasons: row.get(4)?,
            days: row.get(5)?,
            at: row.get(6)?,
            batch: row.get(7)?,
            blocks: row.get(8)?,
            dead: row.get(9)?,
            state: row.get(10)?,
            hash: row.get(11)?,
            id: row.get(12)?,
        })
    }
}

impl Verification<'_> {
    fn run(&mut self) -> Result<(), ReadError> {
        let connection = self.connection;
        let sql = "SELECT generation, first_seq, end_seq, outcomes, reasons, days, at, batch, blocks, dead, state, hash, id FROM commits \
                   WHERE epoch_id = ?1 ORDER BY id";
        let mut statement = connection.prepare_cached(sql)?;
        let mut rows = statement.query([self.epoch.id])?;
        let mut operation = letter_operations::after(connection, self.epoch.id, 0)?;
        while let Some(row) = rows.next()? {
            let row = CommitRow::read(row)?;
            operation = self.operations(operation, row.id)?;
            self.commit(&row)?;
        }
        self.operations(operation, i64::MAX)?;
        self.end();
        self.letters()
    }

    /// The links that stand before a commit. Answers the first that does not.
    fn operations(
        &mut self,
        mut next: Option<LetterOperationRow>,
        commit: i64,
    ) -> Result<Option<LetterOperationRow>, ReadError> {
        while let Some(row) = next.take_if(|row| row.after_commit < commit) {
            self.operation(&row)?;
            next = letter_operations::after(self.connection, self.epoch.id, row.id)?;
        }
        Ok(next)
    }

    fn commit(&mut self, row: &CommitRow) -> Result<(), ReadError> {
        let range = &row.range;
        let place = format!("the commit for entries {}..{}", range.start, range.end);
        let days = letter_operations::days(&row.days).unwrap_or_default();
        let day = self.day_of(range.start).or(days.first().map(|day| day.day));
        match self.generation(row.generation)? {
            None => self.find(day, &place, "its generation is gone"),
            Some(generation) => {
                let hash = Link {
                    previous: self.walk.head.hash,
                    pipeline: &self.epoch.pipeline,
                    stream: &self.epoch.progress.stream,
                    epoch: self.epoch.epoch,
                    generation: (row.generation, generation),
                    range: range.clone(),
                    outcomes: &row.outcomes,
                    reasons: &row.reasons,
                    days: &row.days,
                    at: row.at,
                    batch: &row.batch,
                    blocks: &row.blocks,
                    dead: &row.dead,
                    state: &row.state,
                }
                .hash();
                if hash != row.hash {
                    self.find(
                        day,
                        &place,
                        "its hash differs: it was changed, or the link before it is another one",
                    );
                }
            }
        }
        // From what stands there, so that one change is one finding.
        self.walk.head.hash = row.hash;
        self.walk.head.commits += 1;
        self.named_blocks(&row.blocks, day, &place);
        if range.is_empty() || range.end > self.blocks.next() || self.progress.touches(range) {
            self.find(
                day,
                &place,
                "some entry has two outcomes, or was never read",
            );
            return Ok(());
        }
        self.progress.finish(range.clone());
        let outcomes = match codec::decode_outcomes(&row.outcomes) {
            Ok(outcomes) if outcomes.covers(range) => outcomes,
            Ok(_) => {
                self.find(day, &place, "its outcomes are not its entries'");
                return Ok(());
            }
            Err(error) => {
                self.find(day, &place, error);
                return Ok(());
            }
        };
        self.count(range, &outcomes, &days, day, &place)?;
        if let Err(what) = self.die(range.clone(), &outcomes, &row.dead) {
            self.find(day, &place, what);
        }
        Ok(())
    }

    /// Counts outcomes by day: by the events where they are kept, else by what the commit says.
    fn count(
        &mut self,
        range: &SeqRange,
        outcomes: &Outcomes,
        days: &[DayTally],
        day: Option<Day>,
        place: &str,
    ) -> Result<(), ReadError> {
        let mut said: BTreeMap<Day, Books> = BTreeMap::new();
        for day in days {
            add(said.entry(day.day).or_default(), day);
        }
        let counted = match self.blocks.count(self.connection, range, outcomes) {
            Err(ReadError::Damaged(what)) => {
                self.find(day, place, what);
                None
            }
            counted => counted?,
        };
        if counted.is_none() {
            self.walk.events_gone.extend(said.keys());
        }
        let mut sum = Books::default();
        said.values().for_each(|books| sum += *books);
        let (delivered, dropped, dead) = outcomes.count();
        if (sum.delivered, sum.dropped, sum.dead) != (delivered, dropped, dead) {
            self.find(day, place, "its days are not its outcomes'");
        } else if let Some(counted) = &counted
            && *counted != said
        {
            self.find(
                day,
                place,
                "counted by the times of its events, its days differ",
            );
        }
        for (day, books) in counted.unwrap_or(said) {
            *self.walk.days.entry(day).or_default() += books;
        }
        Ok(())
    }

    fn operation(&mut self, row: &LetterOperationRow) -> Result<(), ReadError> {
        let place = format!(
            "the operation {} on dead letters (`{}`)",
            row.id,
            row.kind.name()
        );
        let days = letter_operations::days(&row.days).unwrap_or_default();
        let day = days.first().map(|day| day.day);
        match self.generation(row.generation)? {
            None => self.find(day, &place, "its generation is gone"),
            Some(generation) => {
                let (pipeline, stream) = (&self.epoch.pipeline, &self.epoch.progress.stream);
                let previous = &self.walk.head.hash;
                let hash = row.chained(previous, pipeline, stream, self.epoch.epoch, &generation);
                if hash != row.hash {
                    self.find(
                        day,
                        &place,
                        "its hash differs: it was changed, or the link before it is another one",
                    );
                }
            }
        }
        self.walk.head.hash = row.hash;
        self.walk.head.letter_operations += 1;
        if let Err(what) = self.replay(row, &days) {
            self.find(day, &place, what);
        }
        Ok(())
    }

    /// Takes back what an operation takes back, and adds what it adds.
    fn replay(&mut self, row: &LetterOperationRow, days: &[DayTally]) -> Result<(), String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let seqs = row.entries().map_err(|error| match error {
            ReadError::Damaged(what) | ReadError::Failed(what) | ReadError::Unknown(what) => what,
        })?;
        let outcomes = codec::decode_outcomes(&row.outcomes).map_err(|error| text(&error))?;
        let taken = match row.kind {
            Kind::Retry | Kind::Drop | Kind::Expire => &mut self.dead,
            Kind::Commit => &mut self.waiting,
        };
        let mut taken_back = Vec::new();
        for seq in &seqs {
            let letter = taken.remove(seq);
            taken_back
                .push(letter.ok_or_else(|| format!("entry {seq} was not there to take back"))?);
        }
        let entries: u64 = days
            .iter()
            .map(|day| day.delivered + day.dropped + day.dead)
            .sum();
        if entries != seqs.len() as u64 {
            return Err("its days are not its entries'".to_owned());
        }
        if row.kind != Kind::Commit && row.dead != taken_back.as_flattened() {
            return Err("it takes back other letters".to_owned());
        }
        for day in days {
            let books = self.walk.days.entry(day.day).or_default();
            match row.kind {
                Kind::Expire => {}
                Kind::Commit => add(books, day),
                Kind::Retry | Kind::Drop => {
                    let total = day.delivered + day.dropped + day.dead;
                    let left = books.dead.checked_sub(total);
                    books.dead = left.ok_or("it takes back more than was dead")?;
                    books.dropped += day.dropped;
                }
            }
        }
        match row.kind {
            Kind::Retry => self.waiting.extend(seqs.into_iter().zip(taken_back)),
            Kind::Drop | Kind::Expire => {}
            Kind::Commit => self.die(seqs.into_iter(), &outcomes, &row.dead)?,
        }
        Ok(())
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

    fn generation(&mut self, number: u32) -> Result<Option<Checksum>, ReadError> {
        if let Some(known) = self.generations.get(&number) {
            return Ok(*known);
        }
        let found = rows::generation(self.connection, &self.epoch.pipeline, number)?;
        self.generations.insert(number, found);
        Ok(found)
    }

    /// The blocks that a commit names are those that are kept, as far as they are.
    fn named_blocks(&mut self, named: &[u8], day: Option<Day>, place: &str) {
        let (named, rest) = named.as_chunks::<40>();
        if !rest.is_empty() {
            self.find(day, place, "its list of blocks is broken");
        }
        for entry in named {
            let (Some(first_seq), Some(checksum)) = (entry.first_chunk::<8>(), entry.get(8..))
            else {
                continue;
            };
            let first_seq = u64::from_be_bytes(*first_seq);
            if first_seq < self.blocks.oldest() {
                continue;
            }
            match self.blocks.checksum(first_seq) {
                None => self.find(day, place, format_args!("its block {first_seq} is gone")),
                Some(found) if found != *checksum => self.find(
                    day,
                    place,
                    format_args!("its block {first_seq} is another one"),
                ),
                Some(_) => {}
            }
            if self.last_block != Some(first_seq) {
                self.walk.head.blocks += 1;
                self.last_block = Some(first_seq);
            }
        }
    }

    /// The chain ends where the progress of the pipeline says.
    fn end(&mut self) {
        if self.progress != self.epoch.progress {
            let next = self.blocks.next();
            let (counted, said) = (
                self.progress.waiting(next),
                self.epoch.progress.waiting(next),
            );
            for range in without(&counted, &said) {
                let day = self.day_of(range.start);
                self.find(
                    day,
                    &format!("entries {}..{}", range.start, range.end),
                    "they are final, and no commit says what became of them: a commit was removed",
                );
            }
            for range in without(&said, &counted) {
                let day = self.day_of(range.start);
                self.find(
                    day,
                    &format!("entries {}..{}", range.start, range.end),
                    "they have an outcome, and the progress of the pipeline says that they wait",
                );
            }
        }
        if self.walk.head.hash != self.epoch.chain {
            self.find(
                None,
                "the end of the chain",
                "the last link is not the one that the progress of the pipeline names: a commit or \
                 an operation on dead letters was removed or added",
            );
        }
    }

    /// Every letter that is dead or waits again is there, as it was written, and no other.
    fn letters(&mut self) -> Result<(), ReadError> {
        let sql = format!(
            "SELECT {}, d.redrive > 0 FROM dead_letters d WHERE d.epoch_id = ?1",
            letters::COLUMNS
        );
        let connection = self.connection;
        let mut statement = connection.prepare_cached(&sql)?;
        let mut rows = statement.query([self.epoch.id])?;
        while let Some(row) = rows.next()? {
            let letter = letters::read(row)?;
            let waits: bool = row.get(letters::COUNT)?;
            let known = if waits {
                &mut self.waiting
            } else {
                &mut self.dead
            };
            let known = known.remove(&letter.seq);
            if !known.is_some_and(|known| is_letter(&letter, &known)) {
                self.find(
                    Some(Day::of(letter.time)),
                    &format!("the dead letter {}", letter.seq),
                    "it is not what was written",
                );
            }
        }
        for seq in std::mem::take(&mut self.waiting).into_keys() {
            let day = self.day_of(seq);
            self.find(
                day,
                &format!("entry {seq}"),
                "it waits again, and its event is gone",
            );
        }
        for seq in std::mem::take(&mut self.dead).into_keys() {
            let day = self.day_of(seq);
            self.find(
                day,
                &format!("the dead letter {seq}"),
                "it is gone, and no record says that it was retried, dropped or expired",
            );
        }
        Ok(())
    }

    /// The day of an entry, where its block is kept. Only for naming a place.
    fn day_of(&mut self, seq: Seq) -> Option<Day> {
        self.blocks.day_of(self.connection, seq).ok().flatten()
    }

    fn find(&mut self, day: Option<Day>, place: &str, what: impl std::fmt::Display) {
        self.findings.push(Finding {
            pipeline: Some(self.epoch.pipeline.to_string()),
            stream: Some(self.epoch.progress.stream.clone()),
            day,
            place: place.to_owned(),
            what: what.to_string(),
        });
    }
}

fn add(books: &mut Books, day: &DayTally) {
    books.delivered += day.delivered;
    books.dropped += day.dropped;
    books.dead += day.dead;
}

/// The parts of `ranges` that lie in none of `others`. Both ascending.
fn without(ranges: &[SeqRange], others: &[SeqRange]) -> Vec<SeqRange> {
    let mut left = Vec::new();
    for range in ranges {
        let mut start = range.start;
        for other in others {
            if other.end <= start || other.start >= range.end {
                continue;
            }
            if other.start > start {
                left.push(start..other.start);
            }
            start = other.end;
        }
        if start < range.end {
            left.push(start..range.end);
        }
    }
    left
}

#[cfg(test)]
mod tests {
    use super::without;

    #[test]
    fn ranges_are_cut_by_others() {
        let ranges = |pairs: &[(u64, u64)]| {
            let pairs = pairs.iter();
            pairs.map(|&(start, end)| start..end).collect::<Vec<_>>()
        };
        for (these, others, left) in [
            (&[(1, 9)][..], &[][..], &[(1, 9)][..]),
            (&[(1, 9)], &[(3, 5)], &[(1, 3), (5, 9)]),
            (&[(1, 9), (12, 20)], &[(0, 2), (8, 15)], &[(2, 8), (15, 20)]),
            (&[(3, 5)], &[(1, 9)], &[]),
        ] {
            let found = without(&ranges(these), &ranges(others));
            assert_eq!(found, ranges(left), "{these:?} without {others:?}");
        }
    }
}
