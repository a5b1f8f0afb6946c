//! Documents of a batch become requests.

use crate::Uptime;
use crate::batches::Hold;
use crate::delivery::History;
use crate::encoding::{EncodeOutput, Encoding};
use crate::index::{BatchId, DocumentIndex, EncodingId};
use crate::io::Action;
use crate::pipeline::{Pipeline, WorkId};
use crate::stage_run::BatchError;

/// Documents that are being encoded, or will be.
#[derive(Debug)]
pub(crate) struct PendingEncoding {
    pub(crate) batch: BatchId,
    pub(crate) documents: Vec<DocumentIndex>,
    pub(crate) history: History,
    /// Times the call was held in a row.
    pub(crate) holds_in_a_row: u32,
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
        let encoding = self.add_encoding(id, documents, history);
        self.begin_encoding(encoding, actions);
    }

    /// Encodes documents again when the hold ends.
    pub(crate) fn encode_later(
        &mut self,
        id: BatchId,
        documents: Vec<DocumentIndex>,
        history: History,
        hold: Hold,
    ) {
        let encoding = self.add_encoding(id, documents, history);
        self.hold_encoding(encoding, hold);
    }

    fn add_encoding(
        &mut self,
        id: BatchId,
        documents: Vec<DocumentIndex>,
        history: History,
    ) -> EncodingId {
        let encoding = EncodingId(self.new_id());
        self.order_begin(id, WorkId::Encoding(encoding), &documents);
        if let Some(batch) = self.batches.get_mut(&id) {
            batch.encodings += 1;
        }
        let pending = PendingEncoding {
            batch: id,
            documents,
            history,
            holds_in_a_row: 0,
        };
        self.encodings.insert(encoding, pending);
        encoding
    }

    fn hold_encoding(&mut self, id: EncodingId, hold: Hold) {
        self.timers.insert((hold.until, WorkId::Encoding(id)));
        self.holds.insert(WorkId::Encoding(id), hold);
    }

    /// An encoding has its turn, for the first time or again.
    pub(crate) fn begin_encoding(&mut self, id: EncodingId, actions: &mut Vec<Action>) {
        let Some(pending) = self.encodings.get(&id) else {
            return;
        };
        let Some(batch) = self.batches.get_mut(&pending.batch) else {
            return;
        };
        let Some(documents) = batch.documents().cloned() else {
            return;
        };
        batch.running_encodings += 1;
        let endpoint = self.settings.streams[batch.stream.get()].endpoint;
        let endpoint = &self.endpoints[endpoint.get()];
        let sink = &self.settings.sink;
        let work = Encoding::new(
            documents,
            &pending.documents,
            sink.max_documents,
            endpoint.sizes.below_limit(sink.max_bytes),
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
        result: Result<EncodeOutput, BatchError>,
    ) {
        let Some(pending) = self.encodings.get_mut(&id) else {
            return;
        };
        let batch = pending.batch;
        if let Some(batch) = self.batches.get_mut(&batch) {
            batch.running_encodings -= 1;
        }
        let output = match result {
            Ok(output) => output,
            Err(error) => {
                let holds_in_a_row = pending.holds_in_a_row;
                pending.holds_in_a_row += 1;
                let before = self.holds.get(WorkId::Encoding(id));
                let since = before.map_or(now, |hold| hold.since);
                let hold = self.hold_for(now, error, holds_in_a_row);
                return self.hold_encoding(id, Hold { since, ..hold });
            }
        };
        let Some(pending) = self.encodings.remove(&id) else {
            return;
        };
        for outgoing in output.requests {
            self.add_request(batch, outgoing, pending.history.clone());
        }
        self.reject(now, batch, output.rejected);
        self.order_end(batch, WorkId::Encoding(id), &pending.documents);
        self.holds.remove(WorkId::Encoding(id));
        if let Some(batch) = self.batches.get_mut(&batch) {
            batch.encodings -= 1;
        }
    }
}
