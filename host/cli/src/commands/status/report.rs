//! The status as data: what `--json` prints. STATUS.md describes each member.

use std::collections::BTreeMap;

use lockgate_model::{Books, Gap, Millis};
use lockgate_service::{HostStatus, Lag, PipelineStatus as RunningPipeline, readiness};
use lockgate_store::{Inspector, OpenError, PipelineStatus};
use serde::Serialize;

use super::Target;
use crate::failure::Failure;
use crate::place::not_opened;

/// The version of the schema. It grows when a member is removed, or means something else.
const VERSION: u32 = 1;

/// Figures are counted from the store; how the host is comes from the host itself.
#[derive(Serialize)]
pub(super) struct StatusView {
    pub(super) version: u32,
    /// A host runs, answers, and `/readyz` would say that it is ready.
    pub(super) ready: bool,
    pub(super) running: bool,
    /// The host runs and does not answer: `host` is what it reported last.
    pub(super) silent: bool,
    pub(super) host: Option<HostStatus>,
    /// Why the figures cannot be read from the store, while the host runs.
    pub(super) store_error: Option<String>,
    pub(super) pipelines: BTreeMap<String, Row>,
    /// Parts of Teleport's logs that could not be read, also if they were read later.
    pub(super) gaps: Vec<GapRow>,
}

/// A gap of a source.
#[derive(Serialize)]
pub(crate) struct GapRow {
    pub(super) source: String,
    pub(super) feed: &'static str,
    /// The times between which events may be missing, both inclusive.
    pub(super) from: Millis,
    pub(super) to: Millis,
    pub(super) since: Millis,
    pub(super) attempts: u64,
    pub(super) what: String,
    pub(super) error: String,
    /// `open`, `lost` or `read`.
    pub(super) state: &'static str,
    pub(super) ended_at: Option<Millis>,
    /// That were found when it was read.
    pub(super) events: u64,
}

pub(crate) fn gap_rows(gaps: &[(String, Gap)]) -> Vec<GapRow> {
    let row = |(source, gap): &(String, Gap)| GapRow {
        source: source.clone(),
        feed: gap.feed.name(),
        from: gap.from,
        to: gap.to,
        since: gap.since,
        attempts: gap.attempts,
        what: gap.what.clone(),
        error: gap.error.clone(),
        state: gap.state.name(),
        ended_at: gap.state.at(),
        events: gap.state.events(),
    };
    gaps.iter().map(row).collect()
}

/// A pipeline.
#[derive(Default, Serialize)]
pub(super) struct Row {
    /// The running host's configuration has this pipeline; if none runs, the configuration file.
    /// Absent if neither is known.
    pub(super) configured: Option<bool>,
    /// It has run on this store: its figures are those of the store.
    pub(super) registered: bool,
    pub(super) read: u64,
    pub(super) delivered: u64,
    pub(super) dropped: u64,
    pub(super) dead: u64,
    pub(super) waiting: u64,
    /// Of the dead: removed because of their age.
    pub(super) expired: u64,
    /// Of the dropped: removed by retention before the pipeline had finished them.
    pub(super) removed_unfinished: u64,
    /// Of the dropped: given up because the pipeline had reached its lag limit.
    pub(super) given_up: u64,
    /// Of the waiting: in streams that the pipeline is not configured to read any more. Retention
    /// removes them.
    pub(super) abandoned: u64,
    /// How far it is behind, as far as that is known; absent if nothing is known to wait.
    pub(super) lag_seconds: Option<f64>,
    /// All that waits is known.
    pub(super) lag_known: bool,
    pub(super) lag_unknown_since: Option<Millis>,
    /// The sources of which it is not known what waits at Teleport.
    pub(super) lag_unknown_sources: Vec<String>,
    pub(super) balanced: bool,
    /// Another number when a component, its `with` table or a database that it looks things up in
    /// is another one.
    pub(super) generation: u32,
    /// The generation's digests and tables.
    pub(super) description: serde_json::Value,
    pub(super) state: Option<RunningPipeline>,
}

impl StatusView {
    pub(super) fn of(target: &Target, now: Millis) -> Result<StatusView, Failure> {
        let running = lockgate_service::running_host(&target.store, now);
        let silent = running.as_ref().is_some_and(|running| running.is_silent);
        let host = running.map(|running| running.status);
        let mut store_error = None;
        let (gaps, mut pipelines) = match Inspector::open(&target.store) {
            Ok(inspector) => (
                gap_rows(&inspector.gaps().map_err(Failure::failed)?),
                rows(&inspector, host.as_ref(), target, now)?,
            ),
            Err(error) => {
                store_error = Some(unread(error, host.as_ref())?);
                Default::default()
            }
        };
        // Those that have never run on this store, or of which the store cannot say it.
        let running = host.iter().flat_map(|host| host.pipelines.keys());
        let file = target.configured.iter().flatten();
        for name in running.chain(file.filter(|_| host.is_none())) {
            let row = || Row {
                configured: Some(true),
                balanced: true,
                state: state(host.as_ref(), name, now),
                ..Row::default()
            };
            pipelines.entry(name.clone()).or_insert_with(row);
        }
        let ready = |host: &HostStatus| readiness(host, now).ready;
        Ok(StatusView {
            version: VERSION,
            ready: !silent && host.as_ref().is_some_and(ready),
            running: host.is_some(),
            silent,
            host,
            store_error,
            pipelines,
            gaps,
        })
    }
}

/// Why there are no figures, if the host is about to make the store, or waits for it and can say
/// more. Else the command fails.
fn unread(error: OpenError, host: Option<&HostStatus>) -> Result<String, Failure> {
    match error {
        // Its way out is for whoever wants to start a host.
        OpenError::Missing { path } if host.is_some() => {
            Ok(format!("there is no store at `{}`", path.display()))
        }
        error if host.is_some_and(|host| host.store.is_some()) => Ok(error.to_string()),
        error => Err(not_opened(error)),
    }
}

/// The figures of each pipeline, counted from the store.
fn rows(
    inspector: &Inspector,
    host: Option<&HostStatus>,
    target: &Target,
    now: Millis,
) -> Result<BTreeMap<String, Row>, Failure> {
    let mut pipelines = BTreeMap::new();
    for pipeline in inspector.pipelines().map_err(Failure::failed)? {
        let row = row(inspector, &pipeline, host, target, now)?;
        pipelines.insert(pipeline.name, row);
    }
    Ok(pipelines)
}

fn row(
    inspector: &Inspector,
    pipeline: &PipelineStatus,
    host: Option<&HostStatus>,
    target: &Target,
    now: Millis,
) -> Result<Row, Failure> {
    let name = &pipeline.name;
    let mut books = Books::default();
    let mut abandoned = 0;
    for (stream, figures) in inspector.books(name).map_err(Failure::failed)? {
        books += figures;
        let mut known = pipeline.streams.iter();
        if known.any(|(progress, is_read)| progress.stream == stream && !is_read) {
            abandoned += figures.waiting;
        }
    }
    let letters = inspector.letter_counts(name).map_err(Failure::failed)?;
    let configured = match host {
        Some(host) => Some(&host.pipelines)
            .filter(|pipelines| !pipelines.is_empty())
            .map(|pipelines| pipelines.contains_key(name)),
        None => target.configured.as_ref().map(|names| names.contains(name)),
    };
    let lag = match configured {
        // Nothing delivers it, so nothing of it is late.
        Some(false) => Lag::default(),
        _ => lockgate_service::lag(inspector, pipeline, host, now).map_err(Failure::failed)?,
    };
    Ok(Row {
        configured,
        registered: true,
        read: books.read,
        delivered: books.delivered,
        dropped: books.dropped,
        dead: books.dead,
        waiting: books.waiting,
        expired: letters.expired,
        removed_unfinished: inspector
            .removed_unfinished(name)
            .map_err(Failure::failed)?,
        given_up: inspector.given_up(name).map_err(Failure::failed)?,
        abandoned,
        lag_seconds: lag.seconds,
        lag_known: lag.is_known(),
        lag_unknown_since: lag.unknown_since,
        lag_unknown_sources: lag.unknown,
        balanced: books.balance(),
        generation: pipeline.generation,
        description: serde_json::from_str(&pipeline.description).map_err(Failure::failed)?,
        state: state(host, name, now),
    })
}

fn state(host: Option<&HostStatus>, name: &str, now: Millis) -> Option<RunningPipeline> {
    let mut state = host?.pipelines.get(name).cloned()?;
    state.next_retry_at = state.next_retry_at.filter(|&at| at > now);
    Some(state)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use lockgate_service::{
        AskedBy, ConditionStatus, ConfigurationStatus, ListenerStatus, LockStatus, Problem,
        ReaderFigures, RefusedConfiguration, SourceStatus, StoreLogStatus, StoreStatus,
    };
    use serde_json::Value;

    use super::*;

    /// Members and types of a value: none of them may be `null`.
    fn members(place: &str, value: &Value, found: &mut BTreeMap<String, &'static str>) {
        let kind = match value {
            Value::Null => panic!("{place} has no value"),
            Value::Bool(_) => "boolean",
            Value::Number(number) if number.is_f64() => "number",
            Value::Number(_) => "integer",
            Value::String(_) => "string",
            Value::Array(_) => "list",
            Value::Object(_) => "object",
        };
        if !place.is_empty() {
            found.insert(place.to_owned(), kind);
        }
        // Described once, or not by Lockgate.
        if [
            "host.pipelines",
            "pipelines.NAME.description",
            "host.sources.NAME.conditions[]",
        ]
        .contains(&place)
        {
            return;
        }
        match value {
            Value::Array(list) => members(&format!("{place}[]"), &list[0], found),
            Value::Object(object) => {
                for (name, value) in object {
                    let dot = if place.is_empty() { "" } else { "." };
                    members(&format!("{place}{dot}{name}"), value, found);
                }
            }
            _ => {}
        }
    }

    /// Everything that can be there is there.
    fn full() -> StatusView {
        let condition = || ConditionStatus {
            next_attempt: Some(1),
            asked_by: Some(AskedBy::Receiver),
            not_ready_from: Some(1),
            ..ConditionStatus::default()
        };
        let reader = ReaderFigures {
            route: Some(String::new()),
            cluster: Some(String::new()),
            server_version: Some(String::new()),
            reads_from: Some(1),
            credentials_from: Some(1),
            credentials_until: Some(1),
            read_until: Some(1),
            newest: Some(1),
            complete_at: Some(1),
            unanswered_since: Some(1),
            resumed_at: Some(1),
            skew_ms: Some(1),
            locks: Some(LockStatus {
                made_at: Some(1),
                last_given_up: Some(String::new()),
                ..LockStatus::default()
            }),
            ..ReaderFigures::default()
        };
        let source = SourceStatus {
            conditions: vec![condition()],
            next_retry_at: Some(1),
            unknown_since: Some(1),
            behind_seconds: Some(0.5),
            last_report: Some(Problem {
                at: 1,
                message: String::new(),
            }),
            reader,
            ..SourceStatus::default()
        };
        let state = RunningPipeline {
            conditions: vec![condition()],
            next_retry_at: Some(1),
            given_up_at: Some(1),
            certificate_until: Some(1),
            ..RunningPipeline::default()
        };
        let host = HostStatus {
            stopping_since: Some(1),
            store: Some(StoreStatus {
                next_attempt: Some(1),
                ..StoreStatus::default()
            }),
            store_opened_at: Some(1),
            store_log: Some(StoreLogStatus::default()),
            admin_listener: Some(ListenerStatus {
                next_attempt: Some(1),
                ..ListenerStatus::default()
            }),
            configuration: Some(ConfigurationStatus {
                reloading_since: Some(1),
                reloading_waits_for: Some(String::new()),
                refused: Some(RefusedConfiguration {
                    problems: vec![String::new()],
                    ..RefusedConfiguration::default()
                }),
                needs_restart: vec![String::new()],
                ..ConfigurationStatus::default()
            }),
            sources: [("NAME".to_owned(), source)].into(),
            pipelines: [("NAME".to_owned(), state.clone())].into(),
            ..HostStatus::default()
        };
        let row = Row {
            configured: Some(true),
            lag_seconds: Some(0.5),
            lag_unknown_since: Some(1),
            lag_unknown_sources: vec![String::new()],
            description: serde_json::json!({}),
            state: Some(state),
            ..Row::default()
        };
        StatusView {
            version: VERSION,
            ready: true,
            running: true,
            silent: false,
            host: Some(host),
            store_error: Some(String::new()),
            pipelines: [("NAME".to_owned(), row)].into(),
            gaps: vec![GapRow {
                source: String::new(),
                feed: "audit",
                from: 1,
                to: 1,
                since: 1,
                attempts: 1,
                what: String::new(),
                error: String::new(),
                state: "read",
                ended_at: Some(1),
                events: 1,
            }],
        }
    }

    #[test]
    fn a_host_that_waits_for_its_store_has_no_figures_and_says_why() {
        let failed = || OpenError::Failed {
            path: "store/store.db".into(),
            cause: "disk I/O error".to_owned(),
            full: true,
        };
        let mut host = HostStatus::default();
        assert!(unread(failed(), Some(&host)).is_err());
        assert!(unread(failed(), None).is_err());
        host.store = Some(StoreStatus::default());
        let why = unread(failed(), Some(&host)).unwrap();
        assert!(why.contains("The disk is full"), "{why}");
    }

    #[test]
    fn the_document_describes_every_member_with_its_type() {
        let value = serde_json::to_value(full()).expect("it is JSON");
        let mut found = BTreeMap::new();
        members("", &value, &mut found);
        let document = include_str!("../../../STATUS.md");
        let rows = document.lines().filter_map(|line| {
            let mut cells = line.strip_prefix("| `")?.split(" | ");
            let member = cells.next()?.trim_end_matches('`');
            let kind = cells.next()?.trim_end_matches('?');
            Some((member.to_owned(), kind))
        });
        let documented: BTreeMap<String, &str> = rows.collect();
        assert_eq!(documented, found);
        assert!(document.contains(&format!("Version of this schema: {VERSION} |")));
    }
}
