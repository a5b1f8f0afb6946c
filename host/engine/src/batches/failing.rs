//! Calls of components that fail while the work they belong to goes on.

use std::collections::{BTreeMap, BTreeSet};

use crate::Uptime;
use crate::condition::ConditionKind;
use crate::limits::FAILING_AFTER;
use crate::pipeline::{Pipeline, WorkId};
use crate::stage_run::FailedCall;

/// Work that goes on although calls for it have failed.
#[derive(Debug, Default)]
pub(crate) struct Failing(BTreeMap<WorkId, FailedCalls>);

#[derive(Debug)]
struct FailedCalls {
    calls: u32,
    last: FailedCall,
    /// The first of them.
    since: Uptime,
}

impl Failing {
    pub(crate) fn add(&mut self, now: Uptime, work: WorkId, failed: FailedCall) {
        let calls = self.0.get(&work).map_or(0, |before| before.calls);
        let since = self.0.get(&work).map_or(now, |before| before.since);
        let failed = FailedCalls {
            calls: calls + 1,
            last: failed,
            since,
        };
        self.0.insert(work, failed);
    }

    pub(crate) fn ended(&mut self, work: WorkId) {
        self.0.remove(&work);
    }

    /// When the next of them is to be shown.
    pub(crate) fn next_shown(&self, now: Uptime) -> Option<Uptime> {
        let shown = self.0.values().map(|failed| failed.since + FAILING_AFTER);
        shown.filter(|&at| at > now).min()
    }
}

impl Pipeline {
    /// Conditions for components whose calls have failed for a while. Gives their labels.
    pub(crate) fn report_failing(&mut self, now: Uptime) -> BTreeSet<String> {
        let mut shown = BTreeSet::new();
        for FailedCalls { calls, last, since } in self.failing.0.values() {
            let is_held = self.holds.has(ConditionKind::Plugin, &last.label);
            if now < *since + FAILING_AFTER || is_held || !shown.insert(last.label.clone()) {
                continue;
            }
            let plural = if *calls == 1 { "call" } else { "calls" };
            let message = format!(
                "{calls} {plural} for a batch failed, the last one because {}; its events are tried \
                 in smaller calls",
                last.reason
            );
            let (kind, since) = (ConditionKind::Plugin, Some(*since));
            self.conditions
                .set(now, kind, &last.label, &message, since, None);
        }
        shown
    }
}
