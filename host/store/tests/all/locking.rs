use lockgate_store::{Inspector, Ledger, LedgerError, OpenError, Store};

use crate::common::*;

#[tokio::test]
async fn a_second_store_in_the_directory_names_the_holder() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let held = Store::open(options(directory.path())).err().unwrap();
    let message = held.to_string();
    assert!(matches!(held, OpenError::Held { .. }));
    let command = std::env::args().next().unwrap();
    for part in [
        &format!("process {} (`{command}", std::process::id()),
        " since 20",
        "Z. Stop that process",
        "`path` in `[store]`",
    ] {
        assert!(message.contains(part), "{message}");
    }
    append(&store, 3).await;
    store.close().await.unwrap();
    assert_eq!(*open(directory.path()).head(AUDIT).borrow(), 4);
}

#[tokio::test]
async fn a_dropped_store_releases_its_directory() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    append(&store, 3).await;
    let mut failed = store.failed();
    drop(store);
    assert!(failed.wait_for(Option::is_some).await.unwrap().is_some());
    assert_eq!(*open(directory.path()).head(AUDIT).borrow(), 4);
}

#[tokio::test]
async fn a_closed_store_refuses_reads_and_writes() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    append(&store, 3).await;
    let other = store.clone();
    store.close().await.unwrap();
    let closed = other
        .append(append_of(numbered(4..5), &[]))
        .await
        .unwrap_err();
    assert_eq!(
        closed,
        LedgerError::Closed {
            cause: "it was closed".into(),
            full: false
        }
    );
    assert_eq!(other.reads().cursors("teleport"), Err(closed.clone()));
    assert_eq!(other.failed().borrow().clone(), Some(closed));
}

#[tokio::test]
async fn a_newer_format_is_refused_with_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    open(directory.path()).close().await.unwrap();
    let path = directory.path().join("store.db");
    rusqlite::Connection::open(&path)
        .unwrap()
        .pragma_update(None, "user_version", 3)
        .unwrap();
    let before = std::fs::read(&path).unwrap();
    for refusal in [
        Store::open(options(directory.path())).err().unwrap(),
        Inspector::open(directory.path()).err().unwrap(),
    ] {
        assert!(
            matches!(
                refusal,
                OpenError::Newer {
                    found: 3,
                    known: 2,
                    ..
                }
            ),
            "{refusal}"
        );
        assert!(
            refusal
                .to_string()
                .contains("Start the release that wrote it or a newer one"),
            "{refusal}"
        );
    }
    assert_eq!(std::fs::read(&path).unwrap(), before);
}
