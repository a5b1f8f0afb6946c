//! Anchors: where the kept part of a chain begins, and what stands for the part that was folded.

use lockgate_ledger::Progress;
use lockgate_model::{Millis, Seq};
use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::error::ReadError;
use crate::links::{Letter, LetterChanges};
use crate::schema::{Checksum, digest};
use crate::{progress, rows};

/// The end of what was folded of a chain. The default stands for nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Anchor {
    pub links: u64,
    pub commits: u64,
    pub last_commit: i64,
    pub last_operation: i64,
    pub progress: Progress,
    pub tallies: Checksum,
    pub letters: Checksum,
    pub at: Millis,
    pub hash: Checksum,
}

impl Anchor {
    /// Where a chain begins.
    pub fn of_nothing(epoch: &rows::Epoch) -> Anchor {
        Anchor {
            links: 0,
            commits: 0,
            last_commit: 0,
            last_operation: 0,
            progress: Progress::new(&epoch.progress.stream, epoch.progress.begin),
            tallies: digest([]),
            letters: [0; 32],
            at: 0,
            hash: [0; 32],
        }
    }

    fn read(row: &Row<'_>, epoch: &rows::Epoch) -> Result<(Anchor, Checksum), ReadError> {
        let links: u64 = row.get(0)?;
        let done: String = row.get(5)?;
        let (stream, begin) = (&epoch.progress.stream, epoch.progress.begin);
        let progress = progress::parse(stream, begin, row.get(4)?, &done).ok_or_else(|| {
            ReadError::Damaged(format!(
                "the anchor of `{}` on `{stream}` after {links} links is not what was written",
                epoch.pipeline
            ))
        })?;
        let anchor = Anchor {
            links,
            commits: row.get(1)?,
            last_commit: row.get(2)?,
            last_operation: row.get(3)?,
            progress,
            tallies: row.get(6)?,
            letters: row.get(7)?,
            at: row.get(8)?,
            hash: row.get(9)?,
        };
        Ok((anchor, row.get(10)?))
    }

    pub fn checksum(&self, epoch_id: i64, previous: &Checksum) -> Checksum {
        digest([
            previous.as_slice().into(),
            epoch_id.into(),
            self.links.into(),
            self.commits.into(),
            self.last_commit.into(),
            self.last_operation.into(),
            self.progress.watermark.into(),
            progress::done_text(&self.progress).as_str().into(),
            self.tallies.as_slice().into(),
            self.letters.as_slice().into(),
            self.at.into(),
            self.hash.as_slice().into(),
        ])
    }

    /// Adds it after the anchor before it.
    pub fn insert(
        &self,
        connection: &Connection,
        epoch_id: i64,
        previous: &Checksum,
    ) -> rusqlite::Result<Checksum> {
        let checksum = self.checksum(epoch_id, previous);
        let sql = "INSERT INTO anchors (epoch_id, links, commits, last_commit, last_operation, \
                   watermark, done, tallies, letters, at, hash, checksum) VALUES (?1, ?2, ?3, ?4, \
                   ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)";
        connection.prepare_cached(sql)?.execute(params![
            epoch_id,
            self.links,
            self.commits,
            self.last_commit,
            self.last_operation,
            self.progress.watermark,
            progress::done_text(&self.progress),
            self.tallies,
            self.letters,
            self.at,
            self.hash,
            checksum
        ])?;
        Ok(checksum)
    }
}

/// The anchors of a pass, oldest first, with the checksums that stand there.
pub fn of(
    connection: &Connection,
    epoch: &rows::Epoch,
) -> Result<Vec<(Anchor, Checksum)>, ReadError> {
    let sql = "SELECT links, commits, last_commit, last_operation, watermark, done, tallies, \
               letters, at, hash, checksum FROM anchors WHERE epoch_id = ?1 ORDER BY links";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query([epoch.id])?;
    let mut anchors = Vec::new();
    while let Some(row) = rows.next()? {
        anchors.push(Anchor::read(row, epoch)?);
    }
    Ok(anchors)
}

/// The newest anchor of a pass, with its checksum.
pub fn newest(
    connection: &Connection,
    epoch: &rows::Epoch,
) -> Result<Option<(Anchor, Checksum)>, ReadError> {
    let sql = "SELECT links, commits, last_commit, last_operation, watermark, done, tallies, \
               letters, at, hash, checksum FROM anchors WHERE epoch_id = ?1 ORDER BY links DESC \
               LIMIT 1";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query([epoch.id])?;
    rows.next()?.map(|row| Anchor::read(row, epoch)).transpose()
}

/// The largest ids of commits and operations that were folded: none is used twice.
pub fn last_ids(connection: &Connection) -> rusqlite::Result<(i64, i64)> {
    let sql = "SELECT coalesce(max(last_commit), 0), coalesce(max(last_operation), 0) FROM anchors";
    connection.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?)))
}

/// A letter that is dead or waits again at an anchor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FoldedLetter {
    pub seq: Seq,
    pub waits: bool,
    pub letter: Checksum,
}

impl FoldedLetter {
    /// Its part of the exclusive or: adds it, and takes it away again.
    pub fn toggle(&self, letters: &mut Checksum) {
        let own = digest([
            self.seq.into(),
            i64::from(self.waits).into(),
            self.letter.as_slice().into(),
        ]);
        letters
            .iter_mut()
            .zip(own)
            .for_each(|(sum, byte)| *sum ^= byte);
    }
}

/// All folded letters of a pass.
pub fn letters(connection: &Connection, epoch_id: i64) -> rusqlite::Result<Vec<FoldedLetter>> {
    let sql = "SELECT seq, waits, letter FROM folded_letters WHERE epoch_id = ?1 ORDER BY seq";
    let mut statement = connection.prepare_cached(sql)?;
    let letters = statement.query_map([epoch_id], |row| {
        Ok(FoldedLetter {
            seq: row.get(0)?,
            waits: row.get(1)?,
            letter: row.get(2)?,
        })
    })?;
    letters.collect()
}

/// The folded letter of one entry of a pass.
pub fn letter(
    connection: &Connection,
    epoch_id: i64,
    seq: Seq,
) -> rusqlite::Result<Option<FoldedLetter>> {
    let sql = "SELECT waits, letter FROM folded_letters WHERE epoch_id = ?1 AND seq = ?2";
    let mut statement = connection.prepare_cached(sql)?;
    let letter = statement.query_row(params![epoch_id, seq], |row| {
        Ok(FoldedLetter {
            seq,
            waits: row.get(0)?,
            letter: row.get(1)?,
        })
    });
    letter.optional()
}

/// Folds what a link changes of dead letters. `sum`: the anchor's.
pub fn fold_letters(
    connection: &Connection,
    epoch_id: i64,
    changes: &LetterChanges,
    sum: &mut Checksum,
) -> Result<(), ReadError> {
    for &(seq, named) in &changes.taken {
        let found = letter(connection, epoch_id, seq)?;
        let is_taken = |found: &FoldedLetter| {
            found.waits == changes.waited && named.is_none_or(|named| named == found.letter)
        };
        let Some(found) = found.filter(is_taken) else {
            return Err(ReadError::Damaged(format!(
                "entry {seq} was not there to take back"
            )));
        };
        found.toggle(sum);
        let sql = "DELETE FROM folded_letters WHERE epoch_id = ?1 AND seq = ?2";
        connection
            .prepare_cached(sql)?
            .execute(params![epoch_id, seq])?;
    }
    let mut insert = |waits: bool, letters: &[Letter]| -> rusqlite::Result<()> {
        for &(seq, letter) in letters {
            FoldedLetter { seq, waits, letter }.toggle(sum);
            let sql =
                "INSERT INTO folded_letters (epoch_id, seq, waits, letter) VALUES (?1, ?2, ?3, ?4)";
            connection
                .prepare_cached(sql)?
                .execute(params![epoch_id, seq, waits, letter])?;
        }
        Ok(())
    };
    insert(true, &changes.retried)?;
    insert(false, &changes.died)?;
    Ok(())
}
