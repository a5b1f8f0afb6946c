//! Connections to Teleport's Auth service.
//!
//! How bytes get there is [`Route`]; the TLS on top and the gRPC inside are the same for all.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use lockgate_backoff::Backoff;
use lockgate_model::Millis;
use rustls_pki_types::ServerName;
use tokio::io::AsyncBufReadExt;
use tokio::sync::Mutex;
use tokio_rustls::TlsConnector;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use crate::identity::{Identity, Stamp};
use crate::proto::auditlog::audit_log_service_client::AuditLogServiceClient;
use crate::proto::authservice::PingRequest;
use crate::proto::authservice::auth_service_client::AuthServiceClient;
use crate::status::Board;
use crate::{Limits, Settings};

mod address;
mod failure;
mod route;

pub use address::{Address, AddressError};
pub use failure::{Failure, Side};
pub use route::Route;

use failure::of_io;

/// The name every Auth service's certificate has; the dialled address is never verified.
pub const SERVER_NAME: &str = "teleport.cluster.local";

/// Bytes in flight: a stream's and a connection's window, and the largest frame. Throughput over a
/// long way needs them large.
const WINDOWS: (u32, u32, u32) = (4 << 20, 8 << 20, 1 << 20);

/// How long the server's first bytes are waited for; one that does not speak first is all right.
const FIRST_BYTES: Duration = Duration::from_secs(1);

const PLACE: &str = "connection";

pub(crate) type AuditLog = AuditLogServiceClient<InterceptedService<Channel, Version>>;

/// The audit log's service over a connection that stood a moment ago.
pub(crate) struct Client {
    pub(crate) audit: AuditLog,
    /// Which connection of the link it is.
    pub(crate) generation: u64,
}

/// The connection that all tasks of a source share. It is made anew, with backoff, when it breaks
/// and when the credentials changed.
pub(crate) struct Link {
    address: Address,
    route: Route,
    settings: Settings,
    board: Board,
    state: Mutex<State>,
    /// Of the newest connection.
    generation: AtomicU64,
}

#[derive(Default)]
struct State {
    connected: Option<AuditLog>,
    generation: u64,
    identity: Option<Identity>,
    /// Of the files that `identity` was read from, or that could not be used.
    stamp: Stamp,
    failures: Option<Backoff>,
}

impl Link {
    pub(crate) fn new(address: Address, settings: Settings, board: Board) -> Link {
        Link {
            address,
            route: Route::Direct,
            settings,
            board,
            state: Mutex::default(),
            generation: AtomicU64::new(0),
        }
    }

    /// A client, as soon as there is a connection. Never fails: it tries for ever, and says so in
    /// the status.
    pub(crate) async fn client(&self) -> Client {
        let mut state = self.state.lock().await;
        loop {
            self.reload(&mut state);
            if let Some(audit) = &state.connected {
                return Client {
                    audit: audit.clone(),
                    generation: state.generation,
                };
            }
            match self.connect(&state).await {
                Ok(audit) => {
                    state.connected = Some(audit);
                    state.generation += 1;
                    self.generation.store(state.generation, Ordering::Relaxed);
                    state.failures = None;
                    self.board.clear(PLACE);
                }
                Err(failure) => {
                    self.board.trouble(PLACE, failure.to_string());
                    let (first, max) = self.settings.limits.backoff;
                    let failures = state
                        .failures
                        .get_or_insert_with(|| Backoff::new(first, max));
                    let wait = failures.next(self.settings.clock.chance());
                    tokio::time::sleep(wait).await;
                }
            }
        }
    }

    /// Which connection is the newest.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Relaxed)
    }

    /// Says that a call over a client failed; where it was the connection, the next client gets
    /// another.
    pub(crate) async fn failed(&self, generation: u64, failure: &Failure) {
        let mut state = self.state.lock().await;
        if failure.is_connection() && state.generation == generation {
            state.connected = None;
        }
    }

    /// Reads the credentials again where their files changed. Streams that run stay on their
    /// connection, which outlives the old certificate; new calls get a connection with the new
    /// one. A file that is half written leaves everything as it was.
    fn reload(&self, state: &mut State) {
        let stamp = self.settings.credentials.stamp();
        if stamp == state.stamp {
            return;
        }
        state.stamp = stamp;
        match self.settings.credentials.load() {
            Ok(identity) => {
                let until = identity.not_after;
                if state.identity.replace(identity).is_some() {
                    tracing::info!(until = %time(until), "using new credentials");
                }
                state.connected = None;
                state.failures = None;
                self.board.clear("credentials");
                self.board
                    .update(|status| status.credentials_until = Some(until));
            }
            Err(error) => {
                let kept = if state.identity.is_some() {
                    " (the ones read before stay in use)"
                } else {
                    ""
                };
                self.board.trouble("credentials", format!("{error}{kept}"));
            }
        }
    }

    async fn connect(&self, state: &State) -> Result<AuditLog, Failure> {
        let identity = state
            .identity
            .as_ref()
            .ok_or_else(|| Failure::Credentials {
                path: self
                    .settings
                    .credentials
                    .certificate_path()
                    .display()
                    .to_string(),
            })?;
        if identity.not_after <= self.settings.clock.now() {
            return Err(Failure::Expired {
                path: self
                    .settings
                    .credentials
                    .certificate_path()
                    .display()
                    .to_string(),
                until: time(identity.not_after),
            });
        }
        let limit = self.settings.limits.dial;
        match tokio::time::timeout(limit, self.dial(identity)).await {
            Ok(result) => result,
            Err(_) => Err(Failure::Unreachable {
                address: self.address.to_string(),
                reason: format!("no answer within {} s", limit.as_secs()),
            }),
        }
    }

    async fn dial(&self, identity: &Identity) -> Result<AuditLog, Failure> {
        let address = self.address.to_string();
        let pipe = self
            .route
            .open(&self.address)
            .await
            .map_err(|error| Failure::Unreachable {
                address: address.clone(),
                reason: error.to_string(),
            })?;
        let tls = identity
            .tls(&self.route.alpn())
            .map_err(|error| Failure::Tls {
                address: address.clone(),
                side: Side::Ours,
                reason: error.to_string(),
            })?;
        let name = ServerName::try_from(SERVER_NAME).expect("a constant name");
        let mut stream = TlsConnector::from(Arc::new(tls))
            .connect(name, pipe)
            .await
            .map_err(|error| of_io(&address, &error))?;
        let negotiated = stream.get_ref().1.alpn_protocol();
        if negotiated != Some(b"h2") {
            let negotiated = negotiated.map(|name| String::from_utf8_lossy(name).into_owned());
            return Err(Failure::NoHttp2 {
                address,
                negotiated,
            });
        }
        // In TLS 1.3 a server refuses a client's certificate after the handshake. Then its alert is
        // the first thing to be read, and once a request was written that may be lost. A
        // server that accepts begins with its HTTP/2 settings.
        match tokio::time::timeout(FIRST_BYTES, stream.fill_buf()).await {
            Ok(Err(error)) => return Err(of_io(&address, &error)),
            Ok(Ok([])) => return Err(of_io(&address, &std::io::ErrorKind::UnexpectedEof.into())),
            Ok(Ok(_)) | Err(_) => {}
        }
        let channel = channel(stream, &self.settings.limits)
            .await
            .map_err(|error| Failure::Lost {
                reason: failure::chain(&error),
            })?;
        let version = self.greet(channel.clone()).await?;
        Ok(AuditLogServiceClient::with_interceptor(channel, version)
            .max_decoding_message_size(self.settings.limits.message_bytes))
    }

    /// The first call. A client certificate that TLS 1.3 refuses is refused only now; and the
    /// answer tells the server's version, which is what all later calls say of themselves:
    /// newer servers refuse clients whose `version` is older than they like, and they measure
    /// it on Teleport's own numbers.
    async fn greet(&self, channel: Channel) -> Result<Version, Failure> {
        let answer = AuthServiceClient::new(channel).ping(PingRequest {}).await;
        let version = match answer {
            Ok(answer) => {
                let answer = answer.into_inner();
                tracing::info!(
                    cluster = answer.cluster_name,
                    version = answer.server_version,
                    "connected to Teleport"
                );
                let version = Version::of(&answer.server_version);
                self.board.update(|status| {
                    status.cluster = Some(answer.cluster_name);
                    status.server_version = Some(answer.server_version);
                });
                version
            }
            Err(status) => match Failure::of(&self.address.to_string(), &status) {
                Failure::Unimplemented { .. } => None,
                failure => return Err(failure),
            },
        };
        Ok(Version(version))
    }
}

/// Adds the `version` of the client to each call.
#[derive(Clone, Debug)]
pub(crate) struct Version(Option<MetadataValue<Ascii>>);

impl Version {
    fn of(server: &str) -> Option<MetadataValue<Ascii>> {
        let server = if server.is_empty() {
            env!("CARGO_PKG_VERSION")
        } else {
            server
        };
        server.parse().ok()
    }
}

impl Interceptor for Version {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(version) = &self.0 {
            request.metadata_mut().insert("version", version.clone());
        }
        Ok(request)
    }
}

/// gRPC over one connection. When it is gone the channel is of no more use: [`Link`] makes another,
/// as only it can say why.
async fn channel<S>(stream: S, limits: &Limits) -> Result<Channel, tonic::transport::Error>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
{
    let mut stream = Some(TokioIo::new(stream));
    let once = tower::service_fn(move |_| {
        let stream = stream
            .take()
            .ok_or_else(|| std::io::Error::other("the connection is gone"));
        async move { stream }
    });
    let (stream_window, connection_window, frame) = WINDOWS;
    Endpoint::from_static("http://teleport.cluster.local")
        .origin(http::Uri::from_static("https://teleport.cluster.local"))
        .user_agent(concat!("lockgate/", env!("CARGO_PKG_VERSION")))?
        .http2_keep_alive_interval(limits.keepalive.max(Duration::from_secs(60)))
        .keep_alive_timeout(limits.keepalive_timeout)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(stream_window)
        .initial_connection_window_size(connection_window)
        .max_frame_size(frame)
        .connect_with_connector(once)
        .await
}

pub(crate) fn time(millis: Millis) -> String {
    jiff::Timestamp::from_millisecond(millis)
        .map_or_else(|_| format!("{millis} ms"), |time| time.to_string())
}

/// A time as the store keeps it.
pub(crate) fn parse_time(text: &str) -> Option<Millis> {
    text.parse::<jiff::Timestamp>()
        .ok()
        .map(|time| time.as_millisecond())
}

pub(crate) fn to_proto(millis: Millis) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: millis.div_euclid(1000),
        nanos: (millis.rem_euclid(1000) * 1_000_000) as i32,
    }
}

/// Cut to the millisecond before. An absent time is the Unix epoch, as in protobuf.
pub(crate) fn of_proto(time: Option<&prost_types::Timestamp>) -> Millis {
    time.map_or(0, |time| {
        time.seconds
            .saturating_mul(1000)
            .saturating_add(i64::from(time.nanos).div_euclid(1_000_000))
    })
}
