//! Runs that end once everything has been read, one after the other: gaps are tried again, and late
//! events are found, although such runs never rest.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use lockgate_model::{Day, FeedKind, Millis};
use lockgate_teleport::proto::auditlog::EventUnstructured;
use lockgate_teleport::{ReaderKind, Sweep};
use tonic::Status;

use crate::fake::{Chunk, Fake, Script, Search, event, search, time_of};
use crate::fixture::{DAY, Fixture, NOW};
use crate::intake::MemoryIntake;

const MINUTE: Millis = 60_000;
const HOUR: Millis = 60 * MINUTE;

fn instant(time: Option<prost_types::Timestamp>) -> Millis {
    let time = time.unwrap_or_default();
    time.seconds * 1000 + i64::from(time.nanos) / 1_000_000
}

/// Refuses each search that touches this stretch, until it is repaired.
fn refuses(stretch: RangeInclusive<Millis>, is_repaired: Arc<AtomicBool>) -> Search {
    Box::new(move |request, events, calls| {
        let (from, to) = (instant(request.start_date), instant(request.end_date));
        let touches = from <= *stretch.end() && *stretch.start() <= to;
        match touches && !is_repaired.load(Ordering::SeqCst) {
            true => Err(Status::internal("the partition cannot be read")),
            false => Ok(search(request, events, calls)),
        }
    })
}

/// Ten events, a minute apart, two days ago.
fn log() -> Vec<EventUnstructured> {
    let begin = NOW - 2 * DAY;
    (0..10)
        .map(|at| event(&format!("e{at}"), "user.login", begin + at * MINUTE, 0, &[]))
        .collect()
}

struct Damaged {
    fixture: Fixture,
    fake: Fake,
    intake: Arc<MemoryIntake>,
    is_repaired: Arc<AtomicBool>,
}

impl Damaged {
    /// Two of the events cannot be read, and are on the books after a first run.
    async fn polled() -> Damaged {
        let events = log();
        let is_repaired = Arc::new(AtomicBool::new(false));
        let stretch = time_of(&events[4])..=time_of(&events[5]);
        let mut fixture = Fixture::new();
        let script = Script {
            search: refuses(stretch, is_repaired.clone()),
            events,
            ..Script::default()
        };
        let fake = Fake::start(&fixture.authority, script).await;
        fixture.settings.address = fake.address.to_string();
        fixture.settings.start_time = Some(NOW - 3 * DAY);
        let damaged = Damaged {
            fixture,
            fake,
            intake: MemoryIntake::new(),
            is_repaired,
        };
        let status = damaged.fixture.read(&damaged.intake).await;
        assert_eq!((status.gaps_open, status.reports), (1, 1), "{status:?}");
        damaged
    }

    /// From now on the log is exported, with one more event.
    fn exports(&self) {
        let later = event("later", "user.login", NOW - MINUTE, 0, &[]);
        let chunk = Chunk {
            events: vec![later],
            ..Chunk::default()
        };
        let date = Day::of(NOW).to_string();
        let chunks = [(date, [("c".to_owned(), chunk)].into())];
        self.fake.script().chunks = Some(chunks.into());
    }

    fn assert_has(&self, later: &[&str]) {
        let keys = log().into_iter().map(|event| event.id);
        let keys = keys.chain(later.iter().map(|&key| key.to_owned()));
        self.intake.assert_each_once(FeedKind::Audit, keys);
    }
}

/// Gaps were tried again only while a run rests, which those of a timer never do.
#[tokio::test]
async fn each_run_tries_an_open_gap_once() {
    let damaged = Damaged::polled().await;
    let attempts = || damaged.intake.gaps()[0].attempts;
    // When it was found, and at the end of that run.
    assert_eq!(attempts(), 2);
    let status = damaged.fixture.read(&damaged.intake).await;
    assert_eq!((status.gaps_open, attempts()), (1, 3), "{status:?}");
    assert!(status.failures.is_empty(), "{status:?}");
    damaged.is_repaired.store(true, Ordering::SeqCst);
    let status = damaged.fixture.read(&damaged.intake).await;
    assert_eq!(status.gaps_open, 0, "{status:?}");
    damaged.assert_has(&[]);
    assert_eq!(damaged.intake.gaps()[0].state.events(), 2);
}

/// Nobody tried them again once the log was exported.
#[tokio::test]
async fn gaps_of_polling_are_tried_beside_an_export_too() {
    for ends in [true, false] {
        let mut damaged = Damaged::polled().await;
        damaged.exports();
        damaged.fixture.settings.exit_on_last_event = ends;
        if ends {
            let status = damaged.fixture.read(&damaged.intake).await;
            assert_eq!(status.reader, Some(ReaderKind::Export));
            assert_eq!((status.gaps_open, status.failures.len()), (1, 0));
            assert_eq!(damaged.intake.gaps()[0].attempts, 3);
            damaged.is_repaired.store(true, Ordering::SeqCst);
            damaged.fixture.read(&damaged.intake).await;
        } else {
            let resume = damaged.intake.resume();
            let running = damaged.fixture.start(resume, &damaged.intake);
            let tried = |attempts| {
                damaged.intake.holds(move |contents| {
                    contents.gaps.values().all(|gap| gap.attempts > attempts)
                })
            };
            tried(4).await;
            damaged.is_repaired.store(true, Ordering::SeqCst);
            let closed = damaged
                .intake
                .holds(|contents| !contents.gaps.values().any(|gap| gap.is_open()));
            closed.await;
            damaged
                .intake
                .holds(|contents| contents.events.iter().any(|event| event.key == "later"))
                .await;
            running.stop().await;
        }
        damaged.assert_has(&["later"]);
        assert_eq!(damaged.intake.gaps()[0].state.events(), 2);
    }
}

/// Its events are before the time from which polling goes on.
#[tokio::test]
async fn a_gap_from_before_an_export_is_read_when_the_log_is_polled_again() {
    let damaged = Damaged::polled().await;
    damaged.exports();
    damaged.fixture.read(&damaged.intake).await;
    {
        let mut script = damaged.fake.script();
        script.chunks = None;
        let later = event("later", "user.login", NOW - MINUTE, 0, &[]);
        script.events.push(later);
    }
    damaged.is_repaired.store(true, Ordering::SeqCst);
    let status = damaged.fixture.read(&damaged.intake).await;
    assert_eq!(status.reader, Some(ReaderKind::Poll));
    assert_eq!(status.gaps_open, 0, "{status:?}");
    damaged.assert_has(&["later"]);
}

/// Such runs found no late events but those of the last seconds.
#[tokio::test]
async fn late_events_are_looked_for_when_that_is_due_and_not_in_each_run() {
    let mut fixture = Fixture::new();
    let script = Script {
        events: vec![event("newest", "user.login", NOW - 1000, 0, &[])],
        ..Script::default()
    };
    let fake = Fake::start(&fixture.authority, script).await;
    fixture.settings.address = fake.address.to_string();
    fixture.settings.start_time = Some(NOW - 7 * DAY);
    fixture.settings.limits.sweeps = Sweep::stretches(std::time::Duration::from_secs(300), true);
    let intake = MemoryIntake::new();
    let late = |name: &str, ago: Millis| event(name, "user.login", NOW - ago, 0, &[]);
    let run = async |advance: Millis, expected: &[&str]| {
        fixture.clock.advance(advance);
        let before = fake.script().searches.len();
        fixture.read(&intake).await;
        intake.assert_each_once(FeedKind::Audit, expected.iter().map(|&key| key.to_owned()));
        // How far back it has looked.
        let script = fake.script();
        let searches = script.searches[before..].iter();
        let windows = searches.filter(|request| request.order == 0);
        let from = windows.map(|request| instant(request.start_date)).min();
        NOW - from.expect("a search")
    };
    assert!(run(0, &["newest"]).await >= 47 * HOUR);
    fake.script().events.push(late("minutes", 4 * MINUTE));
    fake.script().events.push(late("half-an-hour", 30 * MINUTE));
    fake.script().events.push(late("a-day", 30 * HOUR));
    let far = run(5 * MINUTE, &["newest", "minutes"]).await;
    assert!(far < 10 * MINUTE, "{far}");
    let far = run(6 * MINUTE, &["newest", "minutes", "half-an-hour"]).await;
    assert!(far < 2 * HOUR, "{far}");
    let all = ["newest", "minutes", "half-an-hour", "a-day"];
    run(DAY, &all).await;
    // A clock that was ahead when this was stored does not put it off for long.
    let cursors = intake.resume().cursors;
    assert!(cursors.contains_key("poll/sweep-due/3600"), "{cursors:?}");
    fixture.clock.advance(-30 * DAY);
    fake.script().events.push(late("another", 20 * MINUTE));
    fixture.read(&intake).await;
    assert_eq!(intake.keys(FeedKind::Audit).len(), all.len() + 1);
}
