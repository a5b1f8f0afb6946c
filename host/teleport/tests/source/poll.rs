//! Reading by polling.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lockgate_backoff::Random;
use lockgate_model::{FeedKind, Millis};
use lockgate_teleport::proto::auditlog::{EventUnstructured, GetUnstructuredEventsRequest};
use lockgate_teleport::{Phase, ReaderKind};
use tonic::{Code, Status};

use crate::fake::{Fake, PAGE_BYTES, Script, event, file_backend, search, time_of};
use crate::fixture::{DAY, Fixture, NOW};
use crate::intake::MemoryIntake;

/// Events over the last days. `ties` events share each time, in no key order.
fn log(count: usize, ties: usize) -> Vec<EventUnstructured> {
    (0..count)
        .map(|at| {
            let time = NOW - 3 * DAY + (at / ties) as Millis * 2 * DAY / (count / ties) as Millis;
            event(
                &format!("e{:x}", at * 7919 % 65_536),
                "user.login",
                time,
                0,
                &[],
            )
        })
        .collect()
}

fn keys(events: &[EventUnstructured]) -> Vec<String> {
    events.iter().map(|event| event.id.clone()).collect()
}

async fn fixture(script: Script) -> (Fixture, Fake) {
    let mut fixture = Fixture::new();
    let fake = Fake::start(&fixture.authority, script).await;
    fixture.settings.address = fake.address.to_string();
    fixture.settings.start_time = Some(NOW - 3 * DAY);
    fixture.settings.limits.page = 20;
    (fixture, fake)
}

fn with_events(events: Vec<EventUnstructured>) -> Script {
    Script {
        events,
        ..Script::default()
    }
}

#[tokio::test]
async fn every_event_comes_once_although_equal_times_change_their_order() {
    for ties in [1, 7] {
        let events = log(1_001, ties);
        let expected = keys(&events);
        let (fixture, fake) = fixture(with_events(events)).await;
        let intake = MemoryIntake::new();
        let status = fixture.read(&intake).await;
        assert_eq!(
            (status.reader, status.phase),
            (Some(ReaderKind::Poll), Phase::CaughtUp)
        );
        if ties == 1 {
            assert_eq!(intake.keys(FeedKind::Audit), expected, "oldest first");
        }
        intake.assert_each_once(FeedKind::Audit, expected);
        assert_eq!((status.reports, status.backwards), (0, 0));
        let script = fake.script();
        assert!(
            script
                .searches
                .iter()
                .all(|request| request.order == 0 || request.limit == 1)
        );
        let mut windows = script.searches.iter().filter(|request| request.order == 0);
        assert!(windows.all(|request| {
            let (from, to) = (
                request.start_date.expect("a start").seconds,
                request.end_date.expect("an end").seconds,
            );
            to - from <= 86_400 + 1
        }));
    }
}

#[tokio::test]
async fn a_log_that_grows_is_followed() {
    let (mut fixture, fake) = fixture(Script::default()).await;
    fixture.settings.exit_on_last_event = false;
    let intake = MemoryIntake::new();
    let mut running = fixture.start(intake.resume(), &intake);
    let mut total = 0;
    for more in [3, 2, 2, 45] {
        let now = lockgate_teleport::Clock::now(&*fixture.clock);
        fake.script().events.extend(
            (total..total + more).map(|at| event(&format!("e{at}"), "user.login", now, 0, &[])),
        );
        total += more;
        intake
            .holds(|contents| contents.events.len() == total)
            .await;
    }
    running
        .shows(|status| status.phase == Phase::CaughtUp)
        .await;
    running.stop().await;
    intake.assert_each_once(FeedKind::Audit, (0..total).map(|at| format!("e{at}")));
    assert!(
        intake.contents().duplicates > 0,
        "windows overlap, and duplicates are counted"
    );
}

#[tokio::test]
async fn an_event_that_arrives_late_is_found_in_the_overlap() {
    let (mut fixture, fake) = fixture(with_events(vec![event(
        "first",
        "user.login",
        NOW - 100,
        0,
        &[],
    )]))
    .await;
    fixture.settings.exit_on_last_event = false;
    fixture.settings.limits.reread = Duration::from_secs(600);
    let intake = MemoryIntake::new();
    let running = fixture.start(intake.resume(), &intake);
    intake.holds(|contents| contents.events.len() == 1).await;
    fake.script()
        .events
        .push(event("late", "user.login", NOW - 5_000, 0, &[]));
    intake.holds(|contents| contents.events.len() == 2).await;
    running.stop().await;
}

#[tokio::test]
async fn after_a_restart_nothing_is_lost_and_nothing_comes_twice() {
    let events = log(900, 3);
    let expected = keys(&events);
    let (fixture, _fake) = fixture(with_events(events)).await;
    let intake = MemoryIntake::with_room(470);
    let running = fixture.start(intake.resume(), &intake);
    intake.holds(|contents| contents.events.len() > 440).await;
    running.stop().await;
    intake.grow();
    let status = fixture.read(&intake).await;
    intake.assert_each_once(FeedKind::Audit, expected);
    assert!(status.events < 500, "it resumed and did not start over");
}

#[tokio::test]
async fn a_key_that_the_server_lost_loses_no_events() {
    // More events of the same time than fit into a page, so keys are followed.
    let text = "x".repeat(4_000);
    let events: Vec<_> = (0..120)
        .map(|at| {
            event(
                &format!("e{at}"),
                "user.login",
                NOW - DAY + at / 60 * 7_000,
                0,
                &[("name", &text)],
            )
        })
        .collect();
    let expected = keys(&events);
    // The server no longer knows one key: an empty page, without an error.
    let mut followed = 0;
    let forgetful = Box::new(
        move |request: &GetUnstructuredEventsRequest, events: &[EventUnstructured], _: usize| {
            followed += usize::from(!request.start_key.is_empty());
            Ok(if followed == 2 && !request.start_key.is_empty() {
                Default::default()
            } else {
                search(request, events, 0)
            })
        },
    );
    let (fixture, _fake) = fixture(Script {
        search: forgetful,
        ..with_events(events)
    })
    .await;
    let intake = MemoryIntake::new();
    let status = fixture.read(&intake).await;
    intake.assert_each_once(FeedKind::Audit, expected);
    assert_eq!(status.reports, 0);
}

#[tokio::test]
async fn an_event_larger_than_a_page_is_stepped_over_and_reported() {
    let big = "x".repeat(PAGE_BYTES);
    // In the middle of a window, at its beginning, and near the newest event; spread over days, and
    // within one minute.
    let minute: Vec<_> = (0..200)
        .map(|at| {
            event(
                &format!("m{at:03}"),
                "user.login",
                NOW - DAY + at * 300,
                0,
                &[],
            )
        })
        .collect();
    for (events, oversized) in [
        (log(200, 1), vec![77]),
        (log(200, 1), vec![0]),
        (minute.clone(), vec![66]),
        (minute, vec![150, 199]),
    ] {
        let mut events = events;
        for &at in &oversized {
            events[at] = event(
                &events[at].id,
                "user.login",
                time_of(&events[at]),
                0,
                &[("name", &big)],
            );
        }
        let expected: Vec<String> = events
            .iter()
            .enumerate()
            .filter(|(at, _)| !oversized.contains(at))
            .map(|(_, event)| event.id.clone())
            .collect();
        let (mut fixture, _fake) = fixture(with_events(events.clone())).await;
        fixture.settings.start_time = Some(NOW - 3 * DAY - 3_600_000);
        let intake = MemoryIntake::new();
        let status = fixture.read(&intake).await;
        assert_eq!(intake.keys(FeedKind::Audit), expected);
        assert_eq!(status.reports, oversized.len() as u64, "{status:?}");
        let report = status.last_report.expect("a report");
        assert!(
            report.contains("larger than a page") && report.contains("on the books as a gap"),
            "{report}"
        );
    }
}

#[tokio::test]
async fn events_between_several_that_are_larger_than_a_page_are_read() {
    let big = "x".repeat(PAGE_BYTES);
    for seed in 0..4 {
        let mut random = Random::seeded(seed);
        let mut time = NOW - DAY;
        let mut large = Vec::new();
        let events: Vec<_> = (0..120)
            .map(|nth| {
                time += 100 + (random.next_u64() % 500) as Millis;
                let id = format!("m{nth:03}");
                let is_large = (30..44).contains(&nth) && random.next_u64().is_multiple_of(2);
                large.extend(is_large.then(|| id.clone()));
                let name = if is_large { &big } else { "x" };
                event(&id, "user.login", time, 0, &[("name", name)])
            })
            .collect();
        let mut readable = keys(&events);
        readable.retain(|key| !large.contains(key));
        assert!(large.len() > 3, "seed {seed}");
        let (mut fixture, _fake) = fixture(with_events(events)).await;
        fixture.settings.exit_on_last_event = false;
        let intake = MemoryIntake::new();
        let running = fixture.start(intake.resume(), &intake);
        intake
            .holds(|contents| contents.events.len() == readable.len())
            .await;
        running.stop().await;
        intake.assert_each_once(FeedKind::Audit, readable);
        // What is larger than a page is still missing.
        let gaps = intake.gaps();
        assert!(gaps.iter().any(|gap| gap.is_open()), "{gaps:?}");
    }
}

/// Fails for every page that would contain this event, like a server that cannot convert it.
fn refuses(gone: String) -> crate::fake::Search {
    Box::new(move |request, events, calls| {
        let page = search(request, events, calls);
        match page.items.iter().any(|event| event.id == gone) {
            true => Err(Status::unknown(
                "events.UserLogin.Metadata: Index: readUint64: unexpected character",
            )),
            false => Ok(page),
        }
    })
}

#[tokio::test]
async fn only_the_event_that_the_server_cannot_convert_is_lost_and_it_is_reported() {
    for at in [0, 31, 199] {
        let events = log(200, 1);
        let mut expected = keys(&events);
        let gone = expected.remove(at);
        let lost = events[at].clone();
        let (fixture, _fake) = fixture(Script {
            search: refuses(gone),
            ..with_events(events)
        })
        .await;
        let intake = MemoryIntake::new();
        let status = fixture.read(&intake).await;
        assert_eq!(intake.keys(FeedKind::Audit), expected, "{at}");
        assert_eq!(status.reports, 1, "{status:?}");
        let report = status.last_report.expect("a report");
        assert!(
            report.contains("readUint64") && report.contains("on the books as a gap"),
            "{report}"
        );
        assert!(status.failures.is_empty());
        let gaps = intake.gaps();
        let lost = time_of(&lost);
        assert_eq!(
            (gaps.len(), gaps[0].from, gaps[0].to),
            (1, lost, lost),
            "{at}"
        );
    }
}

/// A server's answers for a window with a part of the log that it cannot read.
fn refuses_between(from: Millis, to: Millis, until: Arc<AtomicBool>) -> crate::fake::Search {
    Box::new(move |request, events, calls| {
        let time = |time: Option<prost_types::Timestamp>| {
            let time = time.expect("a time");
            time.seconds * 1000 + i64::from(time.nanos) / 1_000_000
        };
        let (begin, end) = (time(request.start_date), time(request.end_date));
        match until.load(Ordering::SeqCst) || end < from || begin > to {
            true => Ok(search(request, events, calls)),
            false => Err(Status::internal("the partition cannot be read")),
        }
    })
}

#[tokio::test]
async fn what_cannot_be_read_is_a_gap_as_small_as_it_is_and_is_closed_once_it_can_be_read() {
    let events = log(200, 1);
    let all = keys(&events);
    let (from, to) = (time_of(&events[50]) - 77, time_of(&events[60]) + 5);
    let is_repaired = Arc::new(AtomicBool::new(false));
    let (mut fixture, _fake) = fixture(Script {
        search: refuses_between(from, to, is_repaired.clone()),
        ..with_events(events)
    })
    .await;
    fixture.settings.exit_on_last_event = false;
    let intake = MemoryIntake::new();
    let mut running = fixture.start(intake.resume(), &intake);
    let rest = [&all[..50], &all[61..]].concat();
    intake
        .holds(|contents| contents.events.len() == rest.len())
        .await;
    intake.assert_each_once(FeedKind::Audit, rest.clone());
    running
        .shows(|status| status.gaps_open == 1 && status.failures.is_empty())
        .await;
    let gap = intake.gaps().remove(0);
    assert_eq!(
        (gap.from, gap.to, gap.is_open()),
        (from, to, true),
        "{gap:?}"
    );
    assert!(
        gap.error.contains("the partition cannot be read"),
        "{gap:?}"
    );
    // It is tried again, and known after a restart.
    intake
        .holds(|contents| contents.gaps.values().all(|gap| gap.attempts > 2))
        .await;
    running.stop().await;
    let mut running = fixture.start(intake.resume(), &intake);
    running
        .shows(|status| status.gaps_open == 1 && status.phase == Phase::CaughtUp)
        .await;
    assert_eq!(running.status.borrow().reports, 0, "it was reported before");
    intake.assert_each_once(FeedKind::Audit, rest);
    is_repaired.store(true, Ordering::SeqCst);
    running.shows(|status| status.gaps_open == 0).await;
    intake.assert_each_once(FeedKind::Audit, all);
    let gap = intake.gaps().remove(0);
    assert_eq!(gap.state.events(), 11, "{gap:?}");
    running.stop().await;
}

#[tokio::test]
async fn reading_waits_for_ever_at_what_cannot_be_read_if_that_is_wanted() {
    let events = log(200, 1);
    let all = keys(&events);
    let (from, to) = (time_of(&events[50]), time_of(&events[60]));
    let is_repaired = Arc::new(AtomicBool::new(false));
    let (mut fixture, _fake) = fixture(Script {
        search: refuses_between(from, to, is_repaired.clone()),
        ..with_events(events)
    })
    .await;
    fixture.settings.limits.gap_after = None;
    let intake = MemoryIntake::new();
    let mut running = fixture.start(intake.resume(), &intake);
    running.fails_with("gap-after = \"never\"").await;
    assert_eq!(intake.keys(FeedKind::Audit), all[..50]);
    assert!(intake.gaps().is_empty());
    is_repaired.store(true, Ordering::SeqCst);
    assert_eq!(running.ended().await, lockgate_teleport::Ended::CaughtUp);
    assert_eq!(intake.keys(FeedKind::Audit), all);
}

#[tokio::test]
async fn late_events_are_found_while_reading_waits_at_what_cannot_be_read() {
    let events = log(200, 1);
    let all = keys(&events);
    let late = event("late", "user.login", time_of(&events[40]) + 1, 0, &[]);
    let (from, to) = (time_of(&events[50]), time_of(&events[60]));
    let (mut fixture, fake) = fixture(Script {
        search: refuses_between(from, to, Arc::default()),
        ..with_events(events)
    })
    .await;
    fixture.settings.exit_on_last_event = false;
    fixture.settings.limits.gap_after = None;
    fixture.settings.limits.sweeps = vec![lockgate_teleport::Sweep {
        span: Duration::from_secs(7 * 24 * 3600),
        every: Duration::from_millis(20),
    }];
    let intake = MemoryIntake::new();
    let mut running = fixture.start(intake.resume(), &intake);
    running.fails_with("gap-after = \"never\"").await;
    fake.script().events.push(late);
    intake.holds(|contents| contents.events.len() == 51).await;
    let expected = [&all[..50], &["late".to_owned()]].concat();
    intake.assert_each_once(FeedKind::Audit, expected);
    running
        .shows(|status| status.failures.keys().any(|place| place == "poll/held"))
        .await;
    running.stop().await;
}

#[tokio::test]
async fn the_wait_at_what_cannot_be_read_does_not_begin_again_after_a_restart() {
    const HOUR: u64 = 3600;
    let events = log(200, 1);
    let all = keys(&events);
    let (from, to) = (time_of(&events[50]), time_of(&events[60]));
    let is_repaired = Arc::new(AtomicBool::new(false));
    let (mut fixture, _fake) = fixture(Script {
        search: refuses_between(from, to, is_repaired.clone()),
        ..with_events(events)
    })
    .await;
    fixture.settings.exit_on_last_event = false;
    fixture.settings.limits.gap_after = Some(Duration::from_secs(HOUR));
    let intake = MemoryIntake::new();
    let mut running = fixture.start(intake.resume(), &intake);
    running.fails_with("reading goes on after it").await;
    running.stop().await;
    assert!(intake.gaps().is_empty() && intake.contents().cursors.contains_key("poll/refused"));
    fixture.clock.advance(HOUR as Millis * 1000);
    let running = fixture.start(intake.resume(), &intake);
    intake.holds(|contents| contents.gaps.len() == 1).await;
    let rest = [&all[..50], &all[61..]].concat();
    intake
        .holds(|contents| contents.events.len() == rest.len())
        .await;
    intake.assert_each_once(FeedKind::Audit, rest);
    // A later refusal begins a new wait.
    intake
        .holds(|contents| !contents.cursors.contains_key("poll/refused"))
        .await;
    running.stop().await;
}

#[tokio::test]
async fn a_day_that_cannot_be_searched_is_left_out_with_a_report() {
    // The file backend converts a day from its beginning, so no event of the day can be read.
    let events = log(200, 1);
    let bad = (NOW - 2 * DAY).div_euclid(DAY);
    let is_bad = move |time: Millis| time.div_euclid(DAY) == bad;
    let search = Box::new(
        move |request: &GetUnstructuredEventsRequest,
              events: &[EventUnstructured],
              calls: usize| {
            let day = |time: Option<prost_types::Timestamp>| {
                time.expect("a time").seconds.div_euclid(86_400)
            };
            if (day(request.start_date)..=day(request.end_date)).contains(&bad) {
                return Err(Status::unknown("cannot convert"));
            }
            Ok(search(request, events, calls))
        },
    );
    let expected = keys(
        &events
            .iter()
            .filter(|event| !is_bad(time_of(event)))
            .cloned()
            .collect::<Vec<_>>(),
    );
    let (fixture, _fake) = fixture(Script {
        search,
        ..with_events(events)
    })
    .await;
    let intake = MemoryIntake::new();
    let status = fixture.read(&intake).await;
    assert_eq!(
        intake.keys(FeedKind::Audit),
        expected,
        "every other event is there"
    );
    assert_eq!(status.reports, 1, "{status:?}");
}

#[tokio::test]
async fn an_outage_of_the_backend_is_retried() {
    let events = log(200, 2);
    let expected = keys(&events);
    let outage = Box::new(
        |request: &GetUnstructuredEventsRequest, events: &[EventUnstructured], calls: usize| {
            match calls {
                5..80 => Err(Status::new(Code::Unknown, "ThrottlingException")),
                _ => Ok(search(request, events, calls)),
            }
        },
    );
    let (fixture, _fake) = fixture(Script {
        search: outage,
        ..with_events(events)
    })
    .await;
    let intake = MemoryIntake::new();
    let status = fixture.read(&intake).await;
    intake.assert_each_once(FeedKind::Audit, expected);
    assert_eq!(status.reports, 0, "{status:?}");
}

#[tokio::test]
async fn a_repeated_page_is_skipped() {
    let events = log(200, 1);
    let stuck = events[60].clone();
    let expected = keys(&events);
    // At one event, the key leads back to the same page.
    let circle = Box::new(
        move |request: &GetUnstructuredEventsRequest,
              events: &[EventUnstructured],
              calls: usize| {
            let mut page = search(request, events, calls);
            if let Some(at) = page.items.iter().position(|event| event.id == stuck.id) {
                page.items.truncate(at + 1);
                page.last_key = stuck.id.clone();
            }
            if request.start_date == stuck.time {
                page.items = vec![stuck.clone()];
                page.last_key = stuck.id.clone();
            }
            Ok(page)
        },
    );
    let (fixture, _fake) = fixture(Script {
        search: circle,
        ..with_events(events)
    })
    .await;
    let intake = MemoryIntake::new();
    let status = fixture.read(&intake).await;
    intake.assert_each_once(FeedKind::Audit, expected);
    assert!(
        status
            .last_report
            .is_some_and(|report| report.contains("keeps sending"))
    );
}

#[tokio::test]
async fn a_server_that_sends_the_newest_first_is_reported_and_loses_nothing() {
    let events = log(300, 1);
    let expected = keys(&events);
    let mut inner = file_backend();
    let newest_first = Box::new(
        move |request: &GetUnstructuredEventsRequest,
              events: &[EventUnstructured],
              calls: usize| {
            let mut request = request.clone();
            request.order = 1 - request.order;
            inner(&request, events, calls)
        },
    );
    let (fixture, _fake) = fixture(Script {
        search: newest_first,
        ..with_events(events)
    })
    .await;
    let intake = MemoryIntake::with_room(60);
    let mut running = fixture.start(intake.resume(), &intake);
    running.shows(|status| status.events == 60).await;
    assert_eq!(running.status.borrow().backwards, 1);
    running.stop().await;
    intake.grow();
    fixture.read(&intake).await;
    intake.assert_each_once(FeedKind::Audit, expected);
}

#[tokio::test]
async fn types_are_requested_and_checked() {
    let mut events = log(100, 1);
    events.push(event("role", "role.created", NOW - DAY, 0, &[]));
    // A server that ignores the types.
    let ignorant = Box::new(
        |request: &GetUnstructuredEventsRequest, events: &[EventUnstructured], calls: usize| {
            let request = GetUnstructuredEventsRequest {
                event_types: vec![],
                ..request.clone()
            };
            Ok(search(&request, events, calls))
        },
    );
    for search in [file_backend(), ignorant] {
        let (mut fixture, fake) = fixture(Script {
            search,
            ..with_events(events.clone())
        })
        .await;
        fixture.settings.types = vec!["role.created".into()];
        let intake = MemoryIntake::new();
        fixture.read(&intake).await;
        assert_eq!(intake.keys(FeedKind::Audit), ["role"]);
        assert!(
            fake.script()
                .searches
                .iter()
                .all(|request| request.event_types == ["role.created"]
                    || (request.order, request.limit) == (1, 1))
        );
    }
}

/// With a window of more than a day, each day of them was a query.
#[tokio::test]
async fn quiet_years_are_read_in_large_windows() {
    for days in [1, 2, 31] {
        let events = [1_000, 1].map(|ago| {
            let key = format!("{ago} days ago");
            event(&key, "user.login", NOW - ago * DAY, 0, &[])
        });
        let (mut fixture, fake) = fixture(with_events(events.to_vec())).await;
        fixture.settings.start_time = Some(NOW - 1_001 * DAY);
        fixture.settings.limits.window = Duration::from_secs(days * 86_400);
        let intake = MemoryIntake::new();
        fixture.read(&intake).await;
        assert_eq!(
            intake.keys(FeedKind::Audit),
            ["1000 days ago", "1 days ago"]
        );
        let queries = fake.script().searches.len();
        assert!(queries < 300, "{queries} for windows of {days} days");
    }
}

#[tokio::test]
async fn types_that_are_admitted_later_are_reported_once() {
    let two = |name: &str, before: Millis| event(name, name, NOW - before, 0, &[]);
    let events = vec![two("user.login", DAY), two("user.create", 2 * DAY)];
    let (mut fixture, fake) = fixture(with_events(events)).await;
    let intake = MemoryIntake::new();
    let mut read = async |types: &[&str]| {
        fixture.settings.types = types.iter().map(|&name| name.to_owned()).collect();
        fixture.clock.advance(60_000);
        fixture.read(&intake).await
    };
    for (types, reported) in [
        (&["user.login"][..], None),
        (
            &["user.create", "user.login"],
            Some("now includes user.create."),
        ),
        (&["user.login", "user.create", ""], None),
        (&["user.create"], None),
        (
            &[],
            Some("now includes every type; before, only user.create."),
        ),
        (&["user.login"], None),
    ] {
        let status = read(types).await;
        let report = status.last_report.unwrap_or_default();
        match reported {
            Some(words) => assert!(report.contains(words), "{types:?}: {report}"),
            None => assert_eq!((status.reports, report.as_str()), (0, ""), "{types:?}"),
        }
    }
    assert_eq!(intake.keys(FeedKind::Audit), ["user.login"]);
    drop(fake);
}
