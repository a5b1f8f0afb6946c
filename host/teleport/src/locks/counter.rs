//! Counts failed logins for each user, by the times of their events. Pure.

use std::collections::{BTreeMap, BTreeSet};

use lockgate_model::Millis;
use serde::{Deserialize, Serialize};

use super::{FailedLogin, LockSettings};

/// Failed logins that are kept of a user at least. Twice as many as lock are always kept.
const KEPT: usize = 32;

/// The times that failed logins are compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moment {
    /// The time at Teleport, as far as it is known: by the newest event, or by our own clock.
    pub(crate) now: Millis,
    /// The same moment by our own clock.
    pub(crate) local: Millis,
    /// How late events are usually read, in milliseconds.
    pub(crate) delay: Millis,
}

/// What a failed login leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Counted {
    New,
    /// It was counted before.
    Again,
    /// A lock is due.
    Due,
    /// A lock would be due if the failed logins had been read in time.
    TooLate,
    /// A lock would be due if there were not too many already.
    GivenUp,
}

/// The failed logins of all users.
pub(crate) struct Counter {
    settings: LockSettings,
    users: BTreeMap<String, Logins>,
    /// How many of them are to be locked.
    due: usize,
    /// So many users are to be locked at most, and so many others are kept. Neither push out the
    /// other: whoever tries many names must not save one of them from being locked.
    users_max: usize,
    /// Users whose cursors are to be written.
    touched: BTreeSet<String>,
    forgotten: u64,
}

/// The failed logins of a user, as their cursor keeps them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Logins {
    /// In the order of their times.
    failed: Vec<Attempt>,
    /// A lock that is to be made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) due: Option<DueLock>,
    /// The store has them.
    #[serde(skip)]
    is_stored: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Attempt {
    time: Millis,
    id: u64,
    /// It has led to a lock and counts no more. It is kept so that its event is recognised.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    used: bool,
    /// It was said that a lock was not made because it was read too late.
    #[serde(skip)]
    said: bool,
}

/// A lock that is to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DueLock {
    /// By Teleport's clock, as `expires`.
    pub(crate) since: Millis,
    /// By our own clock, which tells how long the lock has waited.
    #[serde(default)]
    pub(crate) noted: Millis,
    /// `None`: never.
    pub(crate) expires: Option<Millis>,
}

impl Counter {
    pub(crate) fn new(
        settings: LockSettings,
        users_max: usize,
        stored: impl Iterator<Item = (String, Logins)>,
    ) -> Counter {
        let stored = stored.map(|(user, mut logins)| {
            logins.is_stored = true;
            logins.failed.sort_unstable();
            (user, logins)
        });
        let users: BTreeMap<_, _> = stored.collect();
        Counter {
            settings,
            due: users.values().filter(|logins| logins.due.is_some()).count(),
            users,
            users_max,
            touched: BTreeSet::new(),
            forgotten: 0,
        }
    }

    /// Counts a failed login. Its user must be known.
    pub(crate) fn count(&mut self, user: &str, login: &FailedLogin, moment: Moment) -> Counted {
        let needed = self.settings.failed_logins.max(1) as usize;
        let period = self.period();
        let logins = self.users.entry(user.to_owned()).or_default();
        let attempt = Attempt {
            time: login.time,
            id: login.id,
            used: false,
            said: false,
        };
        let mut known = logins.failed.iter();
        if known.any(|known| (known.time, known.id) == (attempt.time, attempt.id)) {
            return Counted::Again;
        }
        let at = logins.failed.partition_point(|known| *known < attempt);
        logins.failed.insert(at, attempt);
        let kept = KEPT.max(2 * needed);
        if logins.failed.len() > kept {
            logins.failed.remove(0);
        }
        self.touched.insert(user.to_owned());
        let is_old = |last: Millis| moment.now.saturating_sub(last) > period.max(moment.delay);
        let reached = logins.reached(needed, period, |attempt| !attempt.used);
        let counted = match reached {
            None => Counted::New,
            Some(last) if !is_old(last) => {
                logins.up_to(last, |attempt| attempt.used = true);
                let is_new = logins.due.is_none();
                // Those that have waited longer stay.
                if is_new && self.due >= self.users_max {
                    Counted::GivenUp
                } else {
                    self.due += usize::from(is_new);
                    let expires = self.settings.duration;
                    // Teleport's clock has shown the event's time.
                    logins.make_due(
                        moment.now.max(last),
                        moment.local,
                        expires.map(|it| it.as_millis() as Millis),
                    );
                    Counted::Due
                }
            }
            // They may still be part of what locks together with later ones.
            Some(_) => {
                let said = |attempt: &Attempt| !attempt.used && !attempt.said;
                match logins.reached(needed, period, said) {
                    Some(last) => {
                        logins.up_to(last, |attempt| attempt.said = true);
                        Counted::TooLate
                    }
                    None => Counted::New,
                }
            }
        };
        self.bound(moment);
        counted
    }

    /// The users whose cursors have to be written, with what is to be kept of them.
    pub(crate) fn take_changes(&mut self, moment: Moment) -> Vec<(String, Option<Logins>)> {
        self.prune(moment);
        let oldest = self.oldest_of_use(moment);
        let touched = std::mem::take(&mut self.touched);
        let changes = touched.into_iter().filter_map(|user| {
            let Some(logins) = self.users.get_mut(&user) else {
                return Some((user, None));
            };
            // A backlog is counted in memory alone.
            let is_of_use = logins.due.is_some() || oldest <= logins.newest();
            logins.is_stored |= is_of_use;
            is_of_use.then(|| (user, Some(logins.clone())))
        });
        changes.collect()
    }

    /// The locks that are to be made.
    pub(crate) fn due(&self) -> Vec<(String, DueLock)> {
        let due = self.users.iter();
        due.filter_map(|(user, logins)| Some((user.clone(), logins.due?)))
            .collect()
    }

    /// How many these are.
    pub(crate) fn due_count(&self) -> u64 {
        self.due as u64
    }

    /// That lock has been made, or has been given up. Returns what is left of its user.
    pub(crate) fn settle(&mut self, user: &str, lock: DueLock) -> Option<&Logins> {
        if let Some(logins) = self.users.get_mut(user)
            && logins.due == Some(lock)
        {
            logins.due = None;
            self.due -= 1;
        }
        if self.users.get(user).is_some_and(Logins::is_empty) {
            self.users.remove(user);
        }
        self.users.get(user)
    }

    /// Users that were forgotten since the last call, because there were too many.
    pub(crate) fn take_forgotten(&mut self) -> u64 {
        std::mem::take(&mut self.forgotten)
    }

    fn period(&self) -> Millis {
        self.settings.period.as_millis() as Millis
    }

    /// Failed logins before this time are of no use any more: none of a later window.
    fn oldest_of_use(&self, moment: Moment) -> Millis {
        let period = self.period();
        let age = period.max(moment.delay).saturating_add(period);
        moment.now.saturating_sub(age)
    }

    /// Forgets what is of no use any more. What of it is stored is removed there, too.
    fn prune(&mut self, moment: Moment) {
        let oldest = self.oldest_of_use(moment);
        let touched = &mut self.touched;
        self.users.retain(|user, logins| {
            if !logins.is_stored {
                return true;
            }
            let before = logins.failed.len();
            logins.failed.retain(|attempt| oldest <= attempt.time);
            if logins.failed.len() < before {
                touched.insert(user.clone());
            }
            !logins.is_empty()
        });
    }

    /// Keeps at most so many users who are not to be locked: those with the most failed logins that
    /// count, and of equal ones those with the newest.
    fn bound(&mut self, moment: Moment) {
        let others = self.users.len() - self.due;
        if others <= self.users_max {
            return;
        }
        let oldest = self.oldest_of_use(moment);
        let mut order: Vec<_> = self
            .users
            .iter()
            .filter(|(_, logins)| logins.due.is_none())
            .map(|(user, logins)| {
                let is_of_use = oldest <= logins.newest();
                let rank = (is_of_use, logins.unused());
                (rank, logins.newest(), user.clone())
            })
            .collect();
        order.sort_unstable();
        // Several at once, so that this is rare.
        let removed = others - self.users_max + self.users_max / 8;
        for ((is_of_use, _), _, user) in order.into_iter().take(removed) {
            let logins = self.users.remove(&user);
            self.touched.remove(&user);
            self.forgotten += u64::from(is_of_use);
            if logins.is_some_and(|logins| logins.is_stored) {
                self.touched.insert(user);
            }
        }
    }
}

impl Logins {
    fn newest(&self) -> Millis {
        self.failed.last().map_or(Millis::MIN, |last| last.time)
    }

    fn unused(&self) -> usize {
        self.failed.iter().filter(|attempt| !attempt.used).count()
    }

    fn is_empty(&self) -> bool {
        self.failed.is_empty() && self.due.is_none()
    }

    /// The time of the last of so many failed logins within a period, of those that count. The
    /// newest such if there are several.
    fn reached(
        &self,
        needed: usize,
        period: Millis,
        counts: impl Fn(&Attempt) -> bool,
    ) -> Option<Millis> {
        let counted = self.failed.iter().filter(|attempt| counts(attempt));
        let times: Vec<Millis> = counted.map(|attempt| attempt.time).collect();
        let mut windows = times.windows(needed).rev();
        windows
            .find(|window| window[needed - 1].saturating_sub(window[0]) < period)
            .map(|window| window[needed - 1])
    }

    fn up_to(&mut self, last: Millis, mark: impl Fn(&mut Attempt)) {
        let attempts = self.failed.iter_mut();
        attempts
            .filter(|attempt| attempt.time <= last)
            .for_each(mark);
    }

    /// A lock is to be made. One that is due already may end later.
    fn make_due(&mut self, now: Millis, noted: Millis, duration: Option<Millis>) {
        let expires = duration.map(|duration| now.saturating_add(duration));
        let before = self.due.map_or(expires, |due| due.expires);
        self.due = Some(DueLock {
            since: now,
            noted,
            expires: before.zip(expires).map(|(a, b)| a.max(b)),
        });
    }
}

#[cfg(test)]
mod tests;
