//! HTTPS to the proxy: its own certificate, from another authority than the cluster's.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use http::Response;
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use lockgate_model::OutboundProxy;
use rustls::client::Resumption;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::Address;
use super::failure::{chain, find_tls};
use super::outbound::{OutboundFailure, Unopened, open};
use super::proxy::ProxyFailure;
use super::route::Pipe;
use crate::blocking::blocking;

const USER_AGENT: &str = concat!("lockgate/", env!("CARGO_PKG_VERSION"));

/// Asks a proxy over HTTPS. Follows no redirects.
#[derive(Clone, Debug)]
pub(super) struct Web {
    pub address: Address,
    /// Through which it is reached, if it serves the address.
    pub outbound: Option<OutboundProxy>,
    /// The only authorities that may sign its certificate, instead of those of this machine.
    pub proxy_ca: Option<PathBuf>,
}

/// An answer. Dropping it closes the connection.
pub(super) struct Answer {
    pub response: Response<Incoming>,
    _connection: JoinSet<()>,
}

impl Web {
    /// TLS with the proxy's certificate verified.
    pub async fn tls(&self, alpn: &[&[u8]]) -> Result<TlsStream<Box<dyn Pipe>>, WebError> {
        let proxy_ca = self.proxy_ca.clone();
        let roots = blocking(move || roots(proxy_ca.as_deref())).await;
        let roots = roots.map_err(WebError::Roots)?;
        let mut config =
            ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_safe_default_protocol_versions()
                .map_err(|error| WebError::Tls(error.clone()))?
                .with_root_certificates(roots)
                .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        config.resumption = Resumption::disabled();
        let name = ServerName::try_from(self.address.host.clone())
            .map_err(|error| WebError::Io(error.to_string()))?;
        let stream = open(&self.address, self.outbound.as_ref()).await?;
        TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await
            .map_err(|error| match find_tls(&error) {
                Some(error) => WebError::Tls(error.clone()),
                None => WebError::Io(error.to_string()),
            })
    }

    /// GET over HTTP/1.1.
    pub async fn get(
        &self,
        alpn: &[&[u8]],
        path: &str,
        headers: &[(&str, &str)],
    ) -> Result<Answer, WebError> {
        let stream = self.tls(alpn).await?;
        let host = self.address.to_string();
        // As browsers do; some load balancers choose by it.
        let host = host.strip_suffix(":443").unwrap_or(&host);
        exchange(stream, host, path, headers).await
    }

    /// The failure of a request whose connection was not made.
    pub fn failure(&self, error: WebError) -> ProxyFailure {
        let address = self.address.to_string();
        match error {
            WebError::Roots(failure) => failure,
            WebError::Outbound(failure) => failure.into(),
            WebError::Tls(rustls::Error::InvalidCertificate(error)) => ProxyFailure::Certificate {
                address,
                reason: rustls::Error::InvalidCertificate(error).to_string(),
                authorities: match &self.proxy_ca {
                    Some(path) => format!("those in `{}`", path.display()),
                    None => "those that this machine trusts".to_owned(),
                },
            },
            WebError::Tls(error) => ProxyFailure::NoAnswer {
                address,
                reason: error.to_string(),
            },
            WebError::Io(reason) => ProxyFailure::NoAnswer { address, reason },
        }
    }
}

/// Read each time, so that a file that was replaced is used at the next attempt. Blocks meanwhile.
fn roots(proxy_ca: Option<&Path>) -> Result<RootCertStore, ProxyFailure> {
    let Some(path) = proxy_ca else {
        return platform_roots();
    };
    authorities(path).map_err(|reason| ProxyFailure::Authorities {
        path: path.display().to_string(),
        reason,
    })
}

/// GET over HTTP/1.1, on a stream to that host.
pub(super) async fn exchange<S: Pipe + 'static>(
    stream: S,
    host: &str,
    path: &str,
    headers: &[(&str, &str)],
) -> Result<Answer, WebError> {
    let broken = |error: hyper::Error| WebError::Io(chain(&error));
    let (mut sender, connection) = http1(stream).await.map_err(broken)?;
    let mut request = http::Request::get(path)
        .header(http::header::HOST, host)
        .header(http::header::USER_AGENT, USER_AGENT);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request
        .body(Empty::<Bytes>::new())
        .map_err(|error| WebError::Io(error.to_string()))?;
    let response = sender.send_request(request).await.map_err(broken)?;
    Ok(Answer {
        response,
        _connection: connection,
    })
}

/// HTTP/1.1 on a stream. Dropping the task closes the connection, unless it has been upgraded.
pub(super) async fn http1<S: Pipe + 'static>(
    stream: S,
) -> Result<(SendRequest<Empty<Bytes>>, JoinSet<()>), hyper::Error> {
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let mut task = JoinSet::new();
    task.spawn(async move {
        // Its error is that of the request, too.
        let _ = connection.with_upgrades().await;
    });
    Ok((sender, task))
}

impl Answer {
    /// When it was given, by the clock of who gave it.
    pub fn date(&self) -> Option<String> {
        let date = self.response.headers().get(http::header::DATE)?;
        date.to_str().ok().map(str::to_owned)
    }
}

/// Why there was no answer.
#[derive(Debug)]
pub(super) enum WebError {
    Roots(ProxyFailure),
    Tls(rustls::Error),
    Outbound(OutboundFailure),
    Io(String),
}

impl From<Unopened> for WebError {
    fn from(unopened: Unopened) -> WebError {
        match unopened {
            Unopened::Direct(error) => WebError::Io(error.to_string()),
            Unopened::Outbound(failure) => WebError::Outbound(failure),
        }
    }
}

/// The authorities that this machine trusts. Blocks while it reads files.
pub(super) fn platform_roots() -> Result<RootCertStore, ProxyFailure> {
    let mut roots = RootCertStore::empty();
    // A platform's bundle may contain certificates that cannot be parsed.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err(ProxyFailure::NoAuthorities);
    }
    Ok(roots)
}

/// The authorities in a `proxy-ca`. The error is the end of a sentence. Blocks while it reads the
/// file.
pub fn authorities(path: &Path) -> Result<RootCertStore, String> {
    let file = std::fs::read(path).map_err(|error| error.to_string())?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&file) {
        let certificate = certificate.map_err(|error| error.to_string())?;
        roots.add(certificate).map_err(|error| error.to_string())?;
    }
    if roots.is_empty() {
        return Err("it contains no certificate in PEM (`-----BEGIN CERTIFICATE-----`)".to_owned());
    }
    Ok(roots)
}
