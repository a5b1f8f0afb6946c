//! Conditions in the log: one line when a condition begins, some when its cause has become another,
//! and one when it has ended.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use lockgate_engine::{Condition, ConditionKind, Uptime};
use lockgate_model::LoggedMessage;
use tokio::time::Instant;

use crate::limits::ENDED_LOGGED_AFTER;

/// The conditions of a pipeline that the log calls held. Each gets its last line when this is
/// dropped, at the latest.
#[derive(Debug)]
pub(crate) struct ConditionLog {
    pipeline: Arc<str>,
    /// The zero of all times.
    began: Instant,
    held: BTreeMap<(ConditionKind, String), LoggedCondition>,
}

#[derive(Debug)]
struct LoggedCondition {
    since: Uptime,
    /// How often it began.
    times: u32,
    /// Attempts to end it, over all of those times.
    attempts: u32,
    ended: Option<Uptime>,
    message: LoggedMessage,
}

impl ConditionLog {
    pub(crate) fn new(pipeline: Arc<str>, began: Instant) -> ConditionLog {
        ConditionLog {
            pipeline,
            began,
            held: BTreeMap::new(),
        }
    }

    pub(crate) fn began(&mut self, now: Uptime, condition: &Condition) {
        let key = (condition.kind, condition.subject.clone());
        if let Some(held) = self.held.get_mut(&key) {
            held.times += 1;
            held.ended = None;
            self.changed(now, condition);
            return;
        }
        let (kind, subject) = (condition.kind.name(), &condition.subject);
        tracing::warn!(pipeline = %self.pipeline, kind, subject, "held: {}", condition.message);
        let held = LoggedCondition {
            since: condition.since,
            times: 1,
            attempts: 0,
            ended: None,
            message: LoggedMessage::new(&condition.message, now),
        };
        self.held.insert(key, held);
    }

    /// It may have another cause now. The other kinds have one cause, and count in their messages.
    pub(crate) fn changed(&mut self, now: Uptime, condition: &Condition) {
        let Condition {
            kind,
            subject,
            message,
            ..
        } = condition;
        if !matches!(kind, ConditionKind::Endpoint | ConditionKind::Plugin) {
            return;
        }
        let held = self.held.get_mut(&(*kind, subject.clone()));
        if held.is_some_and(|held| held.message.is_due(message, now)) {
            let (pipeline, kind) = (&self.pipeline, kind.name());
            tracing::warn!(%pipeline, kind, subject, "still held, now: {message}");
        }
    }

    pub(crate) fn ended(&mut self, now: Uptime, condition: &Condition) {
        let key = (condition.kind, condition.subject.clone());
        if let Some(held) = self.held.get_mut(&key) {
            held.ended = Some(now);
            held.attempts += condition.attempts;
        }
    }

    /// When [`log_due`](Self::log_due) has something to log.
    pub(crate) fn log_due_at(&self) -> Option<Uptime> {
        let endpoints = self.held_endpoints();
        let ended = self.held.iter().filter_map(|((kind, subject), held)| {
            held.ended
                .filter(|_| !is_covered(&endpoints, *kind, subject))
        });
        ended.min().map(|ended| ended + ENDED_LOGGED_AFTER)
    }

    /// Endpoints that are held as a whole.
    fn held_endpoints(&self) -> BTreeSet<String> {
        let held = self
            .held
            .iter()
            .filter(|((kind, _), held)| *kind == ConditionKind::Endpoint && held.ended.is_none());
        held.map(|((_, subject), _)| subject.clone()).collect()
    }

    /// Logs what ended long enough ago.
    pub(crate) fn log_due(&mut self, now: Uptime) {
        self.log_ended(|ended| ended + ENDED_LOGGED_AFTER <= now);
    }

    fn log_ended(&mut self, is_due: impl Fn(Uptime) -> bool) {
        let pipeline = &self.pipeline;
        let endpoints = self.held_endpoints();
        self.held.retain(|(kind, subject), held| {
            let Some(ended) = held.ended.filter(|&ended| is_due(ended)) else {
                return true;
            };
            if is_covered(&endpoints, *kind, subject) {
                return true;
            }
            let (kind, lasted_s) = (kind.name(), ended.saturating_sub(held.since).as_secs());
            let LoggedCondition {
                attempts, times, ..
            } = *held;
            tracing::info!(%pipeline, kind, subject, lasted_s, attempts, times, "no longer held");
            false
        });
    }
}

/// Documents that waited by themselves now wait with the rest of their endpoint.
fn is_covered(held_endpoints: &BTreeSet<String>, kind: ConditionKind, subject: &str) -> bool {
    kind == ConditionKind::Documents && held_endpoints.contains(subject)
}

impl Drop for ConditionLog {
    /// What a pipeline was held by is not known to hold the next one, which says so itself.
    fn drop(&mut self) {
        let (pipeline, now) = (&self.pipeline, self.began.elapsed());
        self.held.retain(|(kind, subject), held| {
            if held.ended.is_some() {
                return true;
            }
            let (kind, lasted_s) = (kind.name(), now.saturating_sub(held.since).as_secs());
            let times = held.times;
            tracing::info!(
                %pipeline, kind, subject, lasted_s, times,
                "no longer held, because the pipeline was stopped or replaced"
            );
            false
        });
        self.log_ended(|_| true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_that_comes_and_goes_is_one_in_the_log() {
        let seconds = Uptime::from_secs;
        let condition = |since| Condition {
            kind: ConditionKind::Endpoint,
            subject: "url".to_owned(),
            message: "the receiver answered 503".to_owned(),
            since,
            next_attempt: None,
            attempts: 2,
            asked_by: None,
            not_ready_from: since,
        };
        let mut log = ConditionLog::new("siem".into(), Instant::now());
        for at in (0..100).step_by(2) {
            log.began(seconds(at), &condition(seconds(at)));
            assert_eq!(log.log_due_at(), None);
            log.ended(seconds(at + 1), &condition(seconds(at)));
            log.log_due(seconds(at + 1));
        }
        let held = &log.held[&(ConditionKind::Endpoint, "url".to_owned())];
        assert_eq!((held.since, held.times), (seconds(0), 50));
        assert_eq!(held.attempts, 100);
        assert_eq!(log.log_due_at(), Some(seconds(109)));
        log.log_due(seconds(109));
        assert!(log.held.is_empty());
    }

    /// The log named the first cause of an outage alone.
    #[test]
    fn another_cause_of_a_condition_is_logged() {
        let condition = |kind, message: &str| Condition {
            kind,
            subject: "url".to_owned(),
            message: message.to_owned(),
            since: Uptime::ZERO,
            next_attempt: None,
            attempts: 2,
            asked_by: None,
            not_ready_from: Uptime::ZERO,
        };
        for (kind, is_logged) in [
            (ConditionKind::Endpoint, true),
            (ConditionKind::Plugin, true),
            (ConditionKind::Documents, false),
        ] {
            let mut log = ConditionLog::new("siem".into(), Instant::now());
            log.began(Uptime::ZERO, &condition(kind, "refused"));
            log.changed(Uptime::from_secs(40), &condition(kind, "status 401"));
            let held = &log.held[&(kind, "url".to_owned())];
            let named = LoggedMessage::new("refused", Uptime::ZERO);
            assert_eq!(held.message != named, is_logged, "{kind:?}");
        }
    }

    #[test]
    fn documents_are_held_as_long_as_their_endpoint() {
        let condition = |kind| Condition {
            kind,
            subject: "url".to_owned(),
            message: "the receiver answered 400".to_owned(),
            since: Uptime::ZERO,
            next_attempt: None,
            attempts: 2,
            asked_by: None,
            not_ready_from: Uptime::ZERO,
        };
        let [documents, endpoint] =
            [ConditionKind::Documents, ConditionKind::Endpoint].map(condition);
        let mut log = ConditionLog::new("siem".into(), Instant::now());
        log.began(Uptime::ZERO, &documents);
        log.began(Uptime::ZERO, &endpoint);
        log.ended(Uptime::from_secs(1), &documents);
        assert_eq!(log.log_due_at(), None);
        log.log_due(Uptime::from_secs(60));
        assert_eq!(log.held.len(), 2);
        log.ended(Uptime::from_secs(100), &endpoint);
        assert_eq!(log.log_due_at(), Some(Uptime::from_secs(11)));
        log.log_due(Uptime::from_secs(110));
        assert!(log.held.is_empty());
    }
}
