//! A batch in flight, and what it waits for.

use std::sync::Arc;

use lockgate_model::contract::BatchContext;
use lockgate_model::{Batch, RequestRecord, Seq, StateMap};

use crate::documents::Documents;
use crate::fates::Fates;
use crate::index::{DocumentIndex, StreamIndex};
use crate::limits::RECORDS_MAX;

/// A batch in flight.
#[derive(Debug)]
pub(crate) struct BatchInFlight {
    pub(crate) stream: StreamIndex,
    pub(crate) events: Batch,
    /// The first sequence of its events.
    pub(crate) first: Seq,
    /// Nothing is kept but the events whose documents wait.
    pub(crate) is_shrunk: bool,
    /// Its entries are dead letters that wait again.
    pub(crate) is_redrive: bool,
    pub(crate) generation: u32,
    pub(crate) context: BatchContext,
    pub(crate) phase: Phase,
    /// Times it was held in a row.
    pub(crate) holds_in_a_row: u32,
    pub(crate) encodings: usize,
    /// Those that do not wait for a time.
    pub(crate) running_encodings: usize,
    /// Commits of its entries that are not durable yet.
    pub(crate) commits: usize,
    pub(crate) records: Vec<RequestRecord>,
    /// Its changes of the state of each stage. It commits once.
    pub(crate) state: Vec<StateMap>,
}

#[derive(Debug)]
pub(crate) enum Phase {
    /// It passes the stages when the batches before it have.
    Queued,
    /// The stages work on it. `at_work`: the label of the one that does, if that takes long.
    InStages { at_work: Option<String> },
    /// It passes them again when its timer runs out.
    Held,
    Delivering {
        documents: Arc<Documents>,
        fates: Fates,
    },
    /// All of it is final.
    Committing,
}

impl BatchInFlight {
    pub(crate) fn new(
        stream: StreamIndex,
        batch: Batch,
        is_redrive: bool,
        generation: u32,
        context: BatchContext,
    ) -> BatchInFlight {
        BatchInFlight {
            stream,
            first: batch.range().start,
            events: batch,
            is_shrunk: false,
            is_redrive,
            generation,
            context,
            phase: Phase::Queued,
            holds_in_a_row: 0,
            encodings: 0,
            running_encodings: 0,
            commits: 0,
            records: Vec::new(),
            state: Vec::new(),
        }
    }

    pub(crate) fn context(&self) -> &BatchContext {
        &self.context
    }

    pub(crate) fn documents(&self) -> Option<&Arc<Documents>> {
        match &self.phase {
            Phase::Delivering { documents, .. } => Some(documents),
            _ => None,
        }
    }

    pub(crate) fn is_in_stages(&self) -> bool {
        matches!(self.phase, Phase::InStages { .. })
    }

    /// Documents that are not final.
    pub(crate) fn open_documents(&self) -> usize {
        match &self.phase {
            Phase::Delivering { fates, .. } => fates.open_documents(),
            _ => 0,
        }
    }

    /// The sequence of a document's entry.
    pub(crate) fn seq(&self, document: DocumentIndex) -> Option<Seq> {
        let documents = self.documents()?;
        Some(documents.seq(documents.entry(document)))
    }

    pub(crate) fn record(&mut self, record: RequestRecord) {
        if self.records.len() < RECORDS_MAX {
            self.records.push(record);
            return;
        }
        // The last one stands for all that follow.
        if let Some(last) = self.records.last_mut() {
            last.merge(record);
            last.excerpt = "and further requests".to_owned();
        }
    }
}
