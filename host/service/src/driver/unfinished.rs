//! How many pipelines of the host have not finished: those that have wait for the others.

use tokio::sync::watch;

/// How many pipelines of the host have not finished. One that has goes on, until all have: its dead
/// letters may be retried.
#[derive(Clone, Default)]
pub(crate) struct UnfinishedPipelines(watch::Sender<usize>);

/// The part of one pipeline in [`UnfinishedPipelines`]: at first 1, and 0 once this is dropped.
pub(crate) struct UnfinishedPipeline {
    pipelines: UnfinishedPipelines,
    counts: bool,
}

impl UnfinishedPipelines {
    pub(crate) fn add(&self) -> UnfinishedPipeline {
        self.0.send_modify(|pipelines| *pipelines += 1);
        UnfinishedPipeline {
            pipelines: self.clone(),
            counts: true,
        }
    }
}

impl UnfinishedPipeline {
    pub(super) fn set(&mut self, is_unfinished: bool) {
        if std::mem::replace(&mut self.counts, is_unfinished) != is_unfinished {
            self.pipelines
                .0
                .send_modify(|pipelines| match is_unfinished {
                    true => *pipelines += 1,
                    false => *pipelines -= 1,
                });
        }
    }

    /// Returns once every pipeline has finished.
    pub(super) async fn all_finished(&self) {
        let mut pipelines = self.pipelines.0.subscribe();
        // It cannot fail: the sender is here.
        let _ = pipelines.wait_for(|&pipelines| pipelines == 0).await;
    }
}

impl Drop for UnfinishedPipeline {
    fn drop(&mut self) {
        self.set(false);
    }
}
