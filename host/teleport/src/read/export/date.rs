//! Reads one date by bulk export until the date is closed.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use lockgate_backoff::Backoff;
use lockgate_model::{CursorUpdate, Day, FeedKind};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::chunk::{self, ChunkEnd};
use super::cursor::{Chunks, Position, chunk_key, date_key};
use crate::connect::Failure;
use crate::proto::auditlog::GetEventExportChunksRequest;
use crate::source::Source;
use crate::time::to_proto;
use crate::{Closed, Intake};

/// The progress of a date when its chunks were last listed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct DateProgress {
    /// There was no chunk left to begin.
    idle: bool,
    /// Chunks that could not be read and will be retried later.
    stuck: usize,
}

impl DateProgress {
    /// Whether the next date may begin. A chunk that cannot be read does not stop the log.
    pub(super) fn is_idle(self) -> bool {
        self.idle
    }

    pub(super) fn is_complete(self) -> bool {
        self.idle && self.stuck == 0
    }
}

/// A failing chunk, and when to retry it.
struct Stuck {
    until: Instant,
    backoff: Backoff,
}

/// Lists the chunks of a date and reads new ones, repeatedly, until the date is closed. Returns the
/// keys of its cursors.
pub(super) async fn work<I: Intake>(
    source: Arc<Source<I>>,
    day: Day,
    mut chunks: Chunks,
    dates: watch::Sender<BTreeMap<Day, DateProgress>>,
    close: Arc<Notify>,
) -> Result<(Day, Vec<String>), Closed> {
    let limits = &source.settings.limits;
    let mut stuck: HashMap<String, Stuck> = HashMap::new();
    let mut failures = source.backoff();
    let place = date_key(day);
    let mut first = true;
    let mut closing = false;
    let report = |idle, stuck| {
        let progress = DateProgress { idle, stuck };
        dates.send_if_modified(|dates| dates.insert(day, progress) != Some(progress));
    };
    loop {
        let listed = match list(&source, day).await {
            Ok(listed) => listed,
            Err(failure) => {
                source.status.set_failure(
                    &place,
                    format!("the chunks of {day} cannot be listed: {failure}"),
                );
                source.pause(&mut failures).await;
                continue;
            }
        };
        failures.reset();
        source.status.clear_failure(&place);
        drop_vanished(&source, day, &listed, &mut chunks, &mut stuck).await?;

        let now = Instant::now();
        let due = |chunk: &String| stuck.get(chunk).is_none_or(|stuck| stuck.until <= now);
        let begun = chunks
            .iter()
            .filter(|(_, position)| **position != Position::Read)
            .map(|(chunk, _)| chunk);
        // Chunks that have been begun come first.
        let mut todo: Vec<String> = begun.filter(|chunk| due(chunk)).cloned().collect();
        todo.extend(
            listed
                .iter()
                .filter(|chunk| !chunks.contains_key(*chunk) && due(chunk))
                .cloned(),
        );
        if todo.is_empty() {
            report(true, stuck.len());
            if closing && stuck.is_empty() {
                let keys = chunks
                    .keys()
                    .map(|chunk| chunk_key(day, chunk))
                    .chain([date_key(day)])
                    .collect();
                return Ok((day, keys));
            }
            // The first wait is short and random, so that the dates are not listed all at once.
            let pause = if first {
                limits
                    .export_poll
                    .mul_f64(source.settings.clock.chance() / 2.0)
            } else {
                limits.export_poll
            };
            first = false;
            tokio::select! {
                () = source.rest(pause) => {}
                () = close.notified() => closing = true,
            }
            continue;
        }
        report(false, stuck.len());
        read(&source, day, todo, &mut chunks, &mut stuck).await?;
    }
}

/// Reads chunks, several at a time.
async fn read<I: Intake>(
    source: &Arc<Source<I>>,
    day: Day,
    todo: Vec<String>,
    chunks: &mut Chunks,
    stuck: &mut HashMap<String, Stuck>,
) -> Result<(), Closed> {
    let mut todo = todo.into_iter();
    let mut running = JoinSet::new();
    loop {
        while running.len() < source.settings.limits.export_chunks.max(1)
            && let Some(name) = todo.next()
        {
            let cursor = match chunks.get(&name) {
                Some(Position::At(cursor)) => cursor.clone(),
                _ => String::new(),
            };
            let source = source.clone();
            running.spawn(async move {
                let end = chunk::read(&source, day, &name, cursor).await;
                (name, end)
            });
        }
        let Some(ended) = running.join_next().await else {
            return Ok(());
        };
        let (name, end) = ended.expect("a chunk's task neither panics nor is aborted");
        match end? {
            ChunkEnd::Read => {
                stuck.remove(&name);
                chunks.insert(name, Position::Read);
            }
            ChunkEnd::Stuck(cursor) => {
                let kept = stuck.entry(name.clone()).or_insert_with(|| Stuck {
                    until: Instant::now(),
                    backoff: source.backoff(),
                });
                kept.until = Instant::now() + kept.backoff.next(source.settings.clock.chance());
                if !cursor.is_empty() {
                    chunks.insert(name, Position::At(cursor));
                }
            }
        }
    }
}

/// Gives up stuck chunks that are no longer in the list.
async fn drop_vanished<I: Intake>(
    source: &Arc<Source<I>>,
    day: Day,
    listed: &BTreeSet<String>,
    chunks: &mut Chunks,
    stuck: &mut HashMap<String, Stuck>,
) -> Result<(), Closed> {
    let gone: Vec<String> = stuck
        .keys()
        .filter(|chunk| !listed.contains(*chunk))
        .cloned()
        .collect();
    for chunk in gone {
        stuck.remove(&chunk);
        let place = chunk_key(day, &chunk);
        source.status.clear_failure(&place);
        source.status.report(format!(
            "the chunk `{chunk}` of {day} could not be read to its end, and Teleport no longer lists it: events may be missing"
        ));
        if chunks.remove(&chunk).is_some() {
            source
                .move_cursors(
                    FeedKind::Audit,
                    vec![CursorUpdate {
                        key: place,
                        value: None,
                    }],
                )
                .await?;
        }
    }
    Ok(())
}

async fn list<I: Intake>(source: &Arc<Source<I>>, day: Day) -> Result<BTreeSet<String>, Failure> {
    let mut connection = source.connector.connection().await;
    let request = GetEventExportChunksRequest {
        date: Some(to_proto(day.start())),
    };
    let listing = async {
        let mut chunks = connection
            .audit
            .get_event_export_chunks(request)
            .await?
            .into_inner();
        let mut listed = BTreeSet::new();
        while let Some(chunk) = chunks.message().await? {
            listed.insert(chunk.chunk);
        }
        Ok(listed)
    };
    let result = source.timed(listing).await;
    if let Err(failure) = &result {
        source.connector.failed(connection.id, failure).await;
    }
    result
}
