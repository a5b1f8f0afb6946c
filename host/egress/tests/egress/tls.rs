//! Trust between the host and a receiver.

use std::sync::Arc;

use lockgate_egress::{ClientCertificate, Destination, Endpoint, Party, Pem, SendError};
use rcgen::{BasicConstraints, CertificateParams, IsCa, date_time_ymd};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::{
    ClientConfig, HandshakeKind, ServerConfig, SupportedProtocolVersion, version,
};

use crate::certs::{Authority, Leaf};
use crate::receiver::{BOTH, Receiver, answer, server_config};
use crate::{checked, client, post, request};

const VERSIONS: [&[&SupportedProtocolVersion]; 3] = [BOTH, &[&version::TLS12], &[&version::TLS13]];

/// Sends once to a receiver with this TLS and returns the status.
async fn deliver(
    tls: ServerConfig,
    change: impl FnOnce(&mut Endpoint),
    body: usize,
) -> Result<u16, SendError> {
    let receiver = Receiver::start(Some(tls), async |seen| answer(200, seen.body)).await;
    let client = client(&receiver.url("https", "/"), change);
    let response = post(
        &client,
        &checked(&client, request(vec![b'x'; body])),
        Destination::Url,
        usize::MAX / 2,
    )
    .await?;
    assert_eq!(response.body, "x".repeat(body));
    Ok(response.status)
}

#[tokio::test]
async fn a_receiver_that_requires_a_client_certificate_gets_it() {
    let (ours, theirs) = (Authority::new("clients"), Authority::new("servers"));
    for versions in VERSIONS {
        let trusted = |endpoint: &mut Endpoint| {
            endpoint.ca = Some(theirs.ca());
            endpoint.client_certificate = Some(ours.client());
        };
        assert_eq!(
            deliver(
                server_config(&theirs.server(), Some(&ours), versions),
                trusted,
                1 << 20
            )
            .await,
            Ok(200)
        );
    }
}

#[tokio::test]
async fn a_missing_or_foreign_client_certificate_is_the_receivers_refusal() {
    let (ours, theirs, foreign) = (
        Authority::new("clients"),
        Authority::new("servers"),
        Authority::new("foreign"),
    );
    for versions in VERSIONS {
        for (client_certificate, words) in [
            (None, "client certificate"),
            (Some(foreign.client()), "refused the client certificate"),
        ] {
            // A small body, and one larger than the socket buffers, so that the refusal arrives
            // while writing.
            for body in [2, 8 << 20] {
                let tls = server_config(&theirs.server(), Some(&ours), versions);
                let change = |endpoint: &mut Endpoint| {
                    endpoint.ca = Some(theirs.ca());
                    endpoint.client_certificate = client_certificate.clone();
                };
                let error = deliver(tls, change, body).await.unwrap_err();
                // TLS 1.3 refuses after the handshake. With a large request, a connection reset can
                // then lose the alert.
                let lost = versions != [&version::TLS12] && body > 2 && error == SendError::Closed;
                assert!(
                    lost || matches!(
                        error,
                        SendError::Tls {
                            refused_by: Party::Receiver,
                            ..
                        }
                    ),
                    "{error:?}"
                );
                assert!(lost || error.to_string().contains(words), "{error}");
                assert!(error.hint().unwrap().contains("client certificate"));
            }
        }
    }
}

#[tokio::test]
async fn a_receiver_with_an_invalid_certificate_gets_nothing() {
    let (known, unknown) = (Authority::new("known"), Authority::new("unknown"));
    let expired = known.sign("localhost", |params| {
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2020, 2, 1);
    });
    let early = known.sign("localhost", |params| {
        params.not_before = date_time_ymd(2998, 1, 1);
        params.not_after = date_time_ymd(2999, 1, 1);
    });
    let authority = known.sign("localhost", |params| {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    });
    let named = known.sign("elsewhere.example", |params| {
        let more = ["one", "two", "three", "four", "five"].map(|name| format!("{name}.example"));
        let more = CertificateParams::new(more).unwrap().subject_alt_names;
        params.subject_alt_names.extend(more);
    });
    let namesake = Authority::new("known");
    for (leaf, words, way_out) in [
        (
            namesake.server(),
            "another authority of the same name has signed it",
            "set `tls.ca`",
        ),
        (
            unknown.server(),
            "its authority is not trusted",
            "set `tls.ca`",
        ),
        (
            known.sign("elsewhere.example", |_| {}),
            "it is for `elsewhere.example`, not for the host of the URL",
            "use a host name in the URL that the certificate has",
        ),
        (
            named,
            "it is for `elsewhere.example`, `one.example`, `two.example`, `three.example`, \
             `four.example` and 1 more, not for the host of the URL",
            "use a host name in the URL that the certificate has",
        ),
        (
            expired,
            "it expired at 2020-02-01T00:00:00Z",
            "renew the certificate at the receiver",
        ),
        (
            early,
            "it is not valid before 2998-01-01T00:00:00Z",
            "check the clocks",
        ),
        (
            authority,
            "it is the certificate of an authority (`CA:TRUE`), not of a server",
            "CA:FALSE",
        ),
    ] {
        let error = deliver(
            server_config(&leaf, None, BOTH),
            |endpoint| endpoint.ca = Some(known.ca()),
            2,
        )
        .await
        .unwrap_err();
        assert!(
            matches!(
                error,
                SendError::Tls {
                    refused_by: Party::Us,
                    ..
                }
            ),
            "{error:?}"
        );
        assert!(error.to_string().ends_with(words), "{error}");
        assert!(error.hint().unwrap().contains(way_out), "{error:?}");
    }
}

#[tokio::test]
async fn a_client_certificate_that_has_expired_is_named_with_its_end() {
    let (ours, theirs) = (Authority::new("clients"), Authority::new("servers"));
    let leaf = ours.sign("lockgate", |params| {
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2020, 2, 1);
    });
    for versions in VERSIONS {
        let tls = server_config(&theirs.server(), Some(&ours), versions);
        let change = |endpoint: &mut Endpoint| {
            endpoint.ca = Some(theirs.ca());
            endpoint.client_certificate = Some(ClientCertificate {
                cert: Pem::new("client.crt", leaf.cert.as_str()),
                key: Pem::new("client.key", leaf.key.as_str()),
            });
        };
        let error = deliver(tls, change, 2).await.unwrap_err();
        let words = "the client certificate `client.crt` expired at 2020-02-01T00:00:00Z";
        assert!(error.to_string().ends_with(words), "{error}");
        assert!(error.hint().unwrap().contains("renew"), "{error:?}");
    }
}

#[tokio::test]
async fn the_operators_ca_replaces_the_platforms() {
    let private = Authority::new("private");
    let error = deliver(server_config(&private.server(), None, BOTH), |_| {}, 2)
        .await
        .unwrap_err();
    assert!(
        matches!(
            error,
            SendError::Tls {
                refused_by: Party::Us,
                ..
            }
        ),
        "the platform's authorities do not know it: {error:?}"
    );
}

#[tokio::test]
async fn a_port_without_tls_is_recognised() {
    let receiver = Receiver::start(None, async |_| answer(200, "")).await;
    let client = client(&receiver.url("https", "/"), |endpoint| {
        endpoint.ca = Some(Authority::new("any").ca())
    });
    let error = post(
        &client,
        &checked(&client, request("[]")),
        Destination::Url,
        0,
    )
    .await
    .unwrap_err();
    assert_eq!(
        error.to_string(),
        "the receiver does not speak TLS on this port"
    );
    assert!(error.hint().unwrap().contains("`http://`"), "{error:?}");
}

#[tokio::test]
async fn a_port_with_tls_is_recognised() {
    let tls = server_config(&Authority::new("any").server(), None, BOTH);
    let receiver = Receiver::start(Some(tls), async |_| answer(200, "")).await;
    let client = client(&receiver.url("http", "/"), |_| {});
    let error = post(
        &client,
        &checked(&client, request("[]")),
        Destination::Url,
        0,
    )
    .await
    .unwrap_err();
    assert_eq!(
        error.to_string(),
        "the receiver's answer is not HTTP: the port probably speaks TLS"
    );
    assert!(error.hint().unwrap().contains("`https://`"), "{error:?}");
}

#[tokio::test]
async fn sessions_are_never_resumed() {
    let authority = Authority::new("both");
    for versions in VERSIONS {
        let tls = server_config(&authority.server(), Some(&authority), versions);
        let receiver = Receiver::start(Some(tls), async |_| {
            let mut answer = answer(200, "");
            answer
                .headers_mut()
                .insert("connection", "close".parse().unwrap());
            answer
        })
        .await;
        let client = client(&receiver.url("https", "/"), |endpoint| {
            endpoint.ca = Some(authority.ca());
            endpoint.client_certificate = Some(authority.client());
        });
        for _ in 0..5 {
            post(
                &client,
                &checked(&client, request("[]")),
                Destination::Url,
                0,
            )
            .await
            .unwrap();
        }
        assert!(
            receiver
                .log()
                .handshakes
                .iter()
                .all(|kind| *kind != HandshakeKind::Resumed),
            "{:?}",
            receiver.log().handshakes
        );
        assert_eq!(receiver.log().handshakes.len(), 5);

        // The receiver itself supports resumption: rustls' default client resumes on its second
        // connection.
        let connector = TlsConnector::from(Arc::new(default_client(&authority)));
        for _ in 0..2 {
            exchange(&connector, receiver.addr.port()).await.unwrap();
        }
        assert_eq!(
            receiver.log().handshakes.last(),
            Some(&HandshakeKind::Resumed)
        );
    }
}

/// rustls' default client, which resumes sessions.
pub fn default_client(authority: &Authority) -> ClientConfig {
    use rustls_pki_types::pem::PemObject;
    let mut roots = tokio_rustls::rustls::RootCertStore::empty();
    roots
        .add(rustls_pki_types::CertificateDer::from_pem_slice(authority.pem.as_bytes()).unwrap())
        .unwrap();
    let Leaf { cert, key } = authority.sign("usual", |_| {});
    ClientConfig::builder_with_provider(Arc::new(
        tokio_rustls::rustls::crypto::ring::default_provider(),
    ))
    .with_safe_default_protocol_versions()
    .unwrap()
    .with_root_certificates(roots)
    .with_client_auth_cert(
        vec![rustls_pki_types::CertificateDer::from_pem_slice(cert.as_bytes()).unwrap()],
        rustls_pki_types::PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
    )
    .unwrap()
}

/// Sends one request on a new connection.
pub async fn exchange(connector: &TlsConnector, port: u16) -> std::io::Result<()> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let socket = TcpStream::connect(("127.0.0.1", port)).await?;
    let mut socket = connector
        .connect("localhost".try_into().unwrap(), socket)
        .await?;
    socket.write_all(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\nConnection: close\r\n\r\n[]").await?;
    let mut answer = [0; 12];
    socket.read_exact(&mut answer).await?;
    assert_eq!(&answer, b"HTTP/1.1 200");
    Ok(())
}
