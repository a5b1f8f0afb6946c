//! One URL that the operator wrote: its circuit and its evidence.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::Uptime;
use crate::circuit::{Allowed, Circuit, OpenReason};
use crate::delivery::session_order::SessionOrder;
use crate::delivery::sizes::Sizes;
use crate::index::{BatchId, RequestId};
use crate::limits::{REFUSED_IN_A_ROW_MAX, SUSPECTS_IN_A_ROW_MAX};
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
    /// Requests that were split since one was accepted, or failed and had failed before while
    /// others were accepted.
    suspects: BTreeSet<RequestId>,
    /// The batch that the last document that was refused or failed as a half belongs to: the others
    /// of its batch may be like it.
    pub(crate) last_searched: Option<BatchId>,
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
            suspects: BTreeSet::new(),
            last_searched: None,
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

    /// The more requests fail one after another, the fewer are sent at once: the answer to one of
    /// them may show that the others need not be sent.
    pub(crate) fn has_room(&self) -> bool {
        let halvings = self.suspects.len().saturating_sub(1);
        let at_once = self.max_in_flight >> halvings.min(SUSPECTS_IN_A_ROW_MAX);
        self.in_flight < at_once.max(1)
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

    /// It took documents. True if the circuit was open.
    pub(crate) fn accept(&mut self) -> bool {
        self.accepted += 1;
        self.refused_in_a_row = 0;
        self.suspects.clear();
        self.sizes.accept();
        self.circuit.succeed()
    }

    /// It refused a single document. True if it seems to refuse every one.
    pub(crate) fn refuse(&mut self) -> bool {
        self.refused_in_a_row += 1;
        self.refused_in_a_row >= REFUSED_IN_A_ROW_MAX || self.circuit.open().is_some()
    }

    /// While only probes are sent, a refusal of several documents costs no wait: the endpoint has
    /// accepted some not long ago.
    pub(crate) fn may_be_refused(&self) -> bool {
        self.open_reason() == Some(OpenReason::RefusesAll)
            && self.suspects.len() < SUSPECTS_IN_A_ROW_MAX
    }

    /// A request failed or was refused that may be at fault itself. True once there were so many in
    /// a row that the endpoint is more likely at fault.
    pub(crate) fn suspect(&mut self, id: RequestId) -> bool {
        if self.suspects.len() < SUSPECTS_IN_A_ROW_MAX {
            self.suspects.insert(id);
        }
        self.suspects.len() >= SUSPECTS_IN_A_ROW_MAX
    }
}
