//! Full disks.

use std::process::Command;

use lockgate_store::{Ledger, Options, Store};

use crate::common::*;
use crate::worker::{Acknowledged, DIRECTORY};

/// Starts child processes whose files may not grow beyond a limit: the kernel fails the write that
/// would, at another place each time.
#[tokio::test]
async fn nothing_acknowledged_is_lost_when_the_disk_is_full() {
    let directory = tempfile::tempdir().unwrap();
    let mut acknowledged = Acknowledged::default();
    let mut dice = Dice(7);
    // The store's own size when it is empty, then more each time, so that log, checkpoint and file
    // meet the limit.
    let mut limit = 100;
    for round in 0..8 {
        let child = Command::new("sh")
            .args([
                "-c",
                &format!("trap '' XFSZ; ulimit -f {limit}; exec \"$0\" \"$@\""),
            ])
            .arg(std::env::current_exe().unwrap())
            .args(["worker::child_process", "--exact", "--nocapture"])
            .env(DIRECTORY, directory.path())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&child.stdout);
        assert!(
            said.contains("\nFULL"),
            "round {round}, limit {limit}: {said}\n{}",
            String::from_utf8_lossy(&child.stderr)
        );
        assert!(
            !said.contains("BROKEN"),
            "round {round}, limit {limit}: {said}"
        );
        for line in said.lines() {
            acknowledged.hear(line);
        }
        acknowledged.check(directory.path()).await;
        // In 512 bytes.
        let size = std::fs::metadata(directory.path().join("store.db"))
            .unwrap()
            .len()
            / 512;
        limit = size + if round == 5 { 36_000 } else { dice.roll(3000) };
    }
    assert!(acknowledged.len() > 100);
}

#[test]
fn the_check_for_room_leaves_nothing_behind() {
    let directory = tempfile::tempdir().unwrap();
    lockgate_store::check_room(directory.path()).unwrap();
    assert_eq!(directory.path().read_dir().unwrap().count(), 0);
}

#[tokio::test]
async fn a_full_store_closes_says_so_and_goes_on_when_there_is_room() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(Options {
        size_max: Some(1 << 20),
        ..options(directory.path())
    })
    .unwrap();
    register(&store, "siem", &[AUDIT]).await;
    let mut failed = store.failed();
    let mut next = 1;
    let error = loop {
        let keys: Vec<String> = (next..next + 100).map(|nth| format!("k{nth}")).collect();
        let mut dice = Dice(next);
        let filler: String = (0..500)
            .map(|_| (b'a' + dice.roll(26) as u8) as char)
            .collect();
        let parts = events(&keys, |key| {
            format!(r#"{{"uid":"{key}","filler":"{filler}{}"}}"#, key.repeat(20))
        });
        match store
            .append(append_of(parts, &[("c", &next.to_string())]))
            .await
        {
            Ok(_) => next += 100,
            Err(error) => break error,
        }
    };
    assert!(error.is_full(), "{error}");
    assert!(next > 1000, "{next}");
    assert_eq!(
        failed.wait_for(Option::is_some).await.unwrap().clone(),
        Some(error.clone())
    );
    // Never tried again by itself, whatever it is.
    assert_eq!(store.commit(commit_of_nothing()).await.unwrap_err(), error);
    assert_eq!(
        store
            .append(append_of(numbered(1..2), &[]))
            .await
            .unwrap_err(),
        error
    );
    assert_eq!(store.reads().books("siem").unwrap_err(), error);

    // At once, while the failed one is still held by somebody.
    let reopened = open(directory.path());
    assert_eq!(*reopened.head(AUDIT).borrow(), next);
    assert_eq!(
        reopened.reads().cursors("teleport").unwrap()["c"],
        format!("{}", next - 100)
    );
    append(&reopened, 5).await;
    deliver(&reopened, "siem", 1..next).await.unwrap();
    assert_eq!(reopened.reads().books("siem").unwrap()[0].1.waiting, 5);
}
