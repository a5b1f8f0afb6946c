//! The components of a pipeline: found, compiled, loaded and configured.

use std::borrow::Cow;

use lockgate_config::{Issue, Issues, Pipeline, Plugin, Sink, Stage, Wasi, With};
use lockgate_model::contract::CallError;
use lockgate_registry::{Artifact, resolve};
use lockgate_runtime::{
    Code, Component, ComponentOptions, ConfigureError, Engine, Limits, LoadError, PluginIdentity,
    Queue, SchedulerError, StageIdentity,
};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{PipelineBuilder, Unbuilt};
use crate::blocking::blocking;
use crate::metrics::catalogue;

const LOAD_HINT: &str = "build it for the package `lockgate:plugin` of this release; `lockgate \
                         plugin run` shows more";
const COMPILE_HINT: &str = "the file may be incomplete or damaged: copy it again, or build it for \
                            the package `lockgate:plugin` of this release";
const SPACE_HINT: &str = "neither the component nor this configuration is at fault";
const START_HINT: &str = "the component is at fault, not this configuration: `lockgate plugin run` \
                          shows its log";

pub(super) type Configure<T> =
    fn(&Engine, &Component, ComponentOptions) -> Result<T, ConfigureError>;

/// A component in its place, as the operator configured it.
pub(super) struct Place<'a> {
    pipeline: &'a str,
    label: String,
    plugin: &'a Plugin,
    /// `None` if there is nothing to load, for a problem among the issues.
    resolved: Option<ResolvedComponent>,
    with: &'a With,
    /// Reported if the component is of a world that does not belong here.
    misplaced: Issue,
}

impl<'a> Place<'a> {
    /// Its name for people.
    pub(super) fn label(&self) -> &str {
        &self.label
    }

    pub(super) fn of_stage(
        pipeline: &'a Pipeline,
        index: usize,
        resolved: Option<ResolvedComponent>,
    ) -> Place<'a> {
        let Stage { plugin, with, .. } = &pipeline.stages[index];
        let (of, name) = (&pipeline.name, &plugin.name);
        Place {
            pipeline: of,
            label: format!("stage {} ({name})", index + 1),
            plugin,
            resolved,
            with,
            misplaced: Issue::new(
                plugin.span.clone(),
                format!("`{name}` is a sink, not a filter or a mapper."),
                "used as a stage",
                format!("name it in `[pipelines.{of}.sink]`"),
            ),
        }
    }

    pub(super) fn of_sink(
        pipeline: &'a Pipeline,
        resolved: Option<ResolvedComponent>,
    ) -> Place<'a> {
        let Sink { plugin, with, .. } = &pipeline.sink;
        let (of, name) = (&pipeline.name, &plugin.name);
        Place {
            pipeline: of,
            label: format!("sink ({name})"),
            plugin,
            resolved,
            with,
            misplaced: Issue::new(
                plugin.span.clone(),
                format!("`{name}` is a filter or a mapper, not a sink."),
                "used as the sink",
                format!("name it in a `[[pipelines.{of}.stage]]`"),
            ),
        }
    }
}

/// A component that was found, and its code, or why it has none.
pub(super) struct ResolvedComponent {
    name: String,
    version: Option<&'static str>,
    digest: String,
    code: Result<Code, LoadError>,
}

/// A component that has accepted its configuration.
pub(super) struct ConfiguredComponent<T> {
    pub(super) configured: T,
    pub(super) description: Value,
}

impl PipelineBuilder {
    /// Resolves and compiles one component. `None`: the issues say why there is none.
    pub(super) async fn compile(
        &self,
        plugin: &Plugin,
        issues: &mut Issues,
    ) -> Option<ResolvedComponent> {
        if plugin.wasi == Wasi::Stub {
            issues.push(Issue::new(
                plugin.span.clone(),
                "`wasi = \"stub\"` is not supported in this version.".to_owned(),
                "this plugin",
                "remove `wasi`, and build the component without WASI imports",
            ));
            return None;
        }
        let (source, base) = (plugin.source.to_string(), self.base.clone());
        let artifact = match blocking(move || resolve(&source, &base)).await {
            Ok(artifact) => artifact,
            Err(error) => {
                let hint = error
                    .hint()
                    .unwrap_or_else(|| "write `builtin:NAME`, or the path of a component".into());
                issues.push(Issue::new(
                    plugin.span.clone(),
                    error.to_string(),
                    "this plugin",
                    hint,
                ));
                return None;
            }
        };
        let Artifact {
            name,
            version,
            digest,
            bytes,
        } = artifact;
        let digest = digest.to_string();
        let code = self.code(&name, &digest, bytes).await;
        Some(ResolvedComponent {
            name,
            version,
            digest,
            code,
        })
    }

    /// Loads and configures one component.
    pub(super) async fn component<T: Send + 'static>(
        &self,
        queue: &Queue,
        place: Place<'_>,
        configure: Configure<T>,
        issues: &mut Issues,
    ) -> Result<ConfiguredComponent<T>, Unbuilt> {
        let Place {
            pipeline,
            label,
            plugin,
            resolved,
            with,
            misplaced,
        } = place;
        let ResolvedComponent {
            name,
            version,
            digest,
            code,
        } = resolved.ok_or(Unbuilt::Reported)?;
        let limits = Limits {
            time: plugin.limits.time,
            memory: plugin.limits.memory as usize,
            ..Limits::default()
        };
        let identity = StageIdentity {
            pipeline: pipeline.into(),
            stage: label.as_str().into(),
            plugin: PluginIdentity {
                name: plugin.name.as_str().into(),
                version,
            },
        };
        let reporter = identity.plugin.to_string();
        let loaded = match code {
            Ok(code) => self.load(queue, name, code, &limits, &identity).await,
            Err(error) => Err(error),
        };
        let component = match loaded {
            Ok(component) => component,
            Err(LoadError::NoRoom(why)) => return Err(Unbuilt::NoRoom(why)),
            Err(error) => {
                let hint = match error {
                    LoadError::Memory { limit } => memory_hint(plugin, limit),
                    LoadError::CompileSpace { .. } => SPACE_HINT,
                    LoadError::Compile(_) => COMPILE_HINT,
                    _ => LOAD_HINT,
                };
                issues.push(Issue::new(
                    plugin.span.clone(),
                    format!("`{}` cannot be loaded: {error}.", plugin.name),
                    "this plugin",
                    hint,
                ));
                return Err(Unbuilt::Reported);
            }
        };
        let options = || ComponentOptions {
            pipeline: identity.pipeline.clone(),
            label: identity.stage.clone(),
            plugin: identity.plugin.clone(),
            config: serde_json::to_value(with.json()).unwrap_or(Value::Null),
            limits: limits.clone(),
            reuse: plugin.reuse,
            state: plugin.state.is_some(),
        };
        let configured = prepare(queue, || {
            let (engine, component, options) = (self.engine.clone(), component.clone(), options());
            move || match configure(&engine, &component, options) {
                Err(ConfigureError::NoRoom(CallError::Postponed)) => None,
                configured => Some(configured),
            }
        });
        let configured = configured
            .await
            .unwrap_or_else(|error| Err(ConfigureError::Call(CallError::Host(error.to_string()))));
        match configured {
            Ok(configured) => {
                let description =
                    json!({ "plugin": plugin.name, "digest": digest, "with": with.json() });
                Ok(ConfiguredComponent {
                    configured,
                    description,
                })
            }
            Err(ConfigureError::World(_)) => {
                issues.push(misplaced);
                Err(Unbuilt::Reported)
            }
            Err(ConfigureError::Issues(found)) => {
                for issue in found {
                    let place = with.locate(&issue.path);
                    let help = issue.help.as_deref();
                    issues.plugin_issue(place, &reporter, &issue.message, help);
                }
                Err(Unbuilt::Reported)
            }
            Err(ConfigureError::NoRoom(why)) => Err(Unbuilt::NoRoom(why)),
            Err(error) => {
                let message = format!("`{}` could not be started: {error}.", plugin.name);
                let hint = match error {
                    ConfigureError::Call(CallError::Memory { limit }) => memory_hint(plugin, limit),
                    _ => START_HINT,
                };
                let label = format!("given to {reporter}");
                issues.push(Issue::new(with.locate(""), message, label, hint));
                Err(Unbuilt::Reported)
            }
        }
    }

    async fn code(
        &self,
        name: &str,
        digest: &str,
        bytes: Cow<'static, [u8]>,
    ) -> Result<Code, LoadError> {
        let _only_one = self.compiling.lock().await;
        let known = self.known_code().get(digest).cloned();
        let code = match known {
            Some(code) => code,
            None => {
                let began = Instant::now();
                let code = Code::compile(&self.engine, name, bytes).await?;
                let seconds = began.elapsed().as_secs_f64();
                // Code that an earlier start compiled is read in no time, and counts as well.
                let labels = [name];
                let metric = &catalogue::LOAD_SECONDS;
                self.recorder.observe(metric, &labels, seconds);
                code
            }
        };
        self.known_code().insert(digest.to_owned(), code.clone());
        Ok(code)
    }

    async fn load(
        &self,
        queue: &Queue,
        name: String,
        code: Code,
        limits: &Limits,
        identity: &StageIdentity,
    ) -> Result<Component, LoadError> {
        // It runs the component's own code.
        let loaded = prepare(queue, || {
            let (engine, name, code) = (self.engine.clone(), name.clone(), code.clone());
            let (limits, identity) = (limits.clone(), identity.clone());
            move || match Component::new(&engine, &name, code, &limits, identity) {
                Err(LoadError::NoRoom(CallError::Postponed)) => None,
                loaded => Some(loaded),
            }
        });
        loaded
            .await
            .unwrap_or_else(|error| Err(LoadError::Start(error.to_string())))
    }
}

/// Makes a call that loads or configures a component, and makes it again as long as it is postponed
/// (`None`).
async fn prepare<T, F>(queue: &Queue, call: impl Fn() -> F) -> Result<T, SchedulerError>
where
    T: Send + 'static,
    F: FnOnce() -> Option<T> + Send + 'static,
{
    loop {
        if let Some(prepared) = queue.prepare(call()).await?.result {
            return Ok(prepared);
        }
    }
}

/// For a component that needs more memory than one instance may have.
fn memory_hint(plugin: &Plugin, limit: usize) -> &'static str {
    if (limit as u64) < plugin.limits.memory {
        "raise `memory` in `[limits]`, which all components share"
    } else {
        "raise `memory` in the plugin's `limits`"
    }
}
