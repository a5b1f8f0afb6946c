//! Audits: what they count, and what they find.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use lockgate_model::{Append, BatchRecord, Books, Day, Entries, Outcome};
use lockgate_store::{
    Audit, AuditQuery, Counted, DeadLetters, Inspector, Ledger, OpenError, Options, Retention,
    Store,
};
use rusqlite::Connection;

use crate::common::*;

/// Milliseconds of a day.
pub const A_DAY: i64 = Day::MILLIS;

/// Where [`history`] stands: twelve days of twenty events, of which eight are gone.
pub const DAYS: i64 = 12;
const GONE: i64 = 8;

/// The day of the events with this number, from 0.
fn day(nth: i64) -> Day {
    Day::of(DAY + nth * A_DAY)
}

pub fn folding(path: &Path, now: &Arc<AtomicI64>) -> Options {
    let clock = now.clone();
    Options {
        retention: Retention {
            age: Some(Duration::from_secs(3600)),
            bytes: None,
        },
        fold_links: 4,
        elapsed: elapsed(now),
        clock: Arc::new(move || clock.load(Ordering::SeqCst)),
        ..options(path)
    }
}

fn fate(seq: u64) -> Outcome {
    match seq {
        seq if seq.is_multiple_of(10) => Outcome::Dead(0),
        seq if seq.is_multiple_of(3) => Outcome::Dropped((seq % 2) as u16),
        _ => Outcome::Delivered,
    }
}

pub async fn commit_day(store: &Store, nth: i64) {
    let first = nth as u64 * 20 + 1;
    let mut commit = commit_of(store, "siem", first..first + 20, fate);
    commit.batch.at = DAY + nth * A_DAY;
    store.commit(commit).await.unwrap();
}

/// Until the store has nothing left to fold. It folds when it has nothing else to do.
pub async fn folded(store: &Store, links: u64) -> Audit {
    for _ in 0..3000 {
        let audit = store.reads().audit(&AuditQuery::default()).unwrap();
        if audit.pipelines[0].epochs[0].chain.folded == links {
            return audit;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("{links} links were never folded");
}

/// One block and one commit a day; letters of the first days are redriven, dropped and expired, and
/// one waits again. Then the first days are removed, and folded as far as they fill a run.
pub async fn history(path: &Path) -> Store {
    let now = Arc::new(AtomicI64::new(DAY));
    let store = Store::open(folding(path, &now)).unwrap();
    register(&store, "siem", &[AUDIT]).await;
    for nth in 0..DAYS {
        let first = nth as u64 * 20 + 1;
        let mut parts = numbered(first..first + 20);
        parts.times.iter_mut().for_each(|time| *time += nth * A_DAY);
        let append = Append {
            read_at: DAY + nth * A_DAY,
            ..append_of(parts, &[])
        };
        store.append(append).await.unwrap();
    }
    for nth in 0..4 {
        commit_day(&store, nth).await;
    }
    store.retry("siem", AUDIT, &[10], DAY).await.unwrap();
    let mut again = commit_of(&store, "siem", 10..11, |_| Outcome::Delivered);
    again.entries = Entries::Redriven(vec![10]);
    store.commit(again).await.unwrap();
    store.drop_letters("siem", AUDIT, &[20], DAY).await.unwrap();
    let before = DAY + 2 * A_DAY;
    assert_eq!(store.expire_letters("siem", before, before).await, Ok(2));
    store.retry("siem", AUDIT, &[50], DAY).await.unwrap();
    for nth in 4..DAYS {
        commit_day(&store, nth).await;
    }
    store.retry("siem", AUDIT, &[190], DAY).await.unwrap();
    assert_eq!(store.reads().verify_chain("siem").unwrap()[0].folded, 0);
    now.store(DAY + GONE * A_DAY + 1_800_000, Ordering::SeqCst);
    let nudge = append_of(Default::default(), &[("c", "x")]);
    store.append(nudge).await.unwrap();
    // 4 commits, 5 operations and 4 commits are due: three runs of four.
    folded(&store, 12).await;
    store
}

#[tokio::test]
async fn an_audit_holds_through_retention_folding_redrives_and_expiry() {
    let directory = tempfile::tempdir().unwrap();
    let store = history(directory.path()).await;
    let audit = store.reads().audit(&AuditQuery::default()).unwrap();
    assert!(audit.findings.is_empty(), "{:?}", audit.findings);
    assert_eq!(audit.blocks, (DAYS - GONE) as u64);
    let epoch = &audit.pipelines[0].epochs[0];
    assert_eq!(
        (epoch.chain.commits, epoch.chain.letter_operations),
        (12, 6)
    );
    let commits: u64 = Connection::open(directory.path().join("store.db"))
        .unwrap()
        .query_row("SELECT count(*) FROM commits", [], |row| row.get(0))
        .unwrap();
    assert_eq!(commits, 5, "the others are folded");
    let days: Vec<(Day, Counted)> = epoch
        .days
        .iter()
        .map(|row| (row.day, row.counted))
        .collect();
    let counted = |nth| match nth {
        0..7 => Counted::Tallies,
        7 => Counted::Outcomes,
        _ => Counted::Events,
    };
    let expected: Vec<_> = (0..DAYS).map(|nth| (day(nth), counted(nth))).collect();
    assert_eq!(days, expected);
    let books = |nth: usize| epoch.days[nth].books;
    let of = |delivered, dropped, dead, waiting| Books {
        read: 20,
        delivered,
        dropped,
        dead,
        waiting,
    };
    // 10 was delivered by a redrive, 20 dropped by the operator; 30 and 40 have expired and stay
    // dead; 50 and 190 wait again.
    assert_eq!(books(0), of(13, 7, 0, 0));
    assert_eq!(books(1), of(12, 6, 2, 0));
    assert_eq!(books(2), of(12, 6, 1, 1));
    assert_eq!(books(9).waiting, 1);
    // Status counts the same from its running tallies.
    let days = store.reads().days("siem").unwrap();
    assert!(
        days.iter()
            .zip(&epoch.days)
            .all(|(left, right)| { *left == (right.day, right.books) })
    );
    let mut sum = Books::default();
    days.iter().for_each(|(_, books)| sum += *books);
    assert_eq!(store.reads().books("siem").unwrap()[0].1, sum);
    let counts = store.letter_counts("siem").await.unwrap();
    assert_eq!((counts.retried, counts.dropped, counts.expired), (3, 1, 2));

    // A letter whose commit is gone is sent back and finished like any other.
    store.retry("siem", AUDIT, &[60], DAY).await.unwrap();
    let redrive = Ledger::redrive(&store, "siem", AUDIT, 9, 9999).await;
    let seqs: Vec<u64> = redrive.unwrap().unwrap().batch.seqs().collect();
    assert_eq!(seqs, [50, 60, 190]);
    store.drop_letters("siem", AUDIT, &[70], DAY).await.unwrap();
    store.reads().verify_chain("siem").unwrap();
    store.close().await.unwrap();
    let now = Arc::new(AtomicI64::new(DAY + GONE * A_DAY + 1_800_000));
    let store = Store::open(folding(directory.path(), &now)).unwrap();
    // The next commit and operation follow those that were folded.
    append(&store, 20).await;
    commit_day(&store, DAYS).await;
    assert_eq!(store.reads().verify_chain("siem").unwrap()[0].commits, 13);
    let only = AuditQuery {
        day: Some(day(9)),
        ..AuditQuery::default()
    };
    let audit = store.reads().audit(&only).unwrap();
    assert_eq!(
        (audit.pipelines[0].epochs[0].days.len(), audit.blocks),
        (1, 1)
    );
}

/// A change to the store, the day that the audit names, and a part of its message.
const TAMPERING: [(&str, Option<i64>, &str); 27] = [
    (
        "UPDATE commits SET at = at + 1 WHERE id = 10",
        Some(9),
        "the commit for entries 181..201: its hash differs",
    ),
    (
        "UPDATE commits SET days = '[]' WHERE id = 10",
        Some(9),
        "the commit for entries 181..201: its hash differs",
    ),
    (
        "UPDATE commits SET reasons = '[\"x\",\"y\"]' WHERE id = 9",
        Some(8),
        "the commit for entries 161..181: its hash differs",
    ),
    (
        "DELETE FROM commits WHERE id = 10",
        Some(9),
        "entries 181..201: they are final, and no commit says what became of them",
    ),
    (
        "DELETE FROM commits WHERE id = 12",
        None,
        "entries 221..241: they are final, and no commit",
    ),
    (
        "DELETE FROM commits WHERE id = 8",
        None,
        "entries 141..161: they are final, and no commit",
    ),
    (
        "UPDATE commits SET id = -id WHERE id IN (9, 10); UPDATE commits SET id = 19 + id WHERE id < 0",
        Some(8),
        "its hash differs",
    ),
    (
        "UPDATE letter_operations SET at = at + 1 WHERE id = 6",
        Some(9),
        "the operation 6 on dead letters (`retry`): its hash differs",
    ),
    (
        "DELETE FROM letter_operations WHERE id = 6",
        None,
        "the end of the chain",
    ),
    (
        "UPDATE generations SET description = '{}'",
        Some(8),
        "its hash differs",
    ),
    (
        "DELETE FROM dead_letters WHERE seq = 200",
        Some(9),
        "the dead letter 200: it is gone",
    ),
    (
        "DELETE FROM dead_letters WHERE seq = 60",
        None,
        "the dead letter 60: it is gone",
    ),
    (
        "UPDATE dead_letters SET reason = 'nothing' WHERE seq = 60",
        Some(2),
        "the dead letter 60: it is not what was written",
    ),
    (
        "UPDATE dead_letters SET redrive = 0 WHERE seq = 50",
        Some(2),
        "the dead letter 50: it is not what was written",
    ),
    (
        "UPDATE folded_letters SET waits = 0 WHERE seq = 50",
        None,
        "the folded letters are not those",
    ),
    (
        "DELETE FROM folded_letters WHERE seq = 60",
        None,
        "the folded letters are not those",
    ),
    (
        "UPDATE anchors SET hash = zeroblob(32) WHERE links = 12",
        None,
        "the anchor after 12 links: it is not what was written",
    ),
    (
        "UPDATE anchors SET watermark = watermark + 1 WHERE links = 12",
        None,
        "the anchor after 12 links: it is not what was written",
    ),
    (
        "UPDATE anchors SET commits = 5 WHERE links = 4",
        None,
        "the anchor after 4 links: it is not what was written",
    ),
    (
        "DELETE FROM anchors WHERE links = 8",
        None,
        "the anchor after 12 links: it is not what was written, or the anchor before it is another one",
    ),
    (
        "DELETE FROM anchors WHERE links = 12",
        None,
        "the folded tallies are not those",
    ),
    (
        "UPDATE tallies SET count = count + 1 WHERE day = 20460 AND outcome = 'delivered'",
        Some(2),
        "the tally `delivered` of the day: it is not what was written",
    ),
    (
        "UPDATE tallies SET folded = folded + 1, count = count + 1 WHERE day = 20460 AND outcome = 'dead'",
        Some(2),
        "the equation of the day: read 20 is not",
    ),
    (
        "UPDATE tallies SET reason = 'x' WHERE day = 20460 AND reason = 'second'",
        None,
        "the folded tallies are not those",
    ),
    (
        "DELETE FROM tallies WHERE day = 20467 AND outcome = 'dropped' AND reason = 'first'",
        Some(9),
        "the tally `dropped` of the day: it is gone",
    ),
    (
        "UPDATE stream_days SET appended = appended + 1 WHERE day = 20467",
        Some(9),
        "the equation of the day: read 21 is not",
    ),
    (
        "DELETE FROM blocks WHERE first_seq = 181",
        Some(10),
        "their block is gone",
    ),
];

#[tokio::test]
async fn every_kind_of_tampering_is_found_and_its_day_named() {
    let directory = tempfile::tempdir().unwrap();
    history(directory.path()).await.close().await.unwrap();
    assert_eq!((day(2).0, day(9).0), (20460, 20467), "as in the table");
    let path = directory.path().join("store.db");
    let original = fs::read(&path).unwrap();
    for (change, nth, said) in TAMPERING {
        let database = Connection::open(&path).unwrap();
        database.execute_batch(change).unwrap();
        database.close().unwrap();
        let tampered = fs::read(&path).unwrap();
        assert!(tampered != original, "{change}");
        let inspector = match Inspector::open(directory.path()) {
            Ok(inspector) => inspector,
            Err(refused) => {
                assert!(refused.to_string().contains(said), "{change}: {refused}");
                fs::write(&path, &original).unwrap();
                continue;
            }
        };
        let audit = inspector.audit(&AuditQuery::default()).unwrap();
        let found = audit.findings.iter().any(|finding| {
            finding.to_string().contains(said) && (nth.is_none() || finding.day == nth.map(day))
        });
        assert!(found, "{change}: {said} is not among {:#?}", audit.findings);
        assert_eq!(audit.findings_total, audit.findings.len() as u64);
        drop(inspector);
        fs::write(&path, &original).unwrap();
    }
    let inspector = Inspector::open(directory.path()).unwrap();
    let audit = inspector.audit(&AuditQuery::default()).unwrap();
    assert!(audit.findings.is_empty(), "{:?}", audit.findings);
}

#[tokio::test]
async fn one_bit_of_an_outcome_is_found_and_its_place_named() {
    let directory = tempfile::tempdir().unwrap();
    history(directory.path()).await.close().await.unwrap();
    let path = directory.path().join("store.db");
    let original = fs::read(&path).unwrap();
    let sql = "SELECT outcomes FROM commits WHERE id = 10";
    let len: Vec<u8> = Connection::open(&path)
        .unwrap()
        .query_row(sql, [], |row| row.get(0))
        .unwrap();
    for bit in 0..len.len() * 8 {
        let database = Connection::open(&path).unwrap();
        let mut outcomes: Vec<u8> = database.query_row(sql, [], |row| row.get(0)).unwrap();
        outcomes[bit / 8] ^= 1 << (bit % 8);
        let change = "UPDATE commits SET outcomes = ?1 WHERE id = 10";
        database.execute(change, [outcomes]).unwrap();
        database.close().unwrap();
        let inspector = Inspector::open(directory.path()).unwrap();
        let audit = inspector.audit(&AuditQuery::default()).unwrap();
        let named = |finding: &lockgate_store::Finding| {
            (finding.pipeline.as_deref(), finding.stream.as_deref()) == (Some("siem"), Some(AUDIT))
                && finding.day == Some(day(9))
                && finding.place == "the commit for entries 181..201"
        };
        assert!(
            audit.findings.iter().any(named),
            "{bit}: {:?}",
            audit.findings
        );
        drop(inspector);
        fs::write(&path, &original).unwrap();
    }
}

#[tokio::test]
async fn the_row_of_a_pipeline_goes_with_its_passes() {
    for (change, said) in [
        ("DELETE FROM pipelines WHERE name = 'siem'", "it is gone"),
        ("DELETE FROM pipelines", "it is gone"),
        ("UPDATE pipelines SET epoch = 3", "it says epoch 3"),
        (
            "UPDATE pipelines SET generation = 9",
            "it says generation 9",
        ),
        ("DELETE FROM epochs", "it says epoch 1, and that is gone"),
        (
            "DELETE FROM streams",
            "its row in `streams` is gone, and `epochs`, `stream_days` have rows of it",
        ),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let store = history(directory.path()).await;
        store.close().await.unwrap();
        let path = directory.path().join("store.db");
        let inspector = Inspector::open(directory.path()).unwrap();
        let database = Connection::open(&path).unwrap();
        database.execute_batch(change).unwrap();
        database.close().unwrap();
        let audit = inspector.audit(&AuditQuery::default()).unwrap();
        let found: Vec<String> = audit.findings.iter().map(ToString::to_string).collect();
        assert!(found.iter().any(|found| found.contains(said)), "{found:?}");
        let problems = inspector.integrity().unwrap().problems;
        assert!(
            problems.iter().any(|problem| problem.contains(said)),
            "{change}: {problems:?}"
        );
        drop(inspector);
        // From such a row, a start would send everything again.
        let refusal = Store::open(options(directory.path())).err().unwrap();
        assert!(refusal.to_string().contains(said), "{change}: {refusal}");
    }
}

/// The row of the pipeline goes with its pass over the other stream.
#[tokio::test]
async fn the_lost_row_of_a_pass_is_found_if_the_pipeline_reads_two_streams() {
    let directory = tempfile::tempdir().unwrap();
    let store = history(directory.path()).await;
    register(&store, "siem", &[AUDIT, "teleport/sessions"]).await;
    store.close().await.unwrap();
    let database = Connection::open(directory.path().join("store.db")).unwrap();
    let deleted = database.execute("DELETE FROM epochs WHERE id = 1", []);
    assert_eq!(deleted, Ok(1));
    database.close().unwrap();
    let said = "the pass of a pipeline with the id 1: its row in `epochs` is gone, and `commits`, \
                `anchors`, `tallies`, `dead_letters` have rows of it";
    let inspector = Inspector::open_to_audit(directory.path()).unwrap();
    let audit = inspector.audit(&AuditQuery::default()).unwrap();
    let found: Vec<String> = audit.findings.iter().map(ToString::to_string).collect();
    assert!(found.iter().any(|found| found.contains(said)), "{found:?}");
    let problems = inspector.integrity().unwrap().problems;
    assert!(problems.contains(&said.to_owned()), "{problems:?}");
    let refusal = Store::open(options(directory.path())).err().unwrap();
    assert!(refusal.to_string().contains(said), "{refusal}");
}

#[tokio::test]
async fn an_audit_checks_the_state_of_plugins_and_the_filters_of_blocks() {
    for (change, said) in [
        (
            "INSERT INTO state VALUES ('siem', 'dedup', 'k', 'v', x'00')",
            "the state of its plugins",
        ),
        (
            "UPDATE block_filters SET filter = zeroblob(length(filter)) WHERE first_seq = 201",
            "the filter of block 201..221: it is not what was written",
        ),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let store = history(directory.path()).await;
        store.close().await.unwrap();
        let database = Connection::open(directory.path().join("store.db")).unwrap();
        assert_eq!(database.execute(change, []), Ok(1));
        database.close().unwrap();
        let inspector = Inspector::open_to_audit(directory.path()).unwrap();
        let audit = inspector.audit(&AuditQuery::default()).unwrap();
        let found: Vec<String> = audit.findings.iter().map(ToString::to_string).collect();
        assert!(
            found.len() == 1 && found[0].contains(said),
            "{change}: {found:?}"
        );
        let problems = inspector.integrity().unwrap().problems;
        assert_eq!(problems.len(), 1, "{problems:?}");
    }
}

/// The store was refused, and nothing was audited.
#[tokio::test]
async fn a_bad_row_of_one_pipeline_does_not_hide_the_others() {
    for (change, said) in [
        ("UPDATE pipelines SET epoch = -1", "it says epoch -1"),
        (
            "UPDATE pipelines SET generation = -1",
            "it says generation -1",
        ),
        (
            "UPDATE pipelines SET dead_bytes = -1",
            "the bytes of its dead letters: -1 are on the books",
        ),
        (
            "UPDATE epochs SET watermark = 7",
            "the row of pipeline `siem` on `teleport/audit` is not what was written",
        ),
        (
            "UPDATE pipelines SET name = CAST(x'ff' || name AS TEXT)",
            "its name is not what was written",
        ),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let store = history(directory.path()).await;
        register(&store, "other", &[AUDIT]).await;
        store.close().await.unwrap();
        let database = Connection::open(directory.path().join("store.db")).unwrap();
        let column = if change.contains("epochs") {
            "pipeline"
        } else {
            "name"
        };
        let change = format!("{change} WHERE {column} = 'siem'");
        assert_eq!(database.execute(&change, []).unwrap(), 1);
        // Another place, which must not be hidden.
        let tampering = "UPDATE stream_days SET appended = appended + 1 WHERE day = 20467";
        database.execute(tampering, []).unwrap();
        database.close().unwrap();
        let inspector = Inspector::open_to_audit(directory.path()).unwrap();
        let audit = inspector.audit(&AuditQuery::default()).unwrap();
        let found: Vec<String> = audit.findings.iter().map(ToString::to_string).collect();
        for said in [said, "pipeline `other`, stream `teleport/audit`"] {
            assert!(
                found.iter().any(|found| found.contains(said)),
                "{change}: {found:#?}"
            );
        }
        assert!(audit.pipelines.iter().any(|found| found.name == "other"));
        let problems = inspector.integrity().unwrap().problems;
        assert!(
            problems.iter().any(|found| found.contains(said)),
            "{problems:#?}"
        );
        // Nothing else trusts such a row.
        let refused = Inspector::open(directory.path())
            .err()
            .map(|error| error.to_string());
        assert!(
            refused.is_some() || change.contains("dead_bytes"),
            "{change}"
        );
    }
}

#[tokio::test]
async fn blocks_that_no_pipeline_reads_are_audited() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    append(&store, 20).await;
    store.close().await.unwrap();
    let database = Connection::open(directory.path().join("store.db")).unwrap();
    let change = "UPDATE blocks SET payload = zeroblob(length(payload))";
    database.execute_batch(change).unwrap();
    database.close().unwrap();
    let inspector = Inspector::open(directory.path()).unwrap();
    let audit = inspector.audit(&AuditQuery::default()).unwrap();
    assert_eq!((audit.blocks, audit.findings.len()), (0, 1), "{audit:?}");
}

#[tokio::test]
async fn a_store_whose_cursors_are_gone_is_refused_and_does_not_pass_an_audit() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    append(&store, 20).await;
    register(&store, "siem", &[AUDIT]).await;
    deliver(&store, "siem", 1..21).await.unwrap();
    store.close().await.unwrap();
    let database = Connection::open(directory.path().join("store.db")).unwrap();
    database.execute_batch("DELETE FROM cursors").unwrap();
    database.close().unwrap();
    let refused = Store::open(options(directory.path())).err().unwrap();
    assert!(matches!(refused, OpenError::Damaged { .. }), "{refused}");
    let refused = refused.to_string();
    for part in [AUDIT, "no cursor", "sent once more", "Restore a backup"] {
        assert!(refused.contains(part), "{refused}");
    }
    let inspector = Inspector::open_to_audit(directory.path()).unwrap();
    for pipeline in [None, Some("siem".to_owned())] {
        let day = None;
        let audit = inspector.audit(&AuditQuery { pipeline, day }).unwrap();
        assert_eq!(audit.findings.len(), 1, "{audit:?}");
        let finding = &audit.findings[0];
        assert_eq!(finding.stream.as_deref(), Some(AUDIT), "{finding}");
        assert!(finding.to_string().contains("no cursor"), "{finding}");
    }
    let problems = inspector.integrity().unwrap().problems;
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].contains("no cursor"), "{problems:?}");
}

/// Removed links can never be verified again.
#[tokio::test]
async fn damaged_commits_are_not_folded() {
    let directory = tempfile::tempdir().unwrap();
    let now = Arc::new(AtomicI64::new(DAY));
    let store = Store::open(folding(directory.path(), &now)).unwrap();
    register(&store, "siem", &[AUDIT]).await;
    for nth in 0..6 {
        append(&store, 20).await;
        commit_day(&store, nth).await;
    }
    store.close().await.unwrap();
    let path = directory.path().join("store.db");
    let change = "UPDATE commits SET batch = '{}' WHERE id = 2";
    let database = Connection::open(&path).unwrap();
    database.execute(change, []).unwrap();
    database.close().unwrap();
    now.store(DAY + 2 * A_DAY, Ordering::SeqCst);
    let store = Store::open(folding(directory.path(), &now)).unwrap();
    let nudge = append_of(Default::default(), &[("c", "x")]);
    store.append(nudge).await.unwrap();
    store.close().await.unwrap();
    let store = Store::open(folding(directory.path(), &now)).unwrap();
    register(&store, "other", &[AUDIT]).await;
    store.close().await.unwrap();
    let audit = Inspector::open(directory.path()).unwrap();
    let audit = audit.audit(&AuditQuery::default()).unwrap();
    let chain = &audit
        .pipelines
        .iter()
        .find(|found| found.name == "siem")
        .unwrap()
        .epochs[0]
        .chain;
    assert_eq!((chain.commits, chain.folded), (6, 0));
    assert!(
        audit.findings[0].place.contains("21..41"),
        "{:?}",
        audit.findings
    );
}

#[tokio::test]
async fn reasons_past_the_limit_share_a_tally() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    register(&store, "siem", &[AUDIT]).await;
    append(&store, 20).await;
    append(&store, 20).await;
    for first in [1, 21] {
        let mut commit = commit_of(&store, "siem", first..first + 20, |seq| {
            Outcome::Dropped((seq - first) as u16)
        });
        commit.reasons = (first..first + 20)
            .map(|nth| format!("reason {nth}"))
            .collect();
        commit.batch = BatchRecord {
            at: DAY,
            ..BatchRecord::default()
        };
        store.commit(commit).await.unwrap();
    }
    store.reads().verify_chain("siem").unwrap();
    assert_eq!(store.reads().books("siem").unwrap()[0].1.dropped, 40);
    let database = Connection::open(directory.path().join("store.db")).unwrap();
    let sql = "SELECT count(*), max(count) FILTER (WHERE reason = 'other reasons') FROM tallies";
    let found: (u64, u64) = database
        .query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap();
    assert_eq!(found, (33, 8));
}
