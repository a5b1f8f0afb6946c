//! The transaction that records a finished batch.

use std::sync::Arc;

use crate::{
    Batch, Block, BlockBuilder, DayTally, FeedKind, Head, Millis, Outcomes, Seq, SeqRange, Slice,
};

/// The transaction in which a pipeline records a finished batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Commit {
    pub pipeline: Arc<str>,
    pub stream: Arc<str>,
    /// One pass of the pipeline over the stream.
    pub epoch: u32,
    /// Number of the pipeline's configuration, see [`Generation`].
    pub generation: u32,
    /// The entries that get their outcome.
    pub entries: Entries,
    /// One outcome for each entry, in order.
    pub outcomes: Outcomes,
    /// The reasons to which the indexes in `outcomes` refer.
    pub reasons: Vec<String>,
    /// The same outcomes by Teleport day, counted by the pipeline from event times.
    pub days: Vec<DayTally>,
    pub batch: BatchRecord,
    pub dead: Vec<DeadLetter>,
    pub state: Vec<StateWrite>,
    /// The state of the engine's brake as text. Opaque to the ledger, which keeps the one of the
    /// pipeline's latest commit in any stream.
    pub brake: String,
}

/// The entries of one commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entries {
    /// The entries of a batch read from the stream.
    Range(SeqRange),
    /// The entries of a redrive, which were dead letters. Ascending.
    Redriven(Vec<Seq>),
}

impl Default for Entries {
    fn default() -> Entries {
        Entries::Range(0..0)
    }
}

impl Entries {
    pub fn len(&self) -> u64 {
        match self {
            Entries::Range(range) => range.end.saturating_sub(range.start),
            Entries::Redriven(seqs) => seqs.len() as u64,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn iter(&self) -> impl Iterator<Item = Seq> + '_ {
        let (range, seqs) = match self {
            Entries::Range(range) => (range.clone(), &[][..]),
            Entries::Redriven(seqs) => (0..0, &seqs[..]),
        };
        range.chain(seqs.iter().copied())
    }
}

/// Dead letters of one stream that an operator sent back to their pipeline, as a batch with gaps
/// between its entries.
#[derive(Clone, Debug)]
pub struct Redrive {
    pub pipeline: Arc<str>,
    pub stream: Arc<str>,
    pub epoch: u32,
    /// In the order of the stream. Each run of consecutive entries is a block of its own, so that
    /// [`Batch::seqs`] gives each event its sequence.
    pub batch: Batch,
}

/// The record of a batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BatchRecord {
    pub id: String,
    pub at: Millis,
    pub requests: Vec<RequestRecord>,
}

/// The result of one request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestRecord {
    /// Such as `POST`.
    pub method: String,
    /// Which of the sink's URLs it went to: `url` or `session-url`.
    pub endpoint: String,
    /// Path below the endpoint, without the query, as the sink asked for it.
    pub path: String,
    /// The entries of whose documents it carried one. Ascending, apart from each other.
    pub entries: Vec<SeqRange>,
    /// HTTP status of the last answer; 0 if there was none.
    pub status: u16,
    /// Number of documents in it.
    pub documents: u32,
    /// Bytes of its body.
    pub bytes: u64,
    /// Number of attempts.
    pub attempts: u32,
    /// The first bytes of the last answer's body, masked, or why there was none. After a
    /// 2xx where the host put it, if it was appended to a file; else empty.
    pub excerpt: String,
}

impl RequestRecord {
    /// Whether it carried a document of one of the entries.
    pub fn carried_any(&self, entries: &Entries) -> bool {
        self.entries.iter().any(|carried| match entries {
            Entries::Range(range) => carried.start < range.end && range.start < carried.end,
            Entries::Redriven(seqs) => {
                let next = seqs.partition_point(|&seq| seq < carried.start);
                seqs.get(next).is_some_and(|&seq| seq < carried.end)
            }
        })
    }

    /// Makes this the record of two requests: what they differ in is left empty.
    pub fn merge(&mut self, other: RequestRecord) {
        for (own, others) in [
            (&mut self.method, other.method),
            (&mut self.endpoint, other.endpoint),
            (&mut self.path, other.path),
        ] {
            if *own != others {
                own.clear();
            }
        }
        self.entries.extend(other.entries);
        self.entries = ranges(self.entries.iter().cloned().flatten());
        self.documents += other.documents;
        self.bytes += other.bytes;
        self.attempts += other.attempts;
    }
}

/// Sequences as ranges: ascending, apart from each other.
pub fn ranges(seqs: impl Iterator<Item = Seq>) -> Vec<SeqRange> {
    let mut seqs: Vec<Seq> = seqs.collect();
    seqs.sort_unstable();
    seqs.dedup();
    seqs.chunk_by(|left, right| left + 1 == *right)
        .map(|run| run[0]..run[0] + run.len() as Seq)
        .collect()
}

/// An entry that cannot be delivered, with its original event. Retention does not remove it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeadLetter {
    pub seq: Seq,
    pub key: String,
    pub event_type: String,
    pub code: String,
    pub time: Millis,
    /// Teleport's `ei`.
    pub index: i64,
    /// Teleport's `sid`; empty if the event belongs to no session.
    pub session: String,
    /// When the event was read from Teleport.
    pub read_at: Millis,
    /// The component or the host rule that rejected it, such as `unreadable`, `stage 1
    /// (builtin:redact)` or `sink (builtin:fluentd)`.
    pub cause: String,
    pub reason: String,
    /// JSON text, or the original bytes if `raw`.
    pub payload: Vec<u8>,
    /// The event could not be converted to JSON.
    pub raw: bool,
}

impl DeadLetter {
    /// The dead letter of the event in a row of a block.
    pub fn new(block: &Block, row: usize, cause: String, reason: String) -> DeadLetter {
        let event = block.view(row);
        let raw = block.raw(row);
        DeadLetter {
            seq: block.first_seq + row as Seq,
            key: event.key.to_owned(),
            event_type: event.event_type.to_owned(),
            code: event.code.to_owned(),
            time: event.time,
            index: event.index,
            session: block.session(row).to_owned(),
            read_at: block.read_at,
            cause,
            reason,
            payload: raw.unwrap_or(event.payload.as_bytes()).to_vec(),
            raw: raw.is_some(),
        }
    }

    /// The events of dead letters as a batch, for a [`Redrive`]. `letters` must be sorted by
    /// sequence.
    ///
    /// A payload that is not UTF-8 becomes a raw event, even if the letter is not marked as raw.
    pub fn batch(stream: &Arc<str>, feed: FeedKind, letters: &[DeadLetter]) -> Batch {
        let together = |left: &DeadLetter, right: &DeadLetter| {
            left.seq + 1 == right.seq && left.read_at == right.read_at
        };
        let slices = letters.chunk_by(together).map(|run| {
            let mut builder = BlockBuilder::new();
            for letter in run {
                match std::str::from_utf8(&letter.payload) {
                    Ok(text) if !letter.raw => builder.push(letter.head(), text),
                    _ => builder.push_raw(letter.head(), &letter.payload),
                }
            }
            let first = &run[0];
            let parts = builder.take();
            Slice {
                rows: 0..run.len(),
                block: Arc::new(Block::new(
                    stream.clone(),
                    feed,
                    first.seq,
                    first.read_at,
                    parts,
                )),
            }
        });
        Batch {
            slices: slices.collect(),
        }
    }

    fn head(&self) -> Head<'_> {
        Head {
            key: &self.key,
            event_type: &self.event_type,
            code: &self.code,
            time: self.time,
            index: self.index,
            session: &self.session,
        }
    }
}

/// A change of a plugin's key-value state. `None` removes the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateWrite {
    /// See [`state_owners`](crate::state_owners).
    pub owner: Arc<str>,
    pub key: String,
    pub value: Option<String>,
}

/// One configuration of a pipeline: the digests of its components, and their settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generation {
    pub pipeline: Arc<str>,
    /// A JSON object; equal text means the same generation.
    pub description: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redriven_batch_has_the_events_of_its_letters() {
        let mut builder = BlockBuilder::new();
        for (nth, key) in ["a", "b", "c", "d"].into_iter().enumerate() {
            let head = Head {
                key,
                event_type: "user.login",
                code: "T1000I",
                time: 5 + nth as i64,
                index: nth as i64,
                session: "s-1",
            };
            if nth == 1 {
                builder.push_raw(head, b"not json");
            } else {
                builder.push(head, r#"{"a":1}"#);
            }
        }
        let stream: Arc<str> = "teleport/sessions".into();
        let feed = FeedKind::Sessions;
        let block = Block::new(stream.clone(), feed, 10, 77, builder.take());
        let letters = [0, 1, 3]
            .map(|row| DeadLetter::new(&block, row, "sink".to_owned(), "refused".to_owned()));
        let batch = DeadLetter::batch(&stream, feed, &letters);
        assert_eq!(batch.seqs().collect::<Vec<_>>(), [10, 11, 13]);
        assert_eq!(batch.slices.len(), 2, "consecutive entries are one block");
        for ((found, at), row) in batch.rows().zip([0, 1, 3]) {
            assert_eq!(found.view(at), block.view(row));
            assert_eq!(
                (found.raw(at), found.session(at), found.read_at),
                (block.raw(row), "s-1", 77)
            );
        }
    }

    #[test]
    fn entries_are_counted_and_listed() {
        for (entries, seqs) in [
            (Entries::Range(3..6), vec![3, 4, 5]),
            (Entries::Redriven(vec![2, 9]), vec![2, 9]),
            (Entries::default(), vec![]),
        ] {
            assert_eq!(entries.len(), seqs.len() as u64);
            assert_eq!(entries.iter().collect::<Vec<_>>(), seqs);
        }
    }
}
