//! Reading by bulk export.

use std::collections::BTreeMap;
use std::time::Duration;

use lockgate_model::{Day, FeedKind, Millis};
use lockgate_teleport::{Ended, Phase, ReaderKind};

use crate::fake::{Chunk, Fake, Script, Tls, event};
use crate::fixture::{DAY, Fixture, NOW};
use crate::intake::{Contents, MemoryIntake};
use crate::relay::Relay;

type Chunks = BTreeMap<String, BTreeMap<String, Chunk>>;

fn date(time: Millis) -> String {
    Day::of(time).to_string()
}

/// A chunk of events at a time.
fn chunk(name: &str, time: Millis, count: usize) -> (String, Chunk) {
    let events = (0..count).map(|at| {
        event(
            &format!("{name}-{at}"),
            "user.login",
            time + at as Millis,
            0,
            &[],
        )
    });
    (
        name.to_owned(),
        Chunk {
            events: events.collect(),
            ..Chunk::default()
        },
    )
}

fn keys(chunks: &Chunks) -> Vec<String> {
    chunks
        .values()
        .flat_map(BTreeMap::values)
        .flat_map(|chunk| &chunk.events)
        .map(|event| event.id.clone())
        .collect()
}

fn week(chunks_a_day: usize, events: usize) -> Chunks {
    (0..8)
        .map(|day| {
            let time = NOW - day * DAY;
            (
                date(time),
                (0..chunks_a_day)
                    .map(|at| chunk(&format!("d{day}c{at}"), time - 3_600_000, events))
                    .collect(),
            )
        })
        .collect()
}

async fn fixture(script: Script) -> (Fixture, Fake) {
    let mut fixture = Fixture::new();
    let fake = Fake::start(&fixture.authority, script).await;
    fixture.settings.address = fake.address.to_string();
    fixture.settings.start_time = Some(NOW - 7 * DAY - 3_600_000);
    (fixture, fake)
}

#[tokio::test]
async fn every_event_comes_once_whether_streams_break_or_not() {
    for (chunks, is_flaky) in [
        (week(0, 0), false),
        (week(1, 3), true),
        (week(12, 20), false),
        (week(12, 20), true),
    ] {
        let expected = keys(&chunks);
        let (fixture, fake) = fixture(Script {
            chunks: Some(chunks),
            is_flaky,
            ..Script::default()
        })
        .await;
        let intake = MemoryIntake::new();
        let status = fixture.read(&intake).await;
        intake.assert_each_once(FeedKind::Audit, expected.clone());
        assert_eq!(
            (status.reader, status.phase),
            (Some(ReaderKind::Export), Phase::CaughtUp)
        );
        assert_eq!(status.events, expected.len() as u64);
        assert!(
            status.failures.is_empty() && status.reports == 0,
            "{status:?}"
        );
        // With its cursors it exports nothing again. Each start asks whether there is an export.
        let before = fake.script().streams;
        fixture.read(&intake).await;
        assert_eq!(fake.script().streams, before);
        assert_eq!(
            fake.script()
                .lists
                .iter()
                .filter(|date| **date > Day::of(NOW).to_string())
                .count(),
            2
        );
    }
}

#[tokio::test]
async fn reading_resumes_in_the_middle_of_a_chunk() {
    let (name, mut half) = chunk("c", NOW - 1000, 100);
    half.hangs_after = Some(47);
    let chunks = Chunks::from([(date(NOW), [(name, half)].into())]);
    let expected = keys(&chunks);
    let (fixture, fake) = fixture(Script {
        chunks: Some(chunks),
        ..Script::default()
    })
    .await;
    let intake = MemoryIntake::new();
    // A stream that falls silent does not delay the events that came before.
    let running = fixture.start(intake.resume(), &intake);
    intake.holds(|contents| contents.events.len() == 47).await;
    running.stop().await;
    assert_eq!(
        intake.contents().cursors[&format!("export/{}/c", date(NOW))],
        "at:a1:47"
    );

    for chunk in fake
        .script()
        .chunks
        .as_mut()
        .expect("export")
        .values_mut()
        .flat_map(BTreeMap::values_mut)
    {
        chunk.hangs_after = None;
    }
    fixture.read(&intake).await;
    assert_eq!(intake.keys(FeedKind::Audit), expected);
}

/// Nothing was read for three minutes, while all that was asked of Teleport was answered.
#[tokio::test]
async fn streams_move_to_a_new_connection_if_nothing_comes_on_theirs() {
    let (name, mut half) = chunk("c", NOW - 1000, 100);
    half.hangs_after = Some(47);
    let chunks = Chunks::from([(date(NOW), [(name, half)].into())]);
    let expected = keys(&chunks);
    let (mut fixture, fake) = fixture(Script {
        chunks: Some(chunks),
        ..Script::default()
    })
    .await;
    let relay = Relay::start(fake.address).await;
    fixture.settings.address = relay.address.to_string();
    fixture.settings.limits.check = Duration::from_millis(10);
    fixture.settings.limits.answer = Duration::from_millis(100);
    fixture.settings.limits.call = Duration::from_secs(3600);
    let intake = MemoryIntake::new();
    let running = fixture.start(intake.resume(), &intake);
    intake.holds(|contents| contents.events.len() == 47).await;
    for chunk in fake
        .script()
        .chunks
        .as_mut()
        .expect("export")
        .values_mut()
        .flat_map(BTreeMap::values_mut)
    {
        chunk.hangs_after = None;
    }
    relay.stall();
    assert_eq!(running.ended().await, Ended::CaughtUp);
    assert_eq!(intake.keys(FeedKind::Audit), expected);
}

/// It was waited for until the keep-alive of HTTP/2 ended the connection, for 178 to 190 seconds.
#[tokio::test]
async fn a_stream_on_an_older_connection_moves_too_if_nothing_comes_on_it() {
    let (name, mut half) = chunk("c", NOW - 1000, 100);
    half.hangs_after = Some(47);
    let chunks = Chunks::from([(date(NOW), [(name, half)].into())]);
    let expected = keys(&chunks);
    let (mut fixture, fake) = fixture(Script {
        chunks: Some(chunks),
        ..Script::default()
    })
    .await;
    let relay = Relay::start(fake.address).await;
    fixture.settings.address = relay.address.to_string();
    fixture.settings.limits.check = Duration::from_millis(10);
    fixture.settings.limits.answer = Duration::from_millis(100);
    for limit in [
        &mut fixture.settings.limits.call,
        &mut fixture.settings.limits.keepalive_timeout,
    ] {
        *limit = Duration::from_secs(3600);
    }
    let intake = MemoryIntake::new();
    let mut running = fixture.start(intake.resume(), &intake);
    intake.holds(|contents| contents.events.len() == 47).await;
    // The stream stays on its connection when renewed credentials are used for another.
    let until = running.status.borrow().credentials_until;
    let renewed = fixture.authority.identity("bot", 2092);
    std::fs::write(fixture.identity_path(), renewed).expect("a file");
    running
        .shows(|status| status.credentials_until != until && status.failures.is_empty())
        .await;
    while fake.script().clients.len() < 2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    {
        let mut script = fake.script();
        let chunks = script.chunks.as_mut().expect("export");
        let chunks = chunks.get_mut(&date(NOW)).expect("a date");
        chunks.get_mut("c").expect("a chunk").hangs_after = None;
    }
    relay.stall_first(1);
    assert_eq!(running.ended().await, Ended::CaughtUp);
    assert_eq!(intake.keys(FeedKind::Audit), expected);
}

#[tokio::test]
async fn a_store_that_stops_accepting_events_loses_nothing() {
    let chunks = Chunks::from([(date(NOW), [chunk("c", NOW - 10_000, 3_000)].into())]);
    let expected = keys(&chunks);
    let (fixture, _fake) = fixture(Script {
        chunks: Some(chunks),
        ..Script::default()
    })
    .await;
    let intake = MemoryIntake::with_room(1_500);
    let running = fixture.start(intake.resume(), &intake);
    intake.holds(|contents| contents.events.len() > 900).await;
    running.stop().await;
    intake.grow();
    fixture.read(&intake).await;
    assert_eq!(intake.keys(FeedKind::Audit), expected);
    assert!(intake.contents().blocks.iter().all(|&len| len <= 512));
}

#[tokio::test]
async fn late_chunks_are_read_while_their_date_is_open_and_closed_dates_leave_no_cursors() {
    let (mut fixture, fake) = fixture(Script {
        chunks: Some(week(1, 2)),
        ..Script::default()
    })
    .await;
    fixture.settings.exit_on_last_event = false;
    let intake = MemoryIntake::new();
    let mut running = fixture.start(intake.resume(), &intake);
    running
        .shows(|status| status.phase == Phase::CaughtUp && status.events == 16)
        .await;
    let open = |cursors: &BTreeMap<String, String>| -> Vec<String> {
        let dates = cursors.keys().filter_map(|key| key.strip_prefix("export/"));
        let mut dates: Vec<String> = dates.map(|rest| rest[..10].to_owned()).collect();
        dates.dedup();
        dates
    };
    let dates = [2, 1, 0].map(|days| date(NOW - days * DAY));
    intake
        .holds(|contents| open(&contents.cursors) == dates)
        .await;

    for (days, name) in [(2, "late"), (0, "new"), (3, "too-late")] {
        let (name, chunk) = chunk(name, NOW - days * DAY, 1);
        fake.script()
            .chunks
            .as_mut()
            .expect("export")
            .entry(date(NOW - days * DAY))
            .or_default()
            .insert(name, chunk);
    }
    intake.holds(|contents| contents.events.len() == 18).await;
    let keys = intake.keys(FeedKind::Audit);
    assert!(keys.contains(&"late-0".into()) && keys.contains(&"new-0".into()));

    // At midnight the next date opens and the oldest closes.
    fixture.clock.advance(DAY / 2 + 1000);
    let dates = [1, 0, -1].map(|days| date(NOW - days * DAY));
    intake
        .holds(|contents| open(&contents.cursors) == dates)
        .await;
    running.stop().await;
    assert_eq!(intake.contents().events.len(), 18);
}

#[tokio::test]
async fn a_date_closes_in_the_transaction_that_opens_another() {
    let (mut fixture, _fake) = fixture(Script {
        chunks: Some(Chunks::new()),
        ..Script::default()
    })
    .await;
    fixture.settings.exit_on_last_event = false;
    fixture.settings.start_time = Some(NOW - 60 * DAY);
    let intake = MemoryIntake::new();
    let running = fixture.start(intake.resume(), &intake);
    let days = |contents: &Contents| -> Vec<String> {
        let keys = contents.cursors.keys();
        keys.filter(|key| key.starts_with("export/"))
            .cloned()
            .collect()
    };
    let open = [2, 1, 0].map(|days| format!("export/{}", date(NOW - days * DAY)));
    intake.holds(|contents| days(contents) == open).await;
    running.stop().await;
    let (opened, closed) = (61, 58);
    let appends = intake.contents().appends.len();
    assert!(appends < opened + closed, "{appends}");
}

/// A chunk of today, in the answers to searches, too.
fn add_today(fake: &Fake, name: &str) {
    let (name, chunk) = chunk(name, NOW - 3_600_000, 3);
    let mut script = fake.script();
    script.events.extend(chunk.events.iter().cloned());
    let chunks = script.chunks.get_or_insert_default();
    chunks.entry(date(NOW)).or_default().insert(name, chunk);
}

/// Today was closed, and never opened again.
#[tokio::test]
async fn a_clock_that_is_ahead_for_a_while_closes_no_date_that_has_events_to_come() {
    let (mut fixture, fake) = fixture(Script::default()).await;
    fixture.settings.exit_on_last_event = false;
    fixture.settings.limits.newest = Duration::from_millis(20);
    add_today(&fake, "first");
    fixture.clock.advance(8 * DAY);
    let intake = MemoryIntake::new();
    let mut running = fixture.start(intake.resume(), &intake);
    running
        .shows(|status| status.phase == Phase::CaughtUp)
        .await;
    let open = intake.contents().cursors;
    assert!(
        open.contains_key(&format!("export/{}", date(NOW))),
        "{open:?}"
    );
    fixture.clock.advance(-8 * DAY);
    add_today(&fake, "second");
    intake.holds(|contents| contents.events.len() == 6).await;
    let status = running.status.borrow().clone();
    assert_eq!(status.reports, 0, "{:?}", status.last_report);
    running.stop().await;
}

/// The lists of chunks were read again only after their interval.
#[tokio::test]
async fn after_an_outage_the_log_is_listed_at_once() {
    let (mut fixture, fake) = fixture(Script::default()).await;
    fixture.settings.exit_on_last_event = false;
    fixture.settings.limits.export_poll = Duration::from_secs(3600);
    fixture.settings.limits.check = Duration::from_millis(10);
    add_today(&fake, "first");
    let intake = MemoryIntake::new();
    let mut running = fixture.start(intake.resume(), &intake);
    running
        .shows(|status| status.complete_at.is_some() && status.events == 3)
        .await;
    let complete_at = running.status.borrow().complete_at;
    let port = fake.address.port();
    add_today(&fake, "second");
    let script = std::mem::take(&mut *fake.script());
    drop(fake);
    running.shows(|status| !status.failures.is_empty()).await;
    assert_eq!(running.status.borrow().complete_at, complete_at);
    let _fake = Fake::start_with(&fixture.authority, script, Tls::default(), port).await;
    intake.holds(|contents| contents.events.len() == 6).await;
    running
        .shows(|status| status.failures.is_empty() && status.complete_at > complete_at)
        .await;
    running.stop().await;
}

/// As an earlier release left them.
#[tokio::test]
async fn dates_that_were_opened_in_the_future_are_reported_and_reading_goes_back() {
    let (mut fixture, fake) = fixture(Script::default()).await;
    add_today(&fake, "first");
    let intake = MemoryIntake::new();
    fixture.read(&intake).await;
    add_today(&fake, "second");
    let mut resume = intake.resume();
    resume.cursors.retain(|key, _| !key.starts_with("export/"));
    for days in [6, 7, 8] {
        let key = format!("export/{}", date(NOW + days * DAY));
        resume.cursors.insert(key, "open".to_owned());
    }
    fixture.settings.start_time = None;
    let running = fixture.start(resume, &intake);
    let status = running.status.clone();
    assert_eq!(running.ended().await, Ended::CaughtUp);
    let keys = intake.keys(FeedKind::Audit);
    assert!(keys.contains(&"second-0".to_owned()), "{keys:?}");
    let report = status.borrow().last_report.clone();
    let report = format!("{report:?}");
    assert!(
        report.contains("the clock of this machine is wrong"),
        "{report}"
    );
}

#[tokio::test]
async fn types_and_start_time_are_applied_locally_and_the_cursor_still_moves() {
    let time = NOW - 5_000;
    let events = vec![
        event("early", "user.login", time - 1, 0, &[]),
        event("login", "user.login", time, 0, &[]),
        event("role", "role.created", time, 0, &[]),
        event("upload", "session.upload", time, 0, &[("sid", "s-1")]),
        event(
            "unknown",
            "unknown",
            time,
            0,
            &[("unknown_event", "new.type")],
        ),
    ];
    let chunks = Chunks::from([(
        date(NOW),
        [(
            "c".to_owned(),
            Chunk {
                events,
                ..Chunk::default()
            },
        )]
        .into(),
    )]);
    let (mut fixture, fake) = fixture(Script {
        chunks: Some(chunks),
        ..Script::default()
    })
    .await;
    fixture.settings.start_time = Some(time);
    fixture.settings.types = vec!["user.login".into(), "new.type".into()];
    fixture.settings.sessions = true;
    let intake = MemoryIntake::new();
    let status = fixture.read(&intake).await;
    assert_eq!(intake.keys(FeedKind::Audit), ["login", "unknown"]);
    assert_eq!(status.filtered, 3);
    assert_eq!(
        intake.contents().cursors[&format!("export/{}/c", date(NOW))],
        "read"
    );
    assert!(
        fake.script().opened.is_empty(),
        "the announcement was left out, so there is nothing to download"
    );
}

#[tokio::test]
async fn a_log_that_was_polled_is_exported_from_where_polling_ended() {
    let (fixture, fake) = fixture(Script {
        chunks: Some(week(1, 2)),
        ..Script::default()
    })
    .await;
    let intake = MemoryIntake::new();
    let mut resume = intake.resume();
    // There are events at 11:00 each day. The overlap, one second, is read again.
    let until = "2026-01-06T11:00:01Z";
    resume.cursors.insert("poll/until".into(), until.into());
    assert_eq!(
        fixture.start(resume, &intake).ended().await,
        Ended::CaughtUp
    );
    let expected = ["d2c0-0", "d2c0-1", "d1c0-0", "d1c0-1", "d0c0-0", "d0c0-1"].map(str::to_owned);
    intake.assert_each_once(FeedKind::Audit, expected.clone());
    assert!(!intake.contents().cursors.contains_key("poll/until"));
    // Late events of that day are filtered by the same time.
    let (name, chunk) = chunk("old", NOW - 2 * DAY - 2 * 3_600_000, 3);
    fake.script()
        .chunks
        .as_mut()
        .expect("export")
        .get_mut(&date(NOW - 2 * DAY))
        .expect("a date")
        .insert(name, chunk);
    fixture.read(&intake).await;
    intake.assert_each_once(FeedKind::Audit, expected);
}

#[tokio::test]
async fn a_missing_chunk_is_reported_and_stops_nothing_else() {
    let mut chunks = week(2, 2);
    let broken = Chunk {
        is_missing: true,
        ..Chunk::default()
    };
    chunks
        .get_mut(&date(NOW - 4 * DAY))
        .expect("a date")
        .insert("gone".into(), broken);
    let expected = keys(&chunks);
    let (mut fixture, fake) = fixture(Script {
        chunks: Some(chunks),
        ..Script::default()
    })
    .await;
    fixture.settings.limits.gap_after = None;
    let intake = MemoryIntake::new();
    let mut running = fixture.start(intake.resume(), &intake);
    intake
        .holds(|contents| contents.events.len() == expected.len())
        .await;
    running.fails_with("`gone`").await;
    intake.assert_each_once(FeedKind::Audit, expected);
    // When it disappears from the list, it is abandoned with a report.
    fake.script()
        .chunks
        .as_mut()
        .expect("export")
        .get_mut(&date(NOW - 4 * DAY))
        .expect("a date")
        .remove("gone");
    let status = running.shows(|status| status.reports == 1).await;
    assert!(
        status
            .last_report
            .is_some_and(|report| report.contains("`gone`") && report.contains("as lost"))
    );
    running.ended().await;
}

/// It kept its date open and the reading from ending, for ever.
#[tokio::test]
async fn a_chunk_that_cannot_be_read_is_a_gap_until_it_can() {
    let mut chunks = week(2, 2);
    let (name, mut bad) = chunk("bad", NOW - 4 * DAY, 5);
    bad.breaks_after = Some((3, tonic::Status::unknown("the object is damaged")));
    let day = date(NOW - 4 * DAY);
    chunks.get_mut(&day).expect("a date").insert(name, bad);
    let expected = keys(&chunks);
    let (fixture, fake) = fixture(Script {
        chunks: Some(chunks),
        ..Script::default()
    })
    .await;
    let intake = MemoryIntake::new();
    let status = fixture.read(&intake).await;
    assert_eq!((status.gaps_open, status.reports), (1, 1), "{status:?}");
    assert!(status.failures.is_empty(), "{status:?}");
    let is_read = |key: &String| *key != "bad-3" && *key != "bad-4";
    intake.assert_each_once(
        FeedKind::Audit,
        expected.iter().filter(|key| is_read(key)).cloned(),
    );
    let gap = intake.gaps().remove(0);
    assert_eq!(Day::of(gap.from).to_string(), day);
    assert!(
        gap.what.contains("`bad`") && gap.error.contains("damaged"),
        "{gap:?}"
    );
    // The same after a restart.
    let status = fixture.read(&intake).await;
    assert_eq!((status.gaps_open, status.reports), (1, 0), "{status:?}");
    let mut settings = fixture.settings.clone();
    settings.exit_on_last_event = false;
    let fixture = Fixture {
        settings,
        ..fixture
    };
    let mut running = fixture.start(intake.resume(), &intake);
    {
        let mut script = fake.script();
        let chunks = script.chunks.as_mut().expect("export");
        let chunks = chunks.get_mut(&day).expect("a date");
        chunks.get_mut("bad").expect("a chunk").breaks_after = None;
    }
    intake
        .holds(|contents| contents.gaps.values().all(|gap| !gap.is_open()))
        .await;
    running.shows(|status| status.gaps_open == 0).await;
    running.stop().await;
    intake.assert_each_once(FeedKind::Audit, expected);
    assert_eq!(intake.gaps()[0].state.events(), 2);
}

/// It was on the books as a gap, for ever.
#[tokio::test]
async fn a_chunk_with_a_cursor_that_teleport_refuses_is_read_from_its_start() {
    let chunks = Chunks::from([(
        date(NOW),
        [chunk("half", NOW - 1000, 5), chunk("whole", NOW - 1000, 5)].into(),
    )]);
    let mut expected = keys(&chunks);
    expected.retain(|key| key != "whole-0" && key != "whole-1");
    let (fixture, _fake) = fixture(Script {
        chunks: Some(chunks),
        ..Script::default()
    })
    .await;
    let intake = MemoryIntake::new();
    let mut resume = intake.resume();
    let mut set = |chunk: &str, value: &str| {
        let key = format!("export/{}{chunk}", date(NOW));
        resume.cursors.insert(key, value.to_owned());
    };
    set("", "open");
    set("/half", "at:a1:");
    set("/whole", "at:a1:2");
    let running = fixture.start(resume, &intake);
    let watched = running.status.clone();
    running.ended().await;
    let status = watched.borrow().clone();
    assert_eq!((status.reports, status.gaps_open), (1, 0), "{status:?}");
    let report = status.last_report.unwrap();
    assert!(
        report.contains("`half`") && report.contains("sent twice"),
        "{report}"
    );
    intake.assert_each_once(FeedKind::Audit, expected);
}

/// Nothing was read any more.
#[tokio::test]
async fn a_log_that_is_no_longer_exported_is_polled_and_nothing_is_missed_or_comes_twice() {
    let chunks = week(2, 3);
    let expected = keys(&chunks);
    let all = chunks.values().flat_map(BTreeMap::values);
    let mut events: Vec<_> = all.flat_map(|chunk| chunk.events.clone()).collect();
    events.sort_by_key(|event| event.time.map(|time| (time.seconds, time.nanos)));
    let mut some = chunks.clone();
    some.retain(|day, _| *day < date(NOW - 2 * DAY));
    let (fixture, fake) = fixture(Script {
        chunks: Some(some),
        ..Script::default()
    })
    .await;
    let intake = MemoryIntake::new();
    fixture.read(&intake).await;
    {
        let mut script = fake.script();
        script.chunks = None;
        script.events = events;
    }
    let status = fixture.read(&intake).await;
    assert_eq!(status.reader, Some(ReaderKind::Poll));
    let report = status.last_report.unwrap();
    assert!(report.contains("by polling"), "{report}");
    intake.assert_each_once(FeedKind::Audit, expected.clone());
    let cursors = intake.contents().cursors;
    assert!(
        !cursors.keys().any(|key| key.starts_with("export/")),
        "{cursors:?}"
    );
    // From then on it is a log like others.
    let status = fixture.read(&intake).await;
    assert_eq!((status.reader, status.reports), (Some(ReaderKind::Poll), 0));
    intake.assert_each_once(FeedKind::Audit, expected);
}

#[tokio::test]
async fn an_export_that_ends_while_the_host_runs_says_what_to_do() {
    let (mut fixture, fake) = fixture(Script {
        chunks: Some(week(1, 3)),
        ..Script::default()
    })
    .await;
    fixture.settings.exit_on_last_event = false;
    let intake = MemoryIntake::new();
    let mut running = fixture.start(intake.resume(), &intake);
    running
        .shows(|status| status.phase == Phase::CaughtUp)
        .await;
    fake.script().chunks = None;
    let says = |status: &lockgate_teleport::ReaderStatus| {
        let mut failures = status.failures.values();
        failures.any(|failure| {
            failure.kind.stops_the_log() && failure.message.contains("restart this host")
        })
    };
    running.shows(says).await;
    running.stop().await;
}

#[tokio::test]
async fn the_wait_for_a_chunk_does_not_begin_again_after_a_restart() {
    let mut chunks = week(2, 2);
    let (name, mut bad) = chunk("bad", NOW - 4 * DAY, 5);
    bad.breaks_after = Some((3, tonic::Status::unknown("the object is damaged")));
    let day = date(NOW - 4 * DAY);
    chunks.get_mut(&day).expect("a date").insert(name, bad);
    let (mut fixture, _fake) = fixture(Script {
        chunks: Some(chunks),
        ..Script::default()
    })
    .await;
    fixture.settings.exit_on_last_event = false;
    fixture.settings.limits.gap_after = Some(std::time::Duration::from_secs(3600));
    let intake = MemoryIntake::new();
    let is_waiting = |contents: &crate::intake::Contents| {
        let mut cursors = contents.cursors.keys();
        cursors.any(|key| key.starts_with("refused/"))
    };
    let running = fixture.start(intake.resume(), &intake);
    intake.holds(is_waiting).await;
    running.stop().await;
    assert!(intake.gaps().is_empty());
    fixture.clock.advance(3_600_000);
    let running = fixture.start(intake.resume(), &intake);
    intake.holds(|contents| contents.gaps.len() == 1).await;
    intake.holds(|contents| !is_waiting(contents)).await;
    running.stop().await;
}

#[tokio::test]
async fn an_event_that_cannot_be_converted_is_stored_raw() {
    let mut odd = event("odd", "user.login", NOW - 1000, 0, &[]);
    odd.unstructured = b"\x0a\x05\x0a".to_vec().into();
    let chunks = Chunks::from([(
        date(NOW),
        [(
            "c".to_owned(),
            Chunk {
                events: vec![odd, event("good", "user.login", NOW - 1000, 0, &[])],
                ..Chunk::default()
            },
        )]
        .into(),
    )]);
    let (fixture, _fake) = fixture(Script {
        chunks: Some(chunks),
        ..Script::default()
    })
    .await;
    let intake = MemoryIntake::new();
    let status = fixture.read(&intake).await;
    assert_eq!(status.unreadable, 1);
    let events = intake.contents().events;
    assert_eq!(
        events.iter().map(|event| event.is_raw).collect::<Vec<_>>(),
        [true, false]
    );
    assert_eq!(
        events[1].payload,
        r#"{"ei":0,"event":"user.login","uid":"good"}"#
    );
}
