//! Counts the ticks at which running components are interrupted, see [`InstanceHost::tick`].
//!
//! [`InstanceHost::tick`]: crate::host::InstanceHost::tick

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, Thread};
use std::time::Duration;

use crate::limits::{IDLE_TICKS, TICK};

/// The ticker of an engine. It ticks while calls run, so that an idle host does not wake up a
/// thousand times a second. Clones are the same ticker.
#[derive(Clone, Debug)]
pub(crate) struct Ticker {
    calls: Arc<Calls>,
    thread: Thread,
}

#[derive(Debug, Default)]
struct Calls {
    running: AtomicUsize,
    ticker_sleeps: AtomicBool,
}

/// A call that runs until this is dropped.
#[must_use]
pub(crate) struct RunningCall<'a>(&'a Calls);

impl Ticker {
    /// Starts a thread, not a task, because it must tick even if every other thread is busy in a
    /// component. It ends once the engine is dropped.
    pub(crate) fn start(engine: &wasmtime::Engine) -> io::Result<Ticker> {
        let engine = engine.weak();
        let calls = Arc::new(Calls::default());
        let shared = calls.clone();
        let thread = thread::Builder::new()
            .name("component-time".into())
            .spawn(move || {
                let mut idle_ticks = 0;
                while let Some(engine) = engine.upgrade() {
                    engine.increment_epoch();
                    drop(engine);
                    idle_ticks = match shared.running.load(Ordering::SeqCst) {
                        0 => idle_ticks + 1,
                        _ => 0,
                    };
                    if idle_ticks < IDLE_TICKS {
                        thread::sleep(TICK);
                    } else {
                        idle_ticks = 0;
                        shared.sleep();
                    }
                }
            })?;
        let thread = thread.thread().clone();
        Ok(Ticker { calls, thread })
    }

    /// A call runs from now on.
    pub(crate) fn run(&self) -> RunningCall<'_> {
        self.calls.running.fetch_add(1, Ordering::SeqCst);
        if self.calls.ticker_sleeps.load(Ordering::SeqCst) {
            self.thread.unpark();
        }
        RunningCall(&self.calls)
    }
}

impl Calls {
    /// Until a call runs. Not for longer than a second, to see whether the engine still exists.
    fn sleep(&self) {
        self.ticker_sleeps.store(true, Ordering::SeqCst);
        if self.running.load(Ordering::SeqCst) == 0 {
            thread::park_timeout(Duration::from_secs(1));
        }
        self.ticker_sleeps.store(false, Ordering::SeqCst);
    }
}

impl Drop for RunningCall<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
    }
}
