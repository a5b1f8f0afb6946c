//! Reports of audits, and what a later comparison with one finds.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use lockgate_store::{
    AuditQuery, AuditReport, Comparison, DeadLetters, Inspector, Ledger, ReportError, Store,
};
use rusqlite::Connection;
use sha2::{Digest, Sha256};

use crate::audit::{A_DAY, DAYS, commit_day, folded, folding, history};
use crate::common::*;

#[tokio::test]
async fn a_report_is_compared_with_the_store_later() {
    let directory = tempfile::tempdir().unwrap();
    let store = history(directory.path()).await;
    let report_of = |store: &Store| {
        let audit = store.reads().audit(&AuditQuery::default()).unwrap();
        assert!(audit.findings.is_empty());
        store.reads().audit_report(&audit, DAY).unwrap()
    };
    let text = report_of(&store);
    let report = AuditReport::parse(&text).unwrap();
    let compare = |store: &Store, report: &AuditReport| {
        let found = store.reads().compare(report).unwrap().unwrap().1;
        assert!(!found.is_without_blocks);
        // A test of their own is about blocks.
        Comparison {
            blocks: 0,
            removed_blocks: 0,
            ..found
        }
    };
    let exact = Comparison {
        exact: 1,
        ..Comparison::default()
    };
    assert_eq!(compare(&store, &report), exact);

    // Later events change nothing that the report counts.
    append(&store, 20).await;
    commit_day(&store, DAYS).await;
    store.retry("siem", AUDIT, &[60], DAY).await.unwrap();
    store.drop_letters("siem", AUDIT, &[70], DAY).await.unwrap();
    assert_eq!(compare(&store, &report), exact);
    let later = AuditReport::parse(&report_of(&store)).unwrap();

    // A changed report, and a changed digest.
    let (body, digest) = text.split_once(r#""sha256":"#).unwrap();
    for changed in [
        text.replacen(r#""delivered":13"#, r#""delivered":14"#, 1),
        text.replacen(r#""made-at":1"#, r#""made-at":2"#, 1),
        format!(r#"{body}"sha256":"x{}"#, &digest[1..]),
    ] {
        let refused = AuditReport::parse(&changed);
        assert!(
            matches!(refused, Err(ReportError::Changed { .. })),
            "{refused:?}"
        );
    }

    // Another store, and an older copy of this one.
    let path = directory.path().join("store.db");
    store.close().await.unwrap();
    let other = tempfile::tempdir().unwrap();
    let another = history(other.path()).await;
    let refused = another.reads().compare(&report).unwrap();
    assert!(matches!(refused, Err(ReportError::AnotherStore { .. })));
    let is_found = |change: &str, report: &AuditReport, said: &str| {
        let original = fs::read(&path).unwrap();
        let database = Connection::open(&path).unwrap();
        database.execute_batch(change).unwrap();
        database.close().unwrap();
        assert!(fs::read(&path).unwrap() != original, "{change}");
        let inspector = Inspector::open(directory.path()).unwrap();
        let found = inspector.compare(report).unwrap().unwrap().1.findings;
        let found: Vec<String> = found.iter().map(ToString::to_string).collect();
        assert!(
            found.iter().any(|found| found.contains(said)),
            "{change}: {found:?}"
        );
        drop(inspector);
        fs::write(&path, original).unwrap();
    };
    is_found(
        "DELETE FROM commits WHERE id > 9; DELETE FROM letter_operations",
        &report,
        "the report has 18 links, and the store 14",
    );
    is_found(
        "UPDATE commits SET days = '[]' WHERE id = 12",
        &report,
        "the counts of the day",
    );
    is_found(
        "UPDATE anchors SET hash = zeroblob(32) WHERE links = 4",
        &report,
        "the anchor after 4 links: it is not the one in the report",
    );

    // The end of the report is folded: what cannot change any more has not.
    let now = Arc::new(AtomicI64::new(DAY));
    let store = Store::open(folding(directory.path(), &now)).unwrap();
    now.store(DAY + 90 * A_DAY, Ordering::SeqCst);
    register(&store, "siem", &[AUDIT]).await;
    let nudge = append_of(Default::default(), &[("c", "x")]);
    store.append(nudge).await.unwrap();
    folded(&store, 20).await;
    let by_anchor = Comparison {
        by_anchor: 1,
        ..Comparison::default()
    };
    assert_eq!(compare(&store, &report), by_anchor);
    assert_eq!(compare(&store, &later), exact);
    store.close().await.unwrap();
    is_found(
        "UPDATE tallies SET count = count - 1, folded = folded - 1 WHERE day = 20459 AND outcome = 'delivered'",
        &report,
        "the counts of the day",
    );
}

/// Nothing has happened to these events yet: no commit names their blocks.
#[tokio::test]
async fn a_report_vouches_for_events_that_wait() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    for _ in 0..40 {
        append(&store, 20).await;
    }
    register(&store, "siem", &[AUDIT]).await;
    let audit = store.reads().audit(&AuditQuery::default()).unwrap();
    assert!(audit.findings.is_empty(), "{:?}", audit.findings);
    let text = store.reads().audit_report(&audit, DAY).unwrap();
    let report = AuditReport::parse(&text).unwrap();
    append(&store, 20).await;
    let compare = |store: &Store| store.reads().compare(&report).unwrap().unwrap().1;
    let found = compare(&store);
    assert_eq!((found.blocks, found.findings.len()), (40, 0), "{found:?}");
    store.close().await.unwrap();

    // What another program could do that knows how rows are guarded: all of the store agrees with
    // itself.
    let path = directory.path().join("store.db");
    let original = fs::read(&path).unwrap();
    let forged = |next: u64, events: std::ops::Range<u64>| {
        let place = tempfile::tempdir().unwrap();
        let source = tempfile::tempdir().unwrap();
        fs::write(place.path().join("store.db"), &original).unwrap();
        fs::write(source.path().join("store.db"), &original).unwrap();
        let database = Connection::open(place.path().join("store.db")).unwrap();
        let gone = 821 - next;
        let sql = format!(
            "DELETE FROM blocks WHERE first_seq >= {next}; DELETE FROM block_filters WHERE first_seq >= {next}; \
             UPDATE stream_days SET appended = appended - {gone}"
        );
        database.execute_batch(&sql).unwrap();
        let (id, name, feed, bytes, duplicates): (i64, String, String, i64, i64) = database
            .query_row(
                "SELECT id, name, feed, (SELECT sum(bytes) FROM blocks), duplicates FROM streams",
                [],
                |row| {
                    Ok((
                        row.get(0)?,
                        row.get(1)?,
                        row.get(2)?,
                        row.get(3)?,
                        row.get(4)?,
                    ))
                },
            )
            .unwrap();
        let mut hasher = Sha256::new();
        hasher.update(id.to_be_bytes());
        for text in [&name, &feed] {
            hasher.update((text.len() as u64).to_be_bytes());
            hasher.update(text);
        }
        for int in [next as i64, 1, bytes, duplicates] {
            hasher.update(int.to_be_bytes());
        }
        let checksum = hasher.finalize()[..16].to_vec();
        database
            .execute(
                "UPDATE streams SET next_seq = ?1, bytes = ?2, checksum = ?3",
                rusqlite::params![next, bytes, checksum],
            )
            .unwrap();
        database.close().unwrap();
        (place, events)
    };
    let (place, _) = forged(721, 0..0);
    let inspector = Inspector::open(place.path()).unwrap();
    let (audit, found) = inspector.compare(&report).unwrap().unwrap();
    assert!(audit.findings.is_empty(), "{:?}", audit.findings);
    let found: Vec<String> = found.findings.iter().map(ToString::to_string).collect();
    for said in [
        "the end of the stream: the report has entries 1..801, and the store 1..721",
        "the events read of the day",
        "the blocks of entries 641..801: they are not those in the report",
    ] {
        assert!(found.iter().any(|found| found.contains(said)), "{found:?}");
    }

    // The same number of other events in their place.
    let (place, events) = forged(781, 2000..2020);
    let store = open(place.path());
    for first in [events.start, events.end] {
        store
            .append(append_of(numbered(first..first + 20), &[("cursor", "9")]))
            .await
            .unwrap();
    }
    let (audit, found) = store.reads().compare(&report).unwrap().unwrap();
    assert!(audit.findings.is_empty(), "{:?}", audit.findings);
    let said = "the blocks of entries 641..801: they are not those in the report";
    assert!(found.findings[0].to_string().contains(said), "{found:?}");
    store.close().await.unwrap();
}

/// It says nothing about events that waited, and that is said.
#[tokio::test]
async fn a_report_of_an_earlier_release_is_compared_as_far_as_it_goes() {
    let directory = tempfile::tempdir().unwrap();
    let store = history(directory.path()).await;
    let audit = store.reads().audit(&AuditQuery::default()).unwrap();
    let text = store.reads().audit_report(&audit, DAY).unwrap();
    let mut document: serde_json::Value = serde_json::from_str(&text).unwrap();
    let report = document["report"].as_object_mut().unwrap();
    report.insert("version".to_owned(), 1.into());
    report.remove("streams").unwrap();
    report.remove("gaps").unwrap();
    let body = document["report"].to_string();
    let digest: String = Sha256::digest(&body)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    document["sha256"] = digest.into();
    let report = AuditReport::parse(&document.to_string()).unwrap();
    let found = store.reads().compare(&report).unwrap().unwrap().1;
    let expected = Comparison {
        exact: 1,
        is_without_blocks: true,
        is_without_gaps: true,
        ..Comparison::default()
    };
    assert_eq!(found, expected);
    store.close().await.unwrap();
}
