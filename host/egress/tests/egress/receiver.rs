//! A receiver on a socket of its own, with or without TLS.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{
    HandshakeKind, RootCertStore, ServerConfig, SupportedProtocolVersion, crypto, version,
};

use crate::certs::{Authority, Leaf};

pub const BOTH: &[&SupportedProtocolVersion] = &[&version::TLS12, &version::TLS13];

/// A receiver on its own socket, until it is dropped.
pub struct Receiver {
    pub addr: SocketAddr,
    log: Arc<Mutex<Log>>,
    task: JoinHandle<()>,
}

#[derive(Default)]
pub struct Log {
    pub connections: usize,
    pub handshakes: Vec<HandshakeKind>,
    /// TLS errors that the receiver saw.
    pub tls_errors: Vec<String>,
    pub requests: Vec<ReceivedRequest>,
    concurrent: usize,
    /// The most requests handled at the same time.
    pub max_concurrent: usize,
}

#[derive(Clone, Debug)]
pub struct ReceivedRequest {
    pub method: String,
    pub uri: String,
    pub headers: Vec<(String, String)>,
    pub body: Bytes,
}

impl ReceivedRequest {
    pub fn header(&self, name: &str) -> Vec<&str> {
        self.headers
            .iter()
            .filter(|(given, _)| given == name)
            .map(|(_, value)| value.as_str())
            .collect()
    }
}

pub type Answer = Response<Full<Bytes>>;

pub fn answer(status: u16, body: impl Into<Bytes>) -> Answer {
    Response::builder()
        .status(status)
        .body(Full::new(body.into()))
        .unwrap()
}

/// Requires a certificate of `clients`, if given. Issues session tickets and caches sessions, like
/// most servers.
pub fn server_config(
    leaf: &Leaf,
    clients: Option<&Authority>,
    versions: &[&'static SupportedProtocolVersion],
) -> ServerConfig {
    let provider = Arc::new(crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(versions)
        .unwrap();
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(authority) => {
            let mut roots = RootCertStore::empty();
            roots
                .add(CertificateDer::from_pem_slice(authority.pem.as_bytes()).unwrap())
                .unwrap();
            builder.with_client_cert_verifier(
                WebPkiClientVerifier::builder_with_provider(roots.into(), provider)
                    .build()
                    .unwrap(),
            )
        }
    };
    let chain = vec![CertificateDer::from_pem_slice(leaf.cert.as_bytes()).unwrap()];
    let mut config = builder
        .with_single_cert(
            chain,
            PrivateKeyDer::from_pem_slice(leaf.key.as_bytes()).unwrap(),
        )
        .unwrap();
    config.ticketer = crypto::ring::Ticketer::new().unwrap();
    config
}

impl Receiver {
    pub async fn start<F>(
        tls: Option<ServerConfig>,
        answer: impl Fn(ReceivedRequest) -> F + Send + Sync + 'static,
    ) -> Receiver
    where
        F: Future<Output = Answer> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let log = Arc::new(Mutex::new(Log::default()));
        let (shared, answer) = (log.clone(), Arc::new(answer));
        let acceptor = tls.map(|config| TlsAcceptor::from(Arc::new(config)));
        let task = tokio::spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                socket.set_nodelay(true).unwrap();
                let (log, answer, acceptor) = (shared.clone(), answer.clone(), acceptor.clone());
                log.lock().unwrap().connections += 1;
                tokio::spawn(async move {
                    let Some(acceptor) = acceptor else {
                        return serve(socket, log, answer).await;
                    };
                    match acceptor.accept(socket).await {
                        Ok(socket) => {
                            log.lock()
                                .unwrap()
                                .handshakes
                                .extend(socket.get_ref().1.handshake_kind());
                            serve(socket, log, answer).await
                        }
                        Err(error) => log.lock().unwrap().tls_errors.push(error.to_string()),
                    }
                });
            }
        });
        Receiver { addr, log, task }
    }

    pub fn url(&self, scheme: &str, path: &str) -> String {
        format!("{scheme}://localhost:{}{path}", self.addr.port())
    }

    pub fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve<S, A, F>(socket: S, log: Arc<Mutex<Log>>, answer: Arc<A>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    A: Fn(ReceivedRequest) -> F + Send + Sync + 'static,
    F: Future<Output = Answer> + Send + 'static,
{
    let service = service_fn(move |request: Request<Incoming>| {
        let (log, answer) = (log.clone(), answer.clone());
        async move {
            let (head, body) = request.into_parts();
            let text = |value: &hyper::header::HeaderValue| {
                String::from_utf8_lossy(value.as_bytes()).into_owned()
            };
            let seen = ReceivedRequest {
                method: head.method.to_string(),
                uri: head.uri.to_string(),
                headers: head
                    .headers
                    .iter()
                    .map(|(name, value)| (name.to_string(), text(value)))
                    .collect(),
                body: body
                    .collect()
                    .await
                    .map(|body| body.to_bytes())
                    .unwrap_or_default(),
            };
            {
                let mut log = log.lock().unwrap();
                log.requests.push(seen.clone());
                log.concurrent += 1;
                log.max_concurrent = log.max_concurrent.max(log.concurrent);
            }
            let answer = answer(seen).await;
            log.lock().unwrap().concurrent -= 1;
            Ok::<_, Infallible>(answer)
        }
    });
    let _ = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(socket), service)
        .await;
}
