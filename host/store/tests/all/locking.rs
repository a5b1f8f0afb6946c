//! The lock on the store's directory.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

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

/// A backup put in its place would undo what the store holds.
#[tokio::test]
async fn a_store_whose_directory_cannot_be_entered_any_more_says_so() {
    let parent = tempfile::tempdir().unwrap();
    let (directory, aside) = (parent.path().join("store"), parent.path().join("aside"));
    let store = open(&directory);
    append(&store, 3).await;
    // Permissions do not stop root; a path that leads in a circle stops everybody.
    std::fs::rename(&directory, &aside).unwrap();
    std::os::unix::fs::symlink(&directory, &directory).unwrap();
    let append = store.append(append_of(numbered(4..5), &[])).await;
    let message = append.unwrap_err().to_string();
    let database = directory.join("store.db");
    let cause = format!("`{}` cannot be reached any more (", database.display());
    for part in ["the store is closed", &cause, "then start again"] {
        assert!(message.contains(part), "{message}");
    }
    for part in ["removed", "backup"] {
        assert!(!message.contains(part), "{message}");
    }
    drop(store);
    std::fs::remove_file(&directory).unwrap();
    std::fs::rename(&aside, &directory).unwrap();
    assert_eq!(*open(&directory).head(AUDIT).borrow(), 4);
}

/// A user that permissions stop. Root is not such a user.
#[tokio::test]
async fn a_store_that_has_lost_its_permissions_says_how_to_give_them_back() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("store");
    let store = open(&directory);
    append(&store, 3).await;
    let mode = |mode| {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
        std::fs::set_permissions(&directory, mode).unwrap();
    };
    mode(0o000);
    let is_root = std::fs::read_dir(&directory).is_ok();
    let append = store.append(append_of(numbered(4..5), &[])).await;
    mode(0o700);
    if is_root {
        eprintln!("skipped: permissions do not stop this user");
        return;
    }
    let message = append.unwrap_err().to_string();
    for part in ["Permission denied", "Give the user", "chmod 700"] {
        assert!(message.contains(part), "{message}");
    }
}

/// The same inode, so that the path leads to the store's own file.
#[tokio::test]
async fn a_store_whose_files_are_truncated_or_overwritten_closes_and_names_the_file() {
    for (name, len) in [
        ("store.db", Some(0)),
        ("store.db", Some(40_960)),
        ("store.db-wal", Some(0)),
        ("store.db-wal", Some(4096)),
        ("store.db-wal", None),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(name);
        let store = open(directory.path());
        append(&store, 3).await;
        let older = std::fs::read(&path).unwrap();
        append(&store, 3).await;
        match len {
            Some(len) => truncate(&path, len),
            None => std::fs::write(&path, older).unwrap(),
        }
        let append = store.append(append_of(numbered(7..8), &[])).await;
        let message = append.unwrap_err().to_string();
        for part in [
            &format!("`{}` was truncated or overwritten", path.display()),
            "Put the whole store back from a backup",
        ] {
            assert!(message.contains(part), "{name} {len:?}: {message}");
        }
        assert!(store.close().await.is_err());
    }
}

fn truncate(path: &Path, len: u64) {
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    file.set_len(len).unwrap();
}

#[tokio::test]
async fn an_idle_store_notices_that_its_log_was_truncated() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    append(&store, 3).await;
    let mut failed = store.failed();
    truncate(&directory.path().join("store.db-wal"), 0);
    let deadline = Duration::from_secs(60);
    let closed = tokio::time::timeout(deadline, failed.wait_for(Option::is_some)).await;
    let cause = closed.expect("it is noticed").unwrap().clone();
    let message = cause.unwrap().to_string();
    assert!(message.contains("store.db-wal` was truncated"), "{message}");
    assert!(!message.contains("is on disk"), "{message}");
    // For the next start, which finds a store that is older and whole.
    let change = directory.path().join("changed-files");
    let kept = std::fs::read_to_string(&change).unwrap();
    assert!(
        kept.ends_with("store.db-wal` was truncated or overwritten"),
        "{kept}"
    );
    drop(open(directory.path()));
    assert!(!change.exists(), "it is logged once");
}

/// Each of them makes a file shorter, or writes to it, and nothing is lost.
#[tokio::test]
async fn readers_checkpoints_and_retention_leave_the_store_open() {
    let directory = tempfile::tempdir().unwrap();
    let database = directory.path().join("store.db");
    let (store, now) = open_with_an_hour_of_retention(directory.path());
    let other = rusqlite::Connection::open(&database).unwrap();
    let len = || std::fs::metadata(&database).unwrap().len();
    let checkpoint = |round: u64| {
        let mode = ["PASSIVE", "FULL", "RESTART", "TRUNCATE", "TRUNCATE"][round as usize % 5];
        let inspector = Inspector::open(directory.path()).unwrap();
        assert_eq!(inspector.streams().unwrap().len(), 1);
        let sql = format!("PRAGMA wal_checkpoint({mode})");
        other.query_row(&sql, [], |_| Ok(())).unwrap();
    };
    for round in 0..24 {
        let keys: Vec<String> = (0..20).map(|nth| format!("{}", round * 20 + nth)).collect();
        let parts = events(&keys, |key| {
            // It does not compress.
            let mut dice = Dice(key.parse().unwrap());
            let text: String = (0..80_000)
                .map(|_| (b'a' + dice.roll(26) as u8) as char)
                .collect();
            format!(r#"{{"uid":"{key}","text":"{text}"}}"#)
        });
        store.append(append_of(parts, &[])).await.unwrap();
        checkpoint(round);
    }
    let before = len();
    now.store(DAY + 9_000_000, Ordering::SeqCst);
    let mut round = 0;
    // The file keeps some free pages for what is written next.
    while len() > before - (4 << 20) {
        assert!(round < 100_000, "{} of {before}", len());
        append(&store, 1).await;
        checkpoint(round);
        round += 1;
    }
    append(&store, 1).await;
    assert_eq!(*store.failed().borrow(), None);
    store.close().await.unwrap();
}

#[tokio::test]
async fn an_idle_store_notices_that_its_file_is_gone() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let mut failed = store.failed();
    std::fs::remove_file(directory.path().join("store.db")).unwrap();
    let deadline = Duration::from_secs(60);
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
        .pragma_update(None, "user_version", 5)
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
                    found: 5,
                    known: 4,
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
