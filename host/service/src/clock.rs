//! The system's clock.

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
