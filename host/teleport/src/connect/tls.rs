//! Mutual TLS with the Auth Service. It is the same for every route.

use std::fmt;
use std::io::ErrorKind;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_name;
use rustls::server::ParsedCertificate;
use rustls::{DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::io::AsyncBufReadExt;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::failure::of_io;
use super::route::Pipe;
use super::{Failure, SERVER_NAME, Side};
use crate::identity::Identity;

/// How long to wait for the server's first bytes. A server that does not speak first is fine.
const FIRST_BYTES: Duration = Duration::from_secs(1);

/// A connection to the Auth Service, ready for HTTP/2.
pub(super) type Secured = TlsStream<Box<dyn Pipe>>;

/// Why a handshake failed, and what it showed of the server.
#[derive(Debug)]
pub(super) struct Refused {
    pub failure: Failure,
    pub server: Server,
    /// The other side closed the connection instead of answering.
    pub is_closed: bool,
}

/// Who answers, as its certificate shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Server {
    /// It has shown no certificate.
    #[default]
    Unknown,
    /// The Auth Service of the cluster that issued the credentials.
    OurAuth,
    /// The Auth Service of another cluster.
    OtherAuth,
    /// A web server: a proxy, a load balancer, or something that has nothing to do with Teleport.
    Web,
}

/// Opens TLS over a byte stream. A route through a proxy has a routing entry, which comes first.
pub(super) async fn secure(
    pipe: Box<dyn Pipe>,
    identity: &Identity,
    routing_entry: Option<String>,
    address: &str,
) -> Result<Secured, Refused> {
    let mut alpn: Vec<&[u8]> = Vec::new();
    alpn.extend(routing_entry.as_ref().map(String::as_bytes));
    alpn.push(b"h2");
    shake_hands(pipe, identity, &alpn, address).await
}

/// Opens TLS, in which the last of these protocols is spoken.
pub(super) async fn shake_hands(
    pipe: Box<dyn Pipe>,
    identity: &Identity,
    alpn: &[&[u8]],
    address: &str,
) -> Result<Secured, Refused> {
    let is_http2 = alpn.last() == Some(&&b"h2"[..]);
    let ours = |reason: String| Refused {
        failure: Failure::Tls {
            address: address.to_owned(),
            side: Side::Ours,
            reason,
        },
        server: Server::Unknown,
        is_closed: false,
    };
    let mut config = identity
        .tls(alpn)
        .map_err(|error| ours(error.to_string()))?;
    let verifier = identity
        .verifier()
        .map_err(|error| ours(error.to_string()))?;
    let verifier = Arc::new(Observing {
        verifier,
        server: Mutex::default(),
    });
    config
        .dangerous()
        .set_certificate_verifier(verifier.clone());
    let refused = |error: &std::io::Error| Refused {
        failure: of_io(address, error),
        server: verifier.server(),
        is_closed: matches!(
            error.kind(),
            ErrorKind::UnexpectedEof
                | ErrorKind::ConnectionReset
                | ErrorKind::ConnectionAborted
                | ErrorKind::BrokenPipe
        ),
    };
    let name = ServerName::try_from(SERVER_NAME).expect("a constant name");
    let mut stream = TlsConnector::from(Arc::new(config))
        .connect(name, pipe)
        .await
        .map_err(|error| refused(&error))?;
    // A server of HTTP/1.1 waits for the client.
    if !is_http2 {
        return Ok(stream);
    }
    let negotiated = stream.get_ref().1.alpn_protocol();
    if negotiated != Some(b"h2") {
        let negotiated = negotiated.map(|name| String::from_utf8_lossy(name).into_owned());
        return Err(Refused {
            failure: Failure::NoHttp2 {
                address: address.to_owned(),
                negotiated,
            },
            server: verifier.server(),
            is_closed: false,
        });
    }
    // In TLS 1.3 a server refuses a client certificate after the handshake. Its alert is then the
    // first thing to read, and may be lost once a request has been written. A server that accepts
    // the certificate begins with its HTTP/2 settings.
    match tokio::time::timeout(FIRST_BYTES, stream.fill_buf()).await {
        Ok(Err(error)) => Err(refused(&error)),
        Ok(Ok([])) => Err(refused(&ErrorKind::UnexpectedEof.into())),
        Ok(Ok(_)) | Err(_) => Ok(stream),
    }
}

/// Verifies as `verifier` does, and remembers whose certificate it was.
struct Observing {
    verifier: Arc<dyn ServerCertVerifier>,
    server: Mutex<Server>,
}

impl Observing {
    fn server(&self) -> Server {
        *self.server.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Observing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Observing").finish_non_exhaustive()
    }
}

impl ServerCertVerifier for Observing {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verified = self.verifier.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        );
        // Every Auth Service has this name, and no web server has it.
        let names_auth = ParsedCertificate::try_from(end_entity)
            .is_ok_and(|certificate| verify_server_name(&certificate, server_name).is_ok());
        *self.server.lock().unwrap_or_else(PoisonError::into_inner) =
            match (verified.is_ok(), names_auth) {
                (true, _) => Server::OurAuth,
                (false, true) => Server::OtherAuth,
                (false, false) => Server::Web,
            };
        verified
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier
            .verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}
