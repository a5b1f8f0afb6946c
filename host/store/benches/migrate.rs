//! How long the first start after an update takes on a store of format 3:
//! `LOCKGATE_EVENTS=10000000 LOCKGATE_COMMITS=20000 cargo bench -p lockgate-store --bench migrate`.
//! Without the variables it makes a hundred thousand events with a commit for each. Every commit is
//! read once, which takes some nine seconds for a million on two busy cores; the events are not.

#![allow(
    clippy::disallowed_methods,
    reason = "a measurement reads the clock and its settings"
)]

use std::path::Path;
use std::time::Instant;

use lockgate_model::{
    Append, BatchRecord, BlockBuilder, Commit, CursorUpdate, Day, DayTally, Entries, FeedKind,
    Generation, Head, Outcome, OutcomeRun, Outcomes, RequestRecord, SeqRange,
};
use lockgate_store::{AuditQuery, Ledger, Options, Retention, Store};
use rusqlite::Connection;
use tokio::task::JoinSet;

const STREAM: &str = "teleport/audit";
/// Events in a block.
const BLOCK: u64 = 512;
/// Steps that wait for one transaction together.
const TOGETHER: u64 = 256;
/// 2026-01-05. An event a second from then on.
const START: i64 = 1_767_571_200_000;

fn main() {
    let number = |name: &str| {
        let value = std::env::var(name);
        value.map_or(100_000, |text| text.parse().expect("a number"))
    };
    let (events, commits) = (number("LOCKGATE_EVENTS"), number("LOCKGATE_COMMITS"));
    let directory = tempfile::tempdir().expect("a directory");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    runtime.block_on(fill(directory.path(), events, commits));
    let file = directory.path().join("store.db");
    let size = |path: &Path| path.metadata().expect("a file").len() as f64 / 1e6;
    let open = || {
        let began = Instant::now();
        let store = Store::open(options(directory.path())).expect("a store");
        (store, began.elapsed().as_secs_f64())
    };
    let (store, before) = open();
    runtime.block_on(store.close()).expect("it closes");
    to_format_3(&file);
    println!("events                 {events}");
    println!("commits                {commits}");
    println!("store                  {:.0} MB", size(&file));
    println!("opened as it is        {before:.2} s");
    let (store, migrated) = open();
    println!("opened from format 3   {migrated:.2} s");
    let ratio = 1e6 * (migrated - before) / commits as f64;
    println!("a million commits      {ratio:.2} s");
    let audit = store.reads().audit(&AuditQuery::default());
    let audit = audit.expect("a store");
    assert!(audit.findings.is_empty(), "{:?}", audit.findings);
    runtime.block_on(store.close()).expect("it closes");
    let (store, after) = open();
    println!("opened after that      {after:.2} s");
    runtime.block_on(store.close()).expect("it closes");
}

fn options(directory: &Path) -> Options {
    Options {
        retention: Retention::default(),
        tail_bytes: 1,
        // Format 3 kept every commit.
        fold_links: usize::MAX,
        ..Options::new(directory)
    }
}

async fn fill(directory: &Path, events: u64, commits: u64) {
    let store = Store::open(options(directory)).expect("a store");
    let generation = Generation {
        pipeline: "siem".into(),
        description: "{}".to_owned(),
    };
    let streams = [STREAM.to_owned()];
    let registered = store.register(generation, &streams, START).await;
    registered.expect("it registers");
    let append = |first: u64| {
        let store = store.clone();
        async move { store.append(block(first, events)).await.map(drop) }
    };
    together((1..=events).step_by(BLOCK as usize), append).await;
    let each = events.div_ceil(commits).max(1);
    let commit = |first: u64| {
        let store = store.clone();
        let range = first..(first + each).min(events + 1);
        async move { store.commit(commit(range)).await.map(drop) }
    };
    together((1..=events).step_by(each as usize), commit).await;
    store.close().await.expect("it closes");
}

async fn together<F, E>(firsts: impl Iterator<Item = u64>, step: impl Fn(u64) -> F)
where
    F: Future<Output = Result<(), E>> + Send + 'static,
    E: std::fmt::Debug + Send + 'static,
{
    let mut tasks = JoinSet::new();
    for first in firsts {
        tasks.spawn(step(first));
        if tasks.len() as u64 == TOGETHER {
            while let Some(done) = tasks.join_next().await {
                done.expect("it does not panic").expect("it is stored");
            }
        }
    }
    while let Some(done) = tasks.join_next().await {
        done.expect("it does not panic").expect("it is stored");
    }
}

fn time(seq: u64) -> i64 {
    START + seq as i64 * 1000
}

fn block(first: u64, events: u64) -> Append {
    let mut builder = BlockBuilder::new();
    for seq in first..(first + BLOCK).min(events + 1) {
        let key = format!("{seq:032x}");
        let head = Head {
            key: &key,
            event_type: "session.start",
            code: "T2000I",
            time: time(seq),
            index: 0,
            session: "",
        };
        let user = seq % 97;
        let payload = format!(r#"{{"uid":"{key}","event":"session.start","user":"u{user}"}}"#);
        builder.push(head, &payload);
    }
    Append {
        source: "teleport".into(),
        feed: FeedKind::Audit,
        read_at: time(first),
        events: builder.take(),
        cursors: vec![CursorUpdate {
            key: "start".to_owned(),
            value: Some("1".to_owned()),
        }],
        gaps: Vec::new(),
        duplicates: 0,
    }
}

/// Every fifth is dropped.
fn commit(range: SeqRange) -> Commit {
    let (first, len) = (range.start, range.end - range.start);
    let mut outcomes = Outcomes::default();
    let mut days: Vec<DayTally> = Vec::new();
    for seq in range.clone() {
        let day = Day::of(time(seq));
        if days.last().is_none_or(|last| last.day != day) {
            days.push(DayTally {
                day,
                delivered: 0,
                dropped: 0,
                dead: 0,
            });
        }
        let tally = days.last_mut().expect("a day");
        let outcome = match seq % 5 {
            0 => Outcome::Dropped(0),
            _ => Outcome::Delivered,
        };
        match outcome {
            Outcome::Delivered => tally.delivered += 1,
            _ => tally.dropped += 1,
        }
        match outcomes.runs.last_mut() {
            Some(run) if run.outcome == outcome => run.len += 1,
            _ => outcomes.runs.push(OutcomeRun { outcome, len: 1 }),
        }
    }
    Commit {
        pipeline: "siem".into(),
        stream: STREAM.into(),
        epoch: 1,
        generation: 1,
        batch: BatchRecord {
            id: format!("siem/{first}"),
            at: time(first),
            requests: vec![RequestRecord {
                method: "POST".into(),
                endpoint: "url".into(),
                path: String::new(),
                entries: std::iter::once(range.clone()).collect(),
                status: 200,
                documents: len as u32,
                bytes: 700,
                attempts: 1,
                excerpt: String::new(),
            }],
        },
        entries: Entries::Range(range),
        outcomes,
        reasons: vec!["noise".into()],
        days,
        ..Commit::default()
    }
}

/// Without the tables that format 4 added.
fn to_format_3(file: &Path) {
    let database = Connection::open(file).expect("a database");
    let changed = database.execute_batch(
        "DROP TABLE block_filters; DROP INDEX letters_by_key; DROP TABLE tallies;
         DROP TABLE anchors; DROP TABLE folded_letters; DROP TABLE gaps; DROP TABLE identity;
         PRAGMA user_version = 3; PRAGMA wal_checkpoint(truncate);",
    );
    changed.expect("it was of format 4");
}
