//! Retention.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use lockgate_model::{Append, BlockBuilder, BlockParts, Books, FeedKind, Head, Outcome};
use lockgate_store::{DeadLetters, Ledger, Options, Retention, Store};

use crate::common::*;

fn by_bytes(directory: &std::path::Path, bytes: u64) -> Options {
    Options {
        retention: Retention {
            age: None,
            bytes: Some(bytes),
        },
        ..options(directory)
    }
}

/// 50 events of about 500 bytes that do not compress.
fn bulky(first: u64) -> BlockParts {
    let keys: Vec<String> = (first..first + 50).map(|nth| format!("k{nth}")).collect();
    events(&keys, |key| {
        let mut dice = Dice(key[1..].parse().unwrap());
        let text: String = (0..500)
            .map(|_| (b'a' + dice.roll(26) as u8) as char)
            .collect();
        format!(r#"{{"uid":"{key}","text":"{text}"}}"#)
    })
}

#[tokio::test]
async fn finished_blocks_go_when_there_are_too_many_bytes() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(by_bytes(directory.path(), 100_000)).unwrap();
    register(&store, "siem", &[AUDIT]).await;
    for nth in 0..20 {
        let first = nth * 50 + 1;
        store.append(append_of(bulky(first), &[])).await.unwrap();
        let fate = |seq| {
            if seq % 10 == 0 {
                Outcome::Dead(0)
            } else {
                Outcome::Delivered
            }
        };
        store
            .commit(commit_of(&store, "siem", first..first + 50, fate))
            .await
            .unwrap();
    }
    let stream = store.reads().streams().unwrap().remove(0);
    assert!(
        stream.bytes <= 100_000 && stream.oldest > 500 && stream.next == 1001,
        "{stream:?}"
    );
    assert_eq!(store.block_at(AUDIT, 1).unwrap(), None);
    assert_eq!(store.block_at(AUDIT, stream.oldest - 1).unwrap(), None);
    assert_eq!(
        store
            .block_at(AUDIT, stream.oldest)
            .unwrap()
            .unwrap()
            .first_seq,
        stream.oldest
    );
    // They cover three days, and events of each are gone.
    let complete = |from, to| {
        let known = store.reads().known_events(AUDIT, from, to, 9).unwrap();
        known.is_complete
    };
    assert!(!complete(DAY, DAY + 1) && !complete(DAY - 9, DAY) && complete(DAY - 9, DAY - 1));
    let hours = (DAY, DAY + 49 * 3_600_000);
    assert_eq!(store.reads().recent_times(AUDIT, 2).unwrap(), [hours; 2]);
    // Removed events still count, its letters are kept, and the chain still holds.
    let all = Books {
        read: 1000,
        delivered: 900,
        dropped: 0,
        dead: 100,
        waiting: 0,
    };
    assert_eq!(store.reads().books("siem").unwrap()[0].1, all);
    assert_eq!(
        letters_of(store.reads(), "siem", 1000)
            .unwrap()
            .last()
            .unwrap()
            .letter
            .seq,
        10
    );
    assert_eq!(store.reads().verify_chain("siem").unwrap()[0].commits, 20);
    let days = store.reads().days("siem").unwrap();
    assert!(
        days.iter().all(|(_, books)| books.balance())
            && days.iter().map(|(_, books)| books.read).sum::<u64>() == 1000,
        "{days:?}"
    );

    // A pipeline that comes now begins at what is kept, on every day as well.
    let late = register(&store, "late", &[AUDIT]).await;
    assert_eq!(late.streams[0].watermark, stream.oldest);
    deliver(&store, "late", stream.oldest..stream.oldest + 60)
        .await
        .unwrap();
    let books = store.reads().books("late").unwrap()[0].1;
    assert_eq!(
        (books.read, books.delivered, books.balance()),
        (1001 - stream.oldest, 60, true)
    );
    let days = store.reads().days("late").unwrap();
    let mut sum = Books::default();
    days.iter().for_each(|(_, books)| sum += *books);
    assert!(
        sum == books && days.iter().all(|(_, books)| books.balance()),
        "{days:?}"
    );

    // Sequences go on after everything is gone.
    store.close().await.unwrap();
    let store = Store::open(by_bytes(directory.path(), 1)).unwrap();
    store.keep_only(&reading(&[])).await.unwrap();
    let stream = store.reads().streams().unwrap().remove(0);
    assert_eq!((stream.oldest, stream.next, stream.bytes), (1001, 1001, 0));
    assert_eq!(
        store
            .append(append_of(bulky(1001), &[]))
            .await
            .unwrap()
            .unwrap()
            .first_seq,
        1001
    );
}

#[tokio::test]
async fn at_the_limit_the_reader_of_that_stream_waits_and_no_other() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(by_bytes(directory.path(), 60_000)).unwrap();
    register(&store, "stuck", &[AUDIT]).await;
    let mut full = store.retention_full(AUDIT);
    let (mut appended, mut first) = (Vec::new(), 1);
    let waiting = loop {
        let mut task = tokio::spawn({
            let (store, append) = (
                store.clone(),
                append_of(bulky(first), &[("c", &format!("{first}"))]),
            );
            async move { store.append(append).await }
        });
        tokio::select! {
            done = &mut task => appended.push(done.unwrap().unwrap().unwrap().first_seq),
            _ = full.wait_for(|full| *full) => break task,
        }
        first += 50;
    };
    assert!(appended.len() > 1);
    // Behind it in the same stream: its order is kept, though it is small.
    let behind = tokio::spawn({
        let (store, append) = (
            store.clone(),
            append_of(Default::default(), &[("c", "last")]),
        );
        async move { store.append(append).await }
    });
    let sessions = Append {
        feed: FeedKind::Sessions,
        ..append_of(bulky(1), &[])
    };
    assert_eq!(store.append(sessions).await.unwrap().unwrap().first_seq, 1);
    register(&store, "other", &[AUDIT]).await;
    assert!(!waiting.is_finished() && !behind.is_finished());
    assert_eq!(
        store.reads().cursors("teleport").unwrap()["c"],
        format!("{}", first - 50)
    );

    // One of two pipelines done is not enough; both make room.
    deliver(&store, "other", 1..101).await.unwrap();
    assert!(*store.retention_full(AUDIT).borrow() && !waiting.is_finished());
    deliver(&store, "stuck", 1..101).await.unwrap();
    assert_eq!(waiting.await.unwrap().unwrap().unwrap().first_seq, first);
    behind.await.unwrap().unwrap();
    assert_eq!(store.reads().cursors("teleport").unwrap()["c"], "last");
    full.wait_for(|full| !*full).await.unwrap();
}

/// As a reload does with a changed `retain`.
#[tokio::test]
async fn a_raised_limit_lets_in_what_waits() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(by_bytes(directory.path(), 100_000)).unwrap();
    register(&store, "siem", &[AUDIT]).await;
    let waiting = {
        let store = store.clone();
        tokio::spawn(async move {
            for nth in 0..20 {
                let events = bulky(nth * 50 + 1);
                store.append(append_of(events, &[])).await.unwrap();
            }
        })
    };
    let mut full = store.retention_full(AUDIT);
    full.wait_for(|&full| full).await.unwrap();
    let larger = Retention {
        age: None,
        bytes: Some(10_000_000),
    };
    store
        .retain([(AUDIT.to_owned(), larger)].into())
        .await
        .unwrap();
    waiting.await.unwrap();
    assert_eq!(store.reads().streams().unwrap().remove(0).next, 1001);
    assert!(!*full.borrow_and_update());
}

#[tokio::test]
async fn a_store_closes_while_a_reader_waits_for_room() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(by_bytes(directory.path(), 10)).unwrap();
    register(&store, "stuck", &[AUDIT]).await;
    store.append(append_of(bulky(1), &[])).await.unwrap();
    let waiting = tokio::spawn({
        let store = store.clone();
        async move { store.append(append_of(bulky(51), &[])).await }
    });
    store
        .retention_full(AUDIT)
        .wait_for(|full| *full)
        .await
        .unwrap();
    store.close().await.unwrap();
    assert!(matches!(
        waiting.await.unwrap(),
        Err(lockgate_store::LedgerError::Closed { full: false, .. })
    ));
    assert_eq!(
        *Store::open(by_bytes(directory.path(), 10))
            .unwrap()
            .head(AUDIT)
            .borrow(),
        51
    );
}

#[tokio::test]
async fn old_blocks_go_once_they_are_finished_and_never_before() {
    let directory = tempfile::tempdir().unwrap();
    let (store, now) = open_with_an_hour_of_retention(directory.path());
    register(&store, "siem", &[AUDIT]).await;
    append(&store, 10).await;
    let later = Append {
        read_at: DAY + 3_000_000,
        ..append_of(numbered(11..21), &[])
    };
    store.append(later).await.unwrap();
    now.store(DAY + 3_700_000, Ordering::SeqCst);
    let oldest = async || {
        store
            .append(append_of(Default::default(), &[("c", "x")]))
            .await
            .unwrap();
        store.reads().streams().unwrap()[0].oldest
    };
    assert_eq!(oldest().await, 1, "unfinished");
    deliver(&store, "siem", 1..10).await.unwrap();
    assert_eq!(oldest().await, 1, "still one unfinished");
    deliver(&store, "siem", 10..13).await.unwrap();
    assert_eq!(oldest().await, 11);
    assert!(
        store.block_at(AUDIT, 10).unwrap().is_none(),
        "not from the cache either"
    );
    now.store(DAY + 9_000_000, Ordering::SeqCst);
    assert_eq!(oldest().await, 11);
    assert_eq!(store.reads().removed_unfinished("siem"), Ok(0));

    // A pipeline that is configured no longer is not waited for; its books balance.
    store.keep_only(&reading(&[])).await.unwrap();
    assert_eq!(oldest().await, 21);
    assert_eq!(
        store.reads().books("siem").unwrap()[0].1,
        Books {
            read: 20,
            delivered: 12,
            dropped: 8,
            dead: 0,
            waiting: 0
        }
    );
    assert_eq!(store.reads().removed_unfinished("siem"), Ok(8));
    assert!(
        store
            .reads()
            .days("siem")
            .unwrap()
            .iter()
            .all(|(_, books)| books.balance())
    );
    assert!(store.reads().verify_chain("siem").is_ok());
    let back = register(&store, "siem", &[AUDIT]).await;
    assert_eq!((back.epoch, back.streams[0].watermark), (1, 21));
}

/// A host that was away for long must not remove anything before it knows what is configured.
#[tokio::test]
async fn nothing_is_removed_before_the_pipelines_are_known() {
    let directory = tempfile::tempdir().unwrap();
    let (store, now) = open_with_an_hour_of_retention(directory.path());
    register(&store, "siem", &[AUDIT]).await;
    append(&store, 10).await;
    append(&store, 10).await;
    deliver(&store, "siem", 1..21).await.unwrap();
    store.close().await.unwrap();
    now.store(DAY + 9_000_000, Ordering::SeqCst);
    let reopen = || {
        let now = now.clone();
        Store::open(Options {
            retention: Retention {
                age: Some(std::time::Duration::from_secs(3600)),
                bytes: None,
            },
            clock: std::sync::Arc::new(move || now.load(Ordering::SeqCst)),
            elapsed: hours_at_each_call(),
            ..options(directory.path())
        })
        .unwrap()
    };
    let store = reopen();
    store.keep_only(&reading(&["siem", "new"])).await.unwrap();
    let nudge = async |store: &Store| {
        let nothing = append_of(Default::default(), &[("c", "x")]);
        store.append(nothing).await.unwrap();
        store.reads().streams().unwrap()[0].oldest
    };
    assert_eq!(nudge(&store).await, 1, "`new` has never started");
    let new = register(&store, "new", &[AUDIT]).await;
    assert_eq!(new.streams[0].watermark, 1);
    deliver(&store, "new", 1..11).await.unwrap();
    assert_eq!(nudge(&store).await, 11);

    // Taken out of the configuration and put back, it holds again before it has started.
    store.close().await.unwrap();
    now.store(DAY, Ordering::SeqCst);
    let store = reopen();
    store.keep_only(&reading(&["siem"])).await.unwrap();
    store.close().await.unwrap();
    now.store(DAY + 9_000_000, Ordering::SeqCst);
    let store = reopen();
    store.keep_only(&reading(&["siem", "new"])).await.unwrap();
    assert_eq!(nudge(&store).await, 11);
    assert_eq!(store.reads().removed_unfinished("new"), Ok(0));
}

#[tokio::test]
async fn a_reader_that_pins_the_log_is_noticed() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(Options {
        log_limit: 18 << 20,
        ..options(directory.path())
    })
    .unwrap();
    store.append(append_of(bulky(1), &[])).await.unwrap();
    let reader = rusqlite::Connection::open(directory.path().join("store.db")).unwrap();
    reader
        .execute_batch("BEGIN; SELECT count(*) FROM blocks")
        .unwrap();
    let mut first = 51;
    let mut fill = async |until: fn(&Store) -> bool| {
        // Each append is a transaction of two pages at least.
        for _ in 0..4000 {
            if until(&store) {
                return true;
            }
            store.append(append_of(bulky(first), &[])).await.unwrap();
            first += 50;
        }
        false
    };
    assert!(fill(|store| store.pinned_log().is_some()).await, "noticed");
    let pinned = store.pinned_log().unwrap();
    assert!(pinned.bytes >= 18 << 20, "{pinned:?}");
    reader.execute_batch("COMMIT").unwrap();
    assert!(fill(|store| store.pinned_log().is_none()).await, "over");
}

/// `lockgate status` said that the store was damaged, or could not be read, if the host folded its
/// log just then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_can_be_looked_at_while_its_log_is_folded() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(options(directory.path())).unwrap();
    store.append(append_of(bulky(1), &[])).await.unwrap();
    let writer = store.clone();
    let appending = tokio::spawn(async move {
        let mut first = 51;
        while writer.append(append_of(bulky(first), &[])).await.is_ok() {
            first += 50;
        }
    });
    let path = directory.path().to_owned();
    let looking = tokio::task::spawn_blocking(move || {
        // The log grows while this one reads, and is folded and cut back after it.
        let reader = rusqlite::Connection::open(path.join("store.db")).unwrap();
        for nth in 0..600 {
            match nth % 60 {
                0 => reader.execute_batch("BEGIN; SELECT count(*) FROM blocks"),
                30 => reader.execute_batch("COMMIT"),
                _ => Ok(()),
            }
            .unwrap();
            let opened = lockgate_store::Inspector::open(&path);
            assert!(opened.is_ok(), "at look {nth}: {:?}", opened.err());
        }
    });
    looking.await.unwrap();
    store.close().await.unwrap();
    appending.await.unwrap();
}

/// Ten blocks of one event, a day apart, the first at `DAY`. All are delivered.
async fn a_block_a_day(store: &Store, days: std::ops::Range<i64>) {
    for day in days {
        let time = DAY + day * 86_400_000;
        let mut builder = BlockBuilder::new();
        let head = Head {
            key: &format!("day {day}"),
            event_type: "user.login",
            code: "T1000I",
            time,
            index: 0,
            session: "",
        };
        builder.push(head, "{}");
        let block = Append {
            read_at: time,
            ..append_of(builder.take(), &[])
        };
        let block = store.append(block).await.unwrap().unwrap();
        let mut commit = commit_of(store, "siem", block.first_seq..block.first_seq + 1, |seq| {
            if seq % 2 == 0 {
                Outcome::Dead(0)
            } else {
                Outcome::Delivered
            }
        });
        commit.batch.at = time;
        store.commit(commit).await.unwrap();
    }
}

/// Neither of a host that starts with a wrong clock, nor of one whose clock is set while it runs.
#[tokio::test]
async fn a_clock_that_is_far_ahead_removes_neither_events_nor_dead_letters() {
    const A_DAY: i64 = 86_400_000;
    let directory = tempfile::tempdir().unwrap();
    let now = Arc::new(AtomicI64::new(DAY + 10 * A_DAY));
    let elapsed = Arc::new(AtomicU64::new(0));
    let reopen = || {
        let (now, elapsed) = (now.clone(), elapsed.clone());
        Store::open(Options {
            retention: Retention {
                age: Some(Duration::from_secs(30 * 86_400)),
                bytes: None,
            },
            clock: Arc::new(move || now.load(Ordering::SeqCst)),
            elapsed: Arc::new(move || Duration::from_secs(elapsed.load(Ordering::SeqCst))),
            ..options(directory.path())
        })
        .unwrap()
    };
    let expired = async |store: &Store| {
        let at = now.load(Ordering::SeqCst);
        let nothing = append_of(Default::default(), &[("c", "x")]);
        store.append(nothing).await.unwrap();
        let expired = store.expire_letters("siem", at - 30 * A_DAY, at).await;
        (expired.unwrap(), store.reads().streams().unwrap()[0].oldest)
    };
    let store = reopen();
    register(&store, "siem", &[AUDIT]).await;
    a_block_a_day(&store, 0..10).await;
    now.store(DAY + 110 * A_DAY, Ordering::SeqCst);
    assert_eq!(
        expired(&store).await,
        (0, 1),
        "it jumps while the host runs"
    );
    store.close().await.unwrap();
    let store = reopen();
    register(&store, "siem", &[AUDIT]).await;
    assert_eq!(expired(&store).await, (0, 1), "it is ahead at the start");
    // One event with such a time is an agent with a bad clock.
    a_block_a_day(&store, 100..101).await;
    assert_eq!(expired(&store).await, (0, 1), "one event agrees with it");

    // 30 days pass, in which the host runs and nothing happens.
    elapsed.fetch_add(30 * 86_400, Ordering::SeqCst);
    assert_eq!(expired(&store).await, (2, 6), "the first five days");
    // And newer events show that the clock is right.
    a_block_a_day(&store, 101..110).await;
    let (letters, oldest) = expired(&store).await;
    assert_eq!((letters > 0, oldest), (true, 11));
    let books = store.reads().books("siem").unwrap()[0].1;
    assert!(books.balance() && books.dead == 10, "{books:?}");
    assert!(store.reads().verify_chain("siem").is_ok());
}
