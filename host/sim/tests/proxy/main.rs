//! A source of the host against the simulated Teleport, by each route and by each of its faults.

#![allow(clippy::disallowed_methods, reason = "real servers take real time")]

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{Response, header};
use http_body_util::Full;
use hyper_util::rt::TokioIo;
use lockgate_model::{Append, KnownEvents, Millis};
use lockgate_sim::auth::{
    AuthOptions, AuthServer, KeyKind, ProxyFaults, ProxyOptions, Upgrade, issue_identity,
};
use lockgate_sim::generate::GeneratorOptions;
use lockgate_teleport::connect::Route;
use lockgate_teleport::{
    Closed, Credentials, Ended, Intake, ReaderStatus, Resume, SourceLimits, SourceSettings,
};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

mod tunnel;

/// Longer than anything here takes, even on a slow machine.
const PATIENCE: Duration = Duration::from_secs(300);

/// How often each event arrived, by its key.
#[derive(Clone)]
struct Seen(watch::Sender<BTreeMap<String, u64>>);

impl Intake for Seen {
    async fn append(&self, append: Append) -> Result<(), Closed> {
        self.0.send_modify(|seen| {
            for row in 0..append.events.times.len() {
                *seen
                    .entry(append.events.keys.at(row).to_owned())
                    .or_default() += 1;
            }
        });
        Ok(())
    }

    async fn known(&self, _: Millis, until: Millis, _: usize) -> Result<KnownEvents, Closed> {
        Ok(KnownEvents {
            events: Default::default(),
            until,
            is_complete: true,
        })
    }
}

struct Running {
    task: JoinHandle<Result<Ended, lockgate_teleport::SourceError>>,
    status: watch::Receiver<ReaderStatus>,
    seen: Seen,
    stop: oneshot::Sender<()>,
}

impl Running {
    fn start(settings: SourceSettings) -> Running {
        let (reporter, status) = watch::channel(ReaderStatus::default());
        let (stop, stopped) = oneshot::channel::<()>();
        let seen = Seen(watch::Sender::default());
        let source =
            lockgate_teleport::run(settings, Resume::default(), seen.clone(), reporter, async {
                let _ = stopped.await;
            });
        Running {
            task: tokio::spawn(source),
            status,
            seen,
            stop,
        }
    }

    /// Waits for a failure to connect that contains `text`, and returns its message.
    async fn fails_with(mut self, text: &str) -> String {
        let found = |status: &ReaderStatus| {
            let failure = status.failures.get("connection")?;
            Some(failure.message.clone()).filter(|message| message.contains(text))
        };
        let shown = tokio::time::timeout(
            PATIENCE,
            self.status.wait_for(|status| found(status).is_some()),
        );
        let message = match shown.await {
            Ok(status) => found(&status.expect("it runs")),
            Err(_) => None,
        };
        let message = message
            .unwrap_or_else(|| panic!("`{text}` not in {:?}", self.status.borrow().failures));
        let _ = self.stop.send(());
        message
    }

    async fn ended(self) -> ReaderStatus {
        let ended = tokio::time::timeout(PATIENCE, self.task).await;
        let ended = ended.unwrap_or_else(|_| panic!("{:?}", self.status.borrow().failures));
        assert_eq!(ended.expect("no panic").expect("no error"), Ended::CaughtUp);
        drop(self.stop);
        self.status.borrow().clone()
    }
}

fn options(out: &Path, proxy: ProxyOptions) -> AuthOptions {
    AuthOptions {
        out: out.to_owned(),
        events: GeneratorOptions {
            events: 1_000,
            ..GeneratorOptions::default()
        },
        proxy: Some(proxy),
        ..AuthOptions::default()
    }
}

/// A proxy with a load balancer in front of it.
fn balanced() -> ProxyOptions {
    ProxyOptions {
        balancer: Some("127.0.0.1:0".to_owned()),
        ..ProxyOptions::default()
    }
}

fn settings(out: &Path, address: SocketAddr, server: &AuthServer) -> SourceSettings {
    let credentials = Credentials::identity_file(out.join("identity"));
    let mut settings = SourceSettings::new("teleport", &address.to_string(), credentials);
    settings.proxy_ca = Some(out.join("proxy-ca.crt"));
    settings.start_time = Some(server.generator().time(0));
    settings.exit_on_last_event = true;
    let ms = Duration::from_millis;
    settings.limits = SourceLimits {
        backoff: (ms(1), ms(20)),
        flush: ms(20),
        export_poll: ms(20),
        poll: ms(10),
        lag: ms(50),
        ..SourceLimits::default()
    };
    settings
}

async fn every_event_arrives_by(
    out: &Path,
    address: SocketAddr,
    server: &AuthServer,
    route: Route,
    change: impl FnOnce(&mut SourceSettings),
) {
    let mut settings = settings(out, address, server);
    change(&mut settings);
    let running = Running::start(settings);
    let seen = running.seen.clone();
    let status = running.ended().await;
    assert_eq!(status.route, Some(route));
    let seen = seen.0.borrow();
    assert_eq!(seen.len(), 1_000, "{route}");
    assert!(seen.values().all(|&count| count == 1), "{route}");
}

#[tokio::test]
async fn the_route_is_found_by_what_answers_and_brings_every_event() {
    let dir = tempfile::tempdir().expect("a directory");
    let out = dir.path();
    for upgrade in [Upgrade::WebSocket, Upgrade::Alpn] {
        for balancer_offers_http in [false, true] {
            let proxy = ProxyOptions {
                upgrade,
                balancer_offers_http,
                ..balanced()
            };
            let server = AuthServer::start(options(out, proxy))
                .await
                .expect("it starts");
            let balancer = server.balancer_address().expect("a balancer");
            every_event_arrives_by(out, balancer, &server, Route::ProxyUpgrade, |_| {}).await;
            server.stop().await;
        }
    }
    let server = AuthServer::start(options(out, balanced()))
        .await
        .expect("it starts");
    let proxy = server.proxy_address().expect("a proxy");
    every_event_arrives_by(out, proxy, &server, Route::Proxy, |_| {}).await;
    every_event_arrives_by(out, server.address(), &server, Route::Auth, |_| {}).await;
    // The system's authorities are not needed for that.
    every_event_arrives_by(out, server.address(), &server, Route::Auth, |settings| {
        settings.proxy_ca = None;
    })
    .await;
    server.stop().await;
}

#[tokio::test]
async fn the_route_that_worked_is_tried_first_and_found_anew_once_it_fails() {
    let dir = tempfile::tempdir().expect("a directory");
    let out = dir.path();
    let mut server = AuthServer::start(options(out, balanced()))
        .await
        .expect("it starts");
    let balancer = server.balancer_address().expect("a balancer");
    let mut settings = settings(out, balancer, &server);
    settings.exit_on_last_event = false;
    let mut running = Running::start(settings);
    let mut events = running.seen.0.subscribe();
    events
        .wait_for(|seen| seen.len() == 1_000)
        .await
        .expect("events");
    let served = server.proxy_served();
    assert_eq!((served.finds, served.connections), (1, 1));
    server.drop_connections();
    let waiting = async {
        while server.proxy_served().connections < 2 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting)
        .await
        .expect("it connects again");
    assert_eq!(server.proxy_served().finds, 1, "the route is known");
    // The proxy is gone for a while.
    server.stop_proxy().await;
    running
        .status
        .wait_for(|status| status.failures.contains_key("connection"))
        .await
        .expect("it runs");
    server.start_proxy().await.expect("it starts");
    running
        .status
        .wait_for(|status| status.failures.is_empty())
        .await
        .expect("it runs");
    assert!(server.proxy_served().finds > 0, "the route is found anew");
    assert_eq!(running.status.borrow().route, Some(Route::ProxyUpgrade));
    let _ = running.stop.send(());
    server.stop().await;
}

#[tokio::test]
async fn the_route_can_be_forced() {
    let dir = tempfile::tempdir().expect("a directory");
    let out = dir.path();
    let server = AuthServer::start(options(out, balanced()))
        .await
        .expect("it starts");
    let proxy = server.proxy_address().expect("a proxy");
    for (address, route) in [
        (server.address(), Route::Auth),
        (proxy, Route::Proxy),
        (proxy, Route::ProxyUpgrade),
    ] {
        every_event_arrives_by(out, address, &server, route, |settings| {
            settings.route = Some(route);
        })
        .await;
    }
    // As with TELEPORT_TLS_ROUTING_CONN_UPGRADE.
    every_event_arrives_by(out, proxy, &server, Route::ProxyUpgrade, |settings| {
        settings.upgrade = Some(true);
    })
    .await;
    server.stop().await;
}

#[tokio::test]
async fn keys_of_every_kind_are_taken_by_each_route() {
    let dir = tempfile::tempdir().expect("a directory");
    let out = dir.path();
    let options = options(out, balanced());
    let server = AuthServer::start(options.clone()).await.expect("it starts");
    let proxy = server.proxy_address().expect("a proxy");
    let balancer = server.balancer_address().expect("a balancer");
    for (identity_key, key, ssh) in [
        (
            KeyKind::Ecdsa,
            "-----BEGIN PRIVATE KEY-----",
            "\necdsa-sha2-nistp256-cert-v01@openssh.com ",
        ),
        (
            KeyKind::Ed25519,
            "-----BEGIN PRIVATE KEY-----",
            "\nssh-ed25519-cert-v01@openssh.com ",
        ),
        (
            KeyKind::Rsa,
            "-----BEGIN RSA PRIVATE KEY-----",
            "\nssh-rsa-cert-v01@openssh.com ",
        ),
    ] {
        issue_identity(&AuthOptions {
            identity_key,
            ..options.clone()
        })
        .expect("an identity");
        let file = std::fs::read_to_string(out.join("identity")).expect("an identity");
        assert!(file.starts_with(key) && file.contains(ssh), "{file}");
        for (address, route) in [
            (server.address(), Route::Auth),
            (proxy, Route::Proxy),
            (balancer, Route::ProxyUpgrade),
        ] {
            every_event_arrives_by(out, address, &server, route, |_| {}).await;
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn each_failure_states_its_cause_and_the_remedy() {
    let (dir, other) = (
        tempfile::tempdir().expect("a directory"),
        tempfile::tempdir().expect("a directory"),
    );
    let out = dir.path();
    let server = AuthServer::start(options(out, balanced()))
        .await
        .expect("it starts");
    let foreign = AuthServer::start(options(other.path(), ProxyOptions::default()))
        .await
        .expect("it starts");
    let proxy = server.proxy_address().expect("a proxy");
    let balancer = server.balancer_address().expect("a balancer");
    type Change<'a> = &'a dyn Fn(&mut SourceSettings);
    let fails = async |address: SocketAddr, change: Change<'_>, words: &[&str]| {
        let mut settings = settings(out, address, &server);
        change(&mut settings);
        let message = Running::start(settings).fails_with(words[0]).await;
        for word in words {
            assert!(message.contains(word), "`{word}` is not in: {message}");
        }
        assert!(message.contains(&address.to_string()), "{message}");
    };

    // The proxy's certificate is from another authority.
    let wrong_ca: Change<'_> = &|settings| settings.proxy_ca = Some(out.join("ca.crt"));
    let words = ["is not trusted", "UnknownIssuer", "ca.crt", "`proxy-ca`"];
    fails(proxy, wrong_ca, &words).await;
    fails(balancer, wrong_ca, &words).await;
    // The credentials are from another cluster.
    let of_other: Change<'_> = &|settings| {
        settings.credentials = Credentials::identity_file(other.path().join("identity"));
    };
    let words = ["are not of the cluster", "example.teleport.sh"];
    fails(proxy, of_other, &words).await;
    fails(balancer, of_other, &words).await;
    fails(server.address(), of_other, &["is not trusted"]).await;
    // The proxy knows no such way, or something else ends TLS.
    let upgrade_refused = ProxyFaults {
        refuses_upgrades: true,
        ..ProxyFaults::default()
    };
    server.set_proxy_faults(upgrade_refused);
    let words = ["refuses the connection upgrade", "403", "load balancer"];
    fails(balancer, &|_| {}, &words).await;
    let forced: Change<'_> = &|settings| settings.route = Some(Route::Proxy);
    let words = ["terminates TLS", "connect = \"proxy-upgrade\""];
    fails(balancer, forced, &words).await;
    fails(balancer, &|settings| settings.upgrade = Some(false), &words).await;
    let direct: Change<'_> = &|settings| settings.route = Some(Route::Auth);
    fails(
        proxy,
        direct,
        &[
            "is not trusted",
            "Auth Service",
            "`connect = \"auth\"` decides",
        ],
    )
    .await;
    let words = ["is not trusted", "`connect = \"proxy\"` decides"];
    fails(server.address(), forced, &words).await;
    // The proxy does not reach the Auth Service.
    server.set_proxy_faults(ProxyFaults {
        is_without_auth: true,
        ..ProxyFaults::default()
    });
    let words = ["closes connections to the Auth Service", "the proxy's log"];
    fails(proxy, &|_| {}, &words).await;
    fails(balancer, &|_| {}, &words).await;
    foreign.stop().await;
    server.stop().await;
}

#[tokio::test]
async fn expired_credentials_are_reported_before_any_route_is_tried() {
    let dir = tempfile::tempdir().expect("a directory");
    let out = dir.path();
    let past = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    let options = AuthOptions {
        identity_expires: Some(past),
        ..options(out, balanced())
    };
    let server = AuthServer::start(options).await.expect("it starts");
    for route in [None, Some(Route::Proxy), Some(Route::ProxyUpgrade)] {
        let mut settings = settings(out, server.proxy_address().expect("a proxy"), &server);
        settings.route = route;
        let message = Running::start(settings).fails_with("expired at").await;
        assert!(
            message.contains("`tctl auth sign --user=NAME`"),
            "{message}"
        );
    }
    server.stop().await;
}

/// A web server with a trusted certificate that has nothing to do with Teleport.
#[tokio::test]
async fn another_web_server_is_not_taken_for_a_proxy() {
    let dir = tempfile::tempdir().expect("a directory");
    let out = dir.path();
    let server = AuthServer::start(options(out, ProxyOptions::default()))
        .await
        .expect("it starts");
    let page = "<!doctype html><title>Welcome to nginx!</title>";
    for (status, kind, location, body, words) in [
        (200, "text/html", "", page, ["`text/html`", "443 or 3080"]),
        (404, "text/html", "", page, ["404 Not Found", "`addr`"]),
        (502, "text/html", "", page, ["502 Bad Gateway", "`addr`"]),
        (
            302,
            "text/html",
            "https://login.example.com/",
            "",
            ["redirects", "`https://login.example.com/`"],
        ),
        (
            200,
            "application/json",
            "",
            "{\"ok\":true}",
            ["`application/json`", "is not Teleport's proxy"],
        ),
    ] {
        let answer = move |_: &str| {
            let response = Response::builder()
                .status(status)
                .header(header::CONTENT_TYPE, kind)
                .header(header::LOCATION, location);
            response
                .body(Full::new(Bytes::from_static(body.as_bytes())))
                .expect("a response")
        };
        let (address, web) = web_server(out, answer).await;
        for route in [None, Some(Route::Proxy)] {
            let mut settings = settings(out, address, &server);
            settings.route = route;
            let message = Running::start(settings).fails_with(words[0]).await;
            assert!(message.contains(words[1]), "{message}");
        }
        web.abort();
    }
    server.stop().await;
}

/// A web server that answers in a proxy's place, and knows no upgrade or not how to agree to it.
#[tokio::test]
async fn an_upgrade_that_is_not_agreed_to_is_not_used() {
    let dir = tempfile::tempdir().expect("a directory");
    let out = dir.path();
    let server = AuthServer::start(options(out, ProxyOptions::default()))
        .await
        .expect("it starts");
    let find = r#"{"cluster_name":"ex.com","proxy":{"tls_routing_enabled":true}}"#;
    for (status, headers, words) in [
        (404, &[][..], "has no `/webapi/connectionupgrade` (404)"),
        (200, &[], "answers with 200 OK"),
        (101, &[("upgrade", "h2c")], "with `h2c` as `upgrade`"),
        (
            101,
            &[
                ("upgrade", "websocket"),
                ("sec-websocket-protocol", "alpn-ping"),
                ("sec-websocket-accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
            ],
            "as `sec-websocket-accept`",
        ),
    ] {
        let answer = move |path: &str| {
            let response = Response::builder();
            if path == "/webapi/find" {
                return response.body(Full::from(find)).expect("a response");
            }
            let mut response = response.status(status);
            for (name, value) in headers {
                response = response.header(*name, *value);
            }
            response.body(Full::default()).expect("a response")
        };
        let (address, web) = web_server(out, answer).await;
        let mut settings = settings(out, address, &server);
        settings.route = Some(Route::ProxyUpgrade);
        let message = Running::start(settings).fails_with(words).await;
        assert!(
            message.contains("refuses the connection upgrade"),
            "{message}"
        );
        web.abort();
    }
    server.stop().await;
}

async fn web_server(
    out: &Path,
    answer: impl Fn(&str) -> Response<Full<Bytes>> + Copy + Send + 'static,
) -> (SocketAddr, JoinHandle<()>) {
    let certificate = CertificateDer::from_pem_file(out.join("proxy.crt")).expect("proxy.crt");
    let key = PrivateKeyDer::from_pem_file(out.join("proxy.key")).expect("proxy.key");
    let tls = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .expect("a certificate");
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let task = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(stream) = acceptor.accept(stream).await else {
                continue;
            };
            let service = hyper::service::service_fn(
                move |request: http::Request<hyper::body::Incoming>| async move {
                    Ok::<_, Infallible>(answer(request.uri().path()))
                },
            );
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        }
    });
    (address, task)
}
