//! Damaged files, each part of them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use lockgate_model::{Block, Books, Entries, Outcome};
use lockgate_store::{
    ChainHead, DeadLetters, Inspector, KeptLetter, Ledger, LedgerError, LetterQuery, OpenError,
    Reads, Store,
};

use crate::common::*;
use crate::repair::{changed, with_a_damaged_block};

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
