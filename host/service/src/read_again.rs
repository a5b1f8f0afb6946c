//! Reads a part of a source's audit log once more, to repair a damaged block of the store.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lockgate_config::Source;
use lockgate_model::{
    Append, Block, BlockBuilder, FeedKind, Head, KnownEvents, KnownEventsBuilder, Millis,
};
use lockgate_teleport::{Closed, Ended, Intake, ReaderStatus, Resume};
use tokio::sync::watch;

use crate::limits::READ_AGAIN_MAX;
use crate::reader::Reader;

/// The events of a source's audit log with times in `from..=to`, in the order in which they are
/// read. Nothing is stored.
///
/// It reads the log from `from` to its end, because only then no event of the range can be missing.
///
/// # Errors
/// Why it cannot be read, as a sentence without its full stop.
pub async fn read_again(source: &Source, from: Millis, to: Millis) -> Result<Block, String> {
    let mut settings = Reader::new(source, false).into_settings();
    settings.start_time = Some(from);
    settings.exit_on_last_event = true;
    // Parts that cannot be read are not waited for here.
    settings.limits.gap_after = Some(Duration::ZERO);
    let collected = Arc::new(Collected {
        range: (from, to),
        builder: Mutex::new(BlockBuilder::new()),
    });
    if let Err(error) = settings.credentials.load() {
        return Err(error.to_string());
    }
    let (status, watched) = watch::channel(ReaderStatus::default());
    let reading = lockgate_teleport::run(
        settings,
        Resume::default(),
        collected.clone(),
        status,
        std::future::pending(),
    );
    match tokio::time::timeout(READ_AGAIN_MAX, reading).await {
        Ok(Ok(Ended::CaughtUp)) => Ok(collected.block(source)),
        Ok(Ok(Ended::Stopped | Ended::Closed)) => Err("reading it ended early".to_owned()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => {
            let status = watched.borrow();
            let problem = status.failures.values().next();
            let problem = problem.map_or("there is more to read", |failure| &failure.message);
            let minutes = READ_AGAIN_MAX.as_secs() / 60;
            Err(format!(
                "it was not read within {minutes} minutes: {problem}"
            ))
        }
    }
}

struct Collected {
    range: (Millis, Millis),
    builder: Mutex<BlockBuilder>,
}

impl Collected {
    fn block(&self, source: &Source) -> Block {
        let stream = format!("{}/{}", source.name, FeedKind::Audit.name());
        let mut builder = self.builder.lock().unwrap_or_else(PoisonError::into_inner);
        Block::new(stream.into(), FeedKind::Audit, 1, 0, builder.take())
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
