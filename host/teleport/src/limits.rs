//! The time-outs and limits of a source that tests shorten. Those of one algorithm are next to it.

use std::time::Duration;

/// All time-outs and limits of a source. Tests shorten them; operators cannot configure them.
#[derive(Clone, Debug)]
pub struct SourceLimits {
    /// Opening a connection, up to the first answer.
    pub dial: Duration,
    /// Interval of HTTP/2 pings. Never below 60 s: Auth closes the connection with
    /// `too_many_pings`.
    pub keepalive: Duration,
    /// The connection is closed if a ping is not answered within this time.
    pub keepalive_timeout: Duration,
    /// A unary call, and the time between two messages of a stream.
    pub call: Duration,
    /// A call without an answer, or a stream without a message, is shown after this time.
    pub slow: Duration,
    /// It is not known how far the log is behind if Teleport has not answered for this time.
    pub doubt: Duration,
    /// Largest message accepted, in bytes. A page is about 1 MiB; a single event of a recording may
    /// be larger.
    pub message_bytes: usize,
    /// First and longest wait between attempts.
    pub backoff: (Duration, Duration),
    /// Longest wait between two attempts to connect. Short, so that reading goes on soon after an
    /// outage.
    pub reconnect: Duration,
    /// Interval between two checks of whether Teleport answers.
    pub check: Duration,
    /// Teleport is shown as not answering after this time.
    pub answer: Duration,
    /// An incomplete block is stored after this time.
    pub flush: Duration,

    /// Interval between two reads of a date's list of chunks.
    pub export_poll: Duration,
    /// Chunks of one date that are read at the same time.
    pub export_chunks: usize,
    /// Dates before the current one that are kept open for late chunks.
    pub export_backlog: i32,
    /// Failures of a chunk without progress before the next date begins without it.
    pub export_attempts: u32,

    /// Interval between two reads of the end of the log.
    pub poll: Duration,
    /// Longest window of one query if there are events; more than a day counts as a day. Windows
    /// also end at midnight, UTC.
    pub window: Duration,
    /// Windows grow up to this if there are no events.
    pub window_max: Duration,
    /// Events to request in a page.
    pub page: i32,
    /// Reading that is to end goes over the end of the log once more after this time, because
    /// events with equal times change their order while Teleport's file grows.
    pub lag: Duration,
    /// The end of the log is read up to this long after now, because Teleport's clock may be ahead.
    pub ahead: Duration,
    /// Interval between two requests for the newest event.
    pub newest: Duration,
    /// Each round starts this long before the newest event, because events arrive late.
    /// Repetitions are suppressed.
    pub reread: Duration,
    /// The stretches that are swept for events that became visible late, and how often.
    pub sweeps: Vec<Sweep>,
    /// Stored events in one slice of a sweep.
    pub slice: usize,
    /// Hashes of events kept to detect repetitions.
    pub hashes: usize,
    /// Longest wait if a server refuses to answer and nothing shows that its log is at fault.
    pub standstill: Duration,
    /// Failures of a page with the same answer before smaller pages are tried.
    pub page_attempts: u32,

    /// Reading waits this long at a part of the log that Teleport does not return, and then goes on
    /// after it. `None`: for ever.
    pub gap_after: Option<Duration>,
    /// First and longest wait before a gap is tried again; it triples each time.
    pub gap_wait: (Duration, Duration),

    /// A call that makes or reads a lock.
    pub lock_call: Duration,
    /// First and longest wait before a lock that failed is tried again.
    pub lock_wait: (Duration, Duration),
    /// How late events are usually read, by polling and by bulk export: Teleport exports what it
    /// has collected for some minutes. Failed logins that are older lock nobody, or older than the
    /// period of locks if that is longer.
    pub lock_delay: (Duration, Duration),
    /// A source that ends because it has read everything waits this long for its last locks.
    pub lock_settle: Duration,

    /// Recordings downloaded at the same time.
    pub recordings: usize,
    /// First and longest wait before a missing recording is requested again; it triples each time.
    /// Each request makes Teleport write an event.
    pub recording_wait: (Duration, Duration),
    /// A recording that is still missing this long after its upload was announced is given up.
    pub recording_patience: Duration,
    /// Attempts after which it is reported that a recording cannot be read to its end.
    pub recording_attempts: u32,
}

/// A stretch before the newest event that is read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sweep {
    pub span: Duration,
    pub every: Duration,
}

impl Sweep {
    /// The overlap and, with `late`, the last hour and the last two days. What is late by less than
    /// a day is in the last two days when it is looked for, once a day.
    pub fn stretches(overlap: Duration, late: bool) -> Vec<Sweep> {
        let hours = |hours: u64| Duration::from_secs(hours * 3600);
        let stretches = [
            (overlap, Duration::from_secs(30)),
            (hours(1), Duration::from_secs(600)),
            (hours(48), hours(24)),
        ];
        stretches
            .into_iter()
            .take(if late { 3 } else { 1 })
            .map(|(span, every)| Sweep { span, every })
            .collect()
    }
}

impl Default for SourceLimits {
    fn default() -> SourceLimits {
        let secs = Duration::from_secs;
        SourceLimits {
            dial: secs(30),
            keepalive: secs(60),
            keepalive_timeout: secs(180),
            call: secs(180),
            slow: secs(30),
            doubt: secs(10),
            message_bytes: 64 * 1024 * 1024,
            backoff: (secs(1), secs(30)),
            reconnect: secs(4),
            check: secs(2),
            answer: secs(3),
            flush: Duration::from_millis(200),
            export_poll: secs(16),
            export_chunks: 4,
            export_backlog: 2,
            export_attempts: 5,
            poll: secs(5),
            window: secs(24 * 3600),
            window_max: secs(31 * 24 * 3600),
            page: 5000,
            lag: secs(5),
            ahead: secs(2 * 3600),
            newest: secs(60),
            reread: secs(10),
            sweeps: Sweep::stretches(secs(300), true),
            slice: 8192,
            hashes: 262_144,
            standstill: secs(600),
            page_attempts: 3,
            gap_after: Some(secs(600)),
            gap_wait: (secs(60), secs(3600)),
            lock_call: secs(10),
            lock_wait: (secs(1), secs(10)),
            lock_delay: (secs(30), secs(900)),
            lock_settle: secs(10),
            recordings: 5,
            recording_wait: (secs(60), secs(6 * 3600)),
            recording_patience: secs(48 * 3600),
            recording_attempts: 3,
        }
    }
}
