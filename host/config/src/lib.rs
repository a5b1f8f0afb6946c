//! TOML text to a checked [`Config`], or every problem in it with its place and a hint.
//!
//! This crate uses no network and no WebAssembly; environment variables and files come in through
//! [`Environment`]. Problems are collected: a wrong value becomes an [`Issue`] and is replaced by
//! its default, and a configuration with issues is never returned. `reference.toml` documents every
//! key.
//!
//! References (`${env:…}`, `${file:…}`) are resolved after parsing, so their values are never
//! parsed as TOML. Secrets never appear in a message, an excerpt or a `Debug` text.

mod admin;
mod auth;
mod comments;
mod connect;
mod defaults;
mod document;
mod environment;
mod event_handler;
mod event_types;
mod files;
mod issues;
mod limits;
mod locks;
mod lookup;
mod mask;
mod name;
mod outbound;
mod pipeline;
mod plaintext;
mod plugin;
mod quantity;
mod reading;
mod rotation;
mod signed;
mod sink;
mod source;
mod store;
mod substitution;
mod syntax;
mod table;
#[cfg(test)]
mod tests;
mod units;
mod unplaced;
mod url;
mod value;
mod with;

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lockgate_model::Secret;
use toml::de::DeTable;

pub use admin::Admin;
pub use auth::Auth;
pub use environment::{Environment, ProcessEnvironment};
pub use event_handler::{
    EventHandler, HANDLER_OPTIONS, HandlerOption, HandlerOptions, STORE_IN_STATE,
    go_duration_argument, quoted as toml_string,
};
pub use files::{Files, Rotate};
pub use issues::{Issue, Issues, Severity};
pub use limits::{CompileLimits, HostLimits};
pub use locks::Locks;
pub use lookup::{Database, Lookup};
pub use pipeline::{BatchLimits, DeadLetterLimits, Input, LagLimit, Order, Pipeline, Stage};
pub use plugin::{Plugin, PluginLimits, PluginSource, Wasi};
pub use rotation::RenewedSink;
pub use signed::{AwsAuth, ClientCredentials, HmacAlgorithm, HmacAuth, HmacEncoding, OAuth2Auth};
pub use sink::{ClientCertificate, Compression, Rate, Sink, Tls};
pub use source::{Connect, Credentials, Source};
pub use store::{Retention, Store};
pub use units::{EventRate, duration_argument, show_duration, size_argument};
pub use with::With;

use document::Document;
use reading::Reading;
use table::Table;

/// Every key with its default and its meaning, as valid TOML.
pub const REFERENCE: &str = include_str!("../reference.toml");

/// Everything an operator wrote, checked. Lists are in the order of the text.
#[derive(Clone, Debug)]
pub struct Config {
    /// `[teleport]` and `[sources.NAME]`. At least one.
    pub sources: Vec<Source>,
    /// `[store]`.
    pub store: Store,
    /// `[limits]`.
    pub limits: HostLimits,
    /// `[admin]`.
    pub admin: Admin,
    /// `[lookup]`.
    pub lookup: Lookup,
    /// `[plugins.NAME]`. Stages and sinks hold copies of those they use.
    pub plugins: Vec<Plugin>,
    /// `[pipelines.NAME]`. At least one.
    pub pipelines: Vec<Pipeline>,
    /// What else a configuration of Teleport's Event Handler says, if it is one.
    pub event_handler: Option<EventHandler>,
    secrets: Vec<Secret>,
    warnings: Vec<Issue>,
    notes: Vec<Issue>,
    /// Warnings and notes with places in the file of the Event Handler.
    handler_warnings: Vec<Issue>,
    handler_notes: Vec<Issue>,
    document: Arc<Document>,
}

impl Config {
    /// The values of every `${env:…}` and `${file:…}` in `url`, `headers` and `auth`, for masking.
    /// Credentials that are written out are masked by whoever sends them; a plain header value such
    /// as `teleport` must stay readable in log lines.
    pub fn secrets(&self) -> &[Secret] {
        &self.secrets
    }

    /// Problems that do not keep the configuration from being used, but deserve a look.
    pub fn warnings(&self) -> Issues {
        Issues::new(self.document.clone(), self.warnings.clone())
            .with_original(self.handler_warnings.clone())
    }

    /// The same, and notes on a configuration that may be just right.
    pub fn remarks(&self) -> Issues {
        let remarks = self.warnings.iter().chain(&self.notes).cloned();
        let of_handler = self.handler_warnings.iter().chain(&self.handler_notes);
        Issues::new(self.document.clone(), remarks.collect()).with_original(of_handler.cloned())
    }

    /// For problems that are found when plugins are loaded: none yet.
    pub fn no_issues(&self) -> Issues {
        Issues::new(self.document.clone(), vec![])
    }
}

/// Reads a file. Paths in it are relative to its directory; messages name it as `path` does.
///
/// It may be a file of Teleport's Event Handler; then its environment variables count, too, and
/// paths are relative to the working directory. The empty path: the variables alone.
pub fn load(path: &Path, environment: &dyn Environment) -> Result<Config, Issues> {
    load_with(Some(path), &HandlerOptions::default(), environment)
}

/// What a configuration of the Event Handler is called if there is no file.
const NO_FILE: &str = "the options and the environment";

/// The same with options of Teleport's Event Handler, for which no file is needed.
pub fn load_with(
    path: Option<&Path>,
    options: &HandlerOptions,
    environment: &dyn Environment,
) -> Result<Config, Issues> {
    let Some(path) = path.filter(|path| !path.as_os_str().is_empty()) else {
        let document = Document::new(NO_FILE, "", Vec::new());
        let (root, _) = DeTable::parse_recoverable("");
        return event_handler::read(Arc::new(document), root.get_ref(), options, environment);
    };
    let (name, text) = text_of(path, environment)?;
    let base_dir = path.parent().unwrap_or(Path::new(""));
    read(&name, &text, base_dir, options, environment).0
}

/// Reads only the store's directory, for commands that inspect it: they need none of the secrets
/// that the rest of the file refers to.
pub fn store_path(path: &Path, environment: &dyn Environment) -> Result<PathBuf, Issues> {
    let (name, text) = text_of(path, environment)?;
    let (root, errors) = DeTable::parse_recoverable(&text);
    let mut hidden = mask::by_key(&text, root.get_ref());
    if !errors.is_empty() {
        hidden.extend(mask::by_line(&text));
    }
    let document = Arc::new(Document::new(&name, &text, hidden));
    let mut r = Reading::new(
        document.clone(),
        environment,
        path.parent().unwrap_or(Path::new("")),
    );
    r.issues.extend(syntax::issues(&document, &errors));
    if r.issues.is_empty() && (event_handler::is_its(root.get_ref()) || name == NO_FILE) {
        return event_handler::store_path(document, root.get_ref(), environment);
    }
    let mut root = Table::new(String::new(), String::new(), 0..0, root.get_ref());
    let store = store::read(&mut r, &mut root);
    if r.issues.is_empty() {
        Ok(store.path)
    } else {
        Err(Issues::new(document, r.issues))
    }
}

/// The names under `[pipelines]`, for commands that need nothing else. `None`: the file has no such
/// table.
pub fn pipeline_names(
    path: &Path,
    environment: &dyn Environment,
) -> Result<Option<BTreeSet<String>>, Issues> {
    let (_, text) = text_of(path, environment)?;
    // Whoever reads the rest of the file reports its errors.
    let (root, _) = DeTable::parse_recoverable(&text);
    if event_handler::is_its(root.get_ref()) || path.as_os_str().is_empty() {
        let config = load(path, environment)?;
        let names = config.pipelines.into_iter().map(|pipeline| pipeline.name);
        return Ok(Some(names.collect()));
    }
    let pipelines = root.get_ref().get("pipelines");
    let table = pipelines.and_then(|table| table.get_ref().as_table());
    Ok(table.map(|table| {
        table
            .keys()
            .map(|name| name.get_ref().to_string())
            .collect()
    }))
}

/// The file's name in messages, and its content.
fn text_of(path: &Path, environment: &dyn Environment) -> Result<(String, String), Issues> {
    if path.as_os_str().is_empty() {
        return Ok((NO_FILE.to_owned(), String::new()));
    }
    let name = path.display().to_string();
    let alone = |text: &str, issue: Issue| {
        let all = 0..text.len();
        Issues::new(Arc::new(Document::new(&name, text, vec![all])), vec![issue])
    };
    let bytes = environment.read_file(path).map_err(|error| {
        let message = format!(
            "The configuration cannot be read: {}.",
            environment::reason(&error)
        );
        let hint = match error.kind() {
            io::ErrorKind::NotFound => "create the file, or name another one",
            io::ErrorKind::PermissionDenied => "let this user read the file, or name another one",
            _ => "name another file",
        };
        alone("", Issue::new(0..0, message, "", hint))
    })?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let text = String::from_utf8_lossy(error.as_bytes()).into_owned();
        let line = text[..at].matches('\n').count() + 1;
        let issue = Issue::new(
            at..at,
            format!("Line {line} is not UTF-8."),
            "here",
            "save the file as UTF-8",
        );
        alone(&text, issue)
    })?;
    Ok((name, text))
}

/// Checks `text`. `name`: the file's name in messages. `base_dir`: the directory that paths are
/// relative to.
pub fn parse(
    name: &str,
    text: &str,
    base_dir: &Path,
    environment: &dyn Environment,
) -> Result<Config, Issues> {
    read(
        name,
        text,
        base_dir,
        &HandlerOptions::default(),
        environment,
    )
    .0
}

/// The result, and every key that was read.
fn read(
    name: &str,
    text: &str,
    base_dir: &Path,
    options: &HandlerOptions,
    environment: &dyn Environment,
) -> (Result<Config, Issues>, Vec<String>) {
    let (root, errors) = DeTable::parse_recoverable(text);
    let mut hidden = mask::by_key(text, root.get_ref());
    if !errors.is_empty() {
        hidden.extend(mask::by_line(text));
    }
    let document = Arc::new(Document::new(name, text, hidden));
    let problems = syntax::issues(&document, &errors);
    let is_handlers = event_handler::is_its(root.get_ref());
    if !errors.iter().all(syntax::is_harmless) || is_handlers && !problems.is_empty() {
        // Keys that seem to be missing may be in the part that was not understood.
        return (Err(Issues::new(document, problems)), vec![]);
    }
    if is_handlers {
        let config = event_handler::read(document, root.get_ref(), options, environment);
        return (config, vec![]);
    }
    if let Some(name) = options.names().next() {
        let message = format!("`--{name}` belongs to a configuration of Teleport's Event Handler.");
        let hint =
            "this file is one of Lockgate's: write its own key there, and leave the option out";
        let issue = Issue::new(0..0, message, "", hint);
        return (Err(Issues::new(document, vec![issue])), vec![]);
    }
    let (config, known) = read_document(document.clone(), root.get_ref(), base_dir, environment);
    match config {
        Err(issues) => (Err(issues.with_original(problems)), known),
        Ok(_) if !problems.is_empty() => (Err(Issues::new(document, problems)), known),
        Ok(config) => (Ok(config), known),
    }
}

/// The same for a text that was parsed.
fn read_document(
    document: Arc<Document>,
    root: &DeTable<'_>,
    base_dir: &Path,
    environment: &dyn Environment,
) -> (Result<Config, Issues>, Vec<String>) {
    let mut r = Reading::new(document.clone(), environment, base_dir);
    let mut root = Table::new(String::new(), String::new(), 0..0, root);
    let sources = source::read(&mut r, &mut root);
    let store = store::read(&mut r, &mut root);
    let limits = limits::read(&mut r, &mut root);
    let admin = admin::read(&mut r, &mut root);
    let lookup = lookup::read(&mut r, &mut root);
    let declared = plugin::read(&mut r, &mut root);
    let names = source::names(&root);
    let pipelines = pipeline::read(&mut r, &mut root, &names, &declared);
    root.finish(&mut r);
    // A value with an issue was replaced by its default, which is not what the operator wrote.
    if r.issues.is_empty() {
        limits::check_state(&mut r, limits, &declared, &pipelines);
        source::check_types(&mut r, &sources, &pipelines);
        files::check_shared(&mut r, &pipelines);
        pipeline::check_lag_limits(&mut r, &store, &pipelines);
    }
    let known = r.known.into_iter().collect();
    r.secrets.sort_by(|a, b| a.expose().cmp(b.expose()));
    r.secrets.dedup();
    if !r.issues.is_empty() {
        return (Err(Issues::new(document, r.issues)), known);
    }
    (
        Ok(Config {
            sources,
            store,
            limits,
            admin,
            lookup,
            plugins: declared.plugins,
            pipelines,
            event_handler: None,
            secrets: r.secrets,
            warnings: r.warnings,
            notes: r.notes,
            handler_warnings: Vec::new(),
            handler_notes: Vec::new(),
            document,
        }),
        known,
    )
}
