//! Everything durable: events, outcomes, cursors, dead letters. The only crate that knows SQLite.
//!
//! One file, `store.db`, in a directory that one process holds at a time ([`Store`]) and others may
//! look into ([`Inspector`]). It keeps the protocol of [`Ledger`]; one committer thread folds all
//! that is queued into one transaction. What the tables and columns mean stands in `SCHEMA.md`: an
//! auditor can open the file with any SQLite client.

mod anchors;
mod audit;
mod backup;
mod blocks;
mod books;
mod chain;
mod check;
#[doc(hidden)]
pub mod codec;
mod committer;
mod damage;
mod directory;
mod encoded;
mod error;
#[doc(hidden)]
pub mod filter;
mod find;
mod gaps;
mod history;
mod inspect;
mod integrity;
mod kept_blocks;
mod letter_operations;
mod letters;
mod limits;
mod links;
mod migrate;
mod open;
mod operation;
mod options;
mod progress;
mod reads;
mod report;
mod rows;
mod schema;
mod shown_time;
mod store;
mod tail;
mod tallies;
mod verify;
mod writer;

pub use audit::{
    Audit, AuditQuery, Counted, DayAudit, EpochAudit, Finding, PipelineAudit, StreamAudit,
};
pub use backup::BackupError;
pub use chain::ChainHead;
pub use codec::Heads;
pub use directory::DirectoryLock;
pub use directory::{check_directory, check_store, too_few_free_bytes};
pub use error::OpenError;
pub use find::{Coverage, EntryQuery, FoundEntry, Search};
pub use history::{Change, EntryHistory, EntryState, HistoryStep};
pub use inspect::{Inspector, cursors_of};
pub use integrity::{DamagedBlock, DamagedSessions, Integrity};
pub use letters::DamagedLetter;
pub use lockgate_ledger::{
    CodeDigests, Committed, DeadLetters, KeptLetter, Ledger, LedgerError, LetterCounts, LetterId,
    LetterQuery, Progress, Registration,
};
pub use open::check_room;
pub use options::{Clock, Elapsed, LagLimit, Options, Retention};
pub use reads::{PipelineStatus, Reads, StreamStatus};
pub use report::{AuditReport, Comparison, ReportError};
pub use store::{PinnedLog, Store};
