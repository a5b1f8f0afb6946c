//! Requests of 500 events over mutual TLS to a receiver in its own thread.

use std::net::SocketAddr;
use std::sync::Arc;

use divan::counter::BytesCount;
use lockgate_egress::Destination;
use lockgate_egress::{ClientCertificate, Endpoint, EndpointClient, Pem, Secret};
use lockgate_model::request::{Body, Part, Request};
use rcgen::{CertificateParams, KeyPair};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio_rustls::TlsAcceptor;

/// 500 events of 934 bytes, as the Fluentd sink sends them.
const BODY: usize = 467_000;
const REQUESTS: usize = 64;

fn main() {
    divan::main();
}

#[divan::bench(args = [1, 8], sample_count = 20)]
fn send(bencher: divan::Bencher, connections: usize) {
    let (cert, key) = certificate();
    let addr = receive(&cert, &key);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let mut endpoint = Endpoint::new(
        "bench",
        Secret::new(format!("https://localhost:{}/test.log", addr.port())),
    );
    endpoint.ca = Some(Pem::new("ca", cert.as_str()));
    endpoint.client_certificate = Some(ClientCertificate {
        cert: Pem::new("cert", cert),
        key: Pem::new("key", key),
    });
    endpoint.connections = connections;
    let client = Arc::new(EndpointClient::new(endpoint).unwrap());
    let request = Request {
        method: "POST".into(),
        path_suffix: String::new(),
        query: vec![],
        headers: vec![("content-type".into(), "application/json".into())],
        body: Body::Parts(vec![Part::Document(0)]),
        tag: String::new(),
        carries: vec![0],
    };
    let payload = "x".repeat(BODY);
    let body = request.body.assemble(|_| &payload);
    let request = Arc::new(request.check(&client.request_rules(&[])).unwrap());
    bencher
        .counter(BytesCount::new(BODY * REQUESTS))
        .bench_local(|| {
            runtime.block_on(async {
                let tasks: Vec<_> = (0..REQUESTS)
                    .map(|_| {
                        let (client, request, body) =
                            (client.clone(), request.clone(), body.clone());
                        tokio::spawn(async move {
                            let connection = client.connection().await;
                            let body = || body.clone();
                            let sent =
                                client.send(connection, &request, body, Destination::Url, 1024);
                            sent.await.unwrap().status
                        })
                    })
                    .collect();
                for task in tasks {
                    assert_eq!(task.await.unwrap(), 200);
                }
            });
        });
}

/// One certificate for both sides.
fn certificate() -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let cert = CertificateParams::new(vec!["localhost".into()])
        .unwrap()
        .self_signed(&key)
        .unwrap();
    (cert.pem(), key.serialize_pem())
}

fn receive(cert: &str, key: &str) -> SocketAddr {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let chain = CertificateDer::from_pem_slice(cert.as_bytes()).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(chain.clone()).unwrap();
    let config = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(
            WebPkiClientVerifier::builder_with_provider(roots.into(), provider)
                .build()
                .unwrap(),
        )
        .with_single_cert(
            vec![chain],
            PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
        )
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let runtime = Runtime::new().unwrap();
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let addr = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        runtime.block_on(async {
            while let Ok((socket, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                socket.set_nodelay(true).unwrap();
                tokio::spawn(async move {
                    let mut socket = acceptor.accept(socket).await.unwrap();
                    let (mut buffer, mut left) = (vec![0; 64 << 10], 0);
                    while let Ok(read @ 1..) = socket.read(&mut buffer).await {
                        // A head arrives on its own or with the beginning of the body.
                        let body = match buffer[..read]
                            .windows(4)
                            .position(|four| four == b"\r\n\r\n")
                        {
                            Some(end) if left == 0 => {
                                left = BODY;
                                read - end - 4
                            }
                            _ => read,
                        };
                        left -= body;
                        if left == 0
                            && socket
                                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                                .await
                                .is_err()
                        {
                            return;
                        }
                    }
                });
            }
        });
    });
    addr
}
