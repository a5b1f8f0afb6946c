//! `[plugins.NAME]`, and how a stage or a sink names the component it runs.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use crate::defaults::{PLUGIN_BATCH_TIME, PLUGIN_MEMORY, PLUGIN_STATE, PLUGIN_TIME};
use crate::issues::Issue;
use crate::name;
use crate::reading::Reading;
use crate::table::{Table, nearest};
use crate::value::Value;

/// A component and its limits.
#[derive(Clone, Debug, PartialEq)]
pub struct Plugin {
    /// The name of `[plugins.NAME]`, or the value of `plugin`.
    pub name: String,
    pub source: PluginSource,
    pub limits: PluginLimits,
    /// `reuse`: instances outlive their batch. Default false.
    pub reuse: bool,
    /// `state`: bytes of keys and values that each stage with this plugin may keep. Default: no
    /// state is granted.
    pub state: Option<u64>,
    /// `wasi`: what a component that imports WASI gets. Default `"none"`.
    pub wasi: Wasi,
    /// The span of the source in the TOML text.
    pub span: Range<usize>,
}

/// Where a component comes from. Displays in the form that the configuration accepts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PluginSource {
    /// `builtin:NAME`: ships with Lockgate.
    Builtin(String),
    /// `file:PATH`, or a path, as written: whoever opens it resolves it against the directory of
    /// the configuration.
    File(PathBuf),
    /// `oci://REGISTRY/REPOSITORY:TAG`.
    Oci(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PluginLimits {
    /// `limits.time`: CPU time of one call. Default 1 s.
    pub time: Duration,
    /// `limits.batch-time`: CPU time of all calls for one batch, those that look for the event at
    /// fault included. Default 30 s.
    pub batch_time: Duration,
    /// `limits.memory`: bytes of memory of one instance. Default 128 MiB.
    pub memory: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wasi {
    /// Nothing: a component that imports WASI is refused.
    None,
    /// The deterministic stub: pinned clocks and random numbers, output into the log, nothing else.
    Stub,
}

impl Default for PluginLimits {
    fn default() -> PluginLimits {
        PluginLimits {
            time: PLUGIN_TIME.default,
            batch_time: PLUGIN_BATCH_TIME.default,
            memory: PLUGIN_MEMORY.default.0,
        }
    }
}

impl fmt::Display for PluginSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PluginSource::Builtin(name) => write!(f, "builtin:{name}"),
            PluginSource::File(path) => write!(f, "file:{}", path.display()),
            PluginSource::Oci(reference) => write!(f, "oci://{reference}"),
        }
    }
}

/// The declared plugins, and the names of all of them: referring to one that has problems of its
/// own is not a second mistake.
#[derive(Default)]
pub(crate) struct Declared {
    pub plugins: Vec<Plugin>,
    /// The plugins that are granted state, with the spans of `state`.
    pub state: Vec<(String, Range<usize>)>,
    names: Vec<String>,
}

const SOURCE_HINT: &str = "`\"builtin:NAME\"` or `\"file:PATH\"`";

pub(crate) fn read(r: &mut Reading<'_>, root: &mut Table<'_>) -> Declared {
    let mut declared = Declared::default();
    let Some(table) = root.optional("plugins").and_then(|value| value.table(r)) else {
        return declared;
    };
    for value in table.named() {
        name::check(r, "plugin", &value);
        declared.names.push(value.name.clone());
        let plugin = plugin(r, &value, &mut declared.state);
        declared.plugins.extend(plugin);
    }
    r.known.insert("plugins.*".into());
    declared
}

/// The value of `plugin` in a stage or a sink: a declared name, or a source.
pub(crate) fn refer(r: &mut Reading<'_>, declared: &Declared, value: &Value<'_>) -> Option<Plugin> {
    let text = value.text(r)?;
    if let Some(plugin) = declared.plugins.iter().find(|plugin| plugin.name == text) {
        return Some(plugin.clone());
    }
    if declared.names.contains(&text) {
        return None;
    }
    match parse_source(&text) {
        Some(source) => Some(Plugin {
            name: text,
            source,
            limits: PluginLimits::default(),
            reuse: false,
            state: None,
            wasi: Wasi::None,
            span: value.span(),
        }),
        None => {
            let message = format!("Unknown plugin `{}`.", value.shown());
            let names: Vec<&str> = declared.names.iter().map(String::as_str).collect();
            let hint = match nearest(&text, &names) {
                Some(near) => format!("did you mean `{near}`?"),
                // Not if `shown` hides a value from the environment.
                None if is_name(value.shown()) => format!(
                    "write `\"builtin:{text}\"` for a plugin that comes with Lockgate, or declare \
                     it as `[plugins.{text}]`"
                ),
                None => format!("use a name from `[plugins]`, {SOURCE_HINT}"),
            };
            r.issue(Issue::new(value.span(), message, "unknown", hint));
            None
        }
    }
}

fn plugin(
    r: &mut Reading<'_>,
    value: &Value<'_>,
    granted: &mut Vec<(String, Range<usize>)>,
) -> Option<Plugin> {
    let mut table = value.table(r)?;
    let source_value = table.required("source", "source = \"file:plugins/noise.wasm\"");
    let source = source_value.as_ref().and_then(|value| {
        let text = value.text(r)?;
        let source = parse_source(&text);
        if source.is_none() {
            r.issue(Issue::new(
                value.span(),
                format!(
                    "`{}`: `{}` is not a plugin source.",
                    value.path,
                    value.shown()
                ),
                "not a plugin source",
                match text.contains("://") {
                    true => {
                        "download the component with another tool and write the path of the file, \
                             for example `\"file:plugins/noise.wasm\"`"
                            .to_owned()
                    }
                    false => format!("use {SOURCE_HINT}"),
                },
            ));
        }
        source
    });
    let mut limits = PluginLimits::default();
    if let Some(mut table) = table.optional("limits").and_then(|value| value.table(r)) {
        limits = PluginLimits {
            time: table.quantity(r, "time", PLUGIN_TIME),
            batch_time: table.quantity(r, "batch-time", PLUGIN_BATCH_TIME),
            memory: table.quantity(r, "memory", PLUGIN_MEMORY).0,
        };
        table.finish(r);
    }
    let reuse = table
        .optional("reuse")
        .and_then(|value| value.flag(r))
        .unwrap_or(false);
    let (least, most) = PLUGIN_STATE;
    let state = table
        .optional("state")
        .and_then(|state| {
            granted.push((value.name.clone(), state.span()));
            state.quantity(r, least, most, None)
        })
        .map(|bytes| bytes.0);
    let wasi = table
        .optional("wasi")
        .and_then(|value| value.choice(r, &[("none", Wasi::None), ("stub", Wasi::Stub)]))
        .unwrap_or(Wasi::None);
    table.finish(r);
    Some(Plugin {
        name: value.name.clone(),
        source: source?,
        limits,
        reuse,
        state,
        wasi,
        span: source_value?.span(),
    })
}

/// The hint for a key of `[plugins.NAME]` that stands next to `plugin` in a stage or a sink.
/// `component`: the value of `plugin`.
pub(crate) fn key_hint(key: &str, component: Option<&str>) -> Option<String> {
    if !["source", "state", "limits", "reuse", "wasi"].contains(&key) {
        return None;
    }
    Some(
        match component.filter(|text| parse_source(text).is_some()) {
            Some(source) => format!(
                "declare the component as `[plugins.NAME]` with `source = \"{source}\"` and \
                 `{key}`, and write `plugin = \"NAME\"` here"
            ),
            None => format!("write `{key}` in the `[plugins.NAME]` that `plugin` names"),
        },
    )
}

fn is_name(text: &str) -> bool {
    let mut bytes = text.bytes();
    !text.is_empty() && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
}

fn parse_source(text: &str) -> Option<PluginSource> {
    let is_path = |path: &str| !path.is_empty() && !path.contains(char::is_control);
    if let Some(name) = text.strip_prefix("builtin:") {
        return is_name(name).then(|| PluginSource::Builtin(name.to_owned()));
    }
    if let Some(path) = text.strip_prefix("file:") {
        return is_path(path).then(|| PluginSource::File(path.into()));
    }
    if let Some(reference) = text.strip_prefix("oci://") {
        return is_path(reference).then(|| PluginSource::Oci(reference.to_owned()));
    }
    let looks_like_path =
        !text.contains("://") && (text.contains(['/', '\\']) || text.ends_with(".wasm"));
    (looks_like_path && is_path(text)).then(|| PluginSource::File(text.into()))
}
