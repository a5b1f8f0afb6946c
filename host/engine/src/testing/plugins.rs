//! The stage and the sink of a test's pipeline.

use std::time::Duration;

use lockgate_model::contract::{
    Access, BatchContext, CallError, Called, Encoded, Inspect, Mapped, SinkSetup, StageKind,
    StageSetup, TypeLists, Verdict,
};
use lockgate_model::request::{
    Body, Classification, Disposition, Part, Request, RequestRules, Response, Sent,
};
use lockgate_model::{DocumentView, EventView, StateOverlay};

use crate::{Sink, Stage};

/// A filter that traps on each event whose key begins with `trap`.
pub(super) struct Traps {
    setup: StageSetup,
    call_cpu: Duration,
}

impl Traps {
    pub(super) fn new(call_cpu: Duration) -> Traps {
        Traps {
            call_cpu,
            setup: StageSetup {
                types: TypeLists::default(),
                access: Access::Metadata,
                reasons: Vec::new(),
            },
        }
    }
}

impl Stage for Traps {
    fn label(&self) -> &str {
        "stage 1 (test)"
    }

    fn kind(&self) -> StageKind {
        StageKind::Filter
    }

    fn setup(&self) -> &StageSetup {
        &self.setup
    }

    fn filter(
        &self,
        _: &BatchContext,
        events: &[EventView<'_>],
        _: &mut StateOverlay,
        _: bool,
    ) -> Called<Vec<Verdict>> {
        let traps = events.iter().any(|event| event.key.starts_with("trap"));
        let message = "unreachable".to_owned();
        let result = match traps {
            true => Err(CallError::Trap { message }),
            false => Ok(vec![Verdict::Keep; events.len()]),
        };
        let cpu = self.call_cpu;
        Called { result, cpu }
    }

    fn transform(
        &self,
        _: &BatchContext,
        _: &[EventView<'_>],
        _: &mut StateOverlay,
        _: bool,
    ) -> Called<Vec<Mapped>> {
        unreachable!("it is a filter")
    }
}

/// Puts all documents of a call into one request.
pub(super) struct TestSink {
    setup: SinkSetup,
    call_cpu: Duration,
}

impl TestSink {
    pub(super) fn new(inspect: Inspect, call_cpu: Duration) -> TestSink {
        TestSink {
            call_cpu,
            setup: SinkSetup {
                types: TypeLists::default(),
                access: Access::Metadata,
                time_member: None,
                max_documents: None,
                max_bytes: None,
                inspect,
                max_response_bytes: 1024,
            },
        }
    }
}

impl Sink for TestSink {
    fn label(&self) -> &str {
        "sink (test)"
    }

    fn setup(&self) -> &SinkSetup {
        &self.setup
    }

    fn encode(&self, _: &BatchContext, documents: &[DocumentView<'_>], _: bool) -> Called<Encoded> {
        let carries: Vec<u32> = (0..documents.len() as u32).collect();
        let request = Request {
            method: "POST".into(),
            path_suffix: String::new(),
            query: Vec::new(),
            headers: Vec::new(),
            body: Body::Parts(carries.iter().copied().map(Part::Document).collect()),
            tag: String::new(),
            carries,
        };
        let request = request.check(&RequestRules::default());
        Called {
            result: Ok(Encoded {
                requests: vec![request.expect("the request keeps the contract")],
                rejected: Vec::new(),
            }),
            cpu: self.call_cpu,
        }
    }

    /// 207: the receiver takes all documents but the first. 208: it takes none. 599: it has taken
    /// all of them, which a sink cannot decide on.
    fn classify(
        &self,
        _: &BatchContext,
        sent: &Sent,
        response: &Response,
    ) -> Called<Classification> {
        let again = |indexes: &[u32]| {
            let again = indexes.iter().map(|&index| (index, Disposition::Retry));
            Classification::Mixed(again.collect())
        };
        Called::free(Ok(match response.status {
            207 => again(&sent.carries[..1]),
            208 => again(&sent.carries),
            599 => Classification::Delivered,
            _ => Classification::ByStatus,
        }))
    }
}
