//! Receivers behind an outbound proxy, which alone knows their names.

use std::sync::Arc;

use lockgate_egress::{Destination, Endpoint, EndpointClient, Secret, SendError};
use lockgate_model::{Masks, OutboundExceptions, OutboundLogin, OutboundScheme};
use lockgate_tests::{OutboundKind, OutboundProxy};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;

use crate::certs::Authority;
use crate::receiver::{BOTH, Receiver, answer, server_config};
use crate::{checked, client, post, request};

const NAME: &str = "receiver.example.com";
const LOGIN: &str = "me@site:s3cret/w:rd";

/// The proxy as it is configured.
fn configured(
    proxy: &OutboundProxy,
    kind: OutboundKind,
    password: Option<&str>,
) -> lockgate_model::OutboundProxy {
    let url = proxy.url("");
    let (host, port) = url.rsplit_once(':').unwrap();
    lockgate_model::OutboundProxy {
        scheme: match kind {
            OutboundKind::Http => OutboundScheme::Http,
            OutboundKind::Socks5 => OutboundScheme::Socks5,
        },
        host: host.split_once("://").unwrap().1.to_owned(),
        port: port.parse().unwrap(),
        login: password.map(|password| OutboundLogin {
            user: "me@site".to_owned(),
            password: Secret::new(password),
        }),
        variable: "proxy",
        exceptions: OutboundExceptions::default(),
    }
}

async fn send(client: &EndpointClient) -> Result<u16, SendError> {
    let request = checked(client, request("[1]"));
    let sent = post(client, &request, Destination::Url, 0).await;
    sent.map(|response| response.status)
}

#[test]
fn a_receiver_that_only_the_proxy_knows_gets_the_request() {
    let authority = Authority::new("both");
    let leaf = authority.sign(NAME, |_| {});
    let config = server_config(&leaf, Some(&authority), BOTH);
    // The proxy has a runtime of its own.
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let receiver = Receiver::start(Some(config), async |_| answer(200, ""));
    let receiver = runtime.block_on(receiver);
    let (name, at) = (format!("{NAME}:443"), receiver.addr.to_string());
    for kind in [OutboundKind::Http, OutboundKind::Socks5] {
        for (login, password) in [(None, None), (Some(LOGIN), Some("s3cret/w:rd"))] {
            let proxy = OutboundProxy::start(kind, login, &[(&name, &at)]);
            let client = client(&format!("https://{NAME}/"), |endpoint| {
                endpoint.ca = Some(authority.ca());
                endpoint.client_certificate = Some(authority.client());
                endpoint.proxy = Some(configured(&proxy, kind, password));
            });
            assert_eq!(
                runtime.block_on(send(&client)),
                Ok(200),
                "{kind:?} {login:?}"
            );
            assert_eq!(proxy.asked(), [&*name], "{kind:?} {login:?}");
        }
    }
}

/// TLS with the receiver is then inside that with the proxy.
#[test]
fn a_proxy_that_speaks_tls_itself_leads_to_the_receiver() {
    let authority = Authority::new("both");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let tls = server_config(&authority.sign(NAME, |_| {}), Some(&authority), BOTH);
    let receiver = Receiver::start(Some(tls), async |_| answer(200, ""));
    let receiver = runtime.block_on(receiver);
    let (name, at) = (format!("{NAME}:443"), receiver.addr.to_string());
    let plain = OutboundProxy::start(OutboundKind::Http, Some(LOGIN), &[(&name, &at)]);
    let mut proxy = configured(&plain, OutboundKind::Http, Some("s3cret/w:rd"));
    let tls = server_config(&authority.sign("127.0.0.1", |_| {}), None, BOTH);
    let behind = format!("{}:{}", proxy.host, proxy.port);
    proxy.scheme = OutboundScheme::Https;
    proxy.port = runtime.block_on(before(tls, behind));
    let client = client(&format!("https://{NAME}/"), |endpoint| {
        endpoint.ca = Some(authority.ca());
        endpoint.client_certificate = Some(authority.client());
        endpoint.proxy = Some(proxy);
    });
    assert_eq!(runtime.block_on(send(&client)), Ok(200));
    assert_eq!(plain.asked(), [&*name]);
}

/// Speaks TLS in the place of a server that does not. Returns its port.
async fn before(tls: ServerConfig, server: String) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    tokio::spawn(async move {
        let (socket, _) = listener.accept().await.unwrap();
        let mut near = acceptor.accept(socket).await.unwrap();
        let mut far = TcpStream::connect(server).await.unwrap();
        let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
    });
    port
}

#[test]
fn what_the_proxy_does_wrong_is_told_as_its_fault_without_its_password() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for (kind, login, password, expected) in [
        (
            OutboundKind::Http,
            Some(LOGIN),
            None,
            "asks for a user name and a password (407)",
        ),
        (
            OutboundKind::Http,
            Some(LOGIN),
            Some("wr0ng-one"),
            "does not accept the user name and the password (407)",
        ),
        (
            OutboundKind::Socks5,
            Some(LOGIN),
            Some("wr0ng-one"),
            "does not accept the user name and the password",
        ),
        (
            OutboundKind::Http,
            None,
            None,
            "refused to connect to the receiver",
        ),
        (
            OutboundKind::Socks5,
            None,
            None,
            "did not connect to the receiver: ",
        ),
    ] {
        let proxy = OutboundProxy::start(kind, login, &[]);
        let client = client(&format!("https://{NAME}/"), |endpoint| {
            endpoint.proxy = Some(configured(&proxy, kind, password));
        });
        let error = runtime.block_on(send(&client)).expect_err(expected);
        let shown = format!("{error} {error:?} {:?}", error.hint());
        let begin = format!(
            "the outbound proxy `{}` of `proxy` {expected}",
            proxy.url("")
        );
        assert!(shown.starts_with(&begin), "{shown}");
        assert!(!shown.contains("wr0ng"), "{shown}");
        assert!(
            matches!(
                error,
                SendError::Proxy {
                    needs_operator: true,
                    ..
                }
            ),
            "{shown}"
        );
    }
}

/// Without TLS there is no tunnel: the proxy answers in place of the receiver.
#[tokio::test]
async fn a_407_to_a_plain_request_is_the_proxys() {
    let proxy = Receiver::start(None, async |request| {
        let login = request.header("proxy-authorization");
        // `me@site:s3cret/w:rd`
        let is_known = login == ["Basic bWVAc2l0ZTpzM2NyZXQvdzpyZA=="];
        answer(if is_known { 200 } else { 407 }, "who are you?")
    })
    .await;
    let mut endpoint = Endpoint::new("siem", Secret::new(format!("http://{NAME}/")));
    endpoint.proxy = Some(lockgate_model::OutboundProxy {
        scheme: OutboundScheme::Http,
        host: "127.0.0.1".to_owned(),
        port: proxy.addr.port(),
        login: None,
        variable: "HTTPS_PROXY",
        exceptions: OutboundExceptions::default(),
    });
    let error = send(&EndpointClient::new(endpoint.clone()).unwrap()).await;
    let error = error.expect_err("the proxy wants a password").to_string();
    let login = endpoint.proxy.as_mut().map(|proxy| &mut proxy.login);
    *login.unwrap() = Some(OutboundLogin {
        user: "me@site".to_owned(),
        password: Secret::new("s3cret/w:rd"),
    });
    let known = send(&EndpointClient::new(endpoint).unwrap()).await;
    assert_eq!(known, Ok(200));
    let expected = format!(
        "the outbound proxy `http://{}` of `HTTPS_PROXY` asks for a user name and a password (407)",
        proxy.addr
    );
    assert_eq!(error, expected);
    assert_eq!(proxy.log().requests[0].uri, format!("http://{NAME}/"));
}

#[tokio::test]
async fn a_proxy_that_cannot_be_reached_is_named() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = closed.local_addr().unwrap().port();
    drop(closed);
    for (scheme, url) in [
        (OutboundScheme::Http, "https"),
        (OutboundScheme::Http, "http"),
        (OutboundScheme::Https, "https"),
        (OutboundScheme::Socks5, "https"),
        (OutboundScheme::Socks5, "http"),
    ] {
        let client = client(&format!("{url}://{NAME}/"), |endpoint| {
            endpoint.masks = Masks::new();
            endpoint.proxy = Some(lockgate_model::OutboundProxy {
                scheme,
                host: "127.0.0.1".to_owned(),
                port,
                login: None,
                variable: "proxy",
                exceptions: OutboundExceptions::default(),
            });
        });
        let error = send(&client).await.expect_err("nobody listens");
        let begin = format!(
            "the outbound proxy `{}://127.0.0.1:{port}` of `proxy` cannot be reached: ",
            scheme.name()
        );
        let shown = error.to_string();
        assert!(shown.starts_with(&begin), "{scheme:?} {url}: {shown}");
        assert!(
            matches!(
                error,
                SendError::Proxy {
                    needs_operator: false,
                    ..
                }
            ),
            "it is tried again"
        );
    }
}

#[tokio::test]
async fn an_exception_is_reached_without_the_proxy() {
    let receiver = Receiver::start(None, async |_| answer(200, "")).await;
    let client = client(&receiver.url("http", "/"), |endpoint| {
        endpoint.proxy = Some(lockgate_model::OutboundProxy {
            scheme: OutboundScheme::Http,
            host: "127.0.0.1".to_owned(),
            port: 1,
            login: None,
            variable: "HTTPS_PROXY",
            exceptions: OutboundExceptions::default(),
        });
    });
    assert_eq!(send(&client).await, Ok(200), "this machine is always one");
}
