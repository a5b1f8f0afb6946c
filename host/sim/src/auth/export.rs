//! Bulk export: chunks of a day, and the events of a chunk with a cursor after each.

use tonic::Status;

use super::reply::{Messages, frame};
use crate::generate::Events;
use crate::generate::wire;

/// The events of one chunk, from a cursor on.
pub(super) struct Export {
    events: Events,
    end: u64,
    /// Rows sent so far, counted from the chunk's first: what the cursor says.
    row: u64,
    event: Vec<u8>,
}

impl Export {
    /// `events` begins at the row of the cursor; the chunk ends before position `end`.
    pub(super) fn new(events: Events, end: u64, row: u64) -> Export {
        Export {
            events,
            end,
            row,
            event: Vec::new(),
        }
    }
}

impl Messages for Export {
    fn write(&mut self, out: &mut Vec<u8>) -> bool {
        self.event.clear();
        if self.events.position() >= self.end || self.events.write(&mut self.event).is_none() {
            return false;
        }
        self.row += 1;
        // ExportEventUnstructured: event 1, cursor 2.
        frame(out, |out| {
            wire::bytes(out, 0x0a, &self.event);
            let mut number = itoa::Buffer::new();
            let number = number.format(self.row).as_bytes();
            out.extend_from_slice(&[0x12, 3 + number.len() as u8]);
            out.extend_from_slice(b"a1:");
            out.extend_from_slice(number);
        });
        true
    }
}

/// Rows before the cursor. Athena's form is `a1:<rows consumed>`; clients treat it as opaque.
pub(super) fn row(cursor: &str) -> Result<u64, Status> {
    match cursor {
        "" => Ok(0),
        cursor => cursor
            .strip_prefix("a1:")
            .and_then(|row| row.parse().ok())
            .ok_or_else(|| Status::invalid_argument(format!("invalid export cursor {cursor:?}"))),
    }
}
