//! Reads parts of a source's log, or recordings, once more, to repair damaged blocks of the store.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lockgate_config::Source;
use lockgate_model::{
    Append, Block, BlockBuilder, FeedKind, Head, KnownEvents, KnownEventsBuilder, Millis,
};
use lockgate_teleport::{Closed, Ended, Intake, ReaderStatus, Resume, SourceSettings};
use tokio::sync::watch;

use crate::limits::READ_AGAIN_MAX;
use crate::reader::Reader;

/// The type of the event that announces a recording.
const UPLOAD: &str = "session.upload";

/// The events of a source's audit log with times in `from..=to`, in the order in which they are
/// read. Nothing is stored.
///
/// It reads the log from `from` to its end, because only then no event of the range can be missing.
///
/// # Errors
/// Why it cannot be read, as a sentence without its full stop.
pub async fn read_again(source: &Source, from: Millis, to: Millis) -> Result<Block, String> {
    let settings = settings(source)?;
    let collected = Arc::new(Collected::new((from, to)));
    read_log(settings, from, collected.clone()).await?;
    Ok(collected.block(source, FeedKind::Audit))
}

/// The sessions whose recordings were announced at `from` or later, in the order of the log: a
/// recording is announced after its last event.
///
/// # Errors
/// As for [`read_again`].
pub async fn recorded_since(source: &Source, from: Millis) -> Result<Vec<String>, String> {
    let mut settings = settings(source)?;
    settings.types = vec![UPLOAD.to_owned()];
    let collected = Arc::new(Collected::new((from, Millis::MAX)));
    read_log(settings, from, collected.clone()).await?;
    let uploads = collected.block(source, FeedKind::Audit);
    let mut seen = HashSet::new();
    let sessions = (0..uploads.len()).map(|row| uploads.session(row));
    let first = sessions.filter(|session| !session.is_empty() && seen.insert(*session));
    Ok(first.map(str::to_owned).collect())
}

/// The events of these recordings with times in `from..=to`, those of a recording in their order.
/// Nothing is stored.
///
/// # Errors
/// As for [`read_again`].
pub async fn read_recordings_again(
    source: &Source,
    sessions: &[String],
    (from, to): (Millis, Millis),
) -> Result<Block, String> {
    let mut settings = settings(source)?;
    // One after the other: their events must not mix.
    settings.limits.recordings = 1;
    let collected = Arc::new(Collected::new((from, to)));
    let (status, watched) = watch::channel(ReaderStatus::default());
    let reading = lockgate_teleport::read_recordings(settings, sessions, collected.clone(), status);
    in_time(reading, &watched)
        .await?
        .map_err(|error| error.to_string())?;
    match problem(&watched) {
        Some(problem) => Err(problem),
        None => Ok(collected.block(source, FeedKind::Sessions)),
    }
}

fn settings(source: &Source) -> Result<SourceSettings, String> {
    let settings = Reader::new(source, false).into_settings();
    let loaded = settings.credentials.load();
    loaded.map_err(|error| error.to_string())?;
    Ok(settings)
}

async fn read_log(
    mut settings: SourceSettings,
    from: Millis,
    collected: Arc<Collected>,
) -> Result<(), String> {
    settings.start_time = Some(from);
    settings.exit_on_last_event = true;
    // Parts that cannot be read are not waited for here.
    settings.limits.gap_after = Some(Duration::ZERO);
    let (status, watched) = watch::channel(ReaderStatus::default());
    let reading = lockgate_teleport::run(
        settings,
        Resume::default(),
        collected,
        status,
        std::future::pending(),
    );
    match in_time(reading, &watched).await? {
        Ok(Ended::CaughtUp) => Ok(()),
        Ok(Ended::Stopped | Ended::Closed) => Err("reading it ended early".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

async fn in_time<T>(
    reading: impl Future<Output = T>,
    watched: &watch::Receiver<ReaderStatus>,
) -> Result<T, String> {
    let ended = tokio::time::timeout(READ_AGAIN_MAX, reading).await;
    ended.map_err(|_| {
        let problem = problem(watched).unwrap_or_else(|| "there is more to read".to_owned());
        let minutes = READ_AGAIN_MAX.as_secs() / 60;
        format!("it was not read within {minutes} minutes: {problem}")
    })
}

fn problem(watched: &watch::Receiver<ReaderStatus>) -> Option<String> {
    let status = watched.borrow();
    let problem = status.failures.values().next();
    problem.map(|failure| failure.message.clone())
}

struct Collected {
    range: (Millis, Millis),
    builder: Mutex<BlockBuilder>,
}

impl Collected {
    fn new(range: (Millis, Millis)) -> Collected {
        Collected {
            range,
            builder: Mutex::new(BlockBuilder::new()),
        }
    }

    fn block(&self, source: &Source, feed: FeedKind) -> Block {
        let stream = format!("{}/{}", source.name, feed.name());
        let mut builder = self.builder.lock().unwrap_or_else(PoisonError::into_inner);
        Block::new(stream.into(), feed, 1, 0, builder.take())
    }
}

impl Intake for Collected {
    async fn append(&self, append: Append) -> Result<(), Closed> {
        let read = Block::new("".into(), append.feed, 1, 0, append.events);
        let mut builder = self.builder.lock().unwrap_or_else(PoisonError::into_inner);
        for row in 0..read.len() {
            let event = read.view(row);
            if event.time < self.range.0 || event.time > self.range.1 {
                continue;
            }
            let head = Head {
                key: event.key,
                event_type: event.event_type,
                code: event.code,
                time: event.time,
                index: event.index,
                session: read.session(row),
            };
            match read.raw(row) {
                Some(raw) => builder.push_raw(head, raw),
                None => builder.push(head, event.payload),
            }
        }
        Ok(())
    }

    /// Events that are read twice do no harm here.
    async fn known(&self, from: Millis, to: Millis, max: usize) -> Result<KnownEvents, Closed> {
        Ok(KnownEventsBuilder::new(from, to, max).finish(true))
    }
}
