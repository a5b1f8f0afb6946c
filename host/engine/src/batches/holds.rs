//! Whatever waits for a component or the brake, and the conditions that show it.

use lockgate_model::contract::CallError;

use crate::Uptime;
use crate::batches::{Hold, Phase};
use crate::brake::Engaged;
use crate::condition::ConditionKind;
use crate::index::BatchId;
use crate::pipeline::{Pipeline, WorkId};
use crate::stage_run::Stop;

impl Pipeline {
    pub(crate) fn hold_batch(&mut self, now: Uptime, id: BatchId, hold: Hold) {
        let Some(batch) = self.batches.get_mut(&id) else {
            return;
        };
        batch.phase = Phase::Held;
        batch.held += 1;
        let since = batch.hold.as_ref().map_or(now, |before| before.since);
        self.timers.insert((hold.until, WorkId::Batch(id)));
        batch.hold = Some(Hold { since, ..hold });
    }

    /// What a stop of a component means: when it is called again, and what is shown until then.
    pub(crate) fn hold_for(&mut self, now: Uptime, stop: Stop, held: u32) -> Hold {
        let (label, message, after) = match stop {
            Stop::Component { label, error } => {
                let after = match &error {
                    CallError::Retry { after, .. } => after.unwrap_or_default(),
                    _ => Uptime::ZERO,
                };
                (
                    label,
                    error.to_string(),
                    after.min(crate::answer::RETRY_AFTER_MAX),
                )
            }
            Stop::CpuBudget { label, budget } => {
                let budget = budget.as_millis();
                (
                    label,
                    format!("it used more than {budget} ms of CPU time for a batch"),
                    Uptime::ZERO,
                )
            }
            Stop::TooManyDocuments { label, documents } => (
                label,
                format!("it made {documents} documents of a batch"),
                Uptime::ZERO,
            ),
        };
        let until = self.retry_at(now, held, after);
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
        held: u32,
    ) -> Hold {
        let message = format!(
            "{engaged}: nothing more is dead-lettered; `lockgate dlq release {}` lets it go on",
            self.settings.pipeline
        );
        let until = self.retry_at(now, held, Uptime::ZERO);
        Hold {
            kind: ConditionKind::Brake,
            subject: cause,
            message,
            since: now,
            until,
        }
    }

    /// Conditions for whatever waits for a component or the brake.
    pub(crate) fn report_holds(&mut self, now: Uptime) {
        let mut holds: Vec<Hold> = self
            .batches
            .values()
            .filter_map(|batch| batch.hold.clone())
            .chain(
                self.encodings
                    .values()
                    .filter_map(|encoding| encoding.waits.clone()),
            )
            .chain(
                self.requests
                    .values()
                    .filter_map(|request| request.history.braked.clone()),
            )
            .collect();
        holds.sort_by_key(|hold| (hold.kind, hold.until));
        for hold in &holds {
            let first = holds
                .iter()
                .find(|other| other.kind == hold.kind && other.subject == hold.subject);
            if first.is_some_and(|first| std::ptr::eq(first, hold)) {
                let (since, until) = (Some(hold.since), Some(hold.until));
                let Hold {
                    kind,
                    subject,
                    message,
                    ..
                } = hold;
                self.conditions
                    .set(now, *kind, subject, message, since, until);
            }
        }
        for kind in [ConditionKind::Plugin, ConditionKind::Brake] {
            self.conditions.keep(kind, |subject| {
                holds
                    .iter()
                    .any(|hold| hold.kind == kind && hold.subject == subject)
            });
        }
    }
}
