//! Stores of earlier formats.

use std::sync::Arc;

use lockgate_model::{Books, Generation, Outcome};
use lockgate_store::{
    DeadLetters, Inspector, Ledger, LedgerError, LetterQuery, OpenError, Registration, Store,
};
use rusqlite::{Connection, params};
use sha2::{Digest, Sha256};

use crate::common::*;

/// The columns of a dead letter that format 1 guarded.
fn format_1_checksum(values: &[Value<'_>]) -> Vec<u8> {
    let mut hasher = Sha256::new();
    for value in values {
        match value {
            Value::Int(int) => hasher.update(int.to_be_bytes()),
            Value::Bytes(bytes) => {
                hasher.update((bytes.len() as u64).to_be_bytes());
                hasher.update(bytes);
            }
        }
    }
    hasher.finalize().to_vec()
}

enum Value<'a> {
    Int(i64),
    Bytes(&'a [u8]),
}

/// Turns a store that this release wrote, with one commit of its pipeline, into what the first
/// release would have written: its schema, its digests of dead letters, and so its chain.
fn to_format_1(path: &std::path::Path) {
    let new = Connection::open(path).unwrap();
    let old_path = path.with_extension("old");
    let old = Connection::open(&old_path).unwrap();
    old.pragma_update(None, "page_size", 16_384).unwrap();
    old.pragma_update(None, "auto_vacuum", "incremental")
        .unwrap();
    old.execute_batch(&format!(
        "PRAGMA application_id = 1280001876; PRAGMA user_version = 1; {}",
        include_str!("format_1.sql")
    ))
    .unwrap();
    let attach = old_path.to_str().unwrap();
    new.execute("ATTACH ?1 AS old", [attach]).unwrap();
    for (table, columns) in [
        ("streams", "*"),
        ("blocks", "*"),
        ("stream_days", "*"),
        ("cursors", "*"),
        ("pipelines", "name, epoch, generation"),
        ("generations", "*"),
        ("epochs", "*"),
        ("epoch_days", "*"),
        ("commits", "*"),
        (
            "dead_letters",
            "epoch_id, seq, at, generation, key, event_type, time, cause, reason, payload, checksum",
        ),
    ] {
        new.execute(
            &format!("INSERT INTO old.{table} SELECT {columns} FROM main.{table}"),
            [],
        )
        .unwrap();
    }
    new.execute("DETACH old", []).unwrap();
    drop(new);
    let sql =
        "SELECT seq, key, event_type, time, cause, reason, payload FROM dead_letters ORDER BY seq";
    let letters: Vec<(i64, Vec<u8>)> = old
        .prepare(sql)
        .unwrap()
        .query_map([], |row| {
            let text = |at| row.get::<_, String>(at);
            let payload: Vec<u8> = row.get(6)?;
            let checksum = format_1_checksum(&[
                Value::Int(row.get(0)?),
                Value::Bytes(text(1)?.as_bytes()),
                Value::Bytes(text(2)?.as_bytes()),
                Value::Int(row.get(3)?),
                Value::Bytes(text(4)?.as_bytes()),
                Value::Bytes(text(5)?.as_bytes()),
                Value::Bytes(&payload),
            ]);
            Ok((row.get(0)?, checksum))
        })
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    let mut dead = Vec::new();
    for (seq, checksum) in letters {
        let sql = "UPDATE dead_letters SET checksum = ?2 WHERE seq = ?1";
        old.execute(sql, params![seq, checksum]).unwrap();
        dead.extend(checksum);
    }
    rechain(&old, &dead);
    old.pragma_update(None, "journal_mode", "wal").unwrap();
    old.close().unwrap();
    std::fs::rename(old_path, path).unwrap();
}

/// The one commit's hash, and the row of the pass that ends with it.
fn rechain(old: &Connection, dead: &[u8]) {
    let sql = "SELECT c.first_seq, c.end_seq, c.outcomes, c.reasons, c.days, c.at, c.batch, c.blocks, c.state, g.description \
               FROM commits c JOIN generations g ON g.generation = c.generation";
    let hash = old
        .query_row(sql, [], |row| {
            let description: String = row.get(9)?;
            let generation = format_1_checksum(&[Value::Bytes(description.as_bytes())]);
            let (outcomes, blocks, state): (Vec<u8>, Vec<u8>, Vec<u8>) =
                (row.get(2)?, row.get(7)?, row.get(8)?);
            let (reasons, days, batch): (String, String, String) =
                (row.get(3)?, row.get(4)?, row.get(6)?);
            Ok(format_1_checksum(&[
                Value::Bytes(&[0; 32]),
                Value::Bytes(b"siem"),
                Value::Bytes(AUDIT.as_bytes()),
                Value::Int(1),
                Value::Int(1),
                Value::Bytes(&generation),
                Value::Int(row.get(0)?),
                Value::Int(row.get(1)?),
                Value::Bytes(&outcomes),
                Value::Bytes(reasons.as_bytes()),
                Value::Bytes(days.as_bytes()),
                Value::Int(row.get(5)?),
                Value::Bytes(batch.as_bytes()),
                Value::Bytes(&blocks),
                Value::Bytes(dead),
                Value::Bytes(&state),
            ]))
        })
        .unwrap();
    old.execute(
        "UPDATE commits SET dead = ?1, hash = ?2",
        params![dead, hash],
    )
    .unwrap();
    let sql = "SELECT id, stream_id, since, begin_seq, watermark, done FROM epochs";
    let checksum = old
        .query_row(sql, [], |row| {
            let done: String = row.get(5)?;
            Ok(format_1_checksum(&[
                Value::Int(row.get(0)?),
                Value::Bytes(b"siem"),
                Value::Int(row.get(1)?),
                Value::Int(1),
                Value::Int(row.get(2)?),
                Value::Int(row.get(3)?),
                Value::Int(row.get(4)?),
                Value::Bytes(done.as_bytes()),
                Value::Bytes(&hash),
                Value::Int(1),
            ]))
        })
        .unwrap();
    let sql = "UPDATE epochs SET chain = ?1, checksum = ?2";
    old.execute(sql, params![hash, &checksum[..16]]).unwrap();
}

#[tokio::test]
async fn a_store_of_format_1_is_brought_up_to_date_with_its_dead_letters() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let keys: Vec<String> = (1..=20).map(|nth| format!("k{nth}")).collect();
    let parts = events(&keys, |key| {
        format!(
            r#"{{"uid":"{key}","code":"T1000I","ei":{},"sid":"s-{key}"}}"#,
            &key[1..]
        )
    });
    store
        .append(append_of(parts, &[("cursor", "21")]))
        .await
        .unwrap();
    register(&store, "siem", &[AUDIT]).await;
    let fate = |seq| {
        if seq % 5 == 0 {
            Outcome::Dead(0)
        } else {
            Outcome::Delivered
        }
    };
    store
        .commit(commit_of(&store, "siem", 1..16, fate))
        .await
        .unwrap();
    store.close().await.unwrap();
    let path = directory.path().join("store.db");
    to_format_1(&path);

    let older = Inspector::open(directory.path()).err().unwrap();
    assert!(
        matches!(
            older,
            OpenError::Older {
                found: 1,
                known: 4,
                ..
            }
        ),
        "{older}"
    );
    assert!(
        older
            .to_string()
            .contains("`lockgate start` brings it up to date")
    );

    let store = open(directory.path());
    store.reads().verify_chain("siem").unwrap();
    let books = |delivered, dead, waiting| Books {
        read: 20,
        delivered,
        dropped: 0,
        dead,
        waiting,
    };
    assert_eq!(store.reads().books("siem").unwrap()[0].1, books(12, 3, 5));
    let again = register(&store, "siem", &[AUDIT]).await;
    let query = LetterQuery {
        limit: 9,
        ..LetterQuery::default()
    };
    let letters = DeadLetters::dead_letters(&store, &query).await.unwrap();
    let bytes: usize = letters.iter().map(|kept| kept.letter.payload.len()).sum();
    assert_eq!((letters.len(), again.dead_bytes), (3, bytes as u64));
    let letter = &letters[0].letter;
    assert_eq!(
        (
            letter.seq,
            letter.code.as_str(),
            letter.index,
            letter.session.as_str(),
            letter.raw
        ),
        (15, "T1000I", 15, "s-k15", false)
    );

    // Dead letters of format 1 can be sent back.
    store.retry("siem", AUDIT, &[5, 15], DAY).await.unwrap();
    let redrive = Ledger::redrive(&store, "siem", AUDIT, 9, 9999)
        .await
        .unwrap()
        .unwrap();
    let keys: Vec<Arc<str>> = redrive
        .batch
        .views()
        .map(|event| event.key.into())
        .collect();
    assert_eq!(keys, ["k5".into(), "k15".into()]);
    assert_eq!(store.reads().books("siem").unwrap()[0].1, books(12, 1, 7));
    let chain = store.reads().verify_chain("siem").unwrap();
    assert_eq!((chain[0].commits, chain[0].letter_operations), (1, 1));
    store.close().await.unwrap();
    assert!(Inspector::open(directory.path()).is_ok());
}

/// Turns a store that this release wrote into what the release before it would have written of
/// these (stage, key, value) of `siem`.
fn to_format_2(path: &std::path::Path, state: &[(i64, &str, &str)]) {
    let store = Connection::open(path).unwrap();
    store
        .execute_batch(
            "DROP TABLE block_filters; DROP INDEX letters_by_key;
             DROP TABLE state; DROP TABLE tallies; DROP TABLE anchors;
             DROP TABLE folded_letters; DROP TABLE gaps; DROP TABLE identity;
             CREATE TABLE state (
               pipeline TEXT NOT NULL, stage INTEGER NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL, checksum BLOB NOT NULL,
               PRIMARY KEY (pipeline, stage, key)
             ) STRICT, WITHOUT ROWID;
             PRAGMA user_version = 2;",
        )
        .unwrap();
    for &(stage, key, value) in state {
        let checksum = format_1_checksum(&[
            Value::Bytes(b"siem"),
            Value::Int(stage),
            Value::Bytes(key.as_bytes()),
            Value::Bytes(value.as_bytes()),
        ]);
        let sql = "INSERT INTO state VALUES ('siem', ?1, ?2, ?3, ?4)";
        store
            .execute(sql, params![stage, key, value, &checksum[..16]])
            .unwrap();
    }
}

/// Registers `siem` with stages of these plugins.
async fn register_stages(store: &Store, plugins: &[&str]) -> Registration {
    let stages: Vec<_> = plugins
        .iter()
        .map(|plugin| serde_json::json!({ "plugin": plugin, "digest": "d", "with": {} }))
        .collect();
    let generation = Generation {
        pipeline: "siem".into(),
        description: serde_json::json!({ "stages": stages, "sink": {} }).to_string(),
    };
    let streams = [AUDIT.to_owned()];
    store.register(generation, &streams, DAY).await.unwrap()
}

#[tokio::test]
async fn state_of_format_2_goes_to_the_plugins_of_the_configuration_that_ran_last() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.db");
    let store = open(directory.path());
    register_stages(&store, &["other", "other", "other", "other"]).await;
    register_stages(&store, &["counter", "builtin:filter", "counter"]).await;
    store.close().await.unwrap();
    let numbered = [(0, "a", "1"), (0, "b", "2"), (2, "a", "3"), (3, "a", "4")];
    to_format_2(&path, &numbered);

    let store = open(directory.path());
    // Whatever is configured now.
    let state = register_stages(&store, &["counter"]).await.state;
    let found: Vec<(&str, &str, &str)> = state
        .iter()
        .flat_map(|(owner, state)| {
            let of_owner =
                |(key, value)| (owner.as_str(), String::as_str(key), String::as_str(value));
            state.iter().map(of_owner)
        })
        .collect();
    assert_eq!(
        found,
        [
            ("counter", "a", "1"),
            ("counter", "b", "2"),
            ("counter#2", "a", "3"),
            ("stage 4", "a", "4")
        ]
    );
    store.close().await.unwrap();
}

#[tokio::test]
async fn state_that_is_damaged_in_format_2_stays_damaged() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.db");
    let store = open(directory.path());
    register_stages(&store, &["counter"]).await;
    store.close().await.unwrap();
    to_format_2(&path, &[(0, "a", "1")]);
    let damaged = Connection::open(&path).unwrap();
    damaged.execute("UPDATE state SET value = '7'", []).unwrap();
    drop(damaged);
    let store = open(directory.path());
    let read = store.reads().state("siem");
    assert!(
        matches!(&read, Err(LedgerError::Damaged(what)) if what.contains("the state `a` of `counter`")),
        "{read:?}"
    );
}

/// Such a store was brought up to date, and then `status` and `dlq` could not read it.
#[tokio::test]
async fn a_store_that_would_lack_a_table_is_refused_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.db");
    open(directory.path()).close().await.unwrap();
    let lacking = Connection::open(&path).unwrap();
    let rename = "ALTER TABLE letter_operations RENAME TO redrives";
    lacking.execute_batch(rename).unwrap();
    drop(lacking);
    let is_refused = || match Store::open(options(directory.path())) {
        Err(OpenError::Damaged { what, .. }) => what.contains("no `letter_operations."),
        _ => false,
    };
    assert!(is_refused(), "of this format");
    to_format_2(&path, &[(0, "a", "1")]);
    assert!(is_refused(), "of the format before");
    let store = Connection::open(&path).unwrap();
    let format: i64 = store
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .unwrap();
    let stage: i64 = store
        .query_row("SELECT stage FROM state", [], |row| row.get(0))
        .unwrap();
    assert_eq!((format, stage), (2, 0), "nothing was written to it");
}

#[tokio::test]
async fn the_outcomes_of_a_store_of_format_3_are_tallied() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.db");
    let store = open(directory.path());
    register(&store, "siem", &[AUDIT]).await;
    // Events of two days in one commit, with two reasons.
    append(&store, 40).await;
    let fate = |seq| match seq % 4 {
        0 => Outcome::Dead(0),
        1 => Outcome::Dropped(0),
        2 => Outcome::Dropped(1),
        _ => Outcome::Delivered,
    };
    for range in [1..30, 30..36] {
        let commit = commit_of(&store, "siem", range, fate);
        store.commit(commit).await.unwrap();
    }
    store.retry("siem", AUDIT, &[4, 8], DAY).await.unwrap();
    store.drop_letters("siem", AUDIT, &[12], DAY).await.unwrap();
    let (days, counts) = (
        store.reads().days("siem"),
        store.letter_counts("siem").await,
    );
    store.close().await.unwrap();
    let tallies = || {
        let store = Connection::open(&path).unwrap();
        let sql = "SELECT day, outcome, reason, count, folded FROM tallies ORDER BY 1, 2, 3";
        let mut statement = store.prepare(sql).unwrap();
        let rows = statement.query_map([], |row| {
            let (day, outcome): (i64, String) = (row.get(0)?, row.get(1)?);
            let (reason, count): (String, i64) = (row.get(2)?, row.get(3)?);
            Ok((day, outcome, reason, count, row.get::<_, i64>(4)?))
        });
        rows.unwrap().collect::<Result<Vec<_>, _>>().unwrap()
    };
    let before = tallies();
    assert!(before.len() > 8, "{before:?}");
    let to_format_3 = "DROP TABLE block_filters; DROP INDEX letters_by_key; DROP TABLE tallies; DROP TABLE anchors; DROP TABLE folded_letters; DROP TABLE gaps;
                       DROP TABLE identity; PRAGMA user_version = 3;";
    Connection::open(&path)
        .unwrap()
        .execute_batch(to_format_3)
        .unwrap();
    let store = open(directory.path());
    assert_eq!(
        (
            store.reads().days("siem"),
            store.letter_counts("siem").await
        ),
        (days, counts)
    );
    store.reads().verify_chain("siem").unwrap();
    store.close().await.unwrap();
    assert_eq!(tallies(), before);
}
