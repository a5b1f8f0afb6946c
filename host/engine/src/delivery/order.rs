//! Sessions in their order: no document is sent while an earlier one of its session is unfinished.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeSet, HashMap};
use std::hash::{Hash, Hasher};

use crate::flights::Flight;
use crate::index::{DocumentIndex, EntryIndex, FlightId, RequestId};
use crate::pipeline::{Pipeline, Timer};

/// The order of work of one session.
pub(crate) type Order = (FlightId, EntryIndex, DocumentIndex);

impl Pipeline {
    /// Work on these documents begins: later documents of their sessions wait for it.
    pub(crate) fn order_begin(
        &mut self,
        flight: FlightId,
        work: Timer,
        documents: &[DocumentIndex],
    ) {
        self.each_session(flight, documents, |sessions, session, order| {
            sessions.entry(session).or_default().insert((order, work));
        });
    }

    pub(crate) fn order_end(&mut self, flight: FlightId, work: Timer, documents: &[DocumentIndex]) {
        self.each_session(flight, documents, |sessions, session, order| {
            if let Some(line) = sessions.get_mut(&session) {
                line.remove(&(order, work));
                if line.is_empty() {
                    sessions.remove(&session);
                }
            }
        });
    }

    pub(crate) fn each_session(
        &mut self,
        id: FlightId,
        of: &[DocumentIndex],
        mut visit: impl FnMut(&mut HashMap<u64, BTreeSet<(Order, Timer)>>, u64, Order),
    ) {
        let Some(flight) = self.flights.get(&id) else {
            return;
        };
        let stream = &self.settings.streams[flight.stream.get()];
        let Some(documents) = flight.documents().filter(|_| stream.in_session_order) else {
            return;
        };
        let sessions = &mut self.endpoints[stream.endpoint.get()].sessions;
        for &document in of {
            let mut hasher = DefaultHasher::new();
            documents.session(document).hash(&mut hasher);
            visit(
                sessions,
                hasher.finish(),
                (id, documents.entry(document), document),
            );
        }
    }

    /// No earlier document of its sessions is unfinished.
    pub(crate) fn is_in_order(&self, id: RequestId) -> bool {
        let Some(request) = self.requests.get(&id) else {
            return false;
        };
        let endpoint = &self.endpoints[request.endpoint.get()];
        if endpoint.sessions.is_empty() {
            return true;
        }
        let Some(documents) = self
            .flights
            .get(&request.flight)
            .and_then(Flight::documents)
        else {
            return false;
        };
        request.outgoing.documents.iter().all(|&document| {
            let mut hasher = DefaultHasher::new();
            documents.session(document).hash(&mut hasher);
            let line = endpoint.sessions.get(&hasher.finish());
            line.and_then(BTreeSet::first)
                .is_none_or(|&(_, first)| first == Timer::Request(id))
        })
    }
}
