//! Reads one date by bulk export until the date is closed.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use lockgate_backoff::Backoff;
use lockgate_model::{CursorUpdate, Day, FeedKind, Gap, GapState, Millis};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::chunk::{self, ChunkEnd};
use super::cursor::{Chunks, Position, chunk_key, date_key, refused_key};
use crate::connect::Failure;
use crate::proto::auditlog::GetEventExportChunksRequest;
use crate::source::Source;
use crate::time::{time, to_proto};
use crate::{Closed, Intake};

/// The progress of a date when its chunks were last listed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct DateProgress {
    /// There was no chunk left to begin.
    idle: bool,
    /// Chunks that could not be read, are tried again, and are not on the books as gaps yet.
    stuck: usize,
    /// When the list of chunks was asked for, the last time. `None` if it is not known yet, or no
    /// more chunks are expected.
    listed_at: Option<Millis>,
}

impl DateProgress {
    /// Whether the next date may begin. A chunk that cannot be read does not stop the log.
    pub(super) fn is_idle(self) -> bool {
        self.idle
    }

    pub(super) fn is_complete(self) -> bool {
        self.idle && self.stuck == 0
    }

    /// Until when its chunks are known, unless no more are expected.
    pub(super) fn listed_at(self) -> Option<Millis> {
        self.listed_at
    }
}

/// A failing chunk, and when to retry it.
struct Stuck {
    until: Instant,
    backoff: Backoff,
    /// When it failed first since the source was started.
    since: Duration,
    /// How long it had failed before.
    before: Duration,
    /// It is on the books, and nothing waits for it.
    is_gap: bool,
}

impl Stuck {
    /// A chunk that is on the books.
    fn gap<I: Intake>(source: &Source<I>, since: Duration) -> Stuck {
        let (first, longest) = source.settings.limits.gap_wait;
        let mut backoff = Backoff::new(first, longest);
        Stuck {
            until: Instant::now() + backoff.next(source.settings.clock.chance()),
            backoff,
            since,
            before: Duration::ZERO,
            is_gap: true,
        }
    }
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
    let now = source.settings.clock.elapsed();
    let on_the_books = source.gaps.beginning(&chunk_key(day, ""));
    let mut stuck: HashMap<String, Stuck> = on_the_books
        .iter()
        .filter_map(|gap| gap.key.strip_prefix(&chunk_key(day, "")))
        .map(|chunk| (chunk.to_owned(), Stuck::gap(&source, now)))
        .collect();
    let mut failures = source.backoff();
    let place = date_key(day);
    let mut first = true;
    let mut closing = false;
    let report = |idle, stuck, listed_at| {
        let progress = DateProgress {
            idle,
            stuck,
            listed_at,
        };
        dates.send_if_modified(|dates| dates.insert(day, progress) != Some(progress));
    };
    loop {
        let asked_at = source.now();
        let listed = match list(&source, day).await {
            Ok(listed) => listed,
            Err(failure) => {
                let mut message = format!("the chunks of {day} cannot be listed: {failure}");
                if let Failure::Unimplemented { .. } = failure {
                    message += ". If Teleport has another backend now, restart this host: it then \
                                polls the log";
                }
                source.status.set_failure(&place, message);
                source.pause(&mut failures).await;
                continue;
            }
        };
        failures.reset();
        source.status.clear_failure(&place);
        let listed_at = (!closing).then_some(asked_at);
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
            let waiting = stuck.values().filter(|stuck| !stuck.is_gap).count();
            report(true, waiting, listed_at);
            if closing && stuck.is_empty() {
                let prefix = chunk_key(day, "");
                let refused = source.refused.keys();
                let refused = refused.filter(|chunk| chunk.starts_with(&prefix));
                let keys = chunks
                    .keys()
                    .map(|chunk| chunk_key(day, chunk))
                    .chain([date_key(day)])
                    .chain(refused.map(|chunk| refused_key(chunk)))
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
            // Only gaps keep the date open.
            let gaps = stuck.values().map(|stuck| stuck.until).min();
            let pause = match gaps.filter(|_| closing && waiting == 0) {
                Some(next) => pause.max(next.saturating_duration_since(now)),
                None => pause,
            };
            tokio::select! {
                () = source.rest(pause) => {}
                () = close.notified(), if !closing => closing = true,
            }
            continue;
        }
        let waiting = stuck.values().filter(|stuck| !stuck.is_gap).count();
        // Chunks that are on the books keep nothing waiting.
        let is_idle = todo.iter().all(|chunk| is_gap(&stuck, chunk));
        report(is_idle, waiting, listed_at);
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
            let is_gap = is_gap(stuck, &name);
            running.spawn(async move {
                let end = chunk::read(&source, day, &name, cursor, is_gap).await;
                (name, end)
            });
        }
        let Some(ended) = running.join_next().await else {
            return Ok(());
        };
        let (name, end) = ended.expect("a chunk's task neither panics nor is aborted");
        match end? {
            ChunkEnd::Read(events) => {
                if stuck.remove(&name).is_some_and(|stuck| !stuck.is_gap) {
                    store_refused(source, day, &name, None).await?;
                }
                if let Some(gap) = source.gaps.of(&chunk_key(day, &name)) {
                    let at = source.now();
                    let state = GapState::Read { at, events };
                    source.note_gap(Gap { state, ..gap }).await?;
                }
                chunks.insert(name, Position::Read);
            }
            ChunkEnd::Stuck(cursor, failure) => {
                let clock = &source.settings.clock;
                if !stuck.contains_key(&name) {
                    let before = source.refused.get(&chunk_key(day, &name)).copied();
                    if before.is_none() {
                        store_refused(source, day, &name, Some(source.now())).await?;
                    }
                    let failing = Stuck {
                        until: Instant::now(),
                        backoff: source.backoff(),
                        since: clock.elapsed(),
                        before: before.unwrap_or_default(),
                        is_gap: false,
                    };
                    stuck.insert(name.clone(), failing);
                }
                let kept = stuck.get_mut(&name).expect("it was inserted");
                let waited = kept.before + (clock.elapsed() - kept.since);
                let limit = source.settings.limits.gap_after;
                if kept.is_gap || limit.is_some_and(|limit| waited >= limit) {
                    note(source, day, &name, &failure).await?;
                    if !kept.is_gap {
                        *kept = Stuck::gap(source, kept.since);
                        store_refused(source, day, &name, None).await?;
                    }
                }
                kept.until = Instant::now() + kept.backoff.next(clock.chance());
                if !cursor.is_empty() {
                    chunks.insert(name, Position::At(cursor));
                }
            }
        }
    }
}

/// Keeps the time since when a chunk cannot be read, so that a restart does not begin the wait
/// again.
async fn store_refused<I: Intake>(
    source: &Source<I>,
    day: Day,
    chunk: &str,
    since: Option<Millis>,
) -> Result<(), Closed> {
    let moved = CursorUpdate {
        key: refused_key(&chunk_key(day, chunk)),
        value: since.map(time),
    };
    source.move_cursors(FeedKind::Audit, vec![moved]).await
}

fn is_gap(stuck: &HashMap<String, Stuck>, chunk: &str) -> bool {
    stuck.get(chunk).is_some_and(|stuck| stuck.is_gap)
}

/// Puts the rest of a chunk on the books. It cannot be narrowed down further: the server's
/// cursor cannot be moved past what it does not send.
async fn note<I: Intake>(
    source: &Arc<Source<I>>,
    day: Day,
    chunk: &str,
    failure: &Failure,
) -> Result<(), Closed> {
    let key = chunk_key(day, chunk);
    let gap = source.gap(
        key.clone(),
        FeedKind::Audit,
        (day.start(), Day(day.0 + 1).start() - 1),
        format!("the events in the rest of the chunk `{chunk}`"),
        failure.to_string(),
    );
    source.note_gap(gap).await?;
    source.status.clear_failure(&key);
    Ok(())
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
        if stuck.remove(&chunk).is_some_and(|stuck| !stuck.is_gap) {
            store_refused(source, day, &chunk, None).await?;
        }
        let place = chunk_key(day, &chunk);
        source.status.clear_failure(&place);
        let gap = source.gap(
            place.clone(),
            FeedKind::Audit,
            (day.start(), Day(day.0 + 1).start() - 1),
            format!("the events in the rest of the chunk `{chunk}`"),
            "it could not be read to its end, and Teleport no longer lists it".to_owned(),
        );
        let state = GapState::Lost(source.now());
        source.note_gap(Gap { state, ..gap }).await?;
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
    let what = || format!("answered the request for the chunks of {day}");
    let result = source.timed_log(Some(&date_key(day)), what, listing).await;
    if let Err(failure) = &result {
        source.connector.failed(connection.id, failure).await;
    }
    result
}
