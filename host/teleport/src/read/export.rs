//! Bulk export: the log as chunks of dates, several at a time. Events come in no order.
//!
//! Cursors: `export/<date>` says that a date is open, `export/<date>/<chunk>` how far a chunk was
//! read. They are written with the events they speak of.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use lockgate_model::{CursorUpdate, Day, FeedKind, Millis};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use crate::connect::{parse_time, time};
use crate::context::Context;
use crate::read::poll::UNTIL;
use crate::status::Phase;
use crate::{Closed, Intake, Resume};

mod chunk;
mod cursor;
mod date;

pub(crate) use cursor::PREFIX;
use cursor::{Chunks, stored};
use date::{Progress, work};

/// Where polling ended, for a log that was polled before it was exported.
const FROM: &str = "export-from";

/// The dates that are open, as their tasks see them.
type Dates = BTreeMap<Day, Progress>;

/// Reads for ever, or until it has caught up, where that is wanted.
pub(crate) async fn run<I: Intake>(
    context: Arc<Context<I>>,
    resume: &Resume,
) -> Result<(), Closed> {
    let mut waiting = stored(resume);
    // The log was polled before, and then the server learned to export it. What was polled last is
    // exported again, as much as windows overlap: better twice than not at all.
    let polled = resume
        .cursors
        .get(UNTIL)
        .or(resume.cursors.get(FROM))
        .and_then(|text| parse_time(text));
    if let Some(polled) = polled {
        let overlap = if waiting.is_empty() {
            context.settings.limits.overlap.as_millis() as Millis
        } else {
            0
        };
        context.start_at_least(polled - overlap);
        let from = CursorUpdate {
            key: FROM.to_owned(),
            value: Some(time(context.start())),
        };
        let until = CursorUpdate {
            key: UNTIL.to_owned(),
            value: None,
        };
        let open = CursorUpdate {
            key: cursor::date_key(Day::of(context.start())),
            value: Some(cursor::OPEN.to_owned()),
        };
        if waiting.is_empty() {
            context
                .move_cursors(FeedKind::Audit, vec![from, until, open])
                .await?;
        }
    }
    if waiting.is_empty() {
        waiting.insert(Day::of(context.start()), Chunks::default());
    }
    let (told, mut dates) = watch::channel(Dates::new());
    let mut closing = BTreeMap::new();
    let mut tasks = JoinSet::new();
    while let Some((day, chunks)) = waiting.pop_first() {
        begin(&context, day, chunks, &told, &mut closing, &mut tasks).await?;
    }
    loop {
        let today = Day::of(context.now());
        let (latest, has_nothing_new, is_complete) = {
            let dates = dates.borrow_and_update();
            let (latest, progress) = dates
                .last_key_value()
                .expect("the latest date is closed after the next one began");
            (
                *latest,
                progress.has_nothing_new(),
                dates.values().all(|progress| progress.is_complete()),
            )
        };
        if latest < today && has_nothing_new {
            begin(
                &context,
                Day(latest.0 + 1),
                Chunks::default(),
                &told,
                &mut closing,
                &mut tasks,
            )
            .await?;
            continue;
        }
        for (_, close) in closing.extract_if(
            ..Day(latest
                .0
                .saturating_sub(context.settings.limits.export_backlog)),
            |_, _| true,
        ) {
            close.notify_one();
        }
        if latest >= today && is_complete {
            context
                .board
                .update(|status| status.phase = Phase::CaughtUp);
            if context.settings.exit_on_last_event {
                return Ok(());
            }
        }
        tokio::select! {
            Some(ended) = tasks.join_next() => {
                let (day, keys) = ended.expect("a date's task neither panics nor is aborted")?;
                tracing::debug!(date = %day, "closing this date; no more chunks are expected");
                told.send_modify(|dates| { dates.remove(&day); });
                let removed = keys.into_iter().map(|key| CursorUpdate { key, value: None }).collect();
                context.move_cursors(FeedKind::Audit, removed).await?;
            }
            Ok(()) = dates.changed() => {}
            // The day may have changed.
            () = tokio::time::sleep(context.settings.limits.export_poll.min(Duration::from_secs(60))) => {}
        }
    }
}

type Tasks = JoinSet<Result<(Day, Vec<String>), Closed>>;

async fn begin<I: Intake>(
    context: &Arc<Context<I>>,
    day: Day,
    chunks: Chunks,
    told: &watch::Sender<Dates>,
    closing: &mut BTreeMap<Day, Arc<Notify>>,
    tasks: &mut Tasks,
) -> Result<(), Closed> {
    let key = cursor::date_key(day);
    context
        .move_cursors(
            FeedKind::Audit,
            vec![CursorUpdate {
                key,
                value: Some(cursor::OPEN.to_owned()),
            }],
        )
        .await?;
    told.send_modify(|dates| {
        dates.insert(day, Progress::default());
    });
    let close = Arc::new(Notify::new());
    tasks.spawn(work(
        context.clone(),
        day,
        chunks,
        told.clone(),
        close.clone(),
    ));
    closing.insert(day, close);
    Ok(())
}
