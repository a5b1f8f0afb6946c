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
    Code, CodeCache, Compiler, Component, ConfigureError, DigestsInMemory, Engine, EngineOptions,
    KeptCode, Kind, Limits, Stage, StageOptions,
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
    code: HashMap<String, Code>,
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

struct Made {
    stage: Stage,
    description: Value,
}

impl Workshop {
    /// `code`: folder for compiled code; none is kept where it cannot be used. `memory`: bytes for
    /// all instances together.
    pub fn new(
        base: &Path,
        code: Option<&Path>,
        compiler: Compiler,
        memory: u64,
        masks: Masks,
        board: Board,
    ) -> Result<Workshop, lockgate_runtime::EngineError> {
        let kept_code = code.and_then(|folder| match CodeStore::open(folder, CODE_CAPACITY) {
            Ok(store) => Some(KeptCode {
                files: Arc::new(Cache(store)),
                digests: Arc::new(DigestsInMemory::default()),
            }),
            Err(error) => {
                tracing::warn!(
                    "compiled code is not kept, so that each start compiles again: {error}"
                );
                None
            }
        });
        let engine = Engine::new(EngineOptions {
            kept_code,
            compiler,
            memory_total: usize::try_from(memory).unwrap_or(usize::MAX),
            ..EngineOptions::default()
        })?;
        let databases = Databases::open(&Grant::default()).ok();
        Ok(Workshop {
            engine,
            masks,
            board,
            base: base.to_owned(),
            code: HashMap::new(),
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
    pub async fn assemble(&mut self, pipeline: &Pipeline, report: &mut Report) -> Option<Assembly> {
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
            match self.part(&part, report).await {
                Some(stage) if stage.stage.kind() == Kind::HttpSink => {
                    report.push(Issue::new(
                        part.plugin.span.clone(),
                        format!(
                            "`{}` is a sink, not a filter or a mapper.",
                            part.plugin.name
                        ),
                        "this is a stage",
                        format!("name it in `[pipelines.{}.sink]`", pipeline.name),
                    ));
                    complete = false;
                }
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
        let sink_stage = self.part(&part, report).await.filter(|stage| {
            let is_sink = stage.stage.kind() == Kind::HttpSink;
            if !is_sink {
                report.push(Issue::new(
                    part.plugin.span.clone(),
                    format!("`{}` is no sink.", part.plugin.name),
                    "this is the sink",
                    format!("name it in a `[[pipelines.{}.stage]]`", pipeline.name),
                ));
            }
            is_sink
        });
        let client = self.client(pipeline, report);
        let (sink_stage, client) = (sink_stage?, client?);
        if !complete {
            return None;
        }
        let looks_up = made.iter().any(|stage| stage.stage.component().looks_up());
        if looks_up && self.databases.is_none() {
            return None;
        }
        let components = json!({
            "stages": made.iter().map(|stage| &stage.description).collect::<Vec<_>>(),
            "sink": sink_stage.description,
        });
        let wish = sink_stage.stage.setup().batch;
        let limits = BatchLimits {
            events: wish
                .map_or(pipeline.batch.events, |wish| {
                    pipeline.batch.events.min(wish.max_documents as usize)
                })
                .max(1),
            bytes: wish.map_or(pipeline.batch.bytes, |wish| {
                pipeline.batch.bytes.min(wish.max_bytes.into())
            }) as usize,
        };
        let operator_headers = client.operator_headers().to_vec();
        let stages = made.into_iter().map(|stage| stage.stage).collect();
        let outlet = Outlet {
            pipeline: pipeline.name.as_str().into(),
            chain: Arc::new(Chain::new(stages, sink_stage.stage, operator_headers)),
            queue: self.engine.scheduler().queue(pipeline.name.as_str()),
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
    async fn part(&mut self, part: &Part<'_>, report: &mut Report) -> Option<Made> {
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
        let limits = Limits {
            time: part.plugin.limits.time,
            batch_time: part.plugin.limits.batch_time,
            memory: part.plugin.limits.memory as usize,
            ..Limits::default()
        };
        let component = match self.component(&artifact, &digest, &limits).await {
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
            limits,
            reuse: part.plugin.reuse,
        };
        match Stage::configure(&self.engine, &component, options) {
            Ok(stage) => {
                let description = json!({ "plugin": part.plugin.name, "digest": digest, "with": part.with.json() });
                Some(Made { stage, description })
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

    async fn component(
        &mut self,
        artifact: &Artifact,
        digest: &str,
        limits: &Limits,
    ) -> Result<Component, lockgate_runtime::LoadError> {
        let code = match self.code.get(digest) {
            Some(code) => code.clone(),
            None => Code::compile(&self.engine, &artifact.name, &artifact.bytes).await?,
        };
        self.code.insert(digest.to_owned(), code.clone());
        Component::new(&self.engine, &artifact.name, code, limits)
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
