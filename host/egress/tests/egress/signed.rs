//! What the host computes or fetches for each request: signatures and tokens.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use lockgate_egress::{
    Auth, AwsAuth, ClientCredentials, Compression, Destination, EndpointClient, HmacAlgorithm,
    HmacAuth, HmacEncoding, OAuth2Auth, Secret, SendError,
};
use lockgate_model::Masks;

use crate::receiver::{Receiver, answer};
use crate::{checked, client, post, request};

async fn send(client: &EndpointClient) -> Result<u16, SendError> {
    let request = checked(client, request("[1]"));
    let sent = post(client, &request, Destination::Url, 100).await;
    sent.map(|response| response.status)
}

#[tokio::test]
async fn an_hmac_is_over_the_body_as_it_is_sent() {
    let receiver = Receiver::start(None, async |_| answer(200, "")).await;
    for compression in [None, Some(Compression::Gzip)] {
        let client = client(&receiver.url("http", "/"), |endpoint| {
            endpoint.compression = compression;
            endpoint.auth = Auth::Hmac(HmacAuth {
                header: "X-Signature".into(),
                algorithm: HmacAlgorithm::Sha256,
                encoding: HmacEncoding::Hex,
                prefix: "sha256=".into(),
                secret: Secret::new("a-key-of-both"),
            });
        });
        assert_eq!(client.operator_headers(), ["x-signature"]);
        assert_eq!(send(&client).await, Ok(200));
        let log = receiver.log();
        let received = log.requests.last().unwrap();
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, b"a-key-of-both");
        let [value] = received.header("x-signature")[..] else {
            panic!("{received:?}");
        };
        let hex = value.strip_prefix("sha256=").unwrap();
        let tag: Vec<u8> = (0..hex.len() / 2)
            .map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap())
            .collect();
        ring::hmac::verify(&key, &received.body, &tag).expect("it is of this body");
    }
}

#[tokio::test]
async fn a_signature_of_aws_is_of_the_time_and_the_host_of_the_request() {
    let receiver = Receiver::start(None, async |_| answer(200, "")).await;
    let client = client(&receiver.url("http", "/x"), |endpoint| {
        endpoint.clock = || SystemTime::UNIX_EPOCH + Duration::from_secs(1_440_938_160);
        endpoint.auth = Auth::Aws(AwsAuth {
            region: "us-east-1".into(),
            service: "es".into(),
            access_key: Secret::new("AKIDEXAMPLE"),
            secret_key: Secret::new("a-secret-key"),
            session_token: Some(Secret::new("a-session-token")),
        });
    });
    assert_eq!(
        client.operator_headers(),
        [
            "authorization",
            "x-amz-date",
            "x-amz-content-sha256",
            "x-amz-security-token"
        ]
    );
    assert_eq!(send(&client).await, Ok(200));
    let log = receiver.log();
    let received = &log.requests[0];
    assert_eq!(received.header("x-amz-date"), ["20150830T123600Z"]);
    assert_eq!(received.header("x-amz-security-token"), ["a-session-token"]);
    assert_eq!(
        received.header("host"),
        [format!("localhost:{}", receiver.addr.port())]
    );
    let begin = "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/es/aws4_request, \
                 SignedHeaders=content-type;host;x-amz-content-sha256;x-amz-date;\
                 x-amz-security-token, Signature=";
    assert!(received.header("authorization")[0].starts_with(begin));
}

fn oauth2(url: String, credentials: ClientCredentials) -> Auth {
    Auth::OAuth2(OAuth2Auth {
        token_url: Secret::new(url),
        client_id: "lock gate".into(),
        client_secret: Secret::new("cl1ent/secret"),
        scopes: vec!["logs.write".into(), "b".into()],
        credentials,
    })
}

/// A server that gives `token-1`, `token-2`, … for so many seconds.
async fn tokens(lifetime: u64) -> Receiver {
    let given = AtomicUsize::new(0);
    Receiver::start(None, move |_| {
        let number = given.fetch_add(1, Relaxed) + 1;
        async move {
            let body = format!(
                "{{\"access_token\":\"token-{number}\",\"token_type\":\"bearer\",\
                 \"expires_in\":{lifetime}}}"
            );
            answer(200, body)
        }
    })
    .await
}

#[tokio::test]
async fn a_token_is_kept_and_another_one_is_taken_after_a_401() {
    let server = tokens(3600).await;
    let accepted = Arc::new(Mutex::new("Bearer token-1"));
    let shared = accepted.clone();
    let receiver = Receiver::start(None, move |request| {
        let is_accepted = request.header("authorization") == [*shared.lock().unwrap()];
        async move { answer(if is_accepted { 200 } else { 401 }, "no: token-2 Bearer") }
    })
    .await;
    for credentials in [ClientCredentials::Basic, ClientCredentials::Body] {
        let client = client(&receiver.url("http", "/"), |endpoint| {
            endpoint.auth = oauth2(server.url("http", "/token"), credentials);
        });
        if credentials == ClientCredentials::Body {
            let _ = send(&client).await;
            continue;
        }
        assert_eq!(send(&client).await, Ok(200));
        assert_eq!(send(&client).await, Ok(200));
        assert_eq!(server.log().requests.len(), 1, "the token is kept");
        *accepted.lock().unwrap() = "Bearer token-2";
        assert_eq!(send(&client).await, Ok(200), "it has asked for another");
        assert_eq!(server.log().requests.len(), 2);
        *accepted.lock().unwrap() = "nobody";
        let request = checked(&client, request("[1]"));
        let refused = post(&client, &request, Destination::Url, 100)
            .await
            .unwrap();
        assert_eq!(refused.status, 401);
        let body = String::from_utf8_lossy(&refused.body).into_owned();
        assert_eq!(body, "no: *** Bearer", "tokens are masked");
        assert_eq!(
            server.log().requests.len(),
            3,
            "it is asked once per request"
        );
    }
    let log = server.log();
    let scope = "grant_type=client_credentials&scope=logs.write%20b";
    assert_eq!(log.requests[0].body, scope);
    // `lock%20gate:cl1ent%2Fsecret`
    assert_eq!(
        log.requests[0].header("authorization"),
        ["Basic bG9jayUyMGdhdGU6Y2wxZW50JTJGc2VjcmV0"]
    );
    let last = log.requests.last().unwrap();
    let body = format!("{scope}&client_id=lock%20gate&client_secret=cl1ent%2Fsecret");
    assert_eq!(last.body, body);
    assert!(last.header("authorization").is_empty());
}

/// Half of so short a life is over at once.
#[tokio::test]
async fn a_token_is_renewed_before_it_expires() {
    let server = tokens(0).await;
    let receiver = Receiver::start(None, async |_| answer(200, "")).await;
    let client = client(&receiver.url("http", "/"), |endpoint| {
        endpoint.auth = oauth2(server.url("http", "/token"), ClientCredentials::Basic);
    });
    for token in ["Bearer token-1", "Bearer token-2"] {
        assert_eq!(send(&client).await, Ok(200));
        let log = receiver.log();
        let received = log.requests.last().unwrap();
        assert_eq!(received.header("authorization"), [token]);
    }
}

#[tokio::test]
async fn a_server_of_tokens_that_gives_none_is_named_and_no_secret_is() {
    for (status, body, expected, needs_operator) in [
        (
            401,
            "{\"error\":\"invalid_client\",\"error_description\":\"cl1ent/secret\"}",
            "`localhost` answered 401: invalid_client: ***",
            true,
        ),
        (503, "<html>", "`localhost` answered 503", false),
        (200, "{}", "`localhost` answered without a token", true),
        (
            200,
            "{\"access_token\":\"t0ken\",\"token_type\":\"mac\"}",
            "`localhost` gives tokens of the type `mac`, not `Bearer`",
            true,
        ),
        (
            200,
            "{\"access_token\":\"\\\"errors\\\":false\"}",
            "`localhost` gives a token longer than 16 KiB, or with characters that RFC 6750 does not \
             allow",
            true,
        ),
    ] {
        let server = Receiver::start(None, move |_| async move { answer(status, body) }).await;
        let receiver = Receiver::start(None, async |_| answer(200, "")).await;
        let client = client(&receiver.url("http", "/"), |endpoint| {
            endpoint.masks = Masks::new();
            endpoint.auth = oauth2(server.url("http", "/token"), ClientCredentials::Basic);
        });
        let error = send(&client).await.expect_err(expected);
        let shown = error.to_string();
        assert_eq!(
            shown,
            format!("there is no token for the receiver: {expected}")
        );
        let SendError::Token {
            needs_operator: told,
            ..
        } = error
        else {
            panic!("{error:?}");
        };
        assert_eq!(told, needs_operator, "{shown}");
        assert!(
            receiver.log().requests.is_empty(),
            "nothing is sent without"
        );
    }
    let gone = client("http://localhost:1/", |endpoint| {
        let url = "http://localhost:1/token".to_owned();
        endpoint.auth = oauth2(url, ClientCredentials::Basic);
    });
    let error = send(&gone).await.expect_err("nobody listens").to_string();
    assert!(error.contains("`localhost` cannot be reached: "), "{error}");
}

/// Texts that a server called tokens were masked in the answers to all endpoints.
#[tokio::test]
async fn a_token_is_masked_for_its_own_endpoint_only() {
    let server = Receiver::start(None, |_| async {
        answer(
            200,
            "{\"access_token\":\"errors\",\"token_type\":\"bearer\"}",
        )
    })
    .await;
    let receiver = Receiver::start(None, |_| async { answer(200, "{\"errors\":false}") }).await;
    let masks = Masks::new();
    let its_own = client(&receiver.url("http", "/"), |endpoint| {
        endpoint.masks = masks.clone();
        endpoint.auth = oauth2(server.url("http", "/token"), ClientCredentials::Basic);
    });
    let other = client(&receiver.url("http", "/"), |endpoint| {
        endpoint.masks = masks
    });
    let body = async |client: &EndpointClient| {
        let request = checked(client, request("[1]"));
        let sent = post(client, &request, Destination::Url, 100).await;
        String::from_utf8_lossy(&sent.expect("it is answered").body).into_owned()
    };
    assert_eq!(body(&its_own).await, "{\"***\":false}");
    assert_eq!(body(&other).await, "{\"errors\":false}");
}
