//! The state that all tasks of a running source share.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lockgate_backoff::Backoff;
use lockgate_model::{Append, BlockParts, CursorUpdate, FeedKind, Gap, KnownEvents, Millis};
use tokio::sync::mpsc::UnboundedSender;
use tonic::Status;

use crate::connect::{Connector, Failure};
use crate::gaps::Gaps;
use crate::locks::{Locks, Moment};
use crate::read::{self, Announced, Collector, KnownRecordings, PendingRecording};
use crate::status::{Phase, StatusReporter};
use crate::{Closed, Intake, ReaderKind, Resume, SourceSettings};

/// A running source: what all its tasks share.
pub(crate) struct Source<I> {
    pub(crate) settings: SourceSettings,
    pub(crate) connector: Connector,
    pub(crate) status: StatusReporter,
    /// The time of the first event to read.
    start: AtomicI64,
    pub(crate) types: Arc<HashSet<String>>,
    pub(crate) gaps: Gaps,
    pub(crate) known_recordings: Arc<KnownRecordings>,
    /// How long chunks could not be read when the source was started, by the keys of their cursors.
    pub(crate) refused: BTreeMap<String, Duration>,
    /// `None`: nobody is to be locked.
    pub(crate) locks: Option<Locks>,
    intake: I,
    /// `None` if recordings are not wanted, or if no more will be announced.
    recordings: Mutex<Option<UnboundedSender<PendingRecording>>>,
    wants_recordings: bool,
}

impl<I: Intake> Source<I> {
    pub(crate) fn new(
        settings: SourceSettings,
        start: Millis,
        status: StatusReporter,
        connector: Connector,
        intake: I,
        recordings: Option<UnboundedSender<PendingRecording>>,
        resume: &Resume,
    ) -> Arc<Source<I>> {
        let types = Arc::new(
            settings
                .types
                .iter()
                .filter(|name| !name.is_empty())
                .cloned()
                .collect(),
        );
        let now = settings.clock.now();
        let waited = |since: Millis| Duration::from_millis((now - since).max(0) as u64);
        let refused = read::refused_chunks(resume).into_iter();
        let locks = settings.locks;
        Arc::new(Source {
            refused: refused.map(|(key, since)| (key, waited(since))).collect(),
            settings,
            connector,
            status,
            start: AtomicI64::new(start),
            types,
            gaps: Gaps::new(&resume.gaps),
            known_recordings: Arc::new(KnownRecordings::new(resume)),
            locks: locks.map(|settings| Locks::new(settings, resume)),
            intake,
            wants_recordings: recordings.is_some(),
            recordings: Mutex::new(recordings),
        })
    }

    pub(crate) fn now(&self) -> Millis {
        self.settings.clock.now()
    }

    pub(crate) fn start(&self) -> Millis {
        self.start.load(Ordering::Relaxed)
    }

    /// Skips events before this time, which another reader has read.
    pub(crate) fn start_at_least(&self, start: Millis) {
        self.start.fetch_max(start, Ordering::Relaxed);
    }

    pub(crate) fn start_at_most(&self, start: Millis) {
        self.start.fetch_min(start, Ordering::Relaxed);
    }

    pub(crate) fn backoff(&self) -> Backoff {
        let (first, max) = self.settings.limits.backoff;
        Backoff::new(first, max)
    }

    /// What failed logins are compared with: Teleport's newest event or, if it is later, our clock,
    /// corrected by what the reader has measured. As long as nothing is measured our clock may be
    /// ahead; what is read shortly after all had been read is then compared with the newest event
    /// alone, because Teleport has only just shown it.
    pub(crate) fn moment(&self) -> Moment {
        let time = self.status.log_time();
        let local = self.now();
        let (polling, exporting) = self.settings.limits.lock_delay;
        let delay = match time.reader {
            Some(ReaderKind::Export) => exporting,
            Some(ReaderKind::Poll) | None => polling,
        };
        let delay = delay.as_millis() as Millis;
        let is_new = |complete_at: Millis| (local - complete_at).abs() <= delay;
        let now = match (time.newest, time.skew) {
            (Some(newest), None) if time.complete_at.is_some_and(is_new) => newest,
            (newest, skew) => {
                let now = local + skew.unwrap_or(0);
                newest.map_or(now, |newest| newest.max(now))
            }
        };
        Moment { now, local, delay }
    }

    /// Waits before the next attempt.
    pub(crate) async fn pause(&self, backoff: &mut Backoff) {
        let wait = backoff.next(self.settings.clock.chance());
        self.settings.clock.sleep(wait).await;
    }

    /// Waits for `full`, or up to a seventh less. Ends early at a new connection: after an outage,
    /// what waits at Teleport is to be known soon.
    pub(crate) async fn rest(&self, full: Duration) {
        let wait = full.mul_f64(1.0 - self.settings.clock.chance() / 7.0);
        tokio::select! {
            () = self.settings.clock.sleep(wait) => {}
            () = self.connector.connected() => {}
        }
    }

    /// Runs a call with the time-out of all calls.
    pub(crate) async fn timed<T>(
        &self,
        call: impl Future<Output = Result<T, Status>>,
    ) -> Result<T, Failure> {
        let limit = self.settings.limits.call;
        match tokio::time::timeout(limit, call).await {
            Ok(result) => result.map_err(|status| Failure::of(&self.settings.address, &status)),
            Err(_) => Err(Failure::Lost {
                reason: format!("no answer within {} s", limit.as_secs()),
            }),
        }
    }

    /// Stores the collected events with their cursors, and a cursor for each announced recording.
    pub(crate) async fn store(
        &self,
        collector: &mut Collector,
        mut cursors: Vec<CursorUpdate>,
    ) -> Result<(), Closed> {
        let taken = collector.take();
        let mut announced = Vec::new();
        for pending in taken.announced {
            if !self.wants_recordings {
                break;
            }
            match self.known_recordings.announce(pending) {
                Announced::Download(pending) => {
                    cursors.push(pending.cursor());
                    announced.push(pending);
                }
                Announced::Again(cursor) => cursors.push(cursor),
            }
        }
        let counting = match &self.locks {
            Some(locks) if !taken.failed_logins.is_empty() => {
                let mut counting = locks.count(&taken.failed_logins, self.moment()).await;
                cursors.append(&mut counting.cursors);
                Some((locks, counting))
            }
            _ => None,
        };
        let events = taken.events.times.len() as u64;
        let feed = collector.feed();
        let now = self.now();
        let past = taken.events.times.iter().filter(|&&time| time <= now);
        let newest = past.max().copied().filter(|_| feed == FeedKind::Audit);
        if events > 0 || !cursors.is_empty() || taken.duplicates > 0 {
            self.append(feed, taken.events, cursors, taken.duplicates, Vec::new())
                .await?;
        }
        if let Some((locks, counting)) = counting {
            locks.counted(self, counting);
        }
        self.status.update(|status| {
            status.events += events;
            if feed == FeedKind::Sessions {
                status.recorded_events += events;
            }
            status.duplicates += taken.duplicates;
            status.filtered += taken.filtered;
            status.own_accesses += taken.own_accesses;
            status.unreadable += taken.unreadable;
            if events > 0 && feed == FeedKind::Audit {
                status.phase = Phase::Reading;
            }
        });
        if let Some(newest) = newest {
            self.status.set_newest(newest);
        }
        if let Some(recordings) = &*self
            .recordings
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
        {
            for pending in announced {
                // Sending fails only while the source ends, and then the cursor is already stored.
                let _ = recordings.send(pending);
            }
        }
        Ok(())
    }

    /// See [`Intake::known`].
    pub(crate) async fn known(
        &self,
        from: Millis,
        to: Millis,
        max: usize,
    ) -> Result<KnownEvents, Closed> {
        self.intake.known(from, to, max).await
    }

    /// The reader has ended: no more recordings will be announced.
    pub(crate) fn announce_nothing_more(&self) {
        self.recordings
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
    }

    /// Moves cursors without events.
    pub(crate) async fn move_cursors(
        &self,
        feed: FeedKind,
        cursors: Vec<CursorUpdate>,
    ) -> Result<(), Closed> {
        self.append(feed, BlockParts::default(), cursors, 0, Vec::new())
            .await
    }

    /// Stores a gap without events.
    pub(crate) async fn append_gap(&self, gap: Gap) -> Result<(), Closed> {
        let (feed, gaps) = (gap.feed, vec![gap]);
        self.append(feed, BlockParts::default(), Vec::new(), 0, gaps)
            .await
    }

    async fn append(
        &self,
        feed: FeedKind,
        events: BlockParts,
        cursors: Vec<CursorUpdate>,
        duplicates: u64,
        gaps: Vec<Gap>,
    ) -> Result<(), Closed> {
        let source = self.settings.source.clone();
        self.intake
            .append(Append {
                source,
                feed,
                read_at: self.now(),
                events,
                cursors,
                gaps,
                duplicates,
            })
            .await
    }
}
