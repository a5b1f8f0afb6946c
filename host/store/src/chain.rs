//! Commits are chained by hash, for each pipeline and stream: nothing that was committed can be
//! changed unseen.

use lockgate_model::{Millis, SeqRange};

use crate::letter_operations::LetterOperationRow;
use crate::schema::{Checksum, digest};

/// How a verified chain ends. Who keeps it elsewhere can prove later that nothing before it was
/// changed or cut off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainHead {
    pub stream: String,
    pub commits: u64,
    /// Operations on dead letters that the chain holds besides the commits.
    pub letter_operations: u64,
    /// Of commits and operations together, how many were folded into tallies.
    pub folded: u64,
    /// The last commit's hash; zeros if there is none.
    pub hash: [u8; 32],
    /// Of the blocks that the commits name, how many are still kept.
    pub blocks: u64,
}

impl ChainHead {
    /// Commits and operations since the chain began.
    pub fn links(&self) -> u64 {
        self.commits + self.letter_operations
    }
}

/// The input of a commit's hash, in this order: integers as 8 bytes, texts and blobs after
/// their lengths.
pub struct ChainedCommit<'a> {
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

impl ChainedCommit<'_> {
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

impl LetterOperationRow {
    /// The hash of the row as a link of its chain. It begins with a word, so it is never a
    /// commit's.
    pub fn chained(
        &self,
        previous: &Checksum,
        pipeline: &str,
        stream: &str,
        epoch: u32,
        generation: &Checksum,
    ) -> Checksum {
        digest([
            "letter operation".into(),
            previous.as_slice().into(),
            pipeline.into(),
            stream.into(),
            epoch.into(),
            self.generation.into(),
            generation.as_slice().into(),
            self.after_commit.into(),
            self.kind.name().into(),
            self.seqs.as_slice().into(),
            self.outcomes.as_slice().into(),
            self.reasons.as_str().into(),
            self.days.as_str().into(),
            self.at.into(),
            self.batch.as_str().into(),
            self.dead.as_slice().into(),
            self.state.as_slice().into(),
        ])
    }
}
