//! A component of any world with an operator's configuration: its instances, calls and metrics.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use lockgate_lookup::Lookups;
use lockgate_model::StateOverlay;
use lockgate_model::contract::{BatchContext, CallError, Called};
use thiserror::Error;
use wasmtime::Store;

use crate::clock;
use crate::component::Component;
use crate::contract::broken;
use crate::contract::draft::Exports;
use crate::engine::Engine;
use crate::host::{InstanceHost, PluginIdentity, StageIdentity, refused};
use crate::idle::IdleInstances;
use crate::instance::Instance;
use crate::interface::Kind;
use crate::limits::Limits;
use crate::scheduler::{self, StageId};
use crate::services::Services;
use crate::setup::{self, ConfigIssue, Setup};

/// The use of a component at one place of one pipeline.
#[derive(Clone, Debug)]
pub struct ComponentOptions {
    /// Name of the pipeline.
    pub pipeline: Arc<str>,
    /// Its place there, such as `stage 1 (builtin:redact)` or `sink (builtin:fluentd)`, for
    /// messages, logs and dead letters.
    pub label: Arc<str>,
    pub plugin: PluginIdentity,
    /// The operator's `with` table. Must not contain secrets.
    pub config: serde_json::Value,
    pub limits: Limits,
    /// Keeps instances from one batch to the next, at most one per thread, for components that
    /// start slowly. The same batch may then give different results, because a component can
    /// remember earlier batches.
    pub reuse: bool,
    /// The operator granted state. Sinks never have state.
    pub state: bool,
}

/// Why a component cannot be used with a configuration.
#[derive(Clone, Debug, Error, PartialEq)]
pub enum ConfigureError {
    /// The plugin reports at least one problem.
    #[error("the plugin refuses its configuration: {}", .0.iter().map(|issue| issue.message.as_str()).collect::<Vec<_>>().join(" "))]
    Issues(Vec<ConfigIssue>),
    /// The host has no room for another instance now: [`CallError::NoRoom`] or [`CallError::Host`].
    /// Or it takes long, and is to be configured again: [`CallError::Postponed`]. Not the
    /// component's fault.
    #[error("{0}")]
    NoRoom(CallError),
    /// The call of `configure` failed.
    #[error("the plugin cannot be configured: {0}")]
    Call(CallError),
    /// A sink used as a stage, or a filter or mapper used as a sink.
    #[error("its world is `{0}`, which cannot be used here")]
    World(Kind),
}

impl From<CallError> for ConfigureError {
    fn from(error: CallError) -> ConfigureError {
        match error {
            CallError::NoRoom(_) | CallError::Host(_) | CallError::Postponed => {
                ConfigureError::NoRoom(error)
            }
            error => ConfigureError::Call(error),
        }
    }
}

/// A component that has accepted its configuration.
pub(crate) struct Configured {
    engine: Engine,
    component: Component,
    identity: StageIdentity,
    config: String,
    limits: Limits,
    reuse: bool,
    state: bool,
    setup: Setup,
    /// For the scheduler.
    stage: StageId,
    services: Arc<Services>,
    idle: IdleInstances<Instance>,
    fuel: AtomicU64,
    /// The most bytes that an instance has held.
    memory_peak: AtomicUsize,
}

/// One call of a component.
pub(crate) struct Call<'a> {
    pub(crate) batch: &'a BatchContext,
    pub(crate) lookups: Lookups,
    /// Bytes of input.
    pub(crate) input: usize,
    /// Use an instance that has made no call, and do not repeat the log lines.
    pub(crate) fresh: bool,
}

impl Configured {
    /// Starts an instance and configures it.
    pub(crate) fn new(
        engine: &Engine,
        component: &Component,
        options: ComponentOptions,
    ) -> Result<Configured, ConfigureError> {
        let ComponentOptions {
            pipeline,
            label,
            plugin,
            config,
            limits,
            reuse,
            state,
        } = options;
        let identity = StageIdentity {
            pipeline,
            stage: label,
            plugin,
        };
        let config = config.to_string();
        let services = Arc::new(Services::new(state));
        let host = InstanceHost::new(engine, identity.clone(), &limits, services.clone());
        let mut instance = Instance::start(engine, component.pre(), host)?;
        let answer = instance.configure(&config, limits.output(config.len()));
        instance.host().end();
        let setup = match answer? {
            Ok(setup) => setup.check(component.kind())?,
            Err(issues) => return Err(ConfigureError::Issues(setup::issues(issues))),
        };
        let configured = Configured {
            engine: engine.clone(),
            component: component.clone(),
            identity,
            config,
            limits,
            reuse,
            state: state && component.keeps_state(),
            setup,
            stage: StageId::next(),
            services,
            idle: IdleInstances::new(engine.budget.clone()),
            fuel: AtomicU64::new(0),
            memory_peak: AtomicUsize::new(0),
        };
        if reuse {
            configured.put_idle(instance);
        }
        Ok(configured)
    }

    pub(crate) fn setup(&self) -> &Setup {
        &self.setup
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }

    pub(crate) fn component(&self) -> &Component {
        &self.component
    }

    pub(crate) fn label(&self) -> &str {
        &self.identity.stage
    }

    pub(crate) fn uses_state(&self) -> bool {
        self.state
    }

    pub(crate) fn metrics(&self) -> crate::metrics::Snapshot {
        self.services.metrics.snapshot()
    }

    pub(crate) fn fuel_used(&self) -> u64 {
        self.fuel.load(Ordering::Relaxed)
    }

    pub(crate) fn memory_peak(&self) -> usize {
        self.memory_peak.load(Ordering::Relaxed)
    }

    /// One call without state.
    pub(crate) fn call<R>(
        &self,
        call: Call<'_>,
        run: impl FnOnce(&Exports, &mut Store<InstanceHost>) -> wasmtime::Result<Result<R, CallError>>,
        check: impl FnOnce(R) -> Result<R, CallError>,
    ) -> Called<R> {
        self.timed(|| {
            let (result, _) = self.run(call, StateOverlay::not_granted(), run)?;
            check(result)
        })
    }

    /// One call that reads and writes `state`, which is changed only if the call succeeds and its
    /// result passes `check`.
    pub(crate) fn call_with_state<R>(
        &self,
        call: Call<'_>,
        state: &mut StateOverlay,
        run: impl FnOnce(&Exports, &mut Store<InstanceHost>) -> wasmtime::Result<Result<R, CallError>>,
        check: impl FnOnce(R) -> Result<R, CallError>,
    ) -> Called<R> {
        if !self.state {
            return self.call(call, run, check);
        }
        self.timed(|| {
            let (result, written) = self.run(call, state.clone(), run)?;
            let result = check(result)?;
            *state = written;
            Ok(result)
        })
    }

    fn timed<R>(&self, work: impl FnOnce() -> Result<R, CallError>) -> Called<R> {
        let began = clock::thread_time();
        let result = work();
        Called {
            result,
            cpu: clock::thread_time().saturating_sub(began),
        }
    }

    /// One call on an instance. The instance is dropped unless the call succeeded and reuse is on.
    fn run<R>(
        &self,
        call: Call<'_>,
        state: StateOverlay,
        run: impl FnOnce(&Exports, &mut Store<InstanceHost>) -> wasmtime::Result<Result<R, CallError>>,
    ) -> Result<(R, StateOverlay), CallError> {
        scheduler::note_stage(self.stage);
        let idle = match call.fresh {
            true => None,
            false => self.idle.take().map_err(refused)?,
        };
        let mut instance = idle.map_or_else(|| self.instance(), Ok)?;
        // One that is reused may have too much memory for a slow call now. Then it is not thrown
        // away: to start another takes longer than to wait.
        if scheduler::runs_slow_call()
            && let Err(shortage) = instance.host().meter.enter_slow()
        {
            if self.reuse {
                self.put_idle(instance);
            }
            return Err(refused(shortage));
        }
        let host = instance.host();
        host.batch = call.batch.id.to_string();
        host.lookups = call.lookups;
        host.lines.muted = call.fresh;
        host.state = state;
        let result = instance.call(self.limits.output(call.input), run);
        let host = instance.host();
        host.end();
        self.memory_peak
            .fetch_max(host.meter.held(), Ordering::Relaxed);
        let state = std::mem::take(&mut host.state);
        if self.engine.fuel {
            self.fuel.fetch_add(instance.fuel_used(), Ordering::Relaxed);
        }
        if self.reuse && result.is_ok() {
            self.put_idle(instance);
        }
        Ok((result??, state))
    }

    fn instance(&self) -> Result<Instance, CallError> {
        let mut host = InstanceHost::new(
            &self.engine,
            self.identity.clone(),
            &self.limits,
            self.services.clone(),
        );
        // The operator has seen the log lines of the first instance.
        host.lines.muted = true;
        let mut instance = Instance::start(&self.engine, self.component.pre(), host)?;
        let answer = instance.configure(&self.config, self.limits.output(self.config.len()));
        if answer.is_err() {
            instance.host().end();
        }
        match answer?.map(|setup| setup.check(self.component.kind())) {
            Ok(setup) if setup.as_ref() == Ok(&self.setup) => Ok(instance),
            _ => Err(broken(
                "`configure` did not return the same setup as the first time",
            )),
        }
    }

    fn put_idle(&self, mut instance: Instance) {
        if !self.engine.is_crowded() {
            let holder = instance.host().meter.holder().clone();
            let threads = self.engine.scheduler().threads();
            self.idle.put(instance, holder, threads);
        }
    }
}

impl Drop for Configured {
    fn drop(&mut self) {
        self.services.log.finish(&self.identity);
        if let Some(line) = self.services.refusals.rest() {
            self.identity.warn(&line);
        }
    }
}

impl fmt::Debug for Configured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Configured")
            .field("pipeline", &self.identity.pipeline)
            .field("label", &self.label())
            .field("component", self.component())
            .field("setup", self.setup())
            .finish_non_exhaustive()
    }
}
