//! Walks the chain of one pass: computes every hash again, replays what the links say of each entry
//! and counts it by day. Goes on after what does not hold, so that every place is named.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use lockgate_ledger::Progress;
use lockgate_model::{Books, Day, Millis, Seq, SeqRange};
use rusqlite::Connection;

use crate::anchors::{self, Anchor};
use crate::audit::{Finding, Findings};
use crate::chain::ChainHead;
use crate::encoded::is_letter;
use crate::error::ReadError;
use crate::kept_blocks::KeptBlocks;
use crate::links::{self, CommitRow, Link, Links};
use crate::rows::{self, Epoch};
use crate::schema::Checksum;
use crate::tallies::{self, Counts, OTHER_REASONS, TallyRow};
use crate::{letter_operations, letters};

/// The contents of the chain of one pass.
pub struct Walk {
    pub head: ChainHead,
    /// Delivered, dropped and dead, by the day of the event.
    pub days: BTreeMap<Day, Books>,
    /// Days with outcomes whose events are gone: they cannot be counted by event any more.
    pub events_gone: BTreeSet<Day>,
    /// Days with outcomes whose commits are gone: they stand in the tallies alone.
    pub folded: BTreeSet<Day>,
    /// Anchors by the number of links, oldest first, with their hashes.
    pub anchors: Vec<(u64, Checksum)>,
    /// The chain and its counts after as many links as were asked for.
    pub mark: Option<Mark>,
}

/// A chain after some of its links.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    pub hash: Checksum,
    pub days: BTreeMap<Day, Books>,
}

/// Walks the chain. `Err` only if the store could not be read. `mark`: after how many links to
/// note where the chain stands.
pub fn walk(
    connection: &Connection,
    epoch: &Epoch,
    blocks: &mut KeptBlocks,
    mark: Option<u64>,
    findings: &mut Findings,
) -> Result<Walk, ReadError> {
    let mut verification = Verification {
        connection,
        epoch,
        blocks,
        findings,
        generations: HashMap::new(),
        anchor: Anchor::of_nothing(epoch),
        progress: Progress::new(&epoch.progress.stream, epoch.progress.begin),
        dead: BTreeMap::new(),
        waiting: BTreeMap::new(),
        made: HashMap::new(),
        tallies: Vec::new(),
        counts: Counts::new(),
        asked_mark: mark,
        walk: Walk {
            head: ChainHead {
                stream: epoch.progress.stream.clone(),
                commits: 0,
                letter_operations: 0,
                folded: 0,
                hash: [0; 32],
                blocks: 0,
            },
            days: BTreeMap::new(),
            events_gone: BTreeSet::new(),
            folded: BTreeSet::new(),
            anchors: Vec::new(),
            mark: None,
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
    /// Where the kept part of the chain begins.
    anchor: Anchor,
    progress: Progress,
    /// Entries that are dead so far, with the checksums of their letters.
    dead: BTreeMap<Seq, Checksum>,
    /// Entries that wait again.
    waiting: BTreeMap<Seq, Checksum>,
    /// When the dead letters died that the links name, and in which generation.
    made: HashMap<Seq, (Millis, u32)>,
    tallies: Vec<TallyRow>,
    /// The part of the tallies that comes from the links that are kept.
    counts: Counts,
    asked_mark: Option<u64>,
    walk: Walk,
    /// The last block that was counted: neighbours name the same one.
    last_block: Option<Seq>,
}

const HASH_DIFFERS: &str =
    "its hash differs: it was changed, or the link before it is not the one that was there";

impl Verification<'_> {
    fn run(&mut self) -> Result<(), ReadError> {
        self.tallies = tallies::rows(self.connection, self.epoch.id)?;
        self.anchors()?;
        self.mark();
        let (connection, epoch_id) = (self.connection, self.epoch.id);
        let (commit, operation) = (self.anchor.last_commit, self.anchor.last_operation);
        let mut links = Links::after(connection, epoch_id, commit, operation)?;
        while let Some(link) = links.next(connection)? {
            self.link(&link)?;
            self.mark();
        }
        self.end();
        self.tallies();
        self.letters()
    }

    /// What stands for the part of the chain that was folded.
    fn anchors(&mut self) -> Result<(), ReadError> {
        let mut previous = [0; 32];
        let anchors = anchors::of(self.connection, self.epoch)?;
        for (anchor, written) in anchors {
            if anchor.checksum(self.epoch.id, &previous) != written {
                let place = format!("the anchor after {} links", anchor.links);
                let what = "it is not what was written, or the anchor before it is another one";
                self.find(Some(Day::of(anchor.at)), &place, what);
            }
            previous = written;
            self.walk.anchors.push((anchor.links, anchor.hash));
            self.anchor = anchor;
        }
        let anchor = self.anchor.clone();
        let place = format!("the anchor after {} links", anchor.links);
        let at = (anchor.links > 0).then(|| Day::of(anchor.at));
        if tallies::folded_digest(&self.tallies) != anchor.tallies {
            let what = "the folded tallies are not those that it stands for";
            self.find(at, &place, what);
        }
        let mut sum = [0; 32];
        for letter in anchors::letters(self.connection, self.epoch.id)? {
            letter.toggle(&mut sum);
            let known = if letter.waits {
                &mut self.waiting
            } else {
                &mut self.dead
            };
            known.insert(letter.seq, letter.letter);
        }
        if sum != anchor.letters {
            let what = "the folded letters are not those that it stands for";
            self.find(at, &place, what);
        }
        let folded = self.tallies.iter().filter(|row| row.folded > 0);
        let folded: Vec<_> = folded.map(|row| (row.day, row.kind, row.folded)).collect();
        let mut entries = self.waiting.len() as u64;
        for (day, books) in tallies::books(folded.into_iter()) {
            let Some(books) = books else {
                let what = "more was taken back than was dead";
                self.find(Some(day), "the folded tallies of the day", what);
                continue;
            };
            entries += books.delivered + books.dropped + books.dead;
            self.walk.days.insert(day, books);
            self.walk.folded.insert(day);
        }
        let done = anchor
            .progress
            .done
            .iter()
            .map(|range| range.end - range.start);
        let finished = anchor.progress.watermark - anchor.progress.begin + done.sum::<u64>();
        if entries != finished {
            let what = format!("it stands for {finished} entries, and the tallies have {entries}");
            self.find(at, &place, what);
        }
        let head = &mut self.walk.head;
        head.hash = anchor.hash;
        head.commits = anchor.commits;
        head.letter_operations = anchor.links - anchor.commits;
        head.folded = anchor.links;
        self.progress = anchor.progress;
        Ok(())
    }

    /// Notes where the chain stands, if that was asked for.
    fn mark(&mut self) {
        let head = &self.walk.head;
        if self.asked_mark == Some(head.links()) {
            self.walk.mark = Some(Mark {
                hash: head.hash,
                days: self.walk.days.clone(),
            });
        }
    }

    fn link(&mut self, link: &Link) -> Result<(), ReadError> {
        let (place, days) = match link {
            Link::Commit(row) => (
                format!(
                    "the commit for entries {}..{}",
                    row.range.start, row.range.end
                ),
                &row.days,
            ),
            Link::Operation(row) => (
                format!(
                    "the operation {} on dead letters (`{}`)",
                    row.id,
                    row.kind.name()
                ),
                &row.days,
            ),
        };
        let said = letter_operations::days(days).unwrap_or_default();
        let mut day = said.first().map(|day| day.day);
        if let Link::Commit(row) = link {
            day = self.day_of(row.range.start).or(day);
        }
        match self.generation(link.generation())? {
            None => self.find(day, &place, "its generation is gone"),
            Some(generation) => {
                let (pipeline, stream) = (&self.epoch.pipeline, &self.epoch.progress.stream);
                let previous = &self.walk.head.hash;
                let hash = link.hash(previous, pipeline, stream, self.epoch.epoch, &generation);
                if hash != *link.stored_hash() {
                    self.find(day, &place, HASH_DIFFERS);
                }
            }
        }
        // From what stands there, so that one change is one finding.
        self.walk.head.hash = *link.stored_hash();
        match link {
            Link::Commit(row) => {
                self.walk.head.commits += 1;
                self.named_blocks(&row.blocks, day, &place);
                if let Err(what) = links::finish(&mut self.progress, &row.range, self.blocks.next())
                {
                    self.find(day, &place, what);
                }
                self.count_events(row, &place, day)?;
            }
            Link::Operation(_) => self.walk.head.letter_operations += 1,
        }
        if let Err(what) = self.count(link).and_then(|()| self.replay(link)) {
            self.find(day, &place, what);
        }
        Ok(())
    }

    /// Counts what a link says by day.
    fn count(&mut self, link: &Link) -> Result<(), String> {
        let mut counts = Counts::new();
        link.tally(&mut counts)?;
        for ((day, kind, reason), count) in counts {
            let books = self.walk.days.entry(day).or_default();
            kind.apply(books, count)
                .ok_or("it takes back more than was dead")?;
            *self.counts.entry((day, kind, reason)).or_default() += count;
        }
        Ok(())
    }

    /// Counts the outcomes of a commit by the times of its events, if they are kept.
    fn count_events(
        &mut self,
        row: &CommitRow,
        place: &str,
        day: Option<Day>,
    ) -> Result<(), ReadError> {
        // Counting what it says will name those.
        let (Ok(outcomes), Ok(days)) = (row.outcomes(), letter_operations::days(&row.days)) else {
            return Ok(());
        };
        let said: BTreeMap<Day, Books> = days
            .iter()
            .map(|day| {
                let books = Books {
                    delivered: day.delivered,
                    dropped: day.dropped,
                    dead: day.dead,
                    ..Books::default()
                };
                (day.day, books)
            })
            .collect();
        match self.blocks.count(self.connection, &row.range, &outcomes) {
            Ok(None) => self.walk.events_gone.extend(said.keys()),
            Ok(Some(counted)) if counted != said => {
                let what = "counted by the times of its events, its days differ";
                self.find(day, place, what);
            }
            Ok(Some(_)) => {}
            Err(ReadError::Damaged(what)) => self.find(day, place, what),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Takes back what an operation takes back, and adds what died.
    fn replay(&mut self, link: &Link) -> Result<(), String> {
        let changes = link.letters()?;
        let taken = if changes.waited {
            &mut self.waiting
        } else {
            &mut self.dead
        };
        for (seq, named) in changes.taken {
            let letter = taken.remove(&seq);
            let letter = letter.ok_or_else(|| format!("entry {seq} was not there to take back"))?;
            if named.is_some_and(|named| named != letter) {
                return Err("it takes back other letters".to_owned());
            }
        }
        self.waiting.extend(changes.retried);
        let at = match link {
            Link::Commit(row) => row.at,
            Link::Operation(row) => row.at,
        };
        let made = changes
            .died
            .iter()
            .map(|(seq, _)| (*seq, (at, link.generation())));
        self.made.extend(made);
        self.dead.extend(changes.died);
        Ok(())
    }

    /// The running counts are those of the anchor and of the links that are kept.
    fn tallies(&mut self) {
        let mut counts = std::mem::take(&mut self.counts);
        let known: BTreeSet<_> = self
            .tallies
            .iter()
            .map(|row| (row.day, row.kind, row.reason.clone()))
            .collect();
        // Reasons past the limit share a row.
        let others: Vec<_> = counts
            .extract_if(.., |key, _| !known.contains(key))
            .collect();
        for ((day, kind, _), count) in others {
            *counts
                .entry((day, kind, OTHER_REASONS.to_owned()))
                .or_default() += count;
        }
        for row in std::mem::take(&mut self.tallies) {
            let place = format!("the tally `{}` of the day", row.kind.name());
            let counted = counts.remove(&(row.day, row.kind, row.reason.clone()));
            let total = row.folded + counted.unwrap_or(0);
            if !row.is_sound {
                self.find(Some(row.day), &place, "it is not what was written");
            }
            if total != row.count {
                let (said, of) = (row.count, of_reason(&row.reason));
                let what = format!("it says {said}{of}, and {total} were counted");
                self.find(Some(row.day), &place, what);
            }
        }
        for ((day, kind, reason), count) in counts {
            let place = format!("the tally `{}` of the day", kind.name());
            let what = format!("it is gone: {count} were counted{}", of_reason(&reason));
            self.find(Some(day), &place, what);
        }
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
            "SELECT {}, d.redrive > 0, d.checksum, d.at, d.generation FROM dead_letters d WHERE \
             d.epoch_id = ?1",
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
            let written: Vec<u8> = row.get(letters::COUNT + 1)?;
            let is_it = |known: Checksum| is_letter(&letter, &known) && written == known;
            let (day, place) = (
                Some(Day::of(letter.time)),
                format!("the dead letter {}", letter.seq),
            );
            if !known.is_some_and(is_it) {
                self.find(day, &place, "it is not what was written");
            }
            let made: (Millis, u32) = (
                row.get(letters::COUNT + 2)?,
                row.get::<_, i64>(letters::COUNT + 3)?
                    .try_into()
                    .unwrap_or(0),
            );
            // Of a commit that was folded, the letter itself is all that is left.
            let is_other = self
                .made
                .get(&letter.seq)
                .is_some_and(|found| *found != made);
            if is_other {
                let what =
                    "it does not say when or in which generation it died, as its commit does";
                self.find(day, &place, what);
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

    /// The day of an entry, if its block is kept. Only for naming a place.
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

/// For a message. What was delivered has no reason.
fn of_reason(reason: &str) -> String {
    if reason.is_empty() {
        String::new()
    } else {
        format!(" for the reason `{reason}`")
    }
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
