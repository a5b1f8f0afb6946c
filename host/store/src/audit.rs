//! Recounts the books from events and outcomes, and verifies chains and blocks: what an operator
//! shows to someone who does not have to believe this program.
//!
//! The chains, the counts and the equation are those of one moment: one read transaction, without
//! the events themselves. The blocks are read after that, a few at a time, so that a long audit
//! does not keep a running host from folding its log into the file.

use std::collections::BTreeMap;
use std::fmt;

use lockgate_model::{Books, Day, Gap, Seq, SeqRange};
use rusqlite::{Connection, params};

use crate::blocks::{self, Extent};
use crate::chain::ChainHead;
use crate::encoded::count_days;
use crate::error::ReadError;
use crate::kept_blocks::KeptBlocks;
use crate::reads::Reads;
use crate::report::ChainName;
use crate::rows::{self, Epoch};
use crate::schema::Checksum;
use crate::tallies::{self, Tallied};
use crate::verify::Mark;
use crate::{LedgerError, books, filter, gaps, limits, verify};

/// The scope of an audit. The default is everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditQuery {
    pub pipeline: Option<String>,
    /// Only the equations of this day, and only the blocks with events of it. The chains are
    /// verified as a whole all the same.
    pub day: Option<Day>,
}

/// The result of an audit. It holds if there is no finding.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Audit {
    pub pipelines: Vec<PipelineAudit>,
    /// Every stream, whether a pipeline reads it or not.
    pub streams: Vec<StreamAudit>,
    /// Parts of Teleport's logs that could not be read, with the names of their sources: the books
    /// say nothing about their events. Those that were read later are among them.
    pub gaps: Vec<(String, Gap)>,
    /// Blocks that were read and found as they were written.
    pub blocks: u64,
    pub findings: Vec<Finding>,
    /// Findings in all; `findings` has the first of them.
    pub findings_total: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PipelineAudit {
    pub name: String,
    pub epochs: Vec<EpochAudit>,
}

/// One pass of a pipeline over a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EpochAudit {
    pub epoch: u32,
    pub chain: ChainHead,
    /// If links were folded: how many there were up to then, and the hash of the last of them.
    pub anchors: Vec<(u64, [u8; 32])>,
    pub days: Vec<DayAudit>,
    /// Where the chain stood after as many links as a report has.
    pub(crate) mark: Option<Mark>,
}

/// The contents of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamAudit {
    pub name: String,
    /// The oldest event kept, and the sequence that the next one gets.
    pub kept: SeqRange,
    /// Events ever read, by the day of their time.
    pub read: BTreeMap<Day, u64>,
    /// Where each block that is kept begins, and its checksum, in their order.
    pub(crate) blocks: Vec<(Seq, Checksum)>,
}

/// The equation of one day.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DayAudit {
    pub day: Day,
    pub books: Books,
    /// Of the dropped: given up because the pipeline had reached its lag limit.
    pub given_up: u64,
    pub counted: Counted,
}

/// The source of the figures of a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Counted {
    /// Each event and each outcome is kept, and was counted.
    Events,
    /// Retention has removed events: the outcomes were counted as the commits have them by day.
    Outcomes,
    /// Commits of the day were folded: at least a part of it stands in the tallies alone.
    Tallies,
}

impl Counted {
    pub fn name(self) -> &'static str {
        match self {
            Counted::Events => "events",
            Counted::Outcomes => "outcomes",
            Counted::Tallies => "tallies",
        }
    }
}

/// Something that does not hold, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub pipeline: Option<String>,
    pub stream: Option<String>,
    /// The day of the event's time, if it is known.
    pub day: Option<Day>,
    /// Such as `the commit for entries 1..501`.
    pub place: String,
    pub what: String,
}

impl Finding {
    fn in_pipeline(name: &str, place: &str, what: String) -> Finding {
        Finding {
            pipeline: Some(name.to_owned()),
            stream: None,
            day: None,
            place: place.to_owned(),
            what,
        }
    }

    pub(crate) fn in_stream(name: &str, day: Option<Day>, place: String, what: String) -> Finding {
        Finding {
            pipeline: None,
            stream: Some(name.to_owned()),
            day,
            place,
            what,
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(pipeline) = &self.pipeline {
            write!(f, "pipeline `{pipeline}`, ")?;
        }
        if let Some(stream) = &self.stream {
            write!(f, "stream `{stream}`, ")?;
        }
        match self.day {
            Some(day) => write!(f, "day {day}, ")?,
            None => write!(f, "day not known, ")?,
        }
        write!(f, "{}: {}", self.place, self.what)
    }
}

/// Findings, of which a limited number is kept.
#[derive(Default)]
pub struct Findings {
    pub list: Vec<Finding>,
    pub total: u64,
}

impl Findings {
    pub fn push(&mut self, finding: Finding) {
        self.total += 1;
        if self.list.len() < limits::FINDINGS {
            self.list.push(finding);
        }
    }
}

/// A stream at the moment of the audit.
struct StreamSnapshot {
    kept: KeptBlocks,
    days: BTreeMap<Day, StreamDay>,
}

impl StreamSnapshot {
    fn audit(&self) -> StreamAudit {
        let days = self.days.iter();
        let blocks = self.kept.extents.iter();
        StreamAudit {
            name: self.kept.stream.name.to_string(),
            kept: self.kept.oldest()..self.kept.next(),
            read: days.map(|(&day, counts)| (day, counts.appended)).collect(),
            blocks: blocks
                .map(|block| (block.first_seq, block.checksum))
                .collect(),
        }
    }
}

#[derive(Clone, Copy, Default)]
struct StreamDay {
    appended: u64,
    removed: u64,
}

/// After how many links the state of a chain is noted.
pub type Marks = BTreeMap<ChainName, u64>;

pub fn run(reads: &Reads, query: &AuditQuery, marks: &Marks) -> Result<Audit, LedgerError> {
    let mut findings = Findings::default();
    let (mut pipelines, streams, mut gaps) = reads.read(|connection| {
        let (pipelines, streams) = snapshot(connection, query, marks, &mut findings)?;
        Ok((pipelines, streams, gaps::all(connection)?))
    })?;
    let held = streams.iter().map(StreamSnapshot::audit).collect();
    let mut blocks = 0;
    for stream in &streams {
        blocks += read_blocks(reads, stream, query, &mut findings)?;
    }
    if let Some(day) = query.day {
        for epoch in pipelines.iter_mut().flat_map(|found| &mut found.epochs) {
            epoch.days.retain(|row| row.day == day);
        }
        gaps.retain(|(_, gap)| (Day::of(gap.from)..=Day::of(gap.to)).contains(&day));
    }
    Ok(Audit {
        pipelines,
        streams: held,
        gaps,
        blocks,
        findings: findings.list,
        findings_total: findings.total,
    })
}

/// All that has to be of one moment.
fn snapshot(
    connection: &Connection,
    query: &AuditQuery,
    marks: &Marks,
    findings: &mut Findings,
) -> Result<(Vec<PipelineAudit>, Vec<StreamSnapshot>), ReadError> {
    let mut streams: BTreeMap<i64, StreamSnapshot> = BTreeMap::new();
    let mut pipelines = Vec::new();
    // Also those that no pipeline reads.
    if query.pipeline.is_none() {
        for stream in rows::streams(connection)? {
            let snapshot = stream_snapshot(connection, &stream.name, findings)?;
            streams.insert(stream.id, snapshot);
        }
    }
    for (pipeline, what) in rows::pipeline_problems(connection)? {
        if query.pipeline.as_ref().is_none_or(|only| *only == pipeline) {
            findings.push(Finding::in_pipeline(&pipeline, "its row", what));
        }
    }
    for orphan in rows::orphans(connection)? {
        findings.push(Finding {
            pipeline: None,
            stream: None,
            day: None,
            place: orphan.place,
            what: orphan.what,
        });
    }
    for name in names(connection, query, findings)? {
        match rows::state(connection, &name) {
            Err(ReadError::Damaged(what)) => {
                findings.push(Finding::in_pipeline(
                    &name,
                    "the state of its plugins",
                    what,
                ));
            }
            state => drop(state?),
        }
        let epochs = audit_epochs(connection, &name, &mut streams, marks, findings)?;
        let sql = "SELECT dead_bytes FROM pipelines WHERE name = ?1";
        let said: i64 = connection.query_row(sql, [&name], |row| row.get(0))?;
        let letter_bytes: i64 = connection
            .prepare_cached(
                "SELECT coalesce(sum(length(d.payload)), 0) FROM dead_letters d JOIN epochs e ON \
                 e.id = d.epoch_id WHERE e.pipeline = ?1",
            )?
            .query_row([&name], |row| row.get(0))?;
        if said != letter_bytes {
            let what = format!("{said} are on the books, and {letter_bytes} are kept");
            let place = "the bytes of its dead letters";
            findings.push(Finding::in_pipeline(&name, place, what));
        }
        pipelines.push(PipelineAudit { name, epochs });
    }
    Ok((pipelines, streams.into_values().collect()))
}

/// Those of a pipeline whose rows are what was written.
fn audit_epochs(
    connection: &Connection,
    name: &str,
    streams: &mut BTreeMap<i64, StreamSnapshot>,
    marks: &Marks,
    findings: &mut Findings,
) -> Result<Vec<EpochAudit>, ReadError> {
    let mut epochs = Vec::new();
    for epoch in rows::epochs_of(connection, name)? {
        let epoch = match epoch {
            Err(ReadError::Damaged(what)) => {
                findings.push(Finding::in_pipeline(name, "its progress", what));
                continue;
            }
            epoch => epoch?,
        };
        let stream = match streams.entry(epoch.stream_id) {
            std::collections::btree_map::Entry::Occupied(found) => found.into_mut(),
            std::collections::btree_map::Entry::Vacant(place) => {
                let name = &epoch.progress.stream;
                place.insert(stream_snapshot(connection, name, findings)?)
            }
        };
        let chain = (name.to_owned(), epoch.progress.stream.clone(), epoch.epoch);
        let mark = marks.get(&chain).copied();
        epochs.push(audit_epoch(connection, &epoch, stream, mark, findings)?);
    }
    Ok(epochs)
}

fn names(
    connection: &Connection,
    query: &AuditQuery,
    findings: &mut Findings,
) -> Result<Vec<String>, ReadError> {
    let sql = "SELECT name FROM pipelines WHERE ?1 IS NULL OR name = ?1 ORDER BY name";
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query([&query.pipeline])?;
    let mut names = Vec::new();
    while let Some(row) = rows.next()? {
        let name = row.get_ref(0)?.as_bytes().unwrap_or_default();
        match std::str::from_utf8(name) {
            Ok(name) => names.push(name.to_owned()),
            Err(_) => {
                let what = "its name is not what was written".to_owned();
                let name = String::from_utf8_lossy(name);
                findings.push(Finding::in_pipeline(&name, "its row", what));
            }
        }
    }
    match &query.pipeline {
        Some(name) if names.is_empty() && findings.total == 0 => {
            Err(ReadError::Unknown(format!("pipeline `{name}`")))
        }
        _ => Ok(names),
    }
}

fn stream_snapshot(
    connection: &Connection,
    name: &str,
    findings: &mut Findings,
) -> Result<StreamSnapshot, ReadError> {
    let stream = rows::stream(connection, name)?
        .ok_or_else(|| ReadError::Damaged(format!("the stream `{name}` is gone")))?;
    let sql = "SELECT day, appended, removed FROM stream_days WHERE stream_id = ?1";
    let mut statement = connection.prepare_cached(sql)?;
    let days = statement.query_map([stream.id], |row| {
        let (appended, removed) = (row.get(1)?, row.get(2)?);
        Ok((Day(row.get(0)?), StreamDay { appended, removed }))
    })?;
    let days: BTreeMap<Day, StreamDay> = days.collect::<Result<_, _>>()?;
    let mut find = |day, place: &str, what: String| {
        findings.push(Finding::in_stream(name, day, place.to_owned(), what));
    };
    let appended: u64 = days.values().map(|day| day.appended).sum();
    let removed: u64 = days.values().map(|day| day.removed).sum();
    let (read, gone) = (stream.next - 1, stream.oldest - 1);
    if appended != read || removed != gone {
        find(
            None,
            "the events by day",
            format!(
                "{appended} were read and {removed} removed by day, {read} and {gone} by their \
                 sequences"
            ),
        );
    }
    if rows::has_lost_its_cursors(connection, &stream)? {
        find(None, "its cursors", rows::NO_CURSOR.to_owned());
    }
    let kept = KeptBlocks::new(connection, stream)?;
    let mut next = kept.oldest();
    for extent in &kept.extents {
        if extent.first_seq != next {
            let day = Some(Day::of(extent.times.0));
            find(
                day,
                &format!("entries {next}..{}", extent.first_seq),
                "their block is gone, or another one has them, too".to_owned(),
            );
        }
        next = extent.end();
    }
    if next != kept.next() {
        find(
            None,
            &format!("entries {next}..{}", kept.next()),
            "their block is gone".to_owned(),
        );
    }
    Ok(StreamSnapshot { kept, days })
}

fn audit_epoch(
    connection: &Connection,
    epoch: &Epoch,
    stream: &mut StreamSnapshot,
    mark: Option<u64>,
    findings: &mut Findings,
) -> Result<EpochAudit, ReadError> {
    let walk = verify::walk(connection, epoch, &mut stream.kept, mark, findings)?;
    let mut days = walk.days;
    let mut counted: BTreeMap<Day, Counted> = walk
        .events_gone
        .into_iter()
        .map(|day| (day, Counted::Outcomes))
        .collect();
    let before = before(connection, epoch)?;
    for (&day, found) in &stream.days {
        let before = before.get(&day).copied().unwrap_or(0);
        days.entry(day).or_default().read += found.appended.saturating_sub(before);
        if found.removed > before {
            counted.insert(day, Counted::Outcomes);
        }
    }
    counted.extend(walk.folded.into_iter().map(|day| (day, Counted::Tallies)));
    let mut report = |day: Option<Day>, place: &str, what: String| {
        findings.push(Finding {
            pipeline: Some(epoch.pipeline.to_string()),
            stream: Some(epoch.progress.stream.clone()),
            day,
            place: place.to_owned(),
            what,
        });
    };
    match books::waiting_days(connection, epoch, &stream.kept.stream) {
        Ok(waiting) => {
            for (day, waiting) in waiting {
                days.entry(day).or_default().waiting += waiting;
            }
        }
        Err(ReadError::Damaged(what)) => report(None, "what waits", what),
        Err(error) => return Err(error),
    }
    days.retain(|_, books| *books != Books::default());
    for (&day, books) in &days {
        if !books.balance() {
            let Books {
                read,
                delivered,
                dropped,
                dead,
                waiting,
            } = books;
            report(
                Some(day),
                "the equation of the day",
                format!(
                    "read {read} is not delivered {delivered} + dropped {dropped} + dead {dead} + \
                     waiting {waiting}"
                ),
            );
        }
    }
    // What was counted again above includes them.
    let mut given_up: BTreeMap<Day, u64> = BTreeMap::new();
    for row in tallies::rows(connection, epoch.id)? {
        if row.kind == Tallied::GivenUp {
            *given_up.entry(row.day).or_default() += row.count;
        }
    }
    Ok(EpochAudit {
        epoch: epoch.epoch,
        chain: walk.head,
        anchors: walk.anchors,
        mark: walk.mark,
        days: days
            .into_iter()
            .map(|(day, books)| DayAudit {
                day,
                books,
                given_up: given_up.get(&day).copied().unwrap_or(0),
                counted: counted.get(&day).copied().unwrap_or(Counted::Events),
            })
            .collect(),
    })
}

/// Events that the pass does not count, by day.
fn before(connection: &Connection, epoch: &Epoch) -> rusqlite::Result<BTreeMap<Day, u64>> {
    let sql = "SELECT day, before FROM epoch_days WHERE epoch_id = ?1";
    let mut statement = connection.prepare_cached(sql)?;
    let days = statement.query_map(params![epoch.id], |row| Ok((Day(row.get(0)?), row.get(1)?)))?;
    days.collect()
}

/// Reads every block and counts its events by day. Answers how many blocks are as they were
/// written.
fn read_blocks(
    reads: &Reads,
    stream: &StreamSnapshot,
    query: &AuditQuery,
    findings: &mut Findings,
) -> Result<u64, LedgerError> {
    let name = &*stream.kept.stream.name;
    let mut find = |day, place: String, what: String| {
        findings.push(Finding::in_stream(name, day, place, what));
    };
    let wanted: Vec<&Extent> = stream
        .kept
        .extents
        .iter()
        .filter(|extent| {
            let days = Day::of(extent.times.0)..=Day::of(extent.times.1);
            query.day.is_none_or(|day| days.contains(&day))
        })
        .collect();
    let mut found: BTreeMap<Day, u64> = BTreeMap::new();
    // Days that cannot be counted: a block is broken, or was removed meanwhile.
    let mut unknown: Vec<std::ops::RangeInclusive<Day>> = Vec::new();
    let mut sound = 0;
    for slice in wanted.chunks(limits::AUDIT_SLICE) {
        reads.read(|connection| {
            let now = rows::stream(connection, name)?;
            let oldest = now.map_or(u64::MAX, |now| now.oldest);
            for extent in slice {
                let (first, last) = (Day::of(extent.times.0), Day::of(extent.times.1));
                let place = format!(
                    "the block of entries {}..{}",
                    extent.first_seq,
                    extent.end()
                );
                let stored = blocks::before(connection, &stream.kept.stream, extent.first_seq)?;
                let stored = stored.filter(|stored| stored.first_seq == extent.first_seq);
                let heads = match stored {
                    // Retention came first.
                    None if extent.first_seq < oldest => None,
                    None => {
                        find(Some(first), place, "it is gone".to_owned());
                        None
                    }
                    Some(stored) => match stored.heads(&stream.kept.stream) {
                        Err(ReadError::Damaged(what)) => {
                            find(Some(first), place, what);
                            None
                        }
                        heads => Some(heads?),
                    },
                };
                match heads {
                    Some(heads) => {
                        sound += 1;
                        let (id, start) = (stream.kept.stream.id, extent.first_seq);
                        let written = blocks::filter(connection, id, start)?;
                        if written.is_some_and(|written| written != filter::of_heads(&heads)) {
                            let place = format!("the filter of block {start}..{}", extent.end());
                            let what = "it is not what was written";
                            find(Some(first), place, what.to_owned());
                        }
                        for (day, count) in count_days(&heads.times) {
                            *found.entry(day).or_default() += count;
                        }
                    }
                    None => unknown.push(first..=last),
                }
            }
            Ok(())
        })?;
    }
    for (day, said) in &stream.days {
        let counted = found.get(day).copied().unwrap_or(0);
        let kept = said.appended.saturating_sub(said.removed);
        let is_unknown = unknown.iter().any(|days| days.contains(day));
        if counted != kept && !is_unknown && query.day.is_none_or(|asked| asked == *day) {
            find(
                Some(*day),
                "the events of the day".to_owned(),
                format!("{kept} are on the books, and {counted} are in the blocks"),
            );
        }
    }
    Ok(sound)
}
