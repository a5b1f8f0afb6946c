//! Readiness tells the truth: a pipeline in which nothing becomes final is not ready, and one whose
//! work is done has no condition left.

use std::time::Duration;

use lockgate_engine::Pipeline;

use crate::simulation::Simulation;

/// From then on a pipeline in which entries wait and none becomes final is not ready.
const STALLED_AFTER: Duration = Duration::from_secs(60);

impl Simulation {
    /// The engine hears that something became final, or may conclude it from an answer.
    pub fn progressed(&mut self) {
        self.progress_at = self.now;
    }

    /// The engine has taken in what happened until now.
    pub fn check_ready(&mut self) {
        if self.now < self.progress_at + STALLED_AFTER {
            return;
        }
        if self.waiting() == 0 {
            return self.progressed();
        }
        let is_ready = |engine: &Pipeline| engine.is_ready(self.now);
        assert!(
            !self.engine.as_ref().is_some_and(is_ready),
            "it is ready, {} entries wait, and nothing has happened since {:?}",
            self.waiting(),
            self.progress_at
        );
    }

    /// Everything is final.
    pub fn check_has_no_conditions(&self) {
        let engine = self.engine.as_ref().expect("it runs");
        let conditions: Vec<_> = engine.conditions().collect();
        assert!(conditions.is_empty(), "{conditions:#?}");
        assert!(engine.is_ready(self.now), "it is ready");
    }
}
