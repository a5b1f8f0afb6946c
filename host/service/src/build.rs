//! Builds pipelines out of their configuration: components, endpoints, limits.

mod component;
pub(crate) mod endpoint;
mod file_answer;

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lockgate_config::{Database, Issue, Issues, Lookup, Pipeline};
use lockgate_egress::{ConnectionBudget, Destination, RateLimiter};
use lockgate_engine::EndpointIndex;
use lockgate_lookup::{DatabaseKind, Databases, Grant};
use lockgate_model::contract::{CallError, Holder, Shortage};
use lockgate_model::{FeedKind, Masks};
use lockgate_observe::metrics::Recorder;
use lockgate_registry::{CodeDir, Digest, resolve};
use lockgate_runtime::{
    self as runtime, BatchMemoryBudget, Code, Compiler, Engine, EngineOptions, KeptCode,
    MemoryShare, Queue, Room,
};
use lockgate_store::{Inspector, Store};
use serde_json::json;

use crate::client::Client;
use crate::code::{CodeFiles, ReadOnlyDigests, ReadOnlyFiles, StoredDigests};
use crate::generation::Description;
use crate::limits::CODE_CAPACITY;
use crate::plugins::BoundSink;
use crate::starting::Uncompiled;

use component::{ConfiguredComponent, Place};
use endpoint::CheckedEndpoint;
pub use endpoint::check_endpoint;

/// A pipeline that can run: its components are configured, its endpoint is checked. Nothing has
/// been connected. Clones share everything.
#[derive(Clone)]
pub struct BuiltPipeline {
    pub(crate) config: Pipeline,
    pub(crate) stages: Vec<BuiltStage>,
    pub(crate) sink: BoundSink,
    pub(crate) client: Client,
    /// The content of the certificates and keys that `client` uses.
    pub(crate) certificates: Vec<Digest>,
    pub(crate) masks: Masks,
    /// Its endpoints, in the order in which the engine counts them.
    pub(crate) destinations: &'static [Destination],
    pub(crate) rate: Option<Arc<RateLimiter>>,
    pub(crate) queue: Queue,
    pub(crate) memory: MemoryShare,
    pub(crate) cpu_budget: Duration,
    pub(crate) description: Description,
}

#[derive(Clone)]
pub(crate) struct BuiltStage {
    pub(crate) stage: runtime::Stage,
    /// Bytes of state that the operator granted.
    pub(crate) state_quota: Option<usize>,
}

impl BuiltPipeline {
    pub fn name(&self) -> &str {
        &self.config.name
    }

    /// The endpoint of a feed: recordings may have one of their own.
    pub(crate) fn endpoint_of(&self, feed: FeedKind) -> EndpointIndex {
        let wanted = match feed {
            FeedKind::Audit => Destination::Url,
            FeedKind::Sessions => Destination::SessionUrl,
        };
        let found = self.destinations.iter().position(|&other| other == wanted);
        EndpointIndex::new(found.unwrap_or(0))
    }
}

/// Builds pipelines out of their configuration. Components that several stages share are compiled
/// once.
pub struct PipelineBuilder {
    engine: Engine,
    masks: Masks,
    memory: BatchMemoryBudget,
    /// Relative paths of plugins begin here.
    base: PathBuf,
    code: Mutex<HashMap<String, Code>>,
    /// Where compilations are counted.
    recorder: Recorder,
    connections: ConnectionBudget,
    /// Held while a component is compiled: one at a time.
    compiling: tokio::sync::Mutex<()>,
}

/// How far a pipeline has been built.
#[derive(Clone, Copy, Debug)]
pub enum Progress<'a> {
    /// Nothing of it has to be compiled any more.
    Compiled,
    /// The component with this label is loaded and configured.
    Configures(&'a str),
}

/// Why a pipeline was not built.
#[derive(Debug)]
pub enum Unbuilt {
    /// Its problems are among the issues.
    Reported,
    /// Certificates or keys of its endpoint cannot be used, as the issues say, and nothing else is
    /// wrong. They may be late or half-written: another attempt may succeed.
    Files(String),
    /// The host has no room for its components now: [`CallError::NoRoom`] or [`CallError::Host`].
    /// Another attempt may succeed.
    NoRoom(CallError),
}

/// Opens what components may look up. `None`: the issues say what cannot be opened.
pub fn open_databases(lookup: &Lookup, issues: &mut Issues) -> Option<Databases> {
    let path =
        |database: &Option<Database>| database.as_ref().map(|database| database.path.clone());
    let grant = Grant {
        city: path(&lookup.city),
        asn: path(&lookup.asn),
        user_agents: lookup.user_agents,
    };
    let opened = Databases::open(&grant).map_err(|errors| {
        for error in errors {
            let database = match error.database {
                DatabaseKind::City => &lookup.city,
                DatabaseKind::Asn => &lookup.asn,
            };
            let span = database
                .as_ref()
                .map_or(0..0, |database| database.span.clone());
            let hint = "name a database in MaxMind's format, such as `geoipupdate` fetches: \
                        GeoLite2 City for `city`, GeoLite2 ASN for `asn`";
            issues.push(Issue::new(span, format!("{error}."), "granted here", hint));
        }
    });
    opened.ok()
}

impl PipelineBuilder {
    /// `memory`: bytes for all instances together, and for all batches in flight. `store`: where
    /// digests of compiled code are kept; without it no compiled code is.
    pub fn new(
        base: &Path,
        compiler: Compiler,
        memory: u64,
        masks: Masks,
        store: Option<&Store>,
        code: &Path,
    ) -> Result<PipelineBuilder, runtime::EngineError> {
        let kept_code = store.and_then(|store| match CodeDir::open(code, CODE_CAPACITY) {
            Ok(files) => Some(KeptCode {
                files: Arc::new(CodeFiles(files)),
                digests: Arc::new(StoredDigests(store.clone())),
            }),
            Err(error) => {
                tracing::warn!("compiled code is not kept, so each start compiles again: {error}");
                None
            }
        });
        PipelineBuilder::with_code(base, compiler, memory, masks, kept_code)
    }

    /// For pipelines that are not run: it uses the compiled code that a host has kept in the
    /// directory `code`, and adds none.
    pub fn for_replay(
        base: &Path,
        compiler: Compiler,
        memory: u64,
        masks: Masks,
        store: Arc<Inspector>,
        code: &Path,
    ) -> Result<PipelineBuilder, runtime::EngineError> {
        // Opening it would make it.
        let files = code.is_dir().then(|| CodeDir::open(code, CODE_CAPACITY));
        let kept_code = files.and_then(Result::ok).map(|files| KeptCode {
            files: Arc::new(ReadOnlyFiles(files)),
            digests: Arc::new(ReadOnlyDigests(store)),
        });
        PipelineBuilder::with_code(base, compiler, memory, masks, kept_code)
    }

    fn with_code(
        base: &Path,
        compiler: Compiler,
        memory: u64,
        masks: Masks,
        kept_code: Option<KeptCode>,
    ) -> Result<PipelineBuilder, runtime::EngineError> {
        let memory = usize::try_from(memory).unwrap_or(usize::MAX);
        let options = EngineOptions {
            kept_code,
            compiler,
            memory_total: memory,
            ..EngineOptions::default()
        };
        Ok(PipelineBuilder {
            engine: Engine::new(options)?,
            masks,
            memory: BatchMemoryBudget::new(memory),
            base: base.to_owned(),
            code: Mutex::default(),
            recorder: Recorder::default(),
            connections: ConnectionBudget::default(),
            compiling: tokio::sync::Mutex::default(),
        })
    }

    /// Counts compilations in `recorder` from now on.
    pub(crate) fn record(&mut self, recorder: Recorder) {
        self.recorder = recorder;
    }

    /// The receivers of all pipelines share these from now on.
    pub(crate) fn share_connections(&mut self, connections: ConnectionBudget) {
        self.connections = connections;
    }

    /// What must not be shown.
    pub(crate) fn masks(&self) -> &Masks {
        &self.masks
    }

    /// Where relative paths of plugins begin.
    pub(crate) fn base(&self) -> &Path {
        &self.base
    }

    /// Waits until there is memory for what a component could not have.
    pub(crate) async fn room_for(&self, shortage: Shortage) -> Room {
        self.engine.room_for(shortage).await
    }

    /// What keeps the certificates and keys of the pipeline's endpoint from being used; `None`:
    /// nothing. Blocks while the files are read.
    pub(crate) fn unusable_files(&self, pipeline: &Pipeline) -> Option<String> {
        endpoint::unusable_files(pipeline, &self.masks)
    }

    /// Whose components have memory that no other can have now, those with the most first.
    pub(crate) fn memory_holders(&self) -> Vec<Holder> {
        self.engine.memory_holders()
    }

    /// Lets go of the code of all other components.
    pub(crate) fn keep_code(&self, digests: &BTreeSet<&str>) {
        self.known_code()
            .retain(|digest, _| digests.contains(digest.as_str()));
    }

    /// The components of the pipeline that have to be compiled first. Blocks while it reads and
    /// hashes components and their code.
    pub(crate) fn uncompiled(&self, pipeline: &Pipeline) -> Uncompiled {
        let plugins = pipeline.stages.iter().map(|stage| &stage.plugin);
        let mut uncompiled = Uncompiled::new();
        for plugin in plugins.chain([&pipeline.sink.plugin]) {
            let Ok(artifact) = resolve(&plugin.source.to_string(), &self.base) else {
                continue;
            };
            let digest = artifact.digest.to_string();
            if self.known_code().contains_key(&digest) {
                continue;
            }
            match Code::kept(&self.engine, &artifact.bytes) {
                Some(code) => {
                    self.known_code().insert(digest, code);
                }
                None => {
                    uncompiled.insert(digest, artifact.bytes.len() as u64);
                }
            }
        }
        uncompiled
    }

    /// One pipeline, or its problems among the issues. `progress` is called once it is compiled,
    /// and then for each of its components. `can_look_up`: all databases that are granted could be
    /// opened; pipelines that look something up are not built otherwise.
    pub async fn build(
        &self,
        pipeline: &Pipeline,
        can_look_up: bool,
        issues: &mut Issues,
        mut progress: impl FnMut(Progress<'_>),
    ) -> Result<BuiltPipeline, Unbuilt> {
        let mut components = Vec::new();
        for stage in &pipeline.stages {
            components.push(self.compile(&stage.plugin, issues).await);
        }
        let resolved_sink = self.compile(&pipeline.sink.plugin, issues).await;
        progress(Progress::Compiled);
        let queue = self.engine.scheduler().queue(pipeline.name.as_str());
        let mut stages = Vec::new();
        let mut descriptions = Vec::new();
        let mut complete = true;
        let mut no_room = None;
        let mut cpu_budget = Duration::ZERO;
        for (index, (stage, resolved)) in pipeline.stages.iter().zip(components).enumerate() {
            let place = Place::of_stage(pipeline, index, resolved);
            progress(Progress::Configures(place.label()));
            cpu_budget = cpu_budget.max(stage.plugin.limits.batch_time);
            match self
                .component(&queue, place, runtime::Stage::configure, issues)
                .await
            {
                Ok(ConfiguredComponent {
                    configured,
                    description,
                }) => {
                    let types = &configured.setup().types;
                    let named = types.only.iter().flatten().chain(&types.skip);
                    let named: BTreeSet<_> = named.chain(&types.skip_in_sessions).collect();
                    for warning in stage.with.check_event_types(named.into_iter()) {
                        issues.push(warning);
                    }
                    let granted = stage.plugin.state.map(|bytes| bytes as usize);
                    let state_quota = granted.filter(|_| configured.uses_state());
                    stages.push(BuiltStage {
                        stage: configured,
                        state_quota,
                    });
                    descriptions.push(description);
                }
                Err(Unbuilt::Reported | Unbuilt::Files(_)) => complete = false,
                Err(Unbuilt::NoRoom(why)) => no_room = Some(why),
            }
        }
        let sink = &pipeline.sink;
        let place = Place::of_sink(pipeline, resolved_sink);
        progress(Progress::Configures(place.label()));
        cpu_budget = cpu_budget.max(sink.plugin.limits.batch_time);
        let built_sink = self
            .component(&queue, place, runtime::Sink::configure, issues)
            .await;
        let client = endpoint::client(pipeline, &self.masks, &self.connections, &queue, issues);
        let client = client.await;
        let looks_up = stages.iter().any(|stage| stage.stage.looks_up());
        if !complete || looks_up && !can_look_up {
            return Err(Unbuilt::Reported);
        }
        // First what no other attempt helps with.
        if matches!(client, Err(Unbuilt::Reported)) {
            return Err(Unbuilt::Reported);
        }
        let built_sink = built_sink?;
        let CheckedEndpoint {
            client,
            certificates,
        } = client?;
        // Only if nothing else is wrong: another attempt would not help.
        if let Some(why) = no_room {
            return Err(Unbuilt::NoRoom(why));
        }
        let rules = Arc::new(client.request_rules(&sink.allow_headers));
        let components = json!({ "stages": descriptions, "sink": built_sink.description });
        let bound_sink = BoundSink {
            sink: built_sink.configured,
            rules,
            meter: None,
        };
        file_answer::check(&queue, bound_sink.clone(), pipeline, issues).await?;
        Ok(BuiltPipeline {
            stages,
            sink: bound_sink,
            client,
            certificates,
            masks: self.masks.clone(),
            destinations: match sink.session_url {
                Some(_) => &[Destination::Url, Destination::SessionUrl],
                None => &[Destination::Url],
            },
            rate: sink.rate.events.map(|rate| {
                Arc::new(RateLimiter::new(
                    rate.events as f64 / rate.per.as_secs_f64(),
                ))
            }),
            queue,
            memory: self.memory.share(),
            cpu_budget,
            description: Description {
                components,
                looks_up,
            },
            config: pipeline.clone(),
        })
    }

    fn known_code(&self) -> std::sync::MutexGuard<'_, HashMap<String, Code>> {
        self.code.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
