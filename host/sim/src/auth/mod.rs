//! A simulated Teleport Auth server: gRPC over mutual TLS, direct as on port 3025, and through a
//! simulated proxy.
//!
//! It answers like a real server (observed: 13.3.8); bulk export follows Teleport's clients. It
//! serves `Ping`, the two calls that read and make a lock, and the four of the audit log service;
//! `session.recording.access` and `lock.created` are not emitted. The generator writes messages in
//! their wire form and this module frames them, without a gRPC library in between: the server
//! shares a machine with the host that it measures.

mod export;
mod files;
mod identity;
mod locks;
mod log;
mod proxy;
mod reply;
mod search;
mod service;
mod ssh;

use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, SystemTime};

pub use identity::{KeyKind, User};
pub use locks::Lock;
pub use proxy::{ProxyFaults, ProxyOptions, ProxyServed, TunnelFault, Upgrade};
pub use tonic::Code;

use lockgate_model::Millis;

use crate::SimError;
use crate::generate;
use crate::listener::Listener;

/// Which of Teleport's two interfaces to the audit log the server supports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Backend {
    /// Bulk export, as with Athena. (`GetUnstructuredEvents` works there too.)
    #[default]
    Export,
    /// Search only, as with every other backend: the export calls are unimplemented.
    Search,
}

/// The options of a server. The default is a free port of 127.0.0.1 with 20,000 events, all of them
/// there from the start.
#[derive(Clone, Debug)]
pub struct AuthOptions {
    /// `host:port`; port 0 chooses a free port.
    pub listen: String,
    /// The directory for certificates and identity. Those of an earlier run are used again.
    pub out: PathBuf,
    pub backend: Backend,
    /// The audit log. With [`Self::rate`], `start` and `event_rate` are ignored.
    pub events: generate::GeneratorOptions,
    /// Events per second that appear from the start of the server on; their times follow the wall
    /// clock. Without it all events are there from the start, with the times of [`Self::events`].
    pub rate: Option<f64>,
    /// Seconds by which the server's clock is ahead of this machine's. With [`Self::rate`] the
    /// times of events follow it.
    pub clock_ahead: u64,
    /// The version that `Ping` returns.
    pub server_version: String,
    pub user: User,
    /// Of an identity that is issued.
    pub identity_key: KeyKind,
    /// When the identity's certificate expires; may be in the past. The default is ten years from
    /// now.
    pub identity_expires: Option<SystemTime>,
    /// A proxy in front of the server.
    pub proxy: Option<ProxyOptions>,
    /// Break streams in the middle.
    pub flaky: Option<Flaky>,
    /// Let some export chunks appear late.
    pub late: Option<Late>,
}

impl Default for AuthOptions {
    fn default() -> AuthOptions {
        AuthOptions {
            listen: "127.0.0.1:0".to_owned(),
            out: PathBuf::from("sim-auth"),
            backend: Backend::default(),
            events: generate::GeneratorOptions::default(),
            rate: None,
            clock_ahead: 0,
            server_version: "17.4.2".to_owned(),
            user: User::default(),
            identity_key: KeyKind::default(),
            identity_expires: None,
            proxy: None,
            flaky: None,
            late: None,
        }
    }
}

/// Streams that end with `UNAVAILABLE`.
#[derive(Clone, Copy, Debug)]
pub struct Flaky {
    /// The probability for each stream, 0 to 1.
    pub probability: f64,
    /// The break comes before one of this many first messages.
    pub within: u64,
    pub seed: u64,
}

/// Chunks that are listed late, although their events are older than others.
#[derive(Clone, Copy, Debug)]
pub struct Late {
    /// How many, counted from the first.
    pub chunks: u64,
    pub after: Duration,
}

/// What a server answers instead of events, until it is changed. `None` is the event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// To each call that reads the audit log.
    pub audit_log: Option<Code>,
    /// To each call that reads a recording.
    pub recordings: Option<Code>,
    /// To each call that makes a lock.
    pub locks: Option<Code>,
    /// To each call that reads a lock.
    pub lock_reads: Option<Code>,
    /// A stretch of time of the audit log that cannot be read, both ends inclusive. A search that
    /// touches it gets an error, and an export ends with one before the first event of it.
    pub unreadable: Option<(Millis, Millis)>,
    /// Searches are not answered until this is changed; all other calls are.
    pub silent_searches: bool,
}

/// The counts of a server.
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
pub struct AuthServer {
    listener: Listener,
    service: Arc<service::Service>,
    options: AuthOptions,
    proxy: Option<proxy::Proxy>,
}

impl AuthServer {
    /// Writes the directory, binds, and serves in tasks of the current tokio runtime.
    pub async fn start(options: AuthOptions) -> Result<AuthServer, SimError> {
        let tls = files::prepare(&options)?;
        let service = Arc::new(service::Service::new(&options));
        let shared = Arc::clone(&service);
        let listener = Listener::start(&options.listen, tls, move |stream| {
            service::serve(Arc::clone(&shared), stream)
        })
        .await?;
        let mut server = AuthServer {
            listener,
            service,
            options,
            proxy: None,
        };
        server.start_proxy().await?;
        Ok(server)
    }

    /// Closes the ports and connections of the proxy. The server goes on.
    pub async fn stop_proxy(&mut self) {
        if let Some(proxy) = self.proxy.take() {
            proxy.stop().await;
        }
    }

    /// Starts the proxy, again at the address of before if there was one.
    pub async fn start_proxy(&mut self) -> Result<(), SimError> {
        let Some(options) = self.options.proxy.clone() else {
            return Ok(());
        };
        let (auth, connections) = (self.address(), self.listener.connections.clone());
        let proxy = proxy::Proxy::start(&self.options, options, auth, connections).await?;
        if let Some(options) = &mut self.options.proxy {
            options.listen = proxy.address.to_string();
            options.balancer = proxy.balancer.map(|address| address.to_string());
            options.tunnel = proxy.tunnel.map(|address| address.to_string());
        }
        self.proxy = Some(proxy);
        Ok(())
    }

    pub fn address(&self) -> SocketAddr {
        self.listener.address
    }

    pub fn proxy_address(&self) -> Option<SocketAddr> {
        self.proxy.as_ref().map(|proxy| proxy.address)
    }

    /// Of the load balancer in front of the proxy.
    pub fn balancer_address(&self) -> Option<SocketAddr> {
        self.proxy.as_ref()?.balancer
    }

    /// Of the proxy's SSH tunnel.
    pub fn tunnel_address(&self) -> Option<SocketAddr> {
        self.proxy.as_ref()?.tunnel
    }

    /// The audit log that is served; its clock is the wall clock's if there is a rate.
    pub fn generator(&self) -> &generate::Generator {
        self.service.generator()
    }

    /// How many events have appeared so far.
    pub fn visible(&self) -> u64 {
        self.service.visible()
    }

    pub fn served(&self) -> Served {
        self.service.served()
    }

    /// From here on. Streams that have begun are not affected.
    pub fn set_faults(&self, faults: Faults) {
        *self
            .service
            .faults
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = faults;
    }

    /// Each lock that was made, in order: one that was replaced is there twice.
    pub fn made_locks(&self) -> Vec<Lock> {
        self.service.locks.made()
    }

    /// Makes a lock, as an administrator does.
    pub fn put_lock(&self, lock: Lock) {
        self.service.locks.put(lock);
    }

    /// The lock of this name.
    pub fn lock(&self, name: &str) -> Option<Lock> {
        self.service.locks.named(name)
    }

    pub fn proxy_served(&self) -> ProxyServed {
        let served = self.proxy.as_ref().map(proxy::Proxy::served);
        served.unwrap_or_default()
    }

    /// Of the proxy, for new connections.
    pub fn set_proxy_faults(&self, faults: ProxyFaults) {
        if let Some(proxy) = &self.proxy {
            proxy.set_faults(faults);
        }
    }

    /// Cuts every connection; new ones are accepted.
    pub fn drop_connections(&self) {
        self.listener.connections.drop_all();
    }

    /// Closes port and connections. A server started later on the same directory and address
    /// continues for the same clients.
    pub async fn stop(mut self) -> Served {
        self.stop_proxy().await;
        self.listener.stop().await;
        self.service.served()
    }
}

/// Serves until `shutdown`; calls `ready` when connections are accepted.
pub async fn serve(
    options: AuthOptions,
    ready: impl FnOnce(&AuthServer),
    shutdown: impl Future<Output = ()>,
) -> Result<Served, SimError> {
    let server = AuthServer::start(options).await?;
    ready(&server);
    shutdown.await;
    Ok(server.stop().await)
}

/// The `Date` of an HTTP answer, by a clock that is so far ahead.
#[allow(
    clippy::disallowed_methods,
    reason = "the clock of a server follows the real one"
)]
fn date(clock_ahead: Duration) -> http::HeaderValue {
    let date = httpdate::fmt_http_date(SystemTime::now() + clock_ahead);
    http::HeaderValue::try_from(date).unwrap_or_else(|_| http::HeaderValue::from_static(""))
}

/// Writes a new identity, with [`AuthOptions::user`] and [`AuthOptions::identity_expires`], to the
/// directory of a server that may be running.
pub fn issue_identity(options: &AuthOptions) -> Result<(), SimError> {
    files::issue(options)
}
