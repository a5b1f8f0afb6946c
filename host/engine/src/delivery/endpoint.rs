//! One URL that the operator wrote: its circuit and its evidence.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::Uptime;
use crate::circuit::{Allowed, Circuit, Trouble};
use crate::delivery::order::SessionOrder;
use crate::index::RequestId;
use crate::settings::EndpointSettings;

/// Single documents that are refused one after another before only probes are sent.
const REFUSED_IN_A_ROW_MAX: u32 = 2;

/// Requests that fail one after another, none accepted between, before only probes are sent although
/// each of them may be at fault itself.
const FAILING_ALONE_MAX: usize = 16;

/// From this size of a request on, an endpoint that once answered 413 has no limit any more.
const SIZE_LIMIT_MAX: usize = 1 << 30;

#[derive(Debug)]
pub(crate) struct Endpoint {
    pub(crate) name: Arc<str>,
    max_in_flight: usize,
    in_flight: usize,
    pub(crate) circuit: Circuit,
    /// Answers that accepted documents so far.
    accepted: u64,
    /// Single documents refused since one was accepted.
    refused_in_a_row: u32,
    /// Requests that failed since one was accepted, and had failed before while others were.
    failing_alone: BTreeSet<RequestId>,
    /// Bytes of a body that was too large. It grows again slowly.
    size_limit: Option<usize>,
    pub(crate) order: SessionOrder,
}

impl Endpoint {
    pub(crate) fn new(settings: &EndpointSettings) -> Endpoint {
        Endpoint {
            name: settings.name.clone(),
            max_in_flight: settings.in_flight.max(1),
            in_flight: 0,
            circuit: Circuit::default(),
            accepted: 0,
            refused_in_a_row: 0,
            failing_alone: BTreeSet::new(),
            size_limit: None,
            order: SessionOrder::default(),
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

    pub(crate) fn has_room(&self) -> bool {
        self.in_flight < self.max_in_flight
    }

    /// A request is out, or its answer is looked at.
    pub(crate) fn begin(&mut self) {
        self.in_flight += 1;
    }

    pub(crate) fn end(&mut self) {
        self.in_flight -= 1;
    }

    /// What keeps everything but probes from being sent.
    pub(crate) fn trouble(&self) -> Option<Trouble> {
        self.circuit.open().map(|open| open.trouble)
    }

    pub(crate) fn accepted(&self) -> u64 {
        self.accepted
    }

    /// It took documents. True where it was in trouble.
    pub(crate) fn accept(&mut self) -> bool {
        self.accepted += 1;
        self.refused_in_a_row = 0;
        self.failing_alone.clear();
        self.size_limit = self
            .size_limit
            .map(|bytes| bytes.saturating_add(bytes / 256 + 1))
            .filter(|&bytes| bytes < SIZE_LIMIT_MAX);
        self.circuit.succeed()
    }

    /// It refused a single document. True where it seems to refuse every one.
    pub(crate) fn refuse(&mut self) -> bool {
        self.refused_in_a_row += 1;
        self.refused_in_a_row >= REFUSED_IN_A_ROW_MAX || self.circuit.open().is_some()
    }

    /// A request failed that may be at fault itself. True where too many have to believe that.
    pub(crate) fn fail_alone(&mut self, id: RequestId) -> bool {
        if self.failing_alone.len() < FAILING_ALONE_MAX {
            self.failing_alone.insert(id);
        }
        self.failing_alone.len() >= FAILING_ALONE_MAX
    }

    /// A body of this size was too large.
    pub(crate) fn refuse_size(&mut self, bytes: usize) {
        let smaller = self.size_limit.map_or(bytes, |before| before.min(bytes));
        self.size_limit = Some(smaller);
    }

    /// Bytes that it probably takes at once, at most `wanted`.
    pub(crate) fn size_below_limit(&self, wanted: usize) -> usize {
        let below = self.size_limit.map_or(usize::MAX, |bytes| bytes / 4 * 3);
        wanted.min(below).max(1)
    }
}
