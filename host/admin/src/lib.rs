//! The listeners of a running host: [`http`] serves health and metrics on loopback, [`control`]
//! takes an operator's commands on a Unix socket in the store's directory.
//!
//! The service supplies the answers, by [`http::HealthSource`] and [`control::Control`]. Nothing
//! here knows a pipeline or a store.

pub mod control;
pub mod http;
pub mod limits;
