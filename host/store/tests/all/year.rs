//! The store does not grow with its age: months of one event and one commit at a time, with the
//! clock of the store and not that of the machine.
//!
//! `LOCKGATE_STORE_DAYS=365 LOCKGATE_STORE_STEPS=4320 cargo test -p lockgate-store --test
//! all year -- --nocapture` simulates a year with a commit every twenty seconds, and prints sizes
//! and times.

#![allow(
    clippy::disallowed_methods,
    reason = "a long run is asked for by variables, and prints what it takes"
)]

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use lockgate_model::{
    Append, BatchRecord, BlockBuilder, Commit, CursorUpdate, Day, DayTally, DeadLetter, Entries,
    FeedKind, Head, Outcome, Outcomes, RequestRecord,
};
use lockgate_store::{AuditQuery, DeadLetters, Inspector, Ledger, Options, Retention, Store};
use tokio::task::JoinSet;

use crate::common::*;

/// Steps that wait for one transaction together.
const TOGETHER: u64 = 128;
/// Letters are kept for so many days.
const LETTER_DAYS: i64 = 30;

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().unwrap())
}

fn open_at(path: &Path, now: &Arc<AtomicI64>, fold_links: usize) -> Store {
    let clock = now.clone();
    let options = Options {
        retention: Retention {
            age: Some(Duration::from_secs(7 * 86_400)),
            bytes: None,
        },
        elapsed: elapsed(now),
        clock: Arc::new(move || clock.load(Ordering::SeqCst)),
        fold_links,
        ..options(path)
    };
    Store::open(options).unwrap()
}

fn event(nth: u64, time: i64) -> Append {
    let mut builder = BlockBuilder::new();
    let key = format!("{nth:032x}");
    let head = Head {
        key: &key,
        event_type: "session.start",
        code: "T2000I",
        time,
        index: 0,
        session: "",
    };
    builder.push(
        head,
        &format!(
            r#"{{"uid":"{key}","event":"session.start","user":"u{}"}}"#,
            nth % 97
        ),
    );
    Append {
        source: "teleport".into(),
        feed: FeedKind::Audit,
        read_at: time,
        events: builder.take(),
        cursors: vec![CursorUpdate {
            key: "start".to_owned(),
            value: Some("1".to_owned()),
        }],
        gaps: Vec::new(),
        duplicates: 0,
    }
}

/// The commit of one entry, as a pipeline would write it.
fn commit(seq: u64, time: i64) -> Commit {
    let outcome = match seq {
        seq if seq.is_multiple_of(1000) => Outcome::Dead(0),
        seq if seq.is_multiple_of(5) => Outcome::Dropped(1),
        _ => Outcome::Delivered,
    };
    let mut outcomes = Outcomes::default();
    outcomes.push(outcome);
    let mut tally = DayTally {
        day: Day::of(time),
        delivered: 0,
        dropped: 0,
        dead: 0,
    };
    let mut dead = Vec::new();
    match outcome {
        Outcome::Delivered => tally.delivered = 1,
        Outcome::Dropped(_) => tally.dropped = 1,
        Outcome::Dead(_) => {
            tally.dead = 1;
            dead.push(DeadLetter {
                seq,
                time,
                key: format!("{seq:032x}"),
                payload: vec![b'x'; 500],
                ..DeadLetter::default()
            });
        }
    }
    Commit {
        pipeline: "siem".into(),
        stream: AUDIT.into(),
        epoch: 1,
        generation: 1,
        batch: BatchRecord {
            id: format!("siem/{seq}"),
            at: time,
            requests: vec![RequestRecord {
                method: "POST".into(),
                endpoint: "url".into(),
                path: String::new(),
                entries: std::iter::once(seq..seq + 1).collect(),
                status: 200,
                documents: 1,
                bytes: 700,
                attempts: 1,
                excerpt: String::new(),
            }],
        },
        entries: Entries::Range(seq..seq + 1),
        outcomes,
        reasons: vec!["sink (builtin:fluentd): 400".into(), "noise".into()],
        days: vec![tally],
        dead,
        ..Commit::default()
    }
}

async fn one_day(store: &Store, now: &AtomicI64, day: i64, steps: u64) {
    let first = *store.head(AUDIT).borrow();
    let step = Day::MILLIS / steps as i64;
    let mut done = 0;
    while done < steps {
        let together = TOGETHER.min(steps - done);
        let time = DAY + day * Day::MILLIS + done as i64 * step;
        now.store(time, Ordering::SeqCst);
        let mut tasks = JoinSet::new();
        for nth in first + done..first + done + together {
            let (store, append) = (store.clone(), event(nth, time));
            tasks.spawn(async move { store.append(append).await.map(drop) });
        }
        while let Some(appended) = tasks.join_next().await {
            appended.unwrap().unwrap();
        }
        for seq in first + done..first + done + together {
            let (store, commit) = (store.clone(), commit(seq, time));
            tasks.spawn(async move { store.commit(commit).await.map(drop) });
        }
        while let Some(committed) = tasks.join_next().await {
            committed.unwrap().unwrap();
        }
        done += together;
    }
    let before = DAY + (day - LETTER_DAYS) * Day::MILLIS;
    while store.expire_letters("siem", before, before).await.unwrap() > 0 {}
}

/// The reads of `lockgate status`.
fn status(path: &Path) -> Duration {
    let begun = Instant::now();
    let inspector = Inspector::open(path).unwrap();
    inspector.pipelines().unwrap();
    assert!(inspector.books("siem").unwrap()[0].1.balance());
    inspector.letter_counts("siem").unwrap();
    inspector.redriven_since("siem").unwrap();
    inspector.removed_unfinished("siem").unwrap();
    begun.elapsed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_store_does_not_grow_with_its_age() {
    let days = number("LOCKGATE_STORE_DAYS", 60) as i64;
    let steps = number("LOCKGATE_STORE_STEPS", 40);
    // Of a short run, as many as would be of a whole one.
    let fold_links = (steps as usize * 4096 / 86_400).max(16);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let now = Arc::new(AtomicI64::new(DAY));
    let mut store = open_at(path, &now, fold_links);
    register(&store, "siem", &[AUDIT]).await;
    let mut sizes = Vec::new();
    for day in 0..days {
        one_day(&store, &now, day, steps).await;
        if (day + 1) % 20 != 0 && day + 1 != days {
            continue;
        }
        let begun = Instant::now();
        let audit = store.reads().audit(&AuditQuery::default()).unwrap();
        let audited = begun.elapsed();
        assert!(audit.findings.is_empty(), "day {day}: {:?}", audit.findings);
        let chain = audit.pipelines[0].epochs[0].chain.clone();
        store.close().await.unwrap();
        let size = fs::metadata(path.join("store.db")).unwrap().len();
        let begun = Instant::now();
        store = open_at(path, &now, fold_links);
        let opened = begun.elapsed();
        println!(
            "day {:4}: {:9} links, {:7} kept, {:7} KiB, status {:.1} ms, open {:.1} ms, audit {:.1} s",
            day + 1,
            chain.links(),
            chain.links() - chain.folded,
            size >> 10,
            status(path).as_secs_f64() * 1e3,
            opened.as_secs_f64() * 1e3,
            audited.as_secs_f64(),
        );
        // A week of events, what waits for the next run, and letters for their time.
        let most = steps * 8 + fold_links as u64 + 2 * LETTER_DAYS as u64;
        let kept = chain.links() - chain.folded;
        assert!(
            day < 9 || kept <= most,
            "day {day}: {kept} links are kept, not {most}"
        );
        sizes.push(size);
    }
    // From when the week is full.
    if let [_, early, .., last] = sizes[..] {
        assert!(last <= early + early / 4 + (4 << 20), "{sizes:?}");
    }
    let books = store.reads().books("siem").unwrap()[0].1;
    assert!(
        books.balance() && books.read == days as u64 * steps && books.waiting == 0,
        "{books:?}"
    );
}
