//! A simulated Teleport Auth.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};

use lockgate_model::Millis;
use lockgate_teleport::proto::auditlog::audit_log_service_server::AuditLogServiceServer;
use lockgate_teleport::proto::auditlog::{
    EventUnstructured, EventsUnstructured, GetUnstructuredEventsRequest,
};
use lockgate_teleport::proto::authservice::LockV2;
use lockgate_teleport::proto::authservice::auth_service_server::AuthServiceServer;
use prost::Message;
use prost_types::value::Kind;
use prost_types::{Struct, Timestamp, Value};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::DuplexStream;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tonic::Status;
use tonic::codegen::tokio_stream::Stream;

use crate::fixture::Authority;

mod search;
mod services;

pub use search::{PAGE_BYTES, Planned, Search, file_backend, growing, search};

/// How a chunk behaves.
#[derive(Clone, Debug, Default)]
pub struct Chunk {
    pub events: Vec<EventUnstructured>,
    /// Falls silent after this many events.
    pub hangs_after: Option<usize>,
    pub is_missing: bool,
    /// The status with which each stream ends at this position.
    pub breaks_after: Option<(usize, Status)>,
}

/// How a recording behaves.
#[derive(Clone, Debug, Default)]
pub struct Recording {
    pub events: Vec<EventUnstructured>,
    /// Requests that find it missing.
    pub missing: usize,
    /// For each request that fails: after how many events, and with which status.
    pub breaks: Vec<(usize, Status)>,
    /// Falls silent after its events.
    pub hangs: bool,
}

/// The server's data and behaviour, and a record of the requests.
pub struct Script {
    /// `None`: the server does not support bulk export.
    pub chunks: Option<BTreeMap<String, BTreeMap<String, Chunk>>>,
    /// Every third stream breaks, at a varying position.
    pub is_flaky: bool,
    pub events: Vec<EventUnstructured>,
    pub search: Search,
    /// `None`: the server does not support the call.
    pub recordings: Option<HashMap<String, Recording>>,
    /// By name.
    pub locks: BTreeMap<String, LockV2>,
    /// Each lock that was made, in order.
    pub made_locks: Vec<LockV2>,
    /// The answers to calls that make locks, and to those that read them, in their place.
    pub lock_faults: (Option<Status>, Option<Status>),
    /// Of these users no lock may be made.
    pub protected: Vec<String>,
    /// Searches, and requests for lists of chunks, are not answered as long as this is so.
    pub is_silent: (bool, bool),
    /// Calls that make or read locks are never answered.
    pub locks_hang: bool,
    pub ping: Result<(), Status>,
    pub cluster: String,
    pub searches: Vec<GetUnstructuredEventsRequest>,
    /// Dates whose chunks were requested.
    pub lists: Vec<String>,
    /// (session, start index) of each recording opened.
    pub opened: Vec<(String, i32)>,
    /// `version` of each call except Ping.
    pub versions: Vec<Option<String>>,
    /// The certificate of each connection's client.
    pub clients: Vec<Vec<u8>>,
    pub streams: u64,
}

impl Default for Script {
    fn default() -> Script {
        Script {
            chunks: None,
            is_flaky: false,
            events: Vec::new(),
            search: file_backend(),
            recordings: Some(HashMap::new()),
            locks: BTreeMap::new(),
            made_locks: Vec::new(),
            lock_faults: (None, None),
            protected: Vec::new(),
            is_silent: (false, false),
            locks_hang: false,
            ping: Ok(()),
            cluster: "example.com".to_owned(),
            searches: Vec::new(),
            lists: Vec::new(),
            opened: Vec::new(),
            versions: Vec::new(),
            clients: Vec::new(),
            streams: 0,
        }
    }
}

#[derive(Clone)]
pub struct Fake {
    script: Arc<Mutex<Script>>,
    _tasks: Arc<JoinSet<()>>,
    pub address: SocketAddr,
}

/// How the server's TLS behaves.
pub struct Tls {
    pub alpn: Vec<Vec<u8>>,
    /// The authority whose clients it accepts; its own by default.
    pub clients_of: Option<String>,
}

impl Default for Tls {
    fn default() -> Tls {
        Tls {
            alpn: vec![b"h2".to_vec()],
            clients_of: None,
        }
    }
}

impl Fake {
    pub async fn start(authority: &Authority, script: Script) -> Fake {
        Fake::start_with(authority, script, Tls::default(), 0).await
    }

    pub async fn start_with(authority: &Authority, script: Script, tls: Tls, port: u16) -> Fake {
        let listener = TcpListener::bind(("127.0.0.1", port))
            .await
            .expect("a port");
        let address = listener.local_addr().expect("an address");
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(server_config(authority, tls)));
        let script = Arc::new(Mutex::new(script));
        let (accepted, incoming) = mpsc::channel(16);
        let mut tasks = JoinSet::new();
        let noted = script.clone();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                let (acceptor, accepted, noted) =
                    (acceptor.clone(), accepted.clone(), noted.clone());
                connections.spawn(async move {
                    let Ok(mut stream) = acceptor.accept(socket).await else {
                        return;
                    };
                    let client = stream
                        .get_ref()
                        .1
                        .peer_certificates()
                        .and_then(<[_]>::first)
                        .map(|cert| cert.to_vec());
                    noted
                        .lock()
                        .expect("no panic")
                        .clients
                        .push(client.unwrap_or_default());
                    let (mut near, far) = tokio::io::duplex(1 << 20);
                    if accepted.send(Ok(far)).await.is_ok() {
                        let _ = tokio::io::copy_bidirectional(&mut stream, &mut near).await;
                    }
                });
            }
        });
        let services = services::Services {
            script: script.clone(),
        };
        tasks.spawn(async move {
            let _ = tonic::transport::Server::builder()
                .add_service(
                    AuditLogServiceServer::new(services.clone())
                        .max_encoding_message_size(usize::MAX),
                )
                .add_service(AuthServiceServer::new(services))
                .serve_with_incoming(Incoming(incoming))
                .await;
        });
        Fake {
            script,
            _tasks: Arc::new(tasks),
            address,
        }
    }

    pub fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().expect("no panic")
    }
}

struct Incoming(mpsc::Receiver<std::io::Result<DuplexStream>>);

impl Stream for Incoming {
    type Item = std::io::Result<DuplexStream>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(cx)
    }
}

fn server_config(authority: &Authority, tls: Tls) -> rustls::ServerConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let pem = |text: &str| CertificateDer::from_pem_slice(text.as_bytes()).expect("a certificate");
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(pem(&tls.clients_of.unwrap_or_else(|| authority.pem())))
        .expect("a root");
    let verifier =
        rustls::server::WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone())
            .build();
    let (certificate, key) = authority.sign("teleport.cluster.local", 2090);
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_client_cert_verifier(verifier.expect("a verifier"))
        .with_single_cert(
            vec![pem(&certificate)],
            PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("a key"),
        )
        .expect("a configuration");
    config.alpn_protocols = tls.alpn;
    config
}

pub type Page = Result<EventsUnstructured, Status>;

/// An event with a uid; `extra`: further fields.
pub fn event(
    uid: &str,
    event_type: &str,
    time: Millis,
    index: i64,
    extra: &[(&str, &str)],
) -> EventUnstructured {
    let text = |text: &str| Value {
        kind: Some(Kind::StringValue(text.to_owned())),
    };
    let mut fields = BTreeMap::from([
        ("event".to_owned(), text(event_type)),
        ("uid".to_owned(), text(uid)),
    ]);
    fields.extend(
        extra
            .iter()
            .map(|(key, value)| ((*key).to_owned(), text(value))),
    );
    fields.insert(
        "ei".to_owned(),
        Value {
            kind: Some(Kind::NumberValue(index as f64)),
        },
    );
    EventUnstructured {
        r#type: event_type.to_owned(),
        id: uid.to_owned(),
        time: Some(Timestamp {
            seconds: time.div_euclid(1000),
            nanos: time.rem_euclid(1000) as i32 * 1_000_000,
        }),
        index,
        unstructured: Struct { fields }.encode_to_vec().into(),
    }
}

pub fn time_of(event: &EventUnstructured) -> Millis {
    let time = event.time.unwrap_or_default();
    time.seconds * 1000 + i64::from(time.nanos) / 1_000_000
}
