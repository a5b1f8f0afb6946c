//! The content of `/metrics`: the metrics of plugins, and the figures of each pipeline.

use lockgate_ledger::LedgerError;
use lockgate_observe::metrics::{
    Exposition, Histogram, PluginMetric, PluginMetrics, PluginPlace, Registry, Value,
};
use lockgate_runtime::metrics::{BUCKETS, Metric, Snapshot};
use lockgate_store::Store;

use crate::build::BuiltPipeline;
use crate::status::HostStatus;

/// From now on the registry shows what this pipeline's plugins count.
pub(crate) fn attach(registry: &Registry, pipeline: &BuiltPipeline) {
    let config = &pipeline.config;
    let place = |stage: String, plugin: &str| PluginPlace {
        pipeline: config.name.clone(),
        stage,
        plugin: plugin.to_owned(),
    };
    for (nth, (built, stage)) in pipeline.stages.iter().zip(&config.stages).enumerate() {
        let place = place((nth + 1).to_string(), &stage.plugin.name);
        let stage = built.stage.clone();
        registry.attach(place, move || plugin_metrics(stage.metrics()));
    }
    let sink = pipeline.sink.sink.clone();
    let place = place("sink".to_owned(), &config.sink.plugin.name);
    registry.attach(place, move || plugin_metrics(sink.metrics()));
}

fn plugin_metrics(snapshot: Snapshot) -> PluginMetrics {
    let metric = |metric| match metric {
        Metric::Counter(count) => PluginMetric::Counter(count),
        Metric::Histogram(histogram) => PluginMetric::Histogram(Histogram {
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

/// The body of `/metrics`. Blocks: the figures are counted from the store. They hold for a
/// pipeline's current pass over its streams. Where the store cannot be read, what is known without
/// it is shown.
pub(crate) fn render(registry: &Registry, store: Option<&Store>, status: &HostStatus) -> String {
    let mut exposition = Exposition::default();
    registry.expose(&mut exposition);
    let configuration = status.configuration.as_ref();
    let refused = configuration.and_then(|configuration| configuration.refused.as_ref());
    exposition.add(
        "lockgate_configuration_problems",
        "Problems of the configuration file; the host runs with the one before. 0 where it is loaded.",
        &[],
        Value::Gauge(refused.map_or(0, |refused| refused.problems.len()) as f64),
    );
    for (name, pipeline) in &status.pipelines {
        exposition.add(
            "lockgate_pipeline_ready",
            "1 where the pipeline runs and nothing keeps it from delivering, else 0.",
            &[("pipeline", name)],
            Value::Gauge(f64::from(u8::from(pipeline.ready))),
        );
        let Some(store) = store else { continue };
        match figures(&mut exposition, store, name) {
            // It has not run on this store yet.
            Ok(()) | Err(LedgerError::Unknown(_)) => {}
            Err(error) => {
                tracing::warn!(pipeline = name, %error, "its figures cannot be counted for `/metrics`");
            }
        }
    }
    exposition.render()
}

fn figures(exposition: &mut Exposition, store: &Store, name: &str) -> Result<(), LedgerError> {
    let mut books = lockgate_model::Books::default();
    for (_, stream) in store.reads().books(name)? {
        books += stream;
    }
    let letters = store.reads().letter_counts(name)?;
    for (family, help, value) in [
        (
            "lockgate_pipeline_read_events_total",
            "Events of the pipeline's streams that were read.",
            Value::Counter(books.read),
        ),
        (
            "lockgate_pipeline_delivered_events_total",
            "Events whose outcome is delivered.",
            Value::Counter(books.delivered),
        ),
        (
            "lockgate_pipeline_dropped_events_total",
            "Events whose outcome is dropped.",
            Value::Counter(books.dropped),
        ),
        (
            "lockgate_pipeline_dead_events",
            "Events whose outcome is dead, expired dead letters included.",
            Value::Gauge(books.dead as f64),
        ),
        (
            "lockgate_pipeline_waiting_events",
            "Events without an outcome, and dead letters that were sent back.",
            Value::Gauge(books.waiting as f64),
        ),
        (
            "lockgate_pipeline_expired_dead_letters_total",
            "Dead letters that were removed because of their age.",
            Value::Counter(letters.expired),
        ),
    ] {
        exposition.add(family, help, &[("pipeline", name)], value);
    }
    Ok(())
}
