//! Every limit of the service on one page. Operators can change none of them.

use std::time::Duration;

use lockgate_model::Millis;

/// Time that batches in flight get to finish after a stop was asked for.
pub(crate) const ABANDON_GRACE: Duration = Duration::from_secs(10);

/// Time that tasks get to return what they hold after that, before they are aborted.
pub(crate) const ABORT_GRACE: Duration = Duration::from_secs(2);
/// Time that a pipeline which a reload replaces or removes gets to finish its batches in flight:
/// the sink's `timeout`, but not less than this …
pub(crate) const EXCHANGE_LEAST: Duration = Duration::from_secs(10);
/// … and not more than this.
pub(crate) const EXCHANGE_MOST: Duration = Duration::from_secs(60);

/// Within this time a store has noticed that one of its files is gone.
pub(crate) const CLOSE_NOTICED: Duration = Duration::from_secs(10);

/// Recent blocks whose times a reader gets: they show where it was when the clock was wrong.
pub(crate) const RECENT_BLOCKS: usize = 1024;

/// Time between two looks at credentials that cannot be used.
pub(crate) const CREDENTIALS_INTERVAL: Duration = Duration::from_secs(2);

/// All of the log has been read if that was so at most this many milliseconds ago: it is listed
/// every few seconds.
pub(crate) const COMPLETE_MS: Millis = 60_000;

/// A recording that cannot be downloaded, or a late event that cannot be looked for, makes its
/// source unready after this many milliseconds: Teleport may need some time to store a recording.
pub(crate) const PART_TOLERATED_MS: Millis = 600_000;

/// Time between two attempts to open an admin listener whose port is taken.
pub(crate) const LISTENER_INTERVAL: Duration = Duration::from_secs(5);

/// Time between two looks at which pipelines keep a stream at its retention limit.
pub(crate) const SOURCE_INTERVAL: Duration = Duration::from_secs(1);

/// How long a change of dead letters waits for a store that the host is opening …
pub(crate) const STORE_PATIENCE: Duration = Duration::from_secs(5);
/// … and the time between two looks.
pub(crate) const STORE_INTERVAL: Duration = Duration::from_millis(50);

/// Bytes of recordings that a repair keeps in memory, for the next damaged block of the same one.
pub(crate) const RECORDINGS_KEPT: usize = 256 << 20;

/// How long the figures of the log's last line are waited for.
pub(crate) const LAST_FIGURES: Duration = Duration::from_secs(2);

/// How long the components of a pipeline may take to accept their configuration before a condition
/// says which of them is at it.
pub(crate) const CONFIGURE_LONG: Duration = Duration::from_secs(10);

/// How long a batch may be in the stages before the engine hears which one is at work: in time for
/// the condition of a pipeline that is stalled.
pub(crate) const STAGES_LONG: Duration = Duration::from_secs(30);

/// How long the classification of an answer waits for memory before that is a condition.
pub(crate) const ROOM_PATIENCE: Duration = Duration::from_secs(5);

/// How long a request waits for a file descriptor before that is a condition.
pub(crate) const DESCRIPTOR_PATIENCE: Duration = Duration::from_secs(5);

/// File descriptors that receivers never get: of the store, whose readers open three files each,
/// of the admin listener, and of what is open for a moment only …
pub(crate) const DESCRIPTORS_OF_HOST: usize = 96;
/// … of each source's connections to Teleport …
pub(crate) const DESCRIPTORS_OF_SOURCE: usize = 16;
/// … and of the components of each pipeline.
pub(crate) const DESCRIPTORS_OF_PIPELINE: usize = 1;

/// A pipeline that finds no memory for its components is started again when others have released
/// some, and after this time at the latest.
pub(crate) const START_INTERVAL: Duration = Duration::from_secs(5);

/// How long a reload waits, over all its pipelines, for memory that other components have.
pub(crate) const RELOAD_MEMORY_WAIT: Duration = Duration::from_secs(30);

/// Time to read a part of an audit log again, to repair a block.
pub const READ_AGAIN_MAX: Duration = Duration::from_secs(600);

/// Time between two looks at a block of the store that is damaged.
pub(crate) const DAMAGE_INTERVAL: Duration = Duration::from_secs(30);

/// Bytes of compiled code kept on disk.
pub(crate) const CODE_CAPACITY: u64 = 1 << 30;

/// Time between two looks at the granted databases. A change is taken when a second look finds the
/// same.
pub(crate) const DATABASE_CHECK_INTERVAL: Duration = Duration::from_secs(2);

/// Time between two looks at the files of a sink's credentials. A change is taken when a second
/// look finds the same …
pub(crate) const CREDENTIALS_CHECK_INTERVAL: Duration = Duration::from_millis(500);
/// … which follows sooner if the receiver may have refused the credentials.
pub(crate) const CREDENTIALS_SECOND_LOOK: Duration = Duration::from_millis(50);

/// Changed files of credentials that cannot be used are a condition after this time: whoever
/// renews them may write one after the other.
pub(crate) const CREDENTIALS_PATIENCE: Duration = Duration::from_secs(10);

/// Bytes of memory that a batch takes for each byte of its payload: the documents that are made of
/// it, and the bodies of the requests that are out.
pub(crate) const BATCH_MEMORY_FACTOR: usize = 3;

/// Events of one redrive, at most.
pub(crate) const REDRIVE_EVENTS: usize = 500;

/// Bytes of one redrive's payloads, at most.
pub(crate) const REDRIVE_BYTES: usize = 1 << 20;

/// Time between two looks for dead letters that are too old.
pub(crate) const EXPIRY_INTERVAL: Duration = Duration::from_secs(60);

/// How long what a pipeline has in flight may take to finish once the store has given up events of
/// it: those that are left must not wait for a receiver that hangs.
pub(crate) const LAG_LIMIT_GRACE: Duration = Duration::from_secs(10);

/// Dead letters of one commit that are logged one by one.
pub(crate) const LOGGED_LETTERS: usize = 16;

/// A condition that begins again so soon is the same one in the log: a receiver that fails now and
/// then must not fill it.
pub(crate) const ENDED_LOGGED_AFTER: Duration = Duration::from_secs(10);

/// Time between two writes of the status file.
pub(crate) const STATUS_INTERVAL: Duration = Duration::from_secs(1);

/// A status file older than this, in milliseconds, is of a host that ended, if there is no
/// socket to ask.
pub(crate) const STATUS_STALE_MS: Millis = 10_000;
