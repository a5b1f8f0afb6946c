//! The answer to a pipeline that registers with a ledger.

use std::collections::BTreeMap;

use crate::Progress;

/// Where a pipeline stands: the answer of [`Ledger::register`](crate::Ledger::register).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Registration {
    /// The pipeline's current epoch: give it in every commit.
    pub epoch: u32,
    /// The number of its configuration: give it in every commit.
    pub generation: u32,
    /// The description of the generation in which it last finished entries. `None`: no commit is
    /// kept that says so.
    pub last_description: Option<String>,
    /// In the order asked for.
    pub streams: Vec<Progress>,
    /// All key-value state that the pipeline keeps, by
    /// [owner](lockgate_model::state_owners): also that of plugins that it no longer uses.
    pub state: BTreeMap<String, BTreeMap<String, String>>,
    /// [`Commit::brake`](lockgate_model::Commit) of the pipeline's latest commit; empty before the
    /// first.
    pub brake: String,
    /// As in [`Committed`].
    pub dead_bytes: u64,
}

/// The answer of [`Ledger::commit`](crate::Ledger::commit).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Committed {
    /// Bytes of payload of all dead letters kept for the pipeline after this commit, over all its
    /// streams. Those that wait again count too: they are still kept.
    pub dead_bytes: u64,
}
