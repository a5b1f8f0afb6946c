//! The damaged part of a stream that an operation is about.

use lockgate_model::Seq;

use super::{Fault, Writer};
use crate::blocks::StoredBlock;
use crate::damage::DamagedPart;
use crate::error::ReadError;
use crate::{LedgerError, blocks, damage};

/// A damaged part of a stream, and what its row holds.
pub struct Damaged {
    /// Of the stream, in [`Writer::streams`](super::Writer).
    pub stream: usize,
    pub part: DamagedPart,
    /// `None`: its row is gone.
    pub stored: Option<StoredBlock>,
}

impl Writer {
    /// The inner error: refused, because the block of the entry is sound or is not there.
    pub fn damaged(&self, stream: &str, seq: Seq) -> Result<Result<Damaged, LedgerError>, Fault> {
        let refused = |what: &str| Ok(Err(refusal(stream, seq, what)));
        let Some(&index) = self.by_name.get(stream) else {
            return refused("is not there");
        };
        let row = &self.streams[index].row;
        if !(row.oldest..row.next).contains(&seq) {
            return refused("is not there");
        }
        // What lies next to it is sound, or has damage of its own.
        let part = match damage::at(&self.connection, row, seq) {
            Err(ReadError::Damaged(what)) => return refused(&format!("cannot be read: {what}")),
            part => part?,
        };
        let Some(part) = part else {
            return refused("is not damaged");
        };
        let stored = match part.row {
            Some(id) => blocks::in_row(&self.connection, id)?,
            None => None,
        };
        let stream = index;
        Ok(Ok(Damaged {
            stream,
            part,
            stored,
        }))
    }
}

/// Why nothing is done about the block of an entry.
pub fn refusal(stream: &str, seq: Seq, what: &str) -> LedgerError {
    LedgerError::Conflict(format!("the block of entry {seq} of `{stream}` {what}"))
}
