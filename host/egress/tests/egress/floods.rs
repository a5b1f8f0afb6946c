//! Receivers that send for as long as anybody listens, in one go.

use std::time::Duration;

use lockgate_egress::{Destination, SendError};
use tokio::io::AsyncWriteExt;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;

use crate::connections::{raw, read_request, send};
use crate::receiver::{Receiver, answer};
use crate::{checked, client, post, request};

const INTERIM: &str = "HTTP/1.1 100 Continue\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

/// The threads of the receivers, which leave the client alone with its one thread.
fn theirs() -> Runtime {
    let mut runtime = Builder::new_multi_thread();
    runtime.worker_threads(2).enable_all().build().unwrap()
}

/// Sends the beginning of an answer, and then the rest again and again. Also returns what hears of
/// the end of a connection.
async fn flood(start: String, rest: &str) -> (String, mpsc::UnboundedReceiver<()>) {
    let rest = rest.repeat(4096 / rest.len());
    let (ended, is_ended) = mpsc::unbounded_channel();
    let url = raw(move |_, mut socket| {
        let (start, rest, ended) = (start.clone(), rest.clone(), ended.clone());
        async move {
            read_request(&mut socket).await;
            let mut sent = socket.write_all(start.as_bytes()).await;
            while sent.is_ok() {
                sent = socket.write_all(rest.as_bytes()).await;
            }
            let _ = ended.send(());
        }
    });
    (url.await, is_ended)
}

/// It took a thread from all others until its time-out.
#[test]
fn a_flood_is_ended_and_those_beside_it_are_served() {
    let theirs = theirs();
    let receiver = theirs.block_on(Receiver::start(None, async |_| answer(200, "")));
    let flood_of = |what: &str| Err(SendError::Flood(what.to_owned()));
    let large = flood_of("an answer whose head has more than 64 KiB, or over 100 headers");
    let headers = "HTTP/1.1 200 OK\r\n".to_owned();
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned();
    for (start, rest, expected) in [
        (
            String::new(),
            INTERIM,
            flood_of("more than 16 interim answers (1xx), and no final one"),
        ),
        (headers.clone(), "a: b\r\n", large.clone()),
        (format!("{headers}a: "), "b", large),
        (chunked, "1\r\nx\r\n", Ok((200, true))),
    ] {
        let (url, mut is_ended) = theirs.block_on(flood(start, rest));
        let ours = Builder::new_current_thread().enable_all().build().unwrap();
        ours.block_on(async {
            let flooded = client(&url, |endpoint| {
                endpoint.timeout = Duration::from_secs(3600);
            });
            let request = checked(&flooded, request("[]"));
            let answer = post(&flooded, &request, Destination::Url, 64 << 10);
            let ended = async {
                let answer = answer.await;
                assert_eq!(is_ended.recv().await, Some(()), "nobody listens any more");
                answer
            };
            let answer = tokio::time::timeout(Duration::from_secs(60), ended);
            let healthy = client(&receiver.url("http", ""), |_| {});
            let served = async {
                for _ in 0..50 {
                    assert_eq!(send(&healthy).await, Ok(200));
                }
            };
            let (answer, ()) = tokio::join!(answer, served);
            let answer = answer.expect("it is ended");
            // It is cut long before it has as many bytes as the sink wants.
            let answer = answer.map(|answer| {
                let is_cut = answer.truncated && answer.body.len() < 8 << 10;
                (answer.status, is_cut)
            });
            assert_eq!(answer, expected, "{rest:?}");
        });
    }
}

#[tokio::test]
async fn an_answer_may_be_long_in_coming_and_have_a_large_head() {
    let large = format!("X-Policy: {}\r\n", "p".repeat(60 << 10));
    let with_head = OK.replacen("\r\n", &format!("\r\n{large}"), 1);
    for answer in [format!("{}{OK}", INTERIM.repeat(16)), with_head] {
        let url = raw(move |_, mut socket| {
            let answer = answer.clone();
            async move {
                while read_request(&mut socket).await {
                    socket.write_all(answer.as_bytes()).await.unwrap();
                }
            }
        })
        .await;
        let client = client(&url, |_| {});
        for _ in 0..3 {
            assert_eq!(send(&client).await, Ok(200));
        }
    }
}

#[tokio::test]
async fn what_a_flood_is_is_told_with_where_to_look() {
    let (url, _) = flood(String::new(), INTERIM).await;
    let error = send(&client(&url, |_| {})).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the receiver sends more than 16 interim answers (1xx), and no final one"
    );
    let hint = error.hint().unwrap_or_default();
    assert!(hint.contains("check the port of the URL"), "{hint}");
}
