use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use lockgate_lookup::Lookups;
use thiserror::Error;
use wasmtime::Store;

use crate::component::Component;
use crate::engine::Engine;
use crate::error::CallError;
use crate::host::{Host, Identity};
use crate::instance::{Instance, World};
use crate::interface::Kind;
use crate::limits::Limits;
use crate::metrics::Measure;
use crate::services::Services;
use crate::setup::{self, ConfigIssue, Setup};

/// How a component is used in one place of one pipeline.
#[derive(Clone, Debug)]
pub struct StageOptions {
    /// Name of the pipeline.
    pub pipeline: Arc<str>,
    /// Its place there, such as `stage 1 (builtin:redact)` or `sink (builtin:fluentd)`: for
    /// messages, logs and dead letters.
    pub label: Arc<str>,
    /// Name of the plugin, such as `builtin:redact`.
    pub plugin: Arc<str>,
    /// The operator's `with` table. No secrets may be in it.
    pub config: serde_json::Value,
    pub limits: Limits,
    /// Keeps instances from one batch to the next, at most one for each thread. For components
    /// that take long to start. The same batch may then give another result, because a
    /// component can remember what it saw.
    pub reuse: bool,
}

/// A component with its configuration: what a pipeline calls. Clones are the same stage.
#[derive(Clone)]
pub struct Stage {
    inner: Arc<Inner>,
}

struct Inner {
    engine: Engine,
    component: Component,
    identity: Identity,
    config: String,
    limits: Limits,
    reuse: bool,
    setup: Setup,
    services: Arc<Services>,
    idle: Mutex<Vec<Instance>>,
    fuel: AtomicU64,
}

/// Why a component cannot be used with a configuration.
#[derive(Clone, Debug, Error, PartialEq)]
pub enum ConfigureError {
    /// The operator's configuration has problems, at least one.
    #[error("the plugin refuses its configuration: {}", .0.iter().map(|issue| issue.message.as_str()).collect::<Vec<_>>().join(" "))]
    Issues(Vec<ConfigIssue>),
    /// The component's fault, or the host's.
    #[error("the plugin cannot be configured: {0}")]
    Call(#[from] CallError),
}

/// One call of a component.
pub(crate) struct Call<'a> {
    /// For its log lines.
    pub(crate) batch: &'a str,
    pub(crate) lookups: Lookups,
    /// Bytes that are passed in.
    pub(crate) input: usize,
    /// The batch, or a part of it, was tried before: on a fresh instance, and without showing its
    /// log lines once more.
    pub(crate) again: bool,
}

impl Stage {
    /// Starts an instance and configures it.
    pub fn configure(
        engine: &Engine,
        component: &Component,
        options: StageOptions,
    ) -> Result<Stage, ConfigureError> {
        let StageOptions {
            pipeline,
            label,
            plugin,
            config,
            limits,
            reuse,
        } = options;
        let identity = Identity {
            pipeline,
            stage: label,
            plugin,
        };
        let config = config.to_string();
        let services = Arc::<Services>::default();
        let host = Host::new(engine, identity.clone(), &limits, services.clone());
        let mut instance = Instance::start(engine, component.pre(), host)?;
        let answer = instance.configure(&config, limits.output(config.len()));
        instance.host().end();
        let setup = match answer? {
            Ok(setup) => Setup::check(component.kind(), setup)?,
            Err(issues) => return Err(ConfigureError::Issues(setup::issues(issues))),
        };
        let idle = Mutex::new(if reuse && !engine.is_crowded() {
            vec![instance]
        } else {
            Vec::new()
        });
        let (engine, component, fuel) = (engine.clone(), component.clone(), AtomicU64::new(0));
        Ok(Stage {
            inner: Arc::new(Inner {
                engine,
                component,
                identity,
                config,
                limits,
                reuse,
                setup,
                services,
                idle,
                fuel,
            }),
        })
    }

    pub fn kind(&self) -> Kind {
        self.inner.component.kind()
    }

    pub fn label(&self) -> &str {
        &self.inner.identity.stage
    }

    pub fn component(&self) -> &Component {
        &self.inner.component
    }

    pub fn setup(&self) -> &Setup {
        &self.inner.setup
    }

    pub fn limits(&self) -> &Limits {
        &self.inner.limits
    }

    /// What the component counted, by name.
    pub fn metrics(&self) -> BTreeMap<String, Measure> {
        self.inner.services.metrics.snapshot()
    }

    /// Units of fuel (about one an instruction) that the calls so far have used, without starting
    /// and configuring. 0 where the engine does not count.
    pub fn fuel_used(&self) -> u64 {
        self.inner.fuel.load(Ordering::Relaxed)
    }

    /// One call on an instance that is thrown away unless it returned and reuse is on.
    pub(crate) fn call<R>(
        &self,
        call: Call<'_>,
        run: impl FnOnce(&World, &mut Store<Host>) -> wasmtime::Result<R>,
    ) -> Result<R, CallError> {
        let inner = &*self.inner;
        let idle = if call.again { None } else { inner.take_idle() };
        let mut instance = idle.map_or_else(|| inner.fresh(), Ok)?;
        let host = instance.host();
        host.batch = call.batch.to_owned();
        host.lookups = call.lookups;
        host.lines.muted = call.again;
        let result = instance.call(inner.limits.output(call.input), run);
        instance.host().end();
        if inner.engine.fuel {
            inner
                .fuel
                .fetch_add(instance.fuel_used(), Ordering::Relaxed);
        }
        if inner.reuse && result.is_ok() {
            inner.put_idle(instance);
        }
        result
    }

    pub(crate) fn wrong_kind(&self, function: &str) -> CallError {
        CallError::Host(format!(
            "`{function}` was called, but {} is of the world `{}`",
            self.label(),
            self.kind()
        ))
    }
}

impl Inner {
    fn fresh(&self) -> Result<Instance, CallError> {
        let mut host = Host::new(
            &self.engine,
            self.identity.clone(),
            &self.limits,
            self.services.clone(),
        );
        // The operator has seen the lines of the first one.
        host.lines.muted = true;
        let mut instance = Instance::start(&self.engine, self.component.pre(), host)?;
        let setup = instance.configure(&self.config, self.limits.output(self.config.len()))?;
        match setup.map(|setup| Setup::check(self.component.kind(), setup)) {
            Ok(setup) if setup.as_ref() == Ok(&self.setup) => Ok(instance),
            _ => Err(CallError::contract(
                "`configure` did not answer the same as the first time",
            )),
        }
    }

    fn take_idle(&self) -> Option<Instance> {
        self.idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop()
    }

    fn put_idle(&self, instance: Instance) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < self.engine.scheduler().threads()
            && !self.engine.budget.is_tight()
            && !self.engine.is_crowded()
        {
            idle.push(instance);
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.services.log.finish(&self.identity);
    }
}

impl fmt::Debug for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stage")
            .field("pipeline", &self.inner.identity.pipeline)
            .field("label", &self.label())
            .field("component", self.component())
            .field("setup", self.setup())
            .finish_non_exhaustive()
    }
}
