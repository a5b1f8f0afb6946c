//! Locks of users with too many failed logins: what Teleport is asked for, and what is shown.

use std::sync::Arc;
use std::time::Duration;

use lockgate_model::Millis;
use lockgate_teleport::proto::auditlog::EventUnstructured;
use lockgate_teleport::proto::authservice::{LockSpecV2, LockTarget, LockV2, Metadata};
use lockgate_teleport::{FailureKind, LockFigures, LockSettings, ReaderStatus};
use prost::Message;
use prost_types::value::Kind;
use prost_types::{Struct, Value};
use tonic::Status;

use crate::fake::{Chunk, Fake, Script, event};
use crate::fixture::{DAY, Fixture, NOW};
use crate::intake::MemoryIntake;

const SECOND: Millis = 1000;
const HOUR: Millis = 3_600_000;

/// A login of a user, so long before now, in milliseconds.
fn login(uid: &str, user: &str, ago: Millis, success: bool) -> EventUnstructured {
    login_at(uid, user, NOW - ago, success)
}

pub fn login_at(uid: &str, user: &str, time: Millis, success: bool) -> EventUnstructured {
    let mut event = event(uid, "user.login", time, 0, &[("user", user)]);
    let mut payload = Struct::decode(&event.unstructured[..]).unwrap();
    let success = Value {
        kind: Some(Kind::BoolValue(success)),
    };
    payload.fields.insert("success".to_owned(), success);
    event.unstructured = payload.encode_to_vec().into();
    event
}

/// Failed logins of a user, so long before now.
fn failed(user: &str, ago: &[Millis]) -> Vec<EventUnstructured> {
    let login = |ago: &Millis| login(&format!("{user}-{ago}"), user, *ago, false);
    ago.iter().map(login).collect()
}

fn settings(duration: Option<Duration>) -> LockSettings {
    LockSettings {
        failed_logins: 3,
        period: Duration::from_secs(60),
        duration,
    }
}

struct Locked {
    fixture: Fixture,
    fake: Fake,
    intake: Arc<MemoryIntake>,
}

impl Locked {
    async fn new(script: Script) -> Locked {
        let mut fixture = Fixture::new();
        let fake = Fake::start(&fixture.authority, script).await;
        fixture.settings.address = fake.address.to_string();
        fixture.settings.locks = Some(settings(Some(Duration::from_secs(600))));
        fixture.settings.limits.lock_wait = (Duration::from_millis(1), Duration::from_millis(20));
        Locked {
            fixture,
            fake,
            intake: MemoryIntake::new(),
        }
    }

    async fn with(events: Vec<EventUnstructured>) -> Locked {
        Locked::new(Script {
            events,
            ..Script::default()
        })
        .await
    }

    /// Reads to the end of the log.
    async fn read(&self) -> LockFigures {
        let status = self.fixture.read(&self.intake).await;
        status.locks.expect("locks are wanted")
    }

    /// The names and the users of the locks that were made.
    fn made(&self) -> Vec<String> {
        let script = self.fake.script();
        let made = script.made_locks.iter();
        let user = |lock: &LockV2| lock.spec.clone().unwrap().target.unwrap().user;
        made.map(user).collect()
    }
}

fn lock(user: &str, message: &str, expires: Option<Millis>) -> LockV2 {
    LockV2 {
        metadata: Some(Metadata {
            name: format!("event-handler-auto-lock-{user}-"),
        }),
        spec: Some(LockSpecV2 {
            target: Some(LockTarget {
                user: user.to_owned(),
                ..LockTarget::default()
            }),
            message: message.to_owned(),
            expires: expires.map(|expires| prost_types::Timestamp {
                seconds: expires / 1000,
                nanos: 0,
            }),
        }),
        ..LockV2::default()
    }
}

#[tokio::test]
async fn a_user_with_three_failed_logins_is_locked_as_the_event_handler_locks() {
    let mut events = failed("ann", &[9000, 8000, 7000]);
    // Neither of these is, and a login in between does not help.
    events.extend(failed("bob", &[9000, 8000]));
    events.push(login("success", "ann", 7500, true));
    events.extend(failed("eve", &[200_000, 130_000, 60_500]));
    let locked = Locked::with(events).await;
    let figures = locked.read().await;
    assert_eq!(locked.made(), ["ann"]);
    let made = locked.fake.script().made_locks[0].clone();
    assert_eq!((&*made.kind, &*made.version), ("lock", "v2"));
    let name = made.metadata.unwrap().name;
    assert_eq!(name, "event-handler-auto-lock-ann-");
    let spec = made.spec.unwrap();
    let message = "User is locked due to too many failed login attempts";
    assert_eq!(spec.message, message);
    let target = spec.target.unwrap();
    assert_eq!((&*target.login, &*target.role), ("", ""));
    let expires = spec.expires.unwrap().seconds * 1000 - NOW;
    assert!((599_000..=700_000).contains(&expires), "{expires}");
    let expected = LockFigures {
        failed_logins: 8,
        made: 1,
        made_at: figures.made_at,
        ..LockFigures::default()
    };
    assert_eq!(figures, expected);
    // What is read again locks nobody again.
    let again = locked.read().await;
    assert_eq!((again.made, again.failed_logins), (0, 0));
    assert_eq!(locked.made(), ["ann"]);
    let versions = &locked.fake.script().versions;
    assert!(versions.iter().all(|it| it.as_deref() == Some("17.2.1")));
}

#[tokio::test]
async fn a_lock_without_a_duration_does_not_expire() {
    let mut locked = Locked::with(failed("ann", &[9000, 8000, 7000])).await;
    locked.fixture.settings.locks = Some(settings(None));
    locked.read().await;
    let made = locked.fake.script().made_locks[0].clone();
    assert_eq!(made.spec.unwrap().expires, None);
}

#[tokio::test]
async fn nobody_is_locked_if_that_is_not_wanted() {
    let mut locked = Locked::with(failed("ann", &[9000, 8000, 7000])).await;
    locked.fixture.settings.locks = None;
    let status = locked.fixture.read(&locked.intake).await;
    assert_eq!((status.locks, locked.made().len()), (None, 0));
}

#[tokio::test]
async fn a_backlog_locks_nobody_and_that_is_counted() {
    let old = [3 * HOUR, 3 * HOUR - 1000, 3 * HOUR - 2000];
    for chunks in [false, true] {
        let events = failed("ann", &old);
        let script = if chunks {
            let chunk = Chunk {
                events,
                ..Chunk::default()
            };
            let day = lockgate_model::Day::of(NOW).to_string();
            Script {
                chunks: Some([(day, [("one".to_owned(), chunk)].into())].into()),
                ..Script::default()
            }
        } else {
            Script {
                events,
                ..Script::default()
            }
        };
        let locked = Locked::new(script).await;
        let figures = locked.read().await;
        let counts = (figures.made, figures.too_late, figures.failed_logins);
        assert_eq!(counts, (0, 1, 3), "export: {chunks}");
        assert!(locked.made().is_empty());
        let cursors = locked.intake.contents().cursors;
        assert!(!cursors.keys().any(|key| key.starts_with("login/")));
    }
}

/// Teleport exports what it has collected for some minutes.
#[tokio::test]
async fn what_an_export_brings_minutes_later_still_locks() {
    let mut chunks = std::collections::BTreeMap::new();
    for (name, ago) in [("a", 240), ("b", 290), ("c", 250)] {
        let chunk = Chunk {
            events: failed("ann", &[ago * SECOND]),
            ..Chunk::default()
        };
        chunks.insert(name.to_owned(), chunk);
    }
    let day = lockgate_model::Day::of(NOW).to_string();
    let script = Script {
        chunks: Some([(day, chunks)].into()),
        ..Script::default()
    };
    let locked = Locked::new(script).await;
    assert_eq!(locked.read().await.made, 1);
    assert_eq!(locked.made(), ["ann"]);
}

#[tokio::test]
async fn a_count_survives_a_restart() {
    let locked = Locked::with(failed("ann", &[9000, 8000])).await;
    assert_eq!(locked.read().await.made, 0);
    let more = failed("ann", &[7000]);
    locked.fake.script().events.extend(more);
    let figures = locked.read().await;
    assert_eq!((figures.made, figures.failed_logins), (1, 1));
    assert_eq!(locked.made(), ["ann"]);
}

#[tokio::test]
async fn a_count_is_forgotten_when_locks_are_not_wanted_any_more() {
    let mut locked = Locked::with(failed("ann", &[9000, 8000])).await;
    locked.read().await;
    let stored = |locked: &Locked| {
        let cursors = locked.intake.contents().cursors;
        cursors.keys().any(|key| key.starts_with("login/"))
    };
    assert!(stored(&locked));
    locked.fixture.settings.locks = None;
    locked.fixture.read(&locked.intake).await;
    assert!(!stored(&locked));
}

#[tokio::test]
async fn what_somebody_else_has_locked_is_neither_replaced_nor_shortened() {
    let ours = "User is locked due to too many failed login attempts";
    for (lock, is_made) in [
        (
            lock("ann", "left the company", Some(NOW + HOUR / 12)),
            false,
        ),
        (lock("ann", ours, None), false),
        (lock("ann", ours, Some(NOW + HOUR)), false),
        // Ours, and it ends earlier.
        (lock("ann", ours, Some(NOW + HOUR / 12)), true),
        (lock("ann", "left the company", Some(NOW - HOUR)), true),
    ] {
        let locked = Locked::with(failed("ann", &[9000, 8000, 7000])).await;
        let name = lock.metadata.clone().unwrap().name;
        let before = lock.clone();
        locked.fake.script().locks.insert(name.clone(), lock);
        let figures = locked.read().await;
        let expected = if is_made { (1, 0) } else { (0, 1) };
        assert_eq!((figures.made, figures.kept), expected, "{before:?}");
        let unchanged = locked.fake.script().locks[&name] == before;
        assert_eq!(unchanged, !is_made);
    }
}

#[tokio::test]
async fn a_role_that_may_not_read_locks_makes_them_all_the_same() {
    let locked = Locked::with(failed("ann", &[9000, 8000, 7000])).await;
    let denied = "access denied to perform action \"read\" on \"lock\"";
    locked.fake.script().lock_faults.1 = Some(Status::permission_denied(denied));
    assert_eq!(locked.read().await.made, 1);
}

fn locks_fail(status: &ReaderStatus) -> Option<String> {
    let mut failures = status.failures.values();
    let failure = failures.find(|failure| failure.kind == FailureKind::Locks)?;
    Some(failure.message.clone())
}

#[tokio::test]
async fn a_role_without_the_permission_is_told_and_does_not_stop_reading() {
    let mut locked = Locked::with(failed("ann", &[9000, 8000])).await;
    locked.fixture.settings.exit_on_last_event = false;
    let text = "access denied to perform action \"create\" on \"lock\", access denied to perform \
                action \"update\" on \"lock\"";
    locked.fake.script().lock_faults.0 = Some(Status::permission_denied(text));
    let mut running = locked.fixture.start(locked.intake.resume(), &locked.intake);
    // Before any user is to be locked.
    let status = running.shows(|status| locks_fail(status).is_some()).await;
    let message = locks_fail(&status).unwrap();
    assert!(message.contains("would not be locked"), "{message}");
    assert!(
        message.contains("`create`, `update` and `read` on `lock`"),
        "{message}"
    );
    locked.fake.script().events.extend(failed("ann", &[7000]));
    let shown = |status: &ReaderStatus| {
        locks_fail(status).is_some_and(|message| message.contains("`ann` had too many"))
    };
    running.shows(shown).await;
    let later = event("later", "role.created", NOW - 5000, 0, &[]);
    locked.fake.script().events.push(later);
    running.shows(|status| status.events == 4).await;
    // Also over a restart.
    running.stop().await;
    let mut running = locked.fixture.start(locked.intake.resume(), &locked.intake);
    running.shows(shown).await;
    locked.fake.script().lock_faults.0 = None;
    let status = running
        .shows(|status| status.locks.as_ref().is_some_and(|locks| locks.made == 1))
        .await;
    assert_eq!(status.losses, 0);
    running.shows(|status| locks_fail(status).is_none()).await;
    running.stop().await;
    assert_eq!(locked.made(), ["ann"]);
}

/// The first in the order of their names kept all others from being locked.
#[tokio::test]
async fn users_who_may_not_be_locked_keep_no_other_from_being_locked() {
    let protected = ["a", "b", "c", "d"].map(str::to_owned);
    let of = |users: &[String]| -> Vec<EventUnstructured> {
        let users = users.iter();
        users
            .flat_map(|user| failed(user, &[9000, 8000, 7000]))
            .collect()
    };
    let mut locked = Locked::with(of(&protected)).await;
    locked.fixture.settings.exit_on_last_event = false;
    locked.fake.script().protected = protected.to_vec();
    let mut running = locked.fixture.start(locked.intake.resume(), &locked.intake);
    let made = |status: &ReaderStatus, made, pending| {
        let figures = status.locks.as_ref();
        figures.is_some_and(|it| (it.made, it.pending) == (made, pending))
    };
    running.shows(|status| made(status, 0, 4)).await;
    let others = ["e", "f"].map(str::to_owned);
    locked.fake.script().events.extend(of(&others));
    let status = running.shows(|status| made(status, 2, 4)).await;
    let message = locks_fail(&status).unwrap_or_default();
    assert!(message.contains("access denied to this user"), "{message}");
    locked.fake.script().protected.clear();
    running.shows(|status| made(status, 6, 0)).await;
    running.shows(|status| locks_fail(status).is_none()).await;
    running.stop().await;
}

#[tokio::test]
async fn a_lock_that_teleport_refuses_for_good_is_given_up_and_shown() {
    let locked = Locked::with(failed("ann", &[9000, 8000, 7000])).await;
    let refused = Status::invalid_argument("special characters are not allowed");
    locked.fake.script().lock_faults.0 = Some(refused);
    let status = locked.fixture.read(&locked.intake).await;
    let figures = status.locks.unwrap();
    assert_eq!((figures.made, figures.given_up), (0, 1));
    let why = figures.last_given_up.unwrap();
    assert!(why.contains("`ann`") && why.contains("special"), "{why}");
    // A report raises the alarm that events are missing.
    assert_eq!((status.reports, status.last_report_at), (0, None));
    assert_eq!(status.losses, 0, "every event was read");
}

#[tokio::test]
async fn a_lock_of_that_name_that_locks_something_else_is_named_with_the_way_out() {
    let locked = Locked::with(failed("ann", &[9000, 8000, 7000])).await;
    let mut other = lock("ann", "changed", None);
    other.spec.as_mut().unwrap().target.as_mut().unwrap().user = "bob".to_owned();
    let name = other.metadata.clone().unwrap().name;
    locked.fake.script().locks.insert(name, other);
    let status = locked.fixture.read(&locked.intake).await;
    assert!(locked.made().is_empty());
    let figures = status.locks.unwrap();
    assert_eq!(figures.given_up, 1);
    let why = figures.last_given_up.unwrap();
    let way_out = "`tctl rm lock/event-handler-auto-lock-ann-`";
    assert!(
        why.contains("something else") && why.contains(way_out),
        "{why}"
    );
    assert_eq!(status.last_report_at, None);
}

#[tokio::test]
async fn a_lock_that_cannot_be_made_before_it_would_end_is_given_up() {
    let mut locked = Locked::with(failed("ann", &[9000, 8000, 7000])).await;
    locked.fixture.settings.exit_on_last_event = false;
    let denied = Status::permission_denied("access denied");
    locked.fake.script().lock_faults.0 = Some(denied);
    let mut running = locked.fixture.start(locked.intake.resume(), &locked.intake);
    running.shows(|status| locks_fail(status).is_some()).await;
    running
        .shows(|status| status.locks.as_ref().is_some_and(|it| it.pending == 1))
        .await;
    locked.fixture.clock.advance(DAY);
    running
        .shows(|status| status.locks.as_ref().is_some_and(|it| it.given_up == 1))
        .await;
    // Nothing is due, and the role still does not allow it.
    let shown = |status: &ReaderStatus| {
        locks_fail(status).is_some_and(|message| message.contains("would not be locked"))
    };
    running.shows(shown).await;
    locked.fake.script().lock_faults.0 = None;
    running.shows(|status| locks_fail(status).is_none()).await;
    running.stop().await;
    assert!(locked.made().is_empty());
}

#[tokio::test]
async fn a_lock_that_teleport_does_not_answer_is_told_and_tried_again() {
    let mut locked = Locked::with(failed("ann", &[9000, 8000])).await;
    locked.fixture.settings.exit_on_last_event = false;
    assert!(locked.fixture.settings.limits.lock_call <= Duration::from_secs(10));
    locked.fixture.settings.limits.lock_call = Duration::from_millis(50);
    locked.fake.script().locks_hang = true;
    let mut running = locked.fixture.start(locked.intake.resume(), &locked.intake);
    let shown = |status: &ReaderStatus| {
        let message = locks_fail(status).unwrap_or_default();
        message.contains("would not be locked") && message.contains("no answer within")
    };
    running.shows(shown).await;
    locked.fake.script().events.extend(failed("ann", &[7000]));
    let shown = |status: &ReaderStatus| {
        let message = locks_fail(status).unwrap_or_default();
        message.contains("`ann` had too many") && message.contains("no answer within")
    };
    let status = running.shows(shown).await;
    let kinds = status.failures.values().map(|failure| failure.kind);
    assert!(kinds.into_iter().all(|kind| kind == FailureKind::Locks));
    locked.fake.script().locks_hang = false;
    running.shows(|status| locks_fail(status).is_none()).await;
    running.stop().await;
    assert_eq!(locked.made(), ["ann"]);
}

/// Too little is read for the difference of the clocks to be measured, or it is an export.
#[tokio::test]
async fn a_clock_that_is_ahead_keeps_nobody_from_being_locked_once_all_has_been_read() {
    for exports in [false, true] {
        let first = vec![event("first", "role.created", NOW - HOUR, 0, &[])];
        let day = lockgate_model::Day::of(NOW).to_string();
        let chunk = |events: Vec<EventUnstructured>| Chunk {
            events,
            ..Chunk::default()
        };
        let script = match exports {
            true => Script {
                chunks: Some([(day.clone(), [("a".to_owned(), chunk(first))].into())].into()),
                ..Script::default()
            },
            false => Script {
                events: first,
                ..Script::default()
            },
        };
        let mut locked = Locked::new(script).await;
        locked.fixture.settings.exit_on_last_event = false;
        let mut running = locked.fixture.start(locked.intake.resume(), &locked.intake);
        running
            .shows(|status| status.events == 1 && status.complete_at.is_some())
            .await;
        // The clock of this machine shows an hour more than Teleport's.
        let logins = failed("ann", &[HOUR - 1000, HOUR - 2000, HOUR - 3000]);
        {
            let mut script = locked.fake.script();
            match &mut script.chunks {
                Some(chunks) => {
                    let chunks = chunks.get_mut(&day).unwrap();
                    chunks.insert("b".to_owned(), chunk(logins));
                }
                None => script.events.extend(logins),
            }
        }
        let decided = |status: &ReaderStatus| {
            let figures = status.locks.clone().unwrap_or_default();
            figures.made + figures.too_late + figures.given_up > 0
        };
        let status = running.shows(decided).await;
        running.stop().await;
        assert_eq!(status.locks.unwrap().made, 1, "export: {exports}");
        let made = locked.fake.script().made_locks[0].clone();
        let expires = made.spec.unwrap().expires.unwrap().seconds * 1000;
        let after = expires - (NOW - HOUR);
        assert!((600_000..660_000).contains(&after), "by Teleport: {after}");
    }
}
