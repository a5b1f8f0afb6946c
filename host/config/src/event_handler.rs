//! The configuration of Teleport's Event Handler: its file, options and environment variables.
//!
//! It is written as a configuration of ours, and that is read as any other. Messages name the
//! places in the Event Handler's file.

#[cfg(test)]
mod conformance;
mod duration;
mod given;
mod locks;
mod options;
mod translation;

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use lockgate_model::{Millis, Secret, percent_decoded};
use toml::de::{DeTable, DeValue};

pub use options::{HANDLER_OPTIONS, HandlerOption, HandlerOptions};

use crate::defaults::{CONCURRENCY, RATE_IN_FLIGHT, WINDOW};
use crate::document::{Document, Origin};
use crate::environment::{Environment, reason};
use crate::issues::{Issue, Issues};
use crate::reading::Reading;
use crate::units::show_duration;
use crate::url::{is_host, is_port, problem, split_port};
use crate::{Config, mask};
use given::{Given, Lookup};
pub use translation::quoted;
use translation::{Translation, list, quoted_path};

/// Parses a duration on a command line, as Go writes it.
pub fn go_duration_argument(text: &str) -> Result<Duration, String> {
    duration::go_duration(text)
        .ok_or_else(|| "a duration is a number with a unit, such as `10s` or `87600h`".to_owned())
}

/// What a configuration of the Event Handler says beyond what becomes a [`Config`].
#[derive(Clone, Debug)]
pub struct EventHandler {
    /// `<storage>/<host>_<port>`: where the Event Handler keeps its position. Our store is inside.
    pub state: PathBuf,
    /// `start-time`, in whole seconds.
    pub start_time: Option<Millis>,
    /// `dry-run`: read, and send nothing.
    pub dry_run: bool,
    /// `exit-on-last-event`.
    pub exit_on_last_event: bool,
    /// `debug`.
    pub debug: bool,
    /// What was given and has no effect here, as it was spelt.
    pub without_effect: Vec<String>,
    /// The configuration of ours, as TOML.
    pub toml: Secret,
    /// The same without secrets.
    pub shown: String,
}

impl EventHandler {
    /// The configuration of ours as a file with this store. `start_time`: also that, which the
    /// position that is taken over makes superfluous.
    pub fn written(&self, store: &Path, start_time: bool) -> String {
        let lines = self.toml.expose().lines();
        let lines = lines.filter(|line| start_time || !line.starts_with("start-time = "));
        let lines = lines.map(|line| match line.starts_with("path = ") {
            true => format!("path = {}\n", quoted_path(store)),
            false => format!("{line}\n"),
        });
        lines.collect()
    }
}

/// The directory of our store in the one where the Event Handler keeps its position.
pub const STORE_IN_STATE: &str = "lockgate";
/// The Event Handler's defaults.
const ADDR: &str = "localhost:3025";
const PARALLEL: i64 = 5;
const SKIPPED_IN_SESSIONS: [&str; 2] = ["print", "desktop.recording"];
/// The event that announces a recording.
const UPLOAD: &str = "session.upload";
/// Events that are kept when they have been delivered. The volumes that were made for the Event
/// Handler have 1 GiB.
const KEPT: &str = "256 MiB";

/// Whether this is a file of the Event Handler. One that has tables of ours, too, is ours.
pub(crate) fn is_its(root: &DeTable<'_>) -> bool {
    let ours = ["store", "pipelines", "sources"];
    let has = |name: &str| root.contains_key(name);
    let has_table = |name: &str, key: &str| {
        let table = root.get(name).and_then(|value| value.get_ref().as_table());
        table.is_some_and(|table| table.contains_key(key))
    };
    let is_text = |name| {
        matches!(
            root.get(name).map(|it| it.get_ref()),
            Some(DeValue::String(_))
        )
    };
    let is_its = is_text("storage")
        || has_table("forward", "fluentd")
        || has_table("fluentd", "url")
        || is_text("teleport-addr");
    is_its && !ours.into_iter().any(has)
}

/// Reads it. `document`: the text of the file.
pub(crate) fn read(
    document: Arc<Document>,
    root: &DeTable<'_>,
    options: &HandlerOptions,
    environment: &dyn Environment,
) -> Result<Config, Issues> {
    let base = environment.working_directory();
    let mut r = Reading::new(document.clone(), environment, &base);
    let lookup = Lookup::new(options, root, environment);
    let written = write(&mut r, &lookup, environment);
    let Some((translation, mut handler)) = written.filter(|_| r.issues.is_empty()) else {
        // An unknown key may be why another one is missing.
        r.issues.extend(r.warnings);
        return Err(Issues::new(document, r.issues));
    };
    handler.toml = Secret::new(translation.text.clone());
    handler.shown = translation.shown.clone();
    let (root, _) = DeTable::parse_recoverable(&translation.text);
    let mut hidden = mask::by_key(&translation.text, root.get_ref());
    hidden.retain(|range| !range.is_empty());
    let written = Document::new(&document.name, &translation.text, hidden).with_origin(Origin {
        document,
        places: translation.places,
    });
    let (config, _) = crate::read_document(
        Arc::new(written),
        root.get_ref(),
        Path::new(""),
        environment,
    );
    let mut config = config?;
    config.handler_warnings = r.warnings;
    config.handler_notes = r.notes;
    config.event_handler = Some(handler);
    Ok(config)
}

/// The directory of the store, for commands that need nothing else.
pub(crate) fn store_path(
    document: Arc<Document>,
    root: &DeTable<'_>,
    environment: &dyn Environment,
) -> Result<PathBuf, Issues> {
    let base = environment.working_directory();
    let mut r = Reading::new(document.clone(), environment, &base);
    let options = HandlerOptions::default();
    let lookup = Lookup::new(&options, root, environment);
    let state = state(&mut r, &lookup);
    match state.filter(|_| r.issues.is_empty()) {
        Some((state, _)) => Ok(state.join(STORE_IN_STATE)),
        None => Err(Issues::new(document, r.issues)),
    }
}

/// `<storage>/<host>_<port>`, and the address.
fn state(r: &mut Reading<'_>, lookup: &Lookup<'_>) -> Option<(PathBuf, Found<String>)> {
    let addr = addr(r, lookup);
    let storage = required(r, lookup, "storage", "storage = \"./storage\"");
    let (storage, addr) = (storage?, addr?);
    let (host, port) = split_port(&addr.value);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let name = format!("{host}_{}", port.unwrap_or_default());
    // Without `./`.
    let storage: PathBuf = r.absolute(&storage.value).components().collect();
    Some((storage.join(name), addr))
}

/// A value, and where it stands in the file.
struct Found<T> {
    value: T,
    span: Range<usize>,
}

/// The whole configuration. `None`, or issues: it cannot be used.
fn write(
    r: &mut Reading<'_>,
    lookup: &Lookup<'_>,
    environment: &dyn Environment,
) -> Option<(Translation, EventHandler)> {
    lookup.warn_of_unknown_keys(r);
    let state = state(r, lookup);
    let url = required_url(
        r,
        lookup,
        "fluentd-url",
        "https://localhost:8888/events.log",
    );
    let session_url = required_url(
        r,
        lookup,
        "fluentd-session-url",
        "https://localhost:8888/session",
    );
    let tls = tls(r, lookup, environment);
    let credentials = credentials(r, lookup, environment);
    let types = found_list(r, lookup, "types");
    let skip = found_list(r, lookup, "skip-event-types");
    let skip_sessions = lookup.find(r, "skip-session-types");
    let skip_sessions = match skip_sessions {
        Some(given) => found(&given, given.list(r)),
        None => Some(Found {
            value: SKIPPED_IN_SESSIONS.map(str::to_owned).to_vec(),
            span: 0..0,
        }),
    };
    let start = lookup.find(r, "start-time");
    let start = start.and_then(|given| found(&given, given.time(r)));
    let concurrency = concurrency(r, lookup);
    let connections = connections(r, lookup, concurrency.value);
    let window = window(r, lookup);
    let flag = |r: &mut Reading<'_>, name| {
        let given = lookup.find(r, name);
        given.and_then(|given| given.flag(r)).unwrap_or(false)
    };
    let dry_run = flag(r, "dry-run");
    let exit_on_last_event = flag(r, "exit-on-last-event");
    let debug = flag(r, "debug");
    let mut without_effect = without_effect(r, lookup);
    let listed = [&types, &skip].map(|found| found.as_ref().map_or(&[][..], |it| &it.value));
    let locks = locks::line(r, lookup, listed, dry_run, &mut without_effect);

    let ((state, addr), url, session_url, tls) = (state?, url?, session_url?, tls?);
    let (credentials, types, skip) = (credentials?, types?, skip?);
    let skip_sessions = skip_sessions?;
    let mut t = Translation::default();
    t.line("[teleport]");
    t.from(addr.span, &format!("addr = {}", quoted(&addr.value)));
    for (key, path) in &credentials {
        t.from(
            path.span.clone(),
            &format!("{key} = {}", quoted_path(&path.value)),
        );
    }
    if !types.value.is_empty() {
        t.from(
            types.span.clone(),
            &format!("types = {}", list(&types.value)),
        );
    }
    if let Some(start) = &start {
        let time = jiff::Timestamp::from_millisecond(start.value).ok()?;
        t.from(start.span.clone(), &format!("start-time = \"{time}\""));
    }
    t.from(
        window.span,
        &format!("window = \"{}\"", show_duration(window.value)),
    );
    t.from(
        concurrency.span,
        &format!("concurrency = {}", concurrency.value),
    );
    if let Some((span, line)) = locks {
        t.from(span, &line);
    }
    t.line("\n[store]");
    t.line(&format!(
        "path = {}",
        quoted_path(&state.join(STORE_IN_STATE))
    ));
    t.line(&format!("retain = {{ bytes = \"{KEPT}\" }}"));
    let announced = (types.value.is_empty() || types.value.iter().any(|name| name == UPLOAD))
        && !skip.value.iter().any(|name| name == UPLOAD);
    let audit = PipelineText {
        name: "audit",
        with: format!("{{ skip = {} }}", list(&skip.value)),
        has_stage: !skip.value.is_empty(),
        stage_span: skip.span,
        url: &url,
        session_url: None,
    };
    audit.write(&mut t, &tls, &connections, dry_run);
    if announced {
        let with = format!("{{ skip-session-types = {} }}", list(&skip_sessions.value));
        let sessions = PipelineText {
            name: "sessions",
            with,
            has_stage: !skip_sessions.value.is_empty(),
            stage_span: skip_sessions.span,
            url: &session_url,
            session_url: Some(&session_url),
        };
        sessions.write(&mut t, &tls, &connections, dry_run);
    } else {
        note_no_recordings(r, types.span);
    }
    let handler = EventHandler {
        state,
        start_time: start.map(|start| start.value),
        dry_run,
        exit_on_last_event,
        debug,
        without_effect,
        toml: Secret::default(),
        shown: String::new(),
    };
    Some((t, handler))
}

/// What differs between the two pipelines.
struct PipelineText<'a> {
    name: &'static str,
    /// Of the filter.
    with: String,
    has_stage: bool,
    stage_span: Range<usize>,
    url: &'a Endpoint,
    session_url: Option<&'a Endpoint>,
}

impl PipelineText<'_> {
    fn write(&self, t: &mut Translation, tls: &Tls, connections: &Found<i64>, dry_run: bool) {
        let name = self.name;
        t.line(&format!("\n[pipelines.{name}]\nfrom = [\"{name}\"]"));
        if self.has_stage {
            t.line(&format!(
                "\n[[pipelines.{name}.stage]]\nplugin = \"builtin:filter\""
            ));
            t.from(self.stage_span.clone(), &format!("with = {}", self.with));
        }
        if dry_run {
            t.line(&format!(
                "\n[[pipelines.{name}.stage]]\nplugin = \"builtin:filter\""
            ));
            t.line("# A dry run: no event has this type, so nothing is sent.");
            t.line("with = { only = [\"dry-run\"], skip-session-types = [] }");
        }
        t.line(&format!(
            "\n[pipelines.{name}.sink]\nplugin = \"builtin:fluentd\"\nproxy = \"none\""
        ));
        self.url.write(t, "url");
        if let Some(url) = self.session_url {
            url.write(t, "session-url");
        }
        self.url.write_auth(t);
        if self.url.is_https() {
            tls.write(t);
        }
        t.line("with = { format = \"object\" }");
        let in_flight = format!("rate = {{ in-flight = {} }}", connections.value);
        t.from(connections.span.clone(), &in_flight);
    }
}

/// A URL without user and password.
struct Endpoint {
    url: String,
    user: Option<(String, String)>,
    span: Range<usize>,
}

impl Endpoint {
    fn is_https(&self) -> bool {
        self.url.to_ascii_lowercase().starts_with("https://")
    }

    fn write(&self, t: &mut Translation, key: &str) {
        // A query may hold a token.
        let shown = match self.url.split_once('?') {
            Some((url, _)) => format!("{url}?***"),
            None => self.url.clone(),
        };
        let line = |url: &str| format!("{key} = {}", quoted(url));
        t.secret(self.span.clone(), &line(&self.url), &line(&shown));
    }

    fn write_auth(&self, t: &mut Translation) {
        let Some((user, password)) = &self.user else {
            return;
        };
        let line = |user: &str, password: &str| {
            let (user, password) = (quoted(user), quoted(password));
            format!("auth = {{ basic = {{ user = {user}, password = {password} }} }}")
        };
        t.secret(self.span.clone(), &line(user, password), &line(user, "***"));
        if !self.is_https() {
            // As the Event Handler does.
            t.from(self.span.clone(), "allow-plaintext = true");
        }
    }
}

/// The files for TLS to the receiver.
#[derive(Default)]
struct Tls {
    files: Vec<(&'static str, Found<PathBuf>)>,
}

impl Tls {
    fn write(&self, t: &mut Translation) {
        let Some((_, first)) = self.files.first() else {
            return;
        };
        let files = self.files.iter();
        let files = files.map(|(key, file)| format!("{key} = {}", quoted_path(&file.value)));
        let files: Vec<String> = files.collect();
        t.from(
            first.span.clone(),
            &format!("tls = {{ {} }}", files.join(", ")),
        );
    }
}

fn addr(r: &mut Reading<'_>, lookup: &Lookup<'_>) -> Option<Found<String>> {
    let Some(given) = lookup.find(r, "teleport-addr") else {
        return Some(Found {
            value: ADDR.to_owned(),
            span: 0..0,
        });
    };
    let addr = given.text(r)?;
    let (host, port) = split_port(&addr);
    let (what, label) = if addr.contains("://") {
        ("is a URL", "only host and port")
    } else if port.is_none() {
        ("has no port", "no port")
    } else if !is_host(host) {
        ("has no valid host", "no valid host")
    } else if !port.is_some_and(is_port) {
        ("has no valid port", "ports are 1 to 65535")
    } else {
        return found(&given, Some(addr));
    };
    let hint = "write host and port of Teleport's proxy or of its Auth Service, such as \
                `teleport.example.com:443`";
    given.problem(r, what, label, hint);
    None
}

fn required(
    r: &mut Reading<'_>,
    lookup: &Lookup<'_>,
    name: &'static str,
    example: &str,
) -> Option<Found<String>> {
    if let Some(given) = lookup.find(r, name) {
        return given.text(r).and_then(|text| found(&given, Some(text)));
    }
    let key = HandlerOption::named(name).key();
    let message = format!("`{key}` is missing.");
    let option = format!("or give `--{name}`");
    let hint = match key.rsplit_once('.') {
        Some((table, _)) => format!("add `{example}` to `[{table}]`, {option}"),
        None => format!("add `{example}` before the first `[section]`, {option}"),
    };
    r.issue(Issue::new(0..0, message, "", hint));
    None
}

fn required_url(
    r: &mut Reading<'_>,
    lookup: &Lookup<'_>,
    name: &'static str,
    example: &str,
) -> Option<Endpoint> {
    let key = HandlerOption::named(name).key();
    let key = key.rsplit('.').next().unwrap_or_default();
    let text = required(r, lookup, name, &format!("{key} = \"{example}\""))?;
    let (url, user) = split_user(&text.value);
    let decoded = |(user, password)| Some((percent_decoded(user)?, percent_decoded(password)?));
    let place = lookup
        .find(r, name)
        .map_or_else(String::new, |given| given.place);
    let mut report = |what: &str, hint: &str| {
        let message = format!("`{place}` {what}.");
        r.issue(Issue::new(text.span.clone(), message, "", hint));
    };
    if let Some((what, hint)) = problem(&url) {
        report(what, hint);
        return None;
    }
    let user = match user.map(decoded) {
        Some(None) => {
            report(
                "has a `%` in its user name or its password that encodes no character",
                "write `%25` for a `%`",
            );
            return None;
        }
        Some(Some((user, password))) if user.is_empty() || password.is_empty() => {
            report(
                "has a user name without a password, or a password without a user name",
                "write both before the `@`, or neither",
            );
            return None;
        }
        user => user.flatten(),
    };
    Some(Endpoint {
        url,
        user,
        span: text.span,
    })
}

/// The URL without the user and the password in it, and these as they are written.
fn split_user(url: &str) -> (String, Option<(&str, &str)>) {
    let Some((scheme, rest)) = url.split_once("://") else {
        return (url.to_owned(), None);
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let Some((user, host)) = authority.rsplit_once('@') else {
        return (url.to_owned(), None);
    };
    let credentials = user.split_once(':').unwrap_or((user, ""));
    (format!("{scheme}://{host}{path}"), Some(credentials))
}

fn tls(r: &mut Reading<'_>, lookup: &Lookup<'_>, environment: &dyn Environment) -> Option<Tls> {
    let names = [
        ("ca", "fluentd-ca"),
        ("cert", "fluentd-cert"),
        ("key", "fluentd-key"),
    ];
    let given = names.map(|(key, name)| (key, lookup.find(r, name)));
    let [_, (_, cert), (_, key)] = &given;
    if let (Some(one), None) | (None, Some(one)) = (cert, key) {
        let missing = if cert.is_none() { "cert" } else { "key" };
        let problem = format!("is set, but `forward.fluentd.{missing}` is not");
        let hint = "a client certificate needs both `cert` and `key` in `[forward.fluentd]`";
        one.problem(r, &problem, "one of two", hint);
    }
    files(r, environment, given).map(|files| Tls { files })
}

/// Reads a file of each value, to report one that cannot be read.
fn files<const N: usize>(
    r: &mut Reading<'_>,
    environment: &dyn Environment,
    given: [(&'static str, Option<Given>); N],
) -> Option<Vec<(&'static str, Found<PathBuf>)>> {
    let given = given.into_iter();
    let given = given.filter_map(|(key, given)| Some((key, given?)));
    let files = given.map(|(key, given)| {
        let text = given.text(r)?;
        let path = r.absolute(&text);
        if let Err(error) = environment.read_file(&path) {
            let what = format!(
                "names the file `{text}`, which cannot be read: {}",
                reason(&error)
            );
            let hint = "correct the path; relative paths start at the working directory, as with \
                        the Event Handler";
            given.problem(r, &what, "this file", hint);
            return None;
        }
        Some((key, found(&given, Some(path))?))
    });
    // All of them are looked at.
    let files: Vec<_> = files.collect();
    files.into_iter().collect()
}

fn credentials(
    r: &mut Reading<'_>,
    lookup: &Lookup<'_>,
    environment: &dyn Environment,
) -> Option<Vec<(&'static str, Found<PathBuf>)>> {
    let identity = lookup.find(r, "teleport-identity");
    let trio = [
        ("cert", "teleport-cert"),
        ("key", "teleport-key"),
        ("ca", "teleport-ca"),
    ];
    let trio = trio.map(|(key, name)| (key, lookup.find(r, name)));
    let given = trio.iter().filter_map(|(_, given)| given.as_ref());
    let given: Vec<&Given> = given.collect();
    let missing = trio.iter().filter(|(_, given)| given.is_none());
    let missing: Vec<String> = missing
        .map(|(key, _)| format!("`teleport.{key}`"))
        .collect();
    let incomplete = match &missing[..] {
        [one] => format!("is set, but {one} is not"),
        several => format!("is set, but {} are not", several.join(" and ")),
    };
    let (what, hint) = match (&identity, given.len()) {
        (Some(_), 0) => return files(r, environment, [("identity", identity)]),
        (None, 3) => return files(r, environment, trio),
        (None, 0) => {
            let message = "There are no credentials for Teleport.";
            let hint = "add `identity = \"/path/identity\"` to `[teleport]`, or `cert`, `key` and \
                        `ca`";
            r.issue(Issue::new(0..0, message, "", hint));
            return None;
        }
        (Some(_), _) => (
            "cannot be combined with `teleport.identity`",
            "keep `identity`, or all of `cert`, `key` and `ca`",
        ),
        (None, _) => (
            incomplete.as_str(),
            "`cert`, `key` and `ca` belong together",
        ),
    };
    given[0].problem(r, what, "", hint);
    None
}

/// `None`: it is given, and wrong.
fn found_list(r: &mut Reading<'_>, lookup: &Lookup<'_>, name: &str) -> Option<Found<Vec<String>>> {
    match lookup.find(r, name) {
        Some(given) => found(&given, given.list(r)),
        None => Some(Found {
            value: Vec::new(),
            span: 0..0,
        }),
    }
}

/// Sessions at the same time.
fn concurrency(r: &mut Reading<'_>, lookup: &Lookup<'_>) -> Found<i64> {
    let given = lookup.find(r, "concurrency");
    let number = given.as_ref().and_then(|given| given.number(r));
    let (least, most) = (CONCURRENCY.least.0 as i64, CONCURRENCY.most.0 as i64);
    let number = number.unwrap_or(PARALLEL);
    let value = number.clamp(least, most);
    let span = given.as_ref().map_or(0..0, |given| given.span.clone());
    if let Some(given) = given.filter(|_| value != number) {
        note_limit(r, &given, &value.to_string());
    }
    Found { value, span }
}

/// Requests at the same time. Less than one is twice the concurrency, as with the Event Handler.
fn connections(r: &mut Reading<'_>, lookup: &Lookup<'_>, concurrency: i64) -> Found<i64> {
    let given = lookup.find(r, "fluentd-max-connections");
    let number = given.as_ref().and_then(|given| given.number(r));
    let number = number
        .filter(|number| *number >= 1)
        .unwrap_or(concurrency * 2);
    let value = number.min(RATE_IN_FLIGHT.1.0 as i64);
    let span = given.as_ref().map_or(0..0, |given| given.span.clone());
    if let Some(given) = given.filter(|_| value != number) {
        note_limit(r, &given, &value.to_string());
    }
    Found { value, span }
}

fn window(r: &mut Reading<'_>, lookup: &Lookup<'_>) -> Found<Duration> {
    let given = lookup.find(r, "window-size");
    let duration = given.as_ref().and_then(|given| given.duration(r));
    let duration = duration.unwrap_or(WINDOW.default);
    let value = given.as_ref().map_or(duration, |given| {
        within(r, given, duration, (WINDOW.least, WINDOW.most))
    });
    let span = given.as_ref().map_or(0..0, |given| given.span.clone());
    Found { value, span }
}

/// A duration within these limits, in whole milliseconds, as configurations have it.
fn within(
    r: &mut Reading<'_>,
    given: &Given,
    duration: Duration,
    (least, most): (Duration, Duration),
) -> Duration {
    let millis = Duration::from_millis(duration.as_millis() as u64);
    let value = millis.clamp(least, most);
    let used = show_duration(value);
    if value != millis {
        note_limit(r, given, &used);
    } else if value != duration {
        note_other(r, given, "is not a number of whole milliseconds", &used);
    }
    value
}

fn note_limit(r: &mut Reading<'_>, given: &Given, used: &str) {
    note_other(r, given, "is out of range", used);
}

/// Another value is used than the one that is given.
fn note_other(r: &mut Reading<'_>, given: &Given, why: &str, used: &str) {
    let message = format!("`{}` {why}: {used} is used instead.", given.place);
    let hint = format!("write `{used}`");
    r.warnings
        .push(Issue::warning(given.span.clone(), message, "", hint));
}

fn note_no_recordings(r: &mut Reading<'_>, span: Range<usize>) {
    let message = format!(
        "No session recordings are read: the event types that are read do not include `{UPLOAD}`, \
         which announces them."
    );
    let hint = format!("if they are wanted, read `{UPLOAD}` and do not skip it");
    r.notes.push(Issue::note(span, message, "", hint));
}

/// What is accepted and has no effect, with a note for each.
fn without_effect(r: &mut Reading<'_>, lookup: &Lookup<'_>) -> Vec<String> {
    let mut unused = Vec::new();
    for (name, why) in [
        ("batch", "Lockgate asks for pages of its own size"),
        (
            "timeout",
            "Lockgate asks for new events at intervals of its own",
        ),
        (
            "teleport-refresh-enabled",
            "a renewed identity file is always read again",
        ),
        (
            "teleport-refresh-interval",
            "a renewed identity file is read again within seconds",
        ),
    ] {
        let Some(given) = lookup.find(r, name) else {
            continue;
        };
        let is_read = match name {
            "batch" => given.number(r).is_some(),
            "teleport-refresh-enabled" => given.flag(r).is_some(),
            _ => given.duration(r).is_some(),
        };
        if is_read {
            let message = format!("`{}` has no effect: {why}.", given.place);
            let hint = "nothing needs to be done";
            r.notes
                .push(Issue::note(given.span.clone(), message, "not used", hint));
            unused.push(given.place);
        }
    }
    unused
}

fn found<T>(given: &Given, value: Option<T>) -> Option<Found<T>> {
    value.map(|value| Found {
        value,
        span: given.span.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_and_password_are_taken_out_of_a_url() {
        for (url, without, credentials) in [
            ("https://h:1/a?b=c@d", "https://h:1/a?b=c@d", None),
            ("https://u:p@h/a", "https://h/a", Some(("u", "p"))),
            ("https://u%40x:%2f@h", "https://h", Some(("u%40x", "%2f"))),
            ("http://u@h/", "http://h/", Some(("u", ""))),
            ("no-url", "no-url", None),
        ] {
            assert_eq!(split_user(url), (without.to_owned(), credentials), "{url}");
        }
    }
}
