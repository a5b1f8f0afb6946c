//! A batch from its first stage to its commit.

mod encodings;
mod failing;
mod holds;
mod in_flight;
mod outcomes;
mod stages;

pub(crate) use encodings::PendingEncoding;
pub(crate) use failing::Failing;
pub(crate) use holds::{Hold, Holds};
pub(crate) use in_flight::{BatchInFlight, Phase};
pub(crate) use outcomes::payload_len;
