//! How a running host is asked and told what to do: [`http`] answers questions about its health on
//! loopback, [`control`] takes an operator's commands on a Unix socket in the store's directory.
//!
//! What the answers say comes from the service, through a closure and through
//! [`control::Control`]. Nothing here knows a pipeline or a store.

pub mod control;
pub mod http;
pub mod limits;
