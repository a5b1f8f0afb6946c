//! The interface of the program behind the admin listener.

use super::Readiness;

/// The answers of the listener. Everything in them can be read by every user of the machine, so it
/// holds no payload and no secret.
pub trait HealthSource: Send + Sync + 'static {
    /// Asked for each request to `/readyz`. Must not block.
    fn readiness(&self) -> Readiness;

    /// The body of `/metrics`: Prometheus' text format, version 0.0.4. Asked for each request.
    fn metrics(&self) -> impl Future<Output = String> + Send;
}
