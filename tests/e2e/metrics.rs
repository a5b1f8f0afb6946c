//! `/metrics`, as a monitoring system scrapes it.

use lockgate_tests::components::component;
use lockgate_tests::{
    Auth, ReceiverProcess, admin_address, configuration, endpoint, get, listen_on_any_port, start,
    until,
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

/// The value of the first series that begins so; 0 where there is none.
fn figure(scraped: &str, series: &str) -> u64 {
    let line = scraped.lines().find(|line| line.starts_with(series));
    let value = line.and_then(|line| line.rsplit(' ').next());
    value.map_or(0, |value| value.parse().expect("a number"))
}
