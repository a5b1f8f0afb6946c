//! A sink with its configuration, ready to be called.

use std::fmt;
use std::sync::Arc;

use lockgate_lookup::Lookups;
use lockgate_model::DocumentView;
use lockgate_model::contract::{
    Access, BatchContext, CallError, Called, Encoded, Shortage, SinkSetup,
};
use lockgate_model::request::{
    Classification, Request, RequestRules, Response, Sent, check_indexes,
};

use crate::budget::Room;
use crate::component::Component;
use crate::configured::{Call, ComponentOptions, ConfigureError, Configured};
use crate::engine::Engine;
use crate::interface::Kind;
use crate::metrics::Snapshot;
use crate::setup::Setup;
use crate::stage;
use crate::time_member::TimeMember;

/// A configured sink. Clones are the same sink.
#[derive(Clone)]
pub struct Sink {
    inner: Arc<Inner>,
}

struct Inner {
    configured: Configured,
    setup: SinkSetup,
    time_member: Option<TimeMember>,
}

impl Sink {
    /// Starts an instance and configures it. A sink has no state, whatever the options say.
    pub fn configure(
        engine: &Engine,
        component: &Component,
        options: ComponentOptions,
    ) -> Result<Sink, ConfigureError> {
        // Before it is asked: it would only find fault with keys that are not its own.
        if component.kind() != Kind::HttpSink {
            return Err(ConfigureError::World(component.kind()));
        }
        let configured = Configured::new(engine, component, options)?;
        match configured.setup() {
            Setup::Sink(setup) => {
                let setup = setup.clone();
                let time_member = setup.time_member.as_deref().map(TimeMember::new);
                Ok(Sink {
                    inner: Arc::new(Inner {
                        configured,
                        setup,
                        time_member,
                    }),
                })
            }
            Setup::Stage(_) => Err(ConfigureError::World(component.kind())),
        }
    }

    pub fn label(&self) -> &str {
        self.inner.configured.label()
    }

    pub fn setup(&self) -> &SinkSetup {
        &self.inner.setup
    }

    pub fn component(&self) -> &Component {
        self.inner.configured.component()
    }

    /// The metrics of the component since it was configured.
    pub fn metrics(&self) -> Snapshot {
        self.inner.configured.metrics()
    }

    /// Waits until there is memory for what a call of it could not have.
    pub async fn room_for(&self, shortage: Shortage) -> Room {
        self.inner.configured.engine().room_for(shortage).await
    }

    /// The most bytes of memory that an instance has held in a call.
    pub fn memory_peak(&self) -> usize {
        self.inner.configured.memory_peak()
    }

    /// One call: requests that carry the documents, each of which is carried or rejected once.
    ///
    /// `fresh`: use an instance that has made no call. Its log lines, which an earlier call has
    /// written, are suppressed.
    pub fn encode(
        &self,
        batch: &BatchContext,
        documents: &[DocumentView<'_>],
        rules: &RequestRules,
        fresh: bool,
    ) -> Called<Encoded> {
        if documents.is_empty() {
            return Called::free(Ok(Encoded::default()));
        }
        let (documents, input) = self.shown(documents);
        let Called { result, cpu } = self.inner.configured.call(
            Call {
                batch,
                lookups: Lookups::default(),
                input,
                fresh,
            },
            |exports, store| exports.encode(store, batch, self.label(), &documents),
            Ok,
        );
        let result = result.and_then(|(requests, rejected)| {
            check_encoded(documents.len(), requests, rejected, rules)
        });
        Called { result, cpu }
    }

    /// One call: what a response means for the documents of a request.
    pub fn classify(
        &self,
        batch: &BatchContext,
        sent: &Sent,
        response: &Response,
    ) -> Called<Classification> {
        let headers = response.headers.iter();
        let input = response.body.len()
            + headers
                .map(|(name, value)| name.len() + value.len())
                .sum::<usize>()
            + sent.path_suffix.len()
            + sent.tag.len()
            + sent.carries.len() * 4;
        self.inner.configured.call(
            Call {
                batch,
                lookups: Lookups::default(),
                input,
                fresh: false,
            },
            |exports, store| exports.classify(store, batch, self.label(), sent, response),
            |delivery| Ok(delivery.check(&sent.carries)?),
        )
    }

    /// Documents as far as the component asked for them, and their bytes.
    fn shown<'a>(&self, documents: &[DocumentView<'a>]) -> (Vec<DocumentView<'a>>, usize) {
        let mut documents = documents.to_vec();
        if self.setup().access != Access::Payload {
            let member = self.inner.time_member.as_ref();
            for DocumentView { event, .. } in &mut documents {
                if member.is_none_or(|member| member.is_fine(event.payload)) {
                    event.payload = "";
                }
            }
        }
        let bytes = documents.iter().map(len).sum();
        (documents, bytes)
    }
}

impl fmt::Debug for Sink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Sink").field(&self.inner.configured).finish()
    }
}

fn len(document: &DocumentView<'_>) -> usize {
    let attributes = document.attributes.iter();
    let bytes: usize = attributes
        .map(|(name, value)| name.len() + value.len())
        .sum();
    stage::len(&document.event) + bytes
}

fn check_encoded(
    documents: usize,
    requests: Vec<Request>,
    rejected: Vec<(u32, String)>,
    rules: &RequestRules,
) -> Result<Encoded, CallError> {
    check_indexes(
        documents,
        requests.iter().map(|request| &request.carries[..]),
        rejected.iter().map(|(index, _)| *index),
    )?;
    let requests = requests
        .into_iter()
        .map(|request| request.check(rules))
        .collect::<Result<_, _>>()?;
    Ok(Encoded { requests, rejected })
}
