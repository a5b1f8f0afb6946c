use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use lockgate_backoff::Backoff;
use lockgate_model::{CursorUpdate, Day, FeedKind};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::chunk::{self, End};
use super::cursor::{Chunks, Position, chunk_key, date_key};
use crate::connect::{Failure, to_proto};
use crate::context::Context;
use crate::proto::auditlog::GetEventExportChunksRequest;
use crate::{Closed, Intake};

/// How a date stands after a look at its list of chunks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Progress {
    /// The list had nothing to begin.
    quiet: bool,
    /// Chunks that could not be read and are tried again later.
    stuck: usize,
}

impl Progress {
    /// The next date may begin: one chunk that cannot be read does not stop the log.
    pub(super) fn has_nothing_new(self) -> bool {
        self.quiet
    }

    pub(super) fn is_complete(self) -> bool {
        self.quiet && self.stuck == 0
    }
}

/// A chunk that is left alone for a while.
struct Stuck {
    until: Instant,
    backoff: Backoff,
}

/// Looks for chunks of a date and reads them, again and again, until it is closed. Gives the keys
/// of its cursors then.
pub(super) async fn work<I: Intake>(
    context: Arc<Context<I>>,
    day: Day,
    mut chunks: Chunks,
    dates: watch::Sender<BTreeMap<Day, Progress>>,
    close: Arc<Notify>,
) -> Result<(Day, Vec<String>), Closed> {
    let limits = &context.settings.limits;
    let mut stuck: HashMap<String, Stuck> = HashMap::new();
    let mut failures = context.backoff();
    let place = date_key(day);
    let mut first = true;
    let mut closing = false;
    let tell = |quiet, stuck| {
        let progress = Progress { quiet, stuck };
        dates.send_if_modified(|dates| dates.insert(day, progress) != Some(progress));
    };
    loop {
        let listed = match list(&context, day).await {
            Ok(listed) => listed,
            Err(failure) => {
                context.board.trouble(
                    &place,
                    format!("the chunks of {day} cannot be listed: {failure}"),
                );
                context.pause(&mut failures).await;
                continue;
            }
        };
        failures.reset();
        context.board.clear(&place);
        drop_vanished(&context, day, &listed, &mut chunks, &mut stuck).await?;

        let now = Instant::now();
        let due = |chunk: &String| stuck.get(chunk).is_none_or(|stuck| stuck.until <= now);
        let begun = chunks
            .iter()
            .filter(|(_, position)| **position != Position::Read)
            .map(|(chunk, _)| chunk);
        // What was begun comes first.
        let mut todo: Vec<String> = begun.filter(|chunk| due(chunk)).cloned().collect();
        todo.extend(
            listed
                .iter()
                .filter(|chunk| !chunks.contains_key(*chunk) && due(chunk))
                .cloned(),
        );
        if todo.is_empty() {
            tell(true, stuck.len());
            if closing && stuck.is_empty() {
                let keys = chunks
                    .keys()
                    .map(|chunk| chunk_key(day, chunk))
                    .chain([date_key(day)])
                    .collect();
                return Ok((day, keys));
            }
            // The first look is early, at a moment of chance, so that dates do not look all at
            // once.
            let pause = if first {
                limits
                    .export_poll
                    .mul_f64(context.settings.clock.chance() / 2.0)
            } else {
                limits.export_poll
            };
            first = false;
            tokio::select! {
                () = context.rest(pause) => {}
                () = close.notified() => closing = true,
            }
            continue;
        }
        tell(false, stuck.len());
        read(&context, day, todo, &mut chunks, &mut stuck).await?;
    }
}

/// Reads chunks, so many at a time.
async fn read<I: Intake>(
    context: &Arc<Context<I>>,
    day: Day,
    todo: Vec<String>,
    chunks: &mut Chunks,
    stuck: &mut HashMap<String, Stuck>,
) -> Result<(), Closed> {
    let mut todo = todo.into_iter();
    let mut running = JoinSet::new();
    loop {
        while running.len() < context.settings.limits.export_chunks.max(1)
            && let Some(name) = todo.next()
        {
            let cursor = match chunks.get(&name) {
                Some(Position::At(cursor)) => cursor.clone(),
                _ => String::new(),
            };
            let context = context.clone();
            running.spawn(async move {
                let end = chunk::read(&context, day, &name, cursor).await;
                (name, end)
            });
        }
        let Some(ended) = running.join_next().await else {
            return Ok(());
        };
        let (name, end) = ended.expect("a chunk's task neither panics nor is aborted");
        match end? {
            End::Read => {
                stuck.remove(&name);
                chunks.insert(name, Position::Read);
            }
            End::Stuck(cursor) => {
                let kept = stuck.entry(name.clone()).or_insert_with(|| Stuck {
                    until: Instant::now(),
                    backoff: context.backoff(),
                });
                kept.until = Instant::now() + kept.backoff.next(context.settings.clock.chance());
                if !cursor.is_empty() {
                    chunks.insert(name, Position::At(cursor));
                }
            }
        }
    }
}

/// Chunks that could not be read and are not in the list any more.
async fn drop_vanished<I: Intake>(
    context: &Arc<Context<I>>,
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
        context.board.clear(&place);
        context.board.report(format!(
            "the chunk `{chunk}` of {day} could not be read to its end and is not in Teleport's list any more: events may be missing"
        ));
        if chunks.remove(&chunk).is_some() {
            context
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

async fn list<I: Intake>(context: &Arc<Context<I>>, day: Day) -> Result<BTreeSet<String>, Failure> {
    let mut client = context.link.client().await;
    let request = GetEventExportChunksRequest {
        date: Some(to_proto(day.start())),
    };
    let listing = async {
        let mut chunks = client
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
    let result = context.timed(listing).await;
    if let Err(failure) = &result {
        context.link.failed(client.generation, failure).await;
    }
    result
}
