//! The rows of gaps: parts of a source's log that could not be read.

use lockgate_model::{FeedKind, Gap, GapState, Millis};
use rusqlite::{Connection, Row, params};

use crate::error::ReadError;
use crate::schema::row_checksum;

/// How long a gap that was read later is kept, in milliseconds.
pub(crate) const READ_KEPT: Millis = 90 * 86_400_000;

/// Adds a gap, or replaces that with the same key.
pub fn put(connection: &Connection, source: &str, gap: &Gap) -> rusqlite::Result<()> {
    let sql = "INSERT OR REPLACE INTO gaps (source, key, feed, from_time, to_time, since, \
               attempts, what, error, state, ended_at, events, checksum) VALUES (?1, ?2, ?3, ?4, \
               ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)";
    connection.prepare_cached(sql)?.execute(params![
        source,
        gap.key,
        gap.feed.name(),
        gap.from,
        gap.to,
        gap.since,
        gap.attempts,
        gap.what,
        gap.error,
        gap.state.name(),
        gap.state.at(),
        gap.state.events(),
        checksum(source, gap)
    ])?;
    if let GapState::Read { at, .. } = gap.state {
        let sql = "DELETE FROM gaps WHERE source = ?1 AND state = 'read' AND ended_at < ?2";
        connection
            .prepare_cached(sql)?
            .execute(params![source, at - READ_KEPT])?;
    }
    Ok(())
}

/// The gaps of all sources, each with the name of its source, in the order of their times.
pub fn all(connection: &Connection) -> Result<Vec<(String, Gap)>, ReadError> {
    let sql = "SELECT source, key, feed, from_time, to_time, since, attempts, what, error, state, \
               ended_at, events, checksum FROM gaps ORDER BY source, from_time, key";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query([])?;
    let mut gaps = Vec::new();
    while let Some(row) = rows.next()? {
        gaps.push(read(row)?);
    }
    Ok(gaps)
}

fn read(row: &Row<'_>) -> Result<(String, Gap), ReadError> {
    let (source, key): (String, String) = (row.get(0)?, row.get(1)?);
    let damaged = || {
        ReadError::Damaged(format!(
            "the gap `{key}` of `{source}` is not what was written"
        ))
    };
    let feed: String = row.get(2)?;
    let feed = [FeedKind::Audit, FeedKind::Sessions]
        .into_iter()
        .find(|kind| kind.name() == feed)
        .ok_or_else(damaged)?;
    let (state, at): (String, Option<Millis>) = (row.get(9)?, row.get(10)?);
    let events = row.get(11)?;
    let state = match (&*state, at) {
        ("open", None) => GapState::Open,
        ("lost", Some(at)) => GapState::Lost(at),
        ("read", Some(at)) => GapState::Read { at, events },
        _ => return Err(damaged()),
    };
    let gap = Gap {
        key: key.clone(),
        feed,
        from: row.get(3)?,
        to: row.get(4)?,
        since: row.get(5)?,
        attempts: row.get(6)?,
        what: row.get(7)?,
        error: row.get(8)?,
        state,
    };
    if row.get::<_, Vec<u8>>(12)? == checksum(&source, &gap) {
        Ok((source, gap))
    } else {
        Err(damaged())
    }
}

fn checksum(source: &str, gap: &Gap) -> [u8; 16] {
    row_checksum([
        source.into(),
        gap.key.as_str().into(),
        gap.feed.name().into(),
        gap.from.into(),
        gap.to.into(),
        gap.since.into(),
        gap.attempts.into(),
        gap.what.as_str().into(),
        gap.error.as_str().into(),
        gap.state.name().into(),
        gap.state.at().unwrap_or(0).into(),
        gap.state.events().into(),
    ])
}
