//! Which parts of a request the sink controls, and which the operator.

use lockgate_egress::Destination;
use lockgate_egress::{Auth, Endpoint, EndpointError, SendError};
use lockgate_egress::{EndpointClient, Secret};
use lockgate_model::request::{Request, RequestRules, Violation};

use crate::receiver::{ReceivedRequest, Receiver, answer};
use crate::{checked, client, post, request};

/// Sends one request to a receiver at `path` and returns what arrived.
async fn arrives(
    path: &str,
    change: impl FnOnce(&mut Endpoint),
    request: Request,
) -> Result<ReceivedRequest, SendError> {
    let receiver = Receiver::start(None, async |_| answer(200, "")).await;
    let client = client(&receiver.url("http", path), change);
    post(&client, &checked(&client, request), Destination::Url, 100).await?;
    let seen = receiver.log().requests[0].clone();
    Ok(seen)
}

#[tokio::test]
async fn a_request_arrives_as_the_sink_wrote_it() {
    let mut sent = request("[{\"user\":\"${secret:token}\"}]");
    sent.method = "PUT".into();
    sent.path_suffix = "/test.log".into();
    sent.query = vec![("name".into(), "${secret:token} ${env:TOKEN}".into())];
    sent.headers
        .push(("accept".into(), "${secret:token}".into()));
    let seen = arrives(
        "/v1?key=1",
        |endpoint| endpoint.auth = Auth::Bearer(Secret::new("hunter22")),
        sent,
    )
    .await
    .unwrap();

    assert_eq!(seen.method, "PUT");
    assert_eq!(
        seen.uri,
        "/v1/test.log?key=1&name=%24%7Bsecret%3Atoken%7D%20%24%7Benv%3ATOKEN%7D"
    );
    assert_eq!(
        seen.body, "[{\"user\":\"${secret:token}\"}]",
        "nothing in a document is ever substituted"
    );
    assert_eq!(seen.header("accept"), ["${secret:token}"]);
    assert_eq!(seen.header("content-type"), ["application/json"]);
    assert_eq!(
        seen.header("user-agent"),
        [concat!("lockgate/", env!("CARGO_PKG_VERSION"))]
    );
    assert_eq!(seen.header("content-length"), ["28"]);
    for absent in [
        "accept-encoding",
        "cookie",
        "referer",
        "transfer-encoding",
        "upgrade",
    ] {
        assert!(seen.header(absent).is_empty(), "{absent}: {seen:?}");
    }
}

#[tokio::test]
async fn the_operators_headers_and_credentials_replace_the_sinks() {
    let header = |name: &str, value: &str| Auth::Header {
        name: name.into(),
        value: Secret::new(value),
    };
    for (auth, name, value, uri) in [
        (
            Auth::Bearer(Secret::new("t0ken")),
            "authorization",
            &["Bearer t0ken"][..],
            "/a",
        ),
        (
            Auth::Basic {
                user: "tp".into(),
                password: Secret::new("open sesame"),
            },
            "authorization",
            &["Basic dHA6b3BlbiBzZXNhbWU="],
            "/a",
        ),
        (
            header("Authorization", "Splunk t0ken"),
            "authorization",
            &["Splunk t0ken"],
            "/a",
        ),
        (header("X-Api-Key", "t0ken"), "x-api-key", &["t0ken"], "/a"),
        (
            Auth::Query {
                name: "key".into(),
                value: Secret::new("t0&ken"),
            },
            "authorization",
            &[],
            "/a?key=t0%26ken",
        ),
        (Auth::None, "authorization", &[], "/a"),
    ] {
        let seen = arrives("/a", |endpoint| endpoint.auth = auth.clone(), request("[]"))
            .await
            .unwrap();
        assert_eq!(
            (seen.header(name), seen.uri.as_str()),
            (value.to_vec(), uri),
            "{auth:?}"
        );
    }

    // `check` refuses the sink's header. Even if a pipeline does not pass the names, the operator's
    // header wins.
    let receiver = Receiver::start(None, async |_| answer(200, "")).await;
    let client = client(&receiver.url("http", ""), |endpoint| {
        endpoint.headers = vec![("X-Tenant".into(), Secret::new("ours"))]
    });
    assert_eq!(client.operator_headers(), ["x-tenant"]);
    let mut sent = request("[]");
    sent.headers = vec![("X-TENANT".into(), "mine".into())];
    let allowed = ["X-Tenant".to_owned()];
    assert!(sent.clone().check(&client.request_rules(&allowed)).is_err());
    let forgetful = RequestRules {
        allowed_headers: vec!["x-tenant".into()],
        ..RequestRules::default()
    };
    let sent = sent.check(&forgetful).unwrap();
    post(&client, &sent, Destination::Url, 0).await.unwrap();
    assert_eq!(receiver.log().requests[0].header("x-tenant"), ["ours"]);
}

#[tokio::test]
async fn recordings_go_to_the_session_url() {
    let receiver = Receiver::start(None, async |_| answer(200, "")).await;
    let both = client(&receiver.url("http", "/audit"), |endpoint| {
        endpoint.session_url = Some(Secret::new(receiver.url("http", "/session?b=2")));
        endpoint.auth = Auth::Query {
            name: "key".into(),
            value: Secret::new("k"),
        };
    });
    let one = client(&receiver.url("http", "/audit"), |_| {});
    let mut sent = request("{}");
    sent.path_suffix = ".7f3.log".into();
    for (client, destination) in [
        (&both, Destination::Url),
        (&both, Destination::SessionUrl),
        (&one, Destination::SessionUrl),
    ] {
        post(client, &checked(client, sent.clone()), destination, 0)
            .await
            .unwrap();
    }
    let uris: Vec<String> = receiver
        .log()
        .requests
        .iter()
        .map(|seen| seen.uri.clone())
        .collect();
    assert_eq!(
        uris,
        [
            "/audit.7f3.log?key=k",
            "/session.7f3.log?b=2&key=k",
            "/audit.7f3.log"
        ]
    );
}

#[tokio::test]
async fn a_sink_cannot_replace_the_operators_parameter() {
    let receiver = Receiver::start(None, async |_| answer(200, "")).await;
    let client = client(&receiver.url("http", "/?tok%65n=hunter22"), |endpoint| {
        endpoint.session_url = Some(Secret::new(receiver.url("http", "/session?tenant=1")));
        endpoint.auth = Auth::Query {
            name: "key".into(),
            value: Secret::new("k"),
        };
    });
    assert_eq!(client.operator_query(), ["key", "tenant", "token"]);
    let mut sent = request("[]");
    sent.query = vec![("token".into(), "of-another-tenant".into())];
    assert_eq!(
        sent.clone().check(&client.request_rules(&[])),
        Err(Violation::QueryName("token".into()))
    );
    // Even if a pipeline does not pass the names, nothing is sent.
    let sent = sent.check(&RequestRules::default()).unwrap();
    assert_eq!(
        post(&client, &sent, Destination::Url, 0).await,
        Err(SendError::Request(
            "the query parameter `token` is set by the operator".into()
        ))
    );
    assert!(receiver.log().requests.is_empty());
}

#[tokio::test]
async fn the_operator_allows_further_headers() {
    let receiver = Receiver::start(None, async |_| answer(200, "")).await;
    let client = client(&receiver.url("http", "/"), |_| {});
    let mut sent = request("[]");
    sent.headers = vec![("X-Splunk-Request-Channel".into(), "c".into())];
    let sent = sent
        .check(&client.request_rules(&["X-SPLUNK-Request-Channel".into()]))
        .unwrap();
    post(&client, &sent, Destination::Url, 0).await.unwrap();
    let log = receiver.log();
    assert_eq!(log.requests[0].header("x-splunk-request-channel"), ["c"]);
}

#[test]
fn errors_about_unusable_endpoints_contain_no_secret() {
    let endpoint = |url: &str| Endpoint::new("siem", Secret::new(url));
    let with_header = |name: &str, value: &str| {
        let mut endpoint = endpoint("http://localhost/");
        endpoint.headers = vec![(name.into(), Secret::new(value))];
        endpoint
    };
    let with_auth = |auth: Auth| {
        let mut endpoint = endpoint("http://localhost/");
        endpoint.auth = auth;
        endpoint
    };
    let with_session_url = {
        let mut endpoint = endpoint("https://localhost/");
        endpoint.session_url = Some(Secret::new("http://localhost/"));
        endpoint.ca = Some(crate::certs::Authority::new("ca").ca());
        endpoint
    };
    let idle = {
        let mut endpoint = endpoint("http://localhost/");
        endpoint.connections = 0;
        endpoint
    };
    for (endpoint, expected) in [
        (
            endpoint("https://u:hunter22@localhost/"),
            EndpointError::Userinfo("url"),
        ),
        (
            endpoint("localhost/hunter22"),
            EndpointError::Url("url", "relative URL without a base".into()),
        ),
        (
            with_session_url,
            EndpointError::TlsWithoutHttps("session-url"),
        ),
        (
            with_header("Host", "hunter22"),
            EndpointError::HeaderRefused("Host".into()),
        ),
        (
            with_header("Content-Length", "1"),
            EndpointError::HeaderRefused("Content-Length".into()),
        ),
        (
            with_header("a b", "hunter22"),
            EndpointError::HeaderName("a b".into()),
        ),
        (
            with_header("a", "hunter22\nb: c"),
            EndpointError::HeaderValue("a".into()),
        ),
        (
            with_auth(Auth::Bearer(Secret::new("hunter22\n"))),
            EndpointError::AuthValue,
        ),
        (
            with_auth(Auth::Header {
                name: "Cookie".into(),
                value: Secret::new("x"),
            }),
            EndpointError::HeaderRefused("Cookie".into()),
        ),
        (
            endpoint("http://169.254.169.254/hunter22"),
            EndpointError::LinkLocal("url"),
        ),
        // The same address in another notation, and in IPv6.
        (
            endpoint("http://0xa9fea9fe/hunter22"),
            EndpointError::LinkLocal("url"),
        ),
        (
            endpoint("https://[fe80::1]:8443/hunter22"),
            EndpointError::LinkLocal("url"),
        ),
        (idle, EndpointError::NoConnections),
    ] {
        let shown = format!("{endpoint:?}");
        assert!(!shown.contains("hunter22"), "{shown}");
        let error = EndpointClient::new(endpoint).err();
        assert_eq!(error, Some(expected));
        assert!(!error.unwrap().to_string().contains("hunter22"));
    }
}

#[test]
fn a_link_local_address_is_used_if_it_is_written_and_allowed() {
    client("http://169.254.7.7/", |endpoint| {
        endpoint.allow_link_local = true;
    });
}
