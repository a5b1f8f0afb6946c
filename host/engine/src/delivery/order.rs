//! Sessions in their order: no document is sent while an earlier one of its session is unfinished.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeSet, HashMap};
use std::hash::{Hash, Hasher};

use crate::batches::BatchInFlight;
use crate::index::{BatchId, DocumentIndex, EntryIndex, RequestId};
use crate::pipeline::{Pipeline, WorkId};

/// The order of work of one session.
pub(crate) type Order = (BatchId, EntryIndex, DocumentIndex);

impl Pipeline {
    /// Work on these documents begins: later documents of their sessions wait for it.
    pub(crate) fn order_begin(
        &mut self,
        batch: BatchId,
        work: WorkId,
        documents: &[DocumentIndex],
    ) {
        self.each_session(batch, documents, |sessions, session, order| {
            sessions.entry(session).or_default().insert((order, work));
        });
    }

    pub(crate) fn order_end(&mut self, batch: BatchId, work: WorkId, documents: &[DocumentIndex]) {
        self.each_session(batch, documents, |sessions, session, order| {
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
        id: BatchId,
        of: &[DocumentIndex],
        mut visit: impl FnMut(&mut HashMap<u64, BTreeSet<(Order, WorkId)>>, u64, Order),
    ) {
        let Some(batch) = self.batches.get(&id) else {
            return;
        };
        let stream = &self.settings.streams[batch.stream.get()];
        let Some(documents) = batch.documents().filter(|_| stream.in_session_order) else {
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
            .batches
            .get(&request.batch)
            .and_then(BatchInFlight::documents)
        else {
            return false;
        };
        request.outgoing.documents.iter().all(|&document| {
            let mut hasher = DefaultHasher::new();
            documents.session(document).hash(&mut hasher);
            let line = endpoint.sessions.get(&hasher.finish());
            line.and_then(BTreeSet::first)
                .is_none_or(|&(_, first)| first == WorkId::Request(id))
        })
    }
}
