//! The harness of the end-to-end tests: it builds the binary, starts processes, watches them and
//! ends them.

#![allow(clippy::disallowed_methods, reason = "waits for real processes")]

mod binary;
mod host;
mod kills;
mod mmdb;
mod process;
mod sims;
mod status;

pub use binary::{lockgate, root};
pub use host::{start, start_and_finish, started};
pub use kills::{Moments, kill_again_and_again, kill_once_it_delivers, kills};
pub use mmdb::{mmdb, mmdb_bytes};
pub use process::{Ended, Running, until};
pub use sims::{Auth, ReceiverProcess, Totals, configuration, endpoint, quickstart};
pub use status::{Books, books, status};
