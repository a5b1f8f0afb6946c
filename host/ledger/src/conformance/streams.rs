//! Appends, cursors, and the end of a ledger.

use std::collections::BTreeMap;

use lockgate_model::{Append, BlockParts, CursorUpdate};

use super::Subject;
use super::support::*;
use crate::{CodeDigests, DeadLetters, Ledger, LedgerError};

pub async fn appends_number_their_events_and_move_cursors<S: Subject>() {
    let mut subject = S::new(None);
    let ledger = subject.open();
    let mut head = ledger.head(AUDIT);
    assert_eq!(*head.borrow_and_update(), 1);
    let append = events(1, 30, 0);
    let parts = append.events.clone();
    let block = ledger.append(append).await.unwrap().unwrap();
    assert_eq!((block.range(), block.parts()), (1..31, &parts));
    head.changed().await.unwrap();
    assert_eq!(*head.borrow_and_update(), 31);
    append_more(&ledger).await;
    assert_eq!(ledger.cached(AUDIT, 31).unwrap().first_seq, 31);

    subject.end(ledger).await;
    let ledger = subject.open();
    assert_eq!(*ledger.head(AUDIT).borrow(), 36);
    let found = ledger.block_at(AUDIT, 30).await.unwrap().unwrap();
    assert_eq!(found, block);
    assert_eq!(ledger.block_at(AUDIT, 36).await.unwrap(), None);
    assert_eq!(ledger.block_at("teleport/sessions", 1).await.unwrap(), None);
    let cursors = BTreeMap::from([("next".to_owned(), "36".to_owned())]);
    assert_eq!(ledger.cursors("teleport").await.unwrap(), cursors);
    assert!(ledger.cursors("other").await.unwrap().is_empty());
}

async fn append_more(ledger: &impl Ledger) {
    append(ledger, 5).await;
}

pub async fn cursors_move_without_events<S: Subject>() {
    let mut subject = S::new(None);
    let ledger = subject.open();
    append(&ledger, 1).await;
    let cursor = |key: &str, value: Option<&str>| CursorUpdate {
        key: key.to_owned(),
        value: value.map(str::to_owned),
    };
    let moved = Append {
        events: BlockParts::default(),
        cursors: vec![cursor("next", None), cursor("other", Some("7"))],
        ..events(2, 0, 0)
    };
    assert_eq!(ledger.append(moved).await.unwrap(), None);
    subject.end(ledger).await;
    let ledger = subject.open();
    let cursors = BTreeMap::from([("other".to_owned(), "7".to_owned())]);
    assert_eq!(ledger.cursors("teleport").await.unwrap(), cursors);
    assert_eq!(*ledger.head(AUDIT).borrow(), 2);
}

pub async fn a_closed_ledger_accepts_nothing<S: Subject>() {
    let mut subject = S::new(None);
    let ledger = subject.open();
    append(&ledger, 3).await;
    register(&ledger, SIEM).await;
    let commit = commit(&ledger, SIEM, 1..3, delivered).await;
    let other = ledger.clone();
    let mut failed = other.failed();
    assert_eq!(*failed.borrow_and_update(), None);
    ledger.close().await.unwrap();
    let closed = failed
        .wait_for(Option::is_some)
        .await
        .unwrap()
        .clone()
        .unwrap();
    assert!(matches!(closed, LedgerError::Closed { full: false, .. }));
    assert_eq!(other.append(events(4, 1, 0)).await, Err(closed.clone()));
    assert_eq!(other.commit(commit).await, Err(closed.clone()));
    assert_eq!(
        other.retry(SIEM, AUDIT, &[1], DAY).await,
        Err(closed.clone())
    );
    assert_eq!(other.cursors("teleport").await, Err(closed.clone()));
    assert_eq!(other.dead_letters(&all()).await, Err(closed));
    subject.end(other).await;
    let ledger = subject.open();
    assert_eq!(*ledger.head(AUDIT).borrow(), 4);
}

pub async fn code_digests_are_kept_and_replaced<S: Subject>() {
    let mut subject = S::new(None);
    let ledger = subject.open();
    assert_eq!(ledger.code_digest("a").await.unwrap(), None);
    ledger.keep_code_digest("a", [1; 32], DAY).await.unwrap();
    ledger.keep_code_digest("b", [2; 32], DAY).await.unwrap();
    ledger.keep_code_digest("a", [3; 32], DAY).await.unwrap();
    subject.end(ledger).await;
    let ledger = subject.open();
    assert_eq!(ledger.code_digest("a").await.unwrap(), Some([3; 32]));
    assert_eq!(ledger.code_digest("b").await.unwrap(), Some([2; 32]));
}
