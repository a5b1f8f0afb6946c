//! Support for several of the tests.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use lockgate_model::{
    Append, BatchRecord, Block, BlockBuilder, BlockParts, Commit, CursorUpdate, Day, DayTally,
    DeadLetter, Entries, FeedKind, Generation, Head, Outcome, Outcomes, SeqRange,
};
use lockgate_store::{
    KeptLetter, Ledger, LedgerError, LetterQuery, Options, Reads, Retention, Store,
};

pub const AUDIT: &str = "teleport/audit";
/// 2026-01-05.
pub const DAY: i64 = 1_767_571_200_000;

/// As a configuration in which each of these pipelines reads the audit stream.
pub fn reading(pipelines: &[&str]) -> BTreeMap<String, Vec<String>> {
    let reads = |name: &&str| ((*name).to_owned(), vec![AUDIT.to_owned()]);
    pipelines.iter().map(reads).collect()
}

/// Without retention.
pub fn options(path: &Path) -> Options {
    let mut options = Options::new(path);
    options.retention = Retention::default();
    options
}

pub fn open(path: &Path) -> Store {
    Store::open(options(path)).unwrap()
}

/// A store that keeps events for an hour, and its clock.
pub fn open_with_an_hour_of_retention(path: &Path) -> (Store, Arc<AtomicI64>) {
    let now = Arc::new(AtomicI64::new(DAY));
    let clock = now.clone();
    let store = Store::open(Options {
        retention: Retention {
            age: Some(Duration::from_secs(3600)),
            bytes: None,
        },
        elapsed: elapsed(&now),
        clock: Arc::new(move || clock.load(Ordering::SeqCst)),
        ..options(path)
    });
    (store.unwrap(), now)
}

/// Time of which an hour passes at each look.
pub fn hours_at_each_call() -> lockgate_store::Elapsed {
    let hours = AtomicU64::new(0);
    Arc::new(move || {
        let hours = hours.fetch_add(1, Ordering::SeqCst);
        Duration::from_secs(hours * 3600)
    })
}

/// Time that passes as this clock says.
pub fn elapsed(now: &Arc<AtomicI64>) -> lockgate_store::Elapsed {
    let now = now.clone();
    Arc::new(move || Duration::from_millis((now.load(Ordering::SeqCst) - DAY).max(0) as u64))
}

/// Events by key; the time is the key's place in the list, in hours.
pub fn events(keys: &[String], payload: impl Fn(&str) -> String) -> BlockParts {
    let mut builder = BlockBuilder::new();
    for (nth, key) in keys.iter().enumerate() {
        let head = Head {
            key,
            event_type: "user.login",
            code: "T1000I",
            time: DAY + nth as i64 * 3_600_000,
            index: nth as i64,
            session: "",
        };
        builder.push(head, &payload(key));
    }
    builder.take()
}

pub fn numbered(range: std::ops::Range<u64>) -> BlockParts {
    let keys: Vec<String> = range.map(|nth| format!("k{nth}")).collect();
    events(&keys, |key| format!(r#"{{"uid":"{key}"}}"#))
}

/// Without a cursor given, one of its own moves: a store without any is refused.
pub fn append_of(parts: BlockParts, cursors: &[(&str, &str)]) -> Append {
    let cursors = match cursors {
        [] => &[("start", "1")],
        given => given,
    };
    let cursors = cursors
        .iter()
        .map(|&(key, value)| CursorUpdate {
            key: key.into(),
            value: Some(value.into()),
        })
        .collect();
    Append {
        source: "teleport".into(),
        feed: FeedKind::Audit,
        read_at: DAY,
        events: parts,
        cursors,
        gaps: Vec::new(),
        duplicates: 0,
    }
}

/// Appends `count` events that continue the stream.
pub async fn append(store: &Store, count: u64) -> Arc<Block> {
    let next = *store.head(AUDIT).borrow();
    store
        .append(append_of(
            numbered(next..next + count),
            &[("cursor", &format!("{}", next + count))],
        ))
        .await
        .unwrap()
        .unwrap()
}

pub async fn register(
    store: &Store,
    pipeline: &str,
    streams: &[&str],
) -> lockgate_store::Registration {
    let generation = Generation {
        pipeline: pipeline.into(),
        description: format!(r#"{{"name":"{pipeline}"}}"#),
    };
    let streams: Vec<String> = streams.iter().map(|&stream| stream.to_owned()).collect();
    store.register(generation, &streams, DAY).await.unwrap()
}

/// A commit whose parts agree: outcomes by a rule, days and letters from the events in the store.
pub fn commit_of(
    store: &Store,
    pipeline: &str,
    range: SeqRange,
    outcome: impl Fn(u64) -> Outcome,
) -> Commit {
    try_commit_of(store, pipeline, range, outcome).unwrap()
}

/// The same, of a store that may close at any moment.
pub fn try_commit_of(
    store: &Store,
    pipeline: &str,
    range: SeqRange,
    outcome: impl Fn(u64) -> Outcome,
) -> Result<Commit, LedgerError> {
    let (mut outcomes, mut dead) = (Outcomes::default(), Vec::new());
    let mut days: BTreeMap<Day, DayTally> = BTreeMap::new();
    for seq in range.clone() {
        let outcome = outcome(seq);
        outcomes.push(outcome);
        // Beyond the head there is nothing to say, and the store refuses it before it looks.
        let letter = match store.block_at(AUDIT, seq)? {
            Some(block) => DeadLetter::new(
                &block,
                (seq - block.first_seq) as usize,
                "sink (builtin:fluentd)".into(),
                "400".into(),
            ),
            None => DeadLetter {
                seq,
                time: DAY,
                ..DeadLetter::default()
            },
        };
        let day = Day::of(letter.time);
        let tally = days.entry(day).or_insert(DayTally {
            day,
            delivered: 0,
            dropped: 0,
            dead: 0,
        });
        match outcome {
            Outcome::Delivered => tally.delivered += 1,
            Outcome::Dropped(_) => tally.dropped += 1,
            Outcome::Dead(_) => {
                tally.dead += 1;
                dead.push(letter);
            }
        }
    }
    Ok(Commit {
        pipeline: pipeline.into(),
        stream: AUDIT.into(),
        epoch: 1,
        generation: 1,
        batch: BatchRecord {
            id: format!("b{}", range.start),
            at: DAY,
            requests: Vec::new(),
        },
        entries: Entries::Range(range),
        outcomes,
        reasons: vec!["first".into(), "second".into()],
        days: days.into_values().collect(),
        dead,
        ..Commit::default()
    })
}

/// For a store that is closed, and looks no further.
pub fn commit_of_nothing() -> Commit {
    Commit {
        pipeline: "siem".into(),
        stream: AUDIT.into(),
        epoch: 1,
        generation: 1,
        entries: Entries::Range(1..2),
        ..Commit::default()
    }
}

pub async fn deliver(store: &Store, pipeline: &str, range: SeqRange) -> Result<(), LedgerError> {
    store
        .commit(commit_of(store, pipeline, range, |_| Outcome::Delivered))
        .await
        .map(drop)
}

pub fn letters_of(
    reads: &Reads,
    pipeline: &str,
    limit: usize,
) -> Result<Vec<KeptLetter>, LedgerError> {
    reads.dead_letters(&LetterQuery {
        pipeline: Some(pipeline.to_owned()),
        limit,
        ..LetterQuery::default()
    })
}

/// Numbers that a seed decides.
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self, below: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }
}
