//! A filter, a mapper and a sink whose behaviour an event's type decides.

use std::time::Duration;

use lockgate_engine::{Sink, Stage};
use lockgate_model::contract::{
    Access, BatchContext, CallError, Called, Encoded, Inspect, Mapped, MappedDocument, SinkSetup,
    StageKind, StageSetup, TypeLists, Verdict,
};
use lockgate_model::request::{
    Body, Classification, Disposition, Part, Request, RequestRules, Response, Sent,
};
use lockgate_model::{DocumentView, EventView, StateOverlay};

/// Types of events; most are good.
pub const GOOD: &str = "good";
/// The filter drops it.
pub const DROPPED: &str = "dropped";
/// The filter traps on it.
pub const TRAPS: &str = "traps";
/// The mapper rejects it.
pub const REJECTED: &str = "rejected";
/// The mapper makes three documents of it.
pub const THREE: &str = "three";
/// The receiver answers 400 to any request with it.
pub const POISON_400: &str = "poison-400";
/// The receiver answers 500 to any request with it.
pub const POISON_500: &str = "poison-500";
/// The receiver answers 413 even to it alone.
pub const HUGE: &str = "huge";

/// Whether an event of this type may end as a dead letter with a healthy receiver.
pub fn may_die(event_type: &str) -> bool {
    matches!(
        event_type,
        TRAPS | REJECTED | POISON_400 | POISON_500 | HUGE
    )
}

/// Whether the mapper emits something of an event of this type.
pub fn is_mapped(event_type: &str) -> bool {
    !matches!(event_type, DROPPED | TRAPS | REJECTED)
}

pub struct ModelStage {
    kind: StageKind,
    label: &'static str,
    setup: StageSetup,
}

impl ModelStage {
    pub fn new(kind: StageKind) -> ModelStage {
        let label = match kind {
            StageKind::Filter => "stage 1 (filter)",
            StageKind::Mapper => "stage 2 (mapper)",
        };
        let setup = StageSetup {
            types: TypeLists::default(),
            access: Access::Payload,
            reasons: vec!["noise".into()],
        };
        ModelStage { kind, label, setup }
    }
}

impl Stage for ModelStage {
    fn label(&self) -> &str {
        self.label
    }

    fn kind(&self) -> StageKind {
        self.kind
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
        if events.iter().any(|event| event.event_type == TRAPS) {
            return called(Err(CallError::Trap {
                message: "unreachable".into(),
            }));
        }
        let verdict = |event: &EventView<'_>| {
            if event.event_type == DROPPED {
                Verdict::Drop(0)
            } else {
                Verdict::Keep
            }
        };
        called(Ok(events.iter().map(verdict).collect()))
    }

    /// Counts what it maps in its state.
    fn transform(
        &self,
        _: &BatchContext,
        events: &[EventView<'_>],
        state: &mut StateOverlay,
        _: bool,
    ) -> Called<Vec<Mapped>> {
        let mut counted = match state.get("count") {
            Ok(count) => count.and_then(|count| count.parse().ok()).unwrap_or(0u64),
            Err(_) => 0,
        };
        let document = |payload: &str| MappedDocument {
            payload: payload.to_owned(),
            attributes: Vec::new(),
        };
        let mapped = events
            .iter()
            .map(|event| match event.event_type {
                REJECTED => Mapped::Reject("no such thing".into()),
                THREE => Mapped::Emit(vec![document(event.payload); 3]),
                _ => Mapped::Emit(vec![document(event.payload)]),
            })
            .inspect(|mapped| counted += u64::from(matches!(mapped, Mapped::Emit(_))))
            .collect();
        if state.is_granted() {
            state
                .put("count", &counted.to_string())
                .expect("it is within the quota");
        }
        called(Ok(mapped))
    }
}

/// How a sink puts documents into requests.
#[derive(Clone, Copy, Debug)]
pub enum Grouping {
    All,
    Three,
    Session,
}

pub struct ModelSink {
    grouping: Grouping,
    setup: SinkSetup,
}

impl ModelSink {
    pub fn new(grouping: Grouping, inspect: Inspect) -> ModelSink {
        let setup = SinkSetup {
            types: TypeLists::default(),
            access: Access::Metadata,
            time_member: None,
            max_documents: None,
            max_bytes: None,
            inspect,
            max_response_bytes: 1024,
        };
        ModelSink { grouping, setup }
    }
}

impl Sink for ModelSink {
    fn label(&self) -> &str {
        "sink (model)"
    }

    fn setup(&self) -> &SinkSetup {
        &self.setup
    }

    fn encode(&self, _: &BatchContext, documents: &[DocumentView<'_>], _: bool) -> Called<Encoded> {
        let mut groups: Vec<Vec<u32>> = Vec::new();
        for (index, document) in documents.iter().enumerate() {
            let joins = groups.last().is_some_and(|group| match self.grouping {
                Grouping::All => true,
                Grouping::Three => group.len() < 3,
                Grouping::Session => {
                    documents[group[0] as usize].event.session == document.event.session
                }
            });
            match groups.last_mut().filter(|_| joins) {
                Some(group) => group.push(index as u32),
                None => groups.push(vec![index as u32]),
            }
        }
        let request = |carries: Vec<u32>| {
            Request {
                method: "POST".into(),
                path_suffix: String::new(),
                query: Vec::new(),
                headers: Vec::new(),
                body: Body::Parts(carries.iter().copied().map(Part::Document).collect()),
                tag: String::new(),
                carries,
            }
            .check(&RequestRules::default())
            .expect("the request keeps the contract")
        };
        let requests = groups.into_iter().map(request).collect();
        called(Ok(Encoded {
            requests,
            rejected: Vec::new(),
        }))
    }

    /// The receiver's body names the documents it did not take, by their place in the request.
    fn classify(
        &self,
        _: &BatchContext,
        sent: &Sent,
        response: &Response,
    ) -> Called<Classification> {
        let text = std::str::from_utf8(&response.body).unwrap_or("");
        let Some(places) = text.strip_prefix("again ") else {
            return called(Ok(Classification::ByStatus));
        };
        let again = |place: &str| {
            let index = sent.carries[place.parse::<usize>().expect("a place")];
            (index, Disposition::Retry)
        };
        called(Ok(Classification::Mixed(
            places.split_whitespace().map(again).collect(),
        )))
    }
}

fn called<T>(result: Result<T, CallError>) -> Called<T> {
    Called {
        result,
        cpu: Duration::from_micros(10),
    }
}
