//! The lock on the store's directory.

use lockgate_store::{DirectoryLock, Inspector, Ledger, LedgerError, OpenError, Store};

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
async fn removing_the_lock_file_lets_nobody_else_in() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    std::fs::remove_file(directory.path().join("lock")).unwrap();
    for _ in 0..2 {
        let held = Store::open(options(directory.path())).err().unwrap();
        assert!(matches!(held, OpenError::Held { .. }), "{held}");
    }
    append(&store, 3).await;
    store.close().await.unwrap();
    assert_eq!(*open(directory.path()).head(AUDIT).borrow(), 4);
}

#[tokio::test]
async fn a_lock_outlives_the_store_where_it_is_kept() {
    let directory = tempfile::tempdir().unwrap();
    let lock = DirectoryLock::take(directory.path(), 0).unwrap();
    for _ in 0..2 {
        let store = Store::open_locked(options(directory.path()), lock.clone()).unwrap();
        store.close().await.unwrap();
        let held = Store::open(options(directory.path())).err().unwrap();
        assert!(matches!(held, OpenError::Held { .. }), "{held}");
    }
    drop(lock);
    open(directory.path());
}

/// Events acknowledged after that could never be found again.
#[tokio::test]
async fn a_store_whose_files_are_removed_or_replaced_closes_and_names_the_file() {
    for (name, replaced) in [
        ("store.db", false),
        ("store.db", true),
        ("store.db-wal", false),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let store = open(directory.path());
        append(&store, 3).await;
        let path = directory.path().join(name);
        let bytes = std::fs::read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        if replaced {
            std::fs::write(&path, bytes).unwrap();
        }
        let mut failed = store.failed();
        let append = store.append(append_of(numbered(4..5), &[])).await;
        let message = append.unwrap_err().to_string();
        for part in [
            "the store is closed",
            &format!("`{}` was removed or replaced", path.display()),
            "from a backup",
        ] {
            assert!(message.contains(part), "{name}: {message}");
        }
        assert!(failed.wait_for(Option::is_some).await.unwrap().is_some());
    }
}

#[tokio::test]
async fn an_idle_store_notices_that_its_file_is_gone() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let mut failed = store.failed();
    std::fs::remove_file(directory.path().join("store.db")).unwrap();
    let deadline = std::time::Duration::from_secs(60);
    let closed = tokio::time::timeout(deadline, failed.wait_for(Option::is_some)).await;
    let cause = closed.expect("it is noticed").unwrap().clone();
    assert!(cause.unwrap().to_string().contains("store.db` was removed"));
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
        .pragma_update(None, "user_version", 4)
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
                    found: 4,
                    known: 3,
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
