use std::sync::Arc;
use std::time::Duration;

use lockgate_lookup::Lookups;
use lockgate_model::StateOverlay;
use lockgate_model::contract::CallError;

use crate::budget::{Meter, Refused};
use crate::clock;
use crate::engine::Engine;
use crate::limits::{Limits, TICK};
use crate::log::Lines;
use crate::scheduler;
use crate::services::Services;

/// Whose component it is: what the host adds to each of its log lines.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) pipeline: Arc<str>,
    /// Such as `stage 1 (builtin:redact)`.
    pub(crate) stage: Arc<str>,
    pub(crate) plugin: Arc<str>,
}

/// What the host keeps with one instance.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) identity: Identity,
    pub(crate) lines: Lines,
    pub(crate) meter: Meter,
    pub(crate) services: Arc<Services>,
    /// Of the call that runs.
    pub(crate) batch: String,
    /// What the call that runs may look up. Nothing while it is configured: that must give the
    /// same answer for each batch.
    pub(crate) lookups: Lookups,
    /// The state that the call reads and writes. Not granted while it is configured.
    pub(crate) state: StateOverlay,
    limits: Limits,
    /// CPU time of the thread when the call began.
    began: Duration,
    timed_out: bool,
}

impl Host {
    pub(crate) fn new(
        engine: &Engine,
        identity: Identity,
        limits: &Limits,
        services: Arc<Services>,
    ) -> Host {
        Host {
            identity,
            lines: Lines::new(services.log.clone()),
            meter: Meter::new(engine.budget.clone(), limits.memory),
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

    /// Before each call. Gives the number of ticks until it must be looked at.
    pub(crate) fn begin(&mut self) -> u64 {
        self.began = clock::thread_time();
        self.timed_out = false;
        self.meter.take_refused();
        self.lines.take_last_error();
        ticks(self.limits.time)
    }

    /// Work of the host, on behalf of all components, that does not count as time of the call in
    /// which it happens to be done.
    pub(crate) fn on_the_house<R>(&mut self, work: impl FnOnce() -> R) -> R {
        let began = clock::thread_time();
        let result = work();
        self.began += clock::thread_time().saturating_sub(began);
        result
    }

    /// While a call runs and its ticks are over. Gives the number of further ticks, or none: its
    /// time is up.
    pub(crate) fn look(&mut self) -> Option<u64> {
        let used = clock::thread_time().saturating_sub(self.began);
        match self.limits.time.checked_sub(used) {
            Some(left) if !left.is_zero() => Some(ticks(left)),
            _ => {
                self.timed_out = true;
                scheduler::call_timed_out();
                None
            }
        }
    }

    /// After a call that returned.
    pub(crate) fn check(&mut self) -> Result<(), CallError> {
        match self.meter.take_refused() {
            // It may have returned something else than it would have with more memory, through no
            // fault of its own.
            Some(Refused::Total) => Err(no_memory_left()),
            _ => Ok(()),
        }
    }

    /// After each call, however it ended.
    pub(crate) fn end(&mut self) {
        self.lines.finish(&self.identity, &self.batch);
    }

    /// After a call that did not return. `output`: bytes that it was allowed to return.
    pub(crate) fn explain(&mut self, error: &wasmtime::Error, output: usize) -> CallError {
        if self.timed_out {
            return CallError::Timeout {
                limit: self.limits.time,
            };
        }
        match self.meter.take_refused() {
            Some(Refused::Total) => return no_memory_left(),
            Some(Refused::Own) => {
                return CallError::Memory {
                    limit: self.limits.memory,
                };
            }
            None => {}
        }
        let text = format!("{error:#}");
        // Wasmtime has no type for this error; a test would notice another wording.
        if text.contains("fuel allocated for hostcalls has been exhausted") {
            return CallError::Output { limit: output };
        }
        // The trap alone: a backtrace of addresses tells an operator nothing.
        let text = error
            .downcast_ref::<wasmtime::Trap>()
            .map_or(text, ToString::to_string);
        let message = match self.lines.take_last_error() {
            Some(said) => format!("{said} ({text})"),
            None => text,
        };
        CallError::Trap {
            message: crate::log::line(&message),
        }
    }
}

fn no_memory_left() -> CallError {
    CallError::Host(
        "all instances together have used up the memory that components may have".into(),
    )
}

/// Rounded up, and one more, for the tick that is under way.
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
    fn time_in_which_the_thread_did_nothing_does_not_count() {
        let engine = Engine::new(EngineOptions {
            threads: 1,
            ..EngineOptions::default()
        })
        .unwrap();
        let identity = Identity {
            pipeline: "p".into(),
            stage: "s".into(),
            plugin: "x".into(),
        };
        let limits = Limits {
            time: Duration::from_millis(30),
            ..Limits::default()
        };
        let mut host = Host::new(&engine, identity, &limits, Arc::default());
        assert_eq!(host.begin(), 4);
        std::thread::sleep(Duration::from_millis(60));
        assert!(host.look().is_some(), "it slept");
        let began = Instant::now();
        while host.look().is_some() {
            assert!(
                began.elapsed() < Duration::from_secs(60),
                "a busy thread uses its time up"
            );
        }
        assert!(host.timed_out);
    }
}
