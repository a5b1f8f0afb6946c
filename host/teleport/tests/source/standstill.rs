//! Waiting for a part of the log that Teleport refuses to return.

use std::time::Duration;

use lockgate_model::{FeedKind, Millis};
use tonic::Status;

use crate::fake::{Fake, Script, event, search};
use crate::fixture::{DAY, Fixture, NOW, SimulatedClock};
use crate::intake::MemoryIntake;

fn instant(time: Option<prost_types::Timestamp>) -> Millis {
    let time = time.unwrap_or_default();
    time.seconds * 1000 + i64::from(time.nanos) / 1_000_000
}

/// The wait began again at each attempt, and never came to its end.
#[tokio::test]
async fn a_wait_that_is_shorter_than_the_searches_ends() {
    let mut fixture = Fixture::new();
    let clock = SimulatedClock::new();
    let (slow, bad) = (clock.clone(), NOW - DAY + 500);
    let times = [NOW - DAY, bad, NOW - DAY + 1000];
    let events = times
        .iter()
        .map(|&time| event(&format!("e{time}"), "user.login", time, 0, &[]))
        .collect();
    let script = Script {
        search: Box::new(move |request, events, calls| {
            slow.pass(3000);
            let (from, to) = (instant(request.start_date), instant(request.end_date));
            match from <= bad && bad <= to {
                true => Err(Status::internal("the partition cannot be read")),
                false => Ok(search(request, events, calls)),
            }
        }),
        events,
        ..Script::default()
    };
    let fake = Fake::start(&fixture.authority, script).await;
    fixture.settings.address = fake.address.to_string();
    fixture.settings.start_time = Some(NOW - DAY - 1000);
    fixture.settings.clock = clock;
    fixture.settings.limits.gap_after = Some(Duration::from_secs(1));
    let intake = MemoryIntake::new();
    let status = fixture.read(&intake).await;
    assert_eq!(status.gaps_open, 1, "{status:?}");
    assert_eq!(intake.keys(FeedKind::Audit).len(), 2);
}

/// Reading was said to go on at a certain time, although it cannot before Teleport answers.
#[tokio::test]
async fn nothing_is_promised_while_everything_is_refused() {
    let mut fixture = Fixture::new();
    let script = Script {
        search: Box::new(|_, _, _| Err(Status::internal("the backend is away"))),
        ..Script::default()
    };
    let fake = Fake::start(&fixture.authority, script).await;
    fixture.settings.address = fake.address.to_string();
    let intake = MemoryIntake::new();
    let mut running = fixture.start(intake.resume(), &intake);
    let message = running.fails_with("`gap-after`").await;
    let condition = "if Teleport then returns what comes later, reading goes on after it";
    assert!(message.contains(condition), "{message}");
    running
        .fails_with("nothing shows that Teleport can return what comes after it")
        .await;
    assert!(intake.gaps().is_empty());
    running.stop().await;
}
