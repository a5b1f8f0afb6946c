//! A ledger in memory, for simulations and tests. [`MemoryCore`] is the durable half: plain data
//! with synchronous operations, each atomic, so that a simulation without a runtime drives it
//! deterministically and crashes between any two calls. [`MemoryLedger`] is the asynchronous handle
//! on one.

mod core;
mod epoch;
mod handle;
mod letters;
mod retention;

pub use core::{Appended, MemoryCore};
pub use epoch::Recorded;
pub use handle::MemoryLedger;
