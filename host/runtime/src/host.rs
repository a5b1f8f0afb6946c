//! The host's side of an instance: its batch, its limits and its log.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use lockgate_lookup::Lookups;
use lockgate_model::StateOverlay;
use lockgate_model::contract::{CallError, Shortage};

use crate::clock;
use crate::engine::Engine;
use crate::lack;
use crate::limits::{Limits, SLOW_CALL};
use crate::log::Lines;
use crate::meter::{LimitHit, Meter};
use crate::metrics::CallMetrics;
use crate::scheduler::{self, AfterSlice};
use crate::services::Services;

/// Where a component is used. Its log lines have this, and the memory that it waits for is promised
/// to this stage.
#[derive(Clone, Debug)]
pub struct StageIdentity {
    /// Name of the pipeline.
    pub pipeline: Arc<str>,
    /// Such as `stage 1 (builtin:redact)`.
    pub stage: Arc<str>,
    pub plugin: PluginIdentity,
}

/// A plugin, as the operator named it. Displays as `builtin:redact 0.1.0`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PluginIdentity {
    /// The name of `[plugins.NAME]`, or the source of the component, such as `builtin:redact`.
    pub name: Arc<str>,
    /// Of a plugin that is built in.
    pub version: Option<&'static str>,
}

impl PluginIdentity {
    /// The name of `[plugins.NAME]`. `None`: it has no such table, and the name is its source.
    pub(crate) fn declared(&self) -> Option<&str> {
        let is_of_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        Some(&*self.name).filter(|name| name.bytes().all(is_of_name))
    }
}

impl From<&str> for PluginIdentity {
    fn from(name: &str) -> PluginIdentity {
        PluginIdentity {
            name: name.into(),
            version: None,
        }
    }
}

impl fmt::Display for PluginIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        self.version
            .map_or(Ok(()), |version| write!(f, " {version}"))
    }
}

impl StageIdentity {
    pub(crate) fn warn(&self, text: &str) {
        tracing::warn!(
            pipeline = %self.pipeline, stage = %self.stage, plugin = %self.plugin,
            "{text}"
        );
    }
}

/// The host's state of one instance.
#[derive(Debug)]
pub(crate) struct InstanceHost {
    pub(crate) identity: StageIdentity,
    pub(crate) lines: Lines,
    pub(crate) metrics: CallMetrics,
    pub(crate) meter: Meter,
    pub(crate) services: Arc<Services>,
    /// Id of the current batch.
    pub(crate) batch: String,
    /// The look-ups of the current call. None in `configure`, which must return the same for each
    /// batch.
    pub(crate) lookups: Lookups,
    /// The state that the current call reads and writes. Not granted in `configure`.
    pub(crate) state: StateOverlay,
    limits: Limits,
    /// CPU time of the thread when the call began.
    began: Duration,
    /// The call turned out to be slow, or is one of a slow pipeline.
    is_slow: bool,
    timed_out: bool,
    /// The call is slow, and too many others are.
    is_postponed: bool,
    /// Its pipeline has ended.
    is_abandoned: bool,
    /// The component is not why the call ended: it is made again, and what it logged and counted
    /// would be there twice.
    is_made_again: bool,
}

impl InstanceHost {
    pub(crate) fn new(
        engine: &Engine,
        identity: StageIdentity,
        limits: &Limits,
        services: Arc<Services>,
    ) -> InstanceHost {
        let meter = Meter::of(
            identity.pipeline.clone(),
            identity.stage.clone(),
            engine.budget.clone(),
            limits.memory,
        );
        InstanceHost {
            identity,
            lines: Lines::new(services.log.clone()),
            metrics: CallMetrics::default(),
            meter,
            services,
            batch: "-".into(),
            lookups: Lookups::default(),
            state: StateOverlay::not_granted(),
            limits: limits.clone(),
            began: Duration::ZERO,
            is_slow: false,
            timed_out: false,
            is_postponed: false,
            is_abandoned: false,
            is_made_again: false,
        }
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Called before each call of the component.
    ///
    /// # Errors
    /// The call is slow from its beginning, and the instance has more memory than slow calls may
    /// have now.
    pub(crate) fn begin(&mut self) -> Result<(), Shortage> {
        self.began = clock::thread_time();
        self.timed_out = false;
        self.is_postponed = false;
        self.meter.begin();
        self.is_slow = scheduler::runs_slow_call();
        if self.is_slow {
            self.is_made_again = true;
            self.meter.enter_slow()?;
        }
        self.is_made_again = false;
        self.lines.begin();
        Ok(())
    }

    /// Called at each tick of a call. Waits while it is the turn of others. Returns false if the
    /// call must end: its time is up, it found too little memory, or turned out to be slow and has
    /// too much for that or too many others are, or nobody waits for it any more.
    pub(crate) fn tick(&mut self) -> bool {
        let used = clock::thread_time().saturating_sub(self.began);
        if used >= self.limits.time {
            self.timed_out = true;
            scheduler::note_time_out();
            return false;
        }
        // It will be made again, whatever it does without that memory.
        if self.meter.is_short() {
            return false;
        }
        match scheduler::end_slice() {
            AfterSlice::GoesOn => {}
            AfterSlice::IsPostponed => {
                self.is_postponed = true;
                return false;
            }
            AfterSlice::IsAbandoned => {
                self.is_abandoned = true;
                return false;
            }
        }
        if !self.is_slow && (used >= SLOW_CALL || scheduler::runs_slow_call()) {
            self.is_slow = true;
            return self.meter.enter_slow().is_ok();
        }
        true
    }

    /// Called after a call that returned.
    pub(crate) fn check(&mut self) -> Result<(), CallError> {
        // With more memory it might have returned another result, so the result cannot be used.
        match self.meter.take_limit() {
            Some(LimitHit::Shared(shortage)) => {
                self.is_made_again = true;
                Err(refused(shortage))
            }
            Some(LimitHit::Own) | None => Ok(()),
        }
    }

    /// Called after each call, whether it failed or not.
    pub(crate) fn end(&mut self) {
        self.meter.end();
        if self.is_made_again {
            self.metrics.discard();
        } else {
            for (name, error) in self.services.metrics.count(&mut self.metrics) {
                self.measured(&name, Err(error));
            }
        }
        // Where a pipeline has ended, its lines may say why.
        if self.is_made_again && !self.is_abandoned {
            self.lines.discard();
        } else {
            self.lines.finish(&self.identity, &self.batch);
        }
    }

    /// Called after a call that did not return. Finds the cause. `output`: bytes that it was
    /// allowed to return.
    pub(crate) fn explain(&mut self, error: &wasmtime::Error, output: usize) -> CallError {
        let cause = self.cause(error, output);
        self.is_made_again = cause.is_made_again() || matches!(cause, CallError::Host(_));
        cause
    }

    fn cause(&mut self, error: &wasmtime::Error, output: usize) -> CallError {
        if self.timed_out {
            return CallError::Timeout {
                limit: self.limits.time,
            };
        }
        if self.is_postponed {
            return CallError::Postponed;
        }
        if self.is_abandoned {
            return CallError::Host("the pipeline has ended".into());
        }
        if let Some(lack) = lack::of_host(error) {
            return lack;
        }
        match self.meter.take_limit() {
            Some(LimitHit::Shared(shortage)) => return refused(shortage),
            Some(LimitHit::Own) => {
                return CallError::Memory {
                    limit: self.meter.limit(),
                };
            }
            None => {}
        }
        let text = format!("{error:#}");
        // Wasmtime has no type for this error. A test checks the wording.
        if text.contains("fuel allocated for hostcalls has been exhausted") {
            return CallError::Output { limit: output };
        }
        // The trap without its backtrace, which does not help an operator.
        let text = error
            .downcast_ref::<wasmtime::Trap>()
            .map_or(text, ToString::to_string);
        let message = match self.lines.trapped() {
            Some(said) => format!("{said} ({text})"),
            None => text,
        };
        CallError::Trap {
            message: crate::log::line(&message),
        }
    }
}

/// The call is made again when there is room.
pub(crate) fn refused(shortage: Shortage) -> CallError {
    scheduler::note_refused();
    CallError::NoRoom(shortage)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::engine::EngineOptions;

    #[test]
    #[allow(
        clippy::disallowed_methods,
        reason = "a limit on the time that the test itself takes"
    )]
    fn idle_time_of_the_thread_does_not_count() {
        let engine = Engine::new(EngineOptions {
            threads: 1,
            ..EngineOptions::default()
        })
        .unwrap();
        let identity = StageIdentity {
            pipeline: "p".into(),
            stage: "s".into(),
            plugin: "x".into(),
        };
        let limits = Limits {
            time: Duration::from_millis(30),
            ..Limits::default()
        };
        let mut host = InstanceHost::new(&engine, identity, &limits, Arc::default());
        assert_eq!(host.begin(), Ok(()));
        std::thread::sleep(Duration::from_millis(60));
        assert!(host.tick(), "it slept");
        let began = Instant::now();
        while host.tick() {
            assert!(
                began.elapsed() < Duration::from_secs(60),
                "a busy thread uses its time up"
            );
        }
        assert!(host.timed_out);
    }
}
