//! Locks: a user with too many failed logins is locked by Teleport for a while, if the operator
//! wants it.
//!
//! Failed logins are counted as their events are stored, in the same transaction, so a restart
//! neither forgets nor repeats one. A task of its own makes the locks: reading never waits for it.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use lockgate_model::{CursorUpdate, Millis};
use tokio::sync::{Mutex, MutexGuard, Notify};

use crate::source::Source;
use crate::status::LOCKS;
use crate::{Intake, Resume};

mod counter;
mod locker;
mod login;
mod resource;

pub(crate) use counter::Moment;
use counter::{Counted, Counter, Logins};
pub(crate) use locker::run;
pub(crate) use login::FailedLogin;
pub(crate) use resource::{ask_for_permission, may_read};

/// The cursors of users with failed logins begin so.
pub(crate) const PREFIX: &str = "login/";
/// Users that are to be locked, and other users with failed logins, that are kept in memory.
const USERS_MAX: usize = 10_000;

/// When a user is locked, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LockSettings {
    /// So many failed logins …
    pub failed_logins: u32,
    /// … within this time, by the times of their events.
    pub period: Duration,
    /// `None`: the lock does not expire.
    pub duration: Option<Duration>,
}

/// What became of failed logins. Counts begin at zero when the reader starts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LockFigures {
    /// Failed logins of a user, read for the first time.
    pub failed_logins: u64,
    /// Failed logins whose event names no user that can be locked: the name is missing, too long,
    /// or has control characters.
    pub unnamed: u64,
    /// Locks that were made, or renewed for longer.
    pub made: u64,
    /// Locks that were there already and are in force for long enough, or are somebody else's.
    pub kept: u64,
    /// Locks that could not be made in time, that Teleport refused for good, or that were one too
    /// many of those to be made.
    pub given_up: u64,
    /// The user of the last of these that was tried, and why it was given up.
    pub last_given_up: Option<String>,
    /// Locks that were not made because the failed logins were read too late.
    pub too_late: u64,
    /// Locks that are still to be made.
    pub pending: u64,
    /// Users whose failed logins were forgotten because there were too many users.
    pub forgotten: u64,
    /// When a lock was made last, by the clock of this machine.
    pub made_at: Option<Millis>,
}

/// The failed logins of a source, and the locks that are due.
pub(crate) struct Locks {
    settings: LockSettings,
    logins: Mutex<Counter>,
    /// A lock has become due.
    due: Notify,
    /// A pass over the locks that are due has ended.
    settled: Notify,
    /// When it was last said that failed logins are too old, in milliseconds elapsed.
    said_at: AtomicI64,
}

impl Locks {
    pub(crate) fn new(settings: LockSettings, resume: &Resume) -> Locks {
        let stored = resume.cursors.iter().filter_map(|(key, value)| {
            let user = key.strip_prefix(PREFIX)?;
            let logins: Logins = serde_json::from_str(value).ok()?;
            Some((user.to_owned(), logins))
        });
        Locks {
            settings,
            logins: Mutex::new(Counter::new(settings, USERS_MAX, stored)),
            due: Notify::new(),
            settled: Notify::new(),
            said_at: AtomicI64::new(i64::MIN),
        }
    }

    /// Counts the failed logins of a block. Until what is returned is dropped, no others are
    /// counted, so that the cursors are stored in their order.
    pub(crate) async fn count(&self, logins: &[FailedLogin], moment: Moment) -> Counting<'_> {
        let mut counter = self.logins.lock().await;
        let mut figures = LockFigures::default();
        let mut is_due = false;
        for login in logins {
            let Some(user) = &login.user else {
                figures.unnamed += 1;
                continue;
            };
            let counted = counter.count(user, login, moment);
            figures.failed_logins += u64::from(counted != Counted::Again);
            figures.too_late += u64::from(counted == Counted::TooLate);
            figures.given_up += u64::from(counted == Counted::GivenUp);
            is_due |= counted == Counted::Due;
        }
        let changes = counter.take_changes(moment);
        figures.forgotten = counter.take_forgotten();
        Counting {
            cursors: changes
                .iter()
                .map(|(user, logins)| cursor(user, logins.as_ref()))
                .collect(),
            figures,
            is_due,
            counter,
        }
    }

    /// What has been counted is stored.
    pub(crate) fn counted<I: Intake>(&self, source: &Source<I>, counting: Counting<'_>) {
        let Counting {
            figures: counted,
            is_due,
            counter,
            ..
        } = counting;
        let pending = counter.due_count();
        drop(counter);
        source.status.update_locks(|figures| {
            figures.pending = pending;
            figures.failed_logins += counted.failed_logins;
            figures.unnamed += counted.unnamed;
            figures.too_late += counted.too_late;
            figures.given_up += counted.given_up;
            figures.forgotten += counted.forgotten;
        });
        self.say_who_is_not_locked(source, &counted);
        if is_due {
            self.due.notify_one();
        }
    }

    /// Waits until each lock that is due has been made or has failed, but not for long.
    pub(crate) async fn settle<I: Intake>(&self, source: &Source<I>) {
        let settled = async {
            while !self.logins.lock().await.due().is_empty() {
                let pass = self.settled.notified();
                if self.logins.lock().await.due().is_empty() {
                    break;
                }
                pass.await;
            }
        };
        let limit = source.settings.limits.lock_settle;
        let is_late = tokio::time::timeout(limit, settled).await.is_err();
        // A failure says so already, with its cause.
        if is_late && !source.status.has_failure(LOCKS) {
            tracing::warn!(
                source = &*source.settings.source,
                "not all users with too many failed logins are locked: the next start goes on"
            );
        }
    }

    /// At most once a minute.
    fn say_who_is_not_locked<I: Intake>(&self, source: &Source<I>, counted: &LockFigures) {
        if counted.too_late + counted.given_up + counted.forgotten == 0 || !self.may_say(source) {
            return;
        }
        let name = &*source.settings.source;
        if counted.too_late > 0 {
            tracing::warn!(
                source = name,
                locks = counted.too_late,
                "users had too many failed logins and are not locked, because these were read too \
                 late: they are a backlog, or the clock of this machine is ahead of Teleport's; \
                 `lockgate status` counts the locks that were not made"
            );
        }
        if counted.given_up > 0 {
            tracing::warn!(
                source = name,
                locks = counted.given_up,
                "users had too many failed logins and are not locked, because {USERS_MAX} locks of \
                 other users were still to be made; `lockgate status` counts the locks that were \
                 given up"
            );
        }
        if counted.forgotten > 0 {
            tracing::warn!(
                source = name,
                users = counted.forgotten,
                "failed logins were forgotten, because more than {USERS_MAX} users who are not to \
                 be locked had some: those of the users with the fewest that count; `lockgate \
                 status` counts these users"
            );
        }
    }

    /// Whether nothing was said in the last minute.
    fn may_say<I: Intake>(&self, source: &Source<I>) -> bool {
        const MINUTE: i64 = 60_000;
        let now = source.settings.clock.elapsed().as_millis() as i64;
        let may = now.saturating_sub(self.said_at.load(Ordering::Relaxed)) >= MINUTE;
        if may {
            self.said_at.store(now, Ordering::Relaxed);
        }
        may
    }
}

/// Failed logins that are counted and not stored yet.
pub(crate) struct Counting<'a> {
    counter: MutexGuard<'a, Counter>,
    /// To be stored with the events.
    pub(crate) cursors: Vec<CursorUpdate>,
    figures: LockFigures,
    is_due: bool,
}

/// Removes what is stored of failed logins.
pub(crate) fn left_over(resume: &Resume) -> impl Iterator<Item = CursorUpdate> {
    let keys = resume.cursors.keys();
    let users = keys.filter_map(|key| key.strip_prefix(PREFIX));
    users.map(|user| cursor(user, None))
}

/// The cursor of a user. `None`: nothing of them is kept.
fn cursor(user: &str, logins: Option<&Logins>) -> CursorUpdate {
    CursorUpdate {
        key: format!("{PREFIX}{user}"),
        value: logins.map(|logins| serde_json::to_string(logins).expect("numbers are JSON")),
    }
}
