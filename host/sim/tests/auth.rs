//! tonic's gRPC client against the simulated Auth server, over loopback sockets.

#![allow(clippy::disallowed_methods, reason = "real servers take real time")]

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hyper_util::rt::TokioIo;
use lockgate_model::Day;
use lockgate_sim::auth::{self, AuthOptions, AuthServer, Backend, Flaky};
use lockgate_sim::{SimError, generate, receiver};
use lockgate_teleport::proto::auditlog::audit_log_service_client::AuditLogServiceClient;
use lockgate_teleport::proto::auditlog::{
    EventUnstructured, ExportUnstructuredEventsRequest, GetEventExportChunksRequest,
    GetUnstructuredEventsRequest, StreamUnstructuredSessionEventsRequest,
};
use lockgate_teleport::proto::authservice::PingRequest;
use lockgate_teleport::proto::authservice::auth_service_client::AuthServiceClient;
use prost_types::Timestamp;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Status};

const MESSAGE_MAX: usize = 16 << 20;

fn tls(out: &Path, client: Option<&Path>) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(out.join("ca.crt")).expect("ca.crt"))
        .expect("a root");
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots);
    let mut config = match client {
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
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

fn channel(server: &AuthServer, config: ClientConfig) -> Channel {
    let (address, connector) = (server.address(), TlsConnector::from(Arc::new(config)));
    let connect = tower::service_fn(move |_: Uri| {
        let connector = connector.clone();
        async move {
            let stream = TcpStream::connect(address).await?;
            let name = ServerName::try_from("teleport.cluster.local").expect("a name");
            Ok::<_, std::io::Error>(TokioIo::new(connector.connect(name, stream).await?))
        }
    });
    Endpoint::from_static("https://teleport.cluster.local").connect_with_connector_lazy(connect)
}

fn client(server: &AuthServer, out: &Path) -> AuditLogServiceClient<Channel> {
    AuditLogServiceClient::new(channel(server, tls(out, Some(out))))
        .max_decoding_message_size(MESSAGE_MAX)
}

fn date(day: Day) -> Option<Timestamp> {
    Some(Timestamp {
        seconds: day.start() / 1000,
        nanos: 0,
    })
}

async fn chunks(
    client: &mut AuditLogServiceClient<Channel>,
    day: Day,
) -> Result<Vec<String>, Status> {
    let mut stream = client
        .get_event_export_chunks(GetEventExportChunksRequest { date: date(day) })
        .await?
        .into_inner();
    let mut chunks = Vec::new();
    while let Some(chunk) = stream.message().await? {
        chunks.push(chunk.chunk);
    }
    Ok(chunks)
}

/// Appends (event, cursor) pairs until the stream ends, and returns how it ended.
async fn export(
    client: &mut AuditLogServiceClient<Channel>,
    day: Day,
    chunk: &str,
    cursor: &str,
    into: &mut Vec<(EventUnstructured, String)>,
) -> Result<(), Status> {
    let request = ExportUnstructuredEventsRequest {
        date: date(day),
        chunk: chunk.to_owned(),
        cursor: cursor.to_owned(),
    };
    let mut stream = client
        .export_unstructured_events(request)
        .await?
        .into_inner();
    while let Some(message) = stream.message().await? {
        into.push((message.event.expect("an event"), message.cursor));
    }
    Ok(())
}

fn options(out: &Path, events: u64) -> AuthOptions {
    AuthOptions {
        out: out.to_owned(),
        events: generate::GeneratorOptions {
            events,
            ..Default::default()
        },
        ..AuthOptions::default()
    }
}

/// The days from the first event's to the last's.
fn days(server: &AuthServer) -> impl Iterator<Item = Day> + use<> {
    let generator = server.generator();
    (Day::of(generator.time(0)).0..=Day::of(generator.time(generator.count() - 1)).0).map(Day)
}

#[tokio::test]
async fn the_chunks_of_all_days_contain_every_event_as_generated() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut options = options(dir.path(), 12_345);
    options.events.event_rate = 0.06;
    let server = AuthServer::start(options).await.expect("a server");
    let mut client = client(&server, dir.path());
    let mut events = Vec::new();
    let mut listed = 0;
    for day in days(&server) {
        for chunk in chunks(&mut client, day).await.expect("chunks") {
            listed += 1;
            let from = events.len();
            export(&mut client, day, &chunk, "", &mut events)
                .await
                .expect("events");
            for (event, _) in &events[from..] {
                assert_eq!(
                    Day(event.time.expect("a time").seconds.div_euclid(86_400) as i32),
                    day
                );
            }
        }
    }
    assert!(listed > 3, "three chunks, cut by midnights: {listed}");
    let generator = server.generator();
    events.sort_by_key(|(event, _)| generator.position_of(&event.id));
    assert_eq!(events.len(), 12_345);
    let mut position = 0;
    for number in 0..3 {
        let mut source = generator.chunk(number);
        let mut wire = Vec::new();
        while source.write(&mut wire).is_some() {
            let expected: EventUnstructured =
                prost::Message::decode(wire.as_slice()).expect("an event");
            assert!(events[position].0 == expected, "event {position}");
            position += 1;
            wire.clear();
        }
    }
    let served = server.stop().await;
    assert_eq!(served.events, 12_345);
}

#[tokio::test]
async fn cursors_resume_after_their_event() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = AuthServer::start(options(dir.path(), 300))
        .await
        .expect("a server");
    let mut client = client(&server, dir.path());
    let day = days(&server).next().expect("a day");
    let chunk = chunks(&mut client, day).await.expect("chunks").remove(0);
    let mut all = Vec::new();
    export(&mut client, day, &chunk, "", &mut all)
        .await
        .expect("events");
    assert_eq!(all.len(), 300);
    for row in [0, 46, 298, 299] {
        let mut rest = Vec::new();
        export(&mut client, day, &chunk, &all[row].1, &mut rest)
            .await
            .expect("events");
        assert!(rest == all[row + 1..], "after row {row}");
    }
    let mut none = Vec::new();
    assert_eq!(
        export(&mut client, day, &chunk, "nonsense", &mut none)
            .await
            .unwrap_err()
            .code(),
        Code::InvalidArgument
    );
    assert_eq!(
        export(&mut client, day, "no-chunk", "", &mut none)
            .await
            .unwrap_err()
            .code(),
        Code::NotFound
    );
    let future = Day(day.0 + 400);
    assert_eq!(
        chunks(&mut client, future).await.expect("chunks"),
        Vec::<String>::new()
    );
    assert_eq!(
        export(&mut client, future, &chunk, "", &mut none)
            .await
            .unwrap_err()
            .code(),
        Code::NotFound
    );
}

#[tokio::test]
async fn broken_streams_are_resumed_without_loss() {
    let dir = tempfile::tempdir().expect("a directory");
    let flaky = Some(Flaky {
        probability: 0.5,
        within: 400,
        seed: 9,
    });
    let server = AuthServer::start(AuthOptions {
        flaky,
        ..options(dir.path(), 6_000)
    })
    .await
    .expect("a server");
    let mut client = client(&server, dir.path());
    let day = days(&server).next().expect("a day");
    let listed = loop {
        match chunks(&mut client, day).await {
            Ok(listed) => break listed,
            Err(status) => assert_eq!(status.code(), Code::Unavailable),
        }
    };
    let (mut ids, mut breaks) = (Vec::new(), 0);
    for chunk in listed {
        let mut cursor = String::new();
        loop {
            let mut events = Vec::new();
            let ended = export(&mut client, day, &chunk, &cursor, &mut events).await;
            cursor = events.last().map_or(cursor, |(_, cursor)| cursor.clone());
            ids.extend(events.into_iter().map(|(event, _)| event.id));
            match ended {
                Ok(()) => break,
                Err(status) => assert_eq!(status.code(), Code::Unavailable),
            }
            breaks += 1;
        }
    }
    assert!(breaks > 0);
    assert_eq!(ids.len(), 6_000);
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), 6_000);
}

#[tokio::test]
async fn recordings_are_streamed_from_an_index_on() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = AuthServer::start(options(dir.path(), 2_000))
        .await
        .expect("a server");
    let mut client = client(&server, dir.path());
    let sid = server.generator().json_lines(2_000).find_map(|line| {
        let event: serde_json::Value = serde_json::from_str(&line).expect("JSON");
        (event["event"] == "session.upload")
            .then(|| event["sid"].as_str().expect("a sid").to_owned())
    });
    let sid = sid.expect("an upload");
    let mut read = async |session_id: &str, start_index: i32| {
        let request = StreamUnstructuredSessionEventsRequest {
            session_id: session_id.to_owned(),
            start_index,
        };
        let mut stream = client
            .stream_unstructured_session_events(request)
            .await?
            .into_inner();
        let mut events = Vec::new();
        while let Some(event) = stream.message().await? {
            events.push(event);
        }
        Ok::<_, Status>(events)
    };
    let all = read(&sid, 0).await.expect("a recording");
    assert_eq!(
        all.first().map(|event| &*event.r#type),
        Some("session.start")
    );
    assert!(
        all[1..all.len() - 2]
            .iter()
            .all(|event| event.r#type == "print")
    );
    assert!(
        read(&sid, -5).await.expect("a recording") == all,
        "a negative start returns everything"
    );
    assert!(
        read(&sid, 2).await.expect("a recording") == all[2..],
        "the start is inclusive"
    );
    assert_eq!(read(&sid, 10_000).await.expect("a clean end").len(), 0);
    for unknown in ["", "no-such-session", "../../x"] {
        let status = read(unknown, 0).await.unwrap_err();
        assert_eq!(status.code(), Code::NotFound);
        assert_eq!(
            status.message(),
            format!("open /var/lib/teleport/log/records/{unknown}.tar: no such file or directory")
        );
    }
}

#[tokio::test]
async fn a_search_backend_does_not_support_export() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = AuthServer::start(AuthOptions {
        backend: Backend::Search,
        ..options(dir.path(), 700)
    })
    .await
    .expect("a server");
    let mut client = client(&server, dir.path());
    let status = chunks(&mut client, Day(30_000)).await.unwrap_err();
    let expected =
        "unknown method GetEventExportChunks for service teleport.auditlog.v1.AuditLogService";
    assert_eq!(
        (status.code(), status.message()),
        (Code::Unimplemented, expected)
    );
    let mut request = GetUnstructuredEventsRequest {
        end_date: date(Day(30_000)),
        ..Default::default()
    };
    let page = client
        .get_unstructured_events(request.clone())
        .await
        .expect("a page")
        .into_inner();
    assert_eq!(page.items.len(), 500);
    request.start_key = page.last_key;
    let page = client
        .get_unstructured_events(request)
        .await
        .expect("a page")
        .into_inner();
    assert_eq!((page.items.len(), &*page.last_key), (200, ""));
}

#[tokio::test]
async fn a_client_without_a_certificate_may_only_ping_and_a_foreign_certificate_is_refused() {
    let (dir, other) = (
        tempfile::tempdir().expect("a directory"),
        tempfile::tempdir().expect("a directory"),
    );
    let server = AuthServer::start(options(dir.path(), 10))
        .await
        .expect("a server");
    let foreign = AuthServer::start(options(other.path(), 10))
        .await
        .expect("a server");

    let nobody = channel(&server, tls(dir.path(), None));
    let pong = AuthServiceClient::new(nobody.clone())
        .ping(PingRequest {})
        .await
        .expect("a pong")
        .into_inner();
    assert_eq!(
        (&*pong.cluster_name, &*pong.server_version),
        ("example.teleport.sh", "17.4.2")
    );
    let status = AuditLogServiceClient::new(nobody)
        .get_unstructured_events(GetUnstructuredEventsRequest::default())
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    assert_eq!(
        status.message(),
        "access denied to perform action \"list\" on \"event\""
    );

    let stranger = channel(&server, tls(dir.path(), Some(other.path())));
    let status = AuthServiceClient::new(stranger)
        .ping(PingRequest {})
        .await
        .unwrap_err();
    assert_ne!(status.code(), Code::Ok);
    foreign.stop().await;
}

#[tokio::test]
async fn an_expired_identity_is_refused_and_a_new_one_from_the_same_authority_is_not() {
    let dir = tempfile::tempdir().expect("a directory");
    let identity_expires = Some(SystemTime::now() - Duration::from_secs(3600));
    let expired = AuthOptions {
        identity_expires,
        ..options(dir.path(), 10)
    };
    let server = AuthServer::start(expired.clone()).await.expect("a server");
    let request = || GetUnstructuredEventsRequest {
        end_date: date(Day(30_000)),
        ..Default::default()
    };
    client(&server, dir.path())
        .get_unstructured_events(request())
        .await
        .unwrap_err();
    auth::issue_identity(&AuthOptions {
        identity_expires: None,
        ..expired
    })
    .expect("an identity");
    let page = client(&server, dir.path())
        .get_unstructured_events(request())
        .await
        .expect("a page")
        .into_inner();
    assert_eq!(page.items.len(), 10);
}

#[tokio::test]
async fn a_restarted_server_accepts_the_same_identity() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = AuthServer::start(options(dir.path(), 10))
        .await
        .expect("a server");
    let identity = std::fs::read(dir.path().join("identity")).expect("an identity");
    let mut client = client(&server, dir.path());
    let day = days(&server).next().expect("a day");
    let first = chunks(&mut client, day).await.expect("chunks");
    server.drop_connections();
    let listen = server.address().to_string();
    server.stop().await;
    let server = AuthServer::start(AuthOptions {
        listen,
        ..options(dir.path(), 10)
    })
    .await
    .expect("the same address");
    // The first call may find the old connection broken.
    let again = match chunks(&mut client, day).await {
        Ok(again) => again,
        Err(_) => chunks(&mut client, day).await.expect("chunks"),
    };
    assert_eq!(first, again);
    assert_eq!(
        std::fs::read(dir.path().join("identity")).expect("an identity"),
        identity
    );
    server.stop().await;
}

#[tokio::test]
async fn the_output_directory_has_the_files_of_teleport() {
    use std::os::unix::fs::PermissionsExt;

    let parent = tempfile::tempdir().expect("a directory");
    let out = parent.path().join("auth");
    let server = AuthServer::start(options(&out, 10))
        .await
        .expect("a server");
    assert_eq!(
        std::fs::metadata(&out)
            .expect("a directory")
            .permissions()
            .mode()
            & 0o777,
        0o700
    );
    for name in [
        "ca.crt",
        "identity",
        "client.crt",
        "client.key",
        "client.cas",
    ] {
        assert_eq!(
            std::fs::metadata(out.join(name))
                .expect(name)
                .permissions()
                .mode()
                & 0o777,
            0o600,
            "{name}"
        );
    }
    let read = |name: &str| std::fs::read_to_string(out.join(name)).expect("text");
    let identity = read("identity");
    let kinds: Vec<&str> = identity
        .lines()
        .filter_map(|line| match line.split(' ').next().unwrap_or_default() {
            "-----BEGIN" => Some(line),
            word @ ("ecdsa-sha2-nistp256-cert-v01@openssh.com" | "@cert-authority") => Some(word),
            _ => None,
        })
        .collect();
    let order = [
        "-----BEGIN PRIVATE KEY-----",
        "ecdsa-sha2-nistp256-cert-v01@openssh.com",
        "-----BEGIN CERTIFICATE-----",
        "@cert-authority",
        "-----BEGIN CERTIFICATE-----",
    ];
    assert_eq!(kinds, order);
    assert!(identity.starts_with(&read("client.key")) && identity.ends_with(&read("client.cas")));
    assert_eq!(read("client.cas"), read("ca.crt").replace("\r\n", "\n"));
    let refused = receiver::Receiver::start(receiver::ReceiverOptions {
        out: out.clone(),
        ..Default::default()
    })
    .await;
    assert!(
        matches!(refused, Err(SimError::Shared(dir)) if dir == out),
        "one directory for two simulators"
    );
    server.stop().await;
}
