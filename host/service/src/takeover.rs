//! Takes over the position of Teleport's Event Handler from its state directory.

mod files;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use lockgate_config::{Config, Issue, Issues};
use lockgate_model::{Append, BlockParts, Day, FeedKind, Millis, utc};
use lockgate_store::{Ledger, LedgerError, Store};
use lockgate_teleport::{HandlerChunk, HandlerPosition, START_CURSOR, handler_began_at};
use thiserror::Error;

pub use files::handler_position;

/// Why the position cannot be taken over.
#[derive(Debug, Error)]
pub enum TakeoverError {
    #[error("the Event Handler's file `{}` cannot be read: {source}", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("the Event Handler's file `{}` holds no time", path.display())]
    NoTime { path: PathBuf },
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

impl TakeoverError {
    /// The way out, if there is one. The store is in the same directory, so that is not to be
    /// removed.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            TakeoverError::Unreadable { .. } => {
                Some("run this as the user that the Event Handler ran as")
            }
            TakeoverError::NoTime { .. } => Some(
                "restore the file from a backup; without one, move the Event Handler's files there \
                 aside, but not the directory `lockgate`, and set `start-time` to a time before \
                 the oldest event or recording that may not have been sent: what comes after that \
                 time and was sent is sent again",
            ),
            TakeoverError::Ledger(_) => None,
        }
    }
}

/// The start time that the configuration may name, as found before the store is opened.
#[derive(Clone, Debug, Default)]
pub struct HandlerStart {
    state: PathBuf,
    /// `None`: the source decides.
    at: Option<Millis>,
}

/// When the Event Handler began, if it has. Once the source has a position of its own, the Event
/// Handler's files do not count: they may be gone.
///
/// Not while this process has the store open.
pub fn handler_start(config: &Config) -> Result<HandlerStart, Issues> {
    let Some(handler) = &config.event_handler else {
        return Ok(HandlerStart::default());
    };
    let start = |at| HandlerStart {
        state: handler.state.clone(),
        at,
    };
    let stored = config
        .sources
        .first()
        .map(|source| stored_cursors(&config.store.path, &source.name))
        .unwrap_or_default();
    let in_file = files::handler_start_time(&handler.state);
    if !stored.is_empty() {
        let taken_over = handler_began_at(&stored);
        // Earlier commits did not keep it.
        let earlier = || in_file.ok().flatten();
        let begun = stored
            .get(START_CURSOR)
            .and_then(|text| files::parse_time(text));
        return Ok(start(match begun {
            Some(begun) if handler.start_time == Some(begun) => None,
            _ => taken_over.or_else(earlier),
        }));
    }
    in_file.map(start).map_err(|error| {
        let hint = error.hint().unwrap_or_default().to_owned();
        let message = lockgate_model::sentence(&error.to_string());
        refused(config, message, hint)
    })
}

/// The cursors of a source in the store; none if there is no store, or it cannot be opened.
pub fn stored_cursors(store: &Path, source: &str) -> BTreeMap<String, String> {
    lockgate_store::cursors_of(store, source).unwrap_or_default()
}

/// Removes `start-time` from the configuration if the Event Handler has begun already: what counts
/// is its position. As there, another start time is refused.
pub fn begin_where_the_handler_began(
    config: &mut Config,
    start: &HandlerStart,
) -> Result<(), Issues> {
    let Some(handler) = &config.event_handler else {
        return Ok(());
    };
    // After a change of `storage` or of the address, which another message refuses.
    let Some(began) = start.at.filter(|_| start.state == handler.state) else {
        return Ok(());
    };
    if let Some(configured) = handler.start_time.filter(|configured| *configured != began) {
        let message = format!(
            "The start time cannot be changed: `{}` began at {}, and `start-time` says {}.",
            handler.state.display(),
            utc(began),
            utc(configured)
        );
        let hint = format!(
            "remove `start-time` to go on; to read everything again, move `{}` away, with the \
             store that is in it",
            handler.state.display()
        );
        return Err(refused(config, message, hint));
    }
    for source in &mut config.sources {
        source.start_time = None;
    }
    Ok(())
}

/// A problem at `start-time`.
fn refused(config: &Config, message: String, hint: String) -> Issues {
    let source = config.sources.first();
    let span = source.map(|source| source.start_time_span.clone());
    let mut issues = config.no_issues();
    issues.push(Issue::new(span.unwrap_or_default(), message, "", hint));
    issues
}

/// Whether some pipeline reads recordings.
pub fn sends_recordings(config: &Config) -> bool {
    let mut inputs = config.pipelines.iter().flat_map(|pipeline| &pipeline.from);
    inputs.any(|input| input.feed == FeedKind::Sessions)
}

/// Takes over the position, if this source has none in the store. Returns whether it did.
pub async fn take_over(
    source: &str,
    position: &HandlerPosition,
    store: &Store,
    now: Millis,
) -> Result<bool, TakeoverError> {
    if !store.cursors(source).await?.is_empty() {
        return Ok(false);
    }
    // One transaction: a crash leaves all of it, or nothing.
    store
        .append(Append {
            source: source.into(),
            feed: FeedKind::Audit,
            read_at: now,
            events: BlockParts::default(),
            cursors: position.cursors(now),
            gaps: Vec::new(),
            duplicates: 0,
        })
        .await?;
    Ok(true)
}

/// The position in words. `sends_recordings`: some pipeline reads the source's recordings.
pub fn describe(position: &HandlerPosition, sends_recordings: bool) -> String {
    let begun = |chunk: &&HandlerChunk| matches!(chunk, HandlerChunk::At(_));
    let chunks = || position.dates.values().flat_map(BTreeMap::values);
    let log = match (position.dates.first_key_value(), &position.last) {
        (Some((first, _)), _) => {
            let (all, begun) = (chunks().count(), chunks().filter(begun).count());
            let completed = all - begun;
            let repeated = repeated(position);
            format!("bulk export from {first} on, {completed} chunks read, {begun} begun{repeated}")
        }
        (None, Some(id)) => format!("after the event `{id}`"),
        (None, None) => match position.window.max(position.start) {
            Some(from) => format!("from {} on", utc(from)),
            None => "no events read".to_owned(),
        },
    };
    let recordings = match position.recordings.len() {
        0 => return log,
        1 => "1 recording".to_owned(),
        count => format!("{count} recordings"),
    };
    match sends_recordings {
        true => format!("{log}; {recordings} to send"),
        false => format!(
            "{log}; {recordings} not sent to the end, kept until `session.upload` is read and \
             not skipped"
        ),
    }
}

/// What is read from its start because its position is lost, in words.
fn repeated(position: &HandlerPosition) -> String {
    let mut text = String::new();
    let missing: Vec<String> = position
        .missing_dates()
        .iter()
        .map(Day::to_string)
        .collect();
    if !missing.is_empty() {
        text += &format!(
            "; no state of {}, read from the start, so events may be sent twice",
            missing.join(", ")
        );
    }
    let chunks = position.dates.values().flatten();
    let empty = chunks.filter(|(_, chunk)| **chunk == HandlerChunk::At(String::new()));
    let empty: Vec<String> = empty.map(|(name, _)| format!("`{name}`")).collect();
    if !empty.is_empty() {
        text += &format!(
            "; no position in {}, read from the start, so events may be sent twice",
            empty.join(", ")
        );
    }
    text
}
