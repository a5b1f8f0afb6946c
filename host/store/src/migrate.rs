//! Brings a store of an earlier format up to date, in one transaction.

use std::collections::HashMap;

use lockgate_model::state_owners;
use rusqlite::{Connection, Transaction, TransactionBehavior, params};
use serde_json::Value;

use crate::error::ReadError;
use crate::links::Links;
use crate::rows;
use crate::schema::{self, FORMAT, row_checksum};
use crate::tallies::{self, Columns, Counts};

/// From format 1: state of the brake, operations on dead letters, and digests of compiled code.
/// Columns are added and nothing is rewritten, so a large store takes no longer than its dead
/// letters.
const FROM_1: &str = "
ALTER TABLE pipelines ADD COLUMN dead_bytes INTEGER NOT NULL DEFAULT 0;
ALTER TABLE pipelines ADD COLUMN brake TEXT NOT NULL DEFAULT '';
ALTER TABLE dead_letters ADD COLUMN code TEXT NOT NULL DEFAULT '';
ALTER TABLE dead_letters ADD COLUMN event_index INTEGER NOT NULL DEFAULT 0;
ALTER TABLE dead_letters ADD COLUMN session TEXT NOT NULL DEFAULT '';
ALTER TABLE dead_letters ADD COLUMN read_at INTEGER NOT NULL DEFAULT 0;
ALTER TABLE dead_letters ADD COLUMN raw INTEGER NOT NULL DEFAULT 0;
ALTER TABLE dead_letters ADD COLUMN redrive INTEGER NOT NULL DEFAULT 0;
UPDATE dead_letters SET read_at = at, raw = (cause = 'unreadable');
UPDATE dead_letters SET
  code = coalesce(CAST(json_extract(CAST(payload AS TEXT), '$.code') AS TEXT), ''),
  event_index = coalesce(CAST(json_extract(CAST(payload AS TEXT), '$.ei') AS INTEGER), 0),
  session = coalesce(CAST(json_extract(CAST(payload AS TEXT), '$.sid') AS TEXT), '')
WHERE raw = 0 AND json_valid(CAST(payload AS TEXT));
UPDATE pipelines SET dead_bytes = coalesce((SELECT sum(length(payload)) FROM dead_letters d
  JOIN epochs e ON e.id = d.epoch_id WHERE e.pipeline = pipelines.name), 0);
";

/// Tables and indexes that format 1 lacks; the rest of `schema.sql` is there.
const NEW: [&str; 5] = [
    "CREATE TABLE holders (",
    "CREATE TABLE letter_operations (",
    "CREATE INDEX letters_by_age ",
    "CREATE INDEX waiting_letters ",
    "CREATE TABLE compiled_code (",
];

/// Tables that format 3 lacks.
const FROM_3: [&str; 5] = [
    "CREATE TABLE gaps (",
    "CREATE TABLE tallies (",
    "CREATE TABLE anchors (",
    "CREATE TABLE folded_letters (",
    "CREATE TABLE identity (",
];

/// Migrates the store, unless it has this format already. The caller holds the lock of the
/// directory and has checked the store.
pub fn up_to_date(connection: &Connection) -> Result<(), ReadError> {
    let format: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    // An index changes nothing for other releases, so it needs no format of its own.
    let index = statements(&["CREATE INDEX IF NOT EXISTS blocks_by_time "]);
    if format == FORMAT {
        return Ok(connection.execute_batch(&index)?);
    }
    tracing::info!(
        from = format,
        to = FORMAT,
        "the store is brought up to date"
    );
    // One that fails is rolled back.
    let transaction = Transaction::new_unchecked(connection, TransactionBehavior::Immediate)?;
    if format < 2 {
        transaction.execute_batch(&format!("{FROM_1} {}", statements(&NEW)))?;
    }
    transaction.execute_batch(&index)?;
    if format < 3 {
        name_state(&transaction)?;
    }
    transaction.execute_batch(&statements(&FROM_3))?;
    add_filters(&transaction)?;
    // A development build may have written it.
    if let Some(column) = schema::missing_column(&transaction)? {
        return Err(ReadError::Damaged(format!(
            "it was not written by a release: brought up to date from format {format}, it would \
             have no `{column}`"
        )));
    }
    tally_outcomes(&transaction)?;
    transaction.pragma_update(None, "user_version", FORMAT)?;
    Ok(transaction.commit()?)
}

/// From format 3: filters of blocks, and an index on the keys of dead letters. The filters are made
/// later, by `writer/filters`, so a large store takes no longer than its dead letters.
fn add_filters(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(&statements(&[
        "CREATE TABLE block_filters (",
        "CREATE INDEX letters_by_key ",
    ]))
}

/// From format 2: state belongs to a plugin, not to the number of a stage. It gets the name that
/// the stage's plugin has in the configuration that ran last. State of a stage that this
/// configuration does not have is kept as `stage N`, counted from 1, which cannot name a plugin.
fn name_state(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(&format!(
        "ALTER TABLE state RENAME TO numbered_state; {}",
        statements(&["CREATE TABLE state ("])
    ))?;
    let sql = "SELECT g.pipeline, g.description FROM generations g \
               JOIN pipelines p ON p.name = g.pipeline AND p.generation = g.generation";
    let owners: HashMap<String, Vec<String>> = connection
        .prepare(sql)?
        .query_map([], |row| {
            Ok((row.get(0)?, owners(&row.get::<_, String>(1)?)))
        })?
        .collect::<Result<_, _>>()?;
    let mut statement =
        connection.prepare("SELECT pipeline, stage, key, value, checksum FROM numbered_state")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (pipeline, stage): (String, u32) = (row.get(0)?, row.get(1)?);
        let (key, value): (String, String) = (row.get(2)?, row.get(3)?);
        let owner = owners
            .get(&pipeline)
            .and_then(|owners| owners.get(stage as usize).cloned())
            .unwrap_or_else(|| format!("stage {}", u64::from(stage) + 1));
        let numbered = [
            pipeline.as_str().into(),
            stage.into(),
            key.as_str().into(),
            value.as_str().into(),
        ];
        let mut checksum: Vec<u8> = row.get(4)?;
        // A row that is not what was written must not become one that is.
        if checksum == row_checksum(numbered) {
            checksum = rows::state_checksum(&pipeline, &owner, &key, &value).to_vec();
        }
        connection
            .prepare_cached("INSERT INTO state VALUES (?1, ?2, ?3, ?4, ?5)")?
            .execute(params![pipeline, owner, key, value, checksum])?;
    }
    drop(rows);
    drop(statement);
    connection.execute_batch("DROP TABLE numbered_state;")
}

/// From format 3: running tallies of outcomes, and what chains need whose oldest commits are folded
/// into them. Reads every commit once.
fn tally_outcomes(connection: &Connection) -> Result<(), ReadError> {
    connection.execute_batch(schema::IDENTIFY)?;
    let epochs: Vec<i64> = connection
        .prepare("SELECT id FROM epochs")?
        .query_map([], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    for epoch_id in epochs {
        let mut counts = Counts::default();
        let mut links = Links::after(connection, epoch_id, 0, 0)?;
        while let Some(link) = links.next(connection)? {
            // Entries that cannot be counted are left for `lockgate audit` to name.
            let _ = link.tally(&mut counts);
        }
        tallies::add(connection, epoch_id, &counts, Columns::Count)?;
    }
    Ok(())
}

/// Of the stages in a generation's description.
fn owners(description: &str) -> Vec<String> {
    let description: Value = serde_json::from_str(description).unwrap_or_default();
    let stages = description["stages"].as_array();
    // Every stage was described by its plugin's name.
    let name = |stage: &Value| stage["plugin"].as_str().map(str::to_owned);
    let names: Option<Vec<String>> = stages.into_iter().flatten().map(name).collect();
    state_owners(names.unwrap_or_default().iter().map(String::as_str))
}

/// Statements of `schema.sql`, by how they begin.
fn statements(begin: &[&str]) -> String {
    crate::schema::TABLES
        .split_inclusive(";\n")
        .filter(|statement| {
            let statement = statement.trim_start();
            begin.iter().any(|begin| statement.starts_with(begin))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use super::*;

    /// Tables and columns as a client sees them.
    fn shape(connection: &Connection) -> Vec<String> {
        let sql = "SELECT m.name || '.' || c.name || ' ' || c.type || ' ' || c.\"notnull\" || ' ' || c.pk || ' ' || coalesce(c.dflt_value, '') \
                   FROM sqlite_schema m, pragma_table_info(m.name) c ORDER BY m.name, c.cid";
        let mut statement = connection.prepare(sql).unwrap();
        let rows = statement.query_map([], |row| row.get(0)).unwrap();
        rows.collect::<Result<_, _>>().unwrap()
    }

    #[test]
    fn a_store_of_format_1_gets_the_tables_of_a_new_one() {
        let old = Connection::open_in_memory().unwrap();
        old.execute_batch(include_str!("../tests/all/format_1.sql"))
            .unwrap();
        old.pragma_update(None, "user_version", 1).unwrap();
        up_to_date(&old).unwrap();
        up_to_date(&old).unwrap();
        let new = Connection::open_in_memory().unwrap();
        new.execute_batch(crate::schema::TABLES).unwrap();
        assert_eq!(shape(&old), shape(&new));
    }
}
