//! The harness of the end-to-end tests: it builds the binary, starts processes, watches them and
//! ends them.

#![allow(clippy::disallowed_methods, reason = "waits for real processes")]

mod admin;
mod binary;
pub mod components;
mod host;
mod kills;
mod local_auth;
mod mmdb;
pub mod neighbours;
mod outbound;
mod process;
pub mod receiver;
pub mod recorder;
mod sims;
mod status;
pub mod wasm;

pub use admin::{admin_address, get, listen_on_any_port};
pub use binary::{lockgate, root};
pub use host::{
    empty_disk, limit_address_space, on_a_full_disk, reload, start, start_and_finish,
    start_with_a_full_disk, start_with_address_space, start_with_open_files, started,
};
pub use kills::{Moments, kill_again_and_again, kill_once_it_delivers, kills};
pub use local_auth::LocalAuth;
pub use mmdb::{mmdb, mmdb_bytes};
pub use outbound::{OutboundKind, OutboundProxy};
pub use process::{Ended, Running, until};
pub use rustix::process::Signal;
pub use sims::{Auth, ReceiverProcess, Totals, configuration, endpoint, quickstart, uid};
pub use status::{Books, books, status};
