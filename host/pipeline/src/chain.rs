use bytes::Bytes;
use lockgate_lookup::Lookups;
use lockgate_model::contract::{Access, BatchInfo, Mapped, TypeLists, Verdict};
use lockgate_model::request::{CheckedRequest, RequestRules};
use lockgate_model::{DocumentView, EventView, Fate, StateOverlay};
use lockgate_runtime::{CallContext, Kind, Sink, Stage};

use crate::isolate::{self, Isolated, Postponed};
use crate::work::Work;

/// The components of one pipeline, in order. Everything here is synchronous and runs on the
/// runtime's pool.
#[derive(Debug)]
pub struct Chain {
    stages: Vec<Link>,
    sink: Sink,
    rules: RequestRules,
}

#[derive(Debug)]
struct Link {
    stage: Stage,
}

/// What the components of a chain know of a batch.
#[derive(Clone, Debug)]
pub struct Context {
    pub(crate) batch: BatchInfo,
    pub(crate) lookups: Lookups,
}

/// Requests for some documents of a batch.
#[derive(Debug, Default)]
pub(crate) struct Encoded {
    pub(crate) requests: Vec<Outgoing>,
    /// Documents the sink refused, with its reason.
    pub(crate) rejected: Vec<(u32, String)>,
}

/// A request, with its body and the documents it carries by their number in the work.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) request: CheckedRequest,
    pub(crate) body: Bytes,
    pub(crate) documents: Vec<u32>,
}

impl Chain {
    pub fn new(stages: Vec<Stage>, sink: Sink, rules: RequestRules) -> Chain {
        let stages = stages.into_iter().map(|stage| Link { stage }).collect();
        Chain {
            stages,
            sink,
            rules,
        }
    }

    pub fn sink(&self) -> &Sink {
        &self.sink
    }

    /// Filters and mappers, in order, over all documents without a fate.
    ///
    /// On `Err` the work is half done: the caller starts again from the batch, after the wait that
    /// the plugin asked for.
    pub(crate) fn apply(&self, work: &mut Work, context: &Context) -> Result<(), Postponed> {
        for link in &self.stages {
            apply_type_lists(&link.stage.setup().types, link.label(), work);
            match link.stage.kind() {
                Kind::Filter => link.filter(work, context)?,
                Kind::Mapper => link.map(work, context)?,
                // Assembly refuses a sink among the stages.
                Kind::HttpSink => {}
            }
        }
        apply_type_lists(&self.sink.setup().types, self.sink.label(), work);
        Ok(())
    }

    /// Asks the sink for requests that carry these documents.
    pub(crate) fn encode(
        &self,
        work: &Work,
        documents: &[u32],
        context: &Context,
    ) -> Result<Encoded, Postponed> {
        let mut encoded = Encoded::default();
        if documents.is_empty() {
            return Ok(encoded);
        }
        let views: Vec<DocumentView<'_>> = documents
            .iter()
            .map(|&document| work.document(document))
            .collect();
        let pieces = isolate::encode(&self.sink, &context.batch, &views, &self.rules)?;
        for (range, piece) in pieces {
            let number = |index: u32| documents[range.start + index as usize];
            match piece {
                Ok(piece) => {
                    let outgoing = |request: CheckedRequest| Outgoing {
                        body: request
                            .body()
                            .assemble(|index| work.document(number(index)).event.payload),
                        documents: request.carries().iter().copied().map(number).collect(),
                        request,
                    };
                    encoded
                        .requests
                        .extend(piece.requests.into_iter().map(outgoing));
                    let rejected = piece.rejected.into_iter();
                    encoded
                        .rejected
                        .extend(rejected.map(|(index, reason)| (number(index), reason)));
                }
                Err(reason) => encoded.rejected.extend(
                    documents[range]
                        .iter()
                        .map(|&document| (document, reason.clone())),
                ),
            }
        }
        Ok(encoded)
    }
}

impl Link {
    fn label(&self) -> &str {
        self.stage.label()
    }

    fn filter(&self, work: &mut Work, context: &Context) -> Result<(), Postponed> {
        if self.stage.setup().access == Access::Types {
            return Ok(());
        }
        let open = work.open();
        if open.is_empty() {
            return Ok(());
        }
        let views: Vec<EventView<'_>> = open.iter().map(|&document| work.event(document)).collect();
        let verdicts = isolate::filter(
            &self.stage,
            &context.call(),
            &views,
            &mut StateOverlay::not_granted(),
        )?;
        for (document, verdict) in open.into_iter().zip(verdicts) {
            match verdict {
                Isolated::Result(Verdict::Keep) => {}
                Isolated::Result(Verdict::Drop(reason)) => {
                    work.settle(document, self.label(), Fate::Dropped(self.reason(reason)))
                }
                Isolated::Dead(reason) => work.settle(document, self.label(), Fate::Dead(reason)),
            }
        }
        Ok(())
    }

    fn map(&self, work: &mut Work, context: &Context) -> Result<(), Postponed> {
        let open = work.open();
        if open.is_empty() {
            return Ok(());
        }
        let views: Vec<EventView<'_>> = open.iter().map(|&document| work.event(document)).collect();
        let mapped = isolate::transform(
            &self.stage,
            &context.call(),
            &views,
            &mut StateOverlay::not_granted(),
        )?;
        for (document, mapped) in open.into_iter().zip(mapped) {
            match mapped {
                Isolated::Result(Mapped::Emit(documents)) => {
                    work.replace(document, documents, self.label())
                }
                Isolated::Result(Mapped::Drop(reason)) => {
                    work.settle(document, self.label(), Fate::Dropped(self.reason(reason)))
                }
                Isolated::Result(Mapped::Reject(reason)) | Isolated::Dead(reason) => {
                    work.settle(document, self.label(), Fate::Dead(reason));
                }
            }
        }
        Ok(())
    }

    /// What the plugin declared for `drop(n)`.
    fn reason(&self, index: u32) -> String {
        match self.stage.setup().reasons.get(index as usize) {
            Some(reason) => reason.clone(),
            None => format!("{} (reason {index})", self.label()),
        }
    }
}

impl Context {
    fn call(&self) -> CallContext<'_> {
        CallContext {
            batch: &self.batch,
            lookups: self.lookups.clone(),
        }
    }
}

/// The host's work: no call, no copy.
fn apply_type_lists(types: &TypeLists, label: &str, work: &mut Work) {
    if types.let_all_through() {
        return;
    }
    for document in work.open() {
        if let Some(reason) = types.excludes(&work.event(document)) {
            work.settle(
                document,
                label,
                Fate::Dropped(format!("{reason} by {label}")),
            );
        }
    }
}
