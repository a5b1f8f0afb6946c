use std::collections::BTreeMap;

use lockgate_service::{ListenerStatus, PipelineState, RefusedConfiguration, StoreLogStatus};

use super::*;

fn report(host: HostStatus, pipelines: BTreeMap<String, Row>) -> StatusView {
    StatusView {
        version: 1,
        ready: false,
        running: true,
        silent: false,
        host: Some(host),
        store_error: None,
        pipelines,
        gaps: Vec::new(),
    }
}

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
    let row = Row {
        state: host.pipelines.get("siem").cloned(),
        ..Row::default()
    };
    let report = report(host, [("siem".to_owned(), row)].into());
    let shown = table(&report, 0);
    assert_eq!(shown.matches("compiling").count(), 1, "{shown}");
}

/// They were shown as valid for as long as they will be.
#[test]
fn credentials_that_are_not_valid_yet_are_not_shown_as_valid() {
    let mut source = SourceStatus::default();
    source.reader.credentials_from = Some(60_000);
    source.reader.credentials_until = Some(120_000);
    let line = |now| {
        let shown = sourced("teleport", &source, now);
        let mut lines = shown.lines().filter(|line| line.contains("credentials"));
        lines.next().unwrap_or_default().trim().to_owned()
    };
    let not_yet = "the credentials are not valid before 1970-01-01T00:01:00Z, by the clock of this \
                   machine";
    assert_eq!(line(59_999), not_yet);
    assert_eq!(line(60_000), "the credentials are valid for 1m 0s");
}

/// The lag was cut off.
#[test]
fn the_figures_fit_into_80_columns() {
    let row = Row {
        registered: true,
        read: 123_456_789,
        delivered: 123_456_000,
        lag_seconds: Some(9_999.0),
        balanced: true,
        ..Row::default()
    };
    let report = report(
        HostStatus::default(),
        [("elasticsearch".to_owned(), row)].into(),
    );
    let shown = table(&report, 0);
    let mut lines = shown
        .lines()
        .skip_while(|line| !line.starts_with("pipeline"));
    let head = "pipeline            read  delivered  dropped  dead  waiting       lag";
    assert_eq!(lines.next(), Some(head));
    let figures = "elasticsearch  123456789  123456000        0     0        0  > 2h 46m";
    assert_eq!(lines.next(), Some(figures));
}

#[test]
fn figures_that_cannot_be_read_are_not_shown_as_none() {
    let state = RunningPipeline {
        state: PipelineState::WaitingForStore,
        ..RunningPipeline::default()
    };
    let row = Row {
        state: Some(state),
        ..Row::default()
    };
    let mut report = report(HostStatus::default(), [("siem".to_owned(), row)].into());
    report.ready = true;
    report.store_error = Some("the disk is full".to_owned());
    let shown = table(&report, 0);
    for line in [
        "the figures cannot be read: the disk is full\n",
        "siem      waiting for the store; its figures cannot be read\n",
    ] {
        assert!(shown.contains(line), "{shown}");
    }
    for words in ["read nothing", "ready: everything works"] {
        assert!(!shown.contains(words), "{shown}");
    }
}

#[test]
fn a_source_with_a_gap_is_not_shown_as_healthy() {
    let gap = |state, ended_at| GapRow {
        source: "teleport".to_owned(),
        feed: "audit",
        from: 0,
        to: 999,
        since: 0,
        attempts: 4,
        what: "events".to_owned(),
        error: "it answers Unknown `x`".to_owned(),
        state,
        ended_at,
        events: 0,
    };
    let mut report = report(HostStatus::default(), BTreeMap::new());
    report.ready = true;
    report.gaps = vec![
        gap("open", None),
        gap("lost", Some(1)),
        gap("read", Some(2)),
    ];
    let shown = table(&report, 60_000);
    assert!(
        shown.contains("\nready, but a part of Teleport's log could not be read"),
        "{shown}"
    );
    let lines = "gaps of source teleport: 1 open, 1 lost; Teleport did not return these events\n  \
                 open, events from 1970-01-01T00:00:00.000Z to 1970-01-01T00:00:00.999Z: it answers \
                 Unknown `x` (for 1m 0s, 4 attempts)\n  lost, events from";
    assert!(shown.contains(lines), "{shown}");
    // Old losses do not hide present problems.
    report.gaps.remove(0);
    let shown = table(&report, 10 * LOST_SHOWN);
    assert!(shown.contains("\nready: everything works\n"), "{shown}");
    assert!(shown.contains("0 open, 1 lost"), "{shown}");
}

/// Each was once below a line which said that everything worked.
#[test]
fn not_everything_works_as_long_as_anything_is_shown_that_does_not() {
    let condition = ConditionStatus {
        message: "the credentials file cannot be read".to_owned(),
        ..ConditionStatus::default()
    };
    let source = SourceStatus {
        conditions: vec![condition.clone()],
        ..SourceStatus::default()
    };
    let connecting = SourceStatus {
        state: "connecting".to_owned(),
        ..SourceStatus::default()
    };
    let pipeline = RunningPipeline {
        conditions: vec![condition],
        ..RunningPipeline::default()
    };
    let refused = ConfigurationStatus {
        refused: Some(RefusedConfiguration::default()),
        ..ConfigurationStatus::default()
    };
    let healthy = HostStatus::default;
    for (host, head) in [
        (healthy(), "ready: everything works"),
        (
            HostStatus {
                sources: [("teleport".to_owned(), source)].into(),
                ..healthy()
            },
            "ready, but not everything works: see below",
        ),
        (
            HostStatus {
                pipelines: [("siem".to_owned(), pipeline)].into(),
                ..healthy()
            },
            "ready, but not everything works: see below",
        ),
        (
            HostStatus {
                admin_listener: Some(ListenerStatus::default()),
                ..healthy()
            },
            "ready, but not everything works: see below",
        ),
        (
            HostStatus {
                sources: [("teleport".to_owned(), connecting)].into(),
                ..healthy()
            },
            "ready, but a source is still connecting: see below",
        ),
        (
            HostStatus {
                store_log: Some(StoreLogStatus::default()),
                ..healthy()
            },
            "ready, but not everything works: see below",
        ),
        (
            HostStatus {
                configuration: Some(refused),
                ..healthy()
            },
            "ready, but the configuration file had problems and is not in force: see below",
        ),
    ] {
        let report = StatusView {
            ready: true,
            ..report(host, BTreeMap::new())
        };
        let shown = table(&report, 60_000);
        assert_eq!(shown.lines().nth(1), Some(head), "{shown}");
    }
}

#[test]
fn a_pipeline_that_is_no_longer_configured_is_marked() {
    let host = HostStatus {
        pipelines: [("siem".to_owned(), RunningPipeline::default())].into(),
        ..HostStatus::default()
    };
    let row = |configured| Row {
        configured,
        registered: true,
        balanced: true,
        ..Row::default()
    };
    let pipelines = [("old", Some(false)), ("siem", Some(true))];
    let rows = pipelines.map(|(name, configured)| (name.to_owned(), row(configured)));
    let report = report(host, rows.into());
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
    let shown = |kind, message: &str, asked_by, wait| {
        let message = message.to_owned();
        let condition = ConditionStatus {
            kind,
            message,
            next_attempt: Some(wait),
            asked_by,
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
    let receiver = Some(AskedBy::Receiver);
    assert_eq!(
        shown(ConditionStatusKind::Endpoint, answer, receiver, 30_000),
        "  endpoint : the receiver answered 429 (for 0ms, next attempt in 30s)\n"
    );
    assert_eq!(
        shown(ConditionStatusKind::Endpoint, answer, receiver, 3_000_000),
        "  endpoint : the receiver answered 429 (for 0ms, next attempt in 50m 0s, as the \
         receiver asked with `Retry-After`; a restart of the host tries at once)\n"
    );
    for (kind, message, asked_by, expected) in [
        (
            ConditionStatusKind::Endpoint,
            "sink (builtin:x) says: later",
            Some(AskedBy::Sink),
            ", as the sink asked;",
        ),
        (
            ConditionStatusKind::Plugin,
            "it asked for a retry: later",
            None,
            ", as the component asked;",
        ),
    ] {
        let shown = shown(kind, message, asked_by, 3_000_000);
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
