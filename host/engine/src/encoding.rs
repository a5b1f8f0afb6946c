//! A sink's requests for some documents of a batch, one call at a time.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use lockgate_model::contract::Encoded;
use lockgate_model::request::CheckedRequest;

use crate::documents::Documents;
use crate::index::DocumentIndex;
use crate::isolation::{Attempt, Isolation, Piece};
use crate::plugin::Sink;
use crate::stage_run::{BatchError, FailedCall, Step};

/// Documents on their way through `encode`. As [`StageRun`](crate::StageRun), it takes a step at a
/// time.
#[derive(Debug)]
pub struct Encoding {
    documents: Arc<Documents>,
    /// The documents of each call, in order.
    chunks: Vec<Vec<DocumentIndex>>,
    search: Option<(Vec<DocumentIndex>, Isolation<Encoded>)>,
    made: EncodeOutput,
    cpu: Duration,
    cpu_budget: Duration,
    /// The latest call, if it failed.
    failed: Option<FailedCall>,
}

/// Requests, and documents that the sink refused.
#[derive(Debug, Default)]
pub struct EncodeOutput {
    pub requests: Vec<OutgoingRequest>,
    pub rejected: Vec<(DocumentIndex, String)>,
}

/// A request with the documents of the batch that it carries, in the order of `carries`.
#[derive(Clone, Debug)]
pub struct OutgoingRequest {
    pub request: Arc<CheckedRequest>,
    pub documents: Arc<[DocumentIndex]>,
    /// The documents of the call that made it: indexes in a body of parts mean these.
    pub called_with: Arc<[DocumentIndex]>,
}

impl OutgoingRequest {
    /// The bytes to send.
    pub fn body(&self, documents: &Documents) -> bytes::Bytes {
        let payload = |index: u32| documents.payload(self.called_with[index as usize]);
        self.request.body().assemble(payload)
    }

    pub fn body_len(&self, documents: &Documents) -> usize {
        let payload = |index: u32| documents.payload(self.called_with[index as usize]);
        self.request.body().len(payload)
    }
}

impl Encoding {
    /// `max_documents`, `max_bytes`: of one call. A single larger document goes alone.
    pub fn new(
        documents: Arc<Documents>,
        wanted: &[DocumentIndex],
        max_documents: usize,
        max_bytes: usize,
        cpu_budget: Duration,
    ) -> Encoding {
        let mut chunks: Vec<Vec<DocumentIndex>> = Vec::new();
        let mut bytes = 0;
        for &document in wanted {
            let len = documents.payload(document).len();
            match chunks.last_mut() {
                Some(chunk) if chunk.len() < max_documents && bytes + len <= max_bytes => {
                    chunk.push(document);
                    bytes += len;
                }
                _ => {
                    chunks.push(vec![document]);
                    bytes = len;
                }
            }
        }
        chunks.reverse();
        Encoding {
            documents,
            chunks,
            search: None,
            made: EncodeOutput::default(),
            cpu: Duration::ZERO,
            cpu_budget,
            failed: None,
        }
    }

    pub fn into_output(self) -> EncodeOutput {
        self.made
    }

    /// Makes at most one call of the sink.
    pub fn step<S: Sink>(&mut self, sink: &S) -> Step {
        if !self.advance() {
            return Step::Done;
        }
        match self.call(sink) {
            Err(error) => Step::Failed(error),
            Ok(()) if self.advance() => Step::More,
            Ok(()) => Step::Done,
        }
    }

    /// The call of the latest step, if it failed.
    pub fn take_failed_call(&mut self) -> Option<FailedCall> {
        self.failed.take()
    }

    /// Up to the next call. False if there is none.
    fn advance(&mut self) -> bool {
        loop {
            match self.search.take() {
                Some((chunk, mut search)) => {
                    if search.current().is_some() {
                        self.search = Some((chunk, search));
                        return true;
                    }
                    self.take(&chunk, search);
                }
                None => {
                    let Some(chunk) = self.chunks.pop() else {
                        return false;
                    };
                    let search = Isolation::new(chunk.len());
                    self.search = Some((chunk, search));
                }
            }
        }
    }

    fn call<S: Sink>(&mut self, sink: &S) -> Result<(), BatchError> {
        let label = || sink.label().to_owned();
        if self.cpu > self.cpu_budget {
            return Err(BatchError::CpuBudget {
                label: label(),
                budget: self.cpu_budget,
            });
        }
        let Some((chunk, search)) = &mut self.search else {
            return Ok(());
        };
        let Some(Attempt { range, fresh }) = search.current() else {
            return Ok(());
        };
        let views: Vec<_> = chunk[range]
            .iter()
            .map(|&document| self.documents.view(document))
            .collect();
        let called = sink.encode(self.documents.context(), &views, fresh);
        self.failed = FailedCall::of(sink.label(), &called.result);
        // A call that is made again does not count.
        let error = called.result.as_ref().err();
        if error.is_none_or(|error| !error.is_made_again()) {
            self.cpu += called.cpu;
        }
        search
            .answer(called.result)
            .map_err(|error| BatchError::Component {
                label: label(),
                error,
            })
    }

    fn take(&mut self, chunk: &[DocumentIndex], search: Isolation<Encoded>) {
        for (range, piece) in search.into_pieces() {
            let called_with: Arc<[DocumentIndex]> = chunk[range.clone()].into();
            match piece {
                Piece::Failed(reason) => self.reject(chunk, range, &reason),
                Piece::Result(Encoded { requests, rejected }) => {
                    for (index, reason) in rejected {
                        self.made
                            .rejected
                            .push((called_with[index as usize], reason));
                    }
                    for request in requests {
                        let documents = request
                            .carries()
                            .iter()
                            .map(|&index| called_with[index as usize])
                            .collect();
                        self.made.requests.push(OutgoingRequest {
                            request: Arc::new(request),
                            documents,
                            called_with: called_with.clone(),
                        });
                    }
                }
            }
        }
    }

    fn reject(&mut self, chunk: &[DocumentIndex], range: Range<usize>, reason: &str) {
        let rejected = chunk[range]
            .iter()
            .map(|&document| (document, reason.to_owned()));
        self.made.rejected.extend(rejected);
    }
}
