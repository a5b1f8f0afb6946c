//! Every default and bound of the configuration. `reference.toml` documents them; a test compares
//! the two.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;

use crate::quantity::{Bounds, Bytes, Count, Share};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// Where the host answers questions about its health.
pub(crate) const ADMIN_LISTEN: SocketAddr =
    SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 8686));

/// Time range of one query of the polling reader, if there are events.
pub(crate) const WINDOW: Bounds<Duration> = Bounds {
    default: DAY,
    least: Duration::from_secs(60),
    most: Duration::from_secs(31 * 86_400),
};
/// Time range that the polling reader reads again and again, for events that arrive late.
pub(crate) const OVERLAP: Bounds<Duration> = Bounds {
    default: Duration::from_secs(300),
    least: Duration::from_secs(10),
    most: HOUR,
};
/// How long reading waits at a part of the log that Teleport does not return.
pub(crate) const GAP_AFTER: Bounds<Duration> = Bounds {
    default: Duration::from_secs(600),
    least: SECOND,
    most: Duration::from_secs(30 * 86_400),
};
/// Session recordings downloaded at the same time.
pub(crate) const CONCURRENCY: Bounds<Count> = Bounds {
    default: Count(5),
    least: Count(1),
    most: Count(64),
};

/// Failed logins of a user that lock them.
pub(crate) const LOCK_ATTEMPTS: Bounds<Count> = Bounds {
    default: Count(3),
    least: Count(1),
    most: Count(1000),
};
/// The time in which they count together.
pub(crate) const LOCK_PERIOD: Bounds<Duration> = Bounds {
    default: Duration::from_secs(60),
    least: SECOND,
    most: DAY,
};
/// How long a lock lasts: least and most. By default it does not end.
pub(crate) const LOCK_FOR: (Duration, Duration) = (SECOND, Duration::from_secs(3650 * 86_400));

/// How long events are kept, per stream.
pub(crate) const RETAIN_AGE: Bounds<Duration> = Bounds {
    default: Duration::from_secs(7 * 86_400),
    least: HOUR,
    most: Duration::from_secs(3650 * 86_400),
};
/// How many bytes of events are kept, per stream.
pub(crate) const RETAIN_BYTES: Bounds<Bytes> = Bounds {
    default: Bytes(8 * GIB),
    least: Bytes(64 * MIB),
    most: Bytes(1024 * GIB),
};

/// Memory of all instances together, and of all batches in flight together.
pub(crate) const MEMORY: Bounds<Bytes> = Bounds {
    default: Bytes(512 * MIB),
    least: Bytes(64 * MIB),
    most: Bytes(1024 * GIB),
};
/// Memory for compiling one component.
pub(crate) const COMPILE_MEMORY: Bounds<Bytes> = Bounds {
    default: Bytes(2 * GIB),
    least: Bytes(64 * MIB),
    most: Bytes(1024 * GIB),
};
/// CPU time for compiling one component. Counted in whole seconds.
pub(crate) const COMPILE_TIME: Bounds<Duration> = Bounds {
    default: Duration::from_secs(180),
    least: SECOND,
    most: Duration::from_secs(86_400),
};

/// CPU time of one call into a component.
pub(crate) const PLUGIN_TIME: Bounds<Duration> = Bounds {
    default: SECOND,
    least: Duration::from_millis(1),
    most: Duration::from_secs(60),
};
/// CPU time of all calls of one component for one batch.
pub(crate) const PLUGIN_BATCH_TIME: Bounds<Duration> = Bounds {
    default: Duration::from_secs(30),
    least: Duration::from_millis(1),
    most: Duration::from_secs(600),
};
/// Memory of one instance. WebAssembly's limit is 4 GiB.
pub(crate) const PLUGIN_MEMORY: Bounds<Bytes> = Bounds {
    default: Bytes(128 * MIB),
    least: Bytes(MIB),
    most: Bytes(4 * GIB),
};

/// Keys and values that a stage may keep: least and most. By default it may keep none.
pub(crate) const PLUGIN_STATE: (Bytes, Bytes) = (Bytes(KIB), Bytes(64 * MIB));

/// Events in a full batch.
pub(crate) const BATCH_EVENTS: Bounds<Count> = Bounds {
    default: Count(500),
    least: Count(1),
    most: Count(10_000),
};
/// Bytes of payload in a full batch.
pub(crate) const BATCH_BYTES: Bounds<Bytes> = Bounds {
    default: Bytes(MIB),
    least: Bytes(KIB),
    most: Bytes(64 * MIB),
};
/// How long the oldest event of a batch waits for more.
pub(crate) const BATCH_AGE: Bounds<Duration> = Bounds {
    default: SECOND,
    least: Duration::from_millis(1),
    most: HOUR,
};

/// Batches of one pipeline processed at the same time.
pub(crate) const IN_FLIGHT: Bounds<Count> = Bounds {
    default: Count(8),
    least: Count(1),
    most: Count(64),
};
/// Dead letters in a row that engage the brake. It looks at the last 1,000 entries.
pub(crate) const DEAD_IN_A_ROW: Bounds<Count> = Bounds {
    default: Count(16),
    least: Count(1),
    most: Count(1000),
};
/// Share of dead letters among the last 1,000 entries that engages the brake when exceeded.
pub(crate) const DEAD_SHARE: Bounds<Share> = Bounds {
    default: Share(10),
    least: Share(1),
    most: Share(1000),
};
/// Bytes of all dead letters that a pipeline keeps.
pub(crate) const DEAD_BYTES: Bounds<Bytes> = Bounds {
    default: Bytes(GIB),
    least: Bytes(KIB),
    most: Bytes(1024 * GIB),
};
/// How long dead letters are kept.
pub(crate) const DEAD_AGE: Bounds<Duration> = Bounds {
    default: Duration::from_secs(90 * 86_400),
    least: HOUR,
    most: Duration::from_secs(3650 * 86_400),
};
/// How far a pipeline may hold retention back: least and most. There is no limit by default.
pub(crate) const LAG_AGE: (Duration, Duration) = (HOUR, Duration::from_secs(3650 * 86_400));
/// `rotate` of a sink that writes to a file.
pub(crate) const ROTATE_BYTES: (Bytes, Bytes) = (Bytes(4096), Bytes(1024 * GIB));
pub(crate) const ROTATE_AGE: (Duration, Duration) =
    (Duration::from_secs(60), Duration::from_secs(366 * 86_400));
pub(crate) const LAG_BYTES: (Bytes, Bytes) = (Bytes(16 * MIB), Bytes(1024 * GIB));
/// Requests to one receiver at the same time: least and most. The default is the pipeline's
/// `in-flight`.
pub(crate) const RATE_IN_FLIGHT: (Count, Count) = (Count(1), Count(256));
/// One request, from connecting to the last byte of the response.
pub(crate) const TIMEOUT: Bounds<Duration> = Bounds {
    default: Duration::from_secs(30),
    least: Duration::from_millis(100),
    most: Duration::from_secs(600),
};

/// The streams that a pipeline reads by default.
pub(crate) const FROM: &str = "audit";

/// Length of the name of a source, plugin or pipeline, in characters.
pub(crate) const NAME_CHARS: usize = 64;
