//! Polling while clocks are wrong, and events become visible late.

use std::sync::Arc;
use std::time::Duration;

use lockgate_model::{FeedKind, Millis};
use lockgate_teleport::{Clock, LockSettings, ReaderStatus, Resume, SourceLimits};
use tonic::Status;

use crate::fake::{Fake, Planned, Script, event, file_backend, growing};
use crate::fixture::{DAY, Fixture, NOW, Running, SimulatedClock};
use crate::intake::MemoryIntake;
use crate::locks::login_at;

const SECOND: Millis = 1_000;
const MINUTE: Millis = 60_000;
const HOUR: Millis = 3_600_000;

/// An event by the clock of Teleport, which is ahead by `skew`.
fn planned(name: &str, at: Millis, late: Millis, skew: Millis) -> Planned {
    Planned {
        visible: NOW + at + late,
        event: event(name, "user.login", NOW + at + skew, 0, &[]),
    }
}

/// An event every so often.
fn regular(count: i64, every: Millis, late: Millis, skew: Millis) -> Vec<Planned> {
    (1..=count)
        .map(|nth| planned(&format!("e{nth}"), nth * every, late, skew))
        .collect()
}

/// A source with the default limits and a simulated clock.
struct Simulated {
    fixture: Fixture,
    clock: Arc<SimulatedClock>,
    intake: Arc<MemoryIntake>,
    fake: Fake,
    expected: Vec<String>,
}

impl Simulated {
    async fn new(plan: Vec<Planned>) -> Simulated {
        let mut fixture = Fixture::new();
        let clock = SimulatedClock::new();
        let expected = plan
            .iter()
            .map(|planned| planned.event.id.clone())
            .collect();
        let script = Script {
            search: growing(clock.clone(), plan, 50),
            ..Script::default()
        };
        let fake = Fake::start(&fixture.authority, script).await;
        fixture.settings.address = fake.address.to_string();
        fixture.settings.start_time = Some(NOW - 3 * DAY);
        fixture.settings.exit_on_last_event = false;
        fixture.settings.limits = SourceLimits::default();
        fixture.settings.clock = clock.clone();
        Simulated {
            fixture,
            clock,
            intake: MemoryIntake::new(),
            fake,
            expected,
        }
    }

    fn start(&self) -> Running {
        self.fixture.start(self.intake.resume(), &self.intake)
    }

    /// All events are there at this time, each once.
    async fn has_all_at(&self, at: Millis) {
        self.clock.reaches(NOW + at).await;
        self.intake
            .assert_each_once(FeedKind::Audit, self.expected.iter().cloned());
    }
}

#[tokio::test]
async fn events_are_read_in_time_and_once_whichever_clock_is_wrong() {
    // By how much the local clock is ahead, and by how much all events are late.
    for (wrong_by, late, shown) in [
        (0, 0, ""),
        (20 * SECOND, 0, "20 s behind"),
        (MINUTE, 0, "60 s behind"),
        (HOUR, 0, "3600 s behind"),
        (3 * DAY, 0, "s behind"),
        (-MINUTE, 0, "55 s ahead of"),
        (-HOUR, 0, "3595 s ahead of"),
        (-3 * DAY, 0, "s ahead of"),
        // The clock of an agent is slow.
        (0, 40 * SECOND, "s behind"),
    ] {
        let simulated = Simulated::new(regular(60, 10 * SECOND, late, 0)).await;
        simulated.clock.set_wrong_by(wrong_by);
        let mut running = simulated.start();
        simulated
            .has_all_at(600 * SECOND + late + 90 * SECOND)
            .await;
        let status = running.shows(|status| status.skew.is_some()).await;
        let failure = status.failures.get("clock");
        let failure = failure.map_or("", |failure| &*failure.message);
        assert_eq!(
            shown.is_empty(),
            failure.is_empty(),
            "{wrong_by}: {failure}"
        );
        let side = shown.split(' ').next_back().expect("a word");
        assert!(failure.contains(side), "{wrong_by}: {failure}");
        assert_eq!(status.reports, 0);
        running.stop().await;
    }
}

#[tokio::test]
async fn users_are_locked_by_teleports_clock_whichever_is_wrong() {
    // By how much the local clock is ahead.
    for wrong_by in [0, HOUR, -HOUR] {
        let mut plan = regular(60, 10 * SECOND, 0, 0);
        let begin = NOW + 400 * SECOND;
        for nth in 0..3 {
            let time = begin + nth * SECOND;
            plan.push(Planned {
                visible: time,
                event: login_at(&format!("failed-{nth}"), "ann", time, false),
            });
        }
        let mut simulated = Simulated::new(plan).await;
        simulated.fixture.settings.locks = Some(LockSettings {
            failed_logins: 3,
            period: Duration::from_secs(60),
            duration: Some(Duration::from_secs(600)),
        });
        simulated.clock.set_wrong_by(wrong_by);
        let mut running = simulated.start();
        running
            .shows(|status| status.locks.as_ref().is_some_and(|locks| locks.made == 1))
            .await;
        let lock = simulated.fake.script().made_locks[0].clone();
        let expires = lock.spec.unwrap().expires.unwrap().seconds * 1000;
        // Half a minute for what was read late.
        let expected = begin + 600 * SECOND..=begin + 630 * SECOND;
        assert!(
            expected.contains(&expires),
            "{wrong_by}: {}",
            expires - begin
        );
        running.stop().await;
    }
}

#[tokio::test]
async fn a_difference_of_the_clocks_is_shown_as_it_is_now() {
    let simulated = Simulated::new(regular(120, 10 * SECOND, 0, 0)).await;
    simulated.clock.set_wrong_by(-HOUR);
    let mut running = simulated.start();
    simulated.clock.reaches(NOW + 600 * SECOND).await;
    let shows = |minutes: Millis| {
        move |status: &ReaderStatus| {
            let failure = status.failures.get("clock");
            let skew = status.skew.unwrap_or_default();
            skew / MINUTE == minutes - 1
                && failure.is_some_and(|failure| {
                    failure
                        .message
                        .contains(&format!(" {} s ahead", skew / 1000))
                })
        }
    };
    let since = running.shows(shows(60)).await.failures["clock"].since;
    simulated.clock.set_wrong_by(-30 * MINUTE);
    simulated.has_all_at(1_300 * SECOND).await;
    let status = running.shows(shows(30)).await;
    assert_eq!(
        status.failures["clock"].since, since,
        "it is the same failure"
    );
    running.stop().await;
}

#[tokio::test]
async fn a_clock_that_jumps_neither_stops_reading_nor_skips_anything() {
    for (jump, is_restarted) in [
        (2 * DAY, false),
        (2 * DAY, true),
        (-2 * DAY, false),
        (-2 * DAY, true),
    ] {
        let simulated = Simulated::new(regular(100, 10 * SECOND, 0, 0)).await;
        let mut running = simulated.start();
        for (at, wrong_by) in [(200, jump), (400, 0), (600, jump), (610, 0)] {
            simulated.clock.reaches(NOW + at * SECOND).await;
            simulated.clock.set_wrong_by(wrong_by);
            if is_restarted {
                running.stop().await;
                running = simulated.start();
            }
        }
        simulated.has_all_at(1_030 * SECOND).await;
        running.stop().await;
    }
}

#[tokio::test]
async fn a_stored_position_in_the_future_is_pulled_back_and_reported_once() {
    let simulated = Simulated::new(regular(60, 10 * SECOND, 0, 0)).await;
    let running = simulated.start();
    simulated.clock.reaches(NOW + 200 * SECOND).await;
    running.stop().await;
    // As an earlier release left it after a jump of the clock.
    let mut resume = simulated.intake.resume();
    let future = "2026-01-10T12:00:00Z";
    resume.cursors.insert("poll/until".into(), future.into());
    let running = simulated.fixture.start(resume, &simulated.intake);
    simulated.clock.reaches(NOW + 400 * SECOND).await;
    let status = running.status.borrow().clone();
    assert_eq!(status.reports, 1);
    let report = status.last_report.expect("a report");
    assert!(
        report.contains(future) && report.contains("lies in the future"),
        "{report}"
    );
    running.stop().await;
    let running = simulated.start();
    simulated.has_all_at(620 * SECOND).await;
    assert_eq!(running.status.borrow().reports, 0);
    running.stop().await;
}

#[tokio::test]
async fn an_event_with_a_time_in_the_future_does_not_carry_the_position_with_it() {
    let mut plan = regular(60, 10 * SECOND, 0, 0);
    plan.push(planned("in an hour", 100 * SECOND, 0, HOUR));
    plan.push(planned("in a week", 105 * SECOND, 0, 7 * DAY));
    let simulated = Simulated::new(plan).await;
    let running = simulated.start();
    simulated.has_all_at(630 * SECOND).await;
    let until = running.status.borrow().read_until.expect("it is read");
    assert!((NOW + 590 * SECOND..=simulated.clock.now()).contains(&until));
    running.stop().await;
}

/// After a restart, its times were those of every block, and so believed.
#[tokio::test]
async fn one_agent_that_is_always_ahead_does_not_carry_the_position_with_it() {
    let mut plan = regular(1_200, SECOND / 2, 0, 0);
    for nth in 1..=200 {
        let at = nth * 3 * SECOND;
        plan.push(planned(&format!("ahead {nth}"), at, 0, 2 * HOUR));
    }
    let simulated = Simulated::new(plan).await;
    let mut running = simulated.start();
    for at in [200, 400] {
        simulated.clock.reaches(NOW + at * SECOND).await;
        let until = running.status.borrow().read_until.expect("it is read");
        assert!(until <= simulated.clock.now(), "{until}");
        running.stop().await;
        running = simulated.start();
    }
    simulated.has_all_at(630 * SECOND).await;
    let skewed = running.status.borrow().failures.get("clock").cloned();
    assert_eq!(skewed, None, "both clocks are right");
    running.stop().await;
}

/// Its time was stored as the start, and the events of the next hour were before it.
#[tokio::test]
async fn a_first_start_without_a_start_time_misses_nothing_while_the_clock_is_ahead() {
    for before in [None, Some(-20 * SECOND), Some(-2 * HOUR)] {
        let mut plan = regular(60, 10 * SECOND, 0, 0);
        plan.extend(before.map(|at| planned("before", at, 0, 0)));
        let mut simulated = Simulated::new(plan).await;
        simulated.fixture.settings.start_time = None;
        simulated.clock.set_wrong_by(HOUR);
        let running = simulated.start();
        simulated.clock.reaches(NOW + 100 * SECOND).await;
        running.stop().await;
        let running = simulated.start();
        simulated.has_all_at(690 * SECOND).await;
        running.stop().await;
    }
}

/// They would seem to be new.
#[tokio::test]
async fn what_retention_has_removed_is_not_read_again_after_a_restart() {
    let simulated = Simulated::new(regular(61, 10 * SECOND, 0, 0)).await;
    let running = simulated.start();
    simulated.clock.reaches(NOW + 605 * SECOND).await;
    running.stop().await;
    let read = simulated.intake.keys(FeedKind::Audit);
    assert_eq!(read.len(), 60);
    simulated.intake.remove_all();
    let running = simulated.start();
    simulated.clock.reaches(NOW + 2 * HOUR).await;
    // Others of the time of the last event may be new.
    assert_eq!(simulated.intake.keys(FeedKind::Audit), ["e60", "e61"]);
    running.stop().await;
}

/// A sweep tried again for ever, and the log waited for it.
#[tokio::test]
async fn a_sweep_that_gets_no_answer_does_not_hold_up_the_log() {
    let mut simulated = Simulated::new(regular(100, 10 * SECOND, 0, 0)).await;
    let clock = simulated.clock.clone();
    let mut answers = std::mem::replace(&mut simulated.fake.script().search, file_backend());
    simulated.fake.script().search = Box::new(move |request, events, calls| {
        let from = request.start_date.map_or(0, |from| from.seconds * 1000);
        if clock.now() > NOW + 300 * SECOND && from < clock.now() - HOUR {
            clock.pass(50);
            return Err(Status::unavailable("too much to search"));
        }
        answers(request, events, calls)
    });
    simulated.fixture.settings.start_time = Some(NOW - 2 * HOUR);
    let running = simulated.start();
    simulated.clock.reaches(NOW + 350 * SECOND).await;
    running.stop().await;
    let mut running = simulated.start();
    simulated.has_all_at(1_030 * SECOND).await;
    let is_sweep = |place: &String| place.starts_with("sweep of");
    running
        .shows(|status| status.failures.keys().any(is_sweep))
        .await;
    running.stop().await;
}

#[tokio::test]
async fn a_server_that_limits_requests_is_asked_again_and_nothing_is_skipped() {
    let simulated = Simulated::new(regular(100, 10 * SECOND, 0, 0)).await;
    let clock = simulated.clock.clone();
    let mut answers = std::mem::replace(&mut simulated.fake.script().search, file_backend());
    let mut calls_so_far = 0;
    simulated.fake.script().search = Box::new(move |request, events, calls| {
        calls_so_far += 1;
        let is_busy = (NOW + 200 * SECOND..NOW + 400 * SECOND).contains(&clock.time());
        if is_busy && calls_so_far % 8 != 0 {
            clock.pass(50);
            return Err(Status::resource_exhausted("rate limit exceeded"));
        }
        answers(request, events, calls)
    });
    let mut running = simulated.start();
    simulated.has_all_at(1_030 * SECOND).await;
    let status = running.shows(|status| status.failures.is_empty()).await;
    assert_eq!(status.reports, 0, "{status:?}");
    running.stop().await;
}

#[tokio::test]
async fn an_event_that_becomes_visible_long_after_its_time_is_found() {
    for (late, within) in [
        (4 * MINUTE, 40 * SECOND),
        (50 * MINUTE, 11 * MINUTE),
        (3 * HOUR, 25 * HOUR),
        (22 * HOUR, 25 * HOUR),
    ] {
        let mut plan = regular(30, late / 20, 0, 0);
        plan.push(planned("late", late / 4, late, 0));
        let mut simulated = Simulated::new(plan).await;
        // Long between the rounds: the test is about the sweeps.
        let poll = (late / 60).max(MINUTE);
        let limits = &mut simulated.fixture.settings.limits;
        limits.poll = Duration::from_millis(poll as u64);
        limits.reread = limits.poll / 2;
        let running = simulated.start();
        simulated
            .has_all_at(late / 4 + late + within + 2 * poll)
            .await;
        assert_eq!(running.status.borrow().late, 1, "{late}");
        running.stop().await;
    }
}

/// Each of its windows cost fourteen.
#[tokio::test]
async fn a_start_time_long_before_the_first_event_costs_few_requests() {
    for (days, most) in [(1, 12), (30, 24), (365, 72), (6 * 365, 310)] {
        let mut simulated = Simulated::new(regular(3, 10 * SECOND, 0, 0)).await;
        simulated.fixture.settings.start_time = Some(NOW - days * DAY);
        let running = simulated
            .fixture
            .start(Resume::default(), &simulated.intake);
        simulated.has_all_at(MINUTE).await;
        running.stop().await;
        let script = simulated.fake.script();
        let until = |time: Option<prost_types::Timestamp>| time.expect("a time").seconds * 1000;
        let is_before = |until: Millis| until < NOW - 2 * SECOND;
        let of_the_past = script
            .searches
            .iter()
            .filter(|search| is_before(until(search.end_date)));
        let requests = of_the_past.count();
        assert!(requests <= most, "{days} days: {requests}");
        println!("{days} days without events: {requests} requests");
    }
}
