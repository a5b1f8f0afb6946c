//! An epoch, which is one pass of a pipeline over a stream: its outcomes, redrives and dead
//! letters.

use std::collections::BTreeMap;

use lockgate_model::{Books, Commit, DeadLetter, Entries, Millis, Outcome, Seq, SeqRange};

use crate::{DROPPED_BY_OPERATOR, LedgerError, LetterCounts, Progress};

/// One thing that was recorded of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recorded {
    Delivered,
    Dropped(String),
    Dead(String),
    /// An operator sent the dead letter back: the entry waits again.
    Retried,
    /// The dead letter became too old and is no longer kept: the entry stays dead.
    Expired,
}

/// The current epoch of a pipeline on one stream.
#[derive(Clone, Debug)]
pub(super) struct Epoch {
    /// Retention waits for it.
    pub(super) active: bool,
    pub(super) progress: Progress,
    pub(super) letters: BTreeMap<Seq, Letter>,
    pub(super) dead_bytes: u64,
    entries: BTreeMap<Seq, Vec<Recorded>>,
}

#[derive(Clone, Debug)]
pub(super) struct Letter {
    pub(super) id: u64,
    pub(super) generation: u32,
    pub(super) at: Millis,
    /// It was sent back and waits; else it is dead.
    pub(super) waits: bool,
    pub(super) letter: DeadLetter,
}

impl Epoch {
    pub(super) fn new(stream: &str, begin: Seq) -> Epoch {
        Epoch {
            active: true,
            progress: Progress::new(stream, begin),
            letters: BTreeMap::new(),
            dead_bytes: 0,
            entries: BTreeMap::new(),
        }
    }

    /// Applies a commit that was checked.
    pub(super) fn record(&mut self, commit: &Commit, letters: &mut u64) {
        match &commit.entries {
            Entries::Range(range) => self.progress.finish(range.clone()),
            Entries::Redriven(seqs) => seqs.iter().for_each(|seq| self.remove_letter(*seq)),
        }
        let reason = |index: u16| commit.reasons[usize::from(index)].clone();
        for (seq, outcome) in commit.entries.iter().zip(commit.outcomes.iter()) {
            let recorded = match outcome {
                Outcome::Delivered => Recorded::Delivered,
                Outcome::Dropped(index) => Recorded::Dropped(reason(index)),
                Outcome::Dead(index) => Recorded::Dead(reason(index)),
            };
            self.push(seq, recorded);
        }
        for letter in &commit.dead {
            *letters += 1;
            self.dead_bytes += letter.payload.len() as u64;
            let kept = Letter {
                id: *letters,
                generation: commit.generation,
                at: commit.batch.at,
                waits: false,
                letter: letter.clone(),
            };
            self.letters.insert(letter.seq, kept);
        }
    }

    pub(super) fn retry(&mut self, seqs: &[Seq]) {
        for seq in seqs {
            if let Some(letter) = self.letters.get_mut(seq) {
                letter.waits = true;
            }
            self.push(*seq, Recorded::Retried);
        }
    }

    pub(super) fn drop_letters(&mut self, seqs: &[Seq]) {
        for seq in seqs {
            self.remove_letter(*seq);
            self.push(*seq, Recorded::Dropped(DROPPED_BY_OPERATOR.to_owned()));
        }
    }

    /// Removes letters that died before a time: the oldest, at most so many.
    pub(super) fn expire_letters(&mut self, before: Millis, max: usize) -> u64 {
        let old = |letter: &&Letter| !letter.waits && letter.at < before;
        let mut seqs: Vec<(Millis, Seq)> = self
            .letters
            .values()
            .filter(old)
            .map(|letter| (letter.at, letter.letter.seq))
            .collect();
        seqs.sort_unstable();
        seqs.truncate(max);
        for &(_, seq) in &seqs {
            self.remove_letter(seq);
            self.push(seq, Recorded::Expired);
        }
        seqs.len() as u64
    }

    pub(super) fn letter_counts(&self) -> LetterCounts {
        let mut counts = LetterCounts::default();
        for recorded in self.entries.values().flatten() {
            match recorded {
                Recorded::Retried => counts.retried += 1,
                Recorded::Dropped(reason) if reason == DROPPED_BY_OPERATOR => counts.dropped += 1,
                Recorded::Expired => counts.expired += 1,
                _ => {}
            }
        }
        counts
    }

    /// Drops the entries that retention removes, for a pipeline that is no longer configured.
    pub(super) fn drop_unfinished(&mut self, end: Seq) {
        for range in self.progress.waiting(end) {
            let range: SeqRange = range.start..range.end.min(end);
            if range.is_empty() {
                continue;
            }
            self.progress.finish(range.clone());
            for seq in range {
                self.push(seq, Recorded::Dropped("retention".to_owned()));
            }
        }
    }

    pub(super) fn check_dead(&self, seqs: &[Seq]) -> Result<(), LedgerError> {
        self.check(seqs, false, "is not a dead letter")
    }

    pub(super) fn check_waiting(&self, seqs: &[Seq]) -> Result<(), LedgerError> {
        self.check(seqs, true, "does not wait again")
    }

    pub(super) fn waiting_letters(&self) -> impl Iterator<Item = &Letter> {
        self.letters.values().filter(|letter| letter.waits)
    }

    pub(super) fn books(&self, next: Seq) -> Books {
        let unfinished: u64 = self
            .progress
            .waiting(next)
            .into_iter()
            .map(|range| range.end - range.start)
            .sum();
        let mut books = Books {
            read: next - self.progress.begin,
            waiting: unfinished + self.waiting_letters().count() as u64,
            ..Books::default()
        };
        for recorded in self.entries.values() {
            match recorded.last() {
                Some(Recorded::Delivered) => books.delivered += 1,
                Some(Recorded::Dropped(_)) => books.dropped += 1,
                Some(Recorded::Dead(_) | Recorded::Expired) => books.dead += 1,
                Some(Recorded::Retried) | None => {}
            }
        }
        books
    }

    pub(super) fn recorded(&self, seq: Seq) -> &[Recorded] {
        self.entries.get(&seq).map_or(&[], Vec::as_slice)
    }

    fn check(&self, seqs: &[Seq], waits: bool, what: &str) -> Result<(), LedgerError> {
        let other = |seq: &&Seq| self.letters.get(seq).is_none_or(|kept| kept.waits != waits);
        match seqs.iter().find(other) {
            None => Ok(()),
            Some(seq) => Err(LedgerError::Conflict(format!("entry {seq} {what}"))),
        }
    }

    fn remove_letter(&mut self, seq: Seq) {
        if let Some(kept) = self.letters.remove(&seq) {
            self.dead_bytes -= kept.letter.payload.len() as u64;
        }
    }

    fn push(&mut self, seq: Seq, recorded: Recorded) {
        self.entries.entry(seq).or_default().push(recorded);
    }
}
