//! `lockgate status`: figures from the store, and the state of the running host.

use std::collections::BTreeMap;

use lockgate_model::{Books, Millis};
use lockgate_service::{
    ConditionStatus, ConditionStatusKind, ConfigurationStatus, HostStatus,
    PipelineStatus as RunningPipeline,
};
use lockgate_store::{Inspector, OpenError, PipelineStatus};
use serde::Serialize;

use crate::args::Status;
use crate::failure::Failure;
use crate::{print, setup};

/// The longest wait between attempts that nobody asked for.
const OWN_WAIT: Millis = 30_000;

#[derive(Serialize)]
struct Report {
    running: bool,
    /// The host runs and does not answer: `host` is what it reported last.
    silent: bool,
    host: Option<HostStatus>,
    pipelines: BTreeMap<String, Row>,
}

#[derive(Default, Serialize)]
struct Row {
    /// The running host's configuration has this pipeline. Absent where no host runs.
    configured: Option<bool>,
    read: u64,
    delivered: u64,
    dropped: u64,
    dead: u64,
    waiting: u64,
    /// Of the dead: removed because of their age.
    expired: u64,
    /// Of the dropped: removed by retention before the pipeline had finished them.
    removed_unfinished: u64,
    /// Of the waiting: in streams that the pipeline is not configured to read any more. Retention
    /// removes them.
    abandoned: u64,
    /// Seconds since the oldest waiting event was read; absent where none waits.
    lag_seconds: Option<f64>,
    balanced: bool,
    /// Another number when a component, its `with` table or a database that it looks things up in
    /// is another one.
    generation: u32,
    /// The generation's digests and tables.
    description: serde_json::Value,
    state: Option<RunningPipeline>,
}

/// Figures are counted from the store; how the host is comes from the file it writes.
pub(crate) fn run(command: &Status) -> Result<(), Failure> {
    let directory = match &command.store {
        Some(directory) => directory.clone(),
        None => setup::store_path(&command.config)?,
    };
    let (host, silent) = match lockgate_service::running_host(&directory, setup::now()) {
        Some(running) => (Some(running.status), running.is_silent),
        None => (None, false),
    };
    let now = setup::now();
    let pipelines = match Inspector::open(&directory) {
        Ok(inspector) => rows(&inspector, host.as_ref(), now)?,
        // The host is about to make it, or says why it cannot open it either.
        Err(OpenError::Missing { .. }) if host.is_some() => BTreeMap::new(),
        Err(_) if host.as_ref().is_some_and(|host| host.store.is_some()) => BTreeMap::new(),
        Err(error) => return Err(Failure::failed(error)),
    };
    let report = Report {
        running: host.is_some(),
        silent,
        host,
        pipelines,
    };
    if command.json {
        return print::data(&format!(
            "{}\n",
            serde_json::to_string(&report).map_err(Failure::failed)?
        ));
    }
    print::data(&table(&report, now))
}

/// The figures of each pipeline, counted from the store.
fn rows(
    inspector: &Inspector,
    host: Option<&HostStatus>,
    now: Millis,
) -> Result<BTreeMap<String, Row>, Failure> {
    let mut pipelines = BTreeMap::new();
    for PipelineStatus {
        name,
        streams,
        generation,
        description,
        ..
    } in inspector.pipelines().map_err(Failure::failed)?
    {
        let mut books = Books::default();
        let mut abandoned = 0;
        for (stream, figures) in inspector.books(&name).map_err(Failure::failed)? {
            books += figures;
            let mut known = streams.iter();
            if known.any(|(progress, is_read)| progress.stream == stream && !is_read) {
                abandoned += figures.waiting;
            }
        }
        let letters = inspector.letter_counts(&name).map_err(Failure::failed)?;
        let mut oldest = inspector.redriven_since(&name).map_err(Failure::failed)?;
        for (progress, _) in streams {
            let block = inspector
                .block_at(&progress.stream, progress.watermark)
                .map_err(Failure::failed)?;
            oldest = oldest
                .into_iter()
                .chain(block.map(|block| block.read_at))
                .min();
        }
        let configured = host
            .filter(|host| !host.pipelines.is_empty())
            .map(|host| host.pipelines.contains_key(&name));
        let row = Row {
            configured,
            read: books.read,
            delivered: books.delivered,
            dropped: books.dropped,
            dead: books.dead,
            waiting: books.waiting,
            expired: letters.expired,
            removed_unfinished: inspector
                .removed_unfinished(&name)
                .map_err(Failure::failed)?,
            abandoned,
            lag_seconds: oldest.map(|since| (now - since).max(0) as f64 / 1000.0),
            balanced: books.balance(),
            generation,
            description: serde_json::from_str(&description).map_err(Failure::failed)?,
            state: host
                .and_then(|host| host.pipelines.get(&name).cloned())
                .map(|mut state| {
                    state.next_retry_at = state.next_retry_at.filter(|&at| at > now);
                    state
                }),
        };
        pipelines.insert(name, row);
    }
    Ok(pipelines)
}

fn table(report: &Report, now: Millis) -> String {
    let mut text = match &report.host {
        Some(host) => {
            let (pid, version) = (host.pid, &host.version);
            let first = if report.silent {
                format!(
                    "not answering: process {pid}, version {version}; the state below is {} old\n",
                    span(now - host.updated_at)
                )
            } else {
                let since = span(now - host.started_at);
                format!("running: process {pid}, version {version}, for {since}\n")
            };
            first + &health(host, now)
        }
        None => "not running; the figures are those of the store\n".to_owned(),
    };
    for (name, source) in report.host.iter().flat_map(|host| &host.sources) {
        text += &format!("source {name}: {}\n", source.state);
        if let Some(problem) = &source.last_error {
            text += &format!(
                "  last error {} ago: {}\n",
                span(now - problem.at),
                problem.message
            );
        }
    }
    let width = report
        .pipelines
        .keys()
        .map(String::len)
        .max()
        .unwrap_or(0)
        .max("pipeline".len());
    text += &format!(
        "\n{:width$}  {:>12} {:>12} {:>12} {:>8} {:>12}  {:>9}\n",
        "pipeline", "read", "delivered", "dropped", "dead", "waiting", "lag"
    );
    for (name, row) in &report.pipelines {
        let lag = row.lag_seconds.map_or_else(
            || "none".into(),
            |seconds| span((seconds * 1000.0) as Millis),
        );
        text += &format!(
            "{name:width$}  {:>12} {:>12} {:>12} {:>8} {:>12}  {lag:>9}\n",
            row.read, row.delivered, row.dropped, row.dead, row.waiting
        );
        if !row.balanced {
            text += "  the books do not balance: read is not delivered + dropped + dead + waiting. Please report this as a bug\n";
        }
        if row.expired > 0 {
            text += &format!(
                "  expired: {} of the dead are no longer kept\n",
                row.expired
            );
        }
        if row.removed_unfinished > 0 {
            text += &format!(
                "  {} of the dropped were removed by retention before this pipeline had finished them\n",
                row.removed_unfinished
            );
        }
        if row.configured == Some(false) {
            text += "  no longer configured: nothing of it is delivered, and retention removes what waits\n";
        } else if row.abandoned > 0 {
            text += &format!(
                "  {} of the waiting are in streams that this pipeline is not configured to read any more: retention removes them\n",
                row.abandoned
            );
        }
        let Some(state) = &row.state else { continue };
        if !state.state.has_started() {
            text += &format!("  {}\n", state.state);
        }
        text += &conditions(state, now);
    }
    // A pipeline that has never started is not in the store yet.
    for (name, state) in report.host.iter().flat_map(|host| &host.pipelines) {
        if !report.pipelines.contains_key(name) {
            text += &format!("{name:width$}  {}\n{}", state.state, conditions(state, now));
        }
    }
    if report.pipelines.is_empty() && report.host.is_none() {
        text += "no pipeline has run on this store\n";
    }
    text
}

/// Lines on the host as a whole.
fn health(host: &HostStatus, now: Millis) -> String {
    let mut text = String::new();
    if let Some(since) = host.stopping_since {
        text += &format!("it is stopping (for {})\n", span(now - since));
    }
    if let Some(store) = &host.store {
        text += &format!(
            "waiting for the store: {} (for {}",
            store.message,
            span(now - store.since)
        );
        if let Some(at) = store.next_attempt.filter(|&at| at > now) {
            text += &format!(", next attempt in {}", span(at - now));
        }
        text += ")\n";
    }
    if let Some(configuration) = &host.configuration {
        text += &configuration_lines(configuration, now);
    }
    text
}

/// What an operator should know about the configuration file.
fn configuration_lines(configuration: &ConfigurationStatus, now: Millis) -> String {
    let mut text = String::new();
    if let Some(since) = configuration.reloading_since {
        text += &format!("loading the configuration (for {})\n", span(now - since));
    }
    if let Some(refused) = &configuration.refused {
        text += &format!(
            "the configuration file has problems (for {}); the host runs with that of {} ago\n",
            span(now - refused.since),
            span(now - configuration.loaded_at)
        );
        for problem in &refused.problems {
            text += &format!("  {problem}\n");
        }
    }
    if !configuration.needs_restart.is_empty() {
        text += &format!(
            "needs a restart: {} in the configuration file changed, and the host runs with the \
             value before\n",
            configuration.needs_restart.join(", ")
        );
    }
    text
}

/// The conditions of a pipeline, a line each.
fn conditions(state: &RunningPipeline, now: Millis) -> String {
    let mut text = String::new();
    if !state.ready && !state.conditions.is_empty() {
        text += "  not ready, for the reasons below\n";
    }
    for condition in &state.conditions {
        text += &format!(
            "  {} {}: {} (for {}",
            condition.kind.name(),
            condition.subject,
            condition.message,
            span(now - condition.since)
        );
        if let Some(at) = condition.next_attempt.filter(|&at| at > now) {
            text += &format!(", next attempt in {}", span(at - now));
            if let Some(who) = asked_by(condition, at - now) {
                text += &format!(", as {who}; a restart of the host tries at once");
            }
        }
        text += ")\n";
    }
    text
}

/// Who asked for a wait that is longer than the host's own.
fn asked_by(condition: &ConditionStatus, wait: Millis) -> Option<&'static str> {
    match condition.kind {
        _ if wait <= OWN_WAIT => None,
        ConditionStatusKind::Endpoint if condition.message.starts_with("sink (") => {
            Some("the sink asked")
        }
        ConditionStatusKind::Endpoint => Some("the receiver asked with `Retry-After`"),
        ConditionStatusKind::Plugin => Some("the component asked"),
        _ => None,
    }
}

/// `830ms`, `12s`, `3m 5s`, `2h 10m`, `4d 3h`.
fn span(millis: Millis) -> String {
    let seconds = millis.max(0) / 1000;
    match seconds {
        0 => format!("{}ms", millis.max(0)),
        1..60 => format!("{seconds}s"),
        60..3600 => format!("{}m {}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h {}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d {}h", seconds / 86_400, seconds / 3600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use lockgate_service::PipelineState;

    use super::*;

    #[test]
    fn a_pipeline_that_has_never_started_has_its_state_shown_once() {
        let state = RunningPipeline {
            state: PipelineState::Compiling,
            ..RunningPipeline::default()
        };
        let host = HostStatus {
            pipelines: [("siem".to_owned(), state)].into(),
            ..HostStatus::default()
        };
        let report = Report {
            running: true,
            silent: false,
            host: Some(host),
            pipelines: BTreeMap::new(),
        };
        let shown = table(&report, 0);
        assert_eq!(shown.matches("compiling").count(), 1, "{shown}");
    }

    #[test]
    fn a_pipeline_that_is_no_longer_configured_is_marked() {
        let host = HostStatus {
            pipelines: [("siem".to_owned(), RunningPipeline::default())].into(),
            ..HostStatus::default()
        };
        let row = |configured| Row {
            configured,
            balanced: true,
            ..Row::default()
        };
        let pipelines = [("old", Some(false)), ("siem", Some(true))];
        let report = Report {
            running: true,
            silent: false,
            host: Some(host),
            pipelines: pipelines
                .map(|(name, configured)| (name.to_owned(), row(configured)))
                .into(),
        };
        let shown = table(&report, 0);
        let lines: Vec<&str> = shown.lines().collect();
        let marked = |line: &&str| line.starts_with("  no longer configured");
        assert_eq!(
            lines.iter().filter(|line| marked(line)).count(),
            1,
            "{shown}"
        );
        let old = lines.iter().position(|line| line.starts_with("old "));
        assert!(marked(&lines[old.unwrap() + 1]), "{shown}");
    }

    #[test]
    fn a_long_wait_names_who_asked_for_it_and_how_to_end_it() {
        let shown = |kind, message: &str, wait| {
            let message = message.to_owned();
            let condition = ConditionStatus {
                kind,
                message,
                next_attempt: Some(wait),
                ..ConditionStatus::default()
            };
            let state = RunningPipeline {
                conditions: vec![condition],
                ready: true,
                ..RunningPipeline::default()
            };
            conditions(&state, 0)
        };
        let answer = "the receiver answered 429";
        assert_eq!(
            shown(ConditionStatusKind::Endpoint, answer, 30_000),
            "  endpoint : the receiver answered 429 (for 0ms, next attempt in 30s)\n"
        );
        assert_eq!(
            shown(ConditionStatusKind::Endpoint, answer, 3_000_000),
            "  endpoint : the receiver answered 429 (for 0ms, next attempt in 50m 0s, as the \
             receiver asked with `Retry-After`; a restart of the host tries at once)\n"
        );
        for (kind, message, expected) in [
            (
                ConditionStatusKind::Endpoint,
                "sink (builtin:x) says: later",
                ", as the sink asked;",
            ),
            (
                ConditionStatusKind::Plugin,
                "it asked for a retry: later",
                ", as the component asked;",
            ),
        ] {
            let shown = shown(kind, message, 3_000_000);
            assert!(shown.contains(expected), "{shown}");
        }
    }

    #[test]
    fn spans_have_two_units_at_most() {
        for (millis, text) in [
            (-5, "0ms"),
            (830, "830ms"),
            (12_400, "12s"),
            (185_000, "3m 5s"),
            (7_800_000, "2h 10m"),
            (356_400_000, "4d 3h"),
        ] {
            assert_eq!(span(millis), text);
        }
    }
}
