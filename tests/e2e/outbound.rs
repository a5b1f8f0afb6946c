//! Teleport read through an outbound proxy, which `HTTPS_PROXY` names. The names of Teleport's
//! hosts are known to that proxy alone.

use std::path::{Path, PathBuf};

use lockgate_sim::auth::{AuthOptions, ProxyOptions};
use lockgate_sim::generate::GeneratorOptions;
use lockgate_tests::receiver::LocalReceiver;
use lockgate_tests::{LocalAuth, OutboundKind, OutboundProxy, Running, lockgate};

const EVENTS: u64 = 300;
const AUTH: &str = "auth.example.com:3025";
const PROXY: &str = "teleport.example.com:443";
const BALANCER: &str = "balancer.example.com:443";
const TUNNEL: &str = "tunnel.example.com:3024";
/// `USER:PASSWORD` as the proxy knows it, and as it is written in a URL.
const LOGIN: &str = "me@site:s3cret/w:rd";
const WRITTEN: &str = "me%40site:s3cret%2Fw:rd@";

struct Fixture {
    dir: tempfile::TempDir,
    auth: LocalAuth,
    receiver: LocalReceiver,
}

impl Fixture {
    fn new() -> Fixture {
        let dir = tempfile::tempdir().unwrap();
        let names = [PROXY, BALANCER, TUNNEL].map(|name| {
            let (host, _) = name.split_once(':').unwrap();
            host.to_owned()
        });
        let options = AuthOptions {
            events: GeneratorOptions {
                events: EVENTS,
                ..GeneratorOptions::default()
            },
            proxy: Some(ProxyOptions {
                balancer: Some("127.0.0.1:0".to_owned()),
                tunnel: Some("127.0.0.1:0".to_owned()),
                tunnel_public_addr: Some(TUNNEL.to_owned()),
                public_names: names.into(),
                ..ProxyOptions::default()
            }),
            ..AuthOptions::default()
        };
        Fixture {
            auth: LocalAuth::start(dir.path(), options),
            receiver: LocalReceiver::start(dir.path()),
            dir,
        }
    }

    fn outbound(&self, kind: OutboundKind) -> OutboundProxy {
        let (proxy, balancer) = self.auth.proxy();
        let tunnel = self.auth.tunnel();
        let known = [
            (AUTH, &*self.auth.addr),
            (PROXY, &proxy),
            (BALANCER, &balancer),
            (TUNNEL, &tunnel),
        ];
        OutboundProxy::start(kind, Some(LOGIN), &known)
    }

    /// With a store of its own.
    fn configuration(&self, name: &str, addr: &str) -> PathBuf {
        let config = self.dir.path().join(format!("{name}.toml"));
        let text = format!(
            r#"
[teleport]
addr = "{addr}"
identity = "{0}/identity"
proxy-ca = "{0}/proxy-ca.crt"
start-time = "2026-01-01T00:00:00Z"

[store]
path = "{1}/store-{name}"

[admin]
listen = ""

[pipelines.main.sink]
plugin = "builtin:fluentd"
{2}
"#,
            self.auth.dir.display(),
            self.dir.path().display(),
            self.receiver.endpoint(name),
        );
        std::fs::write(&config, text).unwrap();
        config
    }
}

fn start(config: &Path, outbound: &str, arguments: &[&str]) -> Running {
    let mut command = lockgate();
    command.args(["start", "--config"]).arg(config);
    command.args(arguments).env("HTTPS_PROXY", outbound);
    Running::start("start", &mut command)
}

fn force_tunnel(config: &Path) {
    let text = std::fs::read_to_string(config).unwrap();
    let forced = "connect = \"ssh-tunnel\"\nidentity";
    std::fs::write(config, text.replacen("identity", forced, 1)).unwrap();
}

fn assert_no_password(text: &str) {
    for form in ["s3cret", "czNjcmV0"] {
        assert!(!text.contains(form), "{text}");
    }
}

#[test]
fn every_event_arrives_through_an_outbound_proxy_by_each_route() {
    let fixture = Fixture::new();
    let mut arrived = 0;
    for kind in [OutboundKind::Http, OutboundKind::Socks5] {
        let outbound = fixture.outbound(kind);
        for (name, addr, way) in [
            ("auth", AUTH, "at the Auth Service's own address"),
            ("proxy", PROXY, "by TLS routing: a proxy answers"),
            (
                "upgrade",
                BALANCER,
                "in a connection upgrade: a proxy answers",
            ),
            ("tunnel", TUNNEL, "by an SSH tunnel: it answers at `addr`"),
        ] {
            let name = format!("{name}-{kind:?}").to_lowercase();
            let config = fixture.configuration(&name, addr);
            let host = start(&config, &outbound.url(WRITTEN), &["--exit-on-last-event"]);
            let stderr = host.ended().exits_with(0).stderr;
            arrived += EVENTS;
            let totals = fixture.receiver.control.totals();
            assert_eq!(totals.documents, arrived, "{name}:\n{stderr}");
            let says = format!(
                "the outbound proxy is `{}`, as `HTTPS_PROXY` says",
                outbound.url("")
            );
            assert_eq!(stderr.matches(&says).count(), 1, "{says}\n{stderr}");
            assert!(stderr.contains(way), "{stderr}");
            assert_no_password(&stderr);
        }
        assert_eq!(outbound.asked(), [AUTH, PROXY, BALANCER, TUNNEL]);
    }
}

#[test]
fn a_failure_at_the_outbound_proxy_names_it_and_what_to_do() {
    let fixture = Fixture::new();
    let (http, socks) = (
        fixture.outbound(OutboundKind::Http),
        fixture.outbound(OutboundKind::Socks5),
    );
    let with = |outbound: &OutboundProxy, login: &str| outbound.url(login);
    let receiver = fixture.receiver.address();
    let elsewhere = "other.example.com:443";
    for (index, (addr, url, words)) in [
        (
            AUTH,
            with(&http, ""),
            ["asks for a user name and a password (407", "USER:PASSWORD@"],
        ),
        (
            PROXY,
            with(&socks, ""),
            ["asks for a user name and a password", "socks5://USER"],
        ),
        (
            AUTH,
            with(&http, "me:s3cret@"),
            ["does not accept the user name", "(407"],
        ),
        (
            AUTH,
            with(&socks, "me:s3cret@"),
            ["does not accept the user name", "percent-encoded"],
        ),
        (
            elsewhere,
            with(&http, WRITTEN),
            ["answers 403 Forbidden", "`NO_PROXY`"],
        ),
        (
            elsewhere,
            with(&socks, WRITTEN),
            ["not allowed by ruleset", "`NO_PROXY`"],
        ),
        (
            AUTH,
            "http://me:s3cret@127.0.0.1:1".into(),
            ["does not answer", "Check its address"],
        ),
        (
            AUTH,
            format!("http://me:s3cret@{receiver}"),
            ["as an HTTP proxy", "Check the scheme"],
        ),
        (
            AUTH,
            format!("socks5://me:s3cret@{receiver}"),
            ["as a SOCKS 5 proxy", "Check the scheme"],
        ),
        (
            AUTH,
            with(&http, WRITTEN).replace("http:", "https:"),
            ["TLS with it fails", "`http://`"],
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let config = fixture.configuration(&format!("failure-{index}"), addr);
        let host = start(&config, &url, &[]);
        let (scheme, rest) = url.split_once("://").unwrap();
        let shown = format!("{scheme}://{}", rest.rsplit('@').next().unwrap());
        let outbound = format!("`{addr}` cannot be reached through the outbound proxy `{shown}`");
        host.line_with_all(&[&outbound, words[0], words[1]]);
        assert_no_password(&host.stop().exits_with(0).stderr);
    }
}

/// As with Teleport's own clients, each address is judged by itself.
#[test]
fn an_ssh_tunnel_is_reached_through_the_outbound_proxy_or_not_by_its_own_address() {
    let fixture = Fixture::new();
    let port = fixture.auth.tunnel();
    let here = port.replace("127.0.0.1", "localhost");
    let mut arrived = 0;
    for kind in [OutboundKind::Http, OutboundKind::Socks5] {
        // Where the tunnel is, what `NO_PROXY` says, and what the outbound proxy is asked for.
        for (name, tunnel, exceptions, asked) in [
            ("through", TUNNEL, "auth.example.com", &[TUNNEL][..]),
            ("loopback", &here, "", &[]),
        ] {
            let name = format!("{name}-{kind:?}").to_lowercase();
            let config = fixture.configuration(&name, AUTH);
            force_tunnel(&config);
            let outbound = fixture.outbound(kind);
            let mut command = lockgate();
            command.args(["start", "--exit-on-last-event", "--config"]);
            command.arg(&config).env("NO_PROXY", exceptions);
            command.env("HTTPS_PROXY", outbound.url(WRITTEN));
            command.env("TELEPORT_TUNNEL_PUBLIC_ADDR", tunnel);
            let host = Running::start("start", &mut command);
            let stderr = host.ended().exits_with(0).stderr;
            arrived += EVENTS;
            assert_eq!(fixture.receiver.control.totals().documents, arrived);
            assert_eq!(outbound.asked(), asked, "{stderr}");
            let says = stderr.contains("the outbound proxy is");
            assert_eq!(says, !asked.is_empty(), "{stderr}");
        }
        // The way out that the message offers.
        let outbound = fixture.outbound(kind);
        let config = fixture.configuration(&format!("way-{kind:?}").to_lowercase(), PROXY);
        force_tunnel(&config);
        let start = |exceptions: &str| {
            let mut command = lockgate();
            command.args(["start", "--config"]).arg(&config);
            command.env("HTTPS_PROXY", outbound.url(WRITTEN));
            command.env("NO_PROXY", exceptions);
            command.env("TELEPORT_TUNNEL_PUBLIC_ADDR", "other.invalid:3024");
            Running::start("start", &mut command)
        };
        let host = start("");
        host.line_with_all(&[
            "`other.invalid:3024` cannot be reached through",
            "`NO_PROXY`",
        ]);
        host.stop().exits_with(0);
        let host = start("other.invalid");
        host.line_with_all(&["SSH tunnel at `other.invalid:3024` cannot be reached: "]);
        host.stop().exits_with(0);
    }
}

/// It took longer to give up than `doctor` waited.
#[test]
fn doctor_names_an_outbound_proxy_that_accepts_and_says_nothing() {
    let fixture = Fixture::new();
    let config = fixture.configuration("silent", AUTH);
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let mut command = lockgate();
    command.args(["doctor", "--config"]).arg(&config);
    command.env("HTTPS_PROXY", &url);
    let ended = Running::start("doctor", &mut command).ended().exits_with(1);
    let named = format!("`{AUTH}` cannot be reached through the outbound proxy `{url}`");
    assert!(ended.stdout.contains(&named), "{}", ended.stdout);
}

/// As with Teleport's own clients.
#[test]
fn this_machine_is_reached_without_an_outbound_proxy() {
    let fixture = Fixture::new();
    let addr = fixture.auth.addr.replace("127.0.0.1", "localhost");
    let config = fixture.configuration("local", &addr);
    let host = start(&config, "http://127.0.0.1:1", &["--exit-on-last-event"]);
    let stderr = host.ended().exits_with(0).stderr;
    assert_eq!(fixture.receiver.control.totals().documents, EVENTS);
    assert!(!stderr.contains("outbound"), "{stderr}");
}

#[test]
fn an_outbound_proxy_that_cannot_be_read_is_refused_without_its_password() {
    let fixture = Fixture::new();
    let config = fixture.configuration("broken", PROXY);
    let check = |exceptions: &str| {
        let mut command = lockgate();
        command.args(["check", "--config"]).arg(&config);
        command.env("HTTPS_PROXY", "ftp://me:s3cret@proxy:21");
        command.env("NO_PROXY", exceptions);
        Running::start("check", &mut command).ended()
    };
    let stderr = check("").exits_with(2).stderr;
    for word in [
        "The environment variable `HTTPS_PROXY` names a kind of proxy that is not known.",
        "socks5://HOST:PORT",
        "[teleport]",
    ] {
        assert!(stderr.contains(word), "{stderr}");
    }
    assert_no_password(&stderr);
    check("example.com").exits_with(0);
}
