//! Brings a store of an earlier format up to date, in one transaction.

use rusqlite::Connection;

use crate::schema::FORMAT;

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

/// Migrates the store, unless it has this format already. The caller holds the lock of the
/// directory and has checked the store.
pub fn up_to_date(connection: &Connection) -> rusqlite::Result<()> {
    let format: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if format == FORMAT {
        return Ok(());
    }
    tracing::info!(
        from = format,
        to = FORMAT,
        "the store is brought up to date"
    );
    let new: String = crate::schema::TABLES
        .split_inclusive(";\n")
        .filter(|statement| {
            NEW.iter()
                .any(|new| statement.trim_start().starts_with(new))
        })
        .collect();
    // One that fails is rolled back with its connection, which the caller drops.
    connection.execute_batch(&format!(
        "BEGIN IMMEDIATE; {FROM_1} {new} PRAGMA user_version = {FORMAT}; COMMIT;"
    ))
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
