//! A batch from its first stage to its commit.

mod encodings;
mod flight;
mod holds;
mod outcomes;
mod stages;

pub(crate) use encodings::PendingEncoding;
pub(crate) use flight::{Flight, Hold, Phase};
pub(crate) use outcomes::payload_len;
