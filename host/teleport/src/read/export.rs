//! Bulk export: the log as chunks per date, several read at a time. Events arrive in no particular
//! order.
//!
//! Cursors: `export/<date>` marks a date as open, `export/<date>/<chunk>` is the position in a
//! chunk. They are stored together with their events.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use lockgate_model::{CursorUpdate, Day, FeedKind, Millis};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use crate::read::newest_event;
use crate::read::poll::{REFUSED as POLL_REFUSED, SWEEP_DUE, UNTIL, retry_beside, retry_once};
use crate::source::Source;
use crate::start::cursor as moved_cursor;
use crate::status::Phase;
use crate::time::{parse_time, time};
use crate::{Closed, Intake, Resume};

mod chunk;
mod cursor;
mod date;

use cursor::{Chunks, stored};
pub(crate) use cursor::{PREFIX, REFUSED, first_date, handler_cursors, refused};
use date::{DateProgress, work};

/// Cursor key: where polling ended, if the log was polled before it was exported.
const FROM: &str = "export-from";

/// How far after our time the newest event is looked for.
const FAR: Millis = 31 * Day::MILLIS;
/// Dates after that of the newest event that are opened if our clock says that they have begun.
const AHEAD: i32 = 2;

/// The open dates, with the progress that their tasks report.
type Dates = BTreeMap<Day, DateProgress>;

/// Reads forever, or until it has caught up if the settings say so. Gaps from a time when the log
/// was polled are tried again meanwhile, and once more at the end.
pub(crate) async fn run<I: Intake>(source: Arc<Source<I>>, resume: &Resume) -> Result<(), Closed> {
    tokio::select! {
        exported = export(source.clone(), resume) => exported?,
        closed = Box::pin(retry_beside(source.clone())) => match closed? {},
    }
    Box::pin(retry_once(&source)).await
}

async fn export<I: Intake>(source: Arc<Source<I>>, resume: &Resume) -> Result<(), Closed> {
    let mut waiting = stored(resume);
    // The log was polled until the server was upgraded and could export it. The events of the last
    // overlap are read again: a duplicate is better than a gap.
    let polled = resume
        .cursors
        .get(UNTIL)
        .or(resume.cursors.get(FROM))
        .and_then(|text| parse_time(text));
    if let Some(polled) = polled {
        let overlap = if waiting.is_empty() {
            source.settings.limits.reread.as_millis() as Millis
        } else {
            0
        };
        source.start_at_least(polled - overlap);
        let from = CursorUpdate {
            key: FROM.to_owned(),
            value: Some(time(source.start())),
        };
        let until = CursorUpdate {
            key: UNTIL.to_owned(),
            value: None,
        };
        let refused = CursorUpdate {
            key: POLL_REFUSED.to_owned(),
            value: None,
        };
        let open = CursorUpdate {
            key: cursor::date_key(Day::of(source.start())),
            value: Some(cursor::OPEN.to_owned()),
        };
        if waiting.is_empty() {
            let mut moved = vec![from, until, refused, open];
            let keys = resume.cursors.keys();
            let sweeps = keys.filter(|key| key.starts_with(SWEEP_DUE));
            moved.extend(sweeps.map(|key| moved_cursor(key, None)));
            source.move_cursors(FeedKind::Audit, moved).await?;
        }
    }
    if waiting.is_empty() {
        waiting.insert(Day::of(source.start()), Chunks::default());
    }
    let mut newest = NewestDay::default();
    newest.ask(&source).await;
    reopen(&source, resume, &newest, &mut waiting);
    let (progress, mut dates) = watch::channel(Dates::new());
    let mut closing = BTreeMap::new();
    let mut tasks = JoinSet::new();
    // Cursors of closed dates. They are removed together with the next change, because each change
    // is a transaction of the store. Should that not happen, the dates are opened again.
    let mut removed = Vec::new();
    while let Some((day, chunks)) = waiting.pop_first() {
        open(&source, day, &mut removed).await?;
        begin(&source, day, chunks, &progress, &mut closing, &mut tasks);
    }
    loop {
        newest.ask(&source).await;
        let today = newest.last_to_open(Day::of(source.now()));
        let (latest, is_idle, is_complete, listed_at) = {
            let dates = dates.borrow_and_update();
            let (latest, progress) = dates
                .last_key_value()
                .expect("the latest date is closed after the next one began");
            (
                *latest,
                progress.is_idle(),
                dates.values().all(|progress| progress.is_complete()),
                dates.values().filter_map(|date| date.listed_at()).min(),
            )
        };
        if latest < today && is_idle {
            let day = Day(latest.0 + 1);
            let chunks = Chunks::default();
            open(&source, day, &mut removed).await?;
            begin(&source, day, chunks, &progress, &mut closing, &mut tasks);
            continue;
        }
        let backlog = source.settings.limits.export_backlog;
        let expected = Day(newest.of(latest).0.saturating_sub(backlog));
        for (_, close) in closing.extract_if(..expected, |_, _| true) {
            close.notify_one();
        }
        if latest >= today && !removed.is_empty() {
            let removed = std::mem::take(&mut removed);
            source.move_cursors(FeedKind::Audit, removed).await?;
        }
        if latest >= today && is_complete {
            source
                .status
                .update(|status| status.phase = Phase::CaughtUp);
            if let Some(at) = listed_at {
                source.status.set_complete(at);
            }
            if source.settings.exit_on_last_event {
                return Ok(());
            }
        }
        tokio::select! {
            Some(ended) = tasks.join_next() => {
                let (day, keys) = ended.expect("a date's task neither panics nor is aborted")?;
                tracing::debug!(date = %day, "closing this date; no more chunks are expected");
                progress.send_modify(|dates| { dates.remove(&day); });
                removed.extend(keys.into_iter().map(|key| CursorUpdate { key, value: None }));
            }
            Ok(()) = dates.changed() => {}
            // A new day may have begun.
            () = tokio::time::sleep(source.settings.limits.export_poll.min(Duration::from_secs(60))) => {}
        }
    }
}

/// The date of the newest event that Teleport has: our own clock may be ahead, and a date that is
/// closed too early is not read again.
#[derive(Default)]
struct NewestDay {
    /// `None` if Teleport has not said.
    day: Option<Day>,
    due: Duration,
}

impl NewestDay {
    /// Asks from time to time.
    async fn ask<I: Intake>(&mut self, source: &Source<I>) {
        let clock = &source.settings.clock;
        if clock.elapsed() < self.due {
            return;
        }
        self.due = clock.elapsed() + source.settings.limits.newest;
        let to = source.now().max(source.start()) + FAR;
        if let Ok(Some(newest)) = newest_event(source, source.start(), to).await {
            self.day = Some(Day::of(newest));
        }
    }

    /// The newest event's date, at most `latest`.
    fn of(&self, latest: Day) -> Day {
        self.day.map_or(latest, |day| day.min(latest))
    }

    /// The last date to open: today or the newest event's. If the clock is far ahead of that, the
    /// dates between have no events yet.
    fn last_to_open(&self, today: Day) -> Day {
        let last = |day: Day| today.min(Day(day.0 + AHEAD)).max(day);
        self.day.map_or(today, last)
    }
}

/// Opens the dates that were closed while the clock was wrong: if all that are open lie after
/// the newest event, no event of now would be read.
fn reopen<I: Intake>(
    source: &Source<I>,
    resume: &Resume,
    newest: &NewestDay,
    waiting: &mut BTreeMap<Day, Chunks>,
) {
    let Some((&first, day)) = waiting
        .first_key_value()
        .map(|(first, _)| first)
        .zip(newest.day)
    else {
        return;
    };
    if first <= day || first <= Day::of(source.start()) {
        return;
    }
    let read = resume
        .recent_times
        .iter()
        .map(|&(_, latest)| Day::of(latest));
    let from = read.filter(|&read| read <= day).max();
    let from = from.unwrap_or(day).max(Day::of(source.start()));
    source.status.report(format!(
        "the dates that were being read begin with {first}, after the date of Teleport's newest \
         event, {day}: the clock of this machine is wrong, or was. Reading continues at {from}, \
         and events of {from} that were read before are stored twice"
    ));
    for date in from.0..first.0 {
        waiting.entry(Day(date)).or_default();
    }
}

/// Each task returns its date, and the keys of the cursors to remove.
type Tasks = JoinSet<Result<(Day, Vec<String>), Closed>>;

/// Stores that a date is open, and removes the cursors of closed ones.
async fn open<I: Intake>(
    source: &Source<I>,
    day: Day,
    removed: &mut Vec<CursorUpdate>,
) -> Result<(), Closed> {
    let mut moved = std::mem::take(removed);
    moved.push(CursorUpdate {
        key: cursor::date_key(day),
        value: Some(cursor::OPEN.to_owned()),
    });
    source.move_cursors(FeedKind::Audit, moved).await
}

/// Spawns the task of a date.
fn begin<I: Intake>(
    source: &Arc<Source<I>>,
    day: Day,
    chunks: Chunks,
    progress: &watch::Sender<Dates>,
    closing: &mut BTreeMap<Day, Arc<Notify>>,
    tasks: &mut Tasks,
) {
    progress.send_modify(|dates| {
        dates.insert(day, DateProgress::default());
    });
    let close = Arc::new(Notify::new());
    tasks.spawn(work(
        source.clone(),
        day,
        chunks,
        progress.clone(),
        close.clone(),
    ));
    closing.insert(day, close);
}
