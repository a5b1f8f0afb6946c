//! Connections to Teleport's Auth Service.
//!
//! [`Route`] is the transport; TLS and gRPC on top of it are the same for every route.

use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError};
use std::time::Duration;

use lockgate_backoff::Backoff;
use lockgate_model::Millis;
use lockgate_stamps::Stamps;
use tokio::sync::{Mutex, Notify};
use tokio::time::Instant;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;

use crate::blocking::blocking;
use crate::identity::Identity;
use crate::proto::auditlog::audit_log_service_client::AuditLogServiceClient;
use crate::proto::authservice::PingRequest;
use crate::proto::authservice::auth_service_client::AuthServiceClient;
use crate::status::{CONNECTION, CREDENTIALS, StatusReporter};
use crate::time::time;
use crate::{SourceLimits, SourceSettings};

mod address;
mod alpn;
mod channel;
mod dial;
mod examine;
mod failure;
mod live;
mod outbound;
mod proxy;
mod route;
mod socks;
mod tls;
mod tunnel;
mod upgrade;
mod web;
pub mod websocket;
mod wire;

pub use address::{Address, AddressError};
pub use alpn::{routed_cluster, routing_entry};
pub use examine::{Examination, FoundCredentials, FoundLocks, FoundTeleport, examine};
pub use failure::{Failure, Side};
pub use outbound::{OutboundFailure, OutboundReason};
pub use proxy::ProxyFailure;
pub use route::Route;
pub use tunnel::{Inside, TunnelFailure, TunnelReason};
pub use web::authorities;

use channel::{Version, channel};
use dial::{Dialer, Target};
use live::{Live, LiveConnections};
use wire::Wire;

/// The name in every Auth Service certificate. The dialled address is never verified.
pub const SERVER_NAME: &str = "teleport.cluster.local";

pub(crate) type AuditLog = AuditLogServiceClient<InterceptedService<Channel, Version>>;
/// The Auth service for calls that claim a version, unlike `Ping`.
pub(crate) type LockService = AuthServiceClient<InterceptedService<Channel, Version>>;
type Auth = AuthServiceClient<Channel>;

/// The clients of one connection.
#[derive(Clone)]
struct Clients {
    audit: AuditLog,
    locks: LockService,
    auth: Auth,
}

impl Clients {
    fn new(channel: Channel, version: Version, limits: &SourceLimits) -> Clients {
        Clients {
            auth: AuthServiceClient::new(channel.clone()),
            locks: AuthServiceClient::with_interceptor(channel.clone(), version.clone()),
            audit: AuditLogServiceClient::with_interceptor(channel, version)
                .max_decoding_message_size(limits.message_bytes),
        }
    }
}

/// A connection with its clients of the services. It may have broken in the meantime. Whoever
/// reads a stream keeps it until the stream has ended: only connections in use are watched.
pub(crate) struct Connection {
    pub(crate) audit: AuditLog,
    pub(crate) locks: LockService,
    /// Number of the connection: 1 is the first that the [`Connector`] made.
    pub(crate) id: u64,
    live: Arc<Live>,
}

/// Makes the connection that all tasks of a source share, and makes a new one, with backoff, when
/// it breaks or when the credentials change.
pub(crate) struct Connector {
    address: Address,
    dialer: Dialer,
    settings: SourceSettings,
    status: StatusReporter,
    /// The name of the cluster whose events are read: the first that answers, unless the store
    /// knows it.
    cluster: OnceLock<String>,
    state: Mutex<State>,
    live: LiveConnections,
    newest: AtomicU64,
    /// A new connection has been made.
    connected: Notify,
    /// The user of the credentials.
    user: Arc<std::sync::Mutex<Option<String>>>,
}

#[derive(Default)]
struct State {
    connected: Option<Arc<Live>>,
    /// Number of the newest connection.
    id: u64,
    identity: Option<Identity>,
    /// Those of the credential files that were read last, whether they could be used or not.
    stamps: Stamps,
    failures: Option<Backoff>,
    /// How the newest connection was made. It is tried first.
    last: Option<Target>,
    /// The route that the log has named.
    logged: Option<Route>,
    /// The last attempt to connect ended without an answer.
    is_silent: bool,
}

impl Connector {
    pub(crate) fn new(
        address: Address,
        settings: SourceSettings,
        status: StatusReporter,
        cluster: Option<&str>,
    ) -> Connector {
        Connector {
            dialer: Dialer::new(address.clone(), &settings),
            address,
            settings,
            status,
            cluster: cluster.map_or_else(OnceLock::new, |name| name.to_owned().into()),
            state: Mutex::default(),
            live: LiveConnections::default(),
            newest: AtomicU64::new(0),
            connected: Notify::new(),
            user: Arc::default(),
        }
    }

    /// Returns the current connection, or waits for a new one. Retries forever, and reports each
    /// failure in the status.
    pub(crate) async fn connection(&self) -> Connection {
        let mut state = self.state.lock().await;
        loop {
            self.reload(&mut state).await;
            if let Some(live) = state.connected.clone() {
                return Connection {
                    audit: live.clients.audit.clone(),
                    locks: live.clients.locks.clone(),
                    id: live.id,
                    live,
                };
            }
            match self.connect(&mut state).await {
                Ok((clients, wire)) => {
                    state.id += 1;
                    state.connected = Some(self.live.add(state.id, clients, wire));
                    self.newest.store(state.id, Ordering::Relaxed);
                    state.failures = None;
                    self.status.clear_failure(CONNECTION);
                    self.connected.notify_waiters();
                }
                Err(failure) => {
                    let (first, max) = self.settings.limits.backoff;
                    let max = max.min(self.settings.limits.reconnect);
                    let failures = state
                        .failures
                        .get_or_insert_with(|| Backoff::new(first, max));
                    let wait = failures.next(self.settings.clock.chance());
                    let next = self.settings.clock.now() + wait.as_millis() as Millis;
                    self.status
                        .set_failure_until(CONNECTION, failure.to_string(), Some(next));
                    tokio::time::sleep(wait).await;
                }
            }
        }
    }

    /// The cluster that is read, once it is known.
    pub(crate) fn cluster(&self) -> Option<&str> {
        self.cluster.get().map(String::as_str)
    }

    /// The user of the credentials, once they have been read.
    pub(crate) fn user(&self) -> Arc<std::sync::Mutex<Option<String>>> {
        self.user.clone()
    }

    /// Waits until a new connection is made.
    pub(crate) async fn connected(&self) {
        self.connected.notified().await;
    }

    /// Number of the newest connection; 0 before the first.
    pub(crate) fn newest(&self) -> u64 {
        self.newest.load(Ordering::Relaxed)
    }

    /// Reports a failed call. If the connection is at fault, the next caller gets a new one.
    pub(crate) async fn failed(&self, connection: u64, failure: &Failure) {
        let mut state = self.state.lock().await;
        if failure.is_connection() && state.id == connection {
            state.connected = None;
        }
    }

    /// Checks from time to time that Teleport answers and that the credentials can be used, and
    /// connects again if it does not: an outage shows also while nothing is to be read. Ends older
    /// connections from which nothing comes any more: what is read on them would be waited for in
    /// vain.
    pub(crate) async fn watch(&self) -> Infallible {
        let limits = &self.settings.limits;
        // Grows if Teleport is slow, so that it is not shown as away again and again.
        let mut patience = limits.answer;
        loop {
            tokio::time::sleep(limits.check).await;
            let connection = self.connection().await;
            let older = self.live.check_older(connection.id, patience);
            let (asked, received) = (Instant::now(), connection.live.wire.received());
            let answer = connection.live.ping();
            tokio::pin!(answer);
            match tokio::time::timeout(patience, &mut answer).await {
                Ok(Err(status)) => {
                    let failure = Failure::of(&self.address.to_string(), &status);
                    self.failed(connection.id, &failure).await;
                }
                Ok(Ok(_)) => {
                    if asked.elapsed() < limits.answer / 2 {
                        patience = limits.answer;
                    }
                    for silent in older.silent().await {
                        tracing::info!(
                            source = &*self.settings.source,
                            "nothing comes on an older connection to Teleport any more: what was \
                             being read on it goes on on the newest one"
                        );
                        silent.wire.cut();
                    }
                }
                Err(_) => {
                    self.report_silence(patience);
                    patience = (patience * 2).min(limits.dial);
                    let reason = "no answer".to_owned();
                    self.failed(connection.id, &Failure::Lost { reason }).await;
                    // Teleport has to answer on a new connection before this one is given up.
                    self.connection().await;
                    let is_silent = connection.live.wire.received() == received;
                    let answer = tokio::time::timeout(Duration::ZERO, &mut answer);
                    if is_silent && answer.await.is_err() {
                        connection.live.wire.cut();
                    }
                }
            }
        }
    }

    /// Shows that Teleport has not answered for some time, before what waits for it gives up.
    fn report_silence(&self, waited: Duration) {
        let message = format!("`{}` does not answer", self.address);
        let since = self.settings.clock.now() - waited.as_millis() as Millis;
        self.status.set_failure_since(CONNECTION, message, since);
    }

    /// Reads the credentials again if their files have changed. Running streams stay on their
    /// connection, which outlives the old certificate; new calls get a connection with the new
    /// certificate. A half-written file changes nothing.
    async fn reload(&self, state: &mut State) {
        let (credentials, before) = (self.settings.credentials.clone(), state.stamps.clone());
        let changed = blocking(move || {
            let stamps = credentials.stamps();
            (stamps != before).then(|| (stamps, credentials.load()))
        });
        let Some((stamps, loaded)) = changed.await else {
            return;
        };
        state.stamps = stamps;
        match loaded {
            Ok(identity) => {
                let (from, until) = (identity.validity.not_before, identity.validity.not_after);
                let user = identity.user.clone();
                *self.user.lock().unwrap_or_else(PoisonError::into_inner) = user;
                if state.identity.replace(identity).is_some() {
                    tracing::info!(until = %time(until), "using new credentials");
                }
                state.connected = None;
                state.failures = None;
                self.status.clear_failure(CREDENTIALS);
                self.status.update(|status| {
                    status.credentials_from = Some(from);
                    status.credentials_until = Some(until);
                });
            }
            Err(error) => {
                let kept = if state.identity.is_some() {
                    " (the previous credentials stay in use)"
                } else {
                    ""
                };
                self.status
                    .set_failure(CREDENTIALS, format!("{error}{kept}"));
            }
        }
    }

    async fn connect(&self, state: &mut State) -> Result<(Clients, Arc<Wire>), Failure> {
        let path = || {
            let path = self.settings.credentials.certificate_path();
            path.display().to_string()
        };
        let identity = state
            .identity
            .as_ref()
            .ok_or_else(|| Failure::Credentials { path: path() })?;
        if identity.validity.not_after <= self.settings.clock.now() {
            return Err(Failure::Expired {
                path: path(),
                until: time(identity.validity.not_after),
            });
        }
        // After a failure the next attempt finds the route anew.
        let last = state.last.take();
        let limit = self.settings.limits.dial;
        // On the heap: every call may have to connect first, and a thread's stack is small.
        let mut dial = Box::pin(self.dial(identity, last.as_ref(), state.logged));
        let patience = self.settings.limits.answer.min(limit);
        let was_silent = std::mem::take(&mut state.is_silent);
        let mut dialled = tokio::time::timeout(patience, &mut dial).await;
        if dialled.is_err() {
            // If the attempt before ended so, its failure still says it.
            if !was_silent {
                self.report_silence(patience);
            }
            dialled = tokio::time::timeout(limit - patience, dial).await;
        }
        let (connected, target) = match dialled {
            Ok(Ok(connected)) => connected,
            Ok(Err(failure)) => {
                let validity = identity.validity;
                let address = self.address.to_string();
                let outbound = self.settings.outbound.as_ref();
                let failure = failure.through(outbound.filter(|one| one.serves(&address)));
                return Err(match self.settings.clock.now() < validity.not_before {
                    true => failure.before_validity(path(), time(validity.not_before)),
                    false => failure,
                });
            }
            Err(_) => {
                state.is_silent = true;
                return Err(Failure::Unreachable {
                    address: self.address.to_string(),
                    reason: format!("no answer within {} s", limit.as_secs()),
                });
            }
        };
        state.logged = Some(target.route);
        state.last = Some(target);
        Ok(connected)
    }

    async fn dial(
        &self,
        identity: &Identity,
        last: Option<&Target>,
        logged: Option<Route>,
    ) -> Result<((Clients, Arc<Wire>), Target), Failure> {
        let (stream, target) = self.dialer.open(identity, last).await?;
        let (wire, stream) = Wire::watch(stream);
        let channel = channel(stream, &self.settings.limits)
            .await
            .map_err(|error| Failure::Lost {
                reason: failure::chain(&error),
            })?;
        let version = self.greet(channel.clone(), &target, logged).await?;
        let clients = Clients::new(channel, version, &self.settings.limits);
        Ok(((clients, wire), target))
    }

    /// The cursors of one cluster would skip the events of another.
    fn is_same(&self, found: &str) -> Result<(), Failure> {
        let expected = self.cluster.get_or_init(|| found.to_owned());
        if expected == found {
            return Ok(());
        }
        Err(Failure::OtherCluster {
            address: self.address.to_string(),
            found: found.to_owned(),
            expected: expected.clone(),
        })
    }

    /// The first call. It shows whether a TLS 1.3 server accepts the client certificate, and its
    /// answer contains the server's version. All later calls claim that version: newer servers
    /// refuse clients whose `version` is too old, measured by Teleport's own version numbers.
    async fn greet(
        &self,
        channel: Channel,
        target: &Target,
        logged: Option<Route>,
    ) -> Result<Version, Failure> {
        let route = target.route;
        let answer = AuthServiceClient::new(channel).ping(PingRequest {}).await;
        let version = match answer {
            Ok(answer) => {
                let answer = answer.into_inner();
                let outbound = self.dialer.outbound(target);
                let why = match (logged == Some(route), outbound) {
                    (true, _) => String::new(),
                    (false, None) => format!(": {}", target.why),
                    (false, Some(outbound)) => format!(
                        ": {}; the outbound proxy is `{outbound}`, as `{}` says",
                        target.why, outbound.variable
                    ),
                };
                tracing::info!(
                    source = &*self.settings.source,
                    cluster = answer.cluster_name,
                    version = answer.server_version,
                    "connected to Teleport {route}{why}"
                );
                let version = Version::of(&answer.server_version);
                self.is_same(&answer.cluster_name)?;
                self.status.update(|status| {
                    status.route = Some(route);
                    status.cluster = Some(answer.cluster_name);
                    status.server_version = Some(answer.server_version);
                });
                version
            }
            Err(status) => match Failure::of(&self.address.to_string(), &status) {
                Failure::Unimplemented { .. } => Version::NONE,
                failure => return Err(failure),
            },
        };
        Ok(version)
    }
}
