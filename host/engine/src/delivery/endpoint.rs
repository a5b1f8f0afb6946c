//! One URL that the operator wrote: its circuit and its evidence.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::Uptime;
use crate::circuit::{Allowed, Circuit, OpenReason};
use crate::delivery::order::SessionOrder;
use crate::delivery::sizes::Sizes;
use crate::index::RequestId;
use crate::limits::{FAILING_ALONE_MAX, REFUSED_IN_A_ROW_MAX};
use crate::settings::EndpointSettings;

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
    /// A part of a request that failed was accepted: the next one that fails is split sooner.
    pub(crate) fails_on_some: bool,
    pub(crate) sizes: Sizes,
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
            fails_on_some: false,
            sizes: Sizes::default(),
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

    /// No request is in flight.
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

    /// Why only probes are sent.
    pub(crate) fn open_reason(&self) -> Option<OpenReason> {
        self.circuit.open().map(|open| open.reason)
    }

    pub(crate) fn accepted(&self) -> u64 {
        self.accepted
    }

    /// It took documents. True where the circuit was open.
    pub(crate) fn accept(&mut self) -> bool {
        self.accepted += 1;
        self.refused_in_a_row = 0;
        self.failing_alone.clear();
        self.sizes.accept();
        self.circuit.succeed()
    }

    /// It refused a single document. True where it seems to refuse every one.
    pub(crate) fn refuse(&mut self) -> bool {
        self.refused_in_a_row += 1;
        self.refused_in_a_row >= REFUSED_IN_A_ROW_MAX || self.circuit.open().is_some()
    }

    /// A request failed that may be at fault itself. True once so many of them failed in a row that
    /// the endpoint is more likely at fault.
    pub(crate) fn fail_alone(&mut self, id: RequestId) -> bool {
        if self.failing_alone.len() < FAILING_ALONE_MAX {
            self.failing_alone.insert(id);
        }
        self.failing_alone.len() >= FAILING_ALONE_MAX
    }
}
