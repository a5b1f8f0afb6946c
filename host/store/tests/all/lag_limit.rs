//! Events that a pipeline loses when it has reached its lag limit, and their counts.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use lockgate_model::{Append, Books, Fate};
use lockgate_store::{
    AuditQuery, EntryState, LagLimit, Ledger, LedgerError, Options, Retention, Store,
};

use crate::common::*;

/// Of another source.
const OTHER: &str = "other/audit";

fn small(directory: &Path) -> Options {
    Options {
        retention: Retention {
            age: None,
            bytes: Some(60_000),
        },
        ..options(directory)
    }
}

fn limited(
    pipeline: &str,
    bytes: Option<u64>,
    age: Option<Duration>,
) -> BTreeMap<String, LagLimit> {
    let limit = LagLimit { age, bytes };
    BTreeMap::from([(pipeline.to_owned(), limit)])
}

/// Appends blocks of 50 events, some 17 kB each once they are compressed.
async fn fill(store: &Store, blocks: u64) {
    fill_stream(store, AUDIT, blocks).await;
}

async fn fill_stream(store: &Store, stream: &str, blocks: u64) {
    for nth in 0..blocks {
        append_random(store, stream, nth * 50..nth * 50 + 50).await;
    }
}

/// A block of events whose payloads cannot be compressed much.
async fn append_random(store: &Store, stream: &str, numbers: std::ops::Range<u64>) {
    let (source, _) = stream.split_once('/').unwrap();
    let keys: Vec<String> = numbers.map(|n| format!("k{n}")).collect();
    let parts = events(&keys, |key| {
        let mut dice = Dice(key[1..].parse::<u64>().unwrap() + 1);
        let letters = (0..500).map(|_| (b'a' + dice.roll(26) as u8) as char);
        format!(r#"{{"text":"{}"}}"#, letters.collect::<String>())
    });
    let append = Append {
        source: source.into(),
        ..append_of(parts, &[])
    };
    store.append(append).await.unwrap();
}

async fn is_audited(store: &Store, pipeline: &str) {
    let days = store.reads().days(pipeline).unwrap();
    assert!(days.iter().all(|(_, books)| books.balance()), "{days:?}");
    let chains = store.reads().verify_chain(pipeline).unwrap();
    assert!(chains.iter().all(|chain| chain.commits > 0), "{chains:?}");
}

#[tokio::test]
async fn a_running_pipeline_past_its_limit_finishes_what_is_in_flight_and_loses_the_oldest() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(small(directory.path())).unwrap();
    store
        .limit_lag(limited("slow", Some(20_000), None))
        .await
        .unwrap();
    store.keep_only(&reading(&["slow"])).await.unwrap();
    register(&store, "slow", &[AUDIT]).await;
    let mut room_wanted = store.room_wanted("slow");
    room_wanted.mark_unchanged();
    let full = store.retention_full(AUDIT);
    let filling = store.clone();
    let mut filled = tokio::spawn(async move { fill(&filling, 20).await });
    room_wanted.changed().await.unwrap();
    // Nothing is given up before it agrees, and what it has in flight is accepted.
    assert_eq!(store.reads().given_up("slow").unwrap(), 0);
    deliver(&store, "slow", 1..51).await.unwrap();
    assert!(store.give_up("slow").await.unwrap());
    let mut first = register(&store, "slow", &[AUDIT]).await.streams[0].watermark;
    assert!(first > 51, "{first}");
    let mut asked = 1;
    loop {
        tokio::select! {
            () = async { (&mut filled).await.unwrap() } => break,
            changed = room_wanted.changed() => changed.unwrap(),
        }
        asked += 1;
        store.give_up("slow").await.unwrap();
        let again = register(&store, "slow", &[AUDIT]).await;
        assert!(again.streams[0].watermark > first, "{again:?}");
        first = again.streams[0].watermark;
    }
    // Each time it goes back a little below its limit: not once for each block.
    assert!(asked <= 12, "{asked}");
    // The log said each time that reading waits until the pipeline is repaired.
    assert!(!full.has_changed().unwrap());
    let given_up = store.reads().given_up("slow").unwrap();
    let expected = Books {
        read: 1000,
        delivered: 50,
        dropped: given_up,
        waiting: 950 - given_up,
        ..Books::default()
    };
    assert_eq!(store.reads().books("slow").unwrap()[0].1, expected);
    assert_eq!(store.reads().removed_unfinished("slow").unwrap(), 0);
    is_audited(&store, "slow").await;
    let history = store.reads().history(AUDIT, 60).unwrap();
    assert_eq!(
        history[0].state,
        EntryState::Final(Fate::Dropped("lag-limit".to_owned()))
    );
    deliver(&store, "slow", first..1001).await.unwrap();
    assert_eq!(store.reads().books("slow").unwrap()[0].1.waiting, 0);

    // All of it stands after a restart.
    store.close().await.unwrap();
    let store = Store::open(small(directory.path())).unwrap();
    assert_eq!(store.reads().given_up("slow").unwrap(), given_up);
    is_audited(&store, "slow").await;
}

/// Its host hangs, for example.
#[tokio::test]
async fn nothing_waits_for_ever_for_a_running_pipeline_that_does_not_answer() {
    let directory = tempfile::tempdir().unwrap();
    let seconds = Arc::new(AtomicU64::new(0));
    let elapsed = seconds.clone();
    let options = Options {
        elapsed: Arc::new(move || Duration::from_secs(elapsed.load(Ordering::Relaxed))),
        ..small(directory.path())
    };
    let store = Store::open(options).unwrap();
    store
        .limit_lag(limited("slow", Some(40_000), None))
        .await
        .unwrap();
    store.keep_only(&reading(&["slow"])).await.unwrap();
    register(&store, "slow", &[AUDIT]).await;
    let mut room_wanted = store.room_wanted("slow");
    room_wanted.mark_unchanged();
    let filling = store.clone();
    let filled = tokio::spawn(async move { fill(&filling, 20).await });
    room_wanted.changed().await.unwrap();
    seconds.store(60, Ordering::Relaxed);
    filled.await.unwrap();
    let oldest = store.reads().streams().unwrap()[0].oldest;
    assert_eq!(store.reads().given_up("slow").unwrap(), oldest - 1);
    let late = deliver(&store, "slow", 1..51).await;
    assert!(matches!(late, Err(LedgerError::Conflict(_))), "{late:?}");
    is_audited(&store, "slow").await;
}

/// Recordings at their limit once made a pipeline give up most of its audit events, of which the
/// store could have kept forty times as many.
#[tokio::test]
async fn a_stream_that_needs_no_room_loses_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let options = Options {
        streams: BTreeMap::from([(OTHER.to_owned(), Retention::default())]),
        ..small(directory.path())
    };
    let store = Store::open(options).unwrap();
    let limit = LagLimit {
        age: None,
        bytes: Some(20_000),
    };
    store
        .limit_lag(BTreeMap::from([("slow".to_owned(), limit)]))
        .await
        .unwrap();
    let streams = vec![AUDIT.to_owned(), OTHER.to_owned()];
    let configured = BTreeMap::from([("slow".to_owned(), streams)]);
    store.keep_only(&configured).await.unwrap();
    register(&store, "slow", &[AUDIT, OTHER]).await;
    let mut room_wanted = store.room_wanted("slow");
    room_wanted.mark_unchanged();
    fill_stream(&store, OTHER, 10).await;
    let filling = store.clone();
    let filled = tokio::spawn(async move { fill(&filling, 10).await });
    room_wanted.changed().await.unwrap();
    store.give_up("slow").await.unwrap();
    let progress = register(&store, "slow", &[AUDIT, OTHER]).await.streams;
    assert!(progress[0].watermark > 51, "{progress:?}");
    assert_eq!(progress[1].watermark, 1, "{progress:?}");
    filled.abort();
}

/// One writer serves all pipelines: half a minute of theirs once passed while one gave events up.
#[tokio::test]
async fn others_commit_while_a_pipeline_gives_up_its_events() {
    let directory = tempfile::tempdir().unwrap();
    let retention = Retention {
        age: None,
        bytes: Some(400_000),
    };
    let options = Options {
        retention,
        ..options(directory.path())
    };
    let store = Store::open(options).unwrap();
    store
        .limit_lag(limited("slow", Some(20_000), None))
        .await
        .unwrap();
    store.keep_only(&reading(&["slow", "fast"])).await.unwrap();
    register(&store, "slow", &[AUDIT]).await;
    register(&store, "fast", &[AUDIT]).await;
    let mut room_wanted = store.room_wanted("slow");
    room_wanted.mark_unchanged();
    // Blocks of an event each.
    for number in 0.. {
        append_random(&store, AUDIT, number..number + 1).await;
        let seq = number + 1;
        deliver(&store, "fast", seq..seq + 1).await.unwrap();
        if store.reads().streams().unwrap()[0].bytes > 390_000 {
            break;
        }
    }
    let next = store.reads().streams().unwrap()[0].next;
    assert!(next > 500, "{next}");
    append_random(&store, AUDIT, next - 1..next).await;
    let filling = store.clone();
    let filled = tokio::spawn(async move { fill(&filling, 2).await });
    room_wanted.changed().await.unwrap();
    let giving_up = store.clone();
    let given_up = tokio::spawn(async move { giving_up.give_up("slow").await });
    tokio::task::yield_now().await;
    deliver(&store, "fast", next..next + 1).await.unwrap();
    let so_far = store.reads().given_up("slow").unwrap();
    assert!(so_far < next / 2, "{so_far} of {next}");
    given_up.await.unwrap().unwrap();
    let all = store.reads().given_up("slow").unwrap();
    assert!(all > next / 2, "{all} of {next}");
    filled.abort();
}

/// A reload, for example, in the moment in which it is asked.
#[tokio::test]
async fn a_pipeline_that_is_registered_again_is_asked_again() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(small(directory.path())).unwrap();
    store
        .limit_lag(limited("slow", Some(40_000), None))
        .await
        .unwrap();
    store.keep_only(&reading(&["slow"])).await.unwrap();
    register(&store, "slow", &[AUDIT]).await;
    let mut room_wanted = store.room_wanted("slow");
    room_wanted.mark_unchanged();
    let filling = store.clone();
    let filled = tokio::spawn(async move { fill(&filling, 20).await });
    room_wanted.changed().await.unwrap();
    // The pipeline that was asked has gone; the next one has not seen the request.
    let mut room_wanted = store.room_wanted("slow");
    room_wanted.mark_unchanged();
    register(&store, "slow", &[AUDIT]).await;
    let asked = tokio::time::timeout(Duration::from_secs(60), room_wanted.changed());
    asked.await.expect("it is asked again").unwrap();
    assert_eq!(store.reads().given_up("slow").unwrap(), 0);
    deliver(&store, "slow", 1..51).await.unwrap();
    filled.abort();
}

#[tokio::test]
async fn a_pipeline_that_never_started_loses_the_oldest_on_books_of_its_own() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(small(directory.path())).unwrap();
    store
        .limit_lag(limited("never", Some(40_000), None))
        .await
        .unwrap();
    store.keep_only(&reading(&["never"])).await.unwrap();
    fill(&store, 20).await;
    let oldest = store.reads().streams().unwrap()[0].oldest;
    assert!(oldest > 500, "{oldest}");
    assert_eq!(store.reads().given_up("never").unwrap(), oldest - 1);
    let books = store.reads().books("never").unwrap()[0].1;
    assert_eq!((books.read, books.dropped), (1000, oldest - 1), "{books:?}");
    is_audited(&store, "never").await;
    let first = register(&store, "never", &[AUDIT]).await;
    assert_eq!(first.streams[0].watermark, oldest);
}

/// It has run, and its next configuration, which cannot be started yet, names one more stream.
#[tokio::test]
async fn a_stream_that_a_pipeline_is_about_to_read_loses_the_oldest_on_its_books() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(small(directory.path())).unwrap();
    let before = register(&store, "slow", &[OTHER]).await;
    store.close().await.unwrap();
    let store = Store::open(small(directory.path())).unwrap();
    store
        .limit_lag(limited("slow", Some(40_000), None))
        .await
        .unwrap();
    let streams = vec![AUDIT.to_owned(), OTHER.to_owned()];
    let configured = BTreeMap::from([("slow".to_owned(), streams)]);
    store.keep_only(&configured).await.unwrap();
    fill(&store, 20).await;
    let streams = store.reads().streams().unwrap();
    let audit = streams.iter().find(|stream| stream.name == AUDIT);
    let oldest = audit.unwrap().oldest;
    assert!(oldest > 500, "{oldest}");
    assert_eq!(store.reads().given_up("slow").unwrap(), oldest - 1);
    let audit = store.reads().audit(&AuditQuery::default()).unwrap();
    assert!(audit.findings.is_empty(), "{:?}", audit.findings);
    let now = register(&store, "slow", &[AUDIT, OTHER]).await;
    assert_eq!(now.streams[0].watermark, oldest);
    assert_eq!(now.generation, before.generation, "it is as it was");
}

/// A store whose oldest block, of several days, is damaged below SQLite's notice. `slow` has
/// finished the events before `finished`.
async fn with_a_damaged_front(directory: &Path, finished: u64) -> Store {
    let store = Store::open(small(directory)).unwrap();
    store.keep_only(&reading(&["slow"])).await.unwrap();
    register(&store, "slow", &[AUDIT]).await;
    fill(&store, 2).await;
    if finished > 1 {
        deliver(&store, "slow", 1..finished).await.unwrap();
    }
    store.close().await.unwrap();
    let database = rusqlite::Connection::open(directory.join("store.db")).unwrap();
    let sql = "UPDATE blocks SET heads = zeroblob(length(heads)) WHERE first_seq = 1";
    assert_eq!(database.execute(sql, []).unwrap(), 1);
    drop(database);
    let store = Store::open(small(directory)).unwrap();
    let limits = limited("slow", Some(20_000), None);
    store.limit_lag(limits).await.unwrap();
    store.keep_only(&reading(&["slow"])).await.unwrap();
    register(&store, "slow", &[AUDIT]).await;
    store
}

/// It was asked again each time it had started again, and gave up nothing each time.
#[tokio::test]
async fn a_pipeline_is_not_asked_again_for_a_damaged_block_that_cannot_go() {
    let directory = tempfile::tempdir().unwrap();
    let store = with_a_damaged_front(directory.path(), 1).await;
    let mut room_wanted = store.room_wanted("slow");
    room_wanted.mark_unchanged();
    let filling = store.clone();
    let filled = tokio::spawn(async move { fill(&filling, 20).await });
    room_wanted.changed().await.unwrap();
    assert!(!store.give_up("slow").await.unwrap(), "nothing is given up");
    register(&store, "slow", &[AUDIT]).await;
    let mut full = store.retention_full(AUDIT);
    tokio::select! {
        full = full.wait_for(|full| *full) => assert!(*full.unwrap()),
        _ = room_wanted.changed() => panic!("it is asked again"),
    }
    assert_eq!(store.reads().given_up("slow").unwrap(), 0);
    assert_eq!(store.reads().streams().unwrap()[0].oldest, 1);
    filled.abort();
}

/// The condition of its source tells it by this from pipelines that have not finished.
#[tokio::test]
async fn a_full_stream_shows_that_its_oldest_block_is_damaged() {
    let directory = tempfile::tempdir().unwrap();
    let store = with_a_damaged_front(directory.path(), 101).await;
    let filling = store.clone();
    let filled = tokio::spawn(async move { fill(&filling, 20).await });
    let mut full = store.retention_full(AUDIT);
    full.wait_for(|full| *full).await.unwrap();
    let oldest = store.reads().heads_at(AUDIT, 1);
    assert!(matches!(oldest, Err(LedgerError::Damaged(_))));
    filled.abort();
}

#[tokio::test]
async fn below_its_limit_and_without_one_a_pipeline_holds_retention_back() {
    let directory = tempfile::tempdir().unwrap();
    // The blocks are read in 1970.
    let long = Duration::from_secs(1000 * 365 * 86_400);
    for limits in [BTreeMap::new(), limited("slow", None, Some(long))] {
        let directory = directory.path().join(limits.len().to_string());
        let store = Store::open(small(&directory)).unwrap();
        store.limit_lag(limits).await.unwrap();
        store.keep_only(&reading(&["slow"])).await.unwrap();
        register(&store, "slow", &[AUDIT]).await;
        let filled = tokio::spawn({
            let store = store.clone();
            async move { fill(&store, 20).await }
        });
        let mut full = store.retention_full(AUDIT);
        full.wait_for(|full| *full).await.unwrap();
        assert_eq!(store.reads().given_up("slow").unwrap(), 0);
        assert_eq!(store.reads().streams().unwrap()[0].oldest, 1);
        filled.abort();
    }
}
