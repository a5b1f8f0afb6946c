use std::collections::HashSet;

use lockgate_model::request::CheckedRequest;
use lockgate_model::{DocumentView, EventView, Fate, FeedRef};
use lockgate_runtime::{Context, Isolated, Kind, Mapped, Needs, Postponed, Stage, Verdict};

use crate::work::Work;

/// The components of one pipeline, in order. Everything here is synchronous and runs on the
/// runtime's scheduler.
#[derive(Debug)]
pub struct Chain {
    stages: Vec<Link>,
    sink: Link,
    /// Lower-case names of the headers that the operator set: a component cannot override them.
    operator_headers: Vec<String>,
}

#[derive(Debug)]
struct Link {
    stage: Stage,
    only: Option<HashSet<String>>,
    skip: HashSet<String>,
    skip_sessions: HashSet<String>,
}

/// Requests for some documents of a batch.
#[derive(Debug, Default)]
pub(crate) struct Encoded {
    /// With the documents each carries, by their number in the work.
    pub(crate) requests: Vec<(CheckedRequest, Vec<u32>)>,
    /// Documents the sink refused, with its reason.
    pub(crate) rejected: Vec<(u32, String)>,
}

impl Chain {
    pub fn new(stages: Vec<Stage>, sink: Stage, operator_headers: Vec<String>) -> Chain {
        Chain {
            stages: stages.into_iter().map(Link::new).collect(),
            sink: Link::new(sink),
            operator_headers,
        }
    }

    pub fn sink(&self) -> &Stage {
        &self.sink.stage
    }

    /// Filters and mappers, in order, over all documents without a fate.
    ///
    /// On `Err` the work is half done: the caller starts again from the batch, after the wait that
    /// the plugin asked for.
    pub(crate) fn apply(&self, work: &mut Work, context: &Context) -> Result<(), Postponed> {
        for link in &self.stages {
            link.apply_type_lists(work);
            match link.stage.kind() {
                Kind::Filter => link.filter(work, context)?,
                Kind::Mapper => link.map(work, context)?,
                // Assembly refuses a sink among the stages.
                Kind::HttpSink => {}
            }
        }
        self.sink.apply_type_lists(work);
        Ok(())
    }

    /// Asks the sink for requests that carry these documents.
    pub(crate) fn encode(
        &self,
        work: &Work,
        documents: &[u32],
        context: &Context,
    ) -> Result<Encoded, Postponed> {
        if documents.is_empty() {
            return Ok(Encoded::default());
        }
        let views: Vec<DocumentView<'_>> = documents
            .iter()
            .map(|&document| work.document(document))
            .collect();
        let encoded = self
            .sink
            .stage
            .encode_isolated(context, &views, &self.operator_headers)?;
        let number = |index: u32| documents[index as usize];
        Ok(Encoded {
            requests: encoded
                .requests
                .into_iter()
                .map(|request| {
                    let carried = request.carries().iter().copied().map(number).collect();
                    (request, carried)
                })
                .collect(),
            rejected: encoded
                .rejected
                .into_iter()
                .map(|(index, reason)| (number(index), reason))
                .collect(),
        })
    }
}

impl Link {
    fn new(stage: Stage) -> Link {
        let setup = stage.setup();
        let only = setup
            .only
            .as_ref()
            .map(|types| types.iter().cloned().collect());
        let skip = setup.skip.iter().cloned().collect();
        let skip_sessions = setup.skip_sessions.iter().cloned().collect();
        Link {
            stage,
            only,
            skip,
            skip_sessions,
        }
    }

    fn label(&self) -> &str {
        self.stage.label()
    }

    /// `only` and `skip` are the host's work: no call, no copy.
    fn apply_type_lists(&self, work: &mut Work) {
        if self.only.is_none() && self.skip.is_empty() && self.skip_sessions.is_empty() {
            return;
        }
        for document in work.open() {
            let EventView {
                event_type, feed, ..
            } = work.event(document);
            let reason = if self.skip.contains(event_type) {
                "type skipped"
            } else if matches!(feed, FeedRef::Session(_)) && self.skip_sessions.contains(event_type)
            {
                "session type skipped"
            } else if self
                .only
                .as_ref()
                .is_some_and(|only| !only.contains(event_type))
            {
                "type not wanted"
            } else {
                continue;
            };
            work.settle(
                document,
                self.label(),
                Fate::Dropped(format!("{reason} by {}", self.label())),
            );
        }
    }

    fn filter(&self, work: &mut Work, context: &Context) -> Result<(), Postponed> {
        if self.stage.setup().needs == Needs::Nothing {
            return Ok(());
        }
        let open = work.open();
        if open.is_empty() {
            return Ok(());
        }
        let views: Vec<EventView<'_>> = open.iter().map(|&document| work.event(document)).collect();
        let verdicts = self.stage.filter_isolated(context, &views)?;
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
        let mapped = self.stage.transform_isolated(context, &views)?;
        for (document, mapped) in open.into_iter().zip(mapped) {
            match mapped {
                Isolated::Result(Mapped::Emit(texts)) => {
                    work.replace(document, texts, self.label())
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
