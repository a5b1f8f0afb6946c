//! Entries are found by id, with what became of them.

use std::ops::Range;
use std::time::Duration;

use lockgate_model::{Append, BlockBuilder, Entries, Fate, FeedKind, Head, Outcome, RequestRecord};
use lockgate_store::{
    Change, DeadLetters, EntryQuery, EntryState, Inspector, Ledger, Reads, Search, Store,
};
use rusqlite::Connection;
use tokio::time::Instant;

use crate::common::*;

fn by_id(store: &Reads, id: &str) -> Search {
    store.find(&EntryQuery::Id(id.to_owned()), 10).unwrap()
}

fn seqs(search: &Search) -> Vec<u64> {
    search.found.iter().map(|found| found.seq).collect()
}

async fn blocks(store: &Store, count: u64) {
    for _ in 0..count {
        append(store, 50).await;
    }
}

#[tokio::test]
async fn an_event_is_found_by_its_id_without_reading_every_block() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    blocks(&store, 40).await;
    let inspector = Inspector::open(directory.path()).unwrap();
    for seq in [1, 50, 51, 777, 2000] {
        let search = by_id(&inspector, &format!("k{seq}"));
        assert_eq!(seqs(&search), [seq]);
        let found = &search.found[0];
        assert!(found.block.as_ref().unwrap().contains(&seq));
        assert_eq!(found.payload, format!(r#"{{"uid":"k{seq}"}}"#).into_bytes());
        assert_eq!((search.blocks, search.without_filter), (40, 0));
        assert!(search.read < 5, "{} blocks were read", search.read);
    }
    let search = by_id(&inspector, "k2001");
    assert!(search.found.is_empty() && search.read < 5, "{search:?}");
    let entry = EntryQuery::Entry {
        stream: AUDIT.to_owned(),
        seq: 51,
    };
    assert_eq!(inspector.find(&entry, 1).unwrap().found[0].key, "k51");
}

#[tokio::test]
async fn events_with_one_id_are_all_found_up_to_the_limit() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    for _ in 0..3 {
        let parts = numbered(1..4);
        store.append(append_of(parts, &[])).await.unwrap();
    }
    let search = by_id(store.reads(), "k2");
    assert_eq!((seqs(&search), search.more), (vec![2, 5, 8], false));
    let query = EntryQuery::Id("k2".to_owned());
    let search = store.reads().find(&query, 2).unwrap();
    assert_eq!((seqs(&search), search.more), (vec![2, 5], true));
}

#[tokio::test]
async fn events_of_a_session_are_found_in_both_feeds() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    for (feed, prefix) in [(FeedKind::Audit, ""), (FeedKind::Sessions, "s-1/")] {
        let mut builder = BlockBuilder::new();
        for index in 0..4 {
            let key = format!("{prefix}e{index}");
            let head = Head {
                key: &key,
                event_type: "print",
                code: "",
                time: DAY,
                index,
                session: ["s-1", "s-2"][usize::from(index == 3)],
            };
            builder.push(head, "{}");
        }
        let append = Append {
            feed,
            ..append_of(builder.take(), &[])
        };
        store.append(append).await.unwrap();
    }
    let find = |id: &str, index| {
        let query = EntryQuery::Session {
            id: id.to_owned(),
            index,
        };
        let search = store.reads().find(&query, 10).unwrap();
        let keys = search.found.into_iter().map(|found| found.key);
        keys.collect::<Vec<_>>()
    };
    assert_eq!(
        find("s-1", None),
        ["e0", "e1", "e2", "s-1/e0", "s-1/e1", "s-1/e2"]
    );
    assert_eq!(find("s-1", Some(1)), ["e1", "s-1/e1"]);
    assert!(find("s-3", None).is_empty());
    // Without the session, which is not always known.
    assert_eq!(by_id(store.reads(), "e1").found.len(), 2);
    assert_eq!(by_id(store.reads(), "s-1/e1").found.len(), 1);
}

#[tokio::test]
async fn a_filter_that_lies_hides_no_event() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    blocks(&store, 3).await;
    store.close().await.unwrap();
    let database = Connection::open(directory.path().join("store.db")).unwrap();
    database
        .execute_batch(
            "UPDATE block_filters SET filter = zeroblob(length(filter)) WHERE first_seq = 1;
             DELETE FROM block_filters WHERE first_seq = 51;",
        )
        .unwrap();
    drop(database);
    let inspector = Inspector::open(directory.path()).unwrap();
    for seq in [1, 60, 150] {
        let search = by_id(&inspector, &format!("k{seq}"));
        assert_eq!((seqs(&search), search.without_filter), (vec![seq], 2));
    }
}

#[tokio::test]
async fn a_damaged_block_that_may_hold_the_event_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    blocks(&store, 40).await;
    store.close().await.unwrap();
    let database = Connection::open(directory.path().join("store.db")).unwrap();
    let sql = "UPDATE blocks SET payload = zeroblob(length(payload)) WHERE first_seq = 51";
    database.execute(sql, []).unwrap();
    drop(database);
    let inspector = Inspector::open(directory.path()).unwrap();
    let search = by_id(&inspector, "k60");
    assert!(search.found.is_empty());
    assert!(
        search.unreadable[0].contains("block 51..101 of `teleport/audit`: its checksum differs"),
        "{search:?}"
    );
    assert_eq!(seqs(&by_id(&inspector, "k50")), [50]);
}

/// Its blocks have no filters; they get them while nothing else is written.
#[tokio::test]
async fn blocks_of_format_3_are_searched_before_and_after_they_have_filters() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    blocks(&store, 70).await;
    store.close().await.unwrap();
    let path = directory.path().join("store.db");
    let database = Connection::open(&path).unwrap();
    database
        .execute_batch(
            "DROP TABLE block_filters; DROP INDEX letters_by_key; DROP TABLE tallies; DROP TABLE anchors; DROP TABLE folded_letters; DROP TABLE gaps; DROP TABLE identity; PRAGMA user_version = 3;",
        )
        .unwrap();
    drop(database);
    let store = open(directory.path());
    assert_eq!(seqs(&by_id(store.reads(), "k777")), [777]);
    append(&store, 50).await;
    let deadline = Instant::now() + Duration::from_secs(120);
    while by_id(store.reads(), "k1").without_filter > 0 {
        assert!(Instant::now() < deadline, "the filters are not made");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let search = by_id(store.reads(), "k3550");
    assert_eq!((seqs(&search), search.blocks), (vec![3550], 71));
    assert!(search.read < 5, "{} blocks were read", search.read);
}

#[tokio::test]
async fn entries_whose_commits_are_folded_are_final_and_not_waiting() {
    let directory = tempfile::tempdir().unwrap();
    let store = crate::audit::history(directory.path()).await;
    store.retry("siem", AUDIT, &[60], DAY).await.unwrap();
    store.drop_letters("siem", AUDIT, &[70], DAY).await.unwrap();
    let history = |seq| store.reads().history(AUDIT, seq).unwrap().remove(0);
    // Delivered, dropped, redriven, dropped by the operator, expired.
    for seq in [1, 3, 10, 20, 40] {
        let history = history(seq);
        let is_folded = matches!(history.state, EntryState::Folded { .. });
        assert!(is_folded && history.steps.is_empty(), "{seq}: {history:?}");
    }
    assert_eq!(history(50).state, EntryState::WaitingAgain { ahead: 0 });
    let dead = EntryState::Final(Fate::Dead("400".to_owned()));
    assert_eq!(
        (history(80).state, history(80).letter.is_some()),
        (dead, true)
    );
    // Steps after the folding.
    assert_eq!(history(60).state, EntryState::WaitingAgain { ahead: 1 });
    assert_eq!(history(60).steps.len(), 1);
    assert!(matches!(
        history(70).state,
        EntryState::Final(Fate::Dropped(_))
    ));
    let delivered = EntryState::Final(Fate::Delivered);
    assert_eq!(
        (history(241).state, history(240).steps.len()),
        (EntryState::Waiting { ahead: 0 }, 1)
    );
    assert_eq!(history(181).state, delivered);
    store.close().await.unwrap();
    let database = Connection::open(directory.path().join("store.db")).unwrap();
    let sql = "DELETE FROM commits WHERE first_seq <= 181 AND end_seq > 181";
    assert_eq!(database.execute(sql, []), Ok(1));
    drop(database);
    let inspector = Inspector::open(directory.path()).unwrap();
    let refused = inspector.history(AUDIT, 181).unwrap_err().to_string();
    assert!(refused.contains("is gone"), "{refused}");
}

#[tokio::test]
async fn the_history_of_an_entry_says_what_happened_to_it_in_each_pipeline() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    append(&store, 20).await;
    register(&store, "siem", &[AUDIT]).await;
    register(&store, "archive", &[AUDIT]).await;
    let request = |entries: [Range<u64>; 2], status| RequestRecord {
        method: "POST".to_owned(),
        entries: entries
            .into_iter()
            .filter(|range| !range.is_empty())
            .collect(),
        status,
        ..RequestRecord::default()
    };
    let mut commit = commit_of(&store, "siem", 5..9, |seq| match seq {
        5 => Outcome::Delivered,
        6 => Outcome::Dropped(0),
        _ => Outcome::Dead(1),
    });
    commit.batch.requests = vec![
        request([5..6, 7..9], 400),
        request([5..6, 0..0], 200),
        request([0..0, 8..9], 400),
    ];
    store.commit(commit).await.unwrap();
    let history = |seq| {
        let mut history = store.reads().history(AUDIT, seq).unwrap();
        assert_eq!(history[0].pipeline, "archive");
        history.remove(1)
    };
    let statuses = |seq| {
        let step = history(seq).steps.pop().unwrap();
        let requests = step.requests.into_iter();
        requests.map(|request| request.status).collect::<Vec<_>>()
    };
    assert_eq!(history(4).state, EntryState::Waiting { ahead: 3 });
    assert_eq!(history(10).state, EntryState::Waiting { ahead: 5 });
    assert_eq!(history(5).state, EntryState::Final(Fate::Delivered));
    assert_eq!(statuses(5), [400, 200]);
    let dropped = EntryState::Final(Fate::Dropped("first".to_owned()));
    assert_eq!((history(6).state, statuses(6)), (dropped, vec![]));
    assert_eq!(statuses(8), [400, 400]);
    let dead = Fate::Dead("second".to_owned());
    assert_eq!(history(8).state, EntryState::Final(dead.clone()));
    assert!(history(8).letter.is_some());

    store.retry("siem", AUDIT, &[7, 8], DAY + 1).await.unwrap();
    assert_eq!(history(8).state, EntryState::WaitingAgain { ahead: 1 });
    let mut commit = commit_of(&store, "siem", 8..9, |_| Outcome::Delivered);
    commit.entries = Entries::Redriven(vec![8]);
    store.commit(commit).await.unwrap();
    let delivered = history(8);
    assert_eq!(delivered.state, EntryState::Final(Fate::Delivered));
    let changes: Vec<Change> = delivered
        .steps
        .into_iter()
        .map(|step| step.change)
        .collect();
    assert_eq!(
        changes,
        [
            Change::Outcome(dead),
            Change::Retried,
            Change::Outcome(Fate::Delivered)
        ]
    );
    assert_eq!(history(7).state, EntryState::WaitingAgain { ahead: 0 });

    let later = commit_of(&store, "siem", 12..14, |_| Outcome::Delivered);
    store.commit(later).await.unwrap();
    assert_eq!(history(3).state, EntryState::Waiting { ahead: 2 });
    assert_eq!(history(10).state, EntryState::Waiting { ahead: 5 });
}
