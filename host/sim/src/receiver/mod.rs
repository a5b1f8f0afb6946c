//! A simulated HTTPS receiver: accepts JSON objects and arrays of objects, requires a client
//! certificate, and counts documents.
//!
//! HTTP/1.1 with keep-alive, TLS 1.2 and 1.3. POST and PUT carry documents; `GET /stats` returns
//! [`Totals`] as JSON. It is stricter than real receivers: it answers 400 to bodies that they would
//! lose silently.

mod control;
mod documents;
mod fault;
mod files;
mod schedule;
mod service;
mod tally;

use std::fs::OpenOptions;
use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub use control::ReceiverControl;
pub use fault::{Fault, Rule};
pub use schedule::{Schedule, ScheduleError};
pub use tally::{PathTotals, Totals};

use self::control::Shared;
use crate::SimError;
use crate::listener::Listener;

/// The options of a receiver. The default is a free port of 127.0.0.1, answering 200 at once.
#[derive(Clone, Debug)]
pub struct ReceiverOptions {
    /// `host:port`; port 0 chooses a free port.
    pub listen: String,
    /// The directory for certificates. Those of an earlier run are used again.
    pub out: PathBuf,
    /// Delay before each answer.
    pub latency: Duration,
    pub status: Schedule,
    /// Each document is appended here as one line.
    pub capture: Option<PathBuf>,
    /// Capturing stops after this many documents.
    pub capture_max: Option<u64>,
    /// Seed of the schedule's random answers.
    pub seed: u64,
    /// Closes connections that were idle for this long, without notice, as Fluentd does after 10 s.
    pub idle: Option<Duration>,
    /// Largest body of a request, in bytes; larger ones are answered with 413.
    pub body_max: usize,
}

impl Default for ReceiverOptions {
    fn default() -> ReceiverOptions {
        ReceiverOptions {
            listen: "127.0.0.1:0".to_owned(),
            out: PathBuf::from("sim-receiver"),
            latency: Duration::ZERO,
            status: Schedule::default(),
            capture: None,
            capture_max: None,
            seed: 42,
            idle: None,
            // Fluentd's default.
            body_max: 32 << 20,
        }
    }
}

/// A running receiver.
pub struct Receiver {
    listener: Listener,
    shared: Arc<Shared>,
}

impl Receiver {
    /// Writes the directory, binds, and serves in tasks of the current tokio runtime.
    pub async fn start(options: ReceiverOptions) -> Result<Receiver, SimError> {
        let tls = files::prepare(&options.out)?;
        let capture = options.capture.map(|path| {
            let opened = OpenOptions::new().append(true).create(true).open(&path);
            opened.map_err(|source| SimError::Io { path, source })
        });
        let shared = Arc::new(Shared::new(
            options.status,
            options.latency,
            capture
                .transpose()?
                .map(|file| (file, options.capture_max.unwrap_or(u64::MAX))),
            options.seed,
        ));
        let (service, limits) = (
            Arc::clone(&shared),
            service::ConnectionLimits {
                idle: options.idle,
                body_max: options.body_max,
            },
        );
        let listener = Listener::start(&options.listen, tls, move |stream| {
            service::serve(Arc::clone(&service), limits, stream)
        })
        .await?;
        Ok(Receiver { listener, shared })
    }

    pub fn address(&self) -> SocketAddr {
        self.listener.address
    }

    pub fn control(&self) -> ReceiverControl {
        ReceiverControl {
            shared: Arc::clone(&self.shared),
            connections: self.listener.connections.clone(),
        }
    }

    /// Closes port and connections.
    pub async fn stop(self) -> Totals {
        self.listener.stop().await;
        self.shared.totals()
    }
}

/// Serves until `shutdown`; calls `ready` with the address when connections are accepted.
pub async fn serve(
    options: ReceiverOptions,
    ready: impl FnOnce(SocketAddr),
    shutdown: impl Future<Output = ()>,
) -> Result<Totals, SimError> {
    let receiver = Receiver::start(options).await?;
    ready(receiver.address());
    shutdown.await;
    Ok(receiver.stop().await)
}
