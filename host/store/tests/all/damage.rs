//! Damaged files, each part of them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use lockgate_model::{Block, Books, Entries, FeedKind, Outcome};
use lockgate_store::{
    ChainHead, DeadLetters, Inspector, KeptLetter, Ledger, LedgerError, LetterQuery, OpenError,
    Reads, Store,
};

use crate::common::*;

/// All that a user reads from a store.
#[derive(Debug, PartialEq)]
struct Contents {
    blocks: Vec<Block>,
    cursors: BTreeMap<String, String>,
    books: Vec<(String, Books)>,
    letters: Vec<KeptLetter>,
    chain: Vec<ChainHead>,
}

fn contents(store: &Reads) -> Result<Contents, LedgerError> {
    // First: it vouches for what the others read.
    let chain = store.verify_chain("siem")?;
    let (mut blocks, mut seq) = (Vec::new(), 1);
    while let Some(block) = store.block_at(AUDIT, seq)? {
        seq = block.range().end;
        blocks.push(Block::clone(&block));
    }
    let (cursors, books, letters) = (
        store.cursors("teleport")?,
        store.books("siem")?,
        letters_of(store, "siem", 100)?,
    );
    Ok(Contents {
        blocks,
        cursors,
        books,
        letters,
        chain,
    })
}

/// A closed store, and what is in it.
async fn sample(directory: &Path) -> Contents {
    let store = open(directory);
    register(&store, "siem", &[AUDIT]).await;
    for nth in 0..8u64 {
        let first = nth * 200 + 1;
        let keys: Vec<String> = (first..first + 200).map(|nth| format!("k{nth}")).collect();
        let mut dice = Dice(nth);
        let noise: String = (0..60_000)
            .map(|_| (b'a' + dice.roll(26) as u8) as char)
            .collect();
        let parts = events(&keys, |key| {
            let nth: usize = key[1..].parse().unwrap();
            format!(
                r#"{{"uid":"{key}","noise":"{}"}}"#,
                &noise[nth % 200 * 290..][..290]
            )
        });
        store
            .append(append_of(parts, &[("cursor", &first.to_string())]))
            .await
            .unwrap();
        let fate = |seq| {
            if seq % 50 == 0 {
                Outcome::Dead(0)
            } else {
                Outcome::Dropped((seq % 2) as u16)
            }
        };
        store
            .commit(commit_of(&store, "siem", first..first + 150, fate))
            .await
            .unwrap();
    }
    let contents = contents(store.reads()).unwrap();
    store.close().await.unwrap();
    contents
}

#[tokio::test]
async fn damage_at_any_place_is_refused_or_reported_and_never_overwritten() {
    let directory = tempfile::tempdir().unwrap();
    let sound = sample(directory.path()).await;
    let original = fs::read(directory.path().join("store.db")).unwrap();
    let mut dice = Dice(42);
    let (mut refused, mut reported, mut harmless) = (0, 0, 0);
    for round in 0..75 {
        let mut bytes = original.clone();
        let at = dice.roll(bytes.len() as u64) as usize;
        let what = if round % 3 == 0 {
            bytes.truncate(at);
            format!("truncated at {at}")
        } else {
            let end = (at + 200).min(bytes.len());
            bytes[at..end]
                .iter_mut()
                .for_each(|byte| *byte = dice.roll(256) as u8);
            format!("overwritten at {at}")
        };
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("store.db");
        fs::write(&path, &bytes).unwrap();
        let result = match Store::open(options(place.path())) {
            Err(error) => {
                assert!(
                    matches!(error, OpenError::Damaged { .. } | OpenError::Newer { .. }),
                    "{what}: {error}"
                );
                assert_eq!(
                    fs::read(&path).unwrap(),
                    bytes,
                    "{what}: refused, but changed"
                );
                refused += 1;
                continue;
            }
            Ok(store) => {
                let result = contents(store.reads());
                store.close().await.unwrap();
                result
            }
        };
        match result {
            Err(error @ LedgerError::Damaged(_)) => {
                assert!(
                    error.to_string().contains("restore a backup"),
                    "{what}: {error}"
                );
                reported += 1;
            }
            // Free space, or what is of no account.
            Ok(found) if found == sound => harmless += 1,
            other => panic!("{what}: {other:?}"),
        }
    }
    assert!(
        refused > 20 && refused + reported > 35,
        "{refused} refused, {reported} reported, {harmless} harmless"
    );
}

#[tokio::test]
async fn a_changed_event_is_found_when_it_is_read() {
    let directory = tempfile::tempdir().unwrap();
    sample(directory.path()).await;
    let path = directory.path().join("store.db");
    // Below SQLite's notice: the row stays well-formed. Not among the newest, which are verified at
    // the start.
    let database = rusqlite::Connection::open(&path).unwrap();
    for _ in 0..3 {
        let store = open(directory.path());
        for _ in 0..10 {
            append(&store, 10).await;
        }
        store.close().await.unwrap();
    }
    database
        .execute(
            "UPDATE blocks SET read_at = read_at + 1 WHERE first_seq = 201",
            [],
        )
        .unwrap();
    drop(database);
    let store = open(directory.path());
    let LedgerError::Damaged(what) = store.block_at(AUDIT, 300).unwrap_err() else {
        panic!()
    };
    assert_eq!(
        what,
        "block 201..401 of `teleport/audit`: its checksum differs"
    );
    assert!(store.block_at(AUDIT, 401).is_ok());
    assert!(
        store.reads().heads_at(AUDIT, 300).is_err() && store.reads().verify_chain("siem").is_err()
    );
    let known = store.reads().known_events(AUDIT, 0, i64::MAX, 9999);
    let known = known.unwrap();
    assert!(!known.is_complete, "a reader goes on without its events");
    assert!(known.events.len() > 1000, "those of the other blocks");
}

/// Five blocks of fifty events; `siem` is done with the first two. The block that begins at
/// `first_seq` is damaged below SQLite's notice.
async fn with_a_damaged_block(directory: &Path, first_seq: u64) -> Store {
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

/// Changes one row below SQLite's notice, while the store is closed.
async fn changed(directory: &Path, store: Store, sql: &str) -> Store {
    store.close().await.unwrap();
    let database = rusqlite::Connection::open(directory.join("store.db")).unwrap();
    assert_eq!(database.execute(sql, []).unwrap(), 1, "{sql}");
    drop(database);
    open(directory)
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

#[tokio::test]
async fn a_sound_store_is_verified_and_copied_while_a_host_runs() {
    let directory = tempfile::tempdir().unwrap();
    sample(directory.path()).await;
    let store = open(directory.path());
    let inspector = Inspector::open(directory.path()).unwrap();
    let integrity = inspector.integrity().unwrap();
    assert_eq!(integrity.problems, [] as [String; 0]);
    assert!(integrity.commits > 0 && integrity.blocks > 0);
    let target = tempfile::tempdir().unwrap();
    let file = target.path().join("store.db");
    assert_eq!(inspector.backup(&file).unwrap(), integrity);
    let before = fs::read(&file).unwrap();
    let again = inspector.backup(&file).unwrap_err();
    assert!(again.to_string().contains("never overwrites"), "{again}");
    assert_eq!(fs::read(&file).unwrap(), before);
    assert_eq!(fs::read_dir(target.path()).unwrap().count(), 1);
    for inside in ["copy.db", "./copy.db"] {
        let inside = directory.path().join(inside);
        let refused = inspector.backup(&inside).unwrap_err().to_string();
        assert!(
            refused.contains("in the directory of the store"),
            "{refused}"
        );
        assert!(!inside.exists());
    }
    let interrupted = target.path().join("other.db.new");
    fs::write(&interrupted, "").unwrap();
    let other = target.path().join("other.db");
    let refused = inspector.backup(&other).unwrap_err().to_string();
    assert!(
        refused.contains("one was interrupted; remove that file"),
        "{refused}"
    );
    assert!(interrupted.exists() && !other.exists());
    fs::remove_file(interrupted).unwrap();

    let expected = contents(store.reads()).unwrap();
    let copy = open(target.path());
    assert_eq!(contents(copy.reads()).unwrap(), expected);
    append(&copy, 10).await;
    copy.close().await.unwrap();
}

#[tokio::test]
async fn a_copy_of_a_damaged_store_is_said_to_be_damaged() {
    let directory = tempfile::tempdir().unwrap();
    let store = with_a_damaged_block(directory.path(), 51).await;
    let target = tempfile::tempdir().unwrap();
    let inspector = Inspector::open(directory.path()).unwrap();
    let integrity = inspector.backup(&target.path().join("copy.db")).unwrap();
    assert_eq!(integrity.damaged.len(), 1);
    store.close().await.unwrap();
}

#[tokio::test]
async fn every_change_to_what_was_committed_breaks_the_chain() {
    let directory = tempfile::tempdir().unwrap();
    sample(directory.path()).await;
    let path = directory.path().join("store.db");
    let original = fs::read(&path).unwrap();
    for change in [
        "UPDATE commits SET outcomes = x'009601' WHERE id = 3",
        "UPDATE commits SET reasons = '[\"x\",\"y\"]' WHERE id = 3",
        "UPDATE commits SET at = at + 1 WHERE id = 8",
        "UPDATE commits SET batch = '{}' WHERE id = 1",
        "UPDATE commits SET days = '[]' WHERE id = 1",
        "UPDATE commits SET end_seq = end_seq - 1 WHERE id = 2",
        "DELETE FROM commits WHERE id = 4",
        "DELETE FROM commits WHERE id = 8",
        "UPDATE dead_letters SET payload = x'7b7d' WHERE seq = 50",
        "UPDATE dead_letters SET reason = 'nothing' WHERE seq = 50",
        "UPDATE dead_letters SET checksum = zeroblob(32) WHERE seq = 50",
        "UPDATE dead_letters SET at = at - 1 WHERE seq = 50",
        "UPDATE dead_letters SET generation = 2 WHERE seq = 50",
        "UPDATE generations SET description = '{}'",
        "DELETE FROM blocks WHERE first_seq = 201",
    ] {
        let database = rusqlite::Connection::open(&path).unwrap();
        assert!(database.execute(change, []).unwrap() > 0, "{change}");
        database.close().unwrap();
        match Inspector::open(directory.path()) {
            Ok(inspector) => {
                let broken = inspector.verify_chain("siem").unwrap_err();
                assert!(
                    matches!(broken, LedgerError::Damaged(_)),
                    "{change}: {broken}"
                );
            }
            Err(refusal) => assert!(
                matches!(refusal, OpenError::Damaged { .. }),
                "{change}: {refusal}"
            ),
        }
        fs::write(&path, &original).unwrap();
    }
    Inspector::open(directory.path())
        .unwrap()
        .verify_chain("siem")
        .unwrap();
}

/// Nothing guards the column itself; the commit that made the letter says when.
#[tokio::test]
async fn a_letter_that_says_that_it_is_older_than_its_commit_does_not_expire() {
    let directory = tempfile::tempdir().unwrap();
    sample(directory.path()).await;
    let store = open(directory.path());
    let sql = "UPDATE dead_letters SET at = 5 WHERE seq = 50";
    let store = changed(directory.path(), store, sql).await;
    let kept = letters_of(store.reads(), "siem", 100).unwrap().len();
    assert_eq!(store.expire_letters("siem", 10, DAY).await, Ok(0));
    let found = letters_of(store.reads(), "siem", 100).unwrap();
    assert_eq!(found.len(), kept);
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_damaged_letter_does_not_hide_the_others() {
    let directory = tempfile::tempdir().unwrap();
    sample(directory.path()).await;
    let store = open(directory.path());
    let sql = "UPDATE dead_letters SET checksum = zeroblob(32) WHERE seq = 100";
    let store = changed(directory.path(), store, sql).await;
    let query = LetterQuery {
        limit: 100,
        ..LetterQuery::default()
    };
    let found = store.reads().all_dead_letters(&query).unwrap();
    let damaged: Vec<_> = found
        .iter()
        .filter_map(|found| found.as_ref().err())
        .collect();
    assert_eq!((damaged.len(), damaged[0].seq), (1, 100));
    assert!(found.len() > 10);
    store.close().await.unwrap();
}

#[tokio::test]
async fn every_change_to_the_records_of_dead_letters_breaks_the_chain() {
    let directory = tempfile::tempdir().unwrap();
    sample(directory.path()).await;
    let store = open(directory.path());
    register(&store, "siem", &[AUDIT]).await;
    store.retry("siem", AUDIT, &[50, 100], DAY).await.unwrap();
    store
        .drop_letters("siem", AUDIT, &[250], DAY)
        .await
        .unwrap();
    let redrive = Ledger::redrive(&store, "siem", AUDIT, 1, 9999).await;
    let batch = redrive.unwrap().unwrap().batch;
    assert_eq!(batch.seqs().collect::<Vec<_>>(), [50]);
    let mut again = commit_of(&store, "siem", 50..51, |_| Outcome::Dead(0));
    again.entries = Entries::Redriven(vec![50]);
    store.commit(again).await.unwrap();
    store.retry("siem", AUDIT, &[300], DAY).await.unwrap();
    let heads = store.reads().verify_chain("siem").unwrap();
    assert_eq!(heads[0].letter_operations, 4);
    store.close().await.unwrap();
    let path = directory.path().join("store.db");
    let original = fs::read(&path).unwrap();
    for change in [
        "DELETE FROM letter_operations WHERE id = 1",
        "DELETE FROM letter_operations WHERE id = 4",
        "UPDATE letter_operations SET kind = 'drop' WHERE id = 1",
        "UPDATE letter_operations SET seqs = x'3201' WHERE id = 1",
        "UPDATE letter_operations SET at = 0 WHERE id = 2",
        "UPDATE letter_operations SET outcomes = x'0001' WHERE id = 3",
        "UPDATE letter_operations SET after_commit = 1 WHERE id = 3",
        "UPDATE dead_letters SET redrive = 0 WHERE seq = 100",
        "UPDATE dead_letters SET redrive = 1 WHERE seq = 150",
        "UPDATE dead_letters SET session = 'x' WHERE seq = 100",
        "UPDATE dead_letters SET payload = x'7b7d' WHERE seq = 50",
        "DELETE FROM dead_letters WHERE seq = 100",
    ] {
        let database = rusqlite::Connection::open(&path).unwrap();
        assert!(database.execute(change, []).unwrap() > 0, "{change}");
        database.close().unwrap();
        let inspector = Inspector::open(directory.path()).unwrap();
        let broken = inspector.verify_chain("siem").unwrap_err();
        assert!(
            matches!(broken, LedgerError::Damaged(_)),
            "{change}: {broken}"
        );
        fs::write(&path, &original).unwrap();
    }
    assert_eq!(
        Inspector::open(directory.path())
            .unwrap()
            .verify_chain("siem"),
        Ok(heads)
    );
}

#[tokio::test]
async fn damage_under_a_running_store_closes_it_and_nothing_is_written_over_it() {
    let directory = tempfile::tempdir().unwrap();
    sample(directory.path()).await;
    let store = open(directory.path());
    let path = directory.path().join("store.db");
    let mut bytes = fs::read(&path).unwrap();
    bytes[16_384..].fill(0xa5);
    fs::write(&path, &bytes).unwrap();
    let error = store
        .append(append_of(numbered(2000..2010), &[("new", "1")]))
        .await
        .unwrap_err();
    assert!(
        matches!(&error, LedgerError::Closed { cause, full: false } if cause.contains("malformed")),
        "{error}"
    );
    assert_eq!(store.commit(commit_of_nothing()).await.unwrap_err(), error);
    assert_eq!(store.failed().borrow().clone(), Some(error));
    assert!(matches!(
        Store::open(options(directory.path())),
        Err(OpenError::Damaged { .. })
    ));
    assert_eq!(fs::read(&path).unwrap(), bytes);
}

/// A checkpoint writes the first page first. A kill right after it leaves a file that is shorter
/// than it says.
#[tokio::test]
async fn a_kill_in_a_checkpoint_is_not_damage() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    for _ in 0..20 {
        append(&store, 500).await;
    }
    let copy = tempfile::tempdir().unwrap();
    let log = fs::read(directory.path().join("store.db-wal")).unwrap();
    let mut file = fs::read(directory.path().join("store.db")).unwrap();
    // Frames of the log: 24 bytes, beginning with the page's number, then the page (SQLite's file
    // format 4.1).
    let first_page = log[32..]
        .chunks_exact(24 + 16_384)
        .rfind(|frame| frame[..4] == [0, 0, 0, 1])
        .unwrap();
    let says = u32::from_be_bytes(first_page[24 + 28..24 + 32].try_into().unwrap()) as usize;
    assert!(says * 16_384 > file.len());
    file[..16_384].copy_from_slice(&first_page[24..]);
    let path = copy.path().join("store.db");
    fs::write(&path, &file).unwrap();
    fs::write(copy.path().join("store.db-wal"), &log).unwrap();
    let copied = open(copy.path());
    assert_eq!(*copied.head(AUDIT).borrow(), 10_001);
    assert_eq!(
        copied.block_at(AUDIT, 10_000).unwrap(),
        store.block_at(AUDIT, 10_000).unwrap()
    );
    drop(copied);

    // The same without what the log makes up for.
    let bare = tempfile::tempdir().unwrap();
    fs::write(bare.path().join("store.db"), &file).unwrap();
    let refusal = Store::open(options(bare.path())).err().unwrap().to_string();
    assert!(
        refusal.contains(&format!("it has {} of {says} pages", file.len() / 16_384)),
        "{refusal}"
    );
}

#[test]
fn a_file_that_is_not_a_store_is_never_overwritten() {
    let database = |fill: &dyn Fn(&rusqlite::Connection)| {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x");
        let connection = rusqlite::Connection::open(&path).unwrap();
        fill(&connection);
        drop(connection);
        fs::read(path).unwrap()
    };
    let foreign = database(&|connection| connection.execute_batch("CREATE TABLE a (b)").unwrap());
    let other_pages = database(&|connection| {
        connection
            .execute_batch(
                "PRAGMA application_id = 0x4C4B4754; PRAGMA user_version = 1; CREATE TABLE a (b)",
            )
            .unwrap();
    });
    for (name, bytes, says) in [
        ("store.db", &b""[..], "it has 0 bytes"),
        ("store.db", b"hello", "it has 5 bytes"),
        ("store.db", &[b'x'; 5000], "it is not a SQLite database"),
        ("store.db", &foreign, "not one of Lockgate's"),
        (
            "store.db",
            &other_pages,
            "its pages do not have 16384 bytes",
        ),
        ("store.db-wal", &[7; 500], "it is gone, and its log"),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(name);
        fs::write(&path, bytes).unwrap();
        let refusal = Store::open(options(directory.path())).err().unwrap();
        assert!(matches!(refusal, OpenError::Damaged { .. }), "{refusal}");
        let message = refusal.to_string();
        assert!(
            message.contains(says)
                && message.contains("move `store.db`, `store.db-wal` and `store.db-shm` aside"),
            "{message}"
        );
        assert_eq!(fs::read(&path).unwrap(), bytes);
    }
}
