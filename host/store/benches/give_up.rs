//! Giving up the events of a pipeline that has reached its lag limit:
//! `cargo bench -p lockgate-store --bench give_up`. Four times as many blocks take about four
//! times as long.

use std::collections::BTreeMap;
use std::sync::Arc;

use divan::Bencher;
use divan::counter::ItemsCount;
use lockgate_model::{Append, BlockBuilder, CursorUpdate, FeedKind, Generation, Head};
use lockgate_store::{LagLimit, Ledger, Options, Retention, Store};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

const STREAM: &str = "teleport/audit";

fn main() {
    divan::main();
}

#[divan::bench(args = [10_000, 40_000], sample_count = 3, sample_size = 1)]
fn give_up_blocks(bencher: Bencher, blocks: u64) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    bencher
        .counter(ItemsCount::new(blocks))
        .with_inputs(|| runtime.block_on(asked_for_room(blocks)))
        .bench_local_values(|(directory, store)| {
            give_up(&runtime, &store, blocks);
            (directory, store)
        });
}

/// A store with this many blocks of an event each, and a pipeline that has finished none of them
/// and has been asked for all.
async fn asked_for_room(blocks: u64) -> (tempfile::TempDir, Store) {
    let directory = tempfile::tempdir().expect("a directory");
    let store = Store::open(Options {
        retention: Retention::default(),
        ..Options::new(directory.path())
    })
    .expect("a store");
    let slow = "slow".to_owned();
    let limit = LagLimit {
        age: None,
        bytes: Some(0),
    };
    let limits = BTreeMap::from([(slow.clone(), limit)]);
    let reads = BTreeMap::from([(slow, vec![STREAM.to_owned()])]);
    store.limit_lag(limits).await.expect("an open store");
    store.keep_only(&reads).await.expect("an open store");
    register(&store).await;
    let mut appending = JoinSet::new();
    for number in 0..blocks {
        let store = store.clone();
        appending.spawn(async move { store.append(append(number)).await });
        if appending.len() == 500 || number + 1 == blocks {
            while let Some(appended) = appending.join_next().await {
                appended.expect("no panic").expect("room");
            }
        }
    }
    let mut wanted = store.room_wanted("slow");
    wanted.mark_unchanged();
    let retention = Retention {
        age: None,
        bytes: Some(0),
    };
    let streams = BTreeMap::from([(STREAM.to_owned(), retention)]);
    store.retain(streams).await.expect("an open store");
    wanted.changed().await.expect("an open store");
    (directory, store)
}

fn give_up(runtime: &Runtime, store: &Store, blocks: u64) {
    runtime.block_on(store.give_up("slow")).expect("given up");
    let given_up = store.reads().given_up("slow").expect("a sound store");
    assert_eq!(given_up, blocks);
}

async fn register(store: &Store) {
    let generation = Generation {
        pipeline: Arc::from("slow"),
        description: "{}".to_owned(),
    };
    store
        .register(generation, &[STREAM.to_owned()], 0)
        .await
        .expect("names that can be read");
}

fn append(number: u64) -> Append {
    let mut builder = BlockBuilder::new();
    let head = Head {
        key: &format!("k{number}"),
        event_type: "session.start",
        code: "T2000I",
        time: 1_767_600_000_000 + number as i64,
        index: 0,
        session: "",
    };
    builder.push(head, "{}");
    Append {
        source: "teleport".into(),
        feed: FeedKind::Audit,
        read_at: 0,
        events: builder.take(),
        cursors: vec![CursorUpdate {
            key: "start".to_owned(),
            value: Some("1".to_owned()),
        }],
        gaps: Vec::new(),
        duplicates: 0,
    }
}
