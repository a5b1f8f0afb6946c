//! Teleport read through its proxy: every event once, also where the proxy is restarted meanwhile.

use std::path::{Path, PathBuf};

use lockgate_sim::auth::{AuthOptions, ProxyOptions, Upgrade};
use lockgate_sim::generate::GeneratorOptions;
use lockgate_tests::receiver::LocalReceiver;
use lockgate_tests::{LocalAuth, Running, books, lockgate, started, status, until};

const EVENTS: u64 = 1_000;

/// A proxy with a load balancer in front of it.
fn balanced(upgrade: Upgrade) -> ProxyOptions {
    ProxyOptions {
        balancer: Some("127.0.0.1:0".to_owned()),
        upgrade,
        ..ProxyOptions::default()
    }
}

fn auth(dir: &Path, proxy: ProxyOptions) -> LocalAuth {
    let options = AuthOptions {
        events: GeneratorOptions {
            events: EVENTS,
            ..GeneratorOptions::default()
        },
        rate: Some(250.0),
        proxy: Some(proxy),
        ..AuthOptions::default()
    };
    LocalAuth::start(dir, options)
}

fn configuration(
    dir: &Path,
    auth: &LocalAuth,
    addr: &str,
    receiver: &LocalReceiver,
    more: &str,
) -> PathBuf {
    let config = dir.join("lockgate.toml");
    let text = format!(
        r#"
[teleport]
addr = "{addr}"
identity = "{0}/identity"
proxy-ca = "{0}/proxy-ca.crt"
start-time = "2026-01-01T00:00:00Z"
{more}

[store]
path = "{1}/store"

[admin]
listen = ""

[pipelines.main.sink]
plugin = "builtin:fluentd"
{2}
"#,
        auth.dir.display(),
        dir.display(),
        receiver.endpoint("events"),
    );
    std::fs::write(&config, text).unwrap();
    config
}

fn status_text(config: &Path) -> String {
    let mut command = lockgate();
    command.args(["status", "--config"]).arg(config);
    let shown = Running::start("status", &mut command).ended();
    shown.exits_with(0).stdout
}

/// `route`: as `status --json` names it, in words as `status` does, and why the log says that it
/// was taken.
fn every_event_arrives_once(
    proxy: ProxyOptions,
    by_balancer: bool,
    (route, words, why): (&str, &str, &str),
) {
    let dir = tempfile::tempdir().unwrap();
    let mut auth = auth(dir.path(), proxy);
    let (proxy, balancer) = auth.proxy();
    let addr = if by_balancer { balancer } else { proxy };
    let receiver = LocalReceiver::start(dir.path());
    let config = configuration(dir.path(), &auth, &addr, &receiver, "");
    let host = started(&config);
    let shown = || {
        let totals = receiver.control.totals();
        format!("{totals:?}\n{}\n{}", status(&config), host.stderr())
    };
    let source = || status(&config)["host"]["sources"]["teleport"].clone();
    until("some events have arrived", shown, || {
        receiver.control.totals().distinct >= EVENTS / 4
    });
    assert_eq!(source()["reader"]["route"], route, "{}", shown());
    assert!(status_text(&config).contains(words), "{}", shown());
    auth.stop_proxy();
    until("the outage shows", shown, || {
        let source = source();
        let mut conditions = source["conditions"].as_array().into_iter().flatten();
        conditions.any(|condition| {
            let message = condition["message"].as_str().unwrap_or_default();
            condition["kind"] == "connection" && message.contains("cannot be reached")
        })
    });
    auth.start_proxy();
    until("all events have arrived", shown, || {
        receiver.control.totals().distinct == EVENTS
    });
    until("all of them are on the books", shown, || {
        books(&status(&config), "main").delivered == EVENTS
    });
    assert_eq!(source()["reader"]["route"], route, "{}", shown());
    let ended = host.stop().exits_with(0);
    assert_eq!(receiver.stop().documents, EVENTS);
    let explained = ended.stderr.matches(why).count();
    assert_eq!(
        explained, 1,
        "once, not at each connection:\n{}",
        ended.stderr
    );
}

#[test]
fn every_event_arrives_once_by_tls_routing() {
    every_event_arrives_once(
        balanced(Upgrade::WebSocket),
        false,
        (
            "proxy",
            "through Teleport's proxy, by TLS routing",
            "connected to Teleport through its proxy by TLS routing: a proxy answers at `addr`",
        ),
    );
}

#[test]
fn every_event_arrives_once_in_a_connection_upgrade() {
    for upgrade in [Upgrade::WebSocket, Upgrade::Alpn] {
        every_event_arrives_once(
            balanced(upgrade),
            true,
            (
                "proxy-upgrade",
                "by TLS routing in a connection upgrade",
                "a load balancer in front of it terminates TLS",
            ),
        );
    }
}

#[test]
fn every_event_arrives_once_through_the_ssh_tunnel_of_a_proxy_without_tls_routing() {
    let separate = ProxyOptions {
        tls_routing: false,
        tunnel: Some("127.0.0.1:0".to_owned()),
        ..balanced(Upgrade::default())
    };
    every_event_arrives_once(
        separate,
        false,
        (
            "ssh-tunnel",
            "through Teleport's proxy, by an SSH tunnel",
            "connected to Teleport through its proxy by an SSH tunnel: a proxy answers at `addr`, \
             its TLS routing is switched off, and it says that the tunnel is at `127.0.0.1:",
        ),
    );
}

/// `check` and the environment variable of Teleport's own clients.
#[test]
fn what_a_source_says_of_its_proxy_is_checked() {
    let dir = tempfile::tempdir().unwrap();
    let auth = auth(dir.path(), balanced(Upgrade::default()));
    let receiver = LocalReceiver::start(dir.path());
    let (proxy, _) = auth.proxy();
    let check = |config: &Path, variable: &str| {
        let mut command = lockgate();
        command.args(["check", "--config"]).arg(config);
        command.env("TELEPORT_TLS_ROUTING_CONN_UPGRADE", variable);
        let ended = command.output().unwrap();
        let text = String::from_utf8_lossy(&ended.stderr).into_owned();
        (ended.status.code(), text)
    };
    let config = configuration(dir.path(), &auth, &proxy, &receiver, "");
    assert_eq!(
        check(&config, "yes").0,
        Some(0),
        "{}",
        check(&config, "yes").1
    );
    let (code, text) = check(&config, "127.0.0.1=perhaps");
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("has `127.0.0.1=perhaps` in it"), "{text}");
    let tunnel = |variable: &str| {
        let mut command = lockgate();
        command.args(["check", "--config"]).arg(&config);
        command.env("TELEPORT_TUNNEL_PUBLIC_ADDR", variable);
        Running::start("check", &mut command).ended()
    };
    tunnel("tunnel.example.com:3024").exits_with(0);
    let text = tunnel("https://tunnel").exits_with(2).stderr;
    assert!(
        text.contains("`TELEPORT_TUNNEL_PUBLIC_ADDR` is not an"),
        "{text}"
    );
    let forced = configuration(dir.path(), &auth, &proxy, &receiver, "connect = \"proxy\"");
    assert_eq!(
        check(&forced, "perhaps").0,
        Some(0),
        "it does not matter then"
    );
    let direct = configuration(
        dir.path(),
        &auth,
        &auth.addr,
        &receiver,
        "connect = \"auth\"",
    );
    let (code, text) = check(&direct, "");
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("`proxy-ca` has no effect"), "{text}");
    let config = configuration(dir.path(), &auth, &proxy, &receiver, "");
    std::fs::write(auth.dir.join("proxy-ca.crt"), "no certificate").unwrap();
    let (code, text) = check(&config, "");
    assert_eq!(code, Some(2), "{text}");
    assert!(
        text.contains("it contains no certificate in PEM") && text.contains("proxy-ca ="),
        "{text}"
    );
}
