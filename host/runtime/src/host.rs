//! The host's side of an instance: its batch, its limits and its log.

use std::sync::Arc;
use std::time::Duration;

use lockgate_lookup::Lookups;
use lockgate_model::StateOverlay;
use lockgate_model::contract::{CallError, Shortage};

use crate::clock;
use crate::engine::Engine;
use crate::limits::{Limits, SLOW_CALL, TICK};
use crate::log::Lines;
use crate::meter::{LimitHit, Meter};
use crate::scheduler;
use crate::services::Services;

/// Identifies a component's stage, in each of its log lines.
#[derive(Clone, Debug)]
pub(crate) struct StageIdentity {
    pub(crate) pipeline: Arc<str>,
    /// Such as `stage 1 (builtin:redact)`.
    pub(crate) stage: Arc<str>,
    pub(crate) plugin: Arc<str>,
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
    timed_out: bool,
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
            meter,
            services,
            batch: "-".into(),
            lookups: Lookups::default(),
            state: StateOverlay::not_granted(),
            limits: limits.clone(),
            began: Duration::ZERO,
            timed_out: false,
        }
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Called before each call of the component. Returns the number of ticks until its time must be
    /// checked.
    ///
    /// # Errors
    /// The call is slow from its beginning, and the instance has more memory than slow calls may
    /// have now.
    pub(crate) fn begin(&mut self) -> Result<u64, Shortage> {
        self.began = clock::thread_time();
        self.timed_out = false;
        self.meter.begin();
        if scheduler::runs_slow_call() {
            self.meter.enter_slow()?;
        }
        self.lines.begin();
        Ok(ticks(self.limits.time.min(SLOW_CALL)))
    }

    /// Called when the ticks of a call are over. Returns the number of further ticks, or `None` if
    /// its time is up, or if it turned out to be slow and has too much memory for that.
    pub(crate) fn check_time(&mut self) -> Option<u64> {
        let used = clock::thread_time().saturating_sub(self.began);
        match self.limits.time.checked_sub(used) {
            Some(left) if !left.is_zero() => match SLOW_CALL.checked_sub(used) {
                Some(still_quick) if !still_quick.is_zero() => Some(ticks(left.min(still_quick))),
                _ => {
                    // First: a call that ends needs no thread in its place.
                    self.meter.enter_slow().ok()?;
                    scheduler::hand_over_slow_call();
                    Some(ticks(left))
                }
            },
            _ => {
                self.timed_out = true;
                scheduler::note_time_out();
                None
            }
        }
    }

    /// Called after a call that returned.
    pub(crate) fn check(&mut self) -> Result<(), CallError> {
        // With more memory it might have returned another result, so the result cannot be used.
        match self.meter.take_limit() {
            Some(LimitHit::Shared(shortage)) => Err(CallError::NoRoom(shortage)),
            Some(LimitHit::Own) | None => Ok(()),
        }
    }

    /// Called after each call, whether it failed or not.
    pub(crate) fn end(&mut self) {
        self.meter.end();
        self.lines.finish(&self.identity, &self.batch);
    }

    /// Called after a call that did not return. Finds the cause. `output`: bytes that it was
    /// allowed to return.
    pub(crate) fn explain(&mut self, error: &wasmtime::Error, output: usize) -> CallError {
        if self.timed_out {
            return CallError::Timeout {
                limit: self.limits.time,
            };
        }
        match self.meter.take_limit() {
            Some(LimitHit::Shared(shortage)) => return CallError::NoRoom(shortage),
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

/// Rounds up, and adds one for the current tick.
fn ticks(time: Duration) -> u64 {
    u64::try_from(time.as_nanos().div_ceil(TICK.as_nanos())).unwrap_or(u64::MAX >> 1) + 1
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
        assert_eq!(host.begin(), Ok(4));
        std::thread::sleep(Duration::from_millis(60));
        assert!(host.check_time().is_some(), "it slept");
        let began = Instant::now();
        while host.check_time().is_some() {
            assert!(
                began.elapsed() < Duration::from_secs(60),
                "a busy thread uses its time up"
            );
        }
        assert!(host.timed_out);
    }
}
