//! Reading session recordings.

use std::collections::BTreeMap;
use std::time::Duration;

use lockgate_model::{FeedKind, Millis};
use lockgate_teleport::Resume;
use lockgate_teleport::proto::auditlog::EventUnstructured;
use tonic::Status;

use crate::fake::{Fake, Recording, Script, event};
use crate::fixture::{DAY, Fixture, NOW};
use crate::intake::MemoryIntake;

fn upload(sid: &str, time: Millis) -> EventUnstructured {
    event(
        &format!("up-{sid}"),
        "session.upload",
        time,
        i64::from(i32::MAX),
        &[("sid", sid)],
    )
}

fn recording(sid: &str, len: i64) -> Recording {
    let name = |index| if index == 0 { "session.start" } else { "print" };
    let events = (0..len).map(|index| {
        event(
            &format!("{sid}-{index}"),
            name(index),
            NOW - DAY,
            index,
            &[("sid", sid)],
        )
    });
    Recording {
        events: events.collect(),
        ..Recording::default()
    }
}

fn keys(sid: &str, len: i64) -> Vec<String> {
    (0..len)
        .map(|index| format!("{sid}/{sid}-{index}"))
        .collect()
}

async fn fixture(
    recordings: impl IntoIterator<Item = (&'static str, Recording)>,
) -> (Fixture, Fake) {
    let mut fixture = Fixture::new();
    let recordings: BTreeMap<String, Recording> = recordings
        .into_iter()
        .map(|(sid, recording)| (sid.to_owned(), recording))
        .collect();
    let events = recordings
        .keys()
        .map(|sid| upload(sid, NOW - 3_600_000))
        .collect();
    let recordings = Some(recordings.into_iter().collect());
    let fake = Fake::start(
        &fixture.authority,
        Script {
            events,
            recordings,
            ..Script::default()
        },
    )
    .await;
    fixture.settings.address = fake.address.to_string();
    fixture.settings.sessions = true;
    fixture.settings.exit_on_last_event = false;
    (fixture, fake)
}

/// Downloads are remembered, in case they are announced again.
fn has_no_pending(cursors: &BTreeMap<String, String>) -> bool {
    let mut cursors = cursors.iter();
    !cursors.any(|(key, value)| key.starts_with("session/") && !value.contains(r#""done":true"#))
}

#[tokio::test]
async fn an_announced_recording_is_downloaded_and_its_cursor_comes_and_goes_with_the_events() {
    let (mut fixture, fake) = fixture([
        ("s-1", recording("s-1", 1_200)),
        ("s-2", recording("s-2", 3)),
    ])
    .await;
    fixture.settings.exit_on_last_event = true;
    let intake = MemoryIntake::new();
    let status = fixture.read(&intake).await;
    assert_eq!(
        (
            status.recordings_done,
            status.recordings_pending,
            status.recordings_lost
        ),
        (2, 0, 0)
    );
    intake.assert_each_once(
        FeedKind::Sessions,
        [keys("s-1", 1_200), keys("s-2", 3)].concat(),
    );
    let contents = intake.contents();
    assert!(has_no_pending(&contents.cursors));
    let with_upload = contents
        .appends
        .iter()
        .find(|(keys, _)| keys.iter().any(|key| key == "up-s-1"))
        .expect("the announcement");
    assert!(
        with_upload.1.iter().any(|cursor| cursor == "session/s-1"),
        "{with_upload:?}"
    );
    let of_session: Vec<_> = contents
        .events
        .iter()
        .filter(|event| event.session == "s-2" && event.feed == FeedKind::Sessions)
        .collect();
    assert_eq!(
        of_session
            .iter()
            .map(|event| event.index)
            .collect::<Vec<_>>(),
        [0, 1, 2]
    );
    assert_eq!(of_session[0].event_type, "session.start");
    assert_eq!(
        fake.script().opened.len(),
        2,
        "each opening is an event in Teleport's log"
    );
}

#[tokio::test]
async fn recordings_that_are_not_wanted_or_whose_announcement_is_filtered_are_not_opened() {
    for (sessions, types) in [(false, vec![]), (true, vec!["user.login".to_owned()])] {
        let (mut fixture, fake) = fixture([("s-1", recording("s-1", 3))]).await;
        fixture.settings.exit_on_last_event = true;
        fixture.settings.sessions = sessions;
        fixture.settings.types = types;
        let intake = MemoryIntake::new();
        fixture.read(&intake).await;
        assert!(fake.script().opened.is_empty());
        assert!(has_no_pending(&intake.contents().cursors));
    }
}

#[tokio::test]
async fn a_missing_recording_is_requested_again() {
    let (fixture, fake) = fixture([(
        "s-1",
        Recording {
            missing: 2,
            ..recording("s-1", 5)
        },
    )])
    .await;
    let intake = MemoryIntake::new();
    let mut running = fixture.start(Resume::default(), &intake);
    running.shows(|status| status.recordings_done == 1).await;
    assert_eq!(intake.keys(FeedKind::Sessions), keys("s-1", 5));
    assert_eq!(fake.script().opened.len(), 3);
    assert!(
        running
            .shows(|status| status.recordings_pending == 0)
            .await
            .failures
            .is_empty()
    );
    running.stop().await;
}

#[tokio::test]
async fn a_recording_that_never_appears_is_given_up_with_a_report() {
    let (mut fixture, fake) = fixture([(
        "s-1",
        Recording {
            missing: usize::MAX,
            ..recording("s-1", 5)
        },
    )])
    .await;
    // Uploaded an hour ago.
    fixture.settings.limits.recording_patience = Duration::from_secs(3_000);
    let intake = MemoryIntake::new();
    let mut running = fixture.start(Resume::default(), &intake);
    let status = running
        .shows(|status| status.recordings_lost == 1 && status.reports == 1)
        .await;
    let report = status.last_report.expect("a report");
    assert!(
        report.contains("`s-1`") && report.contains("did not appear in time"),
        "{report}"
    );
    intake
        .holds(|contents| has_no_pending(&contents.cursors))
        .await;
    assert_eq!(fake.script().opened.len(), 2);
    running.stop().await;
}

#[tokio::test]
async fn a_server_too_old_for_recordings_is_reported_once_and_they_stay_pending() {
    let (fixture, fake) = fixture((0..6).map(|at| {
        (
            ["s-0", "s-1", "s-2", "s-3", "s-4", "s-5"][at],
            recording("s", 1),
        )
    }))
    .await;
    fake.script().recordings = None;
    let mut settings = fixture.settings.clone();
    settings.limits.recordings = 1;
    let fixture = Fixture {
        settings,
        ..fixture
    };
    let intake = MemoryIntake::new();
    let mut running = fixture.start(Resume::default(), &intake);
    let status = running
        .shows(|status| status.reports == 1 && status.recordings_pending == 6)
        .await;
    assert!(
        status
            .last_report
            .is_some_and(|report| report.contains("StreamUnstructuredSessionEvents"))
    );
    // The audit log is still read.
    fake.script().events.push(event(
        "later",
        "user.login",
        lockgate_teleport::Clock::now(&*fixture.clock),
        0,
        &[],
    ));
    intake
        .holds(|contents| contents.events.iter().any(|event| event.key == "later"))
        .await;
    assert_eq!(
        (fake.script().opened.len(), running.status.borrow().reports),
        (1, 1)
    );
    assert_eq!(
        intake
            .contents()
            .cursors
            .keys()
            .filter(|key| key.starts_with("session/"))
            .count(),
        6
    );
    running.stop().await;
}

#[tokio::test]
async fn an_interrupted_download_resumes() {
    let breaks = vec![
        (600, Status::unavailable("restart")),
        (0, Status::unavailable("restart")),
    ];
    let (fixture, fake) = fixture([(
        "s-1",
        Recording {
            breaks,
            ..recording("s-1", 1_000)
        },
    )])
    .await;
    let intake = MemoryIntake::new();
    let mut running = fixture.start(Resume::default(), &intake);
    running.shows(|status| status.recordings_done == 1).await;
    running.stop().await;
    assert_eq!(intake.keys(FeedKind::Sessions), keys("s-1", 1_000));
    let starts: Vec<i32> = fake
        .script()
        .opened
        .iter()
        .map(|(_, start)| *start)
        .collect();
    assert_eq!(starts, [0, 600, 600]);
}

#[tokio::test]
async fn a_pending_recording_is_downloaded_after_a_restart() {
    let (mut fixture, _fake) = fixture([("s-1", recording("s-1", 10))]).await;
    fixture.settings.exit_on_last_event = true;
    let intake = MemoryIntake::new();
    let mut resume = Resume::default();
    resume.cursors.insert(
        "session/s-1".into(),
        format!(r#"{{"next":4,"uploaded":{NOW},"attempts":0,"not_before":0}}"#),
    );
    // The announcement is older than the start.
    fixture.settings.start_time = Some(NOW - 60_000);
    let running = fixture.start(resume, &intake);
    running.ended().await;
    assert_eq!(intake.keys(FeedKind::Sessions), keys("s-1", 10)[4..]);
    assert!(has_no_pending(&intake.contents().cursors));
}

/// Teleport's rate limit made the first attempt the last, too.
#[tokio::test]
async fn a_recording_that_cannot_be_read_is_reported_once_and_stays_pending() {
    let cut = |events| (events, Status::unknown("unexpected EOF"));
    let odd = Status::invalid_argument("unsupported protocol version 9");
    let busy = Status::resource_exhausted("rate limit exceeded");
    let broken = |sid, breaks| {
        (
            sid,
            Recording {
                breaks,
                ..recording(sid, 9)
            },
        )
    };
    let (fixture, _fake) = fixture([
        broken("s-1", vec![cut(3), cut(0), cut(0), cut(0), cut(0)]),
        broken("s-2", vec![(0, odd)]),
        broken(
            "s-3",
            vec![
                (0, busy.clone()),
                (0, busy.clone()),
                (0, busy.clone()),
                (0, busy),
            ],
        ),
    ])
    .await;
    let intake = MemoryIntake::new();
    let mut running = fixture.start(Resume::default(), &intake);
    let status = running.shows(|status| status.recordings_done == 3).await;
    assert_eq!((status.reports, status.recordings_lost), (1, 0));
    let report = status.last_report.expect("a report");
    assert!(
        report.contains("`s-1` from event 3 on") && report.contains("unexpected EOF"),
        "{report}"
    );
    running.stop().await;
    intake.assert_each_once(
        FeedKind::Sessions,
        ["s-1", "s-2", "s-3"].iter().flat_map(|sid| keys(sid, 9)),
    );
    assert!(has_no_pending(&intake.contents().cursors));
}

#[tokio::test]
async fn an_empty_recording_is_reported() {
    let (fixture, _fake) = fixture([("s-1", recording("s-1", 0))]).await;
    let mut running = fixture.start(Resume::default(), &MemoryIntake::new());
    let status = running
        .shows(|status| status.recordings_done == 1 && status.reports == 1)
        .await;
    assert!(
        status
            .last_report
            .is_some_and(|report| report.contains("`s-1`") && report.contains("it is empty"))
    );
    running.stop().await;
}

/// The second announcement delivered the whole recording once more.
#[tokio::test]
async fn a_recording_that_is_announced_again_is_read_once_and_only_continued() {
    for (longer, is_restarted) in [(0, false), (0, true), (3, false), (3, true)] {
        let (fixture, fake) = fixture([("s-1", recording("s-1", 5))]).await;
        let intake = MemoryIntake::new();
        let mut running = fixture.start(intake.resume(), &intake);
        running.shows(|status| status.recordings_done == 1).await;
        running.shows(|status| status.recordings_pending == 0).await;
        if is_restarted {
            running.stop().await;
            // Retention.
            intake.remove_all();
            running = fixture.start(intake.resume(), &intake);
        }
        let before = intake.keys(FeedKind::Sessions).len();
        {
            let mut script = fake.script();
            script.events.push(event(
                "up-again",
                "session.upload",
                NOW - 60_000,
                i64::from(i32::MAX),
                &[("sid", "s-1")],
            ));
            let recordings = script.recordings.as_mut().expect("recordings");
            recordings.insert("s-1".to_owned(), recording("s-1", 5 + longer));
        }
        let new = longer as usize;
        intake
            .holds(|contents| {
                let is_recorded =
                    |event: &&crate::intake::StoredEvent| event.feed == FeedKind::Sessions;
                let cursor = &contents.cursors["session/s-1"];
                contents.events.iter().any(|event| event.key == "up-again")
                    && contents.events.iter().filter(is_recorded).count() == before + new
                    && cursor.contains("done")
                    && !contents.cursors.contains_key("again/s-1")
                    && fake.script().opened.len() > 1
            })
            .await;
        assert_eq!(
            intake.keys(FeedKind::Sessions)[before..],
            keys("s-1", 5 + longer)[5..]
        );
        let starts: Vec<i32> = fake
            .script()
            .opened
            .iter()
            .map(|(_, start)| *start)
            .collect();
        // If retention has removed it, the first announcement is read again, too.
        let opened = if is_restarted { 1..3 } else { 1..2 };
        assert!(opened.contains(&(starts.len() - 1)), "{starts:?}");
        assert!(starts[1..].iter().all(|&start| start >= 5), "{starts:?}");
        running.stop().await;
    }
}

#[tokio::test]
async fn a_recording_that_cannot_be_read_is_a_gap_until_it_can() {
    let cut = || (3, Status::unknown("unexpected EOF"));
    let breaks = vec![cut(), (0, cut().1), (0, cut().1), (0, cut().1)];
    let damaged = Recording {
        breaks,
        ..recording("s-1", 9)
    };
    let (fixture, _fake) = fixture([("s-1", damaged)]).await;
    let intake = MemoryIntake::new();
    let mut running = fixture.start(intake.resume(), &intake);
    running.shows(|status| status.gaps_open == 1).await;
    let gap = intake.gaps().remove(0);
    assert_eq!((&*gap.key, gap.feed), ("session/s-1", FeedKind::Sessions));
    running.shows(|status| status.recordings_done == 1).await;
    running.shows(|status| status.gaps_open == 0).await;
    let gap = intake.gaps().remove(0);
    assert_eq!(gap.state.name(), "read", "{gap:?}");
    running.stop().await;
    assert_eq!(intake.keys(FeedKind::Sessions), keys("s-1", 9));
}

/// Teleport writes an event whenever a recording is opened: each download made one more event.
#[tokio::test]
async fn what_teleport_writes_about_our_own_downloads_is_left_out() {
    let access = |uid: &str, sid: &str, user: &str| {
        let fields = [("sid", sid), ("user", user)];
        event(uid, "session.recording.access", NOW - 60_000, 0, &fields)
    };
    // The name in the certificates of these tests.
    let us = "rcgen self signed cert";
    for keep in [false, true] {
        let (mut fixture, fake) = fixture([("s-1", recording("s-1", 3))]).await;
        fixture.settings.keep_own_access = keep;
        let intake = MemoryIntake::new();
        let mut running = fixture.start(intake.resume(), &intake);
        running.shows(|status| status.recordings_done == 1).await;
        fake.script().events.extend([
            access("ours", "s-1", us),
            access("ours, of another session", "s-9", us),
            access("theirs", "s-1", "alice"),
            event("last", "user.login", NOW - 59_000, 0, &[]),
        ]);
        intake
            .holds(|contents| contents.events.iter().any(|event| event.key == "last"))
            .await;
        let keys = intake.keys(FeedKind::Audit);
        let has = |key: &str| keys.iter().any(|found| found == key);
        assert!(has("theirs") && has("ours, of another session"), "{keys:?}");
        assert_eq!(has("ours"), keep, "{keys:?}");
        let status = running
            .shows(|status| keep || status.own_accesses > 0)
            .await;
        assert_eq!(status.own_accesses > 0, !keep);
        running.stop().await;
    }
}

#[tokio::test]
async fn all_recordings_that_fail_are_counted() {
    const COUNT: usize = 80;
    let sids: Vec<&'static str> = (0..COUNT).map(|nth| &*format!("s-{nth}").leak()).collect();
    let limited = || Recording {
        breaks: vec![(0, Status::resource_exhausted("rate limit exceeded"))],
        ..recording("s-1", 2)
    };
    let (mut fixture, _fake) = fixture(sids.iter().map(|&sid| (sid, limited()))).await;
    fixture.settings.limits.recording_wait = (Duration::from_secs(3600), Duration::from_secs(3600));
    let intake = MemoryIntake::new();
    let mut running = fixture.start(intake.resume(), &intake);
    let status = running
        .shows(|status| status.recordings_failing == COUNT as u64)
        .await;
    assert!(status.failures.len() <= 64, "{status:?}");
    running.stop().await;
}
