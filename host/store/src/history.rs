//! The history of one entry in each pipeline, out of commits and operations on dead letters.

use lockgate_ledger::{KeptLetter, Progress};
use lockgate_model::{Fate, Millis, Outcome, RequestRecord, Seq, SeqRange};
use rusqlite::{Connection, OptionalExtension, params};
use serde::Deserialize;

use crate::anchors::Anchor;
use crate::error::ReadError;
use crate::letter_operations::{Kind, LetterOperationRow};
use crate::rows::{self, Epoch};
use crate::tallies::Tallied;
use crate::writer::retention::{LAG_LIMIT, RETENTION, drops_of};
use crate::{anchors, codec, letter_operations, letters};

/// An entry in the current epoch of a pipeline.
#[derive(Clone, Debug, PartialEq)]
pub struct EntryHistory {
    pub pipeline: String,
    /// False if the pipeline was not configured to read the stream when it last ran.
    pub active: bool,
    pub state: EntryState,
    /// Its steps, oldest first.
    pub steps: Vec<HistoryStep>,
    /// Its dead letter, also if it waits again.
    pub letter: Option<KeptLetter>,
}

/// How an entry stands in a pipeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryState {
    /// Retention had removed it before the pipeline read the stream for the first time.
    BeforeBegin,
    /// It has no outcome yet. `ahead`: entries before it in the stream that have none either.
    Waiting {
        ahead: u64,
    },
    /// It was a dead letter and waits again. `ahead`: of such entries before it.
    WaitingAgain {
        ahead: u64,
    },
    Final(Fate),
    /// It is final. The commits and operations that say how were folded into the daily tallies
    /// then.
    Folded {
        at: Millis,
    },
}

/// One commit or operation on dead letters, as far as it is about the entry.
#[derive(Clone, Debug, PartialEq)]
pub struct HistoryStep {
    pub at: Millis,
    pub generation: u32,
    /// The generation's digests and tables, as JSON.
    pub description: String,
    pub change: Change,
    /// Id of the batch; empty if none did it.
    pub batch: String,
    /// The requests that carried a document of the entry. Releases up to 0.1 did not note which
    /// did: then all of the batch.
    pub requests: Vec<RequestRecord>,
}

/// The change that a step made to the entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The entry became final.
    Outcome(Fate),
    /// Retention removed its event before the pipeline had finished it.
    RemovedByRetention,
    /// Retention removed its event, because the pipeline had reached its lag limit.
    GivenUp,
    /// An operator sent the dead letter back.
    Retried,
    /// The dead letter became dropped, for this reason.
    LetterDropped(String),
    /// The dead letter became too old and was removed.
    LetterExpired,
}

/// One for each pipeline that ever read the stream, by name.
pub fn of_entry(
    connection: &Connection,
    stream: &str,
    seq: Seq,
) -> Result<Vec<EntryHistory>, ReadError> {
    let mut all = Vec::new();
    let mut epochs = rows::epochs(connection)?;
    epochs.retain(|epoch| epoch.progress.stream == stream);
    epochs.sort_by(|left, right| left.pipeline.cmp(&right.pipeline));
    for epoch in &epochs {
        all.push(of_epoch(connection, epoch, seq)?);
    }
    Ok(all)
}

fn of_epoch(connection: &Connection, epoch: &Epoch, seq: Seq) -> Result<EntryHistory, ReadError> {
    let progress = &epoch.progress;
    let mut steps = Vec::from_iter(commit(connection, epoch, seq)?);
    let is_folded = steps.is_empty() && is_final(progress, seq);
    let was_dead = |step: &HistoryStep| matches!(step.change, Change::Outcome(Fate::Dead(_)));
    // Only what was dead has a history after its commit.
    if is_folded || steps.first().is_some_and(was_dead) {
        operations(connection, epoch, seq, &mut steps)?;
    }
    let letter = letters::of_epoch(connection, epoch.id, seq)?;
    let state = match steps.last().map(|step| &step.change) {
        None if seq < progress.begin => EntryState::BeforeBegin,
        None if is_folded => folded(connection, epoch, seq, letter.as_ref())?,
        None => EntryState::Waiting {
            ahead: waiting_before(progress, seq),
        },
        Some(Change::Outcome(fate)) => EntryState::Final(fate.clone()),
        Some(Change::RemovedByRetention) => EntryState::Final(Fate::Dropped(RETENTION.to_owned())),
        Some(Change::GivenUp) => EntryState::Final(Fate::Dropped(LAG_LIMIT.to_owned())),
        Some(Change::Retried) => EntryState::WaitingAgain {
            ahead: letters::waiting_before(connection, epoch.id, seq)?,
        },
        Some(Change::LetterDropped(reason)) => EntryState::Final(Fate::Dropped(reason.clone())),
        Some(Change::LetterExpired) => {
            let fates = steps.iter().rev().find_map(|step| match &step.change {
                Change::Outcome(fate) => Some(fate.clone()),
                _ => None,
            });
            // Without its commit, the reason is gone too.
            EntryState::Final(fates.unwrap_or(Fate::Dead(String::new())))
        }
    };
    Ok(EntryHistory {
        pipeline: epoch.pipeline.to_string(),
        active: epoch.active,
        state,
        steps,
        letter,
    })
}

fn is_final(progress: &Progress, seq: Seq) -> bool {
    seq >= progress.begin && progress.touches(&(seq..seq + 1))
}

fn waiting_before(progress: &Progress, seq: Seq) -> u64 {
    let waiting = progress.waiting(seq).into_iter();
    waiting
        .map(|range| range.end.min(seq).saturating_sub(range.start))
        .sum()
}

/// The state of a final entry whose commit was folded, without an operation since.
fn folded(
    connection: &Connection,
    epoch: &Epoch,
    seq: Seq,
    letter: Option<&KeptLetter>,
) -> Result<EntryState, ReadError> {
    match anchors::letter(connection, epoch.id, seq)? {
        Some(letter) if letter.waits => {
            let ahead = letters::waiting_before(connection, epoch.id, seq)?;
            return Ok(EntryState::WaitingAgain { ahead });
        }
        Some(_) => {
            let reason = letter.map(|kept| kept.letter.reason.clone());
            return Ok(EntryState::Final(Fate::Dead(reason.unwrap_or_default())));
        }
        None => {}
    }
    let anchors = anchors::of(connection, epoch)?;
    let stands_for_it = |(anchor, _): &&(Anchor, _)| is_final(&anchor.progress, seq);
    match anchors.iter().find(stands_for_it) {
        Some((anchor, _)) => Ok(EntryState::Folded { at: anchor.at }),
        None => Err(ReadError::Damaged(format!(
            "the commit of `{}` for entry {seq} of `{}` is gone",
            epoch.pipeline, epoch.progress.stream
        ))),
    }
}

fn commit(
    connection: &Connection,
    epoch: &Epoch,
    seq: Seq,
) -> Result<Option<HistoryStep>, ReadError> {
    let sql = "SELECT generation, first_seq, end_seq, outcomes, reasons, at, batch FROM commits \
               WHERE epoch_id = ?1 AND first_seq <= ?2 ORDER BY first_seq DESC LIMIT 1";
    let mut statement = connection.prepare_cached(sql)?;
    let row = statement.query_row(params![epoch.id, seq], |row| {
        let range: SeqRange = row.get(1)?..row.get(2)?;
        let outcomes: Vec<u8> = row.get(3)?;
        let texts: (String, String) = (row.get(4)?, row.get(6)?);
        Ok((row.get(0)?, range, outcomes, texts, row.get(5)?))
    });
    let Some((generation, range, outcomes, (reasons, batch), at)) = row.optional()? else {
        return Ok(None);
    };
    if !range.contains(&seq) {
        return Ok(None);
    }
    let damaged = |what: &dyn std::fmt::Display| {
        ReadError::Damaged(format!(
            "the commit of `{}` for {range:?} of `{}`: {what}",
            epoch.pipeline, epoch.progress.stream
        ))
    };
    let fate = fate(&outcomes, &reasons, (seq - range.start) as usize).map_err(|e| damaged(&e))?;
    let record = Batch::read(&batch).map_err(|error| damaged(&error))?;
    let change = match (fate, drops_of(&record.id, range.start)) {
        (Fate::Dropped(_), Tallied::Removed) => Change::RemovedByRetention,
        (Fate::Dropped(_), Tallied::GivenUp) => Change::GivenUp,
        (fate, _) => Change::Outcome(fate),
    };
    step(connection, epoch, (at, generation), change, record, seq).map(Some)
}

fn operations(
    connection: &Connection,
    epoch: &Epoch,
    seq: Seq,
    steps: &mut Vec<HistoryStep>,
) -> Result<(), ReadError> {
    let mut last = 0;
    while let Some(row) = letter_operations::after(connection, epoch.id, last)? {
        last = row.id;
        let Some(nth) = row.entries()?.iter().position(|&other| other == seq) else {
            continue;
        };
        let change = change(&row, nth)?;
        let record = Batch::read(&row.batch).map_err(|error| row.damaged(error))?;
        let made = (row.at, row.generation);
        steps.push(step(connection, epoch, made, change, record, seq)?);
    }
    Ok(())
}

fn change(row: &LetterOperationRow, nth: usize) -> Result<Change, ReadError> {
    let fate = || fate(&row.outcomes, &row.reasons, nth).map_err(|what| row.damaged(what));
    Ok(match row.kind {
        Kind::Retry => Change::Retried,
        Kind::Expire => Change::LetterExpired,
        Kind::Commit => Change::Outcome(fate()?),
        Kind::Drop => match fate()? {
            Fate::Dropped(reason) => Change::LetterDropped(reason),
            _ => return Err(row.damaged("its outcome is not `dropped`")),
        },
    })
}

fn step(
    connection: &Connection,
    epoch: &Epoch,
    (at, generation): (Millis, u32),
    change: Change,
    batch: Batch,
    seq: Seq,
) -> Result<HistoryStep, ReadError> {
    let sql = "SELECT description FROM generations WHERE pipeline = ?1 AND generation = ?2";
    let mut statement = connection.prepare_cached(sql)?;
    let description = statement.query_row(params![epoch.pipeline, generation], |row| row.get(0));
    Ok(HistoryStep {
        at,
        generation,
        description: description.optional()?.unwrap_or_default(),
        change,
        requests: batch.requests_of(seq),
        batch: batch.id,
    })
}

fn fate(outcomes: &[u8], reasons: &str, nth: usize) -> Result<Fate, String> {
    let outcomes = codec::decode_outcomes(outcomes).map_err(|error| error.to_string())?;
    let reasons: Vec<String> = serde_json::from_str(reasons).map_err(|error| error.to_string())?;
    let mut left = nth as u64;
    let run = outcomes.runs.iter().find(|run| {
        let is_in = left < u64::from(run.len);
        left = left.saturating_sub(run.len.into());
        is_in
    });
    let reason = |index: u16| reasons.get(usize::from(index)).cloned().unwrap_or_default();
    match run.map(|run| run.outcome) {
        Some(Outcome::Delivered) => Ok(Fate::Delivered),
        Some(Outcome::Dropped(index)) => Ok(Fate::Dropped(reason(index))),
        Some(Outcome::Dead(index)) => Ok(Fate::Dead(reason(index))),
        None => Err("its outcomes are not its entries'".to_owned()),
    }
}

/// The column `batch`.
#[derive(Deserialize)]
struct Batch {
    id: String,
    requests: Vec<RequestRow>,
}

#[derive(Deserialize)]
struct RequestRow {
    #[serde(default)]
    method: String,
    #[serde(default)]
    endpoint: String,
    #[serde(default)]
    path: String,
    #[serde(default)]
    entries: Vec<(Seq, Seq)>,
    status: u16,
    documents: u32,
    bytes: u64,
    attempts: u32,
    excerpt: String,
}

impl Batch {
    fn read(text: &str) -> Result<Batch, serde_json::Error> {
        serde_json::from_str(text)
    }

    fn requests_of(&self, seq: Seq) -> Vec<RequestRecord> {
        let carried = |request: &&RequestRow| {
            let mut entries = request.entries.iter();
            request.entries.is_empty() || entries.any(|&(start, end)| (start..end).contains(&seq))
        };
        let record = |request: &RequestRow| RequestRecord {
            method: request.method.clone(),
            endpoint: request.endpoint.clone(),
            path: request.path.clone(),
            entries: request
                .entries
                .iter()
                .map(|&(start, end)| start..end)
                .collect(),
            status: request.status,
            documents: request.documents,
            bytes: request.bytes,
            attempts: request.attempts,
            excerpt: request.excerpt.clone(),
        };
        self.requests.iter().filter(carried).map(record).collect()
    }
}
