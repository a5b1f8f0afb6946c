//! The errors of a ledger.

use thiserror::Error;

/// The way out for a store that cannot be used and of which there is no backup. Without
/// `start-time` a new store begins at the present.
pub const START_ANEW: &str = "Without one, first set `start-time` of every source to a time before \
                              the oldest event that may not have been delivered: a new store \
                              begins at the present otherwise, and what is older is never read. \
                              Then move `store.db`, `store.db-wal` and `store.db-shm` aside and \
                              start: events are read from Teleport again from that time on, and \
                              those delivered before are sent again. In place of Teleport's Event \
                              Handler, whose files are in the directory above, leave `start-time` \
                              as it is: reading begins where the Event Handler stopped, and all \
                              since then is sent again; or move its files aside, too, and set \
                              `start-time`";

/// Why an operation on a ledger failed.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum LedgerError {
    /// A write failed, or the ledger was closed. This operation and all later ones did not happen;
    /// what was acknowledged is on disk. Never retried: open the ledger again (when `full`, once
    /// there is room).
    #[error("the store is closed: {cause}")]
    Closed { cause: String, full: bool },
    /// The operation contradicts what is in the ledger. It changed nothing; the ledger goes on.
    #[error("the store refused it: {0}")]
    Conflict(String),
    /// The argument contradicts itself or exceeds a limit. It changed nothing; the ledger goes on.
    #[error("not written: {0}")]
    Invalid(String),
    /// The pipeline is not configured to read the stream any more, so what would wait again would
    /// never be sent. It changed nothing; the ledger goes on.
    #[error(
        "`{pipeline}` is not configured to read `{stream}`, so they would never be sent: configure \
         it and start the host first, or use `lockgate dlq export`"
    )]
    NotRead { pipeline: String, stream: String },
    /// The data that was read differs from what was written.
    #[error(
        "the store is damaged: {0}. `lockgate store verify` shows what else is damaged. To repair \
         it, stop Lockgate and restore a backup. {START_ANEW}"
    )]
    Damaged(String),
    /// Reading failed for another reason.
    #[error("cannot read the store: {0}")]
    Read(String),
    /// No such pipeline or stream was ever registered.
    #[error("the store has no {0}")]
    Unknown(String),
}

impl LedgerError {
    /// True if the ledger closed because there is no room on the disk: wait, then open it again.
    pub fn is_full(&self) -> bool {
        matches!(self, LedgerError::Closed { full: true, .. })
    }
}
