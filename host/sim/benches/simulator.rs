//! CPU time of the simulators: generating, and serving over TLS on loopback.
//!
//! `cargo bench -p lockgate-sim`. Generating should stay below 3 µs per event. Each figure is for
//! the number of items that it names.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use divan::Bencher;
use divan::counter::ItemsCount;
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper_util::rt::{TokioExecutor, TokioIo};
use lockgate_model::Day;
use lockgate_sim::auth::{AuthOptions, AuthServer};
use lockgate_sim::generate::{self, CHUNK, Generator};
use lockgate_sim::receiver::{self, Receiver};
use lockgate_teleport::proto::auditlog::{
    EventExportChunk, ExportUnstructuredEventsRequest, GetEventExportChunksRequest,
};
use prost::Message;
use prost_types::Timestamp;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

fn main() {
    divan::main();
}

#[divan::bench]
fn wire_bytes(bencher: Bencher<'_, '_>) {
    let generator = Generator::new(generate::GeneratorOptions {
        events: CHUNK,
        ..generate::GeneratorOptions::default()
    });
    let mut out = Vec::new();
    bencher.counter(ItemsCount::new(CHUNK)).bench_local(|| {
        let mut events = generator.chunk(0);
        let mut bytes = 0;
        while events.write(&mut out).is_some() {
            bytes += out.len();
            out.clear();
        }
        bytes
    });
}

#[divan::bench]
fn json_lines(bencher: Bencher<'_, '_>) {
    let generator = Generator::new(generate::GeneratorOptions {
        events: CHUNK,
        ..generate::GeneratorOptions::default()
    });
    bencher.counter(ItemsCount::new(CHUNK)).bench_local(|| {
        generator
            .json_lines(CHUNK)
            .map(|line| line.len())
            .sum::<usize>()
    });
}

/// Server on one thread, a client that only counts bytes on another.
#[divan::bench(sample_count = 10)]
fn export_over_tls(bencher: Bencher<'_, '_>) {
    const EVENTS: u64 = 50_000;
    let dir = tempfile::tempdir().expect("a directory");
    let options = AuthOptions {
        out: dir.path().to_owned(),
        events: generate::GeneratorOptions {
            events: EVENTS,
            ..generate::GeneratorOptions::default()
        },
        ..AuthOptions::default()
    };
    let server_threads = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime");
    let client_thread = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let server = server_threads
        .block_on(AuthServer::start(options))
        .expect("a server");
    let date = Some(Timestamp {
        seconds: Day::of(server.generator().time(0)).start() / 1000,
        nanos: 0,
    });
    let (mut sender, chunks) = client_thread.block_on(async {
        let mut sender = connect(&server, dir.path()).await;
        let listed = call(
            &mut sender,
            "GetEventExportChunks",
            &GetEventExportChunksRequest { date },
            true,
        )
        .await;
        let mut chunks = Vec::new();
        let mut rest = listed.1.as_slice();
        while let Some((head, tail)) = rest.split_at_checked(5) {
            let (message, tail) = tail
                .split_at(u32::from_be_bytes(head[1..].try_into().expect("four bytes")) as usize);
            chunks.push(EventExportChunk::decode(message).expect("a chunk").chunk);
            rest = tail;
        }
        (sender, chunks)
    });
    assert_eq!(chunks.len() as u64, EVENTS / CHUNK);
    bencher.counter(ItemsCount::new(EVENTS)).bench_local(|| {
        client_thread.block_on(async {
            let mut bytes = 0;
            for chunk in &chunks {
                let request = ExportUnstructuredEventsRequest {
                    date,
                    chunk: chunk.clone(),
                    cursor: String::new(),
                };
                bytes += call(&mut sender, "ExportUnstructuredEvents", &request, false)
                    .await
                    .0;
            }
            assert!(bytes as u64 > EVENTS * 800);
            bytes
        })
    });
}

/// Arrays of 500 events on one keep-alive connection; receiver on one thread, client on another.
#[divan::bench(sample_count = 20)]
fn receive_over_tls(bencher: Bencher<'_, '_>) {
    const EVENTS: u64 = 10_000;
    let dir = tempfile::tempdir().expect("a directory");
    let lines: Vec<String> = Generator::new(generate::GeneratorOptions {
        events: EVENTS,
        ..generate::GeneratorOptions::default()
    })
    .json_lines(EVENTS)
    .collect();
    let requests = lines.chunks(500).map(|batch| {
        let body = format!("[{}]", batch.join(","));
        format!(
            "POST /test.log HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
    });
    let requests: Vec<String> = requests.collect();
    let receiver_thread = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime");
    let client_thread = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let options = receiver::ReceiverOptions {
        out: dir.path().to_owned(),
        ..receiver::ReceiverOptions::default()
    };
    let receiver = receiver_thread
        .block_on(Receiver::start(options))
        .expect("a receiver");
    let mut stream = client_thread.block_on(tls(
        receiver.address(),
        dir.path(),
        "localhost",
        b"http/1.1",
    ));
    bencher.counter(ItemsCount::new(EVENTS)).bench_local(|| {
        client_thread.block_on(async {
            for request in &requests {
                stream
                    .write_all(request.as_bytes())
                    .await
                    .expect("a connection");
                let mut answer = Vec::new();
                while !answer.ends_with(b"\r\n\r\n") {
                    assert!(stream.read_buf(&mut answer).await.expect("a connection") > 0);
                }
                assert!(answer.starts_with(b"HTTP/1.1 200"));
            }
        });
    });
    assert_eq!(receiver.control().totals().distinct, EVENTS);
}

type Sender = hyper::client::conn::http2::SendRequest<Full<Bytes>>;

async fn connect(server: &AuthServer, dir: &Path) -> Sender {
    let stream = tls(server.address(), dir, "teleport.cluster.local", b"h2").await;
    let mut builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    builder
        .initial_stream_window_size(4 << 20)
        .initial_connection_window_size(4 << 20)
        .max_frame_size(256 << 10);
    let (sender, connection) = builder
        .handshake(TokioIo::new(stream))
        .await
        .expect("HTTP/2");
    tokio::spawn(connection);
    sender
}

async fn tls(
    address: SocketAddr,
    dir: &Path,
    name: &'static str,
    protocol: &[u8],
) -> TlsStream<TcpStream> {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(dir.join("ca.crt")).expect("ca.crt"))
        .expect("a root");
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_client_auth_cert(
            vec![CertificateDer::from_pem_file(dir.join("client.crt")).expect("client.crt")],
            PrivateKeyDer::from_pem_file(dir.join("client.key")).expect("client.key"),
        )
        .expect("a client certificate");
    config.alpn_protocols = vec![protocol.to_vec()];
    let stream = TcpStream::connect(address).await.expect("a connection");
    stream.set_nodelay(true).expect("a socket option");
    let name = ServerName::try_from(name).expect("a name");
    TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
        .expect("TLS")
}

/// Returns the number of bytes received and, if `keep` is set, the bytes.
async fn call(
    sender: &mut Sender,
    method: &str,
    message: &impl Message,
    keep: bool,
) -> (usize, Vec<u8>) {
    let encoded = message.encode_to_vec();
    let body = [&[0][..], &(encoded.len() as u32).to_be_bytes(), &encoded].concat();
    let request = http::Request::post(format!(
        "https://teleport.cluster.local/teleport.auditlog.v1.AuditLogService/{method}"
    ))
    .header("content-type", "application/grpc")
    .body(Full::from(body))
    .expect("a request");
    sender.ready().await.expect("a connection");
    let mut body = sender
        .send_request(request)
        .await
        .expect("an answer")
        .into_body();
    let (mut bytes, mut kept) = (0, Vec::new());
    while let Some(frame) = body.frame().await {
        if let Some(part) = frame.expect("a frame").data_ref() {
            bytes += part.len();
            if keep {
                kept.extend_from_slice(part);
            }
        }
    }
    (bytes, kept)
}
