//! Appends, commits, dead letters and reads.

use std::collections::BTreeMap;

use lockgate_model::{
    Append, BlockBuilder, Books, CursorUpdate, Day, Entries, FeedKind, Gap, GapState, Generation,
    Head, Millis, Outcome, RequestRecord, StateWrite, payload_hash,
};
use lockgate_store::{Inspector, Ledger, LedgerError};

use crate::common::*;

#[tokio::test]
async fn what_was_appended_is_read_from_memory_and_from_disk() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let mut head = store.head(AUDIT);
    assert_eq!(*head.borrow_and_update(), 1);

    let mut builder = BlockBuilder::new();
    for nth in 0..700 {
        let head = Head {
            key: &format!("k{nth}"),
            event_type: "exec",
            code: "",
            time: DAY - nth,
            index: -nth,
            session: "s-1",
        };
        if nth == 300 {
            builder.push_raw(head, b"\xff\xfe")
        } else {
            builder.push(head, &format!(r#"{{"n":{nth}}}"#))
        }
    }
    let parts = builder.take();
    let block = store
        .append(append_of(parts.clone(), &[]))
        .await
        .unwrap()
        .unwrap();
    assert_eq!((block.range(), block.parts()), (1..701, &parts));
    head.changed().await.unwrap();
    assert_eq!(*head.borrow_and_update(), 701);
    assert_eq!(
        store
            .append(append_of(Default::default(), &[("c", "1")]))
            .await
            .unwrap(),
        None
    );
    assert_eq!(append(&store, 1).await.first_seq, 701);

    // The cache has the very same block; the disk has an equal one.
    assert!(std::sync::Arc::ptr_eq(
        &store.block_at(AUDIT, 700).unwrap().unwrap(),
        &block
    ));
    store.close().await.unwrap();
    let store = open(directory.path());
    assert!(store.cached(AUDIT, 5).is_none());
    assert_eq!(store.block_at(AUDIT, 350).unwrap().unwrap(), block);
    assert_eq!(store.block_at(AUDIT, 702).unwrap(), None);
    assert_eq!(store.block_at("teleport/sessions", 1).unwrap(), None);
    let (first, heads) = store.reads().heads_at(AUDIT, 350).unwrap().unwrap();
    assert_eq!(
        (first, heads.len(), heads.types.at(9), heads.times[9]),
        (1, 700, "exec", DAY - 9)
    );
    assert_eq!(
        (
            heads.is_raw(300),
            heads.payload_len(300),
            heads.is_raw(301),
            heads.payload_len(301)
        ),
        (true, 2, false, 9)
    );

    let expected: Vec<u64> = [(300, b"\xff\xfe".to_vec()), (301, br#"{"n":301}"#.to_vec())]
        .map(|(nth, payload)| payload_hash(&format!("k{nth}"), &payload))
        .to_vec();
    let known = store
        .reads()
        .known_events(AUDIT, 0, Millis::MAX, 999)
        .unwrap();
    assert_eq!((known.events.len(), known.is_complete), (701, true));
    assert!(
        expected
            .iter()
            .all(|&hash| known.events.iter().any(|&(_, other)| other == hash))
    );
    let (from, to) = (DAY - 200, DAY - 101);
    for (max, until, count) in [(999, to, 100), (10, DAY - 191, 10)] {
        let known = store.known_events(AUDIT, from, to, max).await.unwrap();
        assert_eq!(
            (known.events.len(), known.until, known.is_complete),
            (count, until, true)
        );
    }
    let none = store.known_events("other/audit", 0, 1, 1).await.unwrap();
    assert!(none.events.is_empty() && none.is_complete);
}

#[tokio::test]
async fn gaps_are_kept_with_what_became_of_them() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let gap = |key: &str, from, state| Gap {
        key: key.into(),
        feed: FeedKind::Audit,
        from,
        to: from + 9,
        since: 5,
        attempts: 3,
        what: "the events".into(),
        error: "Unknown `x`".into(),
        state,
    };
    let append = |gaps: &[Gap]| Append {
        gaps: gaps.to_vec(),
        ..append_of(Default::default(), &[])
    };
    let day = 86_400_000;
    let open_gap = gap("a", 20, GapState::Open);
    let lost = gap("b", 10, GapState::Lost(7));
    let old = gap("c", 30, GapState::Read { at: 8, events: 2 });
    let gaps = [open_gap.clone(), lost.clone(), old.clone()];
    store.append(append(&gaps)).await.unwrap();
    let of = |gaps: &[Gap]| -> Vec<(String, Gap)> {
        let gaps = gaps.iter().cloned();
        gaps.map(|gap| ("teleport".to_owned(), gap)).collect()
    };
    assert_eq!(
        store.reads().gaps().unwrap(),
        of(&[lost.clone(), open_gap, old])
    );
    // It is read, and those that were read long before are forgotten. What is lost stays.
    let at = 91 * day;
    let read = gap("a", 20, GapState::Read { at, events: 4 });
    store
        .append(append(std::slice::from_ref(&read)))
        .await
        .unwrap();
    store.close().await.unwrap();
    let store = open(directory.path());
    assert_eq!(
        store.reads().gaps().unwrap(),
        of(&[lost.clone(), read.clone()])
    );
}

#[tokio::test]
async fn cursors_move_with_their_events_and_duplicates_are_counted() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    store
        .append(append_of(numbered(1..4), &[("a", "1"), ("b", "1")]))
        .await
        .unwrap();
    let remove = CursorUpdate {
        key: "a".into(),
        value: None,
    };
    let append = Append {
        duplicates: 7,
        cursors: vec![remove],
        ..append_of(numbered(4..5), &[])
    };
    store.append(append.clone()).await.unwrap();
    store
        .append(Append {
            events: Default::default(),
            cursors: vec![],
            ..append
        })
        .await
        .unwrap();
    let cursors = BTreeMap::from([("b".to_owned(), "1".to_owned())]);
    assert_eq!(store.reads().cursors("teleport").unwrap(), cursors);
    assert!(store.reads().cursors("other").unwrap().is_empty());
    store.close().await.unwrap();
    let store = open(directory.path());
    assert_eq!(store.reads().cursors("teleport").unwrap(), cursors);
    let streams = store.reads().streams().unwrap();
    assert_eq!(
        (
            streams.len(),
            streams[0].duplicates,
            streams[0].next,
            streams[0].oldest
        ),
        (1, 14, 5, 1)
    );
}

#[tokio::test]
async fn a_commit_that_contradicts_the_store_is_refused_alone() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    register(&store, "siem", &[AUDIT]).await;
    append(&store, 100).await;
    deliver(&store, "siem", 11..21).await.unwrap();

    let good = commit_of(&store, "siem", 31..41, |_| Outcome::Delivered);
    let change = |change: fn(&mut lockgate_model::Commit)| {
        let mut commit = good.clone();
        change(&mut commit);
        commit
    };
    let conflicts = [
        (
            commit_of(&store, "siem", 15..16, |_| Outcome::Delivered),
            "have an outcome",
        ),
        (
            commit_of(&store, "siem", 1..12, |_| Outcome::Delivered),
            "have an outcome",
        ),
        (
            commit_of(&store, "siem", 105..112, |_| Outcome::Delivered),
            "beyond its last, 110",
        ),
        (
            commit_of(&store, "other", 31..41, |_| Outcome::Delivered),
            "not registered",
        ),
        (
            change(|commit| commit.stream = "teleport/sessions".into()),
            "not registered",
        ),
        (change(|commit| commit.epoch = 2), "epoch 2"),
        (change(|commit| commit.generation = 9), "generation 9"),
    ];
    // Together with good ones, so that they share transactions.
    let results = tokio::join!(
        store.commit(conflicts[0].0.clone()),
        store.commit(good.clone()),
        store.commit(conflicts[2].0.clone()),
        store.append(append_of(numbered(101..111), &[])),
        store.commit(good.clone()),
    );
    assert!(
        matches!(results.0, Err(LedgerError::Conflict(_))),
        "{results:?}"
    );
    assert!(results.1.is_ok() && results.3.is_ok(), "{results:?}");
    assert!(
        matches!(results.2, Err(LedgerError::Conflict(_)))
            && matches!(results.4, Err(LedgerError::Conflict(_))),
        "{results:?}"
    );
    for (commit, text) in conflicts {
        match store.commit(commit).await {
            Err(LedgerError::Conflict(message)) => assert!(message.contains(text), "{message}"),
            other => panic!("{text}: {other:?}"),
        }
    }
    let letter = commit_of(&store, "siem", 31..41, |_| Outcome::Dead(0)).dead;
    let invalid = [
        (
            change(|commit| commit.entries = Entries::Range(50..50)),
            "empty",
        ),
        (
            change(|commit| commit.entries = Entries::Range(50..61)),
            "10 outcomes for 11 entries",
        ),
        (change(|commit| commit.days.clear()), "by day (0, 0, 0)"),
        (
            change(|commit| commit.outcomes.runs[0].outcome = Outcome::Dropped(2)),
            "reason 2 of 2",
        ),
        (
            change(|commit| commit.outcomes.runs[0].outcome = Outcome::Dead(0)),
            "no dead letter",
        ),
        (
            lockgate_model::Commit {
                dead: letter,
                ..good.clone()
            },
            "not dead",
        ),
    ];
    for (commit, text) in invalid {
        match store.commit(commit).await {
            Err(LedgerError::Invalid(message)) => assert!(message.contains(text), "{message}"),
            other => panic!("{text}: {other:?}"),
        }
    }
    assert_eq!(
        store.reads().books("siem").unwrap(),
        [(
            AUDIT.to_owned(),
            Books {
                read: 110,
                delivered: 20,
                dropped: 0,
                dead: 0,
                waiting: 90
            }
        )]
    );
    assert_eq!(store.reads().verify_chain("siem").unwrap()[0].commits, 2);
}

#[tokio::test]
async fn progress_books_letters_and_state_outlive_the_process() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let registration = register(&store, "siem", &[AUDIT, "teleport/sessions"]).await;
    assert_eq!((registration.epoch, registration.generation), (1, 1));
    assert_eq!(
        (
            registration.streams[0].watermark,
            registration.streams[1].stream.as_str()
        ),
        (1, "teleport/sessions")
    );
    // 30 events an hour apart: two days.
    append(&store, 30).await;
    append(&store, 30).await;
    let fate = |seq| match seq % 5 {
        0 => Outcome::Dropped(1),
        1 => Outcome::Dead(0),
        _ => Outcome::Delivered,
    };
    let mut commit = commit_of(&store, "siem", 41..51, fate);
    commit.state = vec![StateWrite {
        owner: "counter".into(),
        key: "a".into(),
        value: Some("1".into()),
    }];
    commit.batch.requests = vec![RequestRecord {
        status: 400,
        documents: 10,
        bytes: 99,
        attempts: 2,
        excerpt: "\"bad\"\n".into(),
        ..RequestRecord::default()
    }];
    store.commit(commit).await.unwrap();
    store
        .commit(commit_of(&store, "siem", 1..11, fate))
        .await
        .unwrap();
    let mut commit = commit_of(&store, "siem", 21..26, fate);
    commit.state = vec![
        StateWrite {
            owner: "counter".into(),
            key: "a".into(),
            value: None,
        },
        StateWrite {
            owner: "counter".into(),
            key: "b".into(),
            value: Some("2".into()),
        },
    ];
    store.commit(commit).await.unwrap();
    let (books, days, letters) = (
        store.reads().books("siem").unwrap(),
        store.reads().days("siem").unwrap(),
        letters_of(store.reads(), "siem", 100).unwrap(),
    );
    assert_eq!(
        books[0].1,
        Books {
            read: 60,
            delivered: 15,
            dropped: 5,
            dead: 5,
            waiting: 35
        }
    );
    assert_eq!(books[1].1, Books::default());
    assert_eq!(days.len(), 2);
    assert_eq!(days[0].0, Day::of(DAY));
    assert_eq!((days[0].1.read, days[1].1.read), (48, 12));
    assert!(days.iter().all(|(_, books)| books.balance()), "{days:?}");
    assert_eq!(
        letters
            .iter()
            .map(|kept| kept.letter.seq)
            .collect::<Vec<_>>(),
        [21, 6, 1, 46, 41]
    );
    assert_eq!(letters[0].letter.payload, br#"{"uid":"k21"}"#);
    assert_eq!(letters_of(store.reads(), "siem", 2).unwrap().len(), 2);
    let chain = store.reads().verify_chain("siem").unwrap();
    assert_eq!((chain[0].commits, chain[0].blocks > 0), (3, true));
    store.close().await.unwrap();

    let store = open(directory.path());
    let again = register(&store, "siem", &[AUDIT]).await;
    assert_eq!((again.epoch, again.generation), (1, 1));
    assert_eq!(
        (again.streams[0].watermark, &again.streams[0].done[..]),
        (11, &[21..26, 41..51][..])
    );
    assert_eq!(store.reads().books("siem").unwrap(), books);
    assert_eq!(store.reads().days("siem").unwrap(), days);
    assert_eq!(letters_of(store.reads(), "siem", 100).unwrap(), letters);
    assert_eq!(
        again.state,
        BTreeMap::from([(
            "counter".to_owned(),
            BTreeMap::from([("b".to_owned(), "2".to_owned())])
        )])
    );
    assert_eq!(store.reads().verify_chain("siem").unwrap(), chain);

    // Another configuration is another generation; the old one comes back under its number.
    let other = Generation {
        pipeline: "siem".into(),
        description: "{}".into(),
    };
    let other = store
        .register(other, &[AUDIT.to_owned()], DAY)
        .await
        .unwrap();
    assert_eq!(
        (other.epoch, other.generation, other.streams[0].watermark),
        (1, 2, 11)
    );
    assert_eq!(register(&store, "siem", &[AUDIT]).await.generation, 1);
    assert_eq!(
        store.reads().books("none"),
        Err(LedgerError::Unknown("pipeline `none`".into()))
    );
    let refused = store
        .register(
            Generation {
                pipeline: "x".into(),
                description: "{}".into(),
            },
            &["teleport".to_owned()],
            DAY,
        )
        .await;
    assert!(
        matches!(refused, Err(LedgerError::Invalid(_))),
        "{refused:?}"
    );
}

#[tokio::test]
async fn an_inspector_sees_a_running_store_and_a_stopped_one() {
    let directory = tempfile::tempdir().unwrap();
    assert!(
        Inspector::open(directory.path())
            .err()
            .unwrap()
            .to_string()
            .contains("If it was moved, move it back")
    );
    let store = open(directory.path());
    register(&store, "siem", &[AUDIT]).await;
    append(&store, 10).await;
    let inspector = Inspector::open(directory.path()).unwrap();
    assert_eq!(inspector.books("siem").unwrap()[0].1.waiting, 10);
    deliver(&store, "siem", 1..5).await.unwrap();
    append(&store, 10).await;
    let books = Books {
        read: 20,
        delivered: 4,
        waiting: 16,
        ..Books::default()
    };
    assert_eq!(inspector.books("siem").unwrap()[0].1, books);
    assert_eq!(
        inspector.block_at(AUDIT, 20).unwrap(),
        store.block_at(AUDIT, 20).unwrap()
    );
    let pipelines = inspector.pipelines().unwrap();
    assert_eq!(
        (
            pipelines[0].name.as_str(),
            pipelines[0].streams[0].0.watermark,
            pipelines[0].streams[0].1
        ),
        ("siem", 5, true)
    );
    drop(inspector);
    store.close().await.unwrap();
    let inspector = Inspector::open(directory.path()).unwrap();
    assert_eq!(inspector.books("siem").unwrap()[0].1, books);
    assert_eq!(inspector.cursors("teleport").unwrap()["cursor"], "21");
    // It holds no lock.
    open(directory.path()).close().await.unwrap();
}

#[tokio::test]
async fn an_event_larger_than_every_limit_is_a_block_of_its_own() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let mut dice = Dice(1);
    let text: String = (0..20 << 20)
        .map(|_| (b'a' + dice.roll(26) as u8) as char)
        .collect();
    let payload = format!(r#"{{"a":"{text}"}}"#);
    store
        .append(append_of(events(&["k".into()], |_| payload.clone()), &[]))
        .await
        .unwrap();
    append(&store, 3).await;
    store.close().await.unwrap();
    let store = open(directory.path());
    assert_eq!(
        store.block_at(AUDIT, 1).unwrap().unwrap().view(0).payload,
        payload
    );
    assert_eq!(store.block_at(AUDIT, 3).unwrap().unwrap().first_seq, 2);
}

#[tokio::test]
async fn the_file_has_the_documented_form() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("deep/store");
    let store = open(&path);
    append(&store, 10).await;
    let mode =
        |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o700);
    for file in std::fs::read_dir(&path).unwrap() {
        let file = file.unwrap().path();
        assert_eq!(mode(&file), 0o600, "{}", file.display());
    }
    let auditor = rusqlite::Connection::open_with_flags(
        path.join("store.db"),
        rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY,
    )
    .unwrap();
    let pragma = |name| {
        auditor
            .pragma_query_value(None, name, |row| row.get::<_, rusqlite::types::Value>(0))
            .unwrap()
    };
    assert_eq!(pragma("journal_mode"), "wal".to_owned().into());
    for (name, value) in [
        ("page_size", 16_384),
        ("auto_vacuum", 2),
        ("user_version", 4),
        ("application_id", 0x4C4B_4754),
    ] {
        assert_eq!(pragma(name), value.into(), "{name}");
    }
    drop(auditor);
    store.close().await.unwrap();
    let mut names: Vec<_> = std::fs::read_dir(&path)
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["lock", "store.db"]);
}

/// It was said to be missing, with the advice for a store that is gone.
#[test]
fn a_store_that_cannot_be_looked_at_is_not_missing() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let error = lockgate_store::Inspector::open(&file).err().unwrap();
    let error = error.to_string();
    assert!(error.starts_with("cannot open"), "{error}");
}
