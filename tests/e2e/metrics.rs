//! `/metrics`, as a monitoring system scrapes it.

use std::io::{ErrorKind, Write};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use lockgate_tests::components::component;
use lockgate_tests::{
    Auth, ReceiverProcess, admin_address, configuration, endpoint, get, listen_on_any_port, root,
    start, until,
};

const EVENTS: u64 = 1500;

#[test]
fn metrics_of_a_plugin_are_scraped_over_http() {
    let dir = tempfile::tempdir().unwrap();
    let auth = Auth::start(dir.path(), &["--events", &EVENTS.to_string()]);
    let receiver = ReceiverProcess::start(dir.path(), &[]);
    let pipelines = format!(
        "[plugins.measure]\nsource = \"file:{}\"\n\n\
         [[pipelines.main.stage]]\nplugin = \"builtin:filter\"\nwith = {{ skip = [\"no.such\"] }}\n\n\
         [[pipelines.main.stage]]\nplugin = \"measure\"\nwith = {{ mode = \"measure\" }}\n\n\
         [pipelines.main.sink]\nplugin = \"builtin:fluentd\"\n{}\n",
        component("hostile_filter").display(),
        endpoint(&receiver.addr, &receiver.dir, "main")
    );
    let config = configuration(dir.path(), &auth, &pipelines);
    listen_on_any_port(&config);

    let host = start(&config, &[]);
    let address = &admin_address(&host);
    let delivered =
        format!("lockgate_pipeline_delivered_events_total{{pipeline=\"main\"}} {EVENTS}\n");
    let (mut scraped, mut last) = (String::new(), 0);
    let shown = || format!("{}\n{}", get(address, "/metrics"), host.stderr());
    until("everything is delivered", shown, || {
        scraped = get(address, "/metrics");
        let seen = figure(&scraped, "lockgate_plugin_seen_total{");
        assert!(seen >= last, "a counter went back from {last} to {seen}");
        last = seen;
        scraped.contains(&delivered)
    });
    let place = "pipeline=\"main\",stage=\"2\",plugin=\"measure\"";
    for line in [
        "HTTP/1.1 200 OK".to_owned(),
        "content-type: text/plain; version=0.0.4; charset=utf-8".to_owned(),
        "# HELP lockgate_plugin_seen_total The counter `seen` of a plugin.".to_owned(),
        "# TYPE lockgate_plugin_seen_total counter".to_owned(),
        format!("lockgate_plugin_seen_total{{{place}}} {EVENTS}"),
        "# TYPE lockgate_plugin_bytes histogram".to_owned(),
        format!("lockgate_plugin_bytes_bucket{{{place},le=\"+Inf\"}} {EVENTS}"),
        format!("lockgate_plugin_bytes_count{{{place}}} {EVENTS}"),
        format!("lockgate_pipeline_read_events_total{{pipeline=\"main\"}} {EVENTS}"),
        "lockgate_pipeline_waiting_events{pipeline=\"main\"} 0".to_owned(),
        "lockgate_pipeline_dead_events{pipeline=\"main\"} 0".to_owned(),
        "lockgate_pipeline_ready{pipeline=\"main\"} 1".to_owned(),
    ] {
        assert!(
            scraped.lines().any(|found| found == line),
            "no `{line}`:\n{scraped}"
        );
    }
    host.stop().exits_with(0);
}

/// Prometheus' own tool, if it is installed.
fn promtool(arguments: &[&str], directory: &Path, input: &str) -> Option<Output> {
    let mut command = Command::new("promtool");
    command.args(arguments).current_dir(directory);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            eprintln!("skipped: `promtool` is not installed, so {arguments:?} was not run");
            return None;
        }
        Err(error) => panic!("promtool cannot be started: {error}"),
    };
    // It may end before it has read everything.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    Some(child.wait_with_output().unwrap())
}

#[test]
fn alert_rules_pass_their_tests() {
    let directory = root().join("assets/prometheus");
    for arguments in [
        ["check", "rules", "alerts.yml"],
        ["test", "rules", "alerts_test.yml"],
    ] {
        if let Some(output) = promtool(&arguments, &directory, "") {
            assert!(output.status.success(), "{output:?}");
        }
    }
}

/// One of each kind, over a real run.
#[test]
fn metrics_of_a_run_are_complete_and_well_formed() {
    let dir = tempfile::tempdir().unwrap();
    let auth = Auth::start(dir.path(), &["--events", "1000", "--backend", "search"]);
    let receiver = ReceiverProcess::start(dir.path(), &["--status", "500x3,200"]);
    let pipelines = format!(
        "[plugins.odd]\nsource = \"file:{}\"\n\n[pipelines.main]\nfrom = [\"audit\", \"sessions\"]\n\n\
         [[pipelines.main.stage]]\nplugin = \"builtin:filter\"\nwith = {{ skip = [\"user.login\"] }}\n\n\
         [[pipelines.main.stage]]\nplugin = \"odd\"\nwith = {{ mode = \"measure\" }}\n\n\
         [pipelines.main.sink]\nplugin = \"builtin:fluentd\"\n{}\n",
        component("hostile_filter").display(),
        endpoint(&receiver.addr, &receiver.dir, "main")
    );
    let config = configuration(dir.path(), &auth, &pipelines);
    listen_on_any_port(&config);
    let host = start(&config, &[]);
    let address = &admin_address(&host);
    let mut scraped = String::new();
    let shown = || format!("{}\n{}", get(address, "/metrics"), host.stderr());
    until(
        "everything is delivered, and nothing is unknown",
        shown,
        || {
            scraped = get(address, "/metrics");
            let is = |line: &str| scraped.lines().any(|found| found == line);
            is("lockgate_ready 1")
                && is("lockgate_pipeline_lag_known{pipeline=\"main\"} 1")
                && is("lockgate_pipeline_waiting_events{pipeline=\"main\"} 0")
                && is("lockgate_source_events_total{source=\"teleport\",feed=\"audit\"} 1000")
                && is("lockgate_source_recordings_pending{source=\"teleport\"} 0")
        },
    );
    let read = figure(&scraped, "lockgate_pipeline_read_events_total{");
    let outcomes = ["delivered", "dropped"].map(|outcome| {
        let series =
            format!("lockgate_pipeline_outcomes_total{{pipeline=\"main\",outcome=\"{outcome}\"");
        figure(&scraped, &series)
    });
    assert!(outcomes[0] > 0 && outcomes[1] > 0, "{scraped}");
    assert_eq!(outcomes[0] + outcomes[1], read, "{scraped}");
    let endpoint = "{pipeline=\"main\",endpoint=\"url\"";
    let of_endpoint = |name: &str, more: &str| figure(&scraped, &format!("{name}{endpoint}{more}"));
    let requests = |more: &str| of_endpoint("lockgate_endpoint_requests_total", more);
    assert_eq!(requests(",status=\"500\""), 3, "{scraped}");
    let timed = of_endpoint("lockgate_endpoint_request_seconds_count", "");
    assert!(requests("") > 3 && requests("") == timed, "{scraped}");
    assert!(
        of_endpoint("lockgate_endpoint_retries_total", "") > 0,
        "{scraped}"
    );
    assert!(
        of_endpoint("lockgate_endpoint_holds_total", "") > 0,
        "{scraped}"
    );
    assert_eq!(of_endpoint("lockgate_endpoint_held", ""), 0, "{scraped}");
    let sent = of_endpoint("lockgate_endpoint_request_documents_total", "");
    assert!(sent > outcomes[0], "{scraped}");
    for series in [
        "lockgate_source_reachable{source=\"teleport\"} 1",
        "lockgate_source_lag_seconds{source=\"teleport\"} 0",
        "lockgate_source_conditions{source=\"teleport\",kind=\"connection\"} 0",
        "lockgate_source_credentials_expiry_timestamp_seconds{",
        "lockgate_source_position_timestamp_seconds{",
        "lockgate_source_complete_timestamp_seconds{",
        "lockgate_stage_call_cpu_seconds_count{pipeline=\"main\",stage=\"2\",plugin=\"odd\"}",
        "lockgate_stage_call_cpu_seconds_count{pipeline=\"main\",stage=\"sink\",plugin=\"builtin:fluentd\"}",
        "lockgate_stage_memory_peak_bytes{pipeline=\"main\",stage=\"2\",plugin=\"odd\"}",
        "lockgate_component_compile_seconds_count{",
        "lockgate_store_stream_bytes{stream=\"teleport/audit\"}",
        "lockgate_store_file_bytes ",
        "process_resident_memory_bytes ",
        "process_cpu_seconds_total ",
        "process_start_time_seconds ",
    ] {
        assert!(
            scraped.lines().any(|line| line.starts_with(series)),
            "no `{series}`:\n{scraped}"
        );
    }
    let (_, body) = scraped.split_once("\r\n\r\n").unwrap();
    // Every family is in the document.
    let document = std::fs::read_to_string(root().join("host/service/METRICS.md")).unwrap();
    for family in body.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let name = family.split(' ').next().unwrap();
        let is_documented = document.contains(&format!("| `{name}` |"));
        assert!(
            is_documented || name.starts_with("lockgate_plugin_"),
            "{name}"
        );
    }
    if let Some(output) = promtool(&["check", "metrics"], dir.path(), body) {
        assert!(output.status.success(), "{output:?}\n{body}");
    }
    host.stop().exits_with(0);
}

/// The sum of the series that begin so.
fn figure(scraped: &str, series: &str) -> u64 {
    let lines = scraped.lines().filter(|line| line.starts_with(series));
    let values = lines.filter_map(|line| line.rsplit(' ').next());
    values
        .map(|value| value.parse::<u64>().expect("a number"))
        .sum()
}
