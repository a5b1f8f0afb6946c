use std::collections::BTreeMap;
use std::time::Duration;

use lockgate_model::{FeedKind, Millis};
use lockgate_teleport::Resume;
use lockgate_teleport::proto::auditlog::EventUnstructured;
use tonic::Status;

use crate::fake::{Fake, Recording, Script, event};
use crate::keep::Keep;
use crate::world::{DAY, NOW, World};

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

async fn world(recordings: impl IntoIterator<Item = (&'static str, Recording)>) -> (World, Fake) {
    let mut world = World::new();
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
        &world.authority,
        Script {
            events,
            recordings,
            ..Script::default()
        },
    )
    .await;
    world.settings.address = fake.address.to_string();
    world.settings.sessions = true;
    world.settings.exit_on_last_event = false;
    (world, fake)
}

fn has_no_pending(cursors: &BTreeMap<String, String>) -> bool {
    !cursors.keys().any(|key| key.starts_with("session/"))
}

#[tokio::test]
async fn an_announced_recording_is_downloaded_and_its_cursor_comes_and_goes_with_the_events() {
    let (mut world, fake) = world([
        ("s-1", recording("s-1", 1_200)),
        ("s-2", recording("s-2", 3)),
    ])
    .await;
    world.settings.exit_on_last_event = true;
    let keep = Keep::new();
    let status = world.read(&keep).await;
    assert_eq!(
        (
            status.recordings_done,
            status.recordings_pending,
            status.recordings_lost
        ),
        (2, 0, 0)
    );
    keep.assert_each_once(
        FeedKind::Sessions,
        [keys("s-1", 1_200), keys("s-2", 3)].concat(),
    );
    let contents = keep.contents();
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
        let (mut world, fake) = world([("s-1", recording("s-1", 3))]).await;
        world.settings.exit_on_last_event = true;
        world.settings.sessions = sessions;
        world.settings.types = types;
        let keep = Keep::new();
        world.read(&keep).await;
        assert!(fake.script().opened.is_empty());
        assert!(has_no_pending(&keep.contents().cursors));
    }
}

#[tokio::test]
async fn a_recording_that_is_not_there_yet_is_asked_for_again() {
    let (world, fake) = world([(
        "s-1",
        Recording {
            missing: 2,
            ..recording("s-1", 5)
        },
    )])
    .await;
    let keep = Keep::new();
    let mut running = world.start(Resume::default(), &keep);
    running.shows(|status| status.recordings_done == 1).await;
    assert_eq!(keep.keys(FeedKind::Sessions), keys("s-1", 5));
    assert_eq!(fake.script().opened.len(), 3);
    assert!(
        running
            .shows(|status| status.recordings_pending == 0)
            .await
            .troubles
            .is_empty()
    );
    running.stop().await;
}

#[tokio::test]
async fn a_recording_that_never_comes_is_given_up_with_a_report() {
    let (mut world, fake) = world([(
        "s-1",
        Recording {
            missing: usize::MAX,
            ..recording("s-1", 5)
        },
    )])
    .await;
    // Uploaded an hour ago.
    world.settings.limits.recording_patience = Duration::from_secs(3_000);
    let keep = Keep::new();
    let mut running = world.start(Resume::default(), &keep);
    let status = running
        .shows(|status| status.recordings_lost == 1 && status.reports == 1)
        .await;
    let report = status.last_report.expect("a report");
    assert!(
        report.contains("`s-1`") && report.contains("not come in time"),
        "{report}"
    );
    keep.holds(|contents| has_no_pending(&contents.cursors))
        .await;
    assert_eq!(fake.script().opened.len(), 2);
    running.stop().await;
}

#[tokio::test]
async fn a_server_too_old_for_recordings_is_told_of_once_and_they_stay_pending() {
    let (world, fake) = world((0..6).map(|at| {
        (
            ["s-0", "s-1", "s-2", "s-3", "s-4", "s-5"][at],
            recording("s", 1),
        )
    }))
    .await;
    fake.script().recordings = None;
    let mut settings = world.settings.clone();
    settings.limits.recordings = 1;
    let world = World { settings, ..world };
    let keep = Keep::new();
    let mut running = world.start(Resume::default(), &keep);
    let status = running
        .shows(|status| status.reports == 1 && status.recordings_pending == 6)
        .await;
    assert!(
        status
            .last_report
            .is_some_and(|report| report.contains("StreamUnstructuredSessionEvents"))
    );
    // The log is read all the same.
    fake.script().events.push(event(
        "later",
        "user.login",
        lockgate_teleport::Clock::now(&*world.clock),
        0,
        &[],
    ));
    keep.holds(|contents| contents.events.iter().any(|event| event.key == "later"))
        .await;
    assert_eq!(
        (fake.script().opened.len(), running.status.borrow().reports),
        (1, 1)
    );
    assert_eq!(
        keep.contents()
            .cursors
            .keys()
            .filter(|key| key.starts_with("session/"))
            .count(),
        6
    );
    running.stop().await;
}

#[tokio::test]
async fn a_download_that_broke_off_goes_on_where_it_stood() {
    let breaks = vec![
        (600, Status::unavailable("restart")),
        (0, Status::unavailable("restart")),
    ];
    let (world, fake) = world([(
        "s-1",
        Recording {
            breaks,
            ..recording("s-1", 1_000)
        },
    )])
    .await;
    let keep = Keep::new();
    let mut running = world.start(Resume::default(), &keep);
    running.shows(|status| status.recordings_done == 1).await;
    running.stop().await;
    assert_eq!(keep.keys(FeedKind::Sessions), keys("s-1", 1_000));
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
    let (mut world, _fake) = world([("s-1", recording("s-1", 10))]).await;
    world.settings.exit_on_last_event = true;
    let keep = Keep::new();
    let mut resume = Resume::default();
    resume.cursors.insert(
        "session/s-1".into(),
        format!(r#"{{"next":4,"uploaded":{NOW},"attempts":0,"not_before":0}}"#),
    );
    // The announcement lies before the start.
    world.settings.start_time = Some(NOW - 60_000);
    let running = world.start(resume, &keep);
    running.ended().await;
    assert_eq!(keep.keys(FeedKind::Sessions), keys("s-1", 10)[4..]);
    assert!(has_no_pending(&keep.contents().cursors));
}

#[tokio::test]
async fn a_recording_that_cannot_be_read_to_its_end_is_kept_as_far_as_it_goes() {
    let cut = || (3, Status::unknown("unexpected EOF"));
    let breaks = vec![cut(), (0, cut().1), (0, cut().1), (0, cut().1)];
    let odd = Recording {
        breaks: vec![(
            0,
            Status::invalid_argument("unsupported protocol version 9"),
        )],
        ..recording("s-2", 5)
    };
    let (world, fake) = world([
        (
            "s-1",
            Recording {
                breaks,
                ..recording("s-1", 9)
            },
        ),
        ("s-2", odd),
    ])
    .await;
    let keep = Keep::new();
    let mut running = world.start(Resume::default(), &keep);
    let status = running.shows(|status| status.recordings_lost == 2).await;
    assert_eq!(status.reports, 2);
    running.stop().await;
    assert_eq!(keep.keys(FeedKind::Sessions), keys("s-1", 3));
    assert_eq!(
        fake.script()
            .opened
            .iter()
            .filter(|(sid, _)| sid == "s-2")
            .count(),
        1
    );
}

#[tokio::test]
async fn an_empty_recording_is_remarked_on() {
    let (world, _fake) = world([("s-1", recording("s-1", 0))]).await;
    let mut running = world.start(Resume::default(), &Keep::new());
    let status = running
        .shows(|status| status.recordings_done == 1 && status.reports == 1)
        .await;
    assert!(
        status
            .last_report
            .is_some_and(|report| report.contains("`s-1` is empty"))
    );
    running.stop().await;
}
