//! Everything durable: events, outcomes, cursors, dead letters. The only crate that knows SQLite.
//!
//! One file, `store.db`, in a folder that one process holds at a time ([`Store`]) and others may
//! look into ([`Inspector`]). There are two write operations, [`Ledger::append`] and
//! [`Ledger::commit`]; one committer thread folds all that is queued into one transaction. What the
//! tables and columns mean stands in `SCHEMA.md`: an auditor can open the file with any SQLite
//! client.

mod blocks;
mod books;
mod chain;
mod check;
#[doc(hidden)]
pub mod codec;
mod committer;
mod encoded;
mod error;
mod folder;
mod inspect;
mod ledger;
mod limits;
mod open;
mod options;
mod progress;
mod reads;
mod rows;
mod schema;
mod store;
mod tail;
mod writer;

pub use chain::ChainHead;
pub use codec::Heads;
pub use error::{OpenError, StoreError};
pub use inspect::Inspector;
pub use ledger::Ledger;
pub use options::{Clock, Options, Retention};
pub use progress::{Progress, Registration};
pub use reads::{KeptLetter, PipelineStatus, Reads, StreamStatus};
pub use store::Store;
