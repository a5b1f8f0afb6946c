//! The format of `store.db`, and the digests that guard its rows.

use std::collections::BTreeSet;

use rusqlite::Connection;
use sha2::{Digest, Sha256};

/// `LKGT`: tells a store from any other SQLite database (`PRAGMA application_id`).
pub const APPLICATION_ID: i64 = 0x4C4B_4754;
/// `PRAGMA user_version`. A release brings an older store up to date, see `migrate.rs`, and refuses
/// a newer one.
pub const FORMAT: i64 = 4;
/// Bytes. A block of 66 kB takes four pages and a bit.
pub const PAGE_SIZE: u32 = 16_384;
pub const TABLES: &str = include_str!("schema.sql");

pub type Checksum = [u8; 32];

/// One column of a row that is guarded by a digest.
pub enum Value<'a> {
    Int(i64),
    Bytes(&'a [u8]),
}

impl From<i64> for Value<'_> {
    fn from(value: i64) -> Self {
        Value::Int(value)
    }
}

// Sequences and counters never come near 2^63: the database could not hold them.
impl From<u64> for Value<'_> {
    fn from(value: u64) -> Self {
        Value::Int(value as i64)
    }
}

impl From<u32> for Value<'_> {
    fn from(value: u32) -> Self {
        Value::Int(value.into())
    }
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(value: &'a str) -> Self {
        Value::Bytes(value.as_bytes())
    }
}

impl<'a> From<&'a [u8]> for Value<'a> {
    fn from(value: &'a [u8]) -> Self {
        Value::Bytes(value)
    }
}

/// SHA-256 over values: integers as 8 bytes big-endian; texts and blobs as their length (8 bytes
/// big-endian) and their bytes.
pub fn digest<'a>(values: impl IntoIterator<Item = Value<'a>>) -> Checksum {
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
    hasher.finalize().into()
}

/// Guards a small row against a disk that lies; not against a person.
pub fn row_checksum<'a>(values: impl IntoIterator<Item = Value<'a>>) -> [u8; 16] {
    *digest(values).first_chunk().expect("32 bytes")
}

/// Gives a new store, or one of an earlier format, its identity.
pub const IDENTIFY: &str = "INSERT INTO identity (id) VALUES (randomblob(16));";

/// A column that this format has and the database lacks, such as `state.owner`.
pub fn missing_column(connection: &Connection) -> rusqlite::Result<Option<String>> {
    let of_format = Connection::open_in_memory()?;
    of_format.execute_batch(TABLES)?;
    let there = columns(connection)?;
    let expected = columns(&of_format)?;
    Ok(expected.into_iter().find(|column| !there.contains(column)))
}

fn columns(connection: &Connection) -> rusqlite::Result<BTreeSet<String>> {
    let sql = "SELECT m.name || '.' || c.name FROM sqlite_schema m, pragma_table_info(m.name) c \
               WHERE m.type = 'table'";
    connection
        .prepare(sql)?
        .query_map([], |row| row.get(0))?
        .collect()
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    /// The document for auditors, made from the comments in `schema.sql`.
    fn document() -> String {
        let mut out = String::from(
            "# The tables of `store.db`\n\n\
             One SQLite file; open it with any client, best a copy, or read-only. Made from the comments in `src/schema.sql`; a test holds the two\n\
             equal (`UPDATE_EXPECT=1 cargo test -p lockgate-store schema` rewrites it).\n\n",
        );
        writeln!(out, "`PRAGMA application_id` is {APPLICATION_ID}, `PRAGMA user_version` (the format) is {FORMAT}.").unwrap();
        out.push_str(
            "Digests are taken over columns in the order of the table: integers as 8 bytes, big-endian; texts and blobs as their length (8 bytes,\n\
             big-endian) and their bytes.\n",
        );
        for line in TABLES.lines().map(str::trim) {
            if let Some(rest) = line.strip_prefix("CREATE TABLE ") {
                write!(out, "\n## `{}`\n\n", rest.trim_end_matches(" (")).unwrap();
            } else if let Some(about) = line.strip_prefix("-- ") {
                write!(
                    out,
                    "{about}\n\n| Column | Type | Meaning |\n|---|---|---|\n"
                )
                .unwrap();
            } else if let Some((column, meaning)) = line.split_once(" -- ") {
                let mut words = column.trim_end_matches(',').split(' ');
                let (name, kind) = (words.next().unwrap(), words.next().unwrap());
                writeln!(out, "| `{name}` | {kind} | {meaning} |").unwrap();
            } else if let Some(keys) = line
                .strip_prefix("PRIMARY KEY ")
                .or(line.strip_prefix("UNIQUE "))
            {
                write!(out, "\nOne row for each {keys}.\n").unwrap();
            }
        }
        out
    }

    #[test]
    fn the_document_says_what_the_schema_says() {
        expect_test::expect_file!["../SCHEMA.md"].assert_eq(&document());
    }

    #[test]
    fn every_column_is_documented() {
        let connection = rusqlite::Connection::open_in_memory().unwrap();
        connection.execute_batch(TABLES).unwrap();
        let document = document();
        let columns: Vec<(String, String)> = connection
            .prepare("SELECT m.name, c.name FROM sqlite_schema m, pragma_table_info(m.name) c WHERE m.type = 'table'")
            .unwrap()
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
            .unwrap()
            .collect::<Result<_, _>>()
            .unwrap();
        assert!(columns.len() > 60);
        for (table, column) in columns {
            let section = document
                .split(&format!("## `{table}`\n"))
                .nth(1)
                .unwrap_or_else(|| panic!("no section {table}"));
            let section = section.split("\n## ").next().unwrap();
            assert!(
                section.contains(&format!("| `{column}` |")),
                "{table}.{column}"
            );
        }
    }
}
