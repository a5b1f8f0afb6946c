//! A simulated Teleport Auth server: gRPC over mutual TLS, direct as on port 3025.
//!
//! It answers as a real server (13.3.8) was observed to answer, and as Teleport's clients show for
//! bulk export. It serves `Ping` and the four calls of the audit log service;
//! `session.recording.access` is not emitted. Messages are written in their wire form by
//! the generator and framed here, without gRPC machinery between: this server shares a machine with
//! what it measures.

mod export;
mod files;
mod identity;
mod log;
mod reply;
mod search;
mod service;
mod ssh;

use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

pub use identity::User;

use crate::SimError;
use crate::generate;
use crate::listener::Running;

/// Which of Teleport's two ways to read the audit log the server has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Backend {
    /// Bulk export, as with Athena. (`GetUnstructuredEvents` works there too.)
    #[default]
    Export,
    /// Search only, as with every other backend: the export calls are unimplemented.
    Search,
}

/// What to simulate. `..Options::default()` is a server on a free port of 127.0.0.1 with 20,000
/// events, all there at once.
#[derive(Clone, Debug)]
pub struct Options {
    /// `host:port`; port 0 takes a free one.
    pub listen: String,
    /// Where certificates and identity are written, or read when they are there from an earlier
    /// run.
    pub out: PathBuf,
    pub backend: Backend,
    /// The audit log. With [`Self::rate`], `start` and `event_rate` are ignored.
    pub events: generate::Options,
    /// Events per second that appear from the start of the server on; their times follow the wall
    /// clock. Without it everything is there at once, with the times of [`Self::events`].
    pub rate: Option<f64>,
    /// What `Ping` says.
    pub server_version: String,
    pub user: User,
    /// When the identity's certificate expires; a time in the past gives an expired identity. Ten
    /// years from now, if not given.
    pub identity_expires: Option<SystemTime>,
    /// Break streams in the middle.
    pub flaky: Option<Flaky>,
    /// Let some export chunks appear late.
    pub late: Option<Late>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            listen: "127.0.0.1:0".to_owned(),
            out: PathBuf::from("sim-auth"),
            backend: Backend::default(),
            events: generate::Options::default(),
            rate: None,
            server_version: "17.4.2".to_owned(),
            user: User::default(),
            identity_expires: None,
            flaky: None,
            late: None,
        }
    }
}

/// Streams that end with `UNAVAILABLE`.
#[derive(Clone, Copy, Debug)]
pub struct Flaky {
    /// Of each stream, 0 to 1.
    pub probability: f64,
    /// The break comes before one of the first so many messages.
    pub within: u64,
    pub seed: u64,
}

/// Chunks that are listed only after a while, though their events are older than others.
#[derive(Clone, Copy, Debug)]
pub struct Late {
    /// How many, counted from the first.
    pub chunks: u64,
    pub after: Duration,
}

/// What a server has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Served {
    /// gRPC calls of any kind.
    pub calls: u64,
    /// Events sent, in any call.
    pub events: u64,
    /// Session recordings opened.
    pub recordings: u64,
}

/// A running server.
pub struct Server {
    running: Running,
    service: Arc<service::Service>,
}

impl Server {
    /// Writes the folder, binds, serves in tasks of the current tokio runtime.
    pub async fn start(options: Options) -> Result<Server, SimError> {
        let tls = files::prepare(&options)?;
        let service = Arc::new(service::Service::new(&options));
        let shared = Arc::clone(&service);
        let running = Running::start(&options.listen, tls, move |stream| {
            service::serve(Arc::clone(&shared), stream)
        })
        .await?;
        Ok(Server { running, service })
    }

    pub fn address(&self) -> SocketAddr {
        self.running.address
    }

    /// The audit log that is served; its clock is the wall clock's if there is a rate.
    pub fn generator(&self) -> &generate::Generator {
        self.service.generator()
    }

    pub fn served(&self) -> Served {
        self.service.served()
    }

    /// Cuts every connection; new ones are accepted.
    pub fn drop_connections(&self) {
        self.running.connections.drop_all();
    }

    /// Closes port and connections. A server started later on the same folder and address continues
    /// for the same clients.
    pub async fn stop(self) -> Served {
        self.running.stop().await;
        self.service.served()
    }
}

/// Serves until `shutdown`; `ready` is told the address once connections are accepted.
pub async fn serve(
    options: Options,
    ready: impl FnOnce(SocketAddr),
    shutdown: impl Future<Output = ()>,
) -> Result<Served, SimError> {
    let server = Server::start(options).await?;
    ready(server.address());
    shutdown.await;
    Ok(server.stop().await)
}

/// Writes a new identity into the folder of a server that may be running, as [`Options::user`] and
/// [`Options::identity_expires`] say.
pub fn issue_identity(options: &Options) -> Result<(), SimError> {
    files::issue(options)
}
