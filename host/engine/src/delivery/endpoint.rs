//! One URL that the operator wrote: its queue, its circuit and its evidence.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crate::Uptime;
use crate::circuit::{Allowed, Circuit};
use crate::delivery::order::Order;
use crate::delivery::request::Position;
use crate::index::RequestId;
use crate::pipeline::WorkId;
use crate::settings::EndpointSettings;

/// One URL, with its own evidence.
#[derive(Debug)]
pub(crate) struct Endpoint {
    pub(crate) name: Arc<str>,
    pub(crate) max_in_flight: usize,
    pub(crate) in_flight: usize,
    /// Requests that wait for their turn.
    pub(crate) queue: BTreeMap<Position, RequestId>,
    pub(crate) circuit: Circuit,
    /// Answers that accepted documents so far.
    pub(crate) accepted: u64,
    /// Single documents refused since one was accepted.
    pub(crate) refused_in_a_row: u32,
    /// Bytes of a body that was too large. It grows again slowly.
    pub(crate) size_limit: Option<usize>,
    /// Unfinished work of each session, where sessions keep their order. Sessions are known by
    /// their hash: two that share one wait for each other, which harms nobody.
    pub(crate) sessions: HashMap<u64, BTreeSet<(Order, WorkId)>>,
}

impl Endpoint {
    pub(crate) fn new(settings: &EndpointSettings) -> Endpoint {
        Endpoint {
            name: settings.name.clone(),
            max_in_flight: settings.in_flight.max(1),
            in_flight: 0,
            queue: BTreeMap::new(),
            circuit: Circuit::default(),
            accepted: 0,
            refused_in_a_row: 0,
            size_limit: None,
            sessions: HashMap::new(),
        }
    }

    /// When it must be looked at although nothing happened.
    pub(crate) fn wakes_at(&self, now: Uptime) -> Option<Uptime> {
        match self.circuit.allowed(now) {
            Allowed::NothingUntil(at) => Some(at),
            _ => None,
        }
    }

    /// Nothing is out. What could go out has just been sent.
    pub(crate) fn is_quiet(&self) -> bool {
        self.in_flight == 0
    }
}
