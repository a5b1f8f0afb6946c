//! Reads parts of a source's log, or recordings, once more, to repair damaged blocks of the store.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lockgate_config::Source;
use lockgate_model::{
    Append, Block, BlockBuilder, FeedKind, Head, KnownEvents, KnownEventsBuilder, Millis,
};
use lockgate_teleport::{Closed, Ended, Intake, ReaderStatus, Resume, SourceSettings};
use tokio::sync::watch;

use crate::blocking::blocking;
use crate::limits::{READ_AGAIN_MAX, RECORDINGS_KEPT};
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
    let settings = settings(source).await?;
    let collected = Arc::new(Collected::new((from, to)));
    read_log(settings, from, collected.clone()).await?;
    Ok(collected.block(source, FeedKind::Audit))
}

/// The recordings of a source, each of which is read from Teleport once, whatever is asked for.
pub struct RecordingsAgain {
    source: Source,
    /// What is announced or was recorded before is not asked for.
    from: Millis,
    /// The time of each announcement with its session, in the order of the log.
    announced: Option<Result<Vec<(Millis, String)>, String>>,
    read: HashMap<String, Result<Block, String>>,
    /// Of the payloads in `read`.
    bytes: usize,
}

impl RecordingsAgain {
    pub fn new(source: &Source, from: Millis) -> RecordingsAgain {
        RecordingsAgain {
            source: source.clone(),
            from,
            announced: None,
            read: HashMap::new(),
            bytes: 0,
        }
    }

    /// The sessions whose recordings were announced at `from` or later, in the order of the log: a
    /// recording is announced after its last event.
    ///
    /// # Errors
    /// As for [`read_again`].
    pub async fn announced_since(&mut self, from: Millis) -> Result<Vec<String>, String> {
        if self.announced.is_none() {
            self.announced = Some(announced(&self.source, self.from).await);
        }
        let mut seen = HashSet::new();
        let announced = self.announced.as_ref().expect("it was set above").clone()?;
        let since = announced.into_iter().filter(|(time, _)| *time >= from);
        let first = since.filter(|(_, session)| seen.insert(session.clone()));
        Ok(first.map(|(_, session)| session).collect())
    }

    /// The events of these recordings with times in `times`, those of a recording in their order.
    /// Nothing is stored.
    ///
    /// # Errors
    /// As for [`read_again`].
    pub async fn events(
        &mut self,
        sessions: &[String],
        times: (Millis, Millis),
    ) -> Result<Block, String> {
        let collected = Collected::new(times);
        for session in sessions {
            collected.add(self.recording(session).await?);
        }
        Ok(collected.block(&self.source, FeedKind::Sessions))
    }

    async fn recording(&mut self, session: &str) -> Result<&Block, String> {
        if !self.read.contains_key(session) {
            let read = read_recording(&self.source, session, self.from).await;
            let bytes: usize = read.iter().map(payload_bytes).sum();
            if self.bytes + bytes > RECORDINGS_KEPT {
                self.read.clear();
                self.bytes = 0;
            }
            self.bytes += bytes;
            self.read.insert(session.to_owned(), read);
        }
        self.read[session].as_ref().map_err(Clone::clone)
    }
}

fn payload_bytes(block: &Block) -> usize {
    (0..block.len()).map(|row| block.payload_len(row)).sum()
}

async fn announced(source: &Source, from: Millis) -> Result<Vec<(Millis, String)>, String> {
    let mut settings = settings(source).await?;
    settings.types = vec![UPLOAD.to_owned()];
    let collected = Arc::new(Collected::new((from, Millis::MAX)));
    read_log(settings, from, collected.clone()).await?;
    let uploads = collected.block(source, FeedKind::Audit);
    let announced = (0..uploads.len()).map(|row| {
        let time = uploads.view(row).time;
        (time, uploads.session(row).to_owned())
    });
    Ok(announced
        .filter(|(_, session)| !session.is_empty())
        .collect())
}

async fn read_recording(source: &Source, session: &str, from: Millis) -> Result<Block, String> {
    let settings = settings(source).await?;
    let collected = Arc::new(Collected::new((from, Millis::MAX)));
    let (status, watched) = watch::channel(ReaderStatus::default());
    let sessions = [session.to_owned()];
    let reading =
        lockgate_teleport::read_recordings(settings, &sessions, collected.clone(), status);
    in_time(reading, &watched)
        .await?
        .map_err(|error| error.to_string())?;
    match problem(&watched) {
        Some(problem) => Err(problem),
        None => Ok(collected.block(source, FeedKind::Sessions)),
    }
}

async fn settings(source: &Source) -> Result<SourceSettings, String> {
    let settings = Reader::new(source, false).into_settings();
    let credentials = settings.credentials.clone();
    let loaded = blocking(move || credentials.load()).await;
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
    settings.limits.sweeps = Vec::new();
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

    /// Adds the events that are in the range.
    fn add(&self, read: &Block) {
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
    }

    fn block(&self, source: &Source, feed: FeedKind) -> Block {
        let stream = format!("{}/{}", source.name, feed.name());
        let mut builder = self.builder.lock().unwrap_or_else(PoisonError::into_inner);
        Block::new(stream.into(), feed, 1, 0, builder.take())
    }
}

impl Intake for Collected {
    async fn append(&self, append: Append) -> Result<(), Closed> {
        self.add(&Block::new("".into(), append.feed, 1, 0, append.events));
        Ok(())
    }

    /// Events that are read twice do no harm here.
    async fn known(&self, from: Millis, to: Millis, max: usize) -> Result<KnownEvents, Closed> {
        Ok(KnownEventsBuilder::new(from, to, max).finish(true))
    }
}
