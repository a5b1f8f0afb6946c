//! Operations for the committer's queue: encoded, compressed and checked on the caller's thread.

use std::collections::BTreeMap;

use lockgate_ledger::check_commit;
use lockgate_model::{
    BlockParts, Commit, Day, DayTally, DeadLetter, Entries, Millis, RequestRecord, Seq, StateWrite,
};
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::schema::{Checksum, digest};
use crate::{LedgerError, codec, filter};

/// A block but for its sequence.
pub struct EncodedBlock {
    pub parts: BlockParts,
    pub heads: Vec<u8>,
    pub payload: Vec<u8>,
    pub min_time: Millis,
    pub max_time: Millis,
    pub days: BTreeMap<Day, u64>,
    /// See `filter.rs`.
    pub filter: Vec<u8>,
    pub content: Checksum,
}

impl EncodedBlock {
    /// `None` for an append that only moves cursors.
    pub fn new(mut parts: BlockParts) -> Result<Option<EncodedBlock>, LedgerError> {
        // They stay in memory for a while, and grew by doubling.
        parts.payloads.bytes.shrink_to_fit();
        parts.keys.bytes.shrink_to_fit();
        let (heads, payload) = codec::encode(&parts)
            .map_err(|error| LedgerError::Invalid(format!("the block: {error}")))?;
        let (Some(&min_time), Some(&max_time)) =
            (parts.times.iter().min(), parts.times.iter().max())
        else {
            return Ok(None);
        };
        let days = count_days(&parts.times);
        let content = content_digest(&heads, &payload);
        Ok(Some(EncodedBlock {
            filter: filter::of_parts(&parts),
            parts,
            heads,
            payload,
            min_time,
            max_time,
            days,
            content,
        }))
    }

    pub fn bytes(&self) -> u64 {
        (self.heads.len() + self.payload.len()) as u64
    }

    pub fn count(&self) -> u64 {
        self.parts.times.len() as u64
    }

    /// The row's checksum, now that the sequence is known.
    pub fn checksum(&self, stream: &str, first_seq: Seq, read_at: Millis) -> Checksum {
        block_checksum(
            stream,
            first_seq,
            self.count(),
            read_at,
            (self.min_time, self.max_time),
            codec::VERSION,
            &self.content,
        )
    }
}

pub fn count_days(times: &[Millis]) -> BTreeMap<Day, u64> {
    let mut days = BTreeMap::new();
    for &time in times {
        *days.entry(Day::of(time)).or_default() += 1;
    }
    days
}

/// The long part of a block's checksum: taken before the committer gives the sequence.
pub fn content_digest(heads: &[u8], payload: &[u8]) -> Checksum {
    digest([heads.into(), payload.into()])
}

pub fn block_checksum(
    stream: &str,
    first_seq: Seq,
    count: u64,
    read_at: Millis,
    times: (Millis, Millis),
    codec: i64,
    content: &Checksum,
) -> Checksum {
    digest([
        stream.into(),
        first_seq.into(),
        count.into(),
        read_at.into(),
        times.0.into(),
        times.1.into(),
        codec.into(),
        content.as_slice().into(),
    ])
}

/// The columns of a commit's row.
pub struct EncodedCommit {
    pub commit: Commit,
    pub outcomes: Vec<u8>,
    pub reasons: String,
    pub days: String,
    pub batch: String,
    /// Checksums of the dead letters, which are sorted by sequence.
    pub dead: Vec<u8>,
    pub state: Vec<u8>,
}

impl EncodedCommit {
    pub fn new(mut commit: Commit) -> Result<EncodedCommit, LedgerError> {
        commit.dead.sort_by_key(|letter| letter.seq);
        check_commit(&commit)?;
        Ok(EncodedCommit {
            outcomes: codec::encode_outcomes(&commit.outcomes),
            reasons: json!(commit.reasons).to_string(),
            days: days_text(&commit.days),
            batch: batch_text(&commit.batch.id, &commit.batch.requests),
            dead: commit.dead.iter().flat_map(letter_checksum).collect(),
            state: state_digest(&commit.state),
            commit,
        })
    }

    /// Bytes it takes in the queue, about.
    pub fn bytes(&self) -> usize {
        let seqs = match &self.commit.entries {
            Entries::Range(_) => 0,
            Entries::Redriven(seqs) => seqs.len() * 8,
        };
        let letters: usize = self
            .commit
            .dead
            .iter()
            .map(|letter| letter.payload.len() + letter.reason.len() + 100)
            .sum();
        let state: usize = self
            .commit
            .state
            .iter()
            .map(|write| write.value.as_ref().map_or(0, String::len) + write.key.len() + 40)
            .sum();
        self.outcomes.len() + self.batch.len() + seqs + letters + state + 300
    }
}

/// A batch as the database keeps it.
pub fn batch_text(id: &str, requests: &[RequestRecord]) -> String {
    let requests: Vec<_> = requests
        .iter()
        .map(|request| {
            json!({
                "method": request.method, "endpoint": request.endpoint, "path": request.path,
                "entries": request.entries.iter().map(|range| [range.start, range.end]).collect::<Vec<_>>(),
                "status": request.status, "documents": request.documents, "bytes": request.bytes,
                "attempts": request.attempts, "excerpt": request.excerpt,
            })
        })
        .collect();
    json!({ "id": id, "requests": requests }).to_string()
}

/// Outcomes by day as the database keeps them.
pub fn days_text(days: &[DayTally]) -> String {
    let days: Vec<_> = days
        .iter()
        .map(|day| (day.day.0, day.delivered, day.dropped, day.dead))
        .collect();
    json!(days).to_string()
}

/// Over every column that says something of the event or of why it is dead.
pub fn letter_checksum(letter: &DeadLetter) -> Checksum {
    digest([
        letter.seq.into(),
        letter.key.as_str().into(),
        letter.event_type.as_str().into(),
        letter.code.as_str().into(),
        letter.time.into(),
        letter.index.into(),
        letter.session.as_str().into(),
        letter.read_at.into(),
        letter.cause.as_str().into(),
        letter.reason.as_str().into(),
        letter.payload.as_slice().into(),
        i64::from(letter.raw).into(),
    ])
}

/// Whether a letter is the one that `checksum` was taken of. Format 1 kept and guarded fewer
/// columns.
pub fn is_letter(letter: &DeadLetter, checksum: &[u8]) -> bool {
    let format_1 = || {
        digest([
            letter.seq.into(),
            letter.key.as_str().into(),
            letter.event_type.as_str().into(),
            letter.time.into(),
            letter.cause.as_str().into(),
            letter.reason.as_str().into(),
            letter.payload.as_slice().into(),
        ])
    };
    letter_checksum(letter) == *checksum || format_1() == *checksum
}

fn state_digest(writes: &[StateWrite]) -> Vec<u8> {
    if writes.is_empty() {
        return Vec::new();
    }
    let mut hasher = Sha256::new();
    for write in writes {
        let value = write.value.as_deref();
        hasher.update(digest([
            (&*write.owner).into(),
            write.key.as_str().into(),
            i64::from(value.is_some()).into(),
            value.unwrap_or("").into(),
        ]));
    }
    hasher.finalize().to_vec()
}
