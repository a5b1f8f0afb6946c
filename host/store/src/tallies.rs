//! Running counts of outcomes by day and reason. What a commit or an operation adds to them can be
//! computed from its row alone, so an audit counts them again for as long as the row is kept.

use std::collections::BTreeMap;

use lockgate_model::{Books, Day, DayTally, Outcome, Outcomes};
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, ValueRef};
use rusqlite::{Connection, OptionalExtension, params};

use crate::error::ReadError;
use crate::limits::REASONS_PER_DAY;
use crate::schema::{Checksum, digest, row_checksum};

/// Where reasons past the limit are counted.
pub const OTHER_REASONS: &str = "other reasons";

/// The kinds of counts. The last three are of the dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tallied {
    Delivered,
    Dropped,
    /// Dropped by retention, because the pipeline is not configured to read it any more.
    Removed,
    /// Dropped by retention, because the pipeline had reached its lag limit.
    GivenUp,
    Dead,
    /// Dead letters that were sent back.
    Retried,
    /// Dead letters that the operator dropped.
    Discarded,
    /// Dead letters that are no longer kept. Their entries stay dead.
    Expired,
}

impl Tallied {
    const ALL: [Tallied; 8] = [
        Tallied::Delivered,
        Tallied::Dropped,
        Tallied::Removed,
        Tallied::GivenUp,
        Tallied::Dead,
        Tallied::Retried,
        Tallied::Discarded,
        Tallied::Expired,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Tallied::Delivered => "delivered",
            Tallied::Dropped => "dropped",
            Tallied::Removed => "removed",
            Tallied::GivenUp => "given up",
            Tallied::Dead => "dead",
            Tallied::Retried => "retried",
            Tallied::Discarded => "discarded",
            Tallied::Expired => "expired",
        }
    }
}

impl Tallied {
    /// Adds so many entries to the books. `None` if fewer are dead than are taken back.
    pub fn apply(self, books: &mut Books, count: u64) -> Option<()> {
        match self {
            Tallied::Delivered => books.delivered += count,
            Tallied::Dropped | Tallied::Removed | Tallied::GivenUp => books.dropped += count,
            Tallied::Dead => books.dead += count,
            Tallied::Retried => books.dead = books.dead.checked_sub(count)?,
            Tallied::Discarded => {
                books.dead = books.dead.checked_sub(count)?;
                books.dropped += count;
            }
            Tallied::Expired => {}
        }
        Some(())
    }
}

impl ToSql for Tallied {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        self.name().to_sql()
    }
}

impl FromSql for Tallied {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Tallied> {
        let name = value.as_str()?;
        let mut all = Tallied::ALL.into_iter();
        all.find(|kind| kind.name() == name)
            .ok_or(FromSqlError::InvalidType)
    }
}

/// Entries by day, outcome and reason.
pub type Counts = BTreeMap<(Day, Tallied, String), u64>;

/// Adds the outcomes of a commit, those dropped as `dropped`. Its reasons count for its days in the
/// order of the sequences. `Err`: what contradicts itself.
pub fn of_outcomes(
    outcomes: &Outcomes,
    reasons: &[String],
    days: &[DayTally],
    dropped: Tallied,
    counts: &mut Counts,
) -> Result<(), &'static str> {
    // How many of each day are left to give a reason, latest day first.
    let left = |column: fn(&DayTally) -> u64| -> Vec<(Day, u64)> {
        let days = days.iter().rev().map(|day| (day.day, column(day)));
        days.filter(|(_, count)| *count > 0).collect()
    };
    let mut delivered = left(|day| day.delivered);
    let mut dropped_days = left(|day| day.dropped);
    let mut dead = left(|day| day.dead);
    for run in &outcomes.runs {
        let (kind, days, reason) = match run.outcome {
            Outcome::Delivered => (Tallied::Delivered, &mut delivered, None),
            Outcome::Dropped(reason) => (dropped, &mut dropped_days, Some(reason)),
            Outcome::Dead(reason) => (Tallied::Dead, &mut dead, Some(reason)),
        };
        let reason = match reason {
            None => "",
            Some(index) => reasons
                .get(usize::from(index))
                .ok_or("a reason has no text")?,
        };
        let mut rest = u64::from(run.len);
        while rest > 0 {
            let (day, count) = days.last_mut().ok_or("its days are not its outcomes'")?;
            let part = rest.min(*count);
            *counts.entry((*day, kind, known(reason))).or_default() += part;
            rest -= part;
            *count -= part;
            if *count == 0 {
                days.pop();
            }
        }
    }
    if delivered.is_empty() && dropped_days.is_empty() && dead.is_empty() {
        Ok(())
    } else {
        Err("its days are not its outcomes'")
    }
}

/// The last line of a commit's reasons says how many share it; here they are one.
fn known(reason: &str) -> String {
    if reason.starts_with("other reasons (") {
        OTHER_REASONS.to_owned()
    } else {
        reason.to_owned()
    }
}

/// Which columns a change is added to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Columns {
    Count,
    Folded,
}

/// Adds counts to the rows of a pass.
pub fn add(
    connection: &Connection,
    epoch_id: i64,
    counts: &Counts,
    columns: Columns,
) -> Result<(), ReadError> {
    for ((day, kind, reason), count) in counts {
        let found = one(connection, epoch_id, *day, *kind, reason)?;
        let (reason, found) = match found {
            Some(row) => (reason.as_str(), Some(row)),
            None if is_full(connection, epoch_id, *day, *kind)? => {
                let row = one(connection, epoch_id, *day, *kind, OTHER_REASONS)?;
                (OTHER_REASONS, row)
            }
            None => (reason.as_str(), None),
        };
        let (mut total, mut folded) = found.unwrap_or_default();
        match columns {
            Columns::Count => total += count,
            Columns::Folded => folded += count,
        }
        let checksum = checksum(epoch_id, *day, *kind, reason, (total, folded));
        let sql = "INSERT INTO tallies (epoch_id, day, outcome, reason, count, folded, checksum) \
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT DO UPDATE SET count = ?5, \
                   folded = ?6, checksum = ?7";
        connection.prepare_cached(sql)?.execute(params![
            epoch_id, day.0, kind, reason, total, folded, checksum
        ])?;
    }
    Ok(())
}

fn one(
    connection: &Connection,
    epoch_id: i64,
    day: Day,
    kind: Tallied,
    reason: &str,
) -> rusqlite::Result<Option<(u64, u64)>> {
    let sql = "SELECT count, folded FROM tallies WHERE epoch_id = ?1 AND day = ?2 AND outcome = ?3 \
               AND reason = ?4";
    let mut statement = connection.prepare_cached(sql)?;
    let found = statement.query_row(params![epoch_id, day.0, kind, reason], |row| {
        Ok((row.get(0)?, row.get(1)?))
    });
    found.optional()
}

fn is_full(
    connection: &Connection,
    epoch_id: i64,
    day: Day,
    kind: Tallied,
) -> rusqlite::Result<bool> {
    let sql = "SELECT count(*) FROM tallies WHERE epoch_id = ?1 AND day = ?2 AND outcome = ?3";
    let mut statement = connection.prepare_cached(sql)?;
    let count: usize = statement.query_row(params![epoch_id, day.0, kind], |row| row.get(0))?;
    Ok(count >= REASONS_PER_DAY)
}

fn checksum(
    epoch_id: i64,
    day: Day,
    kind: Tallied,
    reason: &str,
    (count, folded): (u64, u64),
) -> [u8; 16] {
    row_checksum([
        epoch_id.into(),
        i64::from(day.0).into(),
        kind.name().into(),
        reason.into(),
        count.into(),
        folded.into(),
    ])
}

/// One row, and whether it is as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TallyRow {
    pub day: Day,
    pub kind: Tallied,
    pub reason: String,
    pub count: u64,
    pub folded: u64,
    pub is_sound: bool,
}

/// The rows of a pass, in their order.
pub fn rows(connection: &Connection, epoch_id: i64) -> Result<Vec<TallyRow>, ReadError> {
    let sql = "SELECT day, outcome, reason, count, folded, checksum FROM tallies WHERE epoch_id = \
               ?1 ORDER BY day, outcome, reason";
    let mut statement = connection.prepare_cached(sql)?;
    let mut found = statement.query([epoch_id])?;
    let mut rows = Vec::new();
    while let Some(row) = found.next()? {
        let (day, kind, reason) = (Day(row.get(0)?), row.get(1)?, row.get::<_, String>(2)?);
        let (count, folded) = (row.get(3)?, row.get(4)?);
        let written: Vec<u8> = row.get(5)?;
        rows.push(TallyRow {
            is_sound: written == checksum(epoch_id, day, kind, &reason, (count, folded)),
            day,
            kind,
            reason,
            count,
            folded,
        });
    }
    Ok(rows)
}

/// The same, for who cannot go on without one of them.
pub fn sound_rows(connection: &Connection, epoch_id: i64) -> Result<Vec<TallyRow>, ReadError> {
    let rows = rows(connection, epoch_id)?;
    match rows.iter().find(|row| !row.is_sound) {
        None => Ok(rows),
        Some(row) => Err(ReadError::Damaged(format!(
            "the tally of {} on {} is not what was written",
            row.kind.name(),
            row.day
        ))),
    }
}

/// Over the folded counts of a pass.
pub fn folded_digest(rows: &[TallyRow]) -> Checksum {
    let folded = rows.iter().filter(|row| row.folded > 0);
    digest(folded.flat_map(|row| {
        [
            i64::from(row.day.0).into(),
            row.kind.name().into(),
            row.reason.as_str().into(),
            row.folded.into(),
        ]
    }))
}

/// Delivered, dropped and dead by day. `None` if fewer were dead than were taken back.
pub fn books(counts: impl Iterator<Item = (Day, Tallied, u64)>) -> BTreeMap<Day, Option<Books>> {
    let mut days: BTreeMap<Day, Vec<(Tallied, u64)>> = BTreeMap::new();
    for (day, kind, count) in counts {
        days.entry(day).or_default().push((kind, count));
    }
    let sum = |(day, mut counts): (Day, Vec<(Tallied, u64)>)| {
        // The dead stand before what is taken back of them.
        counts.sort_unstable();
        let mut books = Books::default();
        let mut counts = counts.into_iter();
        let whole = counts.try_for_each(|(kind, count)| kind.apply(&mut books, count));
        (day, whole.map(|()| books))
    };
    days.into_iter().map(sum).collect()
}

/// The counts of a pass over all days and reasons, the dead before what is taken back of them.
/// Without the checksums of the rows, which an audit verifies: this is what `status` waits for.
pub fn totals(connection: &Connection, epoch_id: i64) -> rusqlite::Result<Vec<(Tallied, u64)>> {
    let sql = "SELECT outcome, sum(count) FROM tallies WHERE epoch_id = ?1 GROUP BY outcome";
    let mut statement = connection.prepare_cached(sql)?;
    let totals = statement.query_map([epoch_id], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let mut totals: Vec<(Tallied, u64)> = totals.collect::<Result<_, _>>()?;
    totals.sort_unstable();
    Ok(totals)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_count_for_the_days_of_their_commit_in_order() {
        let mut outcomes = Outcomes::default();
        for outcome in [
            Outcome::Dropped(0),
            Outcome::Delivered,
            Outcome::Dropped(0),
            Outcome::Dropped(1),
        ] {
            outcomes.push(outcome);
        }
        let day = |day, delivered, dropped| DayTally {
            day: Day(day),
            delivered,
            dropped,
            dead: 0,
        };
        let reasons = ["noise".to_owned(), "other reasons (3)".to_owned()];
        let mut counts = Counts::default();
        let days = [day(1, 0, 1), day(2, 1, 2)];
        of_outcomes(&outcomes, &reasons, &days, Tallied::Dropped, &mut counts).unwrap();
        let expected = [
            ((Day(1), Tallied::Dropped, "noise".to_owned()), 1),
            ((Day(2), Tallied::Delivered, String::new()), 1),
            ((Day(2), Tallied::Dropped, "noise".to_owned()), 1),
            ((Day(2), Tallied::Dropped, OTHER_REASONS.to_owned()), 1),
        ];
        assert_eq!(counts, expected.into());
        for days in [vec![day(1, 0, 1)], vec![day(1, 2, 3)], vec![]] {
            let wrong = of_outcomes(&outcomes, &reasons, &days, Tallied::Dropped, &mut counts);
            assert_eq!(wrong, Err("its days are not its outcomes'"));
        }
        let nameless = of_outcomes(
            &outcomes,
            &reasons[..1],
            &days,
            Tallied::Dropped,
            &mut counts,
        );
        assert_eq!(nameless, Err("a reason has no text"));
    }
}
