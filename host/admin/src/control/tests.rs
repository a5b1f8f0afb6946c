//! Tests of the control socket, with its client and server in one process.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tokio::sync::Barrier;

use super::server::Place;
use super::*;

/// Says what it was asked. A release waits until two are there.
struct Echo(Barrier);

impl Echo {
    fn new() -> Arc<Echo> {
        Arc::new(Echo(Barrier::new(2)))
    }
}

impl Control for Echo {
    async fn handle(&self, request: Request) -> Response {
        let message = format!("{request:?}");
        match request {
            Request::Release { .. } => {
                self.0.wait().await;
                Response::Done { message }
            }
            Request::Drop { .. } => Response::Refused { message },
            _ => Response::Done { message },
        }
    }
}

/// A blocking client on a thread of its own.
async fn ask(directory: &Path, request: Request) -> Option<Response> {
    let directory = directory.to_owned();
    tokio::task::spawn_blocking(move || call(&directory, &request).unwrap())
        .await
        .unwrap()
}

fn release(pipeline: &str) -> Request {
    Request::Release {
        pipeline: pipeline.to_owned(),
    }
}

fn served(directory: &TempDir) -> tokio::task::JoinHandle<()> {
    let socket = Socket::bind(directory.path()).unwrap();
    tokio::spawn(socket.serve(Echo::new()))
}

#[tokio::test]
async fn each_request_gets_the_hosts_answer() {
    let directory = tempfile::tempdir().unwrap();
    let server = served(&directory);
    let drop = Request::Drop {
        pipeline: "siem".to_owned(),
        stream: "teleport/audit".to_owned(),
        seqs: vec![3, 9],
    };
    for (request, refused) in [(Request::Ping, false), (drop, true)] {
        let message = format!("{request:?}");
        let expected = if refused {
            Response::Refused { message }
        } else {
            Response::Done { message }
        };
        assert_eq!(ask(directory.path(), request).await, Some(expected));
    }
    server.abort();
}

#[tokio::test]
async fn two_clients_are_served_at_the_same_time() {
    let directory = tempfile::tempdir().unwrap();
    let server = served(&directory);
    let path = directory.path();
    let (a, b) = tokio::join!(ask(path, release("a")), ask(path, release("b")));
    for (response, pipeline) in [(a, "a"), (b, "b")] {
        let message = format!("{:?}", release(pipeline));
        assert_eq!(response, Some(Response::Done { message }));
    }
    server.abort();
}

#[tokio::test]
async fn the_socket_is_private_and_goes_with_its_host() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(SOCKET);
    let server = served(&directory);
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    server.abort();
    let _ = server.await;
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    assert_eq!(ask(directory.path(), Request::Ping).await, None);
}

#[tokio::test]
async fn a_socket_that_a_killed_host_left_is_replaced() {
    let directory = tempfile::tempdir().unwrap();
    drop(UnixListener::bind(directory.path().join(SOCKET)).unwrap());
    drop(UnixListener::bind(directory.path().join(".control")).unwrap());
    assert_eq!(ask(directory.path(), Request::Ping).await, None);
    let server = served(&directory);
    assert!(ask(directory.path(), Request::Ping).await.is_some());
    server.abort();
}

#[tokio::test]
async fn files_and_sockets_of_others_are_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(SOCKET);
    let other = UnixListener::bind(&path).unwrap();
    let error = Socket::bind(directory.path()).unwrap_err();
    assert!(error.to_string().contains("another process"), "{error}");
    drop(other);
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "notes").unwrap();
    let error = Socket::bind(directory.path()).unwrap_err();
    assert!(error.to_string().contains("not a socket"), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), b"notes");

    std::fs::remove_file(&path).unwrap();
    let first = Socket::bind(directory.path()).unwrap();
    std::fs::remove_file(&path).unwrap();
    let _second = Socket::bind(directory.path()).unwrap();
    drop(first);
    assert!(path.exists(), "the socket of the second stays");
}

#[tokio::test]
async fn a_socket_that_was_removed_or_replaced_is_made_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(SOCKET);
    let server = served(&directory);
    for is_replaced in [false, true] {
        assert!(ask(directory.path(), Request::Ping).await.is_some());
        std::fs::remove_file(&path).unwrap();
        if is_replaced {
            drop(UnixListener::bind(&path).unwrap());
        }
        let answered = async {
            while ask(directory.path(), Request::Ping).await.is_none() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), answered)
            .await
            .unwrap();
    }
    server.abort();
    let _ = server.await;
    assert!(!path.exists(), "the new one goes with its host, too");
}

#[tokio::test]
async fn a_socket_that_cannot_be_reached_was_neither_removed_nor_replaced() {
    let parent = tempfile::tempdir().unwrap();
    let (directory, aside) = (parent.path().join("store"), parent.path().join("aside"));
    std::fs::create_dir(&directory).unwrap();
    let socket = Socket::bind(&directory).unwrap();
    // Permissions do not stop root; a path that leads in a circle stops everybody.
    std::fs::rename(&directory, &aside).unwrap();
    std::os::unix::fs::symlink(&directory, &directory).unwrap();
    let place = socket.place();
    assert!(matches!(place, Place::Unreachable(_)), "{place:?}");
    std::fs::remove_file(&directory).unwrap();
    assert!(matches!(socket.place(), Place::Lost));
    std::fs::rename(&aside, &directory).unwrap();
    assert!(matches!(socket.place(), Place::Kept));
}

#[tokio::test]
async fn an_oversized_request_is_refused_and_the_next_one_is_served() {
    let directory = tempfile::tempdir().unwrap();
    let server = served(&directory);
    let response = ask(directory.path(), release(&"x".repeat(2 << 20))).await;
    let Some(Response::Refused { message }) = response else {
        panic!("{response:?}");
    };
    assert!(message.contains("1048576 bytes"), "{message}");
    assert!(ask(directory.path(), Request::Ping).await.is_some());
    server.abort();
}

#[tokio::test]
async fn a_request_of_another_version_is_refused_with_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let server = served(&directory);
    for text in [
        "{\"request\":\"seek\"}\n",
        "not json\n",
        "{\"request\":\"release\",\"pipeline\":\"siem\",\"all\":1}",
    ] {
        let path = directory.path().join(SOCKET);
        let answer = tokio::task::spawn_blocking(move || {
            let mut stream = UnixStream::connect(path).unwrap();
            stream.write_all(text.as_bytes()).unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            answer
        });
        let answer = answer.await.unwrap();
        let Ok(Response::Refused { message }) = serde_json::from_str(&answer) else {
            panic!("{text}: {answer}");
        };
        assert!(message.contains("same version"), "{text}: {message}");
    }
    server.abort();
}

#[tokio::test]
async fn a_path_that_is_too_long_for_a_socket_is_refused_with_a_remedy() {
    let directory = tempfile::tempdir().unwrap();
    let deep = directory.path().join("d".repeat(120));
    std::fs::create_dir(&deep).unwrap();
    let bound = Socket::bind(&deep).unwrap_err().to_string();
    let called = call(&deep, &Request::Ping).unwrap_err().to_string();
    for error in [bound, called] {
        assert!(error.contains("shorter `path`"), "{error}");
    }
}
