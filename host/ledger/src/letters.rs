//! The trait of dead letters, for operators.

use lockgate_model::{DeadLetter, FeedKind, Millis, Seq};

use crate::LedgerError;

/// The reason of entries that [`DeadLetters::drop_letters`] dropped.
pub const DROPPED_BY_OPERATOR: &str = "dropped by the operator";

/// The place of a letter in the order of dying, for paging. Not for keeping: a letter that dies
/// again gets a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LetterId(pub u64);

/// A dead letter and where it belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptLetter {
    pub id: LetterId,
    pub pipeline: String,
    pub stream: String,
    pub feed: FeedKind,
    pub epoch: u32,
    pub generation: u32,
    /// When it became final. Milliseconds.
    pub at: Millis,
    pub letter: DeadLetter,
}

/// Which dead letters: all of these must hold. The default is every letter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LetterQuery {
    pub pipeline: Option<String>,
    pub stream: Option<String>,
    /// A part of the cause or of the reason.
    pub cause: Option<String>,
    pub event_type: Option<String>,
    /// It died at this time or later. Milliseconds.
    pub since: Option<Millis>,
    /// It died before this time.
    pub until: Option<Millis>,
    /// Only letters that died before this one: the last of the page before.
    pub before: Option<LetterId>,
    /// Largest number of letters in the answer; 0 gives an empty one.
    pub limit: usize,
}

impl LetterQuery {
    /// Whether a letter is asked for, whatever the limit.
    pub fn matches(&self, kept: &KeptLetter) -> bool {
        let equals = |asked: &Option<String>, found: &str| {
            asked.as_deref().is_none_or(|asked| asked == found)
        };
        equals(&self.pipeline, &kept.pipeline)
            && equals(&self.stream, &kept.stream)
            && equals(&self.event_type, &kept.letter.event_type)
            && self.cause.as_deref().is_none_or(|part| {
                kept.letter.cause.contains(part) || kept.letter.reason.contains(part)
            })
            && self.since.is_none_or(|since| kept.at >= since)
            && self.until.is_none_or(|until| kept.at < until)
            && self.before.is_none_or(|before| kept.id < before)
    }
}

/// Counts of a pipeline's dead letters by what became of them, in its current epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LetterCounts {
    /// Sent back by [`DeadLetters::retry`]. An entry counts as often as it was.
    pub retried: u64,
    /// Dropped by [`DeadLetters::drop_letters`].
    pub dropped: u64,
    /// Removed by [`DeadLetters::expire_letters`]. Their outcome stays dead.
    pub expired: u64,
}

/// Dead letters as operators see them: through the control socket of a running host, or in a
/// store that no host has open.
///
/// A dead letter is an entry whose outcome is dead. [`retry`](Self::retry) makes it wait again,
/// with the same (stream, sequence): its pipeline takes it with
/// [`Ledger::redrive`](crate::Ledger::redrive), and commits an outcome of that redrive, which may
/// be dead again. [`drop_letters`](Self::drop_letters) makes it dropped.
/// [`expire_letters`](Self::expire_letters) removes what is kept of it, and leaves it dead. Each
/// writes a record into the pipeline's chain of commits, which says what it takes back; the outcome
/// committed before stays as it is. So the four figures balance before and after:
///
/// | operation | dead | waiting | delivered, dropped |
/// |---|---|---|---|
/// | `retry` of n | - n | + n | |
/// | commit of that redrive: a delivered or dropped, b dead again | + b | - (a + b) | + a |
/// | `drop_letters` of n | - n | | + n |
/// | `expire_letters` of n | | | |
///
/// An entry that waits again is no longer listed, keeps its event, and waits through kills and
/// starts until its pipeline has committed it.
pub trait DeadLetters: Send + Sync {
    /// Dead letters, newest first. Ask for the next page with `before`.
    fn dead_letters(
        &self,
        query: &LetterQuery,
    ) -> impl Future<Output = Result<Vec<KeptLetter>, LedgerError>> + Send;

    /// The dead letter of one entry. `None`: that entry is not dead, or its letter is gone.
    fn dead_letter(
        &self,
        pipeline: &str,
        stream: &str,
        seq: Seq,
    ) -> impl Future<Output = Result<Option<KeptLetter>, LedgerError>> + Send;

    /// Sends dead letters back to their pipeline: from now on they wait. `at`: milliseconds.
    ///
    /// All or none: [`LedgerError::Conflict`] if one of them is not a dead letter of the
    /// pipeline's current epoch, [`LedgerError::Invalid`] if
    /// [`check_seqs`](crate::check_seqs) refuses them.
    fn retry(
        &self,
        pipeline: &str,
        stream: &str,
        seqs: &[Seq],
        at: Millis,
    ) -> impl Future<Output = Result<(), LedgerError>> + Send;

    /// Removes dead letters for good: they become dropped, with the reason
    /// [`DROPPED_BY_OPERATOR`]. Refuses what [`retry`](Self::retry) refuses.
    fn drop_letters(
        &self,
        pipeline: &str,
        stream: &str,
        seqs: &[Seq],
        at: Millis,
    ) -> impl Future<Output = Result<(), LedgerError>> + Send;

    /// Removes the pipeline's letters that died before `before`, with their events: the oldest,
    /// at most [`limits::LETTERS_PER_OPERATION`](crate::limits::LETTERS_PER_OPERATION) of each
    /// stream. Answers how many those are; call it again until there are none. `before` and `at`:
    /// milliseconds.
    ///
    /// The entries stay dead and can no longer be retried or dropped. What waits again is not
    /// touched. [`LedgerError::Unknown`] for a pipeline that was never registered.
    fn expire_letters(
        &self,
        pipeline: &str,
        before: Millis,
        at: Millis,
    ) -> impl Future<Output = Result<u64, LedgerError>> + Send;

    /// Counted from the records. [`LedgerError::Unknown`] for a pipeline that was never registered.
    fn letter_counts(
        &self,
        pipeline: &str,
    ) -> impl Future<Output = Result<LetterCounts, LedgerError>> + Send;
}
