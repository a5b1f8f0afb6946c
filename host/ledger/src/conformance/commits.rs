//! Commits, registrations, state and the brake.

use std::collections::BTreeMap;

use lockgate_model::{Commit, Entries, Outcome, StateWrite};

use super::Subject;
use super::support::*;
use crate::Ledger;

pub async fn an_entry_gets_its_outcome_once<S: Subject>() {
    let mut subject = S::new(None);
    let ledger = subject.open();
    append(&ledger, 30).await;
    register(&ledger, SIEM).await;
    for range in [11..21, 1..6] {
        let commit = commit(&ledger, SIEM, range, delivered).await;
        ledger.commit(commit.clone()).await.unwrap();
        is_conflict(ledger.commit(commit).await);
    }
    for overlap in [5..8, 20..22, 8..24, 28..32] {
        is_conflict(
            ledger
                .commit(commit(&ledger, SIEM, overlap, delivered).await)
                .await,
        );
    }
    assert_eq!(
        subject.books(&ledger, SIEM, AUDIT),
        figures(30, 15, 0, 0, 15)
    );
}

pub async fn a_refused_commit_changes_nothing<S: Subject>() {
    let mut subject = S::new(None);
    let ledger = subject.open();
    append(&ledger, 10).await;
    let before = register(&ledger, SIEM).await;
    let good = Commit {
        brake: "kept by nobody".to_owned(),
        state: vec![write("counter", "a", Some("1"))],
        ..commit(&ledger, SIEM, 1..6, dead).await
    };
    let change = |change: &dyn Fn(&mut Commit)| {
        let mut commit = good.clone();
        change(&mut commit);
        commit
    };
    for conflict in [
        change(&|commit| commit.pipeline = "other".into()),
        change(&|commit| commit.stream = "teleport/sessions".into()),
        change(&|commit| commit.epoch = 2),
        change(&|commit| commit.generation = 2),
        change(&|commit| commit.generation = 0),
        change(&|commit| commit.entries = Entries::Redriven(vec![1, 2, 3, 4, 5])),
    ] {
        is_conflict(ledger.commit(conflict).await);
    }
    for invalid in [
        change(&|commit| commit.entries = Entries::Range(1..7)),
        change(&|commit| drop(commit.dead.pop())),
        change(&|commit| commit.days.clear()),
        change(&|commit| commit.reasons = vec!["r".to_owned(); 257]),
        change(&|commit| commit.reasons[0] = "r".repeat(1025)),
        change(&|commit| commit.state[0].key = "k".repeat(1025)),
        change(&|commit| commit.state[0].value = Some("v".repeat((64 << 10) + 1))),
    ] {
        is_invalid(ledger.commit(invalid).await);
    }
    assert_eq!(register(&ledger, SIEM).await, before);
    assert_eq!(
        subject.books(&ledger, SIEM, AUDIT),
        figures(10, 0, 0, 0, 10)
    );
    ledger.commit(good).await.unwrap();
}

pub async fn progress_state_and_brake_survive<S: Subject>() {
    let mut subject = S::new(None);
    let ledger = subject.open();
    append(&ledger, 30).await;
    let first = register(&ledger, SIEM).await;
    assert_eq!((first.epoch, first.generation), (1, 1));
    assert_eq!((first.streams[0].begin, first.streams[0].watermark), (1, 1));
    let fate = |seq| match seq % 5 {
        0 => Outcome::Dead(0),
        1 => Outcome::Dropped(1),
        _ => Outcome::Delivered,
    };
    let mut bytes = 0;
    for range in [21..26, 1..11, 12..14] {
        let commit = Commit {
            brake: format!("after {range:?}"),
            state: vec![write("counter", "last", Some(&range.start.to_string()))],
            ..commit(&ledger, SIEM, range, fate).await
        };
        bytes += commit
            .dead
            .iter()
            .map(|letter| letter.payload.len() as u64)
            .sum::<u64>();
        assert_eq!(ledger.commit(commit).await.unwrap().dead_bytes, bytes);
    }
    let books = subject.books(&ledger, SIEM, AUDIT);
    assert_eq!(books, figures(30, 11, 3, 3, 13));
    subject.end(ledger).await;

    let ledger = subject.open();
    assert_eq!(subject.books(&ledger, SIEM, AUDIT), books);
    let again = register(&ledger, SIEM).await;
    assert_eq!((again.epoch, again.generation), (1, 1));
    assert_eq!(again.streams[0].watermark, 11);
    assert_eq!(again.streams[0].done, [12..14, 21..26]);
    assert_eq!(again.brake, "after 12..14");
    assert_eq!(again.dead_bytes, bytes);
    assert_eq!(again.state, owned("counter", one("last", "12")));
}

pub async fn state_belongs_to_a_plugin_and_can_be_removed<S: Subject>() {
    let mut subject = S::new(None);
    let ledger = subject.open();
    append(&ledger, 10).await;
    for pipeline in [SIEM, "archive"] {
        register(&ledger, pipeline).await;
        let writes = vec![
            write("counter", "a", Some(pipeline)),
            write("counter#2", "a", Some("x")),
            write("counter#2", "b", Some("y")),
        ];
        let commit = commit(&ledger, pipeline, 1..2, delivered).await;
        ledger
            .commit(Commit {
                state: writes,
                ..commit
            })
            .await
            .unwrap();
    }
    let writes = vec![
        write("counter#2", "a", None),
        write("counter#2", "never there", None),
        write("counter#2", "b", Some("z")),
        write("counter#2", "b", Some("last of the batch")),
        write("counter", "a", None),
    ];
    let commit = commit(&ledger, SIEM, 2..3, delivered).await;
    ledger
        .commit(Commit {
            state: writes,
            ..commit
        })
        .await
        .unwrap();
    subject.end(ledger).await;
    let ledger = subject.open();
    let state = register(&ledger, SIEM).await.state;
    assert_eq!(state, owned("counter#2", one("b", "last of the batch")));
    let state = register(&ledger, "archive").await.state;
    assert_eq!(state["counter"], one("a", "archive"));
    assert_eq!(state["counter#2"].len(), 2);
}

pub async fn state_stays_when_the_configuration_changes<S: Subject>() {
    let mut subject = S::new(None);
    let ledger = subject.open();
    append(&ledger, 10).await;
    assert_eq!(register(&ledger, SIEM).await.last_description, None);
    let first = Commit {
        state: vec![write("counter", "n", Some("1"))],
        ..commit(&ledger, SIEM, 1..2, delivered).await
    };
    ledger.commit(first).await.unwrap();
    let streams = [AUDIT.to_owned()];
    let other = || generation(SIEM, r#"{"stages":["other"]}"#);
    let changed = ledger.register(other(), &streams, DAY).await.unwrap();
    assert_eq!(changed.state, owned("counter", one("n", "1")));
    // Registering does not finish anything.
    assert_eq!(changed.last_description.as_deref(), Some("{}"));
    let second = Commit {
        generation: changed.generation,
        state: vec![write("other", "n", Some("5"))],
        ..commit(&ledger, SIEM, 2..3, delivered).await
    };
    ledger.commit(second).await.unwrap();
    subject.end(ledger).await;
    let ledger = subject.open();
    let kept = register(&ledger, SIEM).await;
    let last = other().description;
    assert_eq!(kept.last_description, Some(last));
    let kept = kept.state;
    assert_eq!(
        (&kept["counter"]["n"][..], &kept["other"]["n"][..]),
        ("1", "5")
    );
}

pub async fn the_brake_is_that_of_the_latest_commit<S: Subject>() {
    let mut subject = S::new(None);
    let ledger = subject.open();
    append(&ledger, 10).await;
    assert_eq!(register(&ledger, SIEM).await.brake, "");
    for (range, brake) in [(5..6, "first"), (1..2, "second")] {
        let commit = commit(&ledger, SIEM, range, dead).await;
        let brake = brake.to_owned();
        ledger.commit(Commit { brake, ..commit }).await.unwrap();
    }
    // An operator's doing is not a commit.
    ledger.retry_for(5).await;
    ledger.drop_for(1).await;
    subject.end(ledger).await;
    let ledger = subject.open();
    assert_eq!(register(&ledger, SIEM).await.brake, "second");
    let commit = commit(&ledger, SIEM, 2..3, delivered).await;
    ledger.commit(commit).await.unwrap();
    assert_eq!(register(&ledger, SIEM).await.brake, "");
}

/// Shorthands of an operator.
trait Operator {
    async fn retry_for(&self, seq: u64);
    async fn drop_for(&self, seq: u64);
}

impl<L: crate::DeadLetters> Operator for L {
    async fn retry_for(&self, seq: u64) {
        self.retry(SIEM, AUDIT, &[seq], DAY).await.expect("retried");
    }
    async fn drop_for(&self, seq: u64) {
        self.drop_letters(SIEM, AUDIT, &[seq], DAY)
            .await
            .expect("dropped");
    }
}

pub async fn equal_descriptions_are_one_generation<S: Subject>() {
    let mut subject = S::new(None);
    let ledger = subject.open();
    append(&ledger, 10).await;
    let streams = [AUDIT.to_owned()];
    let mut numbers = Vec::new();
    for description in ["{}", r#"{"a":1}"#, "{}"] {
        let generation = generation(SIEM, description);
        numbers.push(
            ledger
                .register(generation, &streams, DAY)
                .await
                .unwrap()
                .generation,
        );
    }
    assert_eq!(numbers, [1, 2, 1]);
    // A batch that was begun under an earlier one may still be committed.
    let under_2 = Commit {
        generation: 2,
        ..commit(&ledger, SIEM, 1..3, delivered).await
    };
    ledger.commit(under_2).await.unwrap();
    subject.end(ledger).await;
    let ledger = subject.open();
    let again = ledger
        .register(generation(SIEM, r#"{"a":1}"#), &streams, DAY)
        .await;
    assert_eq!(again.unwrap().generation, 2);
}

pub async fn a_pipeline_registers_on_named_streams<S: Subject>() {
    let mut subject = S::new(None);
    let ledger = subject.open();
    for streams in [&[][..], &["teleport"], &["/video"], &[AUDIT, AUDIT]] {
        let streams: Vec<String> = streams.iter().map(|&name| name.to_owned()).collect();
        is_invalid(ledger.register(generation(SIEM, "{}"), &streams, DAY).await);
    }
    let streams = ["b/sessions", "a/audit"].map(str::to_owned);
    let found = ledger.register(generation(SIEM, "{}"), &streams, DAY).await;
    let names: Vec<String> = found
        .unwrap()
        .streams
        .into_iter()
        .map(|progress| progress.stream)
        .collect();
    assert_eq!(names, streams);
}

fn write(owner: &str, key: &str, value: Option<&str>) -> StateWrite {
    StateWrite {
        owner: owner.into(),
        key: key.to_owned(),
        value: value.map(str::to_owned),
    }
}

fn owned(
    owner: &str,
    state: BTreeMap<String, String>,
) -> BTreeMap<String, BTreeMap<String, String>> {
    BTreeMap::from([(owner.to_owned(), state)])
}

fn one(key: &str, value: &str) -> BTreeMap<String, String> {
    BTreeMap::from([(key.to_owned(), value.to_owned())])
}
