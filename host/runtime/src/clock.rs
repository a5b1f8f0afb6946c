//! The clocks of this crate. Other modules get the time from here or as an argument.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// CPU time that the calling thread has used.
pub(crate) fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or(0),
        u32::try_from(time.tv_nsec).unwrap_or(0),
    )
}

#[allow(
    clippy::disallowed_methods,
    reason = "the one clock of the runtime: time-outs and the log's rate"
)]
pub(crate) fn now() -> Instant {
    Instant::now()
}
