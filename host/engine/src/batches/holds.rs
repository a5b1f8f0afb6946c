//! Whatever waits for a component or the brake, and the conditions that show it.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use lockgate_model::contract::CallError;
use lockgate_model::request::RETRY_AFTER_MAX;

use crate::Uptime;
use crate::batches::Phase;
use crate::brake::Engaged;
use crate::condition::{ConditionKind, Found};
use crate::index::{BatchId, RequestId, StreamIndex};
use crate::limits::REASON_MAX;
use crate::pipeline::{Pipeline, WorkId};
use crate::stage_run::BatchError;

/// Something waits for a reason that a condition shows.
#[derive(Clone, Debug)]
pub(crate) struct Hold {
    pub(crate) kind: ConditionKind,
    /// A component's label, or a cause of dead letters.
    pub(crate) subject: String,
    pub(crate) message: String,
    pub(crate) since: Uptime,
    pub(crate) until: Uptime,
}

/// All that is held, by what a condition shows of it.
#[derive(Debug, Default)]
pub(crate) struct Holds {
    held: BTreeMap<WorkId, Hold>,
    by_subject: BTreeMap<(ConditionKind, String), BTreeSet<(Uptime, WorkId)>>,
}

impl Holds {
    pub(crate) fn get(&self, work: WorkId) -> Option<&Hold> {
        self.held.get(&work)
    }

    /// Replaces the hold of before.
    pub(crate) fn insert(&mut self, work: WorkId, hold: Hold) {
        self.remove(work);
        let subject = (hold.kind, hold.subject.clone());
        let works = self.by_subject.entry(subject).or_default();
        works.insert((hold.until, work));
        self.held.insert(work, hold);
    }

    pub(crate) fn remove(&mut self, work: WorkId) {
        let Some(hold) = self.held.remove(&work) else {
            return;
        };
        let subject = (hold.kind, hold.subject);
        if let Some(works) = self.by_subject.get_mut(&subject) {
            works.remove(&(hold.until, work));
            if works.is_empty() {
                self.by_subject.remove(&subject);
            }
        }
    }

    /// If the work is held, it is tried again at another time.
    pub(crate) fn delay(&mut self, work: WorkId, until: Uptime) {
        if let Some(hold) = self.held.get(&work).cloned() {
            self.insert(work, Hold { until, ..hold });
        }
    }

    /// Of each kind and subject, the hold that ends first.
    fn first_of_each(&self) -> impl Iterator<Item = &Hold> {
        self.by_subject.values().filter_map(|works| {
            let (_, work) = works.first()?;
            self.held.get(work)
        })
    }

    /// The hold of this kind and subject that ends first.
    pub(crate) fn first(&self, kind: ConditionKind, subject: &str) -> Option<&Hold> {
        let works = self.by_subject.get(&(kind, subject.to_owned()))?;
        let (_, work) = works.first()?;
        self.held.get(work)
    }

    pub(crate) fn has(&self, kind: ConditionKind, subject: &str) -> bool {
        self.by_subject.contains_key(&(kind, subject.to_owned()))
    }

    /// Work that the brake holds.
    pub(crate) fn by_brake(&self) -> impl Iterator<Item = WorkId> {
        self.held
            .iter()
            .filter(|(_, hold)| hold.kind == ConditionKind::Brake)
            .map(|(&work, _)| work)
    }
}

impl Pipeline {
    pub(crate) fn hold_batch(&mut self, now: Uptime, id: BatchId, hold: Hold) {
        let Some(batch) = self.batches.get_mut(&id) else {
            return;
        };
        batch.phase = Phase::Held;
        batch.holds_in_a_row += 1;
        let work = WorkId::Batch(id);
        let since = self.holds.get(work).map_or(now, |before| before.since);
        self.timers.insert((hold.until, work));
        self.holds.insert(work, Hold { since, ..hold });
    }

    /// The hold after an error: the time of the next call, and the message until then.
    pub(crate) fn hold_for(&mut self, now: Uptime, error: BatchError, holds_in_a_row: u32) -> Hold {
        let (label, message, after) = match error {
            BatchError::Component { label, error } => {
                let after = match &error {
                    CallError::Retry { after, .. } => after.unwrap_or_default(),
                    _ => Uptime::ZERO,
                };
                (label, error.to_string(), after.min(RETRY_AFTER_MAX))
            }
            BatchError::CpuBudget { label, budget } => {
                let budget = budget.as_millis();
                (
                    label,
                    format!("it used more than {budget} ms of CPU time for a batch"),
                    Uptime::ZERO,
                )
            }
            BatchError::TooMuch { label, made } => (
                label,
                format!("it made too much of one batch: {made}"),
                Uptime::ZERO,
            ),
        };
        let until = self.retry_at(now, holds_in_a_row, after);
        let kind = ConditionKind::Plugin;
        Hold {
            kind,
            subject: label,
            message,
            since: now,
            until,
        }
    }

    pub(crate) fn braked(
        &mut self,
        now: Uptime,
        cause: String,
        engaged: Engaged,
        reason: &str,
        holds_in_a_row: u32,
    ) -> Hold {
        // A batch passes the stages as a whole, and so it waits; the sink's documents wait alone.
        let waiting = if cause == *self.settings.sink.label {
            "further ones are held back"
        } else {
            "a batch with further ones is held back"
        };
        // The operator decides on what would be lost, so the message says why.
        let reason = lockgate_model::escape(reason, REASON_MAX);
        let message = format!(
            "{engaged}; {waiting} until {}, or until you run \
             `lockgate dlq release {}`. The next one would say: {reason}",
            engaged.passes_when(),
            self.settings.pipeline
        );
        let until = self.retry_at(now, holds_in_a_row, Uptime::ZERO);
        Hold {
            kind: ConditionKind::Brake,
            subject: cause,
            message,
            since: now,
            until,
        }
    }

    /// A request waits for what the hold says.
    pub(crate) fn hold_request(&mut self, id: RequestId, hold: Hold) {
        self.holds.insert(WorkId::Request(id), hold);
        self.requests.update(id, |request| request.is_held = true);
    }

    /// Conditions for whatever waits for a component or the brake. Those of documents belong to
    /// their endpoint.
    pub(crate) fn report_holds(&mut self, now: Uptime) {
        let is_shown = |hold: &&Hold| hold.kind != ConditionKind::Documents;
        for hold in self.holds.first_of_each().filter(is_shown) {
            let mut message = Cow::from(&hold.message);
            let mut streams = (0..self.streams.len()).map(StreamIndex::new);
            if hold.kind == ConditionKind::Brake
                && streams.any(|stream| self.reached_a_limit(stream))
            {
                message = format!("no new batch begins; {message}").into();
            }
            self.conditions.set(
                now,
                Found {
                    kind: hold.kind,
                    subject: &hold.subject,
                    message: &message,
                    since: hold.since,
                    next_attempt: Some(hold.until),
                    asked_by: None,
                },
            );
        }
        let failing = self.report_failing(now);
        for kind in [ConditionKind::Plugin, ConditionKind::Brake] {
            let holds = &self.holds;
            self.conditions.keep(now, kind, |subject| {
                let is_failing = kind == ConditionKind::Plugin && failing.contains(subject);
                is_failing || holds.has(kind, subject)
            });
        }
    }
}
