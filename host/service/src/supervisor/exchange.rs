//! The exchange of readers and pipelines at a reload. Each that is replaced or removed stops by
//! itself: what it has in flight ends first, and the others go on meanwhile.

use std::collections::BTreeMap;
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
use crate::settings::{lag_limits, retention};
use crate::shutdown::ShutdownTrigger;
use crate::starting::{self, StartWait};
use crate::status::RefusedConfiguration;

use super::{PipelineTask, Reload, Supervisor, expire, names, streams_read};

/// What is being exchanged. What comes after each that has not ended yet; `None`: it is removed.
pub(super) struct Exchange {
    replies: Vec<oneshot::Sender<ReloadOutcome>>,
    changes: String,
    /// Pipelines were added or removed.
    has_other_names: bool,
    pipelines: BTreeMap<String, Option<NextPipeline>>,
}

struct NextPipeline {
    built: BuiltPipeline,
    identity: PipelineIdentity,
    unfinished: UnfinishedPipeline,
}

impl Supervisor<'_> {
    pub(super) fn begin_reload(&mut self, replies: Vec<oneshot::Sender<ReloadOutcome>>) {
        self.notify(HostEvent::Reloading);
        let at = now();
        self.host
            .board
            .configuration(|status| status.reloading_since = Some(at));
        let shown = self.host.board.snapshot(at).pipelines;
        let waits = |name: &str| shown.get(name).and_then(starting::waits_for);
        // Those are tried with the files as they are: the file is refused if it still cannot be
        // used.
        let identity = |(name, task): (&String, &PipelineTask)| {
            let waits_for_files = waits(name) == Some(StartWait::Files);
            let identity = self.identity(task).filter(|_| !waits_for_files);
            (name.clone(), identity.cloned())
        };
        let before = Before {
            config: self.config.clone(),
            sources: self.sources.clone(),
            pipelines: self.pipelines.iter().map(identity).collect(),
            waiting: self
                .pipelines
                .keys()
                .filter_map(|name| match waits(name)? {
                    StartWait::Files => None,
                    StartWait::Components(why) => Some((name.clone(), why)),
                })
                .collect(),
            can_look_up: self.can_look_up,
            fixed: self.fixed.clone(),
        };
        let (load, builder) = (self.load.clone(), self.builder.clone());
        self.preparing.spawn(reload::prepare(
            before,
            load,
            builder,
            self.store.clone(),
            self.host.board.clone(),
        ));
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
                let lines: Vec<String> = reload::problems(&report).collect();
                tracing::error!(
                    problems = lines.len(),
                    "`{}` has problems and is not loaded; the host goes on with the configuration \
                     it has",
                    report.name()
                );
                (self.show)(&report);
                let at = now();
                self.host.board.configuration(|status| {
                    let refused = status.refused.get_or_insert_with(|| RefusedConfiguration {
                        since: at,
                        ..RefusedConfiguration::default()
                    });
                    refused.read_at = at;
                    refused.problems = lines;
                });
                ReloadOutcome::Refused(report)
            }
            Ok(Err(Refusal::Ledger(error))) => {
                tracing::error!(%error, "the configuration is not loaded: the store cannot be \
                                         read");
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
            others: _,
            warnings: _,
        } = prepared;
        self.host.in_force(config.clone());
        let at = now();
        self.host.board.configuration(|status| {
            status.loaded_at = at;
            status.refused = None;
            status.needs_restart = needs_restart;
        });
        let before = std::mem::replace(&mut self.config, config);
        self.store.retain(retention(&self.config)).await?;
        self.store.limit_lag(lag_limits(&self.config)).await?;
        // Those that are removed may still commit.
        let mut both = streams_read(&before);
        for (pipeline, streams) in streams_read(&self.config) {
            let read = both.entry(pipeline).or_default();
            read.extend(streams);
            read.sort_unstable();
            read.dedup();
        }
        self.store.keep_only(&both).await?;
        if let Some(databases) = databases {
            self.grant(databases);
        }
        self.reload = Some(Reload::Exchanging(Exchange {
            replies,
            changes,
            has_other_names: names(&before) != names(&self.config),
            pipelines: BTreeMap::new(),
        }));
        for name in source_changes
            .removed
            .iter()
            .chain(source_changes.to_build())
        {
            let mut configured = self.config.sources.iter();
            let source = configured.find(|source| source.name == *name);
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

    /// A reader ends once its appends are answered. One that waits for room in the store must not
    /// hold up a reload, which may be what makes room: so none waits for a reader.
    fn replace_source(&mut self, name: &str, next: Option<(Source, SourceIdentity)>) {
        match &next {
            Some((_, identity)) => _ = self.sources.insert(name.to_owned(), identity.clone()),
            None => {
                self.sources.remove(name);
                self.next.remove(name);
                self.forget_source(name);
            }
        }
        match (self.reading.get(name), next) {
            (Some(stop), next) => {
                stop.drain();
                self.next.extend(next.map(|next| (name.to_owned(), next)));
            }
            (None, Some((source, identity))) => self.read(&source, &identity),
            (None, None) => {}
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
                self.background
                    .spawn(abandon_after(name.to_owned(), grace, stop));
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
            Some(Reload::Exchanging(exchange)) if exchange.pipelines.is_empty() => exchange,
            other => {
                self.reload = other;
                return Ok(());
            }
        };
        self.store.keep_only(&streams_read(&self.config)).await?;
        self.expiry.abort();
        self.expiry = self.background.spawn(expire(self.store, &self.config));
        if exchange.has_other_names {
            self.announce_unconfigured();
        }
        let tasks = self.pipelines.values();
        let identities = tasks.filter_map(|task| self.identity(task));
        let used = identities.flat_map(PipelineIdentity::components).collect();
        self.builder.keep_code(&used);
        let changes = exchange.changes;
        tracing::info!("reloaded: {}", changes.replace('\n', "; "));
        let file = self.config.no_issues().name().to_owned();
        let outcome = ReloadOutcome::Done(format!("`{file}` is in force.\n{changes}"));
        self.reloaded(exchange.replies, &outcome);
        Ok(())
    }

    /// `None`: it does not run, or will not.
    fn identity<'t>(&self, task: &'t PipelineTask) -> Option<&'t PipelineIdentity> {
        match task {
            PipelineTask::Running { identity, .. } => Some(identity),
            // If it looks something up, it is about to fail.
            PipelineTask::Starting { .. } if !self.can_look_up => None,
            PipelineTask::Starting { identity, .. } => Some(identity),
            PipelineTask::Ended | PipelineTask::Failed => None,
        }
    }

    fn reloaded(&self, replies: Vec<oneshot::Sender<ReloadOutcome>>, outcome: &ReloadOutcome) {
        self.host
            .board
            .configuration(|status| status.reloading_since = None);
        self.notify(HostEvent::Reloaded);
        for reply in replies {
            // The caller may have gone.
            let _ = reply.send(outcome.clone());
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

async fn abandon_after(pipeline: String, grace: Duration, stop: ShutdownTrigger) {
    tokio::time::sleep(grace).await;
    if !stop.is_over() {
        tracing::warn!(
            pipeline,
            after_s = grace.as_secs(),
            "the reload stops waiting for batches in flight; what is left of them is delivered \
             with the new configuration, and the receiver may get some of it twice"
        );
        stop.abandon();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_pipeline_that_does_not_end_is_abandoned_after_its_time() {
        let (trigger, mut stop) = ShutdownTrigger::new();
        let began = tokio::time::Instant::now();
        let grace = Duration::from_secs(10);
        let abandoning = tokio::spawn(abandon_after("siem".to_owned(), grace, trigger));
        stop.abandoned().await;
        assert_eq!(began.elapsed(), grace);
        abandoning.await.unwrap();
    }

    #[test]
    fn a_request_that_is_out_is_waited_for_within_limits() {
        let text = |timeout: &str| {
            format!(
                "[teleport]\naddr = \"localhost:3025\"\nidentity = \"i\"\n[store]\npath = \"s\"\n\
                 [pipelines.siem.sink]\nplugin = \"builtin:fluentd\"\n\
                 url = \"https://localhost\"\ntimeout = \"{timeout}\"\n"
            )
        };
        for (timeout, expected) in [("1s", 10), ("30s", 30), ("10m", 60)] {
            let environment = lockgate_config::ProcessEnvironment;
            let config = lockgate_config::parse("x", &text(timeout), "".as_ref(), &environment);
            let grace = grace_of(&config.unwrap(), "siem");
            assert_eq!(grace.as_secs(), expected, "{timeout}");
        }
    }
}
