//! A plain HTTP client against the simulated receiver, over loopback sockets.

#![allow(clippy::disallowed_methods, reason = "real servers take real time")]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use lockgate_sim::generate::{self, Generator};
use lockgate_sim::receiver::{
    Fault, PathTotals, Receiver, ReceiverOptions, Rule, Schedule, Totals,
};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// One keep-alive connection.
struct Client(TlsStream<TcpStream>);

impl Client {
    /// `identity`: the directory of the client certificate to present.
    async fn connect(
        receiver: &Receiver,
        out: &Path,
        identity: Option<&Path>,
        version: &'static SupportedProtocolVersion,
    ) -> std::io::Result<Client> {
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_file(out.join("ca.crt")).expect("ca.crt"))
            .expect("a root");
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[version]);
        let builder = builder.expect("versions").with_root_certificates(roots);
        let config = match identity {
            None => builder.with_no_client_auth(),
            Some(dir) => {
                let certificate =
                    CertificateDer::from_pem_file(dir.join("client.crt")).expect("client.crt");
                let key = PrivateKeyDer::from_pem_file(dir.join("client.key")).expect("client.key");
                builder
                    .with_client_auth_cert(vec![certificate], key)
                    .expect("a client certificate")
            }
        };
        let stream = TcpStream::connect(receiver.address()).await?;
        let name = ServerName::try_from("localhost").expect("a name");
        Ok(Client(
            TlsConnector::from(Arc::new(config))
                .connect(name, stream)
                .await?,
        ))
    }

    /// Status and body of the answer.
    async fn send(
        &mut self,
        method: &str,
        path: &str,
        body: &str,
    ) -> std::io::Result<(u16, String)> {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        self.0.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        let head = loop {
            if let Some(at) = answer.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            if self.0.read_buf(&mut answer).await? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
        };
        let text = String::from_utf8_lossy(&answer[..head]).into_owned();
        let field = |name: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(name))
                .and_then(|value| value.trim().parse().ok())
        };
        let len: usize = field("content-length:").unwrap_or(0);
        while answer.len() < head + len {
            self.0.read_buf(&mut answer).await?;
        }
        let status = text
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok())
            .expect("a status");
        Ok((
            status,
            String::from_utf8_lossy(&answer[head..]).into_owned(),
        ))
    }

    async fn post(&mut self, path: &str, body: &str) -> u16 {
        self.send("POST", path, body).await.expect("an answer").0
    }
}

async fn start(options: ReceiverOptions) -> (tempfile::TempDir, Receiver, Client) {
    let dir = tempfile::tempdir().expect("a directory");
    let receiver = Receiver::start(ReceiverOptions {
        out: dir.path().to_owned(),
        ..options
    })
    .await
    .expect("a receiver");
    let client = connect(&receiver, dir.path()).await;
    (dir, receiver, client)
}

async fn connect(receiver: &Receiver, dir: &Path) -> Client {
    Client::connect(receiver, dir, Some(dir), &rustls::version::TLS13)
        .await
        .expect("a connection")
}

fn array(lines: impl IntoIterator<Item = String>) -> String {
    format!("[{}]", lines.into_iter().collect::<Vec<_>>().join(","))
}

#[tokio::test]
async fn objects_and_arrays_are_counted_by_id_and_path() {
    let (_dir, receiver, mut client) = start(ReceiverOptions::default()).await;
    let lines: Vec<String> = Generator::new(generate::GeneratorOptions::default())
        .json_lines(1_000)
        .collect();
    for batch in lines.chunks(300) {
        assert_eq!(client.post("/test.log", &array(batch.to_vec())).await, 200);
    }
    assert_eq!(client.post("/test.log", &lines[7]).await, 200);
    assert_eq!(client.post("/session.a.log", &lines[7]).await, 200);
    assert_eq!(client.post("/test.log", "[]").await, 200);
    assert_eq!(
        client
            .post("/test.log", &format!("{}\n{}", lines[0], lines[1]))
            .await,
        400,
        "NDJSON"
    );
    assert_eq!(
        client
            .send("DELETE", "/test.log", "")
            .await
            .expect("an answer")
            .0,
        405
    );

    let (status, stats) = client.send("GET", "/stats", "").await.expect("an answer");
    let stats: serde_json::Value = serde_json::from_str(&stats).expect("JSON");
    assert_eq!(
        (status, &stats["distinct"], &stats["duplicates"]),
        (200, &1_001.into(), &1.into())
    );

    let totals = receiver.stop().await;
    let expected = Totals {
        requests: 8,
        documents: 1_002,
        distinct: 1_001,
        duplicates: 1,
        refused: 1,
        by_path: [
            (
                "/session.a.log".to_owned(),
                PathTotals {
                    requests: 1,
                    documents: 1,
                    refused: 0,
                },
            ),
            (
                "/test.log".to_owned(),
                PathTotals {
                    requests: 7,
                    documents: 1_001,
                    refused: 1,
                },
            ),
        ]
        .into(),
    };
    assert_eq!(totals, expected);
}

#[tokio::test]
async fn a_client_certificate_of_its_own_authority_is_required() {
    let (dir, receiver, _client) = start(ReceiverOptions::default()).await;
    let (other, foreign, _other_client) = start(ReceiverOptions::default()).await;
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        for (who, identity) in [("nobody", None), ("a stranger", Some(other.path()))] {
            // With TLS 1.3 the refusal comes with the first answer, not in the handshake.
            let refused = match Client::connect(&receiver, dir.path(), identity, version).await {
                Err(_) => true,
                Ok(mut client) => client.send("POST", "/", "{}").await.is_err(),
            };
            assert!(refused, "{who} with {version:?}");
        }
        let mut known = Client::connect(&receiver, dir.path(), Some(dir.path()), version)
            .await
            .expect("a connection");
        assert_eq!(known.post("/", "{}").await, 200, "{version:?}");
    }
    assert_eq!(receiver.stop().await.requests, 2);
    foreign.stop().await;
}

#[tokio::test]
async fn statuses_follow_the_schedule_and_refused_documents_do_not_count() {
    let status: Schedule = "503x2,429x1,204".parse().expect("a schedule");
    let (_dir, receiver, mut client) = start(ReceiverOptions {
        status,
        ..ReceiverOptions::default()
    })
    .await;
    let mut answers = Vec::new();
    for _ in 0..4 {
        answers.push(client.post("/", r#"{"uid":"a"}"#).await);
    }
    assert_eq!(answers, [503, 503, 429, 204]);
    receiver
        .control()
        .set_status("401".parse().expect("a schedule"));
    assert_eq!(client.post("/", r#"{"uid":"b"}"#).await, 401);
    let totals = receiver.stop().await;
    assert_eq!(
        (totals.requests, totals.documents, totals.refused),
        (5, 1, 4)
    );
}

#[tokio::test]
async fn every_document_is_in_the_capture_file_before_it_is_answered() {
    let parent = tempfile::tempdir().expect("a directory");
    let file = parent.path().join("capture.ndjson");
    let (_dir, receiver, mut client) = start(ReceiverOptions {
        capture: Some(file.clone()),
        ..ReceiverOptions::default()
    })
    .await;
    client
        .post("/", "[{\"uid\":\"a\",\n\"n\":1},{\"uid\":\"b\"}]")
        .await;
    client.post("/", "{broken").await;
    assert_eq!(
        std::fs::read_to_string(&file).expect("a capture"),
        "{\"uid\":\"a\", \"n\":1}\n{\"uid\":\"b\"}\n"
    );
    assert_eq!(receiver.stop().await.documents, 2);
}

#[tokio::test]
async fn a_held_request_waits_while_others_pass() {
    let (dir, receiver, mut first) = start(ReceiverOptions::default()).await;
    let control = receiver.control();
    control.hang_next(1);
    let held = tokio::spawn(async move { first.post("/", r#"{"uid":"held"}"#).await });
    let mut second = connect(&receiver, dir.path()).await;
    // Until the first request is held, the second might be held in its place.
    while control.holding() == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(second.post("/", r#"{"uid":"passes"}"#).await, 200);
    assert_eq!((control.totals().documents, held.is_finished()), (1, false));
    control.release();
    assert_eq!(held.await.expect("the held request"), 200);
    control.reached(2).await;
    assert_eq!(receiver.stop().await.documents, 2);
}

#[tokio::test]
async fn a_lost_answer_leaves_a_duplicate() {
    let (dir, receiver, mut client) = start(ReceiverOptions::default()).await;
    receiver.control().lose_next_answers(1);
    assert!(client.send("POST", "/", r#"{"uid":"a"}"#).await.is_err());
    let mut client = connect(&receiver, dir.path()).await;
    assert_eq!(client.post("/", r#"{"uid":"a"}"#).await, 200);
    let totals = receiver.stop().await;
    assert_eq!(
        (totals.documents, totals.distinct, totals.duplicates),
        (2, 1, 1)
    );
}

#[tokio::test]
async fn idle_connections_close_and_too_large_bodies_are_refused() {
    let idle = Some(Duration::from_secs(5));
    let (dir, receiver, mut client) = start(ReceiverOptions {
        idle,
        body_max: 100,
        ..ReceiverOptions::default()
    })
    .await;
    assert_eq!(client.post("/", r#"{"uid":"a"}"#).await, 200);
    let mut end = Vec::new();
    // Ends when the receiver closes the connection, which it does without a TLS close_notify.
    let _ = client.0.read_to_end(&mut end).await;
    assert!(end.is_empty());
    let mut client = connect(&receiver, dir.path()).await;
    assert_eq!(
        client
            .post("/", &format!("{{\"uid\":\"{}\"}}", "x".repeat(200)))
            .await,
        413
    );
}

#[tokio::test]
async fn latency_delays_each_answer() {
    let latency = Duration::from_millis(30);
    let (_dir, _receiver, mut client) = start(ReceiverOptions {
        latency,
        ..ReceiverOptions::default()
    })
    .await;
    let before = std::time::Instant::now();
    client.post("/", "{}").await;
    assert!(before.elapsed() >= latency);
}

#[tokio::test]
async fn a_rule_meets_only_the_requests_that_it_is_for() {
    let (dir, receiver, mut client) = start(ReceiverOptions::default()).await;
    let control = receiver.control();
    let rule = |fault, path: &str, body: &str, more_than| Rule {
        path: path.into(),
        body: body.into(),
        more_than,
        ..Rule::new(fault)
    };
    control.set_rules(vec![
        rule(Fault::Status(500), "", "poison", 0),
        rule(Fault::Status(413), "/small", "", 1),
        rule(Fault::AnswerLate, "/late", "", 0),
    ]);
    for (path, body, status) in [
        ("/", r#"{"uid":"a"}"#, 200),
        ("/", r#"{"uid":"poison"}"#, 500),
        ("/small", r#"[{"uid":"a"},{"uid":"b"}]"#, 413),
        ("/small", r#"[{"uid":"b"}]"#, 200),
    ] {
        assert_eq!(client.post(path, body).await, status, "{path} {body}");
    }
    // A late answer: its document is counted before the answer is given.
    let late = tokio::spawn(async move { client.post("/late", r#"{"uid":"c"}"#).await });
    control.reached(3).await;
    while control.holding() == 0 {
        tokio::task::yield_now().await;
    }
    control.release();
    assert_eq!(late.await.expect("it ends"), 200);
    assert_eq!(receiver.stop().await.documents, 3);
    drop(dir);
}
