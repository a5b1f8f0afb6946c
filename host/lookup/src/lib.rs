//! What components may look up: places and networks of addresses, in MaxMind databases that the
//! operator grants, and user agents.
//!
//! - [`Databases`] holds the granted files: opened, checked, digested, and opened again when they
//!   change.
//! - [`Lookups`] is what they say at one moment. It never changes, so that all of a batch is
//!   answered by the same data, and whoever keeps the [digests](Lookups::digests) knows which.
//!
//! A database is read into memory whole: a file that is replaced or cut short while it is mapped
//! would end the process.

mod agent;
mod database;
mod databases;
mod error;
mod file;
mod lookups;
mod network;
mod place;

pub use agent::{Agent, Software, TEXT_MAX, is_ready, prepare};
pub use databases::{Databases, Grant, Refreshed, Replaced};
pub use error::{OpenError, Reason, Which};
pub use lookups::{Lookups, NotGranted};
pub use network::Network;
pub use place::Place;
