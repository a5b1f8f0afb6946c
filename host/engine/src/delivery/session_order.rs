//! Sessions in their order: no document is sent while an earlier one of its session is unfinished.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeSet, HashMap};
use std::hash::{Hash, Hasher};

use crate::index::{BatchId, DocumentIndex, EntryIndex, RequestId, StreamIndex};
use crate::pipeline::{Pipeline, WorkId};

/// Unfinished work of each session of an endpoint.
#[derive(Debug, Default)]
pub(crate) struct SessionOrder {
    sessions: HashMap<Session, BTreeSet<(Place, WorkId)>>,
    /// Work began or ended since [`take_change`](Self::take_change).
    has_changed: bool,
}

/// A session is known by its hash: at worst two sessions wait for each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Session(u64);

/// The place of a document in its session.
type Place = (BatchId, EntryIndex, DocumentIndex);

impl Session {
    fn new(stream: StreamIndex, id: &str) -> Session {
        let mut hasher = DefaultHasher::new();
        (stream, id).hash(&mut hasher);
        Session(hasher.finish())
    }
}

impl SessionOrder {
    /// Whether it changed since the last call.
    pub(crate) fn take_change(&mut self) -> bool {
        std::mem::take(&mut self.has_changed)
    }

    fn begin(&mut self, work: WorkId, documents: &[(Session, Place)]) {
        self.has_changed = true;
        for &(session, place) in documents {
            let places = self.sessions.entry(session).or_default();
            places.insert((place, work));
        }
    }

    /// Gives the work that comes first now, in each session.
    fn end(&mut self, work: WorkId, documents: &[(Session, Place)]) -> BTreeSet<WorkId> {
        self.has_changed = true;
        let mut first = BTreeSet::new();
        for &(session, place) in documents {
            let Some(places) = self.sessions.get_mut(&session) else {
                continue;
            };
            places.remove(&(place, work));
            match places.first() {
                Some(&(_, next)) if next != work => {
                    first.insert(next);
                }
                Some(_) => {}
                None => {
                    self.sessions.remove(&session);
                }
            }
        }
        first
    }

    fn is_first(&self, work: WorkId, documents: &[(Session, Place)]) -> bool {
        documents.iter().all(|(session, _)| {
            let places = self.sessions.get(session);
            places
                .and_then(BTreeSet::first)
                .is_none_or(|&(_, first)| first == work)
        })
    }
}

impl Pipeline {
    /// Work on these documents begins: later documents of their sessions wait for it.
    pub(crate) fn order_begin(&mut self, batch: BatchId, work: WorkId, of: &[DocumentIndex]) {
        if let Some((endpoint, documents)) = self.in_sessions(batch, of) {
            self.endpoints[endpoint].order.begin(work, &documents);
        }
    }

    /// The work is over, or other work on its documents has begun.
    pub(crate) fn order_end(&mut self, batch: BatchId, work: WorkId, of: &[DocumentIndex]) {
        let Some((endpoint, documents)) = self.in_sessions(batch, of) else {
            return;
        };
        for work in self.endpoints[endpoint].order.end(work, &documents) {
            if let WorkId::Request(id) = work
                && self
                    .requests
                    .get(id)
                    .is_some_and(|request| request.is_blocked())
                && self.is_in_order(id)
            {
                self.requests
                    .update(id, |request| request.is_in_order = true);
            }
        }
    }

    /// No earlier document of its sessions is unfinished.
    pub(crate) fn is_in_order(&self, id: RequestId) -> bool {
        let Some(request) = self.requests.get(id) else {
            return false;
        };
        let documents = self.in_sessions(request.batch, &request.outgoing.documents);
        documents.is_none_or(|(endpoint, documents)| {
            let order = &self.endpoints[endpoint].order;
            order.is_first(WorkId::Request(id), &documents)
        })
    }

    /// Nothing before it in its session is unfinished, but for documents of the same request.
    pub(crate) fn is_first_of_session(&self, id: RequestId, document: DocumentIndex) -> bool {
        let Some(request) = self.requests.get(id) else {
            return false;
        };
        let documents = self.in_sessions(request.batch, &[document]);
        documents.is_none_or(|(endpoint, documents)| {
            let order = &self.endpoints[endpoint].order;
            order.is_first(WorkId::Request(id), &documents)
        })
    }

    /// The endpoint, and those of these documents that belong to a session, if sessions keep
    /// their order.
    fn in_sessions(
        &self,
        id: BatchId,
        of: &[DocumentIndex],
    ) -> Option<(usize, Vec<(Session, Place)>)> {
        let batch = self.batches.get(&id)?;
        let stream = &self.settings.streams[batch.stream.get()];
        let documents = batch.documents().filter(|_| stream.in_session_order)?;
        let place = |&document: &DocumentIndex| {
            let session = documents.session(document);
            let place = (id, documents.entry(document), document);
            (!session.is_empty()).then(|| (Session::new(batch.stream, session), place))
        };
        Some((stream.endpoint.get(), of.iter().filter_map(place).collect()))
    }
}
