//! Makes the locks that are due, and tries again for as long as they are of use.

use std::collections::BTreeSet;
use std::time::Duration;

use lockgate_backoff::Backoff;
use lockgate_model::{FeedKind, Millis};
use tonic::{Code, Status};

use super::counter::DueLock;
use super::resource::{Existing, ask_for_permission, lock_of, name};
use super::{Locks, cursor};
use crate::connect::Failure;
use crate::proto::authservice::GetLockRequest;
use crate::source::Source;
use crate::status::LOCKS;
use crate::time::{time, words};
use crate::{Closed, Intake, LockSettings};

/// A lock that cannot be made for so long is given up. One that expires is of use no longer than
/// that.
const PATIENCE: Millis = 3_600_000;

/// After so many failures in a row the others would probably fail, too. They are tried first the
/// next time, so none waits for ever for those that fail.
const FAILED_IN_A_ROW_MAX: u32 = 3;

const TOO_LATE: &str = "it could not be made in time";

const UNTIL_REMOVED: &str = "somebody removes the lock";

/// Makes locks for as long as it is polled. Ends only with the intake.
pub(crate) async fn run<I: Intake>(source: &Source<I>) -> Result<(), Closed> {
    let Some(locks) = &source.locks else {
        return std::future::pending().await;
    };
    let (first, longest) = source.settings.limits.lock_wait;
    let mut locker = Locker {
        source,
        locks,
        reads: true,
        failed: BTreeSet::new(),
        backoff: Backoff::new(first, longest),
    };
    let LockSettings {
        failed_logins,
        period,
        duration,
    } = locks.settings;
    let until = match duration {
        Some(duration) => format!("for {}", words(duration)),
        None => format!("until {UNTIL_REMOVED}"),
    };
    tracing::info!(
        source = &*source.settings.source,
        "users with {failed_logins} failed logins within {} are locked {until}",
        words(period)
    );
    // Whether the role allows it is known before the first lock is due.
    let mut pass = Pass::Wait;
    loop {
        let due = locks.logins.lock().await.due();
        let pending = due.len() as u64;
        source
            .status
            .update_locks(|figures| figures.pending = pending);
        pass = match due.is_empty() {
            true if pass == Pass::Done => {
                locks.settled.notify_waiters();
                locks.due.notified().await;
                continue;
            }
            true if locker.ask().await => Pass::Done,
            true => Pass::Wait,
            false => locker.make(due).await?,
        };
        locks.settled.notify_waiters();
        if pass == Pass::Done {
            locker.backoff.reset();
            source.status.clear_failure(LOCKS);
            continue;
        }
        let wait = locker.backoff.next(source.settings.clock.chance());
        let waited = source.settings.clock.sleep(wait);
        match pass {
            Pass::WaitUnlessDue => tokio::select! {
                () = waited => {}
                () = locks.due.notified() => {}
            },
            _ => waited.await,
        }
    }
}

struct Locker<'a, I> {
    source: &'a Source<I>,
    locks: &'a Locks,
    /// The role allows to read locks, as far as it is known.
    reads: bool,
    /// The users whose locks failed in the last pass.
    failed: BTreeSet<String>,
    backoff: Backoff,
}

/// What became of a lock that was due.
enum Outcome {
    Made,
    /// A lock of that name is in force for as long, or is somebody else's.
    Kept,
    /// Trying again does not help.
    Refused(String),
    TooLate,
}

/// What follows an attempt to make the locks that are due.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pass {
    /// None is left that could not be made, and others could be.
    Done,
    /// Others would probably fail, too.
    Wait,
    /// Some failed, and those of other users may be made.
    WaitUnlessDue,
}

impl<I: Intake> Locker<'_, I> {
    /// Whether locks could be made. If not, that is shown.
    async fn ask(&self) -> bool {
        let source = self.source;
        let mut connection = source.connector.connection().await;
        let address = &source.settings.address;
        let asking = ask_for_permission(&mut connection.locks, address);
        let limit = source.settings.limits.lock_call;
        let (failure, is_shown) = match tokio::time::timeout(limit, asking).await {
            Ok(Ok(())) => return true,
            Ok(Err(failure)) => {
                source.connector.failed(connection.id, &failure).await;
                // A connection that fails is shown already.
                let is_shown = !failure.is_connection();
                (failure, is_shown)
            }
            Err(_) => (no_answer(limit), true),
        };
        if is_shown {
            let what = "users with too many failed logins would not be locked";
            let message = format!("{what}: {}", explain(&failure));
            source.status.set_failure(LOCKS, message);
        }
        false
    }

    /// Makes locks: those first that did not fail the last time.
    async fn make(&mut self, mut due: Vec<(String, DueLock)>) -> Result<Pass, Closed> {
        let source = self.source;
        let count = due.len();
        due.sort_by_key(|(user, _)| self.failed.contains(user));
        let (mut failed, mut is_allowed) = (Vec::new(), false);
        let mut late = Vec::new();
        let mut in_a_row = 0;
        for (user, lock) in due {
            // Teleport's clock, by how long the lock has waited: ours may be wrong.
            let waited = source.now().saturating_sub(lock.noted).max(0);
            let now = lock.since.saturating_add(waited);
            let until = lock.expires.unwrap_or(Millis::MAX);
            let until = until.min(lock.since.saturating_add(PATIENCE));
            let outcome = if until <= now {
                late.push(user.clone());
                Outcome::TooLate
            } else {
                match self.try_to_lock(&user, lock.expires, now).await {
                    Ok(outcome) => {
                        is_allowed |= matches!(outcome, Outcome::Made);
                        in_a_row = 0;
                        outcome
                    }
                    Err(Failure::Refused {
                        code: Code::InvalidArgument,
                        message,
                    }) => {
                        is_allowed = true;
                        in_a_row = 0;
                        Outcome::Refused(format!("Teleport refuses it: `{message}`"))
                    }
                    Err(failure) => {
                        // It may be of this user alone.
                        in_a_row += 1;
                        let is_of_all = failure.is_connection() || in_a_row == FAILED_IN_A_ROW_MAX;
                        failed.push((user, failure));
                        if is_of_all {
                            break;
                        }
                        continue;
                    }
                }
            };
            self.note(&user, lock, &outcome);
            let mut logins = self.locks.logins.lock().await;
            let left = logins.settle(&user, lock);
            let moved = vec![cursor(&user, left)];
            let pending = logins.due_count();
            source.move_cursors(FeedKind::Audit, moved).await?;
            drop(logins);
            source
                .status
                .update_locks(|figures| figures.pending = pending);
        }
        self.tell_late(&late);
        self.failed = failed.iter().map(|(user, _)| user.clone()).collect();
        let Some((user, failure)) = failed.first() else {
            return Ok(match is_allowed || self.ask().await {
                true => Pass::Done,
                false => Pass::Wait,
            });
        };
        let who = match count {
            1 => format!("`{user}` had too many failed logins and is not locked"),
            _ => format!(
                "{count} users had too many failed logins, and not all are locked; `{user}` is one \
                 that is not"
            ),
        };
        let message = format!("{who}: {}", explain(failure));
        let are_of_users = in_a_row < FAILED_IN_A_ROW_MAX && !failure.is_connection();
        source.status.set_failure(LOCKS, message);
        Ok(match are_of_users {
            true => Pass::WaitUnlessDue,
            false => Pass::Wait,
        })
    }

    /// An outage may make many locks too late: one line for all.
    fn tell_late(&self, users: &[String]) {
        let who = match users {
            [] => return,
            [user] => format!("the user `{user}` had too many failed logins and is not locked"),
            [user, ..] => format!(
                "{} users, such as `{user}`, had too many failed logins and are not locked",
                users.len()
            ),
        };
        let source = &*self.source.settings.source;
        tracing::warn!(source, "{who}: {TOO_LATE}");
    }

    async fn try_to_lock(
        &mut self,
        user: &str,
        expires: Option<Millis>,
        now: Millis,
    ) -> Result<Outcome, Failure> {
        let source = self.source;
        let mut connection = source.connector.connection().await;
        let request = GetLockRequest { name: name(user) };
        let found = connection.locks.get_lock(request);
        let found = self.timed(connection.id, found).await;
        let mut is_read = true;
        match found {
            Ok(found) => match Existing::of(&found.into_inner(), user, expires, now) {
                Existing::Replaceable => {}
                Existing::InForce => return Ok(Outcome::Kept),
                Existing::OfSomethingElse => {
                    let name = name(user);
                    return Ok(Outcome::Refused(format!(
                        "the lock `{name}` was changed and locks something else. Remove it \
                             with `tctl rm lock/{name}`, or give it another name"
                    )));
                }
            },
            Err(Failure::NotFound { .. }) => {}
            Err(Failure::AccessDenied { .. } | Failure::Unimplemented { .. }) => is_read = false,
            Err(failure) => return Err(failure),
        }
        let made = connection.locks.upsert_lock(lock_of(user, expires));
        self.timed(connection.id, made).await?;
        // A role that may not make locks either is told of by that.
        if !is_read && std::mem::take(&mut self.reads) {
            tracing::warn!(
                source = &*source.settings.source,
                "locks cannot be read, so a lock that somebody has changed may be replaced: the \
                 role needs `read` on `lock`"
            );
        }
        Ok(Outcome::Made)
    }

    /// Runs a call with the time-out of locks. One that is not answered says nothing about the
    /// connection: reading goes on with it, and other calls show whether it has failed.
    async fn timed<T>(
        &self,
        connection: u64,
        call: impl Future<Output = Result<T, Status>>,
    ) -> Result<T, Failure> {
        let source = self.source;
        let limit = source.settings.limits.lock_call;
        let Ok(answer) = tokio::time::timeout(limit, call).await else {
            return Err(no_answer(limit));
        };
        match answer.map_err(|status| Failure::of(&source.settings.address, &status)) {
            Ok(answer) => Ok(answer),
            Err(failure) => {
                source.connector.failed(connection, &failure).await;
                Err(failure)
            }
        }
    }

    fn note(&self, user: &str, lock: DueLock, outcome: &Outcome) {
        let source = self.source;
        let (name, now) = (&*source.settings.source, source.now());
        let until = lock.expires.map(time);
        let until = until.unwrap_or_else(|| UNTIL_REMOVED.to_owned());
        match outcome {
            Outcome::Made => tracing::info!(
                source = name,
                "the user `{user}` had too many failed logins and is locked until {until}"
            ),
            Outcome::Kept => tracing::info!(
                source = name,
                "the user `{user}` had too many failed logins, and a lock is already in force; it \
                 stays as it is"
            ),
            // Not a report: no event is missing.
            Outcome::Refused(why) => tracing::warn!(
                source = name,
                "the user `{user}` had too many failed logins and is not locked: {why}"
            ),
            // One line for all.
            Outcome::TooLate => {}
        }
        source.status.update_locks(|figures| match outcome {
            Outcome::Made => {
                figures.made += 1;
                figures.made_at = Some(now);
            }
            Outcome::Kept => figures.kept += 1,
            Outcome::Refused(why) => {
                figures.given_up += 1;
                figures.last_given_up = Some(format!("that of `{user}`: {why}"));
            }
            Outcome::TooLate => {
                figures.given_up += 1;
                figures.last_given_up = Some(format!("that of `{user}`: {TOO_LATE}"));
            }
        });
    }
}

fn no_answer(limit: Duration) -> Failure {
    Failure::Lost {
        reason: format!("no answer within {}", words(limit)),
    }
}

/// Why a lock is not made, and what helps.
fn explain(failure: &Failure) -> String {
    match failure {
        Failure::AccessDenied { message } => format!(
            "Teleport denies access: `{message}`. The user of the credentials needs a role that \
             allows `create`, `update` and `read` on `lock`"
        ),
        failure => failure.to_string(),
    }
}
