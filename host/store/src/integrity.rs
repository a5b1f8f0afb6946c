//! Checks everything in a store: structure, rows, blocks, filters, chains.

use std::collections::BTreeSet;

use lockgate_model::{Millis, Seq, SeqRange};
use rusqlite::Connection;

use crate::blocks::StoredBlock;
use crate::error::ReadError;
use crate::reads::Reads;
use crate::rows::Stream;
use crate::{AuditQuery, Finding, LedgerError, blocks, damage, filter, gaps, rows};

/// Blocks that are read in one snapshot: a long one keeps the log of a running host from being cut
/// back.
const STEP: usize = 64;

/// The result of a check of the store: how much was checked, and every problem.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Integrity {
    pub blocks: u64,
    pub events: u64,
    /// Blocks that each search reads, because they have no filter.
    pub without_filter: u64,
    /// Of all chains.
    pub commits: u64,
    pub letter_operations: u64,
    /// A sentence for each place that is not what was written.
    pub problems: Vec<String>,
    /// The blocks among them.
    pub damaged: Vec<DamagedBlock>,
    /// The filters of blocks among them: the stream, and where the block begins.
    pub damaged_filters: Vec<(String, Seq)>,
}

/// A block whose events cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DamagedBlock {
    pub stream: String,
    pub entries: SeqRange,
    /// The earliest and the latest time of its events.
    pub times: (Millis, Millis),
}

/// What a damaged block still says about the sessions whose events it held.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DamagedSessions {
    /// By what can be read of the block itself. `None`: nothing can.
    pub named: Option<Vec<String>>,
    /// Its filter, which may be damaged as well.
    filter: Option<Vec<u8>>,
}

impl DamagedSessions {
    /// False: the block had no event of the session, unless its filter is damaged. Without a filter
    /// it may have had events of any.
    pub fn may_have(&self, session: &str) -> bool {
        let filter = self.filter.as_ref();
        filter.is_none_or(|filter| filter::may_hold(filter, filter::IdHash::of(session)))
    }
}

impl Reads {
    /// The sessions of which a damaged block may have had events.
    pub fn damaged_sessions(&self, block: &DamagedBlock) -> Result<DamagedSessions, LedgerError> {
        self.read(|connection| {
            let Some(stream) = rows::stream(connection, &block.stream)? else {
                return Ok(DamagedSessions::default());
            };
            let first = block.entries.start;
            let row = damage::at(connection, &stream, first)?.and_then(|part| part.row);
            let stored = match row {
                Some(id) => blocks::in_row(connection, id)?,
                None => None,
            };
            let heads = stored.and_then(|stored| stored.damaged_heads());
            let named = heads.filter(|heads| !heads.is_empty()).map(|heads| {
                let sessions = (0..heads.len()).map(|row| heads.sessions.at(row).to_owned());
                let distinct: BTreeSet<String> = sessions.collect();
                distinct.into_iter().collect()
            });
            let filter = blocks::filter(connection, stream.id, first)?;
            Ok(DamagedSessions { named, filter })
        })
    }

    /// Reads everything in the store, and computes every checksum and every hash again.
    ///
    /// # Errors
    /// The store cannot be read for another reason than damage.
    pub fn integrity(&self) -> Result<Integrity, LedgerError> {
        let mut integrity = Integrity::default();
        integrity.note(self.read(|connection| Ok(structure(connection)?)))?;
        let streams = integrity.note(self.read(rows::streams))?;
        for stream in streams.unwrap_or_default() {
            integrity.stream(self, &stream)?;
        }
        integrity.note(self.read(small_rows))?;
        let cursors = integrity.note(self.read(rows::cursor_problems))?;
        integrity.problems.extend(cursors.unwrap_or_default());
        let orphans = self.read(|connection| Ok(rows::orphans(connection)?));
        let orphans = integrity.note(orphans)?.unwrap_or_default().into_iter();
        let orphans = orphans.map(|orphan| format!("{}: {}", orphan.place, orphan.what));
        integrity.problems.extend(orphans);
        let audit = integrity.note(self.audit(&AuditQuery::default()))?;
        let audit = audit.unwrap_or_default();
        // Blocks were checked above.
        let of_chains = |finding: &&Finding| finding.pipeline.is_some();
        let found = audit.findings.iter().filter(of_chains);
        integrity.problems.extend(found.map(Finding::to_string));
        for epoch in audit.pipelines.iter().flat_map(|found| &found.epochs) {
            integrity.commits += epoch.chain.commits;
            integrity.letter_operations += epoch.chain.letter_operations;
        }
        Ok(integrity)
    }
}

impl Integrity {
    /// Damage is a problem, and the check goes on.
    fn note<T>(&mut self, result: Result<T, LedgerError>) -> Result<Option<T>, LedgerError> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(LedgerError::Damaged(what)) => {
                self.problems.push(what);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn stream(&mut self, reads: &Reads, known: &Stream) -> Result<(), LedgerError> {
        let mut next = known.oldest;
        while next < known.next {
            let step = reads.read(|connection| Ok(step(connection, &known.name, next)));
            let Some(Some(step)) = self.note(step.and_then(|step| Ok(step?)))? else {
                return Ok(());
            };
            self.blocks += step.blocks;
            self.events += step.events;
            self.without_filter += step.without_filter;
            self.problems.extend(step.problems);
            let filters = step.filters.into_iter();
            let filters = filters.map(|first| (known.name.to_string(), first));
            self.damaged_filters.extend(filters);
            self.damaged.extend(
                step.damaged
                    .into_iter()
                    .map(|(entries, times)| DamagedBlock {
                        stream: known.name.to_string(),
                        entries,
                        times,
                    }),
            );
            if step.next <= next {
                return Ok(());
            }
            next = step.next;
        }
        let misplaced = reads.read(|connection| {
            let now = rows::stream(connection, &known.name)?;
            now.map_or(Ok(Vec::new()), |now| damage::misplaced(connection, &now))
        });
        let misplaced = self.note(misplaced)?.unwrap_or_default().len();
        if misplaced > 0 {
            self.problems.push(format!(
                "{misplaced} rows of blocks of `{}` lie where no entry is missing",
                known.name
            ));
        }
        Ok(())
    }
}

/// SQLite's own check of every page and index.
fn structure(connection: &Connection) -> rusqlite::Result<()> {
    let verdict: String =
        connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
    if verdict == "ok" {
        return Ok(());
    }
    let corrupt = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT);
    Err(rusqlite::Error::SqliteFailure(corrupt, Some(verdict)))
}

/// Rows that guard themselves.
fn small_rows(connection: &Connection) -> Result<(), ReadError> {
    rows::epochs(connection)?;
    let mut sources = connection.prepare("SELECT DISTINCT source FROM cursors")?;
    for source in sources.query_map([], |row| row.get::<_, String>(0))? {
        rows::cursors(connection, &source?)?;
    }
    gaps::all(connection)?;
    Ok(())
}

#[derive(Default)]
struct Step {
    blocks: u64,
    events: u64,
    without_filter: u64,
    problems: Vec<String>,
    damaged: Vec<(SeqRange, (Millis, Millis))>,
    /// Where the blocks begin whose filters are damaged.
    filters: Vec<Seq>,
    /// Where the next step begins.
    next: Seq,
}

/// Checks the next few blocks of a stream. `None`: it is gone.
fn step(connection: &Connection, name: &str, from: Seq) -> Result<Option<Step>, ReadError> {
    let Some(stream) = rows::stream(connection, name)? else {
        return Err(ReadError::Damaged(format!("the stream `{name}` is gone")));
    };
    let mut step = Step {
        // Retention may have removed some since the last step.
        next: from.max(stream.oldest),
        ..Step::default()
    };
    while step.blocks < STEP as u64 && step.next < stream.next {
        let found = blocks::before(connection, &stream, step.next)?;
        let holds = |block: &StoredBlock| (block.first_seq..block.end()).contains(&step.next);
        let (what, heads) = match found.filter(holds) {
            Some(block) => match block.block(&stream).and_then(|_| block.heads(&stream)) {
                Ok(heads) => (None, Some((block.first_seq..block.end(), heads))),
                Err(ReadError::Damaged(what)) => (Some(what), None),
                Err(error) => return Err(error),
            },
            None => (None, None),
        };
        if let Some((entries, heads)) = heads {
            step.blocks += 1;
            step.events += entries.end - entries.start;
            step.next = entries.end;
            let found = blocks::filter(connection, stream.id, entries.start)?;
            step.without_filter += u64::from(found.is_none());
            if found.is_some_and(|found| found != filter::of_heads(&heads)) {
                step.filters.push(entries.start);
                step.problems.push(format!(
                    "the filter of block {}..{} of `{name}` is not what was written; events in it \
                     may not be found by `lockgate explain`",
                    entries.start, entries.end
                ));
            }
            continue;
        }
        let parts = damage::around(connection, &stream, step.next)?;
        let Some(last) = parts.last() else {
            // A damaged row lies over a sound one.
            let what = what.unwrap_or_else(|| format!("entry {} of `{name}`", step.next));
            step.problems.push(what);
            step.next += 1;
            continue;
        };
        step.next = last.entries.end;
        for part in parts {
            let (start, end) = (part.entries.start, part.entries.end);
            step.problems.push(match (part.row, &what) {
                (None, _) => format!("entries {start}..{end} of `{name}` are missing"),
                (Some(_), Some(what)) if what.contains(&format!("block {start}..{end} ")) => {
                    what.clone()
                }
                _ => format!("block {start}..{end} of `{name}`: its checksum differs"),
            });
            if part.row.is_some() {
                step.blocks += 1;
                step.events += end - start;
            }
            step.damaged.push((part.entries, part.times));
        }
    }
    Ok(Some(step))
}
