//! Documents of a batch become requests.

use crate::Uptime;
use crate::batches::Hold;
use crate::delivery::History;
use crate::encoding::{EncodeOutput, Encoding};
use crate::index::{BatchId, DocumentIndex, EncodingId};
use crate::io::Action;
use crate::pipeline::{Pipeline, WorkId};
use crate::stage_run::Stop;

/// Documents that are being encoded, or will be.
#[derive(Debug)]
pub(crate) struct PendingEncoding {
    pub(crate) batch: BatchId,
    pub(crate) documents: Vec<DocumentIndex>,
    pub(crate) history: History,
    /// Times the call was held in a row.
    pub(crate) held: u32,
    pub(crate) waits: Option<Hold>,
}

impl PendingEncoding {
    pub(crate) fn is_running(&self) -> bool {
        self.waits.is_none()
    }

    pub(crate) fn is_braked(&self) -> bool {
        self.waits.as_ref().is_some_and(Hold::is_brake)
    }
}

impl Pipeline {
    /// Asks the sink for requests that carry these documents.
    pub(crate) fn encode(
        &mut self,
        id: BatchId,
        documents: Vec<DocumentIndex>,
        history: History,
        actions: &mut Vec<Action>,
    ) {
        let encoding = EncodingId(self.new_id());
        self.order_begin(id, WorkId::Encoding(encoding), &documents);
        let pending = PendingEncoding {
            batch: id,
            documents,
            history,
            held: 0,
            waits: None,
        };
        self.encodings.insert(encoding, pending);
        if let Some(batch) = self.batches.get_mut(&id) {
            batch.encodings += 1;
        }
        self.encode_again(encoding, actions);
    }

    /// Documents are encoded again at some time.
    pub(crate) fn encode_later(
        &mut self,
        id: BatchId,
        documents: Vec<DocumentIndex>,
        history: History,
        hold: Hold,
    ) {
        let encoding = EncodingId(self.new_id());
        self.order_begin(id, WorkId::Encoding(encoding), &documents);
        self.timers.insert((hold.until, WorkId::Encoding(encoding)));
        let held = 0;
        let pending = PendingEncoding {
            batch: id,
            documents,
            history,
            held,
            waits: Some(hold),
        };
        self.encodings.insert(encoding, pending);
        if let Some(batch) = self.batches.get_mut(&id) {
            batch.encodings += 1;
        }
    }

    pub(crate) fn encode_again(&mut self, id: EncodingId, actions: &mut Vec<Action>) {
        let Some(pending) = self.encodings.get_mut(&id) else {
            return;
        };
        pending.waits = None;
        let Some(batch) = self.batches.get(&pending.batch) else {
            return;
        };
        let Some(documents) = batch.documents().cloned() else {
            return;
        };
        let endpoint = self.settings.streams[batch.stream.get()].endpoint;
        let too_large = self.endpoints[endpoint.get()].size_limit;
        let sink = &self.settings.sink;
        let work = Encoding::new(
            documents,
            &pending.documents,
            sink.max_documents,
            sink.max_bytes
                .min(too_large.map_or(usize::MAX, |bytes| bytes / 4 * 3))
                .max(1),
            self.settings.cpu_budget,
        );
        actions.push(Action::Encode {
            encoding: id,
            work: Box::new(work),
        });
    }

    pub(crate) fn encoded(
        &mut self,
        now: Uptime,
        id: EncodingId,
        result: Result<EncodeOutput, Stop>,
    ) {
        let Some(held) = self.encodings.get(&id).map(|pending| pending.held) else {
            return;
        };
        let made = match result {
            Ok(made) => made,
            Err(stop) => {
                let hold = self.hold_for(now, stop, held);
                self.timers.insert((hold.until, WorkId::Encoding(id)));
                if let Some(pending) = self.encodings.get_mut(&id) {
                    pending.held += 1;
                    pending.waits = Some(hold);
                }
                return;
            }
        };
        let Some(pending) = self.encodings.remove(&id) else {
            return;
        };
        let batch = pending.batch;
        for outgoing in made.requests {
            self.add_request(batch, outgoing, pending.history.clone());
        }
        self.reject(now, batch, made.rejected);
        self.order_end(batch, WorkId::Encoding(id), &pending.documents);
        if let Some(batch) = self.batches.get_mut(&batch) {
            batch.encodings -= 1;
        }
    }
}
