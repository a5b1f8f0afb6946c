//! Look-ups for components: places and networks of addresses, in MaxMind databases that the
//! operator grants, and user agents.
//!
//! - [`Databases`] loads the granted files, checks them, and loads them again when they change.
//! - [`Lookups`] is a snapshot of their content. It never changes, so all look-ups of a batch use
//!   the same data, which [`Lookups::digests`] identifies.
//!
//! A database is read into memory: a file that is truncated while it is mapped would end the
//! process.

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
pub use error::{DatabaseError, DatabaseFault, DatabaseKind};
pub use lookups::{Lookups, NotGranted};
pub use network::Network;
pub use place::Place;
