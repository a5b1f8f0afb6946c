//! A filter or a mapper with its configuration, ready to be called.

use std::fmt;
use std::sync::Arc;

use lockgate_lookup::Lookups;
use lockgate_model::contract::{
    Access, BatchContext, CallError, Called, Mapped, MappedDocument, Shortage, StageKind,
    StageSetup, Verdict,
};
use lockgate_model::{EventView, StateOverlay, escape};

use crate::budget::Room;
use crate::component::Component;
use crate::configured::{Call, ComponentOptions, ConfigureError, Configured};
use crate::contract::broken;
use crate::engine::Engine;
use crate::interface::Kind;
use crate::json;
use crate::limits::{ATTRIBUTE_BYTES_MAX, ATTRIBUTES_MAX, KEY_SHOWN};
use crate::metrics::Snapshot;
use crate::setup::Setup;

/// A configured filter or mapper. Clones are the same stage.
#[derive(Clone)]
pub struct Stage {
    inner: Arc<Inner>,
}

struct Inner {
    configured: Configured,
    kind: StageKind,
    setup: StageSetup,
}

/// The context of a call.
#[derive(Clone, Debug)]
pub struct CallContext<'a> {
    pub batch: &'a BatchContext,
    /// The look-ups that the component may use.
    pub lookups: Lookups,
}

impl Stage {
    /// Starts an instance and configures it.
    pub fn configure(
        engine: &Engine,
        component: &Component,
        options: ComponentOptions,
    ) -> Result<Stage, ConfigureError> {
        // Before it is asked: it would only find fault with keys that are not its own.
        let kind = match component.kind() {
            Kind::Filter => StageKind::Filter,
            Kind::Mapper => StageKind::Mapper,
            Kind::HttpSink => return Err(ConfigureError::World(component.kind())),
        };
        let configured = Configured::new(engine, component, options)?;
        match configured.setup() {
            Setup::Stage(setup) => {
                let setup = setup.clone();
                let inner = Inner {
                    configured,
                    kind,
                    setup,
                };
                Ok(Stage {
                    inner: Arc::new(inner),
                })
            }
            Setup::Sink(_) => Err(ConfigureError::World(component.kind())),
        }
    }

    pub fn label(&self) -> &str {
        self.inner.configured.label()
    }

    pub fn kind(&self) -> StageKind {
        self.inner.kind
    }

    pub fn setup(&self) -> &StageSetup {
        &self.inner.setup
    }

    pub fn component(&self) -> &Component {
        self.inner.configured.component()
    }

    /// Whether its results depend on the operator's databases.
    pub fn looks_up(&self) -> bool {
        self.component().looks_up()
    }

    /// Whether it keeps state that the operator granted. Then its batches must run one after
    /// another.
    pub fn uses_state(&self) -> bool {
        self.inner.configured.uses_state()
    }

    /// The component's metrics since it was configured.
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

    /// Units of fuel (about one per instruction) that the calls have used so far, not counting
    /// start and configuration. 0 if the engine does not count fuel.
    pub fn fuel_used(&self) -> u64 {
        self.inner.configured.fuel_used()
    }

    /// One call of a filter. Returns one verdict per event, in order. A filter with
    /// [`Access::Types`] is not called and keeps every event, because its type lists have decided.
    ///
    /// `fresh`: use an instance that has made no call. Its log lines, which an earlier call has
    /// written, are suppressed.
    /// `state` is changed only if the call succeeds.
    pub fn filter(
        &self,
        context: &CallContext<'_>,
        events: &[EventView<'_>],
        state: &mut StateOverlay,
        fresh: bool,
    ) -> Called<Vec<Verdict>> {
        if events.is_empty() || self.setup().access == Access::Types {
            return Called::free(Ok(vec![Verdict::Keep; events.len()]));
        }
        let (events, input) = self.shown(events);
        self.inner.configured.call_with_state(
            call(context, input, fresh),
            state,
            |exports, store| exports.filter(store, context.batch, self.label(), &events),
            |verdicts| {
                check_count(events.len(), verdicts.len())?;
                for verdict in &verdicts {
                    if let Verdict::Drop(reason) = verdict {
                        self.check_reason(*reason)?;
                    }
                }
                Ok(verdicts)
            },
        )
    }

    /// One call of a mapper. Returns one result per event, in order. The arguments are those of
    /// [`filter`](Self::filter).
    pub fn transform(
        &self,
        context: &CallContext<'_>,
        events: &[EventView<'_>],
        state: &mut StateOverlay,
        fresh: bool,
    ) -> Called<Vec<Mapped>> {
        if events.is_empty() {
            return Called::free(Ok(Vec::new()));
        }
        let (events, input) = self.shown(events);
        self.inner.configured.call_with_state(
            call(context, input, fresh),
            state,
            |exports, store| exports.transform(store, context.batch, self.label(), &events),
            |outcomes| {
                check_count(events.len(), outcomes.len())?;
                let check = |(outcome, event)| match outcome {
                    Mapped::Emit(documents) => check_documents(event, documents).map(Mapped::Emit),
                    Mapped::Drop(reason) => self.check_reason(reason).map(|()| outcome),
                    Mapped::Reject(_) => Ok(outcome),
                };
                outcomes.into_iter().zip(&events).map(check).collect()
            },
        )
    }

    /// The events as the component may see them, and their size in bytes.
    fn shown<'a>(&self, events: &[EventView<'a>]) -> (Vec<EventView<'a>>, usize) {
        let mut events = events.to_vec();
        if self.setup().access != Access::Payload {
            events.iter_mut().for_each(|event| event.payload = "");
        }
        let bytes = events.iter().map(len).sum();
        (events, bytes)
    }

    fn check_reason(&self, reason: u32) -> Result<(), CallError> {
        let reasons = self.setup().reasons.len();
        if (reason as usize) < reasons {
            Ok(())
        } else {
            Err(broken(format!(
                "`drop({reason})` is not one of the {reasons} reasons it declared"
            )))
        }
    }
}

impl fmt::Debug for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Stage")
            .field(&self.inner.configured)
            .finish()
    }
}

/// Size of an event's texts, in bytes.
pub(crate) fn len(event: &EventView<'_>) -> usize {
    event.key.len()
        + event.event_type.len()
        + event.code.len()
        + event.session.map_or(0, str::len)
        + event.payload.len()
}

fn call<'a>(context: &CallContext<'a>, input: usize, fresh: bool) -> Call<'a> {
    Call {
        batch: context.batch,
        lookups: context.lookups.clone(),
        input,
        fresh,
    }
}

fn check_count(expected: usize, got: usize) -> Result<(), CallError> {
    if expected == got {
        Ok(())
    } else {
        Err(CallError::WrongCount { expected, got })
    }
}

/// Checks the documents that a mapper made of an event, and puts each on one line.
fn check_documents(
    event: &EventView<'_>,
    mut documents: Vec<MappedDocument>,
) -> Result<Vec<MappedDocument>, CallError> {
    let event = escape(event.key, KEY_SHOWN);
    let (mut attributes, mut bytes) = (0, 0);
    for document in &mut documents {
        json::check_object(&document.payload).map_err(|fault| {
            broken(format!(
                "a document it made of the event `{event}` is not allowed: {fault}"
            ))
        })?;
        json::put_on_one_line(&mut document.payload);
        attributes += document.attributes.len();
        for (name, value) in &document.attributes {
            bytes += name.len() + value.len();
        }
    }
    if attributes > ATTRIBUTES_MAX || bytes > ATTRIBUTE_BYTES_MAX {
        return Err(broken(format!(
            "the documents it made of the event `{event}` have {attributes} attributes of \
             {bytes} bytes, {ATTRIBUTES_MAX} of {ATTRIBUTE_BYTES_MAX} are allowed"
        )));
    }
    Ok(documents)
}
