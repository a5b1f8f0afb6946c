use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::time::Duration;

use lockgate_config::{Auth, Database, Issue, Order, Pipeline, Plugin, Report, Sink, Wasi, With};
use lockgate_egress::{Client, Endpoint, EndpointError, Identity, Pem, Rate};
use lockgate_lookup::{Databases, Grant, Which};
use lockgate_model::Masks;
use lockgate_registry::{Artifact, CodeStore, resolve};
use lockgate_runtime::{
    self as runtime, CodeCache, Component, ConfigureError, Engine, EngineOptions, Limits, Stage,
    StageOptions,
};
use serde_json::{Value, json};

use crate::batcher::BatchLimits;
use crate::chain::Chain;
use crate::delivery::Outlet;
use crate::generation::Description;
use crate::status::Board;

/// Compiled code kept on disk, in bytes.
const CODE_CAPACITY: u64 = 1 << 30;

/// A pipeline that can run: its components are configured, its endpoint is checked. Nothing has
/// been connected.
pub struct Assembly {
    pub(crate) outlet: Arc<Outlet>,
    pub(crate) streams: Vec<Stream>,
    pub(crate) limits: BatchLimits,
    pub(crate) age: Duration,
    pub(crate) in_flight: usize,
    pub(crate) description: Description,
}

pub(crate) struct Stream {
    pub(crate) name: String,
    pub(crate) source: String,
    pub(crate) in_session_order: bool,
}

impl Assembly {
    pub fn name(&self) -> &str {
        &self.outlet.pipeline
    }
}

/// Makes pipelines out of their configuration. Components that several stages share are compiled
/// once.
pub struct Workshop {
    engine: Engine,
    masks: Masks,
    board: Board,
    /// What relative paths of plugins begin at.
    base: PathBuf,
    components: HashMap<String, Component>,
    /// `None` where what was granted cannot be opened.
    databases: Option<Databases>,
}

/// A stage or a sink, as configured.
struct Part<'a> {
    pipeline: &'a str,
    label: String,
    plugin: &'a Plugin,
    with: &'a With,
}

/// A component that was configured as `T`: a stage or a sink.
struct Made<T> {
    configured: T,
    description: Value,
}

type Configure<T> = fn(&Engine, &Component, StageOptions) -> Result<T, ConfigureError>;

impl Workshop {
    /// `code`: folder for compiled code; none is kept where it cannot be used.
    pub fn new(
        base: &Path,
        code: Option<&Path>,
        masks: Masks,
        board: Board,
    ) -> Result<Workshop, lockgate_runtime::EngineError> {
        let code_cache = code.and_then(|folder| match CodeStore::open(folder, CODE_CAPACITY) {
            Ok(store) => Some(Arc::new(Cache(store)) as Arc<dyn CodeCache>),
            Err(error) => {
                tracing::warn!(
                    "compiled code is not kept, so that each start compiles again: {error}"
                );
                None
            }
        });
        let engine = Engine::new(EngineOptions {
            code_cache,
            ..EngineOptions::default()
        })?;
        let databases = Databases::open(&Grant::default()).ok();
        Ok(Workshop {
            engine,
            masks,
            board,
            base: base.to_owned(),
            components: HashMap::new(),
            databases,
        })
    }

    /// Opens what components may look up, or reports what cannot be opened; pipelines that look
    /// something up then cannot be assembled.
    pub fn grant(&mut self, lookup: &lockgate_config::Lookup, report: &mut Report) {
        let path =
            |database: &Option<Database>| database.as_ref().map(|database| database.path.clone());
        let grant = Grant {
            city: path(&lookup.city),
            asn: path(&lookup.asn),
            user_agents: lookup.user_agents,
        };
        let opened = Databases::open(&grant).map_err(|errors| {
            for error in errors {
                let database = match error.which {
                    Which::City => &lookup.city,
                    Which::Asn => &lookup.asn,
                };
                let span = database.as_ref().map_or(0..0, |database| database.span.clone());
                let hint =
                    "a database in MaxMind's format, such as `geoipupdate` fetches: GeoLite2 City for `city`, GeoLite2 ASN for `asn`";
                report.push(Issue::new(span, format!("{error}."), "granted here", hint));
            }
        });
        self.databases = opened.ok();
    }

    /// What was granted, for [`Plan`](crate::Plan).
    pub fn into_databases(self) -> Option<Databases> {
        self.databases
    }

    /// One pipeline, or its problems in the report.
    pub fn assemble(&mut self, pipeline: &Pipeline, report: &mut Report) -> Option<Assembly> {
        let mut made = Vec::new();
        let mut complete = true;
        for (index, stage) in pipeline.stages.iter().enumerate() {
            let label = format!("stage {} ({})", index + 1, stage.plugin.name);
            let part = Part {
                pipeline: &pipeline.name,
                label,
                plugin: &stage.plugin,
                with: &stage.with,
            };
            let misplaced = Issue::new(
                part.plugin.span.clone(),
                format!(
                    "`{}` is a sink, not a filter or a mapper.",
                    part.plugin.name
                ),
                "this is a stage",
                format!("name it in `[pipelines.{}.sink]`", pipeline.name),
            );
            match self.part(&part, Stage::configure, misplaced, report) {
                Some(stage) => made.push(stage),
                None => complete = false,
            }
        }
        let sink = &pipeline.sink;
        let label = format!("sink ({})", sink.plugin.name);
        let part = Part {
            pipeline: &pipeline.name,
            label,
            plugin: &sink.plugin,
            with: &sink.with,
        };
        let misplaced = Issue::new(
            part.plugin.span.clone(),
            format!("`{}` is no sink.", part.plugin.name),
            "this is the sink",
            format!("name it in a `[[pipelines.{}.stage]]`", pipeline.name),
        );
        let sink_stage = self.part(&part, runtime::Sink::configure, misplaced, report);
        let client = self.client(pipeline, report);
        let (sink_stage, client) = (sink_stage?, client?);
        if !complete {
            return None;
        }
        let looks_up = made.iter().any(|stage| stage.configured.looks_up());
        if looks_up && self.databases.is_none() {
            return None;
        }
        let components = json!({
            "stages": made.iter().map(|stage| &stage.description).collect::<Vec<_>>(),
            "sink": sink_stage.description,
        });
        let setup = sink_stage.configured.setup();
        let least = |own: u64, wish: Option<u32>| wish.map_or(own, |wish| own.min(wish.into()));
        let limits = BatchLimits {
            events: least(pipeline.batch.events as u64, setup.max_documents) as usize,
            bytes: least(pipeline.batch.bytes, setup.max_bytes) as usize,
        };
        let rules = client.request_rules(&sink.allow_headers);
        let stages = made.into_iter().map(|stage| stage.configured).collect();
        let outlet = Outlet {
            pipeline: pipeline.name.as_str().into(),
            chain: Arc::new(Chain::new(stages, sink_stage.configured, rules)),
            pool: self.engine.pool().clone(),
            client,
            rate: sink
                .rate
                .events
                .map(|rate| Rate::new(rate.events as f64 / rate.per.as_secs_f64())),
            board: self.board.clone(),
            sent: AtomicU64::new(0),
            accepted: AtomicU64::new(0),
            too_large: AtomicUsize::new(usize::MAX),
        };
        let streams = pipeline.from.iter().map(|input| Stream {
            name: format!("{}/{}", input.source, input.feed.name()),
            source: input.source.clone(),
            in_session_order: input.order == Order::Session,
        });
        Some(Assembly {
            outlet: Arc::new(outlet),
            streams: streams.collect(),
            limits,
            age: pipeline.batch.age,
            in_flight: pipeline.in_flight,
            description: Description {
                components,
                looks_up,
            },
        })
    }

    /// Resolves, loads and configures one component.
    /// `misplaced`: what to report of a component of the wrong world.
    fn part<T>(
        &mut self,
        part: &Part<'_>,
        configure: Configure<T>,
        misplaced: Issue,
        report: &mut Report,
    ) -> Option<Made<T>> {
        if part.plugin.wasi == Wasi::Stub {
            report.push(Issue::new(
                part.plugin.span.clone(),
                "`wasi = \"stub\"` is not supported in this version.".to_owned(),
                "this plugin",
                "remove `wasi`, and build the component without WASI imports",
            ));
            return None;
        }
        let source = part.plugin.source.to_string();
        let artifact = match resolve(&source, &self.base) {
            Ok(artifact) => artifact,
            Err(error) => {
                let hint = error
                    .hint()
                    .unwrap_or_else(|| "write `builtin:NAME`, or the path of a component".into());
                report.push(Issue::new(
                    part.plugin.span.clone(),
                    error.to_string(),
                    "this plugin",
                    hint,
                ));
                return None;
            }
        };
        let digest = artifact.digest.to_string();
        let reporter = reporter(part.plugin, &artifact);
        let component = match self.component(&artifact, &digest) {
            Ok(component) => component,
            Err(error) => {
                report.push(Issue::new(
                    part.plugin.span.clone(),
                    format!("`{}` cannot be loaded: {error}.", part.plugin.name),
                    "this plugin",
                    "build it for the package `lockgate:plugin` of this release; `lockgate plugin run` shows more",
                ));
                return None;
            }
        };
        let options = StageOptions {
            pipeline: part.pipeline.into(),
            label: part.label.as_str().into(),
            plugin: reporter.as_str().into(),
            config: serde_json::to_value(part.with.json()).unwrap_or(Value::Null),
            limits: Limits {
                time: part.plugin.limits.time,
                memory: part.plugin.limits.memory as usize,
                ..Limits::default()
            },
            reuse: part.plugin.reuse,
            state: part.plugin.state.is_some(),
        };
        match configure(&self.engine, &component, options) {
            Ok(configured) => {
                let description = json!({ "plugin": part.plugin.name, "digest": digest, "with": part.with.json() });
                Some(Made {
                    configured,
                    description,
                })
            }
            Err(ConfigureError::World(_)) => {
                report.push(misplaced);
                None
            }
            Err(ConfigureError::Issues(issues)) => {
                for issue in issues {
                    report.plugin_issue(
                        part.with.locate(&issue.path),
                        &reporter,
                        &issue.message,
                        issue.help.as_deref(),
                    );
                }
                None
            }
            Err(error) => {
                let message = format!("`{}` could not be started: {error}.", part.plugin.name);
                let hint = "the component is at fault, not this configuration: `lockgate plugin run` shows its log";
                report.push(Issue::new(
                    part.with.locate(""),
                    message,
                    format!("given to {reporter}"),
                    hint,
                ));
                None
            }
        }
    }

    fn component(
        &mut self,
        artifact: &Artifact,
        digest: &str,
    ) -> Result<Component, lockgate_runtime::LoadError> {
        if let Some(component) = self.components.get(digest) {
            return Ok(component.clone());
        }
        let component = Component::load(&self.engine, &artifact.name, &artifact.bytes)?;
        self.components.insert(digest.to_owned(), component.clone());
        Ok(component)
    }

    fn client(&self, pipeline: &Pipeline, report: &mut Report) -> Option<Client> {
        let sink = &pipeline.sink;
        let client = endpoint(pipeline, sink, &self.masks).and_then(Client::new);
        client
            .map_err(|error| {
                use EndpointError::{Fragment, Scheme, TlsWithoutHttps, Url, Userinfo};
                let of_url = matches!(error, Url(..) | Scheme(..) | Userinfo(..) | Fragment(..) | TlsWithoutHttps(..));
                let (span, hint) = if of_url {
                    (&sink.url_span, "such as `https://logs.example.com:8443/audit`")
                } else {
                    (
                        &sink.tls_span,
                        "`ca`, `cert` and `key` name PEM files that Lockgate may read; relative paths begin at this file's folder",
                    )
                };
                report.push(Issue::new(span.clone(), format!("The endpoint cannot be used: {error}."), "this endpoint", hint));
            })
            .ok()
    }
}

/// `builtin:filter 0.1.0`.
fn reporter(plugin: &Plugin, artifact: &Artifact) -> String {
    match artifact.version {
        Some(version) => format!("{} {version}", plugin.name),
        None => plugin.name.clone(),
    }
}

fn endpoint(pipeline: &Pipeline, sink: &Sink, masks: &Masks) -> Result<Endpoint, EndpointError> {
    let pem = |file: &Option<PathBuf>| file.as_ref().map(Pem::read).transpose();
    let identity = match &sink.tls.client {
        Some(client) => Some(Identity {
            cert: Pem::read(&client.cert)?,
            key: Pem::read(&client.key)?,
        }),
        None => None,
    };
    let mut endpoint = Endpoint::new(&pipeline.name, sink.url.clone());
    endpoint.session_url = sink.session_url.clone();
    endpoint.ca = pem(&sink.tls.ca)?;
    endpoint.identity = identity;
    endpoint.headers = sink.headers.clone();
    endpoint.auth = match &sink.auth {
        None => lockgate_egress::Auth::None,
        Some(Auth::Bearer(token)) => lockgate_egress::Auth::Bearer(token.clone()),
        Some(Auth::Basic { user, password }) => lockgate_egress::Auth::Basic {
            user: user.clone(),
            password: password.clone(),
        },
        Some(Auth::Header { name, value }) => lockgate_egress::Auth::Header {
            name: name.clone(),
            value: value.clone(),
        },
        Some(Auth::Query { name, value }) => lockgate_egress::Auth::Query {
            name: name.clone(),
            value: value.clone(),
        },
    };
    endpoint.timeout = sink.timeout;
    endpoint.connections = sink.rate.in_flight;
    endpoint.masks = masks.clone();
    Ok(endpoint)
}

/// The registry's files as the runtime's cache.
struct Cache(CodeStore);

impl CodeCache for Cache {
    fn load(&self, key: &str) -> Option<Vec<u8>> {
        self.0.load(key)
    }

    fn save(&self, key: &str, code: &[u8]) {
        if let Err(error) = self.0.save(key, code) {
            tracing::warn!(
                "compiled code is not kept, so that the next start compiles again: {error}"
            );
        }
    }
}
