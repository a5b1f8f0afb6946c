//! The exchange of readers and pipelines at a reload. Each that is replaced or removed stops by
//! itself: what it has in flight ends first, and the others go on meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use lockgate_config::{Config, Source};
use lockgate_store::Ledger;
use tokio::sync::oneshot;
use tokio::task::JoinError;

use crate::build::BuiltPipeline;
use crate::clock::now;
use crate::driver::UnfinishedPipeline;
use crate::host::{HostError, HostEvent};
use crate::identity::{PipelineIdentity, SourceIdentity};
use crate::limits::{EXCHANGE_LEAST, EXCHANGE_MOST};
use crate::reload::{self, Before, Prepared, Refusal, ReloadOutcome};
use crate::settings::retention;
use crate::shutdown::ShutdownTrigger;
use crate::status::RefusedConfiguration;

use super::{PipelineTask, Reload, SourceTask, Supervisor, expire, names};

/// What is being exchanged. What comes after each that has not ended yet; `None`: it is removed.
pub(super) struct Exchange {
    replies: Vec<oneshot::Sender<ReloadOutcome>>,
    changes: String,
    needs_restart: Vec<String>,
    sources: BTreeMap<String, LeavingSource>,
    pipelines: BTreeMap<String, Option<NextPipeline>>,
}

struct LeavingSource {
    next: Option<(Source, SourceIdentity)>,
    /// Dropping it would have the reader end at once.
    _stop: ShutdownTrigger,
}

struct NextPipeline {
    built: BuiltPipeline,
    identity: PipelineIdentity,
    unfinished: UnfinishedPipeline,
}

impl Supervisor<'_> {
    pub(super) fn begin_reload(&mut self, replies: Vec<oneshot::Sender<ReloadOutcome>>) {
        self.tell(HostEvent::Reloading);
        let at = now();
        self.host
            .board
            .configuration(|status| status.reloading_since = Some(at));
        let sources = self.sources.iter();
        let pipelines = self.pipelines.iter();
        let before = Before {
            config: self.config.clone(),
            sources: sources
                .map(|(name, task)| (name.clone(), task.identity.clone()))
                .collect(),
            pipelines: pipelines
                .map(|(name, task)| (name.clone(), task.identity().cloned()))
                .collect(),
            can_look_up: self.can_look_up,
            fixed: self.fixed.clone(),
        };
        let (load, builder) = (self.load.clone(), self.builder.clone());
        self.preparing
            .spawn(reload::prepare(before, load, builder, self.store.clone()));
        self.reload = Some(Reload::Preparing(replies));
    }

    pub(super) async fn has_prepared(
        &mut self,
        prepared: Result<Result<Prepared, Refusal>, JoinError>,
    ) -> Result<(), HostError> {
        let Some(Reload::Preparing(replies)) = self.reload.take() else {
            return Ok(());
        };
        let outcome = match prepared {
            Ok(Ok(prepared)) => return self.exchange(prepared, replies).await,
            Ok(Err(Refusal::Problems(report))) => {
                let lines = reload::lines(&report);
                tracing::error!(
                    problems = lines.len(),
                    "`{}` has problems and is not loaded; the host goes on with the configuration \
                     it has",
                    report.name()
                );
                (self.show)(&report);
                self.host.board.configuration(|status| {
                    let refused = status.refused.get_or_insert_with(|| RefusedConfiguration {
                        since: now(),
                        ..RefusedConfiguration::default()
                    });
                    refused.problems = lines;
                });
                ReloadOutcome::Refused(report)
            }
            Ok(Err(Refusal::Ledger(error))) => {
                tracing::error!(%error, "the configuration is not loaded: the store cannot be read");
                ReloadOutcome::NotNow(format!("The store cannot be read: {error}."))
            }
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => return Ok(()),
            },
        };
        self.reloaded(replies, &outcome);
        Ok(())
    }

    /// Puts a configuration in force.
    async fn exchange(
        &mut self,
        prepared: Prepared,
        replies: Vec<oneshot::Sender<ReloadOutcome>>,
    ) -> Result<(), HostError> {
        let changes = prepared.describe();
        let Prepared {
            config,
            mut sources,
            mut pipelines,
            source_changes,
            pipeline_changes,
            mut built,
            databases,
            needs_restart,
        } = prepared;
        self.host.in_force(config.clone());
        let before = std::mem::replace(&mut self.config, config);
        self.store.retain(retention(&self.config)).await?;
        // Those that are removed may still commit.
        let both: BTreeSet<String> = names(&before)
            .into_iter()
            .chain(names(&self.config))
            .collect();
        let both: Vec<String> = both.into_iter().collect();
        self.store.keep_only(&both).await?;
        if let Some(databases) = databases {
            self.grant(databases);
        }
        self.reload = Some(Reload::Exchanging(Exchange {
            replies,
            changes,
            needs_restart,
            sources: BTreeMap::new(),
            pipelines: BTreeMap::new(),
        }));
        for name in source_changes
            .removed
            .iter()
            .chain(source_changes.to_build())
        {
            let source = self
                .config
                .sources
                .iter()
                .find(|source| source.name == *name);
            let next = source.cloned().zip(sources.remove(name));
            self.replace_source(name, next);
        }
        for name in pipeline_changes
            .removed
            .iter()
            .chain(pipeline_changes.to_build())
        {
            let next = built.remove(name).zip(pipelines.remove(name));
            let next = next.map(|(built, identity)| NextPipeline {
                built,
                identity,
                // It counts while it waits for the one before.
                unfinished: self.unfinished.add(),
            });
            let grace = grace_of(&before, name);
            self.replace_pipeline(name, next, grace).await?;
        }
        self.finish_exchange().await
    }

    fn replace_source(&mut self, name: &str, next: Option<(Source, SourceIdentity)>) {
        match self.sources.remove(name) {
            Some(SourceTask {
                stop,
                has_ended: false,
                ..
            }) => {
                stop.drain();
                if let Some(Reload::Exchanging(exchange)) = &mut self.reload {
                    let leaving = LeavingSource { next, _stop: stop };
                    exchange.sources.insert(name.to_owned(), leaving);
                }
            }
            _ => self.source_after(name, next),
        }
    }

    /// The reader before has ended.
    fn source_after(&mut self, name: &str, next: Option<(Source, SourceIdentity)>) {
        match next {
            Some((source, identity)) => self.read(&source, identity),
            None => {
                if let Some(caught_up) = self.caught_up.get(name) {
                    caught_up.send_replace(true);
                }
                self.host.board.forget_source(name);
            }
        }
    }

    async fn replace_pipeline(
        &mut self,
        name: &str,
        next: Option<NextPipeline>,
        grace: Duration,
    ) -> Result<(), HostError> {
        match self.pipelines.remove(name) {
            Some(PipelineTask::Running { stop, .. }) => {
                stop.drain();
                self.beside.spawn(abandon_after(grace, stop));
                if let Some(Reload::Exchanging(exchange)) = &mut self.reload {
                    exchange.pipelines.insert(name.to_owned(), next);
                }
                Ok(())
            }
            Some(PipelineTask::Starting { .. }) => {
                let _ = self.cancel_start.send(name.to_owned());
                self.pipeline_after(name, next).await
            }
            Some(PipelineTask::Ended | PipelineTask::Failed) | None => {
                self.pipeline_after(name, next).await
            }
        }
    }

    /// The pipeline before has ended.
    async fn pipeline_after(
        &mut self,
        name: &str,
        next: Option<NextPipeline>,
    ) -> Result<(), HostError> {
        match next {
            Some(next) => {
                self.launch(next.built, next.identity, next.unfinished)
                    .await
            }
            None => {
                self.host.forget(name);
                Ok(())
            }
        }
    }

    pub(super) async fn source_ended(&mut self, name: &str) -> Result<(), HostError> {
        let leaving = match &mut self.reload {
            Some(Reload::Exchanging(exchange)) => exchange.sources.remove(name),
            _ => None,
        };
        match leaving {
            Some(leaving) => {
                self.source_after(name, leaving.next);
                self.finish_exchange().await
            }
            None => {
                if let Some(task) = self.sources.get_mut(name) {
                    task.has_ended = true;
                }
                Ok(())
            }
        }
    }

    pub(super) async fn pipeline_ended(&mut self, name: &str) -> Result<(), HostError> {
        let leaving = match &mut self.reload {
            Some(Reload::Exchanging(exchange)) => exchange.pipelines.remove(name),
            _ => None,
        };
        match leaving {
            Some(next) => {
                self.pipeline_after(name, next).await?;
                self.finish_exchange().await
            }
            None => {
                self.pipelines.insert(name.to_owned(), PipelineTask::Ended);
                Ok(())
            }
        }
    }

    /// Once nothing of the configuration before runs any more.
    async fn finish_exchange(&mut self) -> Result<(), HostError> {
        let exchange = match self.reload.take() {
            Some(Reload::Exchanging(exchange))
                if exchange.sources.is_empty() && exchange.pipelines.is_empty() =>
            {
                exchange
            }
            other => {
                self.reload = other;
                return Ok(());
            }
        };
        self.store.keep_only(&names(&self.config)).await?;
        self.expiry.abort();
        self.expiry = self.beside.spawn(expire(self.store, &self.config));
        self.announce_unconfigured();
        let tasks = self.pipelines.values();
        let identities = tasks.filter_map(PipelineTask::identity);
        let used = identities.flat_map(PipelineIdentity::components).collect();
        self.builder.keep_code(&used);
        let at = now();
        self.host.board.configuration(|status| {
            status.loaded_at = at;
            status.refused = None;
            status.needs_restart = exchange.needs_restart;
        });
        let changes = exchange.changes;
        tracing::info!("reloaded: {}", changes.replace('\n', "; "));
        let file = self.config.report().name().to_owned();
        let outcome = ReloadOutcome::Done(format!("`{file}` is in force.\n{changes}"));
        self.reloaded(exchange.replies, &outcome);
        Ok(())
    }

    fn reloaded(&self, replies: Vec<oneshot::Sender<ReloadOutcome>>, outcome: &ReloadOutcome) {
        self.host
            .board
            .configuration(|status| status.reloading_since = None);
        self.tell(HostEvent::Reloaded);
        for reply in replies {
            // Who asked may have gone.
            let _ = reply.send(outcome.clone());
        }
    }
}

impl PipelineTask {
    /// `None`: it does not run.
    fn identity(&self) -> Option<&PipelineIdentity> {
        match self {
            PipelineTask::Starting { identity, .. } | PipelineTask::Running { identity, .. } => {
                Some(identity)
            }
            PipelineTask::Ended | PipelineTask::Failed => None,
        }
    }
}

impl Drop for Supervisor<'_> {
    /// A reload that the store's failure interrupts is not forgotten: the host reads the file when
    /// the store is open again.
    fn drop(&mut self) {
        if matches!(self.reload, Some(Reload::Preparing(_))) {
            drop(self.host.reloads.ask());
        }
    }
}

/// A request that is out has been answered or has timed out by then, so that a reload does not send
/// anything twice.
fn grace_of(config: &Config, pipeline: &str) -> Duration {
    let mut pipelines = config.pipelines.iter();
    let timeout = pipelines
        .find(|one| one.name == pipeline)
        .map_or(EXCHANGE_LEAST, |one| one.sink.timeout);
    timeout.clamp(EXCHANGE_LEAST, EXCHANGE_MOST)
}

async fn abandon_after(grace: Duration, stop: ShutdownTrigger) {
    tokio::time::sleep(grace).await;
    stop.abandon();
}
