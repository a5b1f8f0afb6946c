use std::time::Duration;

use lockgate_model::FeedKind;
use lockgate_teleport::{Credentials, Ended, Resume, SourceError, SourceStatus};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use tokio::sync::watch;
use tonic::Status;

use crate::fake::{Fake, Script, Tls, event};
use crate::keep::Keep;
use crate::world::{Authority, DAY, NOW, World};

fn script() -> Script {
    Script {
        events: vec![event("e", "user.login", NOW - DAY, 0, &[])],
        ..Script::default()
    }
}

#[tokio::test]
async fn calls_say_the_servers_own_version() {
    let mut world = World::new();
    let fake = Fake::start(&world.authority, script()).await;
    world.settings.address = fake.address.to_string();
    let status = world.read(&Keep::new()).await;
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
async fn expired_credentials_are_told_before_dialling_and_new_ones_are_taken_up() {
    let mut world = World::new();
    let fake = Fake::start(&world.authority, script()).await;
    world.settings.address = fake.address.to_string();
    std::fs::write(world.identity_path(), world.authority.identity("bot", 2024)).expect("a file");
    let keep = Keep::new();
    let mut running = world.start(Resume::default(), &keep);
    let message = running.trouble("expired").await;
    let path = world.identity_path().display().to_string();
    for word in [
        path.as_str(),
        "2024-12-31T00:00:00Z",
        "`tctl auth sign`",
        "tbot",
    ] {
        assert!(message.contains(word), "{message}");
    }
    assert!(fake.script().clients.is_empty());
    // A file that is written half is not taken; then it is whole.
    let whole = world.authority.identity("bot", 2091);
    std::fs::write(world.identity_path(), &whole[..whole.len() / 2]).expect("a file");
    running
        .shows(|status| status.troubles.contains_key("credentials"))
        .await;
    std::fs::write(world.identity_path(), &whole).expect("a file");
    let status = running.status.clone();
    assert_eq!(running.ended().await, Ended::CaughtUp);
    assert_eq!(keep.keys(FeedKind::Audit), ["e"]);
    assert!(status.borrow().troubles.is_empty());
}

#[tokio::test]
async fn renewed_credentials_make_a_new_connection_while_it_runs() {
    let mut world = World::new();
    let fake = Fake::start(&world.authority, script()).await;
    world.settings.address = fake.address.to_string();
    world.settings.exit_on_last_event = false;
    let keep = Keep::new();
    let mut running = world.start(Resume::default(), &keep);
    keep.holds(|contents| contents.events.len() == 1).await;
    let until = running.status.borrow().credentials_until;
    let renewed = world.authority.identity("bot", 2092);
    std::fs::write(world.identity_path(), &renewed).expect("a file");
    running
        .shows(|status| status.credentials_until != until)
        .await;
    fake.script().events.push(event(
        "later",
        "user.login",
        lockgate_teleport::Clock::now(&*world.clock),
        0,
        &[],
    ));
    keep.holds(|contents| contents.events.len() == 2).await;
    running.stop().await;
    let certificate = CertificateDer::from_pem_slice(renewed.as_bytes()).expect("a certificate");
    assert_eq!(
        fake.script().clients.last().map(Vec::as_slice),
        Some(&certificate[..])
    );
}

#[tokio::test]
async fn what_hinders_a_connection_is_named() {
    let ours = World::new();
    let other = Authority::new();
    // (the server's authority, its TLS, what is said)
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
            "refused the TLS handshake",
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
        let world = World {
            settings,
            ..World::new()
        };
        let mut running = world.start(Resume::default(), &Keep::new());
        running.trouble(text).await;
        running.stop().await;
    }
}

#[tokio::test]
async fn a_server_that_is_away_is_waited_for() {
    let mut world = World::new();
    let fake = Fake::start(&world.authority, script()).await;
    let address = fake.address;
    drop(fake);
    world.settings.address = address.to_string();
    world.settings.exit_on_last_event = false;
    let keep = Keep::new();
    let mut running = world.start(Resume::default(), &keep);
    running.trouble("cannot be reached").await;
    let fake = Fake::start_with(&world.authority, script(), Tls::default(), address.port()).await;
    keep.holds(|contents| contents.events.len() == 1).await;
    // It restarts.
    drop(fake);
    running.shows(|status| !status.troubles.is_empty()).await;
    let mut after = script();
    after.events.push(event(
        "later",
        "user.login",
        lockgate_teleport::Clock::now(&*world.clock),
        0,
        &[],
    ));
    let _fake = Fake::start_with(&world.authority, after, Tls::default(), address.port()).await;
    keep.holds(|contents| contents.events.len() == 2).await;
    running.shows(|status| status.troubles.is_empty()).await;
    running.stop().await;
}

#[tokio::test]
async fn denied_access_is_told_and_tried_again() {
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
        let mut world = World::new();
        let mut script = Script { ping, ..script() };
        if let Some(status) = search {
            script.search = Box::new(move |_, _, _| Err(status.clone()));
        }
        let fake = Fake::start(&world.authority, script).await;
        world.settings.address = fake.address.to_string();
        let keep = Keep::new();
        let mut running = world.start(Resume::default(), &keep);
        let message = running.trouble("Teleport denies access").await;
        assert!(message.contains("`list` and `read`"), "{message}");
        fake.script().ping = Ok(());
        fake.script().search = crate::fake::file_backend();
        assert_eq!(running.ended().await, Ended::CaughtUp);
        assert_eq!(keep.keys(FeedKind::Audit), ["e"]);
    }
}

#[tokio::test]
async fn what_cannot_begin_says_why() {
    let world = World::new();
    let run =
        async |change: &dyn Fn(&mut lockgate_teleport::Settings), resume: Resume| -> SourceError {
            let mut settings = world.settings.clone();
            change(&mut settings);
            let status = watch::Sender::new(SourceStatus::default());
            let shutdown = tokio::time::sleep(Duration::from_secs(60));
            lockgate_teleport::run(settings, resume, Keep::new(), status, shutdown)
                .await
                .expect_err("it cannot begin")
        };
    let stored = |value: &str| Resume {
        cursors: [("start".to_owned(), value.to_owned())].into(),
        ..Resume::default()
    };
    let missing = world.folder.path().join("missing");

    let error = run(
        &|settings| settings.address = "teleport.example.com".into(),
        Resume::default(),
    )
    .await;
    assert!(error.to_string().contains("`host:port`"), "{error}");
    let error = run(
        &|settings| settings.credentials = Credentials::identity_file(&missing),
        Resume::default(),
    )
    .await;
    assert!(error.to_string().contains("missing"), "{error}");
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
    let mut world = World::new();
    let fake = Fake::start(&world.authority, script()).await;
    world.settings.address = fake.address.to_string();
    let resume = Resume {
        cursors: [("start".to_owned(), "2026-01-01T14:00:00+02:00".to_owned())].into(),
        ..Resume::default()
    };
    let running = world.start(resume, &Keep::new());
    assert_eq!(running.ended().await, Ended::CaughtUp);
}
