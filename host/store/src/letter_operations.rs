//! Rows of `letter_operations`: what happened to dead letters after their commit.

use lockgate_ledger::limits::LETTERS_PER_OPERATION;
use lockgate_model::{Day, DayTally, Millis, Seq};
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, ValueRef};
use rusqlite::{Connection, Row, params};

use crate::codec;
use crate::error::ReadError;
use crate::schema::Checksum;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Dead letters wait again.
    Retry,
    /// Dead letters became dropped.
    Drop,
    /// Dead letters became too old and are no longer kept; their entries stay dead.
    Expire,
    /// Entries that waited again became final.
    Commit,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Kind::Retry => "retry",
            Kind::Drop => "drop",
            Kind::Expire => "expire",
            Kind::Commit => "commit",
        }
    }
}

impl ToSql for Kind {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        self.name().to_sql()
    }
}

impl FromSql for Kind {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Kind> {
        let name = value.as_str()?;
        [Kind::Retry, Kind::Drop, Kind::Expire, Kind::Commit]
            .into_iter()
            .find(|kind| kind.name() == name)
            .ok_or(FromSqlError::InvalidType)
    }
}

/// One row, its columns as they stand there.
pub struct LetterOperationRow {
    pub id: i64,
    pub after_commit: i64,
    pub generation: u32,
    pub kind: Kind,
    pub seqs: Vec<u8>,
    pub outcomes: Vec<u8>,
    pub reasons: String,
    pub days: String,
    pub at: Millis,
    pub batch: String,
    pub dead: Vec<u8>,
    pub state: Vec<u8>,
    pub hash: Checksum,
}

impl LetterOperationRow {
    fn read(row: &Row<'_>) -> rusqlite::Result<LetterOperationRow> {
        Ok(LetterOperationRow {
            id: row.get(0)?,
            after_commit: row.get(1)?,
            generation: row.get(2)?,
            kind: row.get(3)?,
            seqs: row.get(4)?,
            outcomes: row.get(5)?,
            reasons: row.get(6)?,
            days: row.get(7)?,
            at: row.get(8)?,
            batch: row.get(9)?,
            dead: row.get(10)?,
            state: row.get(11)?,
            hash: row.get(12)?,
        })
    }

    pub fn insert(&self, connection: &Connection, epoch_id: i64) -> rusqlite::Result<()> {
        let sql = "INSERT INTO letter_operations (epoch_id, after_commit, generation, kind, seqs, \
                   outcomes, reasons, days, at, batch, dead, state, hash, id) VALUES (?1, ?2, ?3, \
                   ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)";
        connection.prepare_cached(sql)?.execute(params![
            epoch_id,
            self.after_commit,
            self.generation,
            self.kind,
            self.seqs,
            self.outcomes,
            self.reasons,
            self.days,
            self.at,
            self.batch,
            self.dead,
            self.state,
            self.hash,
            self.id
        ])?;
        Ok(())
    }

    pub fn entries(&self) -> Result<Vec<Seq>, ReadError> {
        codec::decode_seqs(&self.seqs, LETTERS_PER_OPERATION).map_err(|error| self.damaged(error))
    }

    pub fn tallies(&self) -> Result<Vec<DayTally>, ReadError> {
        days(&self.days).map_err(|error| self.damaged(error))
    }

    pub fn damaged(&self, what: impl std::fmt::Display) -> ReadError {
        ReadError::Damaged(format!("the operation {} on dead letters: {what}", self.id))
    }
}

/// The column `days`, here and in `commits`.
pub fn days(text: &str) -> serde_json::Result<Vec<DayTally>> {
    let days: Vec<(i32, u64, u64, u64)> = serde_json::from_str(text)?;
    let tally = |(day, delivered, dropped, dead)| DayTally {
        day: Day(day),
        delivered,
        dropped,
        dead,
    };
    Ok(days.into_iter().map(tally).collect())
}

/// The first row of an epoch after another one.
pub fn after(
    connection: &Connection,
    epoch_id: i64,
    id: i64,
) -> rusqlite::Result<Option<LetterOperationRow>> {
    let sql = "SELECT id, after_commit, generation, kind, seqs, outcomes, reasons, days, at, \
               batch, dead, state, hash FROM letter_operations WHERE epoch_id = ?1 AND id > ?2 \
               ORDER BY id LIMIT 1";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query(params![epoch_id, id])?;
    rows.next()?.map(LetterOperationRow::read).transpose()
}
