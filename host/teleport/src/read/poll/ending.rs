//! The end of a run that ends once everything has been read. It never rests for long, so what other
//! runs do while they rest is done here: gaps are tried again, and late events are looked for.

use super::Poller;
use crate::{Closed, Intake};

impl<I: Intake> Poller<I> {
    /// Tries each open gap once, and sweeps what is due. What Teleport refuses is left to the next
    /// run.
    pub(super) async fn finish(&mut self) -> Result<(), Closed> {
        self.sweeps.try_once();
        self.retry_each().await?;
        let clock = self.source.settings.clock.clone();
        for index in self.sweeps.all_due(clock.elapsed()) {
            self.sweep(index).await?;
            while self.sweeps.has_begun(index) {
                self.sweep(index).await?;
            }
        }
        Ok(())
    }
}
