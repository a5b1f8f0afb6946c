//! A source on the status board: its reader's status, and the streams it waits for.

use std::collections::BTreeMap;
use std::convert::Infallible;

use lockgate_ledger::LedgerError;
use lockgate_model::{Millis, Validity};
use lockgate_store::{Ledger, Store};
use lockgate_teleport::{FailureKind, Phase, ReaderKind, ReaderStatus, SourceFailure};
use tokio::sync::watch;
use tokio::time::interval;

use crate::blocking::blocking;
use crate::clock::now;
use crate::limits::{PART_TOLERATED_MS, SOURCE_INTERVAL};
use crate::status::{
    Board, CONNECTING, ConditionStatus, ConditionStatusKind, LockStatus, Problem, ReaderFigures,
    SourceStatus,
};

/// The subject of the condition of credentials that expire.
const EXPIRY: &str = "expiry";

/// A stream at its retention limit: reading waits until these pipelines have finished its oldest
/// events, or until its oldest block is repaired.
#[derive(Clone, Debug, Default, PartialEq)]
struct FullStream {
    since: Millis,
    pipelines: Vec<String>,
    /// Its oldest block is damaged, and stays until it is repaired.
    is_damaged: bool,
}

/// Keeps the board as the source is.
pub(crate) async fn watch(
    name: String,
    store: Store,
    board: Board,
    mut status: watch::Receiver<ReaderStatus>,
) -> Infallible {
    let streams = ["audit", "sessions"].map(|feed| format!("{name}/{feed}"));
    let mut full: BTreeMap<String, FullStream> = BTreeMap::new();
    let mut ticks = interval(SOURCE_INTERVAL);
    // The reader does not log it: nothing fails yet.
    let mut logged = None;
    loop {
        for stream in &streams {
            if *store.retention_full(stream).borrow() {
                let pipelines = holders(&store, stream).await;
                let full = full.entry(stream.clone()).or_insert_with(|| FullStream {
                    since: now(),
                    ..FullStream::default()
                });
                full.is_damaged = matches!(pipelines, Err(LedgerError::Damaged(_)));
                // If they cannot be counted for another reason, the store has failed, which ends
                // the host.
                full.pipelines = pipelines.unwrap_or_default();
            } else {
                full.remove(stream);
            }
        }
        let described = describe(&status.borrow_and_update(), &full, now());
        let expiry = described.conditions.iter();
        let expiry = expiry.filter(|condition| condition.subject == EXPIRY);
        let expiry = expiry.map(|condition| condition.message.clone()).next();
        if let Some(message) = expiry.as_ref().filter(|_| expiry != logged) {
            tracing::warn!(source = name, "{message}");
        }
        logged = expiry;
        board.source(&name, |shown| *shown = described);
        tokio::select! {
            changed = status.changed() => if changed.is_err() {
                std::future::pending::<Infallible>().await;
            },
            _ = ticks.tick() => {}
        }
    }
}

/// The source as its reader left it.
pub(crate) fn finished(status: &ReaderStatus) -> SourceStatus {
    SourceStatus {
        state: crate::status::FINISHED.to_owned(),
        conditions: Vec::new(),
        ..describe(status, &BTreeMap::new(), now())
    }
}

/// A condition of a source whose credentials cannot be used at all.
pub(crate) fn without_credentials(
    message: String,
    since: Millis,
    next_attempt: Millis,
) -> SourceStatus {
    SourceStatus {
        state: "waiting for credentials".to_owned(),
        conditions: vec![ConditionStatus {
            kind: ConditionStatusKind::Credentials,
            subject: "credentials".to_owned(),
            message,
            since,
            next_attempt: Some(next_attempt),
            asked_by: None,
            not_ready_from: Some(since),
            stops: true,
        }],
        ..SourceStatus::default()
    }
}

/// A source that cannot be read as it is configured.
pub(crate) fn failed(message: String) -> SourceStatus {
    let since = now();
    SourceStatus {
        state: "failed".to_owned(),
        conditions: vec![ConditionStatus {
            kind: ConditionStatusKind::Start,
            subject: "source".to_owned(),
            message,
            since,
            next_attempt: None,
            asked_by: None,
            not_ready_from: Some(since),
            stops: true,
        }],
        ..SourceStatus::default()
    }
}

/// The configured pipelines that have not finished the oldest events of a stream.
async fn holders(store: &Store, stream: &str) -> Result<Vec<String>, LedgerError> {
    let readers = store.readers_of(stream);
    let (store, stream) = (store.clone(), stream.to_owned());
    blocking(move || {
        let reads = store.reads();
        let streams = reads.streams()?;
        let oldest = streams.iter().find(|found| found.name == stream);
        let oldest = oldest.map_or(1, |found| found.oldest);
        let block = reads.heads_at(&stream, oldest)?;
        let end = block.map_or(oldest, |(first, heads)| first + heads.len() as u64);
        let registered = reads.pipelines()?;
        let holds = |name: &&String| {
            let pipeline = registered.iter().find(|found| found.name == **name);
            let mut streams = pipeline.iter().flat_map(|found| &found.streams);
            let progress = streams.find(|(progress, _)| progress.stream == stream);
            // If it has not begun, it keeps every event until it has.
            progress.is_none_or(|(progress, is_read)| *is_read && progress.watermark < end)
        };
        Ok(readers.into_iter().filter(|name| holds(&name)).collect())
    })
    .await
}

fn describe(
    status: &ReaderStatus,
    full: &BTreeMap<String, FullStream>,
    now: Millis,
) -> SourceStatus {
    let reader = match status.reader {
        Some(ReaderKind::Export) => "by bulk export",
        Some(ReaderKind::Poll) => "by polling",
        None => "",
    };
    let figures = figures(status);
    let mut described = SourceStatus {
        state: match status.phase {
            Phase::Connecting => CONNECTING.to_owned(),
            Phase::CaughtUp if figures.is_complete(now) => format!("caught up, reading {reader}"),
            Phase::Reading | Phase::CaughtUp => format!("reading {reader}").trim_end().to_owned(),
        },
        conditions: conditions(status, full, now),
        reports: status.reports,
        losses: status.losses,
        last_loss: status.last_loss.clone(),
        last_report: status.last_report.clone().map(|message| Problem {
            at: status.last_report_at.unwrap_or_default(),
            message,
        }),
        reader: figures,
        ..SourceStatus::default()
    };
    if described.is_stopped() {
        described.state = "not reading".to_owned();
    }
    described
}

fn figures(status: &ReaderStatus) -> ReaderFigures {
    ReaderFigures {
        route: status.route.map(|route| route.name().to_owned()),
        cluster: status.cluster.clone(),
        server_version: status.server_version.clone(),
        reads_from: status.reads_from,
        credentials_from: status.credentials_from,
        credentials_until: status.credentials_until,
        audit_events: status.events - status.recorded_events,
        session_events: status.recorded_events,
        duplicates: status.duplicates,
        filtered: status.filtered,
        own_accesses: status.own_accesses,
        gaps_open: status.gaps_open,
        unreadable: status.unreadable,
        late: status.late,
        read_until: status.read_until,
        newest: status.newest,
        complete_at: status.complete_at,
        unanswered_since: status.unanswered_since,
        resumed_at: status.resumed_at,
        skew_ms: status.skew,
        recordings_pending: status.recordings_pending,
        recordings_failing: status.recordings_failing,
        recordings_done: status.recordings_done,
        recordings_lost: status.recordings_lost,
        locks: status.locks.as_ref().map(|locks| LockStatus {
            failed_logins: locks.failed_logins,
            unnamed: locks.unnamed,
            made: locks.made,
            kept: locks.kept,
            given_up: locks.given_up,
            last_given_up: locks.last_given_up.clone(),
            too_late: locks.too_late,
            pending: locks.pending,
            forgotten_users: locks.forgotten,
            made_at: locks.made_at,
        }),
    }
}

fn conditions(
    status: &ReaderStatus,
    full: &BTreeMap<String, FullStream>,
    now: Millis,
) -> Vec<ConditionStatus> {
    let places = status.failures.iter();
    let mut conditions: Vec<ConditionStatus> = places
        .filter_map(|(place, failure)| condition(place, failure, status))
        .collect();
    conditions.extend(full.iter().map(|(stream, full)| at_its_limit(stream, full)));
    conditions.extend(recordings(status));
    conditions.extend(expiry(status, now));
    conditions.sort_by_key(|condition| {
        (
            condition.kind != ConditionStatusKind::Connection,
            condition.since,
        )
    });
    conditions
}

/// `None`: [`recordings`] makes one condition for all of its kind.
fn condition(
    place: &str,
    failure: &SourceFailure,
    status: &ReaderStatus,
) -> Option<ConditionStatus> {
    let since = failure.since;
    let (kind, not_ready_from) = match failure.kind {
        FailureKind::Connection => (ConditionStatusKind::Connection, Some(since)),
        // Those before stay in use.
        FailureKind::Credentials => (
            ConditionStatusKind::Credentials,
            Some(status.credentials_until.unwrap_or(since)),
        ),
        FailureKind::Log | FailureKind::Chunk => (ConditionStatusKind::Reading, Some(since)),
        FailureKind::Sweep => (
            ConditionStatusKind::Reading,
            Some(since + PART_TOLERATED_MS),
        ),
        FailureKind::Recordings => return None,
        FailureKind::Locks => (ConditionStatusKind::Locks, Some(since + PART_TOLERATED_MS)),
        // It keeps nothing from being read.
        FailureKind::Clock => (ConditionStatusKind::Clock, None),
    };
    Some(ConditionStatus {
        kind,
        subject: place.to_owned(),
        message: failure.message.clone(),
        since,
        next_attempt: failure.next_attempt,
        asked_by: None,
        not_ready_from,
        stops: failure.kind.stops_the_log(),
    })
}

fn at_its_limit(stream: &str, full: &FullStream) -> ConditionStatus {
    let who = match full.pipelines.as_slice() {
        [] => "a pipeline".to_owned(),
        names => format!("`{}`", names.join("`, `")),
    };
    let message = match full.is_damaged {
        true => "the stream is at its retention limit, and its oldest block is damaged: reading \
                 waits, for every pipeline, until the block is repaired. Stop the host and run \
                 `lockgate store repair`, or raise `bytes` in `retain` of `[store]`"
            .to_owned(),
        false => format!(
            "the stream is at its retention limit: reading waits, for every pipeline, until {who} \
             has finished its oldest events. Repair what keeps it, or raise `bytes` in `retain` of \
             `[store]`"
        ),
    };
    ConditionStatus {
        kind: ConditionStatusKind::Retention,
        subject: stream.to_owned(),
        message,
        since: full.since,
        next_attempt: None,
        asked_by: None,
        not_ready_from: Some(full.since),
        stops: stream.ends_with("/audit"),
    }
}

/// One condition for all recordings that fail: there may be many.
fn recordings(status: &ReaderStatus) -> Option<ConditionStatus> {
    let failures = status.failures.values();
    let failures = failures.filter(|failure| failure.kind == FailureKind::Recordings);
    let first = failures.clone().min_by_key(|failure| failure.since)?;
    let count = status
        .recordings_failing
        .max(failures.clone().count() as u64);
    let message = match count {
        1 => first.message.clone(),
        _ => format!(
            "{count} recordings cannot be read; of the first, {}",
            first.message
        ),
    };
    Some(ConditionStatus {
        kind: ConditionStatusKind::Recordings,
        subject: "recordings".to_owned(),
        message,
        since: first.since,
        next_attempt: failures.filter_map(|failure| failure.next_attempt).min(),
        asked_by: None,
        not_ready_from: Some(first.since + PART_TOLERATED_MS),
        stops: false,
    })
}

/// The credentials expire soon, or have expired.
fn expiry(status: &ReaderStatus, now: Millis) -> Option<ConditionStatus> {
    let until = status.credentials_until?;
    let validity = Validity {
        not_before: status.credentials_from.unwrap_or(until),
        not_after: until,
    };
    let soon_from = validity.expires_soon_from();
    let (verb, what, since) = if until <= now {
        let what = "no new connection to Teleport can be made with them";
        ("expired", what, until)
    } else {
        let what = "from then on no new connection to Teleport can be made";
        ("expire", what, soon_from)
    };
    (soon_from <= now).then(|| ConditionStatus {
        kind: ConditionStatusKind::Credentials,
        subject: EXPIRY.to_owned(),
        message: format!(
            "the credentials {verb} at {}; {what}. Renew them: the host takes the new ones \
             without a restart",
            lockgate_teleport::rfc3339(until)
        ),
        since,
        next_attempt: None,
        asked_by: None,
        not_ready_from: Some(until),
        stops: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Millis = 24 * 3_600_000;

    fn shown(status: &ReaderStatus, now: Millis) -> Vec<(&'static str, bool)> {
        let conditions = conditions(status, &BTreeMap::new(), now);
        let unready = |condition: &ConditionStatus| condition.makes_unready(now);
        let shown = |condition: &ConditionStatus| (condition.kind.name(), unready(condition));
        conditions.iter().map(shown).collect()
    }

    #[test]
    fn credentials_are_shown_before_they_expire_and_make_unready_once_they_have() {
        for (lifetime, left, expected) in [
            (365 * DAY, 8 * DAY, &[][..]),
            (365 * DAY, 6 * DAY, &[("credentials", false)]),
            (365 * DAY, 0, &[("credentials", true)]),
            // Machine ID renews the credentials of an hour after 20 minutes.
            (3_600_000, 40 * 60_000, &[]),
            (3_600_000, 10 * 60_000, &[("credentials", false)]),
        ] {
            let status = ReaderStatus {
                credentials_from: Some(1_000 * DAY - lifetime),
                credentials_until: Some(1_000 * DAY),
                ..ReaderStatus::default()
            };
            assert_eq!(
                shown(&status, 1_000 * DAY - left),
                expected,
                "{lifetime} {left}"
            );
        }
    }

    /// It was that of the time in which they should have been renewed.
    #[test]
    fn expired_credentials_are_a_condition_since_they_expired() {
        let status = ReaderStatus {
            credentials_from: Some(0),
            credentials_until: Some(365 * DAY),
            ..ReaderStatus::default()
        };
        let since = |now| expiry(&status, now).map(|condition| condition.since);
        assert_eq!(since(364 * DAY), Some(358 * DAY));
        assert_eq!(since(369 * DAY), Some(365 * DAY));
    }

    #[test]
    fn recordings_that_fail_are_one_condition_and_make_unready_after_a_while() {
        let failure = |kind, since| SourceFailure {
            kind,
            message: "not found".to_owned(),
            since,
            next_attempt: Some(since + 5),
        };
        let mut status = ReaderStatus::default();
        for (place, since) in [("session/a", 7), ("session/b", 9)] {
            let failure = failure(FailureKind::Recordings, since);
            status.failures.insert(place.to_owned(), failure);
        }
        assert_eq!(shown(&status, 10), [("recordings", false)]);
        assert_eq!(
            shown(&status, 7 + PART_TOLERATED_MS),
            [("recordings", true)]
        );
        let clock = failure(FailureKind::Clock, 0);
        status.failures.insert("clock".to_owned(), clock);
        let later = shown(&status, 2 * PART_TOLERATED_MS);
        assert_eq!(later, [("clock", false), ("recordings", true)]);
    }

    #[test]
    fn what_waits_at_teleport_is_unknown_while_its_source_is_not_read() {
        let mut status = ReaderStatus {
            phase: Phase::CaughtUp,
            reader: Some(ReaderKind::Poll),
            complete_at: Some(100_000),
            newest: Some(90_000),
            read_until: Some(90_000),
            ..ReaderStatus::default()
        };
        let board = Board::new(5);
        let shown = |status: &ReaderStatus, now| {
            board.source("teleport", |source| {
                *source = describe(status, &BTreeMap::new(), now);
            });
            let source = board.snapshot(now).sources["teleport"].clone();
            (source.state, source.behind_seconds, source.unknown_since)
        };
        let caught_up = || "caught up, reading by polling".to_owned();
        let reading = || "reading by polling".to_owned();
        assert_eq!(shown(&status, 101_000), (caught_up(), Some(0.0), None));
        // A search is not answered.
        status.unanswered_since = Some(101_000);
        let unknown = (reading(), Some(0.0), Some(100_000));
        assert_eq!(shown(&status, 111_000), unknown);
        status.unanswered_since = None;
        status.failures.insert(
            "connection".to_owned(),
            SourceFailure {
                kind: FailureKind::Connection,
                message: "refused".to_owned(),
                since: 102_000,
                next_attempt: None,
            },
        );
        let not_reading = ("not reading".to_owned(), None, Some(100_000));
        assert_eq!(shown(&status, 103_000), not_reading);
        // It is reached again, and what came meanwhile is not known yet.
        status.failures.clear();
        status.resumed_at = Some(104_000);
        let reading_again = (reading(), Some(0.0), Some(100_000));
        assert_eq!(shown(&status, 105_000), reading_again);
        status.complete_at = Some(106_000);
        assert_eq!(shown(&status, 107_000), (caught_up(), Some(0.0), None));
        // Behind.
        status.newest = Some(400_000);
        assert_eq!(shown(&status, 900_000), (reading(), Some(310.0), None));
        // Bulk export does not say how much is left.
        status.read_until = None;
        assert_eq!(shown(&status, 900_000), (reading(), None, Some(106_000)));
    }

    /// Every pipeline had finished it, and the condition blamed "a pipeline".
    #[test]
    fn a_stream_that_is_full_behind_a_damaged_block_names_the_repair() {
        let full = FullStream {
            is_damaged: true,
            ..FullStream::default()
        };
        let message = at_its_limit("teleport/audit", &full).message;
        assert!(message.contains("`lockgate store repair`"), "{message}");
        assert!(!message.contains("has finished"), "{message}");
    }
}
