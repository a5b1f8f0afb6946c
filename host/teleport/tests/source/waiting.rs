//! Calls that Teleport does not answer, and streams on which nothing comes.

use std::time::Duration;

use lockgate_model::{Day, FeedKind};
use lockgate_teleport::{Ended, FailureKind, ReaderStatus};

use crate::fake::{Chunk, Fake, Recording, Script, event};
use crate::fixture::{DAY, Fixture, NOW, Running};
use crate::intake::MemoryIntake;

async fn fixture(script: Script) -> (Fixture, Fake) {
    let mut fixture = Fixture::new();
    let fake = Fake::start(&fixture.authority, script).await;
    fixture.settings.address = fake.address.to_string();
    fixture.settings.start_time = Some(NOW - DAY);
    fixture.settings.limits.slow = Duration::from_millis(200);
    fixture.settings.limits.doubt = Duration::from_millis(50);
    fixture.settings.limits.call = Duration::from_secs(3600);
    (fixture, fake)
}

fn polled() -> Script {
    Script {
        events: vec![event("e", "user.login", NOW - 1000, 0, &[])],
        ..Script::default()
    }
}

/// Waits for a failure of this kind that says this.
async fn fails(running: &mut Running, kind: FailureKind, text: &str) -> ReaderStatus {
    running
        .shows(|status| {
            let mut failures = status.failures.values();
            failures.any(|failure| failure.kind == kind && failure.message.contains(text))
        })
        .await
}

#[tokio::test]
async fn a_search_that_is_not_answered_is_shown_until_it_is() {
    let (mut fixture, fake) = fixture(polled()).await;
    fixture.settings.exit_on_last_event = false;
    let intake = MemoryIntake::new();
    let mut running = fixture.start(intake.resume(), &intake);
    intake.holds(|contents| contents.events.len() == 1).await;
    running
        .shows(|status| status.complete_at.is_some() && status.unanswered_since.is_none())
        .await;
    fake.script().is_silent.0 = true;
    running
        .shows(|status| status.unanswered_since.is_some() && status.failures.is_empty())
        .await;
    let message = running.fails_with("not answered the search from 20").await;
    assert!(
        message.starts_with("Teleport has not answered"),
        "{message}"
    );
    let shown = fails(&mut running, FailureKind::Log, "the search").await;
    assert!(shown.complete_at < shown.unanswered_since, "{shown:?}");
    fake.script().is_silent.0 = false;
    running
        .shows(|status| status.failures.is_empty() && status.unanswered_since.is_none())
        .await;
    let at = running.status.borrow().complete_at;
    running.shows(|status| status.complete_at > at).await;
    running.stop().await;
}

/// It was waited for without an end.
#[tokio::test]
async fn the_question_for_bulk_export_times_out_and_is_asked_again() {
    let (mut fixture, fake) = fixture(polled()).await;
    fake.script().is_silent.1 = true;
    fixture.settings.limits.call = Duration::from_millis(400);
    let intake = MemoryIntake::new();
    let mut running = fixture.start(intake.resume(), &intake);
    fails(
        &mut running,
        FailureKind::Log,
        "whether it offers bulk export",
    )
    .await;
    // It connects anew, because the answer may be lost with its connection.
    running.fails_with("no answer within").await;
    fake.script().is_silent.1 = false;
    assert_eq!(running.ended().await, Ended::CaughtUp);
    assert_eq!(intake.keys(FeedKind::Audit), ["e"]);
    assert!(fake.script().clients.len() > 1);
}

#[tokio::test]
async fn a_list_and_a_chunk_from_which_nothing_comes_are_shown_until_something_does() {
    let events = (0..5)
        .map(|at| event(&format!("c-{at}"), "user.login", NOW - 1000, at, &[]))
        .collect();
    let chunk = Chunk {
        events,
        hangs_after: Some(3),
        ..Chunk::default()
    };
    let date = Day::of(NOW).to_string();
    let (fixture, fake) = fixture(Script {
        chunks: Some([(date, [("c".to_owned(), chunk)].into())].into()),
        ..Script::default()
    })
    .await;
    let intake = MemoryIntake::new();
    let mut running = fixture.start(intake.resume(), &intake);
    let text = "sent anything of the chunk `c` of 2026-01-08";
    fails(&mut running, FailureKind::Chunk, text).await;
    assert_eq!(intake.keys(FeedKind::Audit).len(), 3);
    {
        let mut script = fake.script();
        let chunks = script.chunks.as_mut().expect("export").values_mut();
        chunks
            .flatten()
            .for_each(|(_, chunk)| chunk.hangs_after = None);
        script.is_silent.1 = true;
    }
    // The list of the day before, whose chunks are listed again and again.
    fails(
        &mut running,
        FailureKind::Log,
        "the request for the chunks of",
    )
    .await;
    fake.script().is_silent.1 = false;
    running
        .shows(|status| {
            !status
                .failures
                .values()
                .any(|it| it.kind == FailureKind::Log)
        })
        .await;
    running.stop().await;
}

#[tokio::test]
async fn a_recording_of_which_nothing_comes_is_shown_until_something_does() {
    let mut script = polled();
    script
        .events
        .push(event("u", "session.upload", NOW - 1000, 0, &[("sid", "a")]));
    let recording = Recording {
        events: vec![event("r", "print", NOW - 2000, 0, &[])],
        hangs: true,
        ..Recording::default()
    };
    script.recordings = Some([("a".to_owned(), recording)].into());
    let (mut fixture, fake) = fixture(script).await;
    fixture.settings.sessions = true;
    fixture.settings.exit_on_last_event = false;
    fixture.settings.limits.call = Duration::from_secs(1);
    let intake = MemoryIntake::new();
    let mut running = fixture.start(intake.resume(), &intake);
    let text = "sent anything of the recording of session `a`";
    let shown = fails(&mut running, FailureKind::Recordings, text).await;
    assert_eq!(shown.recordings_failing, 1);
    {
        let mut script = fake.script();
        let recordings = script.recordings.as_mut().expect("recordings");
        recordings.get_mut("a").expect("it is there").hangs = false;
    }
    running
        .shows(|status| status.recordings_pending == 0 && status.recordings_failing == 0)
        .await;
    running.stop().await;
}
