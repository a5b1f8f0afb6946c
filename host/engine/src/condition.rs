//! Reasons that keep a pipeline from delivering, each with its begin and its next attempt.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::Uptime;
use crate::limits::DOCUMENTS_TOLERATED;

/// What keeps a pipeline, or a part of it, from delivering.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConditionKind {
    /// Nothing but probes is sent to an endpoint.
    Endpoint,
    /// Single documents wait: for evidence, for their next attempt, or for a release.
    Documents,
    /// A component cannot process a batch.
    Plugin,
    /// Too many dead letters.
    Brake,
    /// Entries wait, and none has become final for a minute.
    Stalled,
}

impl ConditionKind {
    pub fn name(self) -> &'static str {
        match self {
            ConditionKind::Endpoint => "endpoint",
            ConditionKind::Documents => "documents",
            ConditionKind::Plugin => "plugin",
            ConditionKind::Brake => "brake",
            ConditionKind::Stalled => "stalled",
        }
    }

    /// How long it may last before the pipeline is not ready.
    fn tolerated(self) -> Duration {
        match self {
            ConditionKind::Documents => DOCUMENTS_TOLERATED,
            _ => Duration::ZERO,
        }
    }
}

/// Who asked for the wait until the next attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitRequester {
    /// By `Retry-After`.
    Receiver,
    /// By what it made of the receiver's answer.
    Sink,
}

/// One reason why a pipeline, or a part of it, does not deliver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    pub kind: ConditionKind,
    /// Which endpoint, component or cause.
    pub subject: String,
    /// A sentence without a full stop.
    pub message: String,
    pub since: Uptime,
    pub next_attempt: Option<Uptime>,
    /// Attempts since it began. The one that ends it counts, too.
    pub attempts: u32,
    /// Of an endpoint.
    pub asked_by: Option<WaitRequester>,
    /// From then on the pipeline is not ready.
    pub not_ready_from: Uptime,
}

impl Condition {
    /// The next attempt was made, or is being made.
    fn is_due(&self, now: Uptime) -> bool {
        self.next_attempt.is_some_and(|at| at <= now)
    }
}

/// A condition began; has another message, next attempt or requester of it, or keeps the pipeline
/// from being ready at another time; or ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConditionChange {
    Began(Condition),
    Changed(Condition),
    Ended(Condition),
}

/// A condition as it is now. Of one that is known, only the message, the next attempt and its
/// requester change.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found<'a> {
    pub(crate) kind: ConditionKind,
    pub(crate) subject: &'a str,
    pub(crate) message: &'a str,
    pub(crate) since: Uptime,
    pub(crate) next_attempt: Option<Uptime>,
    pub(crate) asked_by: Option<WaitRequester>,
}

/// The conditions of one pipeline at a time.
#[derive(Clone, Debug, Default)]
pub(crate) struct Conditions {
    current: BTreeMap<(ConditionKind, String), Condition>,
    changes: Vec<ConditionChange>,
}

impl Conditions {
    pub(crate) fn set(&mut self, now: Uptime, found: Found<'_>) {
        let Found {
            kind,
            subject,
            message,
            since,
            next_attempt,
            asked_by,
        } = found;
        let key = (kind, subject.to_owned());
        if let Some(condition) = self.current.get_mut(&key) {
            if condition.next_attempt != next_attempt && condition.is_due(now) {
                condition.attempts += 1;
            }
            let is_the_same = condition.message == message
                && condition.next_attempt == next_attempt
                && condition.asked_by == asked_by;
            if !is_the_same {
                condition.message = message.to_owned();
                condition.next_attempt = next_attempt;
                condition.asked_by = asked_by;
                self.changes
                    .push(ConditionChange::Changed(condition.clone()));
            }
            return;
        }
        let condition = Condition {
            kind,
            subject: subject.to_owned(),
            message: message.to_owned(),
            since,
            next_attempt,
            attempts: 0,
            asked_by,
            not_ready_from: since + kind.tolerated(),
        };
        self.changes.push(ConditionChange::Began(condition.clone()));
        self.current.insert(key, condition);
    }

    /// Whether it keeps the pipeline from working at all: nothing of that is tolerated.
    pub(crate) fn set_stopping(&mut self, kind: ConditionKind, subject: &str, is_stopping: bool) {
        if let Some(condition) = self.current.get_mut(&(kind, subject.to_owned())) {
            let tolerated = match is_stopping {
                true => Duration::ZERO,
                false => kind.tolerated(),
            };
            let from = condition.since + tolerated;
            if condition.not_ready_from != from {
                condition.not_ready_from = from;
                self.changes
                    .push(ConditionChange::Changed(condition.clone()));
            }
        }
    }

    pub(crate) fn has(&self, kind: ConditionKind, subject: &str) -> bool {
        self.current.contains_key(&(kind, subject.to_owned()))
    }

    pub(crate) fn clear(&mut self, now: Uptime, kind: ConditionKind, subject: &str) {
        if let Some(mut condition) = self.current.remove(&(kind, subject.to_owned())) {
            condition.attempts += u32::from(condition.is_due(now));
            self.changes.push(ConditionChange::Ended(condition));
        }
    }

    /// Ends all of this kind but those named.
    pub(crate) fn keep(&mut self, now: Uptime, kind: ConditionKind, keep: impl Fn(&str) -> bool) {
        let gone: Vec<String> = self
            .current
            .keys()
            .filter(|(of, subject)| *of == kind && !keep(subject))
            .map(|(_, subject)| subject.clone())
            .collect();
        gone.iter()
            .for_each(|subject| self.clear(now, kind, subject));
    }

    pub(crate) fn take_changes(&mut self) -> Vec<ConditionChange> {
        std::mem::take(&mut self.changes)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Condition> {
        self.current.values()
    }

    pub(crate) fn are_ready(&self, now: Uptime) -> bool {
        self.current
            .values()
            .all(|condition| condition.not_ready_from > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(kind: ConditionKind, since: Uptime, next_attempt: Option<Uptime>) -> Found<'static> {
        Found {
            kind,
            subject: "url",
            message: "1 document waits",
            since,
            next_attempt,
            asked_by: None,
        }
    }

    #[test]
    fn an_attempt_counts_when_its_time_has_come() {
        let (kind, seconds) = (ConditionKind::Endpoint, Uptime::from_secs);
        let mut conditions = Conditions::default();
        // Begins, is tried at 2 s and 4 s, is asked to wait at 5 s, and recovers at 9 s.
        for (now, next) in [(1, 2), (2, 2), (3, 4), (4, 6), (5, 9), (9, 9)] {
            conditions.set(seconds(now), found(kind, seconds(1), Some(seconds(next))));
        }
        conditions.clear(seconds(9), kind, "url");
        let changes = conditions.take_changes();
        let Some(ConditionChange::Ended(ended)) = changes.last() else {
            panic!("{changes:?}");
        };
        assert_eq!(ended.attempts, 3);
    }

    #[test]
    fn who_asked_for_the_wait_is_reported_when_it_changes() {
        let (kind, now) = (ConditionKind::Endpoint, Uptime::from_secs(1));
        let mut conditions = Conditions::default();
        for asked_by in [None, Some(WaitRequester::Receiver)] {
            let found = found(kind, now, Some(now));
            conditions.set(now, Found { asked_by, ..found });
        }
        let changes = conditions.take_changes();
        let Some(ConditionChange::Changed(changed)) = changes.last() else {
            panic!("{changes:?}");
        };
        assert_eq!(changed.asked_by, Some(WaitRequester::Receiver));
    }

    /// Two documents waited, no new batch began, and the pipeline was ready for a minute.
    #[test]
    fn documents_that_wait_are_tolerated_only_while_others_are_sent() {
        let (kind, now) = (ConditionKind::Documents, Uptime::from_secs(5));
        let mut conditions = Conditions::default();
        conditions.set(now, found(kind, now, None));
        assert!(conditions.are_ready(now));
        conditions.set_stopping(kind, "url", true);
        assert!(!conditions.are_ready(now));
        conditions.set_stopping(kind, "url", false);
        assert!(conditions.are_ready(now));
        assert!(!conditions.are_ready(now + DOCUMENTS_TOLERATED));
    }
}
