//! The clocks of this crate. Other modules get the time from here or as an argument.

use std::cell::Cell;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

thread_local! {
    /// CPU time of this thread that counts for nobody.
    static UNCOUNTED: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

/// CPU time that the calling thread has used, but for what is [`uncounted`].
pub(crate) fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let all = Duration::new(
        u64::try_from(time.tv_sec).unwrap_or(0),
        u32::try_from(time.tv_nsec).unwrap_or(0),
    );
    all.saturating_sub(UNCOUNTED.get())
}

/// Does work for all components, whose time is not that of the call in which it happens.
pub(crate) fn uncounted<R>(work: impl FnOnce() -> R) -> R {
    let began = thread_time();
    let result = work();
    let time = thread_time().saturating_sub(began);
    UNCOUNTED.set(UNCOUNTED.get() + time);
    result
}

#[allow(
    clippy::disallowed_methods,
    reason = "the one clock of the runtime: time-outs and the log's rate"
)]
pub(crate) fn now() -> Instant {
    Instant::now()
}
