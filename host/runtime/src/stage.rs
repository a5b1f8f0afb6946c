use std::fmt;
use std::sync::Arc;

use lockgate_lookup::Lookups;
use lockgate_model::contract::{
    Access, BatchInfo, CallError, Called, Mapped, MappedDocument, StageSetup, Verdict,
};
use lockgate_model::{EventView, StateOverlay};

use crate::component::Component;
use crate::configured::{Call, ConfigureError, Configured, StageOptions};
use crate::contract::broken;
use crate::engine::Engine;
use crate::interface::Kind;
use crate::json;
use crate::limits::{ATTRIBUTE_BYTES_MAX, ATTRIBUTES_MAX};
use crate::metrics::Snapshot;
use crate::setup::Setup;

/// A configured filter or mapper. Clones are the same stage.
#[derive(Clone)]
pub struct Stage {
    inner: Arc<Inner>,
}

struct Inner {
    configured: Configured,
    setup: StageSetup,
}

/// What a call is about.
#[derive(Clone, Debug)]
pub struct CallContext<'a> {
    pub batch: &'a BatchInfo,
    /// What the component may look up meanwhile.
    pub lookups: Lookups,
}

impl Stage {
    /// Starts an instance and configures it.
    pub fn configure(
        engine: &Engine,
        component: &Component,
        options: StageOptions,
    ) -> Result<Stage, ConfigureError> {
        let configured = Configured::new(engine, component, options)?;
        match configured.setup() {
            Setup::Stage(setup) => {
                let setup = setup.clone();
                Ok(Stage {
                    inner: Arc::new(Inner { configured, setup }),
                })
            }
            Setup::Sink(_) => Err(ConfigureError::World(component.kind())),
        }
    }

    pub fn label(&self) -> &str {
        self.inner.configured.label()
    }

    /// [`Kind::Filter`] or [`Kind::Mapper`].
    pub fn kind(&self) -> Kind {
        self.component().kind()
    }

    pub fn setup(&self) -> &StageSetup {
        &self.inner.setup
    }

    pub fn component(&self) -> &Component {
        self.inner.configured.component()
    }

    /// Its answers depend on the operator's databases.
    pub fn looks_up(&self) -> bool {
        self.component().looks_up()
    }

    /// It keeps state and the operator granted some: batches must come one after another.
    pub fn uses_state(&self) -> bool {
        self.inner.configured.uses_state()
    }

    /// What the component counted and observed since it was configured.
    pub fn metrics(&self) -> Snapshot {
        self.inner.configured.metrics()
    }

    /// Units of fuel (about one an instruction) that the calls so far have used, without starting
    /// and configuring. 0 where the engine does not count.
    pub fn fuel_used(&self) -> u64 {
        self.inner.configured.fuel_used()
    }

    /// One call of a filter: one verdict for each event, in order. A filter with [`Access::Types`]
    /// is not called and keeps every event, since its type lists have decided.
    ///
    /// `fresh`: on an instance that no other call has used, and without its log lines, which a
    /// first call has shown. `state` is changed only where the call succeeds.
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

    /// One call of a mapper: one outcome for each event, in order. As for [`filter`](Self::filter).
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
                let check = |(index, outcome)| match outcome {
                    Mapped::Emit(documents) => check_documents(index, documents).map(Mapped::Emit),
                    Mapped::Drop(reason) => self.check_reason(reason).map(|()| outcome),
                    Mapped::Reject(_) => Ok(outcome),
                };
                outcomes.into_iter().enumerate().map(check).collect()
            },
        )
    }

    /// Events as far as the component asked for them, and their bytes.
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

/// Bytes of an event's texts.
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

/// The documents that a mapper made of event `index` of a call, each on one line.
fn check_documents(
    index: usize,
    mut documents: Vec<MappedDocument>,
) -> Result<Vec<MappedDocument>, CallError> {
    let (mut attributes, mut bytes) = (0, 0);
    for document in &mut documents {
        json::check_object(&document.payload).map_err(|fault| {
            broken(format!(
                "a document it made of event {index} of the batch is not allowed: {fault}"
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
            "the documents it made of event {index} of the batch have {attributes} attributes of \
             {bytes} bytes, {ATTRIBUTES_MAX} of {ATTRIBUTE_BYTES_MAX} are allowed"
        )));
    }
    Ok(documents)
}
