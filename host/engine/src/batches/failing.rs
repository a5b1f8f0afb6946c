//! Calls of components that fail while the work they belong to goes on.

use std::collections::{BTreeMap, BTreeSet};

use crate::Uptime;
use crate::condition::{ConditionKind, Found};
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
        let before = self.0.remove(&work);
        let calls = before.as_ref().map_or(0, |before| before.calls) + 1;
        let since = before.map_or(now, |before| before.since);
        let last = failed;
        self.0.insert(work, FailedCalls { calls, last, since });
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
            let failed = match calls {
                1 => "a call for a batch failed because".to_owned(),
                _ => format!("{calls} calls for a batch failed, the last one because"),
            };
            let next = match last.shortage {
                Some(_) => "it is made again when others have released memory",
                None => "its events are tried in smaller calls",
            };
            let message = format!("{failed} {}; {next}", last.reason);
            self.conditions.set(
                now,
                Found {
                    kind: ConditionKind::Plugin,
                    subject: &last.label,
                    message: &message,
                    since: *since,
                    next_attempt: None,
                    asked_by: None,
                },
            );
        }
        shown
    }
}
