//! All requests of a pipeline, counted and sorted by how they stand, so that no step has to look at
//! each of them.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::Uptime;
use crate::delivery::request::{FaultClass, FaultRank, Position, Request};
use crate::index::{BatchId, DocumentIndex, EndpointIndex, EntryIndex, RequestId};
use crate::limits::OWN_WAITS_AFTER;

#[derive(Debug)]
pub(crate) struct Requests {
    all: HashMap<RequestId, Request>,
    endpoints: Vec<OfEndpoint>,
    batches: HashMap<BatchId, Tally>,
    #[cfg(test)]
    visits: std::cell::Cell<u64>,
}

/// Requests in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) requests: usize,
    /// Sent, or asked about.
    pub(crate) under_way: usize,
    /// For a time, or for another to be accepted.
    pub(crate) waiting: usize,
    /// Halves of requests that failed often, not tried yet.
    pub(crate) untried_halves: usize,
    /// Refused alone.
    pub(crate) refused: usize,
    /// Behind an unfinished document of their session.
    pub(crate) blocked: usize,
    /// Not blocked, but likely at fault themselves: they cannot show how the endpoint is.
    pub(crate) poor_probes: usize,
    /// Single documents among these.
    pub(crate) poor_single_probes: usize,
    /// May be sent, with something known against them.
    pub(crate) sendable_not_clean: usize,
}

/// The requests to one endpoint.
#[derive(Debug, Default)]
pub(crate) struct OfEndpoint {
    tally: Tally,
    /// Requests that may be sent, in order.
    queue: BTreeMap<Position, RequestId>,
    /// The same requests, those that are least likely to be at fault first.
    by_fault_rank: BTreeMap<(FaultRank, Position), RequestId>,
    /// Requests that wait, those that are least likely to be at fault first.
    waiting: BTreeSet<(FaultRank, RequestId)>,
    /// Those that an acceptance lets go.
    for_evidence: BTreeSet<RequestId>,
    /// Those that the end of an outage lets go.
    for_recovery: BTreeSet<RequestId>,
    /// Requests with a single document that failed often, by the time of the first failure.
    failing: BTreeSet<(Uptime, RequestId)>,
    delayed: Delayed,
}

/// Requests that the condition of an endpoint counts.
#[derive(Debug, Default)]
struct Delayed {
    requests: usize,
    documents: u64,
    since: BTreeSet<(Uptime, RequestId)>,
    until: BTreeSet<(Uptime, RequestId)>,
}

impl Requests {
    pub(crate) fn new(endpoints: usize) -> Requests {
        Requests {
            all: HashMap::new(),
            endpoints: (0..endpoints).map(|_| OfEndpoint::default()).collect(),
            batches: HashMap::new(),
            #[cfg(test)]
            visits: std::cell::Cell::default(),
        }
    }

    pub(crate) fn get(&self, id: RequestId) -> Option<&Request> {
        self.visit();
        self.all.get(&id)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (RequestId, &Request)> {
        self.all.iter().map(|(&id, request)| {
            self.visit();
            (id, request)
        })
    }

    /// How often a request was looked at.
    #[cfg(test)]
    pub(crate) fn visits(&self) -> u64 {
        self.visits.get()
    }

    fn visit(&self) {
        #[cfg(test)]
        self.visits.update(|visits| visits + 1);
    }

    pub(crate) fn insert(&mut self, id: RequestId, request: Request) {
        self.count(id, &request, true);
        self.all.insert(id, request);
    }

    pub(crate) fn remove(&mut self, id: RequestId) -> Option<Request> {
        self.visit();
        let request = self.all.remove(&id)?;
        self.count(id, &request, false);
        Some(request)
    }

    /// Changes a request. There is no other way to change one.
    pub(crate) fn update<T>(
        &mut self,
        id: RequestId,
        change: impl FnOnce(&mut Request) -> T,
    ) -> Option<T> {
        let mut request = self.remove(id)?;
        let result = change(&mut request);
        self.insert(id, request);
        Some(result)
    }

    pub(crate) fn of_endpoint(&self, endpoint: EndpointIndex) -> &OfEndpoint {
        &self.endpoints[endpoint.get()]
    }

    pub(crate) fn of_batch(&self, batch: BatchId) -> Tally {
        self.batches.get(&batch).copied().unwrap_or_default()
    }

    fn count(&mut self, id: RequestId, request: &Request, is_added: bool) {
        self.endpoints[request.endpoint.get()].count(id, request, is_added);
        let tally = self.batches.entry(request.batch).or_default();
        tally.count(request, is_added);
        if tally.requests == 0 {
            self.batches.remove(&request.batch);
        }
    }
}

impl OfEndpoint {
    pub(crate) fn tally(&self) -> Tally {
        self.tally
    }

    pub(crate) fn queue(&self) -> impl Iterator<Item = RequestId> {
        self.queue.values().copied()
    }

    /// The request that may be sent and is least likely to be at fault.
    pub(crate) fn likeliest_accepted(&self) -> Option<RequestId> {
        self.by_fault_rank.first_key_value().map(|(_, &id)| id)
    }

    /// Parts of requests that failed or were refused, the smallest first.
    pub(crate) fn parts(&self) -> impl DoubleEndedIterator<Item = (RequestId, BatchId)> {
        let clean = (FaultClass::Clean, 0, 0);
        let parts = self.by_fault_rank.range(..(clean, first_position()));
        parts.map(|((_, position), &id)| (id, position.0))
    }

    /// The first one that may be sent and of which nothing is known.
    pub(crate) fn first_clean(&self) -> Option<RequestId> {
        let clean = (FaultClass::Clean, 0, 0);
        let mut ranked = self.by_fault_rank.range((clean, first_position())..);
        let first = ranked.next().filter(|((rank, _), _)| *rank == clean);
        first.map(|(_, &id)| id)
    }

    /// Those that are least likely to be at fault first.
    pub(crate) fn waiting(&self) -> impl Iterator<Item = RequestId> {
        self.waiting.iter().map(|&(_, id)| id)
    }

    /// Requests that wait for another to be accepted.
    pub(crate) fn for_evidence(&self) -> impl Iterator<Item = RequestId> {
        self.for_evidence.iter().copied()
    }

    /// Requests that wait for the end of an outage.
    pub(crate) fn for_recovery(&self) -> impl Iterator<Item = RequestId> {
        self.for_recovery.iter().copied()
    }

    /// Some request can still show what the endpoint accepts.
    pub(crate) fn others_can_be_sent(&self) -> bool {
        self.tally.requests > self.delayed.requests + self.tally.blocked
    }

    /// Nothing could show whether the endpoint is at fault, or the single document that has failed
    /// longest. Returns when that began.
    pub(crate) fn undecided_since(&self) -> Option<Uptime> {
        let &(since, _) = self.failing.first()?;
        let can_tell = self.tally.requests > self.tally.poor_probes + self.tally.blocked;
        (!can_tell).then_some(since)
    }

    /// Documents that wait while others are sent.
    pub(crate) fn delayed_documents(&self) -> u64 {
        self.delayed.documents
    }

    /// The request that has been delayed longest.
    pub(crate) fn delayed_first(&self) -> Option<(Uptime, RequestId)> {
        self.delayed.since.first().copied()
    }

    /// When the first delayed request is tried again.
    pub(crate) fn delayed_until(&self) -> Option<Uptime> {
        self.delayed.until.first().map(|&(until, _)| until)
    }

    fn count(&mut self, id: RequestId, request: &Request, is_added: bool) {
        self.tally.count(request, is_added);
        if request.may_be_sent() {
            let ranked = (request.fault_rank(), request.position);
            if is_added {
                self.queue.insert(request.position, id);
                self.by_fault_rank.insert(ranked, id);
            } else {
                self.queue.remove(&request.position);
                self.by_fault_rank.remove(&ranked);
            }
        }
        if let Some(since) = request.delayed_since() {
            self.delayed.count(since, id, request, is_added);
        }
        if let Some(since) = request.history.failing_since()
            && request.is_single()
        {
            keep(&mut self.failing, (since, id), is_added);
        }
        let Some(wait) = request.wait() else { return };
        keep(&mut self.waiting, (request.fault_rank(), id), is_added);
        if wait.for_evidence && !request.is_held {
            keep(&mut self.for_evidence, id, is_added);
        }
        if !wait.for_evidence && request.history.failures < OWN_WAITS_AFTER {
            keep(&mut self.for_recovery, id, is_added);
        }
    }
}

impl Delayed {
    fn count(&mut self, since: Uptime, id: RequestId, request: &Request, is_added: bool) {
        let documents = request.outgoing.documents.len() as u64;
        if is_added {
            self.requests += 1;
            self.documents += documents;
        } else {
            self.requests -= 1;
            self.documents -= documents;
        }
        keep(&mut self.since, (since, id), is_added);
        if let Some(wait) = request.wait() {
            keep(&mut self.until, (wait.until, id), is_added);
        }
    }
}

impl Tally {
    fn count(&mut self, request: &Request, is_added: bool) {
        let count = |number: &mut usize, counts: bool| {
            if counts && is_added {
                *number += 1;
            } else if counts {
                *number -= 1;
            }
        };
        count(&mut self.requests, true);
        count(&mut self.under_way, request.is_under_way());
        count(&mut self.waiting, request.wait().is_some());
        // A half may be blocked, too; it counts once.
        let is_untried = request.history.is_untried_half() && !request.is_blocked();
        count(&mut self.untried_halves, is_untried);
        count(&mut self.refused, request.history.refusal_count() > 0);
        count(&mut self.blocked, request.is_blocked());
        let is_poor_probe = request.is_poor_probe() && !request.is_blocked();
        count(&mut self.poor_probes, is_poor_probe);
        let is_single = request.is_single();
        count(&mut self.poor_single_probes, is_poor_probe && is_single);
        let is_sendable_not_clean = request.may_be_sent() && !request.history.is_clean();
        count(&mut self.sendable_not_clean, is_sendable_not_clean);
    }
}

fn first_position() -> Position {
    let (entry, document) = (EntryIndex::new(0), DocumentIndex::new(0));
    (BatchId(0), entry, document, RequestId(0))
}

fn keep<T: Ord>(set: &mut BTreeSet<T>, key: T, is_added: bool) {
    if is_added {
        set.insert(key);
    } else {
        set.remove(&key);
    }
}
