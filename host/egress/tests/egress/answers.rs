//! How a receiver's answers are read.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use lockgate_egress::{Auth, Destination, Secret};
use lockgate_model::request::Response;

use crate::receiver::{Answer, Receiver, answer};
use crate::{checked, client, post, request};

/// The answer as the sink sees it, with `hunter22` as the operator's token.
async fn sees(
    answer: impl Fn() -> Answer + Clone + Send + Sync + 'static,
    response_max: usize,
) -> Response {
    let receiver = Receiver::start(None, move |_| std::future::ready(answer())).await;
    let client = client(&receiver.url("http", ""), |endpoint| {
        endpoint.auth = Auth::Bearer(Secret::new("hunter22"));
        endpoint.clock = || SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777 - 30);
    });
    post(
        &client,
        &checked(&client, request("[]")),
        Destination::Url,
        response_max,
    )
    .await
    .unwrap()
}

#[tokio::test]
async fn the_status_of_every_2xx_is_returned() {
    for status in (200..=208).chain([226, 299]) {
        let response = sees(move || answer(status, ""), 10).await;
        assert_eq!(response.status, status);
        assert!(!response.truncated);
    }
}

#[tokio::test]
async fn redirects_are_not_followed() {
    for status in [301, 302, 303, 307, 308] {
        let receiver = Receiver::start(None, move |_| async move {
            let mut answer = answer(status, "");
            answer
                .headers_mut()
                .insert("location", "/elsewhere".parse().unwrap());
            answer
        })
        .await;
        let client = client(&receiver.url("http", ""), |_| {});
        let response = post(
            &client,
            &checked(&client, request("[]")),
            Destination::Url,
            10,
        )
        .await
        .unwrap();
        assert_eq!(response.status, status);
        assert_eq!(receiver.log().requests.len(), 1);
    }
}

#[tokio::test]
async fn a_body_is_cut_at_the_size_that_the_sink_wants() {
    for (body, max, seen, truncated) in [
        ("0123456789", 10, "0123456789", false),
        ("0123456789", 9, "012345678", true),
        ("0123456789", 0, "", true),
        ("", 0, "", false),
        ("0123ü", 5, "0123", true),
    ] {
        let response = sees(move || answer(200, body), max).await;
        assert_eq!(
            (
                &*String::from_utf8_lossy(&response.body),
                response.truncated
            ),
            (seen, truncated),
            "{body} at {max}"
        );
    }
    let response = sees(|| answer(500, vec![b'x'; 3 << 20]), 64 << 10).await;
    assert_eq!(
        (response.status, response.body.len(), response.truncated),
        (500, 64 << 10, true)
    );
    let response = sees(|| answer(200, Bytes::from_static(b"a\xffb\xc3")), 10).await;
    assert_eq!(
        response.body,
        &b"a\xffb\xc3"[..],
        "a body that is not UTF-8 is kept as it is"
    );
}

#[tokio::test]
async fn secrets_in_answers_are_masked() {
    let echo = || {
        let mut answer = answer(400, "you sent `Bearer hunter22` and hunter22");
        answer
            .headers_mut()
            .insert("x-echo", "t=hunter22;".parse().unwrap());
        answer
    };
    for (max, body) in [
        (1000, "you sent `Bearer ***` and ***"),
        // The cut is in the middle of the secret.
        (36, "you sent `Bearer ***` and ***"),
        (20, "you sent `Bearer ***"),
    ] {
        let response = sees(echo, max).await;
        assert_eq!(response.body, body, "at {max}");
        assert!(
            response
                .headers
                .contains(&("x-echo".into(), "t=***;".into())),
            "{:?}",
            response.headers
        );
    }
}

#[tokio::test]
async fn the_base64_of_basic_authentication_is_masked_too() {
    let receiver = Receiver::start(None, async |seen| {
        answer(401, seen.header("authorization")[0].to_owned())
    })
    .await;
    let client = client(&receiver.url("http", ""), |endpoint| {
        endpoint.auth = Auth::Basic {
            user: "tp".into(),
            password: Secret::new("hunter22"),
        };
    });
    let response = post(
        &client,
        &checked(&client, request("[]")),
        Destination::Url,
        100,
    )
    .await
    .unwrap();
    assert_eq!(response.body, "Basic ***");
}

#[tokio::test]
async fn retry_after_is_read() {
    for (value, millis) in [
        ("7", Some(7000)),
        ("Sun, 06 Nov 1994 08:49:37 GMT", Some(30_000)),
        (
            "31536000",
            Some(lockgate_model::request::RETRY_AFTER_MAX.as_millis() as u64),
        ),
        ("soon", None),
    ] {
        let response = sees(
            move || {
                let mut answer = answer(503, "");
                answer
                    .headers_mut()
                    .insert("retry-after", value.parse().unwrap());
                answer
            },
            10,
        )
        .await;
        assert_eq!(
            (response.status, response.retry_after),
            (503, millis),
            "{value}"
        );
    }
}
