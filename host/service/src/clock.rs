//! The system's clock and its randomness, which the other modules take as arguments.

use std::time::{SystemTime, UNIX_EPOCH};

use lockgate_model::Millis;

/// Wall-clock time. Only for what is shown to people and recorded; nothing is decided by it.
#[allow(
    clippy::disallowed_methods,
    reason = "the service is the clock of the engine"
)]
pub(crate) fn now() -> Millis {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as Millis)
}

/// A number that differs from start to start, for jitter.
#[allow(
    clippy::disallowed_methods,
    reason = "the seed of the engine comes from here"
)]
pub(crate) fn seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(0)
}
