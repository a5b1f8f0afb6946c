//! Durable storage as pipelines need it: the trait [`Ledger`], and more traits for operators
//! ([`DeadLetters`]) and for compiled components ([`CodeDigests`]).
//!
//! `lockgate-store` keeps a ledger in SQLite, [`memory`] keeps one in memory for simulations and
//! tests. [`conformance`] holds both to the same rules.

mod code;
#[doc(hidden)]
pub mod conformance;
mod error;
mod ledger;
mod letters;
pub mod limits;
pub mod memory;
mod progress;
mod registration;
mod rules;

pub use code::CodeDigests;
pub use error::{LedgerError, START_ANEW};
pub use ledger::Ledger;
pub use letters::{
    DROPPED_BY_OPERATOR, DeadLetters, KeptLetter, LetterCounts, LetterId, LetterQuery,
};
pub use progress::Progress;
pub use registration::{Committed, Registration};
pub use rules::{check_commit, check_seqs, check_streams};
