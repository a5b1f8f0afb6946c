//! Damaged blocks: they are named, repaired, read again or given up.

use std::path::Path;

use lockgate_model::{Block, BlockBuilder, Books, Entries, FeedKind, Head, Outcome};
use lockgate_store::{DeadLetters, Ledger, LedgerError, Store};

use crate::common::*;

/// Five blocks of fifty events; `siem` is done with the first two. The block that begins at
/// `first_seq` is damaged below SQLite's notice.
pub async fn with_a_damaged_block(directory: &Path, first_seq: u64) -> Store {
    let store = open(directory);
    for _ in 0..5 {
        append(&store, 50).await;
    }
    register(&store, "siem", &[AUDIT]).await;
    deliver(&store, "siem", 1..101).await.unwrap();
    store.close().await.unwrap();
    let database = rusqlite::Connection::open(directory.join("store.db")).unwrap();
    let sql = "UPDATE blocks SET payload = zeroblob(length(payload)) WHERE first_seq = ?1";
    assert_eq!(database.execute(sql, [first_seq]).unwrap(), 1);
    drop(database);
    open(directory)
}

/// Changes one row below SQLite's notice, while the store is closed.
pub async fn changed(directory: &Path, store: Store, sql: &str) -> Store {
    store.close().await.unwrap();
    let database = rusqlite::Connection::open(directory.join("store.db")).unwrap();
    assert_eq!(database.execute(sql, []).unwrap(), 1, "{sql}");
    drop(database);
    open(directory)
}

#[tokio::test]
async fn a_damaged_block_in_any_place_is_named_and_can_be_given_up() {
    for (first_seq, unfinished) in [(1, 0), (101, 50), (151, 50), (201, 50)] {
        let directory = tempfile::tempdir().unwrap();
        let store = with_a_damaged_block(directory.path(), first_seq).await;
        append(&store, 50).await;
        for seq in (1..301).step_by(50) {
            let is_damaged = seq == first_seq;
            assert_eq!(store.block_at(AUDIT, seq).is_err(), is_damaged, "{seq}");
        }
        let integrity = store.reads().integrity().unwrap();
        let damaged: Vec<_> = integrity
            .damaged
            .iter()
            .map(|block| &block.entries)
            .collect();
        assert_eq!(damaged, [&(first_seq..first_seq + 50)]);
        assert!(
            integrity.problems[0].contains(&format!("block {first_seq}..")),
            "{integrity:?}"
        );
        assert_eq!((integrity.blocks, integrity.events), (6, 300));

        let refused = store.write_off(AUDIT, 51, DAY).await.unwrap_err();
        assert!(matches!(refused, LedgerError::Conflict(_)), "{refused}");
        let written_off = store.write_off(AUDIT, first_seq, DAY).await.unwrap();
        assert_eq!(written_off, unfinished);
        let books = store.reads().books("siem").unwrap()[0].1;
        let expected = Books {
            read: 300,
            delivered: 100,
            dropped: 0,
            dead: unfinished,
            waiting: 200 - unfinished,
        };
        assert_eq!(books, expected);
        let days = store.reads().days("siem").unwrap();
        assert!(days.iter().all(|(_, books)| books.balance()), "{days:?}");
        let letters = letters_of(store.reads(), "siem", 100).unwrap();
        assert_eq!(letters.len() as u64, unfinished);
        if let Some(kept) = letters.first() {
            let letter = &kept.letter;
            assert_eq!(letter.key, format!("k{}", letter.seq));
            assert!(letter.payload.is_empty() && letter.raw);
            assert!(letter.reason.contains("is damaged"), "{}", letter.reason);
            let history = store.reads().history(AUDIT, letter.seq).unwrap();
            assert_eq!(history[0].steps.len(), 1);
        }
        store.close().await.unwrap();
    }
}

/// Whatever is left of its columns.
#[tokio::test]
async fn a_damaged_block_gets_its_events_back_and_no_others() {
    for (first_seq, column) in [(1, "payload"), (101, "heads"), (201, "payload")] {
        let directory = tempfile::tempdir().unwrap();
        let store = with_a_damaged_block(directory.path(), first_seq).await;
        store.close().await.unwrap();
        let database = rusqlite::Connection::open(directory.path().join("store.db")).unwrap();
        let sql =
            format!("UPDATE blocks SET {column} = zeroblob(length({column})) WHERE first_seq = ?1");
        database.execute(&sql, [first_seq]).unwrap();
        drop(database);
        let store = open(directory.path());
        let events = |parts| Block::new(AUDIT.into(), FeedKind::Audit, 1, 0, parts);
        let right = numbered(first_seq..first_seq + 50);
        let keys: Vec<String> = (first_seq..first_seq + 50)
            .map(|nth| format!("k{nth}"))
            .collect();
        let wrong = crate::common::events(&keys, |key| format!(r#"{{"uid":"{key}","x":1}}"#));
        for refused in [numbered(first_seq..first_seq + 49), wrong] {
            let refused = store.restore(AUDIT, first_seq, events(refused)).await;
            assert!(
                matches!(refused, Err(LedgerError::Conflict(_))),
                "{refused:?}"
            );
            assert!(store.block_at(AUDIT, first_seq).is_err());
        }
        store
            .restore(AUDIT, first_seq, events(right.clone()))
            .await
            .unwrap();
        let block = store.block_at(AUDIT, first_seq).unwrap().unwrap();
        assert_eq!(block.parts(), &right);
        let integrity = store.reads().integrity().unwrap();
        assert_eq!(integrity.problems, [] as [String; 0]);
        let again = store.restore(AUDIT, first_seq, events(right)).await;
        assert!(again.is_err_and(|error| error.to_string().contains("is not damaged")));
        store.close().await.unwrap();
    }
}

/// Five sound blocks of fifty events; `siem` is done with the first two.
async fn sound(directory: &Path) -> Store {
    let store = open(directory);
    for _ in 0..5 {
        append(&store, 50).await;
    }
    register(&store, "siem", &[AUDIT]).await;
    deliver(&store, "siem", 1..101).await.unwrap();
    store
}

#[tokio::test]
async fn a_row_whose_events_are_sound_is_repaired_without_the_source() {
    for first_seq in [51, 151, 201] {
        for change in [
            "count = count | 256",
            "count = count | 1 << 20",
            "count = 3",
            "count = -1",
            "codec = codec + 4",
            "read_at = read_at | 1 << 40",
            "min_time = min_time + 1",
            "max_time = max_time | 1 << 62",
            "bytes = bytes + 1",
            "first_seq = first_seq + 1",
            "first_seq = first_seq + 10000",
            "first_seq = -first_seq",
            "stream_id = 99",
            "checksum = CAST(substr(checksum, 1, 31) || x'00' AS BLOB)",
        ] {
            let directory = tempfile::tempdir().unwrap();
            let store = sound(directory.path()).await;
            let before = store.block_at(AUDIT, first_seq).unwrap();
            let sql = format!("UPDATE blocks SET {change} WHERE first_seq = {first_seq}");
            let store = changed(directory.path(), store, &sql).await;
            let place = format!("{first_seq}, {change}");
            let integrity = store.reads().integrity().unwrap();
            let damaged: Vec<_> = integrity
                .damaged
                .iter()
                .map(|block| &block.entries)
                .collect();
            assert_eq!(damaged, [&(first_seq..first_seq + 50)], "{place}");
            assert_eq!(store.mend(AUDIT, first_seq).await, Ok(true), "{place}");
            assert_eq!(store.block_at(AUDIT, first_seq).unwrap(), before, "{place}");
            let integrity = store.reads().integrity().unwrap();
            assert_eq!(integrity.problems, [] as [String; 0], "{place}");
            assert_eq!(store.mend(AUDIT, first_seq).await, Ok(false), "{place}");
            store.close().await.unwrap();
        }
    }
}

/// Its row says that it reaches into the next one, and its events are damaged, too.
#[tokio::test]
async fn entries_of_a_sound_neighbour_are_never_given_up() {
    for count in ["count | 256", "count | 1 << 20", "-1"] {
        let directory = tempfile::tempdir().unwrap();
        let store = sound(directory.path()).await;
        let sql = format!(
            "UPDATE blocks SET count = {count}, payload = zeroblob(length(payload)) WHERE first_seq = 101"
        );
        let store = changed(directory.path(), store, &sql).await;
        assert_eq!(store.mend(AUDIT, 101).await, Ok(false));
        assert!(store.write_off(AUDIT, 151, DAY).await.is_err());
        assert_eq!(store.write_off(AUDIT, 101, DAY).await, Ok(50), "{count}");
        let books = store.reads().books("siem").unwrap()[0].1;
        assert_eq!((books.dead, books.waiting), (50, 100), "{count}");
        assert_eq!(
            store.block_at(AUDIT, 151).unwrap().unwrap().range(),
            151..201
        );
        store.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_block_whose_row_is_gone_is_restored_or_given_up() {
    for (first_seq, unfinished) in [(1, 0), (51, 0), (101, 50), (201, 50)] {
        let directory = tempfile::tempdir().unwrap();
        let store = sound(directory.path()).await;
        let before = store.block_at(AUDIT, first_seq).unwrap();
        let sql = format!("DELETE FROM blocks WHERE first_seq = {first_seq}");
        let store = changed(directory.path(), store, &sql).await;
        let integrity = store.reads().integrity().unwrap();
        assert_eq!(integrity.damaged[0].entries, first_seq..first_seq + 50);
        assert_eq!(integrity.damaged.len(), 1, "{integrity:?}");
        let times = integrity.damaged[0].times;
        assert!(times.0 <= DAY && times.1 >= DAY + 49 * 3_600_000);
        assert_eq!(store.mend(AUDIT, first_seq).await, Ok(false));
        // The source still has the events of the others, too.
        let events = |range| Block::new(AUDIT.into(), FeedKind::Audit, 1, 0, numbered(range));
        let fewer = store
            .restore(AUDIT, first_seq, events(first_seq..first_seq + 49))
            .await;
        assert!(fewer.is_err());
        let written_off = store.write_off(AUDIT, first_seq, DAY).await;
        assert_eq!(written_off, Ok(unfinished));
        let days = store.reads().days("siem").unwrap();
        assert!(days.iter().all(|(_, books)| books.balance()), "{days:?}");
        store
            .restore(AUDIT, first_seq, events(first_seq..first_seq + 50))
            .await
            .unwrap();
        let after = store.block_at(AUDIT, first_seq).unwrap();
        assert_eq!(after.unwrap().parts(), before.unwrap().parts());
        let integrity = store.reads().integrity().unwrap();
        assert_eq!(integrity.problems, [] as [String; 0]);
        store.close().await.unwrap();
    }
}

/// The events of several blocks, as the source has them now.
fn read_again(blocks: &[u64]) -> Block {
    let mut builder = BlockBuilder::new();
    for &first in blocks {
        let parts = numbered(first..first + 50);
        let block = Block::new(AUDIT.into(), FeedKind::Audit, 1, 0, parts);
        for row in 0..block.len() {
            let event = block.view(row);
            let head = Head {
                key: event.key,
                event_type: event.event_type,
                code: event.code,
                time: event.time,
                index: event.index,
                session: "",
            };
            builder.push(head, event.payload);
        }
    }
    Block::new(AUDIT.into(), FeedKind::Audit, 1, 0, builder.take())
}

/// They were refused, because the source has more events than one of them had.
#[tokio::test]
async fn neighbouring_blocks_whose_rows_are_gone_are_restored() {
    const NO_FILTERS: &str = "DELETE FROM block_filters";
    for (blocks, filters) in [
        ([1, 51], ""),
        ([51, 101], ""),
        ([151, 201], ""),
        ([101, 201], ""),
        ([1, 51], NO_FILTERS),
        ([101, 201], NO_FILTERS),
    ] {
        // In either order: the first may be one that is not restored.
        for order in [[0, 1], [1, 0]] {
            let directory = tempfile::tempdir().unwrap();
            let store = sound(directory.path()).await;
            let before = blocks.map(|first| store.block_at(AUDIT, first).unwrap().unwrap());
            store.close().await.unwrap();
            let database = rusqlite::Connection::open(directory.path().join("store.db")).unwrap();
            for first in blocks {
                let sql = "DELETE FROM blocks WHERE first_seq = ?1";
                assert_eq!(database.execute(sql, [first]).unwrap(), 1);
            }
            database.execute_batch(filters).unwrap();
            drop(database);
            let store = open(directory.path());
            let place = format!("{blocks:?}, {filters}, {order:?}");
            let integrity = store.reads().integrity().unwrap();
            let damaged: Vec<_> = integrity
                .damaged
                .iter()
                .map(|block| block.entries.clone())
                .collect();
            assert_eq!(damaged, blocks.map(|first| first..first + 50), "{place}");
            let events = read_again(&[1, 51, 101, 151, 201]);
            for nth in order {
                let restored = store.restore(AUDIT, blocks[nth], events.clone()).await;
                assert_eq!(restored, Ok(()), "{place}");
            }
            for (first, before) in blocks.iter().zip(before) {
                let after = store.block_at(AUDIT, *first).unwrap().unwrap();
                assert_eq!(after.parts(), before.parts(), "{place}");
            }
            let integrity = store.reads().integrity().unwrap();
            assert_eq!(integrity.problems, [] as [String; 0], "{place}");
            store.close().await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_block_that_is_not_restored_gets_a_reason_that_is_true() {
    let directory = tempfile::tempdir().unwrap();
    let store = sound(directory.path()).await;
    let sql = "DELETE FROM blocks WHERE first_seq = 101";
    let store = changed(directory.path(), store, sql).await;
    let refusal = async |events: Block| {
        let refused = store.restore(AUDIT, 101, events).await;
        refused.unwrap_err().to_string()
    };
    let fewer = numbered(101..149);
    let fewer = refusal(Block::new(AUDIT.into(), FeedKind::Audit, 1, 0, fewer)).await;
    assert!(
        fewer.contains("had 50 events, and of those that no other block has the source has 48 now"),
        "{fewer}"
    );
    let others = refusal(read_again(&[301, 351])).await;
    assert!(
        others.contains("nothing says which of the 100 that the source has now"),
        "{others}"
    );
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_damaged_filter_is_made_again() {
    let directory = tempfile::tempdir().unwrap();
    let store = sound(directory.path()).await;
    let sql = "UPDATE block_filters SET filter = zeroblob(length(filter)) WHERE first_seq = 51";
    let store = changed(directory.path(), store, sql).await;
    let integrity = store.reads().integrity().unwrap();
    assert_eq!(integrity.damaged_filters, [(AUDIT.to_owned(), 51)]);
    assert_eq!(store.mend(AUDIT, 51).await, Ok(true));
    let integrity = store.reads().integrity().unwrap();
    assert_eq!(integrity.problems, [] as [String; 0]);
    store.close().await.unwrap();
}

/// They were dead letters again, although their events were there.
#[tokio::test]
async fn letters_that_were_written_off_get_their_events_back_once_the_block_is_repaired() {
    let directory = tempfile::tempdir().unwrap();
    let store = with_a_damaged_block(directory.path(), 101).await;
    register(&store, "siem", &[AUDIT]).await;
    store.write_off(AUDIT, 101, DAY).await.unwrap();
    store.retry("siem", AUDIT, &[101, 150], DAY).await.unwrap();
    let redriven = async || {
        let redrive = Ledger::redrive(&store, "siem", AUDIT, 9, 9999).await;
        let batch = redrive.unwrap().unwrap().batch;
        let events = batch.slices.iter().flat_map(|slice| {
            let rows = slice.rows.clone();
            rows.map(|row| {
                (
                    slice.block.view(row).payload.to_owned(),
                    slice.block.raw(row).is_some(),
                )
            })
        });
        events.collect::<Vec<_>>()
    };
    assert_eq!(
        redriven().await,
        [(String::new(), true), (String::new(), true)]
    );
    let events = Block::new(AUDIT.into(), FeedKind::Audit, 1, 0, numbered(101..151));
    let expected = [0, 49].map(|row| (events.view(row).payload.to_owned(), false));
    store.restore(AUDIT, 101, events).await.unwrap();
    assert_eq!(redriven().await, expected);
    for seq in [101, 150] {
        let mut commit = commit_of(&store, "siem", seq..seq + 1, |_| Outcome::Delivered);
        commit.entries = Entries::Redriven(vec![seq]);
        store.commit(commit).await.unwrap();
    }
    store.reads().verify_chain("siem").unwrap();
    let days = store.reads().days("siem").unwrap();
    assert!(days.iter().all(|(_, books)| books.balance()), "{days:?}");
    store.close().await.unwrap();
}
