//! The content of `/metrics`: the metrics of plugins, and the figures of the host.

pub(crate) mod catalogue;

use std::collections::BTreeMap;

use lockgate_config::Pipeline;
use lockgate_ledger::LedgerError;
use lockgate_model::{Books, FeedKind, Gap, GapState, Millis};
use lockgate_observe::metrics::{
    Exposition, Histogram, Metric, PluginMetric, PluginMetrics, PluginPlace, Registry, Value,
};
use lockgate_observe::process;
use lockgate_runtime::metrics::{BUCKETS, Metric as RuntimeMetric, Snapshot};
use lockgate_store::{PipelineStatus as StoredPipeline, Store};

use crate::build::BuiltPipeline;
use crate::host::Host;
use crate::lag::lag;
use crate::operator::readiness;
use crate::settings::retention;
use crate::status::{
    ConditionStatus, ConditionStatusKind, HostStatus, PipelineStatus, SourceStatus,
};

/// From now on the registry shows what this pipeline's plugins count.
pub(crate) fn attach(registry: &Registry, pipeline: &BuiltPipeline) {
    let mut places = places(&pipeline.config).into_iter();
    for (built, place) in pipeline.stages.iter().zip(places.by_ref()) {
        let stage = built.stage.clone();
        registry.attach(place, move || plugin_metrics(stage.metrics()));
    }
    for place in places {
        let sink = pipeline.sink.sink.clone();
        registry.attach(place, move || plugin_metrics(sink.metrics()));
    }
}

/// The places of a pipeline's stages, in their order, and of its sink, which is the last.
pub(crate) fn places(config: &Pipeline) -> Vec<PluginPlace> {
    let place = |stage: String, plugin: &str| PluginPlace {
        pipeline: config.name.clone(),
        stage,
        plugin: plugin.to_owned(),
    };
    let stages = config.stages.iter().enumerate();
    let stages = stages.map(|(nth, stage)| place((nth + 1).to_string(), &stage.plugin.name));
    let sink = place("sink".to_owned(), &config.sink.plugin.name);
    stages.chain([sink]).collect()
}

fn plugin_metrics(snapshot: Snapshot) -> PluginMetrics {
    let metric = |metric| match metric {
        RuntimeMetric::Counter(count) => PluginMetric::Counter(count),
        RuntimeMetric::Histogram(histogram) => PluginMetric::Histogram(Histogram {
            bounds: &BUCKETS,
            buckets: histogram.buckets.to_vec(),
            count: histogram.count,
            sum: histogram.sum,
        }),
    };
    snapshot
        .into_iter()
        .map(|(name, found)| (name, metric(found)))
        .collect()
}

/// The body of `/metrics`. Blocks: the figures of pipelines are counted from the store, from where
/// the last scrape ended. They hold for a pipeline's current pass over its streams. If the store
/// cannot be read, what is known without it is shown.
pub(crate) fn render(host: &Host, status: &HostStatus, now: Millis) -> String {
    let mut exposition = Exposition::default();
    host.metrics.expose(&mut exposition);
    host.recorder.expose(&mut exposition);
    let mut gauge = |metric: &Metric, labels: &[&str], value: f64| {
        exposition.put(metric, labels, Value::Gauge(value));
    };
    gauge(&catalogue::BUILD_INFO, &[&status.version], 1.0);
    let is_ready = readiness(status, now).ready;
    gauge(&catalogue::READY, &[], flag(is_ready));
    let configuration = status.configuration.as_ref();
    let refused = configuration.and_then(|configuration| configuration.refused.as_ref());
    let problems = refused.map_or(0, |refused| refused.problems.len());
    gauge(&catalogue::CONFIGURATION_PROBLEMS, &[], problems as f64);
    gauge(&catalogue::STORE_OPEN, &[], flag(status.store.is_none()));
    gauge(&catalogue::PROCESS_START, &[], seconds(status.started_at));
    if let Some(bytes) = process::rss_bytes() {
        gauge(&catalogue::PROCESS_MEMORY, &[], bytes as f64);
    }
    if let Some(fds) = process::open_fds() {
        gauge(&catalogue::PROCESS_FDS, &[], fds as f64);
    }
    if let Some(micros) = process::cpu_micros() {
        let spent = Value::Seconds(micros as f64 / 1e6);
        exposition.put(&catalogue::PROCESS_CPU, &[], spent);
    }
    for (name, source) in &status.sources {
        expose_source(&mut exposition, name, source);
    }
    for (name, pipeline) in &status.pipelines {
        expose_pipeline(&mut exposition, name, pipeline);
    }
    if let Some(store) = host.store()
        && let Err(error) = expose_store(&mut exposition, host, &store, status, now)
    {
        tracing::warn!(%error, "the store's figures cannot be counted for `/metrics`");
    }
    exposition.render()
}

fn expose_source(exposition: &mut Exposition, name: &str, source: &SourceStatus) {
    let reader = &source.reader;
    let kinds = conditions(&source.conditions, ConditionStatusKind::of_sources());
    let is_reachable = kinds[ConditionStatusKind::Connection.name()] == 0;
    let mut put = |metric: &Metric, value: Value| exposition.put(metric, &[name], value);
    for (metric, value) in [
        (&catalogue::SOURCE_READY, source.ready),
        (&catalogue::SOURCE_LAG_KNOWN, source.unknown_since.is_none()),
        (
            &catalogue::SOURCE_REACHABLE,
            is_reachable && reader.cluster.is_some(),
        ),
    ] {
        put(metric, Value::Gauge(flag(value)));
    }
    for (metric, count) in [
        (&catalogue::SOURCE_DUPLICATES, reader.duplicates),
        (&catalogue::SOURCE_FILTERED, reader.filtered),
        (&catalogue::SOURCE_UNREADABLE, reader.unreadable),
        (&catalogue::SOURCE_LATE, reader.late),
        (&catalogue::SOURCE_REPORTS, source.reports),
        (&catalogue::RECORDINGS_DONE, reader.recordings_done),
        (&catalogue::RECORDINGS_LOST, reader.recordings_lost),
    ] {
        put(metric, Value::Counter(count));
    }
    let pending = reader.recordings_pending as f64;
    put(&catalogue::RECORDINGS_PENDING, Value::Gauge(pending));
    let lag = source.behind_seconds;
    let lag = lag.filter(|_| source.unknown_since.is_none());
    for (metric, value) in [
        (&catalogue::SOURCE_LAG, lag),
        (&catalogue::SOURCE_COMPLETE, reader.complete_at.map(seconds)),
        (&catalogue::SOURCE_NEWEST, reader.newest.map(seconds)),
        (&catalogue::SOURCE_POSITION, reader.read_until.map(seconds)),
        (
            &catalogue::SOURCE_REPORTED_AT,
            source.last_report.as_ref().map(|report| seconds(report.at)),
        ),
        (&catalogue::SOURCE_SKEW, reader.skew_ms.map(seconds)),
        (
            &catalogue::SOURCE_CREDENTIALS,
            reader.credentials_until.map(seconds),
        ),
    ] {
        if let Some(value) = value {
            put(metric, Value::Gauge(value));
        }
    }
    let feeds = [
        ("audit", reader.audit_events),
        ("sessions", reader.session_events),
    ];
    for (feed, count) in feeds {
        let labels = [name, feed];
        exposition.put(&catalogue::SOURCE_EVENTS, &labels, Value::Counter(count));
    }
    if let Some(locks) = &reader.locks {
        let failed = Value::Counter(locks.failed_logins);
        exposition.put(&catalogue::FAILED_LOGINS, &[name], failed);
        for (outcome, count) in [
            ("made", locks.made),
            ("kept", locks.kept),
            ("too-late", locks.too_late),
            ("given-up", locks.given_up),
        ] {
            let count = Value::Counter(count);
            exposition.put(&catalogue::LOCKS, &[name, outcome], count);
        }
        let pending = Value::Gauge(locks.pending as f64);
        exposition.put(&catalogue::LOCKS_PENDING, &[name], pending);
    }
    for (kind, count) in kinds {
        let value = Value::Gauge(f64::from(count));
        exposition.put(&catalogue::SOURCE_CONDITIONS, &[name, kind], value);
    }
}

fn expose_pipeline(exposition: &mut Exposition, name: &str, pipeline: &PipelineStatus) {
    let ready = Value::Gauge(flag(pipeline.ready));
    exposition.put(&catalogue::PIPELINE_READY, &[name], ready);
    let in_flight = Value::Gauge(pipeline.in_flight as f64);
    exposition.put(&catalogue::PIPELINE_IN_FLIGHT, &[name], in_flight);
    let kinds = conditions(&pipeline.conditions, ConditionStatusKind::of_pipelines());
    for (kind, count) in kinds {
        let value = Value::Gauge(f64::from(count));
        exposition.put(&catalogue::PIPELINE_CONDITIONS, &[name, kind], value);
    }
    for endpoint in ["url", "session-url"] {
        let mut conditions = pipeline.conditions.iter();
        let is_held = conditions.any(|condition| {
            condition.kind == ConditionStatusKind::Endpoint && condition.subject == endpoint
        });
        let labels = [name, endpoint];
        exposition.put(
            &catalogue::ENDPOINT_HELD,
            &labels,
            Value::Gauge(flag(is_held)),
        );
    }
}

fn expose_store(
    exposition: &mut Exposition,
    host: &Host,
    store: &Store,
    status: &HostStatus,
    now: Millis,
) -> Result<(), LedgerError> {
    let reads = store.reads();
    let limits = host.config().map(|config| retention(&config));
    for stream in reads.streams()? {
        let labels = [&*stream.name];
        let limit = limits.as_ref().and_then(|limits| limits.get(&*stream.name));
        if let Some(bytes) = limit.and_then(|limit| limit.bytes) {
            let bytes = Value::Gauge(bytes as f64);
            exposition.put(&catalogue::STORE_STREAM_LIMIT, &labels, bytes);
        }
        let bytes = Value::Gauge(stream.bytes as f64);
        exposition.put(&catalogue::STORE_STREAM_BYTES, &labels, bytes);
        let events = Value::Gauge((stream.next - stream.oldest) as f64);
        exposition.put(&catalogue::STORE_STREAM_EVENTS, &labels, events);
    }
    let bytes = Value::Gauge(reads.file_bytes() as f64);
    exposition.put(&catalogue::STORE_FILE_BYTES, &[], bytes);
    let gaps = reads.gaps()?;
    for source in status.sources.keys() {
        let gaps = gaps
            .iter()
            .filter(|(of, _)| of == source)
            .map(|(_, gap)| gap);
        let open = gaps.clone().filter(|gap| gap.is_open());
        let lost = gaps
            .clone()
            .filter(|gap| gap.is_missing() && !gap.is_open());
        let lost_at = gaps.clone().filter_map(|gap| match gap.state {
            GapState::Lost(at) => Some(at),
            GapState::Open | GapState::Read { .. } => None,
        });
        if let Some(at) = lost_at.max() {
            let at = Value::Gauge(seconds(at));
            exposition.put(&catalogue::SOURCE_GAP_LOST_AT, &[source], at);
        }
        let of_log = open.clone().filter(|gap| gap.feed == FeedKind::Audit);
        for (metric, value) in [
            (&catalogue::SOURCE_GAPS_OPEN, open.count() as f64),
            (&catalogue::SOURCE_GAPS_LOST, lost.count() as f64),
            (
                &catalogue::SOURCE_GAP_SECONDS,
                seconds(of_log.map(Gap::millis).sum()),
            ),
        ] {
            exposition.put(metric, &[source], Value::Gauge(value));
        }
    }
    for pipeline in reads.pipelines()? {
        // One that is not configured any more delivers nothing.
        if status.pipelines.contains_key(&pipeline.name) {
            expose_figures(exposition, store, &pipeline, status, now)?;
        }
    }
    Ok(())
}

fn expose_figures(
    exposition: &mut Exposition,
    store: &Store,
    pipeline: &StoredPipeline,
    status: &HostStatus,
    now: Millis,
) -> Result<(), LedgerError> {
    let name = &*pipeline.name;
    let mut books = Books::default();
    for (_, stream) in store.reads().books(name)? {
        books += stream;
    }
    let letters = store.reads().letter_counts(name)?;
    let given_up = store.reads().given_up(name)?;
    let lag = lag(store.reads(), pipeline, Some(status), now)?;
    for (metric, value) in [
        (&catalogue::PIPELINE_READ, Value::Counter(books.read)),
        (
            &catalogue::PIPELINE_DELIVERED,
            Value::Counter(books.delivered),
        ),
        (&catalogue::PIPELINE_DROPPED, Value::Counter(books.dropped)),
        (&catalogue::PIPELINE_DEAD, Value::Gauge(books.dead as f64)),
        (
            &catalogue::PIPELINE_WAITING,
            Value::Gauge(books.waiting as f64),
        ),
        (
            &catalogue::PIPELINE_EXPIRED,
            Value::Counter(letters.expired),
        ),
        (&catalogue::PIPELINE_GIVEN_UP, Value::Counter(given_up)),
        (
            &catalogue::PIPELINE_LAG_KNOWN,
            Value::Gauge(flag(lag.is_known())),
        ),
        (
            &catalogue::PIPELINE_LAG,
            Value::Gauge(lag.seconds.unwrap_or_default()),
        ),
    ] {
        exposition.put(metric, &[name], value);
    }
    Ok(())
}

/// How many conditions there are of each of `kinds`, so that a series goes back to 0.
fn conditions(
    conditions: &[ConditionStatus],
    kinds: impl Iterator<Item = ConditionStatusKind>,
) -> BTreeMap<&'static str, u32> {
    let count = |kind: ConditionStatusKind| {
        let found = conditions.iter().filter(|found| found.kind == kind);
        (kind.name(), found.count() as u32)
    };
    kinds.map(count).collect()
}

fn flag(is_set: bool) -> f64 {
    f64::from(u8::from(is_set))
}

fn seconds(millis: Millis) -> f64 {
    millis as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source;

    /// A source that cannot be read, and a pipeline that waits for a damaged block, had no series.
    #[test]
    fn a_failed_source_and_a_damaged_block_are_counted() {
        let mut exposition = Exposition::default();
        expose_source(
            &mut exposition,
            "teleport",
            &source::failed("no".to_owned()),
        );
        let damaged = ConditionStatus {
            kind: ConditionStatusKind::Store,
            ..ConditionStatus::default()
        };
        let pipeline = PipelineStatus {
            conditions: vec![damaged],
            ..PipelineStatus::default()
        };
        expose_pipeline(&mut exposition, "siem", &pipeline);
        let shown = exposition.render();
        for series in [
            "lockgate_source_conditions{source=\"teleport\",kind=\"start\"} 1",
            "lockgate_source_conditions{source=\"teleport\",kind=\"locks\"} 0",
            "lockgate_pipeline_conditions{pipeline=\"siem\",kind=\"store\"} 1",
            "lockgate_pipeline_conditions{pipeline=\"siem\",kind=\"start\"} 0",
        ] {
            assert!(
                shown.lines().any(|line| line == series),
                "{series}: {shown}"
            );
        }
    }
}
