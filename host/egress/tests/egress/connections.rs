//! Connections: how many there are, how long they last, and what happens when they end.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use bytes::Bytes;
use lockgate_egress::{ConnectionBudget, Destination, EndpointClient, SendError, Wanted};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Barrier, Semaphore, mpsc};

use crate::receiver::{Receiver, answer};
use crate::{checked, client, post, request};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: keep-alive\r\n\r\n";

/// Passes every connection, with its number from 0, to `talk`.
pub async fn raw<F: Future<Output = ()> + Send + 'static>(
    talk: impl Fn(usize, TcpStream) -> F + Send + 'static,
) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move {
        for number in 0.. {
            let (socket, _) = listener.accept().await.unwrap();
            tokio::spawn(talk(number, socket));
        }
    });
    url
}

/// Reads one request with a body of two bytes. Returns false at the end of the connection.
pub async fn read_request(socket: &mut TcpStream) -> bool {
    let mut read = Vec::new();
    while !read.ends_with(b"\r\n\r\n[]") {
        if socket.read_buf(&mut read).await.unwrap_or(0) == 0 {
            return false;
        }
    }
    true
}

pub async fn send(client: &EndpointClient) -> Result<u16, SendError> {
    post(
        client,
        &checked(client, request("[]")),
        Destination::Url,
        100,
    )
    .await
    .map(|response| response.status)
}

#[tokio::test]
async fn a_closed_idle_connection_is_replaced() {
    let connections = Arc::new(AtomicUsize::new(0));
    let seen = connections.clone();
    // Closes every connection after one answer, although the answer says `keep-alive`.
    let url = raw(move |_, mut socket| {
        seen.fetch_add(1, SeqCst);
        async move {
            read_request(&mut socket).await;
            socket.write_all(OK).await.unwrap();
        }
    })
    .await;
    let client = client(&url, |_| {});
    for _ in 0..20 {
        assert_eq!(send(&client).await, Ok(200));
    }
    assert_eq!(connections.load(SeqCst), 20);
}

#[tokio::test]
async fn a_request_on_a_connection_that_is_closed_is_sent_again_on_a_fresh_one() {
    // The first three connections answer once, all at the same time, and then read a second request
    // without answering it.
    let met = Arc::new(Barrier::new(3));
    let unanswered = Arc::new(AtomicUsize::new(0));
    let lost = unanswered.clone();
    let url = raw(move |number, mut socket| {
        let (met, lost) = (met.clone(), lost.clone());
        async move {
            let stale = number < 3;
            let mut answered = 0;
            while read_request(&mut socket).await {
                if stale && answered == 1 {
                    lost.fetch_add(1, SeqCst);
                    return;
                }
                if stale {
                    met.wait().await;
                }
                socket.write_all(OK).await.unwrap();
                answered += 1;
            }
        }
    })
    .await;
    let client = client(&url, |_| {});
    let (a, b, c) = tokio::join!(send(&client), send(&client), send(&client));
    assert_eq!((a, b, c), (Ok(200), Ok(200), Ok(200)));
    for _ in 0..5 {
        assert_eq!(
            send(&client).await,
            Ok(200),
            "a fresh connection, not another idle one that ends as well"
        );
    }
    assert_eq!(unanswered.load(SeqCst), 3);
}

#[tokio::test]
async fn a_receiver_that_never_answers_gets_the_request_once() {
    let connections = Arc::new(AtomicUsize::new(0));
    let seen = connections.clone();
    let url = raw(move |_, mut socket| {
        seen.fetch_add(1, SeqCst);
        async move {
            read_request(&mut socket).await;
        }
    })
    .await;
    assert_eq!(send(&client(&url, |_| {})).await, Err(SendError::Closed));
    assert_eq!(
        connections.load(SeqCst),
        1,
        "no connection was idle, so the request is not sent again"
    );
}

/// It was sent twice: its connection was taken for an idle one.
#[tokio::test]
async fn a_request_on_a_fresh_connection_that_is_closed_is_sent_once() {
    let requests = Arc::new(AtomicUsize::new(0));
    let seen = requests.clone();
    let url = raw(move |number, mut socket| {
        let seen = seen.clone();
        async move {
            if read_request(&mut socket).await {
                seen.fetch_add(1, SeqCst);
            }
            if number == 0 {
                socket.write_all(OK).await.unwrap();
            }
        }
    })
    .await;
    // Fewer connections than endpoints: each is closed after one request.
    let budget = ConnectionBudget::default();
    let wanted = Wanted {
        connections: 1,
        hosts: 1,
    };
    budget.divide(1, &[wanted; 2]);
    let client = client(&url, |endpoint| endpoint.budget = budget);
    assert_eq!(send(&client).await, Ok(200));
    assert_eq!(send(&client).await, Err(SendError::Closed));
    assert_eq!(requests.load(SeqCst), 2);
}

/// It was sent twice, because another connection had carried an answer.
#[tokio::test]
async fn a_request_on_a_connection_that_has_never_been_idle_is_sent_once() {
    let requests = Arc::new(AtomicUsize::new(0));
    let seen = requests.clone();
    let url = raw(move |number, mut socket| {
        let seen = seen.clone();
        async move {
            if read_request(&mut socket).await {
                seen.fetch_add(1, SeqCst);
            }
            if number == 0 {
                let last = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
                socket.write_all(last).await.unwrap();
            }
        }
    })
    .await;
    let client = client(&url, |_| {});
    assert_eq!(send(&client).await, Ok(200));
    assert_eq!(send(&client).await, Err(SendError::Closed));
    assert_eq!(requests.load(SeqCst), 2);
}

/// Requests that wait for an answer, up to the time-out, once kept their bodies in memory.
#[tokio::test]
async fn a_body_is_freed_once_it_is_written() {
    struct Owner(mpsc::UnboundedSender<()>);

    impl AsRef<[u8]> for Owner {
        fn as_ref(&self) -> &[u8] {
            b"[]"
        }
    }

    impl Drop for Owner {
        fn drop(&mut self) {
            let _ = self.0.send(());
        }
    }

    let url = raw(|number, mut socket| async move {
        // The first request is answered, so that there may be idle connections from then on.
        read_request(&mut socket).await;
        if number == 0 {
            socket.write_all(OK).await.unwrap();
        }
        while read_request(&mut socket).await {}
    })
    .await;
    let client = client(&url, |endpoint| endpoint.timeout = Duration::from_secs(600));
    assert_eq!(send(&client).await, Ok(200));
    let request = checked(&client, request("[]"));
    let (freed, mut is_freed) = mpsc::unbounded_channel();
    let body = || Bytes::from_owner(Owner(freed.clone()));
    let connection = client.connection().await;
    tokio::select! {
        answer = client.send(connection, &request, body, Destination::Url, 100) => panic!("{answer:?}"),
        freed = is_freed.recv() => assert_eq!(freed, Some(())),
        () = tokio::time::sleep(Duration::from_secs(60)) => panic!("it is kept"),
    }
}

#[tokio::test]
async fn a_silent_receiver_times_out() {
    let url = raw(|_, mut socket| async move { while read_request(&mut socket).await {} }).await;
    let timeout = Duration::from_millis(200);
    assert_eq!(
        send(&client(&url, |endpoint| endpoint.timeout = timeout)).await,
        Err(SendError::Timeout(timeout))
    );
}

#[tokio::test]
async fn an_answer_with_an_incomplete_body_is_valid() {
    let url = raw(|_, mut socket| async move {
        read_request(&mut socket).await;
        socket
            .write_all(b"HTTP/1.1 202 Accepted\r\nContent-Length: 100\r\n\r\nhalf")
            .await
            .unwrap();
        while read_request(&mut socket).await {}
    })
    .await;
    let client = client(&url, |endpoint| endpoint.timeout = Duration::from_secs(10));
    let response = post(
        &client,
        &checked(&client, request("[]")),
        Destination::Url,
        100,
    )
    .await
    .unwrap();
    assert_eq!(
        (response.status, &response.body[..], response.truncated),
        (202, &b"half"[..], true)
    );
}

#[tokio::test]
async fn an_answer_before_the_end_of_the_request_body_is_read() {
    // Like Fluentd with a body over its limit, answers without reading the rest.
    let url = raw(|_, mut socket| async move {
        let mut head = vec![0; 1000];
        assert!(socket.read(&mut head).await.unwrap() > 0);
        socket
            .write_all(
                b"HTTP/1.1 413 Payload Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            )
            .await
            .unwrap();
        socket.shutdown().await.unwrap();
        // Closing with unread data would reset the connection and lose the answer.
        while socket.read(&mut head).await.unwrap_or(0) > 0 {}
    })
    .await;
    let client = client(&url, |_| {});
    let response = post(
        &client,
        &checked(&client, request(vec![b'x'; 4 << 20])),
        Destination::Url,
        100,
    )
    .await
    .unwrap();
    assert_eq!(response.status, 413);
}

#[tokio::test]
async fn a_closed_port_cannot_be_reached() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!(
        "http://{}/hunter22?token=hunter22",
        listener.local_addr().unwrap()
    );
    drop(listener);
    let error = send(&client(&url, |_| {})).await.unwrap_err();
    assert!(matches!(error, SendError::Connect(_)), "{error:?}");
    assert!(
        error
            .to_string()
            .starts_with("the receiver cannot be reached: Connection refused"),
        "{error}"
    );
}

#[tokio::test]
async fn no_more_connections_than_allowed_are_opened() {
    let gate = Arc::new(Semaphore::new(0));
    let behind = gate.clone();
    let receiver = Receiver::start(None, move |_| {
        let gate = behind.clone();
        async move {
            gate.acquire().await.unwrap().forget();
            answer(200, "")
        }
    })
    .await;
    let client = client(&receiver.url("http", ""), |endpoint| {
        endpoint.connections = 2
    });
    let release = async {
        while receiver.log().requests.len() < 2 {
            tokio::task::yield_now().await;
        }
        gate.add_permits(6);
    };
    let (a, b, c, d, e, f, ()) = tokio::join!(
        send(&client),
        send(&client),
        send(&client),
        send(&client),
        send(&client),
        send(&client),
        release
    );
    assert_eq!(
        [a, b, c, d, e, f],
        [Ok(200), Ok(200), Ok(200), Ok(200), Ok(200), Ok(200)]
    );
    let log = receiver.log();
    assert_eq!(
        (log.max_concurrent, log.connections),
        (2, 2),
        "the connections are reused"
    );
}
