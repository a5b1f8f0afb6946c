//! The SSH tunnel of a proxy without TLS routing.

use lockgate_sim::auth::TunnelFault;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use super::*;

/// A proxy with separate listeners, as clusters have them without `proxy_listener_mode: multiplex`.
fn separate() -> ProxyOptions {
    ProxyOptions {
        tls_routing: false,
        tunnel: Some("127.0.0.1:0".to_owned()),
        ..ProxyOptions::default()
    }
}

#[tokio::test]
async fn every_event_arrives_through_the_tunnel_with_each_kind_of_key() {
    for (identity_key, ssh) in [
        (
            KeyKind::Ecdsa,
            "\necdsa-sha2-nistp256-cert-v01@openssh.com ",
        ),
        (KeyKind::Ed25519, "\nssh-ed25519-cert-v01@openssh.com "),
        (KeyKind::Rsa, "\nssh-rsa-cert-v01@openssh.com "),
    ] {
        let dir = tempfile::tempdir().expect("a directory");
        let out = dir.path();
        let options = AuthOptions {
            identity_key,
            ..options(out, separate())
        };
        let server = AuthServer::start(options).await.expect("it starts");
        let file = std::fs::read_to_string(out.join("identity")).expect("an identity");
        assert!(file.contains(ssh), "{file}");
        // What the proxy says of itself leads there, and so does the tunnel's own address.
        for address in [server.proxy_address(), server.tunnel_address()] {
            let address = address.expect("an address");
            every_event_arrives_by(out, address, &server, Route::SshTunnel, |_| {}).await;
        }
        server.stop().await;
    }
}

#[tokio::test]
async fn the_tunnel_can_be_forced() {
    let dir = tempfile::tempdir().expect("a directory");
    let out = dir.path();
    let forced = |settings: &mut SourceSettings| settings.route = Some(Route::SshTunnel);
    let server = AuthServer::start(options(out, separate()))
        .await
        .expect("it starts");
    let tunnel = server.tunnel_address().expect("a tunnel");
    let proxy = server.proxy_address().expect("a proxy");
    for address in [proxy, tunnel] {
        every_event_arrives_by(out, address, &server, Route::SshTunnel, forced).await;
    }
    // As with TELEPORT_TUNNEL_PUBLIC_ADDR.
    every_event_arrives_by(
        out,
        server.address(),
        &server,
        Route::SshTunnel,
        |settings| {
            forced(settings);
            settings.tunnel = Some(tunnel.to_string());
        },
    )
    .await;
    server.stop().await;
    // With TLS routing, it is at the proxy's own port, in TLS.
    let server = AuthServer::start(options(out, ProxyOptions::default()))
        .await
        .expect("it starts");
    let proxy = server.proxy_address().expect("a proxy");
    every_event_arrives_by(out, proxy, &server, Route::SshTunnel, forced).await;
    server.stop().await;
}

/// Teleport's tunnel serves a website at its port, whose certificate SSH does not need.
#[tokio::test]
async fn the_port_of_the_tunnel_is_enough_whatever_its_tls_does() {
    let (dir, other) = (
        tempfile::tempdir().expect("a directory"),
        tempfile::tempdir().expect("a directory"),
    );
    let out = dir.path();
    let foreign = AuthServer::start(options(other.path(), separate()))
        .await
        .expect("it starts");
    for (tls_routing, resets) in [(false, false), (true, false), (false, true)] {
        let proxy = ProxyOptions {
            tls_routing,
            ..separate()
        };
        let server = AuthServer::start(options(out, proxy))
            .await
            .expect("it starts");
        server.set_proxy_faults(ProxyFaults {
            tunnel: resets.then_some(TunnelFault::ResetsTls),
            ..ProxyFaults::default()
        });
        let tunnel = server.tunnel_address().expect("a tunnel");
        for route in [None, Some(Route::SshTunnel)] {
            // Which the machine does not trust, as it is without a file, and which it trusts.
            for authorities in [Some(other.path()), None, Some(out)] {
                let change = |settings: &mut SourceSettings| {
                    settings.route = route;
                    settings.proxy_ca = authorities.map(|dir| dir.join("proxy-ca.crt"));
                };
                every_event_arrives_by(out, tunnel, &server, Route::SshTunnel, change).await;
            }
        }
        server.stop().await;
    }
    foreign.stop().await;
}

#[tokio::test]
async fn a_website_that_is_not_trusted_and_is_no_tunnel_is_named_with_each_way_out() {
    let dir = tempfile::tempdir().expect("a directory");
    let out = dir.path();
    let server = AuthServer::start(options(out, separate()))
        .await
        .expect("it starts");
    for route in [None, Some(Route::SshTunnel)] {
        let mut settings = settings(out, server.proxy_address().expect("a proxy"), &server);
        settings.route = route;
        settings.proxy_ca = Some(out.join("tls.cas"));
        std::fs::copy(out.join("client.cas"), out.join("tls.cas")).expect("a copy");
        let message = Running::start(settings).fails_with("not trusted").await;
        for word in [
            "`proxy-ca`",
            "connect = \"ssh-tunnel\"",
            "TELEPORT_TUNNEL_PUBLIC_ADDR",
        ] {
            assert!(message.contains(word), "`{word}` is not in: {message}");
        }
    }
    // The Auth Service has no tunnel.
    let mut settings = settings(out, server.address(), &server);
    settings.route = Some(Route::SshTunnel);
    let message = Running::start(settings)
        .fails_with("the Auth Service itself answers")
        .await;
    assert!(message.contains("3024"), "{message}");
    server.stop().await;
}

#[tokio::test]
async fn a_failure_inside_the_tunnel_is_not_blamed_on_addr() {
    let (dir, other) = (
        tempfile::tempdir().expect("a directory"),
        tempfile::tempdir().expect("a directory"),
    );
    let out = dir.path();
    let server = AuthServer::start(options(out, separate()))
        .await
        .expect("it starts");
    let foreign = AuthServer::start(options(other.path(), separate()))
        .await
        .expect("it starts");
    let (closing, plain) = (
        TcpListener::bind("127.0.0.1:0").await.expect("a port"),
        TcpListener::bind("127.0.0.1:0").await.expect("a port"),
    );
    let address = |listener: &TcpListener| listener.local_addr().expect("an address");
    let (closes, speaks) = (address(&closing), address(&plain));
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = closing.accept().await.expect("a connection");
            let _ = stream.read(&mut [0; 1024]).await;
        }
    });
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = plain.accept().await.expect("a connection");
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
            let _ = stream.read_to_end(&mut Vec::new()).await;
        }
    });
    let proxy = server.proxy_address().expect("a proxy");
    let tunnel = server.tunnel_address().expect("a tunnel");
    for (to, words) in [
        (speaks, ["does not speak TLS", "the proxy and its log"]),
        (closes, ["closes the connection", "the proxy and its log"]),
        (
            proxy,
            [
                "a certificate that is not trusted",
                "credentials of the cluster",
            ],
        ),
        (foreign.address(), ["leads", "credentials"]),
    ] {
        server.set_proxy_faults(ProxyFaults {
            tunnel: Some(TunnelFault::LeadsTo(to)),
            ..ProxyFaults::default()
        });
        // What the website says leads there, and so does the tunnel's own address.
        for (addr, route) in [(proxy, None), (tunnel, Some(Route::SshTunnel))] {
            let mut settings = settings(out, addr, &server);
            settings.route = route;
            let at = format!("`{tunnel}`");
            let message = Running::start(settings).fails_with(&at).await;
            for word in words {
                assert!(message.contains(word), "`{word}` is not in: {message}");
            }
            assert!(!message.contains(&format!("`{proxy}`")), "{message}");
            assert!(!message.contains("another service listens"), "{message}");
        }
    }
    foreign.stop().await;
    server.stop().await;
}

#[tokio::test]
async fn nothing_is_lost_when_the_tunnel_breaks_in_the_middle() {
    let dir = tempfile::tempdir().expect("a directory");
    let out = dir.path();
    let server = AuthServer::start(options(out, separate()))
        .await
        .expect("it starts");
    // Enough for TLS and the first call, and not enough for the events.
    let drops = TunnelFault::DropsAfter(100_000);
    server.set_proxy_faults(ProxyFaults {
        tunnel: Some(drops),
        ..ProxyFaults::default()
    });
    let proxy = server.proxy_address().expect("a proxy");
    let running = Running::start(settings(out, proxy, &server));
    let seen = running.seen.clone();
    let mut status = running.status.clone();
    let broken = status.wait_for(|_| server.proxy_served().connections >= 3);
    tokio::time::timeout(PATIENCE, broken)
        .await
        .expect("it connects again and again")
        .expect("it runs");
    server.set_proxy_faults(ProxyFaults::default());
    let status = running.ended().await;
    assert_eq!(status.route, Some(Route::SshTunnel));
    let seen = seen.0.borrow();
    assert_eq!(seen.len(), 1_000);
    assert!(seen.values().all(|&count| count == 1));
    server.stop().await;
}

#[tokio::test]
async fn each_failure_of_the_tunnel_states_its_cause_and_the_remedy() {
    let (dir, other) = (
        tempfile::tempdir().expect("a directory"),
        tempfile::tempdir().expect("a directory"),
    );
    let out = dir.path();
    let server = AuthServer::start(options(out, separate()))
        .await
        .expect("it starts");
    let foreign = AuthServer::start(options(other.path(), separate()))
        .await
        .expect("it starts");
    let proxy = server.proxy_address().expect("a proxy");
    let tunnel = server.tunnel_address().expect("a tunnel").to_string();
    type Change<'a> = &'a dyn Fn(&mut SourceSettings);
    let fails = async |change: Change<'_>, words: &[&str]| {
        let mut settings = settings(out, proxy, &server);
        change(&mut settings);
        let message = Running::start(settings).fails_with(words[0]).await;
        for word in words {
            assert!(message.contains(word), "`{word}` is not in: {message}");
        }
        message
    };

    for (fault, words) in [
        (
            TunnelFault::OtherAuthority,
            &["an authority that the credentials do not name", "`tbot`"][..],
        ),
        (
            TunnelFault::Expired,
            &["has expired at 2023-11-14T22:13:20Z", "Set the clock"],
        ),
        (
            TunnelFault::OtherName,
            &[
                "not for `127.0.0.1`, but for `other.example.com`",
                "`tunnel_public_addr`",
            ],
        ),
        (
            TunnelFault::RefusesUsers,
            &["does not accept the SSH certificate", "locked"],
        ),
        (
            TunnelFault::RefusesChannels,
            &["refuses the channel: `unknown channel type`", "3024"],
        ),
    ] {
        server.set_proxy_faults(ProxyFaults {
            tunnel: Some(fault),
            ..ProxyFaults::default()
        });
        let message = fails(&|_| {}, words).await;
        assert!(message.contains(&tunnel), "{message}");
    }
    server.set_proxy_faults(ProxyFaults {
        is_without_auth: true,
        ..ProxyFaults::default()
    });
    let words = [
        "refuses to pass the connection on: `failed to dial auth server`",
        "the proxy's log",
    ];
    fails(&|_| {}, &words).await;
    server.set_proxy_faults(ProxyFaults::default());

    // The credentials are from another cluster, or have nothing for SSH.
    let of_other: Change<'_> = &|settings| {
        settings.credentials = Credentials::identity_file(other.path().join("identity"));
    };
    fails(of_other, &["an authority that the credentials do not name"]).await;
    let trio: Change<'_> = &|settings| {
        let [cert, key, ca] = ["client.crt", "client.key", "client.cas"].map(|name| out.join(name));
        settings.credentials = Credentials::key_trio(cert, key, ca);
    };
    let words = ["have no SSH certificate", "identity file", "3025"];
    fails(trio, &words).await;
    // Nothing listens where the tunnel is said to be, or something else.
    let nothing: Change<'_> = &|settings| settings.tunnel = Some("127.0.0.1:1".to_owned());
    let words = [
        "`127.0.0.1:1` cannot be reached",
        "TELEPORT_TUNNEL_PUBLIC_ADDR",
    ];
    fails(nothing, &words).await;
    let web: Change<'_> = &|settings| settings.tunnel = Some(proxy.to_string());
    fails(web, &["the proxy's SSH tunnel", &proxy.to_string()]).await;
    // Another route is forced.
    let forced: Change<'_> = &|settings| settings.route = Some(Route::Proxy);
    let words = [
        "TLS routing switched off",
        "connect = \"ssh-tunnel\"",
        "multiplex",
    ];
    fails(forced, &words).await;
    foreign.stop().await;
    server.stop().await;
}

#[tokio::test]
async fn a_proxy_that_does_not_say_where_its_tunnel_is_is_named() {
    let dir = tempfile::tempdir().expect("a directory");
    let out = dir.path();
    let proxy = ProxyOptions {
        tunnel_public_addr: Some("https://tunnel".to_owned()),
        ..separate()
    };
    let server = AuthServer::start(options(out, proxy))
        .await
        .expect("it starts");
    let proxy = server.proxy_address().expect("a proxy");
    let message = Running::start(settings(out, proxy, &server))
        .fails_with("does not say where")
        .await;
    for word in ["`https://tunnel`", "TELEPORT_TUNNEL_PUBLIC_ADDR", "3024"] {
        assert!(message.contains(word), "{message}");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_tunnel_that_says_nothing_is_named() {
    let dir = tempfile::tempdir().expect("a directory");
    let out = dir.path();
    let server = AuthServer::start(options(out, separate()))
        .await
        .expect("it starts");
    let (silent, _) = Between::listen(None).await;
    let mut settings = settings(out, server.proxy_address().expect("a proxy"), &server);
    settings.tunnel = Some(silent.to_string());
    let message = Running::start(settings)
        .fails_with("has not answered")
        .await;
    for word in [&*format!("`{silent}`"), "the proxy's SSH tunnel", "10 s"] {
        assert!(message.contains(word), "`{word}` is not in: {message}");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_source_that_is_stopped_leaves_no_connection_to_the_tunnel() {
    let dir = tempfile::tempdir().expect("a directory");
    let out = dir.path();
    let server = AuthServer::start(options(out, separate()))
        .await
        .expect("it starts");
    let tunnel = server.tunnel_address().expect("a tunnel");
    // While the other side is silent, and while events are read.
    for to in [None, Some(tunnel)] {
        let (address, mut between) = Between::listen(to).await;
        let mut settings = settings(out, server.proxy_address().expect("a proxy"), &server);
        settings.tunnel = Some(address.to_string());
        settings.exit_on_last_event = false;
        let running = Running::start(settings);
        between.is(Connection::Opened).await;
        if to.is_some() {
            let mut events = running.seen.0.subscribe();
            let all = events.wait_for(|seen| seen.len() == 1_000);
            let all = tokio::time::timeout(PATIENCE, all).await;
            all.expect("every event").expect("it runs");
        }
        let _ = running.stop.send(());
        between.is(Connection::Closed).await;
        let ended = tokio::time::timeout(PATIENCE, running.task).await;
        let ended = ended.expect("it stops").expect("no panic");
        assert_eq!(ended.expect("no error"), Ended::Stopped);
    }
    server.stop().await;
}

/// What becomes of the connections to a listener before the tunnel.
struct Between(mpsc::UnboundedReceiver<Connection>);

#[derive(Debug, PartialEq, Eq)]
enum Connection {
    Opened,
    /// By the host.
    Closed,
}

impl Between {
    /// Passes everything on to this address, or says nothing.
    async fn listen(to: Option<SocketAddr>) -> (SocketAddr, Between) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (sender, receiver) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let sender = sender.clone();
                tokio::spawn(async move {
                    let _ = sender.send(Connection::Opened);
                    let _ = match to {
                        Some(to) => {
                            let mut far = TcpStream::connect(to).await.expect("the tunnel");
                            copy_bidirectional(&mut near, &mut far).await.map(drop)
                        }
                        None => near.read_to_end(&mut Vec::new()).await.map(drop),
                    };
                    let _ = sender.send(Connection::Closed);
                });
            }
        });
        (address, Between(receiver))
    }

    async fn is(&mut self, expected: Connection) {
        let next = tokio::time::timeout(PATIENCE, self.0.recv()).await;
        assert_eq!(next.expect("in time"), Some(expected));
    }
}
