//! Runs a source until it ends.

use std::collections::BTreeSet;

use lockgate_model::{Append, BlockParts, CursorUpdate, FeedKind, Millis};
use thiserror::Error;
use tokio::sync::{mpsc, watch};

use crate::connect::{Address, AddressError, Connector};
use crate::locks;
use crate::read::{self, PendingRecording};
use crate::source::Source;
use crate::start::Start;
use crate::status::StatusReporter;
use crate::takeover;
use crate::time::time;
use crate::{Closed, Intake, ReaderKind, ReaderStatus, Resume, SourceSettings};

/// The cursor that names the cluster whose events are in the store.
pub const CLUSTER: &str = "cluster";
/// The types that were read until now, separated by commas; empty for all.
const TYPES: &str = "types";

/// Why a source ended without an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Everything that was in the log at the start has been read.
    CaughtUp,
    /// `shutdown` completed.
    Stopped,
    /// The intake is closed.
    Closed,
}

/// Why a source cannot start. All other failures are retried forever.
#[derive(Debug, Error)]
pub enum SourceError {
    #[error(transparent)]
    Address(#[from] AddressError),
    /// Refused, as in Teleport's Event Handler: events that were skipped before would stay skipped.
    #[error(
        "`start-time` cannot be changed: the store starts at {stored}, the configuration says \
         {configured}. Change it back, remove it, or use a new store"
    )]
    StartChanged { stored: String, configured: String },
    #[error(
        "the stored cursor `{key}` has the invalid value `{value}`. Restore the store from a \
         backup, or use a new one"
    )]
    Cursor { key: String, value: String },
}

/// Reads a cluster's audit log, and its session recordings if wanted, into the intake.
///
/// Ends when `shutdown` does, when the intake is closed, or, if the settings say so, when
/// everything has been read. The future may be dropped at any time: a cursor moves only together
/// with its events.
pub async fn run<I: Intake>(
    settings: SourceSettings,
    resume: Resume,
    intake: I,
    status: watch::Sender<ReaderStatus>,
    shutdown: impl Future<Output = ()>,
) -> Result<Ended, SourceError> {
    let address: Address = settings.address.parse()?;
    let start = Start::new(&settings, &resume)?;
    let reporter = StatusReporter::new(status, &settings);
    let work = Box::pin(work(settings, address, start, resume, intake, reporter));
    tokio::select! {
        biased;
        () = shutdown => Ok(Ended::Stopped),
        result = work => Ok(if result.is_ok() { Ended::CaughtUp } else { Ended::Closed }),
    }
}

/// Reads these recordings into the intake, each from its start. Ends once each has been tried: the
/// failures in `status` say which could not be read to their ends. Reads nothing else, and goes on
/// trying to connect for as long as it is polled.
///
/// # Errors
/// The address cannot be used.
pub async fn read_recordings<I: Intake>(
    settings: SourceSettings,
    sessions: &[String],
    intake: I,
    status: watch::Sender<ReaderStatus>,
) -> Result<(), SourceError> {
    let address: Address = settings.address.parse()?;
    let reporter = StatusReporter::new(status, &settings);
    let connector = Connector::new(address, settings.clone(), reporter.clone(), None);
    let now = settings.clock.now();
    let resume = Resume::default();
    let source = Source::new(settings, now, reporter, connector, intake, None, &resume);
    let recordings = sessions.iter().map(|sid| PendingRecording::new(sid, now));
    let (_, nothing_more) = mpsc::unbounded_channel();
    let reading = read::download(source.clone(), recordings.collect(), nothing_more);
    tokio::select! {
        // The intake closes only if nobody waits for it any more.
        _ = reading => Ok(()),
        never = source.connector.watch() => match never {},
    }
}

/// Whether [`run`] would start, but for the credentials. Connects to nothing.
pub fn check(settings: &SourceSettings, resume: &Resume) -> Result<(), SourceError> {
    let _: Address = settings.address.parse()?;
    Start::new(settings, resume).map(drop)
}

async fn work<I: Intake>(
    settings: SourceSettings,
    address: Address,
    start: Start,
    resume: Resume,
    intake: I,
    status: StatusReporter,
) -> Result<(), Closed> {
    let now = settings.clock.now();
    let cursors = first_cursors(&settings, now, &start, &resume, &status);
    if !cursors.is_empty() {
        let source = settings.source.clone();
        let (feed, read_at) = (FeedKind::Audit, now);
        intake
            .append(Append {
                source,
                feed,
                read_at,
                events: BlockParts::default(),
                cursors,
                gaps: Vec::new(),
                duplicates: 0,
            })
            .await?;
    }
    let cluster = resume.cursors.get(CLUSTER).map(String::as_str);
    let connector = Connector::new(address, settings.clone(), status.clone(), cluster);
    let (announce, announced) = mpsc::unbounded_channel();
    let wanted = settings.sessions;
    let source = Source::new(
        settings,
        start.at,
        status,
        connector,
        intake,
        wanted.then_some(announce),
        &resume,
    );
    source.show_gaps();
    let read = {
        let source = source.clone();
        let resume = &resume;
        async move {
            let kind = read::choose(&source, resume).await;
            if !resume.cursors.contains_key(CLUSTER)
                && let Some(name) = source.connector.cluster()
            {
                let key = CLUSTER.to_owned();
                let value = Some(name.to_owned());
                let cursors = vec![CursorUpdate { key, value }];
                source.move_cursors(FeedKind::Audit, cursors).await?;
            }
            let polled;
            let resume = match kind {
                ReaderKind::Export => resume,
                ReaderKind::Poll => {
                    polled = read::poll_after_export(&source, resume).await?;
                    if let Some(from) = read::polled_from(&polled.cursors) {
                        source.start_at_least(from);
                    }
                    &polled
                }
            };
            takeover::go_on(&source, resume).await?;
            start.confirm(&source).await?;
            let has_start_time = source.settings.start_time.is_some();
            source.status.update(|status| {
                status.reader = Some(kind);
                status.reads_from = (!has_start_time).then(|| source.start());
            });
            match kind {
                ReaderKind::Export => {
                    Box::pin(read::export::run(source.clone(), resume)).await?;
                }
                ReaderKind::Poll => Box::pin(read::poll::run(source.clone(), resume)).await?,
            }
            source.announce_nothing_more();
            Ok(())
        }
    };
    let recordings = async {
        if wanted {
            read::download(source.clone(), PendingRecording::stored(&resume), announced).await
        } else {
            Ok(())
        }
    };
    let reading = async {
        tokio::try_join!(read, recordings)?;
        if let Some(locks) = &source.locks {
            locks.settle(&source).await;
        }
        Ok(())
    };
    tokio::select! {
        result = reading => result,
        closed = locks::run(&source) => closed,
        never = source.connector.watch() => match never {},
    }
}

/// What is stored before anything is read, and reports what the settings mean for it.
fn first_cursors(
    settings: &SourceSettings,
    now: Millis,
    start: &Start,
    resume: &Resume,
    status: &StatusReporter,
) -> Vec<CursorUpdate> {
    if start.at > now {
        status.report(format!(
            "the first event to read is that of {}, which is in the future by the clock of this \
             machine. If the clock was wrong when this was stored, use a new store",
            time(start.at)
        ));
    }
    let mut cursors = start.cursors();
    let types = stored_types(settings);
    if resume.cursors.get(TYPES) != Some(&types) {
        if let Some(before) = resume.cursors.get(TYPES)
            && let Some(added) = added_types(before, &types)
        {
            status.report(format!(
                "`types` of this source now includes {added}. Earlier events of these types were \
                 skipped, and are not read now unless a sweep finds them. To get them, read the \
                 source into a new store with an earlier `start-time`"
            ));
        }
        cursors.push(CursorUpdate {
            key: TYPES.to_owned(),
            value: Some(types),
        });
    }
    if settings.locks.is_none() {
        // They would be out of date once locks are wanted again.
        cursors.extend(locks::left_over(resume));
    }
    cursors
}

/// The configured types as their cursor.
fn stored_types(settings: &SourceSettings) -> String {
    let types: BTreeSet<&str> = settings.types.iter().map(String::as_str).collect();
    let types: Vec<&str> = types.into_iter().filter(|name| !name.is_empty()).collect();
    types.join(",")
}

/// The types in `now` that were not in `before`, in words.
fn added_types(before: &str, now: &str) -> Option<String> {
    if before.is_empty() {
        return None;
    }
    if now.is_empty() {
        return Some(format!("every type; before, only {before}"));
    }
    let before: BTreeSet<&str> = before.split(',').collect();
    let added: Vec<&str> = now
        .split(',')
        .filter(|name| !before.contains(name))
        .collect();
    (!added.is_empty()).then(|| added.join(", "))
}
