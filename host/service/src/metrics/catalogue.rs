//! Every metric of the host. METRICS.md lists them: a test compares both.
//!
//! Labels are names of the configuration, and words and numbers of the protocols: their number is
//! bounded by the configuration. Reasons of plugins are declared before any event is seen, and the
//! recorder bounds how many series there are of each metric.

use lockgate_observe::metrics::{Kind, Metric};

const SECONDS: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
];
const COUNTER: Kind = Kind::Counter;
const GAUGE: Kind = Kind::Gauge;
const HISTOGRAM: Kind = Kind::Histogram(SECONDS);

const HOST: &[&str] = &[];
const SOURCE: &[&str] = &["source"];
const STREAM: &[&str] = &["stream"];
const PIPELINE: &[&str] = &["pipeline"];
const ENDPOINT: &[&str] = &["pipeline", "endpoint"];
const STAGE: &[&str] = &["pipeline", "stage", "plugin"];

macro_rules! catalogue {
    ($($constant:ident = $kind:ident $labels:expr, $name:literal, $help:literal;)*) => {
        $(pub(crate) static $constant: Metric = Metric {
            name: $name,
            kind: $kind,
            labels: $labels,
            help: $help,
        };)*
        #[cfg(test)]
        pub(crate) static ALL: &[&Metric] = &[$(&$constant),*];
    };
}

catalogue! {
    BUILD_INFO = GAUGE &["version"], "lockgate_build_info", "1, with the version of the host.";
    READY = GAUGE HOST, "lockgate_ready", "1 if `/readyz` says that everything is well, else 0.";
    CONFIGURATION_PROBLEMS = GAUGE HOST, "lockgate_configuration_problems", "Problems of the configuration file; the host runs with the one before. 0 if it is loaded.";
    STORE_OPEN = GAUGE HOST, "lockgate_store_open", "1 if the store is open, 0 while the host waits for it.";
    STORE_STREAM_BYTES = GAUGE STREAM, "lockgate_store_stream_bytes", "Bytes of the compressed events of a stream that the store keeps.";
    STORE_STREAM_LIMIT = GAUGE STREAM, "lockgate_store_stream_limit_bytes", "Bytes of the compressed events of a stream that the store keeps at most: `bytes` in `retain`.";
    STORE_STREAM_EVENTS = GAUGE STREAM, "lockgate_store_stream_events", "Events of a stream that the store keeps.";
    STORE_FILE_BYTES = GAUGE HOST, "lockgate_store_file_bytes", "Size of the store's database and its log on disk.";
    LOAD_SECONDS = HISTOGRAM &["component"], "lockgate_component_compile_seconds", "Time to compile a component, or to find the code that an earlier start compiled.";

    SOURCE_READY = GAUGE SOURCE, "lockgate_source_ready", "1 if nothing keeps the source from being read completely, else 0.";
    SOURCE_REACHABLE = GAUGE SOURCE, "lockgate_source_reachable", "1 if Teleport answers, else 0.";
    SOURCE_CONDITIONS = GAUGE &["source", "kind"], "lockgate_source_conditions", "Conditions of the source now, by kind.";
    SOURCE_EVENTS = COUNTER &["source", "feed"], "lockgate_source_events_total", "Events read into the store.";
    SOURCE_DUPLICATES = COUNTER SOURCE, "lockgate_source_duplicate_events_total", "Events left out because they had been read before.";
    SOURCE_FILTERED = COUNTER SOURCE, "lockgate_source_filtered_events_total", "Events left out because of `types` or `start-time` of the source.";
    SOURCE_GAPS_OPEN = GAUGE SOURCE, "lockgate_source_gaps_open", "Gaps: parts of Teleport's log that could not be read and are tried again.";
    SOURCE_GAPS_LOST = GAUGE SOURCE, "lockgate_source_gaps_lost", "Gaps that cannot be read any more, such as recordings that were given up.";
    SOURCE_GAP_LOST_AT = GAUGE SOURCE, "lockgate_source_gap_lost_timestamp_seconds", "When a gap was last found that cannot be read any more. Absent without one.";
    SOURCE_GAP_SECONDS = GAUGE SOURCE, "lockgate_source_gap_seconds", "Length of all open gaps of the audit log together.";
    SOURCE_UNREADABLE = COUNTER SOURCE, "lockgate_source_unreadable_events_total", "Events stored as raw bytes because they could not be converted to JSON.";
    SOURCE_LATE = COUNTER SOURCE, "lockgate_source_late_events_total", "Events that became visible only after later ones had been read.";
    SOURCE_REPORTS = COUNTER SOURCE, "lockgate_source_reports_total", "Reports of lost events, of events that are read again, and of other lasting problems.";
    SOURCE_REPORTED_AT = GAUGE SOURCE, "lockgate_source_last_report_timestamp_seconds", "When the last report was made. Absent without one since the start.";
    SOURCE_LAG_KNOWN = GAUGE SOURCE, "lockgate_source_lag_known", "1 if it is known what waits at Teleport, else 0.";
    SOURCE_LAG = GAUGE SOURCE, "lockgate_source_lag_seconds", "How far reading is behind Teleport's newest event. Absent while that is not known. With bulk export, as of its latest listing, of which there is one about every 16 s.";
    SOURCE_COMPLETE = GAUGE SOURCE, "lockgate_source_complete_timestamp_seconds", "The last time of which it is known that all that was in the audit log has been read.";
    SOURCE_NEWEST = GAUGE SOURCE, "lockgate_source_newest_event_timestamp_seconds", "Time of the newest event that Teleport has shown.";
    SOURCE_POSITION = GAUGE SOURCE, "lockgate_source_position_timestamp_seconds", "Polling: the events before this time have been read.";
    SOURCE_SKEW = GAUGE SOURCE, "lockgate_source_clock_skew_seconds", "Polling: by how much Teleport's clock is ahead of the clock of this machine.";
    SOURCE_CREDENTIALS = GAUGE SOURCE, "lockgate_source_credentials_expiry_timestamp_seconds", "When the credentials in use expire.";
    RECORDINGS_PENDING = GAUGE SOURCE, "lockgate_source_recordings_pending", "Recordings that are still to be downloaded.";
    RECORDINGS_DONE = COUNTER SOURCE, "lockgate_source_recordings_downloaded_total", "Recordings that were downloaded to their end.";
    RECORDINGS_LOST = COUNTER SOURCE, "lockgate_source_recordings_lost_total", "Recordings that were given up.";
    FAILED_LOGINS = COUNTER SOURCE, "lockgate_source_failed_logins_total", "Failed logins of a user that were read, if `locks` of the source are enabled.";
    LOCKS = COUNTER &["source", "outcome"], "lockgate_source_locks_total", "Users who had too many failed logins, by what became of the lock: `made`; `kept`, because one was in force already; `too-late`, because the failed logins were read too late; `given-up`, because it could not be made.";
    LOCKS_PENDING = GAUGE SOURCE, "lockgate_source_locks_pending", "Locks that are still to be made.";

    PIPELINE_READY = GAUGE PIPELINE, "lockgate_pipeline_ready", "1 if the pipeline runs and nothing keeps it from delivering, else 0.";
    PIPELINE_CONDITIONS = GAUGE &["pipeline", "kind"], "lockgate_pipeline_conditions", "Conditions of the pipeline now, by kind.";
    PIPELINE_CONDITIONS_BEGUN = COUNTER &["pipeline", "kind"], "lockgate_pipeline_conditions_begun_total", "Conditions of the pipeline that have begun, by kind.";
    PIPELINE_READ = COUNTER PIPELINE, "lockgate_pipeline_read_events_total", "Events of the pipeline's streams that were read.";
    PIPELINE_DELIVERED = COUNTER PIPELINE, "lockgate_pipeline_delivered_events_total", "Events whose outcome is delivered.";
    PIPELINE_DROPPED = COUNTER PIPELINE, "lockgate_pipeline_dropped_events_total", "Events whose outcome is dropped.";
    PIPELINE_DEAD = GAUGE PIPELINE, "lockgate_pipeline_dead_events", "Events whose outcome is dead, expired dead letters included.";
    PIPELINE_WAITING = GAUGE PIPELINE, "lockgate_pipeline_waiting_events", "Events without an outcome, and dead letters that were sent back.";
    PIPELINE_EXPIRED = COUNTER PIPELINE, "lockgate_pipeline_expired_dead_letters_total", "Dead letters that were removed because of their age.";
    PIPELINE_GIVEN_UP = COUNTER PIPELINE, "lockgate_pipeline_given_up_events_total", "Of the dropped: events that were given up because the pipeline had reached its `lag-limit`.";
    PIPELINE_OUTCOMES = COUNTER &["pipeline", "outcome", "reason"], "lockgate_pipeline_outcomes_total", "Outcomes since the process started: of those dropped, with the reason that the plugin declared, and of those dead, with who rejected them.";
    PIPELINE_LAG_KNOWN = GAUGE PIPELINE, "lockgate_pipeline_lag_known", "1 if it is known what waits at Teleport, so that the lag is complete, else 0.";
    PIPELINE_LAG = GAUGE PIPELINE, "lockgate_pipeline_lag_seconds", "How far the pipeline is behind Teleport's newest event, or how long its oldest event has waited if that is longer. 0 if nothing is known to wait. With bulk export, as of its latest listing, of which there is one about every 16 s.";
    PIPELINE_BATCHES = COUNTER PIPELINE, "lockgate_pipeline_batches_total", "Commits of batches and of parts of batches.";
    PIPELINE_IN_FLIGHT = GAUGE PIPELINE, "lockgate_pipeline_in_flight_batches", "Batches in flight.";

    REQUESTS = COUNTER &["pipeline", "endpoint", "status"], "lockgate_endpoint_requests_total", "Requests, by HTTP status; without an answer: `timeout`, `tls`, `connection`, `descriptors`, `file` or `contract`.";
    REQUEST_SECONDS = HISTOGRAM ENDPOINT, "lockgate_endpoint_request_seconds", "Time from a request to the end of its answer, waits for a free connection included.";
    REQUEST_BYTES = COUNTER ENDPOINT, "lockgate_endpoint_request_bytes_total", "Bytes of the bodies of requests, before compression.";
    REQUEST_DOCUMENTS = COUNTER ENDPOINT, "lockgate_endpoint_request_documents_total", "Documents in requests. Those that are sent again count again.";
    REQUEST_RETRIES = COUNTER ENDPOINT, "lockgate_endpoint_retries_total", "Requests whose documents were sent before, whole or as a part of a larger request.";
    ENDPOINT_HOLDS = COUNTER ENDPOINT, "lockgate_endpoint_holds_total", "How often the endpoint was held: nothing but probes is sent then.";
    ENDPOINT_HELD = GAUGE ENDPOINT, "lockgate_endpoint_held", "1 while nothing but probes is sent to the endpoint, else 0.";

    STAGE_CALL_CPU_SECONDS = HISTOGRAM STAGE, "lockgate_stage_call_cpu_seconds", "CPU time of the calls of a plugin.";
    STAGE_FAILED_CALLS = COUNTER &["pipeline", "stage", "plugin", "cause"], "lockgate_stage_failed_calls_total", "Calls of a plugin that failed, by cause.";

    STAGE_MEMORY = GAUGE STAGE, "lockgate_stage_memory_peak_bytes", "The most memory that an instance of a plugin has had since it was configured.";

    PROCESS_CPU = COUNTER HOST, "process_cpu_seconds_total", "CPU time of the process, user and system.";
    PROCESS_MEMORY = GAUGE HOST, "process_resident_memory_bytes", "Resident memory of the process.";
    PROCESS_START = GAUGE HOST, "process_start_time_seconds", "When the host started.";
    PROCESS_FDS = GAUGE HOST, "process_open_fds", "Open file descriptors.";
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fmt::Write;

    use expect_test::expect_file;

    use super::*;

    #[test]
    fn the_document_lists_every_metric() {
        let mut rows = String::new();
        for metric in ALL {
            let labels = metric.labels.iter().map(|label| format!("`{label}`"));
            let labels = labels.collect::<Vec<_>>().join(", ");
            let (name, kind) = (metric.name, metric.kind.name());
            writeln!(rows, "| `{name}` | {kind} | {labels} | {} |", metric.help)
                .expect("a String takes everything");
        }
        let document = concat!(
            "# Metrics\n\nWhat a running host shows at `/metrics` of its admin listener, in Prometheus' text format. Counters begin at zero when the\n",
            "process starts, but for those of events that are counted from the store. `lockgate assets prometheus` writes alert rules for them, and\n",
            "`lockgate assets grafana` a dashboard.\n\n",
            "Labels hold names of the configuration and words of the protocols, so there are as many series as the configuration makes: no label holds\n",
            "a value out of an event. A metric has at most 1,000 series of what is counted since the start; further ones share a series whose last\n",
            "label is `(other)`. Metrics that plugins define begin with `lockgate_plugin_` and have the labels `pipeline`, `stage` and `plugin`: at most\n",
            "64 for each plugin at its place.\n\n",
            "| Metric | Kind | Labels | Meaning |\n|---|---|---|---|\n",
        );
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/METRICS.md");
        expect_file![path].assert_eq(&format!("{document}{rows}"));
    }

    #[test]
    fn names_follow_the_conventions_of_prometheus() {
        let mut names = BTreeSet::new();
        for metric in ALL {
            assert!(names.insert(metric.name), "{} is there twice", metric.name);
            let is_counter = metric.kind == Kind::Counter;
            assert_eq!(
                metric.name.ends_with("_total"),
                is_counter,
                "{}",
                metric.name
            );
            assert!(metric.help.ends_with('.'), "{}", metric.name);
        }
    }
}
