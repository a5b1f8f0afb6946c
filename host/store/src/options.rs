//! The options of a store.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use lockgate_model::Millis;

use crate::limits;

/// Where the store takes the time from: milliseconds since the Unix epoch.
pub type Clock = Arc<dyn Fn() -> Millis + Send + Sync>;

/// How long the process has been running, by a clock that nobody can set.
pub type Elapsed = Arc<dyn Fn() -> Duration + Send + Sync>;

/// How to open a store.
#[derive(Clone)]
pub struct Options {
    /// The directory. Made, with mode 0700, if it does not exist.
    pub path: PathBuf,
    /// For every stream that `streams` does not name.
    pub retention: Retention,
    /// By name, such as `teleport/audit`.
    pub streams: BTreeMap<String, Retention>,
    /// Bytes of recent blocks kept in memory, over all streams.
    pub tail_bytes: usize,
    /// The file never grows beyond so many bytes: as though the disk were full.
    pub size_max: Option<u64>,
    /// Bytes of the write-ahead log beyond which a reader that keeps it from being folded into the
    /// file is reported.
    pub log_limit: u64,
    /// How many of the oldest commits of a pipeline and stream are folded into its tallies at a
    /// time, once their events are gone.
    pub fold_links: usize,
    pub clock: Clock,
    pub elapsed: Elapsed,
}

/// How long events are kept that every pipeline is done with. Whichever limit comes first; `None`:
/// no such limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// Since they were read, as far as the times of newer events show that. It never removes what a
    /// pipeline has not finished, and never stops a reader: waiting would free nothing.
    pub age: Option<Duration>,
    /// Of compressed blocks, for each stream. If it is reached and a pipeline still needs the
    /// oldest block, appends wait.
    pub bytes: Option<u64>,
}

/// How far a pipeline may hold retention back; `None`: no such limit. Past it, retention removes
/// blocks that the pipeline has not finished, once they are due.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LagLimit {
    /// Of its oldest unfinished block, since it was read.
    pub age: Option<Duration>,
    /// Of compressed blocks of the stream, from its oldest unfinished one on.
    pub bytes: Option<u64>,
}

impl LagLimit {
    /// A little less: what a pipeline is brought back to, so that it is not at the limit again at
    /// once.
    pub(crate) fn with_margin(&self) -> LagLimit {
        LagLimit {
            age: self.age.map(|age| age - age / 8),
            bytes: self.bytes.map(|bytes| bytes - bytes / 8),
        }
    }

    /// `bytes`: from the block on that was read at `read_at`. `now`: as far as it is shown.
    pub(crate) fn is_exceeded(&self, read_at: Millis, bytes: u64, now: Option<Millis>) -> bool {
        let is_old = self.age.zip(now).is_some_and(|(limit, now)| {
            u128::try_from(now.saturating_sub(read_at)).is_ok_and(|age| age > limit.as_millis())
        });
        is_old || self.bytes.is_some_and(|limit| bytes > limit)
    }
}

impl Options {
    /// Seven days, 8 GiB a stream, the system's clock.
    #[allow(
        clippy::disallowed_methods,
        reason = "the defaults of the fields `clock` and `elapsed`"
    )]
    pub fn new(path: impl Into<PathBuf>) -> Options {
        let start = Instant::now();
        Options {
            path: path.into(),
            retention: Retention {
                age: Some(Duration::from_secs(7 * 86_400)),
                bytes: Some(8 << 30),
            },
            streams: BTreeMap::new(),
            tail_bytes: limits::TAIL_BYTES,
            size_max: None,
            log_limit: limits::LOG_LIMIT,
            fold_links: limits::FOLD_LINKS,
            clock: Arc::new(|| {
                SystemTime::now()
                    .duration_since(SystemTime::UNIX_EPOCH)
                    .map_or(0, |since| since.as_millis() as Millis)
            }),
            elapsed: Arc::new(move || start.elapsed()),
        }
    }

    pub(crate) fn retention_of(&self, stream: &str) -> Retention {
        self.streams.get(stream).copied().unwrap_or(self.retention)
    }
}
