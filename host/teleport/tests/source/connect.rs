//! Connections, credentials, and how both fail.

use std::time::Duration;

use lockgate_model::FeedKind;
use lockgate_teleport::{Ended, FailureKind, ReaderStatus, Resume, SourceError};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use tokio::sync::watch;
use tonic::Status;

use crate::fake::{Fake, Script, Tls, event};
use crate::fixture::{Authority, DAY, Fixture, NOW};
use crate::intake::MemoryIntake;

fn script() -> Script {
    Script {
        events: vec![event("e", "user.login", NOW - DAY, 0, &[])],
        ..Script::default()
    }
}

#[tokio::test]
async fn calls_claim_the_servers_own_version() {
    let mut fixture = Fixture::new();
    let fake = Fake::start(&fixture.authority, script()).await;
    fixture.settings.address = fake.address.to_string();
    let status = fixture.read(&MemoryIntake::new()).await;
    assert_eq!(
        (status.cluster.as_deref(), status.server_version.as_deref()),
        (Some("example.com"), Some("17.2.1"))
    );
    assert!(
        fake.script()
            .versions
            .iter()
            .all(|version| version.as_deref() == Some("17.2.1"))
    );
    assert_eq!(
        fake.script().clients.len(),
        1,
        "all calls share a connection"
    );
}

#[tokio::test]
async fn expired_credentials_are_reported_without_connecting_and_new_ones_are_used() {
    let mut fixture = Fixture::new();
    let fake = Fake::start(&fixture.authority, script()).await;
    fixture.settings.address = fake.address.to_string();
    std::fs::write(
        fixture.identity_path(),
        fixture.authority.identity("bot", 2024),
    )
    .expect("a file");
    let intake = MemoryIntake::new();
    let mut running = fixture.start(Resume::default(), &intake);
    let message = running.fails_with("expired").await;
    let path = fixture.identity_path().display().to_string();
    for word in [
        path.as_str(),
        "2024-12-31T00:00:00Z",
        "`tctl auth sign --user=NAME`",
        "tbot",
    ] {
        assert!(message.contains(word), "{message}");
    }
    assert!(fake.script().clients.is_empty());
    // A half-written file is not used; the complete one is.
    let whole = fixture.authority.identity("bot", 2091);
    std::fs::write(fixture.identity_path(), &whole[..whole.len() / 2]).expect("a file");
    running
        .shows(|status| status.failures.contains_key("credentials"))
        .await;
    std::fs::write(fixture.identity_path(), &whole).expect("a file");
    let status = running.status.clone();
    assert_eq!(running.ended().await, Ended::CaughtUp);
    assert_eq!(intake.keys(FeedKind::Audit), ["e"]);
    assert!(status.borrow().failures.is_empty());
}

#[tokio::test]
async fn renewed_credentials_are_used_for_a_new_connection_without_a_restart() {
    let mut fixture = Fixture::new();
    let fake = Fake::start(&fixture.authority, script()).await;
    fixture.settings.address = fake.address.to_string();
    fixture.settings.exit_on_last_event = false;
    let intake = MemoryIntake::new();
    let mut running = fixture.start(Resume::default(), &intake);
    intake.holds(|contents| contents.events.len() == 1).await;
    let until = running.status.borrow().credentials_until;
    let renewed = fixture.authority.identity("bot", 2092);
    std::fs::write(fixture.identity_path(), &renewed).expect("a file");
    running
        .shows(|status| status.credentials_until != until)
        .await;
    fake.script().events.push(event(
        "later",
        "user.login",
        lockgate_teleport::Clock::now(&*fixture.clock),
        0,
        &[],
    ));
    intake.holds(|contents| contents.events.len() == 2).await;
    running.stop().await;
    let certificate = CertificateDer::from_pem_slice(renewed.as_bytes()).expect("a certificate");
    assert_eq!(
        fake.script().clients.last().map(Vec::as_slice),
        Some(&certificate[..])
    );
}

#[tokio::test]
async fn connection_failures_name_their_cause() {
    let ours = Fixture::new();
    let other = Authority::new();
    // (the server's authority, its TLS, the expected message)
    for (authority, tls, text) in [
        (
            &ours.authority,
            Tls {
                alpn: vec![],
                ..Tls::default()
            },
            "does not support HTTP/2 (it chose nothing)",
        ),
        (
            &ours.authority,
            Tls {
                alpn: vec![b"foo".to_vec()],
                ..Tls::default()
            },
            "speaks TLS, but not HTTP/2 (`NoApplicationProtocol`)",
        ),
        (
            &other,
            Tls {
                clients_of: Some(ours.authority.pem()),
                ..Tls::default()
            },
            "is not trusted",
        ),
        (
            &ours.authority,
            Tls {
                clients_of: Some(other.pem()),
                ..Tls::default()
            },
            "from another cluster",
        ),
    ] {
        let fake = Fake::start_with(authority, script(), tls, 0).await;
        let mut settings = ours.settings.clone();
        settings.address = fake.address.to_string();
        let fixture = Fixture {
            settings,
            ..Fixture::new()
        };
        let mut running = fixture.start(Resume::default(), &MemoryIntake::new());
        running.fails_with(text).await;
        running.stop().await;
    }
}

/// The host was ready until it gave up the first attempt.
#[tokio::test]
async fn a_server_that_accepts_and_does_not_answer_is_shown_before_the_attempt_ends() {
    let mut fixture = Fixture::new();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    let address = listener.local_addr().expect("an address");
    fixture.settings.address = address.to_string();
    fixture.settings.limits.answer = Duration::from_millis(50);
    fixture.settings.limits.dial = Duration::from_secs(3600);
    let mut running = fixture.start(Resume::default(), &MemoryIntake::new());
    running.fails_with("does not answer").await;
    let status = running.status.borrow().clone();
    let failure = &status.failures["connection"];
    assert_eq!(failure.kind, FailureKind::Connection);
    assert!(NOW <= failure.since, "{failure:?}");
    running.stop().await;
}

#[tokio::test]
async fn credentials_that_are_not_valid_yet_are_not_called_expired() {
    let mut fixture = Fixture::new();
    let tls = Tls {
        clients_of: Some(Authority::new().pem()),
        ..Tls::default()
    };
    let fake = Fake::start_with(&fixture.authority, script(), tls, 0).await;
    fixture.settings.address = fake.address.to_string();
    fixture.settings.start_time = None;
    // They are valid from 2020 on.
    fixture.clock.advance(-10 * 365 * DAY);
    let mut running = fixture.start(Resume::default(), &MemoryIntake::new());
    let message = running.fails_with("refused the TLS handshake").await;
    for word in ["not valid before 2020-01-01T00:00:00Z", "Set the clock"] {
        assert!(message.contains(word), "{message}");
    }
    assert!(!message.contains("expired"), "{message}");
    running.stop().await;
}

#[tokio::test]
async fn an_unreachable_server_is_retried() {
    let mut fixture = Fixture::new();
    let fake = Fake::start(&fixture.authority, script()).await;
    let address = fake.address;
    drop(fake);
    fixture.settings.address = address.to_string();
    fixture.settings.exit_on_last_event = false;
    let intake = MemoryIntake::new();
    let mut running = fixture.start(Resume::default(), &intake);
    running.fails_with("cannot be reached").await;
    let fake = Fake::start_with(&fixture.authority, script(), Tls::default(), address.port()).await;
    intake.holds(|contents| contents.events.len() == 1).await;
    // The server restarts.
    drop(fake);
    running.shows(|status| !status.failures.is_empty()).await;
    let mut after = script();
    after.events.push(event(
        "later",
        "user.login",
        lockgate_teleport::Clock::now(&*fixture.clock),
        0,
        &[],
    ));
    let _fake = Fake::start_with(&fixture.authority, after, Tls::default(), address.port()).await;
    intake.holds(|contents| contents.events.len() == 2).await;
    running.shows(|status| status.failures.is_empty()).await;
    running.stop().await;
}

#[tokio::test]
async fn denied_access_is_reported_and_retried() {
    let denied = "access denied\n\tuser \"bot\" not found";
    for (ping, search) in [
        (Err(Status::permission_denied("access denied")), None),
        (Ok(()), Some(Status::not_found(denied))),
        (
            Ok(()),
            Some(Status::permission_denied(
                "access denied to perform action \"list\" on \"event\"",
            )),
        ),
    ] {
        let mut fixture = Fixture::new();
        let mut script = Script { ping, ..script() };
        if let Some(status) = search {
            script.search = Box::new(move |_, _, _| Err(status.clone()));
        }
        let fake = Fake::start(&fixture.authority, script).await;
        fixture.settings.address = fake.address.to_string();
        let intake = MemoryIntake::new();
        let mut running = fixture.start(Resume::default(), &intake);
        let message = running.fails_with("Teleport denies access").await;
        assert!(message.contains("`list` and `read`"), "{message}");
        fake.script().ping = Ok(());
        fake.script().search = crate::fake::file_backend();
        assert_eq!(running.ended().await, Ended::CaughtUp);
        assert_eq!(intake.keys(FeedKind::Audit), ["e"]);
    }
}

/// The host ended when the file was half-written between its check and this.
#[tokio::test]
async fn credentials_that_cannot_be_used_at_the_start_are_waited_for() {
    let mut fixture = Fixture::new();
    let fake = Fake::start(&fixture.authority, script()).await;
    fixture.settings.address = fake.address.to_string();
    let whole = std::fs::read(fixture.identity_path()).expect("a file");
    std::fs::write(fixture.identity_path(), &whole[..whole.len() / 2]).expect("a file");
    let intake = MemoryIntake::new();
    let mut running = fixture.start(Resume::default(), &intake);
    running
        .shows(|status| status.failures.contains_key("credentials"))
        .await;
    std::fs::write(fixture.identity_path(), &whole).expect("a file");
    assert_eq!(running.ended().await, Ended::CaughtUp);
    assert_eq!(intake.keys(FeedKind::Audit), ["e"]);
}

/// The cursors of the first cluster skipped the events of the second.
#[tokio::test]
async fn another_cluster_at_the_address_is_not_read_into_the_same_streams() {
    let mut fixture = Fixture::new();
    let fake = Fake::start(&fixture.authority, script()).await;
    fixture.settings.address = fake.address.to_string();
    let intake = MemoryIntake::new();
    fixture.read(&intake).await;
    assert_eq!(
        intake.resume().cursors.get("cluster").map(String::as_str),
        Some("example.com")
    );
    fake.script().cluster = "other.example.com".to_owned();
    let mut running = fixture.start(intake.resume(), &intake);
    let message = running.fails_with("other.example.com").await;
    assert!(
        message.contains("the store has the events of `example.com`"),
        "{message}"
    );
    fake.script().cluster = "example.com".to_owned();
    assert_eq!(running.ended().await, Ended::CaughtUp);
    assert_eq!(intake.keys(FeedKind::Audit), ["e"]);
}

#[tokio::test]
async fn a_source_that_cannot_start_says_why() {
    let fixture = Fixture::new();
    let run = async |change: &dyn Fn(&mut lockgate_teleport::SourceSettings),
                     resume: Resume|
           -> SourceError {
        let mut settings = fixture.settings.clone();
        change(&mut settings);
        let status = watch::Sender::new(ReaderStatus::default());
        let shutdown = tokio::time::sleep(Duration::from_secs(60));
        lockgate_teleport::run(settings, resume, MemoryIntake::new(), status, shutdown)
            .await
            .expect_err("it cannot start")
    };
    let stored = |value: &str| Resume {
        cursors: [("start".to_owned(), value.to_owned())].into(),
        ..Resume::default()
    };

    let error = run(
        &|settings| settings.address = "teleport.example.com".into(),
        Resume::default(),
    )
    .await;
    assert!(error.to_string().contains("`host:port`"), "{error}");
    let error = run(&|_| {}, stored("2020-01-01T00:00:00Z")).await;
    assert!(
        error.to_string().contains(
            "starts at 2020-01-01T00:00:00Z, the configuration says 2026-01-01T12:00:00Z"
        ),
        "{error}"
    );
    let error = run(&|_| {}, stored("yesterday")).await;
    assert!(error.to_string().contains("`yesterday`"), "{error}");
}

#[tokio::test]
async fn the_same_start_written_with_another_offset_is_the_same() {
    let mut fixture = Fixture::new();
    let fake = Fake::start(&fixture.authority, script()).await;
    fixture.settings.address = fake.address.to_string();
    let resume = Resume {
        cursors: [("start".to_owned(), "2026-01-01T14:00:00+02:00".to_owned())].into(),
        ..Resume::default()
    };
    let running = fixture.start(resume, &MemoryIntake::new());
    assert_eq!(running.ended().await, Ended::CaughtUp);
}
