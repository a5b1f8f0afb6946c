//! The brake, by recount: a cause dead-letters at most one percent of a thousand entries, unless
//! the operator releases it.

use std::collections::BTreeMap;

use lockgate_engine::BrakeLimits;
use lockgate_model::Commit;

use crate::simulation::Simulation;

/// Since the operator last released the brake.
#[derive(Default)]
pub struct BrakeCounts {
    /// Dead letters of each cause, without those that a release lets go.
    dead: BTreeMap<String, u64>,
    /// Entries that were given to the stages, and documents that were accepted: no cause can have
    /// let more of them pass.
    pub passed: u64,
    /// Commits become durable in any order here, so the brake of an earlier one may be what the
    /// next engine starts with: it has forgotten some dead letters.
    pub starts: u64,
}

impl Simulation {
    pub fn check_brake(&mut self, stream: usize, commit: &Commit) {
        let limits = BrakeLimits::default();
        let thousands = self.brake.passed / 1000;
        let most = u64::from(limits.share) * (1 + thousands + self.brake.starts);
        for letter in &commit.dead {
            if letter.seq < self.answers_seen.released[stream] {
                continue;
            }
            let dead = self.brake.dead.entry(letter.cause.clone()).or_default();
            *dead += 1;
            assert!(
                *dead <= most,
                "{dead} dead letters of `{}` among {} entries: {}",
                letter.cause,
                self.brake.passed,
                letter.reason
            );
        }
    }
}
