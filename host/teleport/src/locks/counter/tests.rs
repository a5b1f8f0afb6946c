//! The counter of failed logins: a table of cases, and properties.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;

use super::*;

const NOW: Millis = 1_000_000_000;
const SECOND: Millis = 1000;
const MOMENT: Moment = Moment {
    now: NOW,
    local: NOW,
    delay: 30 * SECOND,
};

fn settings(failed_logins: u32, seconds: u64) -> LockSettings {
    LockSettings {
        failed_logins,
        period: Duration::from_secs(seconds),
        duration: Some(Duration::from_secs(600)),
    }
}

fn counter(failed_logins: u32, seconds: u64) -> Counter {
    Counter::new(settings(failed_logins, seconds), 100, std::iter::empty())
}

fn login(time: Millis, id: u64) -> FailedLogin {
    FailedLogin {
        user: None,
        time,
        id,
    }
}

/// What each failed login of one user leads to: `.` nothing, `=` it was there, `L` a lock, `o` no
/// lock because it is too old. Their times are in seconds before now.
#[track_caller]
fn check(failed_logins: u32, seconds: u64, ago: &[Millis], expected: &str) {
    let mut counter = counter(failed_logins, seconds);
    let found: String = ago
        .iter()
        .enumerate()
        .map(|(id, ago)| {
            let login = login(NOW - ago * SECOND, id as u64);
            match counter.count("ann", &login, MOMENT) {
                Counted::New => '.',
                Counted::Again => '=',
                Counted::Due => 'L',
                Counted::TooLate => 'o',
                Counted::GivenUp => 'x',
            }
        })
        .collect();
    assert_eq!(found, expected, "{failed_logins} in {seconds} s: {ago:?}");
}

#[test]
fn so_many_failed_logins_within_the_period_lock() {
    check(3, 60, &[50, 40, 30], "..L");
    check(3, 60, &[50, 40], "..");
    check(1, 60, &[5, 4], "LL");
    // Spread over more than the period.
    check(3, 60, &[59, 30, 0], "..L");
    check(3, 60, &[60, 30, 0], "...");
    check(3, 60, &[150, 100, 50, 10], "....");
    // They count once.
    check(3, 60, &[50, 40, 30, 20, 10, 0], "..L..L");
    // In another order, as with chunks of an export.
    check(3, 60, &[10, 50, 30], "..L");
    check(3, 60, &[10, 100, 30, 55, 45], "...L.");
}

#[test]
fn what_is_older_than_the_period_locks_nobody() {
    check(3, 60, &[63, 62, 61], "..o");
    check(3, 60, &[3630, 3620, 3610, 3605], "..o.");
    // Read a little late, and the last is not old.
    check(3, 60, &[90, 80, 31], "..L");
    // What was read too late still counts together with what was not.
    check(3, 60, &[63, 62, 61, 20], "..oL");
    // A short period: polling itself takes some seconds.
    check(2, 1, &[25, 25], ".L");
    check(2, 1, &[31, 31], ".o");
}

#[test]
fn the_same_event_counts_once_also_after_a_lock_and_a_restart() {
    let mut counter = counter(2, 60);
    let logins = [login(NOW - 5, 1), login(NOW - 4, 2)];
    assert_eq!(counter.count("ann", &logins[0], MOMENT), Counted::New);
    assert_eq!(counter.count("ann", &logins[0], MOMENT), Counted::Again);
    assert_eq!(counter.count("ann", &logins[1], MOMENT), Counted::Due);
    let stored = counter.take_changes(MOMENT).into_iter();
    let stored = stored.map(|(user, logins)| (user, logins.unwrap()));
    let mut counter = Counter::new(settings(2, 60), 100, stored);
    for login in &logins {
        assert_eq!(counter.count("ann", login, MOMENT), Counted::Again);
    }
    let due = counter.due();
    assert_eq!(due.len(), 1);
    let (user, lock) = due[0].clone();
    assert_eq!(lock.expires, Some(NOW + 600 * SECOND));
    counter.settle(&user, lock);
    assert!(counter.due().is_empty());
}

#[test]
fn a_lock_that_is_due_again_ends_later_and_is_not_settled_by_the_earlier_one() {
    let mut counter = counter(1, 60);
    counter.count("ann", &login(NOW, 1), MOMENT);
    let (user, first) = counter.due().remove(0);
    let later = Moment {
        now: NOW + 30 * SECOND,
        ..MOMENT
    };
    counter.count("ann", &login(later.now, 2), later);
    counter.settle(&user, first);
    let (_, second) = counter.due().remove(0);
    assert_eq!(second.expires, Some(later.now + 600 * SECOND));
}

#[test]
fn many_users_do_not_push_out_the_one_who_is_attacked() {
    let mut counter = counter(3, 60);
    counter.count("ann", &login(NOW, 1), MOMENT);
    counter.count("ann", &login(NOW, 2), MOMENT);
    for id in 0..5000 {
        counter.count(&format!("guess-{id}"), &login(NOW, id), MOMENT);
        assert!(counter.users.len() <= 100);
    }
    assert!(counter.take_forgotten() > 4000);
    assert_eq!(counter.count("ann", &login(NOW, 3), MOMENT), Counted::Due);
}

#[test]
fn a_lock_that_is_due_stays_whatever_other_users_do() {
    let mut counter = counter(3, 60);
    let lock = |counter: &mut Counter, user: &str, id: u64| {
        counter.count(user, &login(NOW, 3 * id), MOMENT);
        counter.count(user, &login(NOW, 3 * id + 1), MOMENT);
        counter.count(user, &login(NOW + id as Millis, 3 * id + 2), MOMENT)
    };
    assert_eq!(lock(&mut counter, "ann", 0), Counted::Due);
    let mut given_up = 0;
    for id in 1..500 {
        match lock(&mut counter, &format!("guess-{id}"), id) {
            Counted::Due => {}
            Counted::GivenUp => given_up += 1,
            counted => panic!("{counted:?}"),
        }
        counter.count(
            &format!("once-{id}"),
            &login(NOW - SECOND, 9000 + id),
            MOMENT,
        );
        assert!(counter.users.len() <= 200);
    }
    assert_eq!(given_up, 400, "each that is not made is counted");
    let due: BTreeMap<_, _> = counter.due().into_iter().collect();
    assert_eq!(due.len(), 100);
    assert!(due.contains_key("ann"), "the oldest stay");
    assert!(due.contains_key("guess-99"));
    // Also after a restart. One that is made leaves room.
    let stored = counter.take_changes(MOMENT).into_iter();
    let stored = stored.filter_map(|(user, logins)| Some((user, logins?)));
    let mut counter = Counter::new(settings(3, 60), 100, stored);
    assert_eq!(lock(&mut counter, "bob", 600), Counted::GivenUp);
    counter.settle("ann", due["ann"]);
    assert_eq!(lock(&mut counter, "eve", 700), Counted::Due);
}

#[test]
fn what_is_stored_is_removed_when_it_is_of_no_use() {
    let mut counter = counter(3, 60);
    counter.count("ann", &login(NOW, 1), MOMENT);
    counter.count("old", &login(NOW - 3_600_000, 2), MOMENT);
    let changes = counter.take_changes(MOMENT);
    let users: Vec<&str> = changes.iter().map(|(user, _)| &**user).collect();
    assert_eq!(users, ["ann"], "a backlog is not stored");
    let later = Moment {
        now: NOW + 3_600_000,
        ..MOMENT
    };
    counter.count("bob", &login(later.now, 3), later);
    let changes: BTreeMap<_, _> = counter.take_changes(later).into_iter().collect();
    assert_eq!(changes["ann"], None);
    assert!(changes["bob"].is_some());
}

/// (user, seconds after the last event, read again, restart)
fn history() -> impl Strategy<Value = Vec<(u8, i64, bool, bool)>> {
    let event = (
        0u8..3,
        0i64..40,
        prop::bool::weighted(0.2),
        prop::bool::weighted(0.1),
    );
    prop::collection::vec(event, 0..60)
}

proptest! {
    /// The model: per user, the times since the last lock; a lock once so many are in a period.
    #[test]
    fn users_are_locked_as_a_model_says_whatever_is_repeated_and_restarted(
        history in history(),
        needed in 1u32..5,
    ) {
        let rule = settings(needed, 60);
        let mut counter = Counter::new(rule, 100, std::iter::empty());
        let mut stored: BTreeMap<String, Logins> = BTreeMap::new();
        let mut model: BTreeMap<u8, Vec<Millis>> = BTreeMap::new();
        let mut now = NOW;
        for (id, (user, seconds, is_repeated, restarts)) in history.into_iter().enumerate() {
            now += seconds * SECOND;
            let moment = Moment { now, ..MOMENT };
            let name = format!("user-{user}");
            let times = model.entry(user).or_default();
            times.push(now);
            times.retain(|time| now - time < 60 * SECOND);
            let is_locked = times.len() >= needed as usize;
            if is_locked {
                times.clear();
            }
            let event = login(now, id as u64);
            let counted = counter.count(&name, &event, moment);
            prop_assert_eq!(counted == Counted::Due, is_locked);
            if is_repeated {
                prop_assert_eq!(counter.count(&name, &event, moment), Counted::Again);
            }
            for (user, logins) in counter.take_changes(moment) {
                match logins {
                    Some(logins) => {
                        // As in the store: text.
                        let text = serde_json::to_string(&logins).unwrap();
                        stored.insert(user, serde_json::from_str(&text).unwrap())
                    }
                    None => stored.remove(&user),
                };
            }
            if restarts {
                let kept = stored.clone().into_iter();
                counter = Counter::new(rule, 100, kept);
            }
        }
    }
}
