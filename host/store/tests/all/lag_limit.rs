//! What a pipeline that has reached its lag limit loses, and where that is counted.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use lockgate_model::{Books, Fate};
use lockgate_store::{EntryState, LagLimit, Ledger, LedgerError, Options, Retention, Store};

use crate::common::*;

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
    let limit = LagLimit {
        streams: vec![AUDIT.to_owned()],
        age,
        bytes,
    };
    BTreeMap::from([(pipeline.to_owned(), limit)])
}

/// Appends blocks of 50 events, some 17 kB each once they are compressed.
async fn fill(store: &Store, blocks: u64) {
    for nth in 0..blocks {
        let keys: Vec<String> = (nth * 50..nth * 50 + 50).map(|n| format!("k{n}")).collect();
        let parts = events(&keys, |key| {
            let mut dice = Dice(key[1..].parse::<u64>().unwrap() + 1);
            let letters = (0..500).map(|_| (b'a' + dice.roll(26) as u8) as char);
            format!(r#"{{"text":"{}"}}"#, letters.collect::<String>())
        });
        store.append(append_of(parts, &[])).await.unwrap();
    }
}

async fn is_audited(store: &Store, pipeline: &str) {
    let days = store.days(pipeline).unwrap();
    assert!(days.iter().all(|(_, books)| books.balance()), "{days:?}");
    let chains = store.verify_chain(pipeline).unwrap();
    assert!(chains.iter().all(|chain| chain.commits > 0), "{chains:?}");
}

#[tokio::test]
async fn a_running_pipeline_past_its_limit_loses_the_oldest_on_the_books() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(small(directory.path())).unwrap();
    store
        .limit_lag(limited("slow", Some(40_000), None))
        .await
        .unwrap();
    store.keep_only(&["slow".to_owned()]).await.unwrap();
    register(&store, "slow", &[AUDIT]).await;
    let mut overtaken = store.overtaken("slow");
    overtaken.mark_unchanged();
    fill(&store, 20).await;
    let stream = store.streams().unwrap().remove(0);
    assert!(stream.bytes <= 60_000 && stream.oldest > 500, "{stream:?}");
    let given_up = stream.oldest - 1;
    let expected = Books {
        read: 1000,
        dropped: given_up,
        waiting: 1000 - given_up,
        ..Books::default()
    };
    assert_eq!(store.books("slow").unwrap()[0].1, expected);
    let reads = store.reads();
    assert_eq!(reads.given_up("slow").unwrap(), given_up);
    assert_eq!(reads.removed_unfinished("slow").unwrap(), 0);
    assert!(overtaken.has_changed().unwrap());
    assert_eq!(*overtaken.borrow(), given_up);
    is_audited(&store, "slow").await;
    let history = reads.history(AUDIT, 1).unwrap();
    assert_eq!(
        history[0].state,
        EntryState::Final(Fate::Dropped("lag-limit".to_owned()))
    );
    // What it had in flight of them is refused, and it goes on with what is left.
    let late = deliver(&store, "slow", 1..51).await;
    assert!(matches!(late, Err(LedgerError::Conflict(_))), "{late:?}");
    let again = register(&store, "slow", &[AUDIT]).await;
    assert_eq!(again.streams[0].watermark, stream.oldest);
    deliver(&store, "slow", stream.oldest..1001).await.unwrap();
    assert_eq!(store.books("slow").unwrap()[0].1.waiting, 0);

    // All of it stands after a restart.
    store.close().await.unwrap();
    let store = Store::open(small(directory.path())).unwrap();
    assert_eq!(store.reads().given_up("slow").unwrap(), given_up);
    is_audited(&store, "slow").await;
}

#[tokio::test]
async fn a_pipeline_that_never_started_loses_the_oldest_on_books_of_its_own() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(small(directory.path())).unwrap();
    store
        .limit_lag(limited("never", Some(40_000), None))
        .await
        .unwrap();
    store.keep_only(&["never".to_owned()]).await.unwrap();
    fill(&store, 20).await;
    let oldest = store.streams().unwrap()[0].oldest;
    assert!(oldest > 500, "{oldest}");
    assert_eq!(store.reads().given_up("never").unwrap(), oldest - 1);
    let books = store.books("never").unwrap()[0].1;
    assert_eq!((books.read, books.dropped), (1000, oldest - 1), "{books:?}");
    is_audited(&store, "never").await;
    let first = register(&store, "never", &[AUDIT]).await;
    assert_eq!(first.streams[0].watermark, oldest);
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
        store.keep_only(&["slow".to_owned()]).await.unwrap();
        register(&store, "slow", &[AUDIT]).await;
        let filled = tokio::spawn({
            let store = store.clone();
            async move { fill(&store, 20).await }
        });
        let mut full = store.retention_full(AUDIT);
        full.wait_for(|full| *full).await.unwrap();
        assert_eq!(store.reads().given_up("slow").unwrap(), 0);
        assert_eq!(store.streams().unwrap()[0].oldest, 1);
        filled.abort();
    }
}
