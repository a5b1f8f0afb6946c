//! The metrics of plugins, which outlive their pipelines.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::exposition::{Exposition, Histogram, Value};

/// Before the name that a plugin chose.
const PREFIX: &str = "lockgate_plugin_";

/// The metrics of one plugin at its place in a pipeline, by the names that it chose.
pub type PluginMetrics = BTreeMap<String, PluginMetric>;

/// One metric of a plugin.
#[derive(Clone, Debug, PartialEq)]
pub enum PluginMetric {
    Counter(u64),
    Histogram(Histogram),
}

/// The labels of a plugin's metrics.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PluginPlace {
    pub pipeline: String,
    /// `1` for the first stage, and so on; `sink`.
    pub stage: String,
    /// As the configuration names it.
    pub plugin: String,
}

/// The metrics of all plugins. Clones are one registry.
///
/// It outlives the pipelines: a plugin that is configured again at the same place continues its
/// counters.
#[derive(Clone, Default)]
pub struct Registry {
    plugins: Arc<Mutex<BTreeMap<PluginPlace, Plugin>>>,
}

struct Plugin {
    /// The counts of earlier plugins at this place.
    carried: PluginMetrics,
    /// `None`: it is not configured any more. It may be again.
    read: Option<Box<dyn Fn() -> PluginMetrics + Send>>,
}

impl Registry {
    /// Adds the plugin at this place, or replaces it and keeps what the earlier one had counted.
    /// `read` is called for each scrape and must not block.
    pub fn attach(&self, place: PluginPlace, read: impl Fn() -> PluginMetrics + Send + 'static) {
        let mut plugins = self.plugins.lock().unwrap_or_else(PoisonError::into_inner);
        let carried = plugins.remove(&place).map(|before| before.metrics());
        let plugin = Plugin {
            carried: carried.unwrap_or_default(),
            read: Some(Box::new(read)),
        };
        plugins.insert(place, plugin);
    }

    /// Shows nothing of this pipeline's plugins until they are attached again, and lets go of them.
    pub fn detach(&self, pipeline: &str) {
        let mut plugins = self.plugins.lock().unwrap_or_else(PoisonError::into_inner);
        for (place, plugin) in plugins.iter_mut() {
            if place.pipeline == pipeline {
                plugin.carried = plugin.metrics();
                plugin.read = None;
            }
        }
    }

    /// Adds what all plugins have counted until now.
    ///
    /// A counter `hits` becomes `lockgate_plugin_hits_total`, a histogram `bytes` becomes
    /// `lockgate_plugin_bytes`. No name ends in a suffix that the format adds: the runtime refuses
    /// those.
    pub fn expose(&self, exposition: &mut Exposition) {
        let plugins = self.plugins.lock().unwrap_or_else(PoisonError::into_inner);
        for (place, plugin) in plugins.iter().filter(|(_, plugin)| plugin.read.is_some()) {
            let labels = [
                ("pipeline", &*place.pipeline),
                ("stage", &*place.stage),
                ("plugin", &*place.plugin),
            ];
            for (name, metric) in plugin.metrics() {
                let (family, kind, value) = match metric {
                    PluginMetric::Counter(count) => {
                        (format!("{name}_total"), "counter", Value::Counter(count))
                    }
                    PluginMetric::Histogram(histogram) => {
                        (name.clone(), "histogram", Value::Histogram(histogram))
                    }
                };
                let help = format!("The {kind} `{name}` of a plugin.");
                exposition.add(&format!("{PREFIX}{family}"), &help, &labels, value);
            }
        }
    }
}

// === impl Plugin ===

impl Plugin {
    fn metrics(&self) -> PluginMetrics {
        let mut metrics = self.carried.clone();
        for (name, metric) in self.read.iter().flat_map(|read| read()) {
            let sum = match metrics.remove(&name) {
                Some(carried) => metric.after(&carried),
                None => metric,
            };
            metrics.insert(name, sum);
        }
        metrics
    }
}

// === impl PluginMetric ===

impl PluginMetric {
    /// Adds what was counted before, unless that is of another kind or has other bounds, or the sum
    /// would be infinite.
    fn after(self, before: &PluginMetric) -> PluginMetric {
        match (self, before) {
            (PluginMetric::Counter(count), PluginMetric::Counter(before)) => {
                PluginMetric::Counter(count.saturating_add(*before))
            }
            (PluginMetric::Histogram(mut now), PluginMetric::Histogram(before))
                if now.bounds == before.bounds && (now.sum + before.sum).is_finite() =>
            {
                for (bucket, before) in now.buckets.iter_mut().zip(&before.buckets) {
                    *bucket += before;
                }
                now.count += before.count;
                now.sum += before.sum;
                PluginMetric::Histogram(now)
            }
            (metric, _) => metric,
        }
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    fn place(stage: &str, plugin: &str) -> PluginPlace {
        PluginPlace {
            pipeline: "siem".to_owned(),
            stage: stage.to_owned(),
            plugin: plugin.to_owned(),
        }
    }

    fn counting(metrics: &[(&str, PluginMetric)]) -> impl Fn() -> PluginMetrics + use<> {
        let owned = metrics
            .iter()
            .map(|(name, metric)| ((*name).to_owned(), metric.clone()));
        let metrics: PluginMetrics = owned.collect();
        move || metrics.clone()
    }

    fn histogram(buckets: [u64; 2], count: u64) -> PluginMetric {
        PluginMetric::Histogram(Histogram {
            bounds: &[1.0, 10.0],
            buckets: buckets.to_vec(),
            count,
            sum: count as f64 / 2.0,
        })
    }

    fn rendered(registry: &Registry) -> String {
        let mut exposition = Exposition::default();
        registry.expose(&mut exposition);
        exposition.render()
    }

    #[test]
    fn counters_and_histograms_continue_when_a_plugin_is_configured_again() {
        let registry = Registry::default();
        let hits = |count| ("hits", PluginMetric::Counter(count));
        let read = counting(&[
            hits(5),
            ("gone", PluginMetric::Counter(2)),
            ("bytes", histogram([1, 0], 1)),
        ]);
        registry.attach(place("1", "noise"), read);
        registry.attach(place("2", "noise"), counting(&[hits(100)]));
        let read = counting(&[hits(1), ("bytes", histogram([0, 2], 3))]);
        registry.attach(place("1", "noise"), read);
        registry.attach(place("1", "noise"), counting(&[hits(1)]));
        expect![[r#"
            # HELP lockgate_plugin_bytes The histogram `bytes` of a plugin.
            # TYPE lockgate_plugin_bytes histogram
            lockgate_plugin_bytes_bucket{pipeline="siem",stage="1",plugin="noise",le="1"} 1
            lockgate_plugin_bytes_bucket{pipeline="siem",stage="1",plugin="noise",le="10"} 3
            lockgate_plugin_bytes_bucket{pipeline="siem",stage="1",plugin="noise",le="+Inf"} 4
            lockgate_plugin_bytes_sum{pipeline="siem",stage="1",plugin="noise"} 2
            lockgate_plugin_bytes_count{pipeline="siem",stage="1",plugin="noise"} 4
            # HELP lockgate_plugin_gone_total The counter `gone` of a plugin.
            # TYPE lockgate_plugin_gone_total counter
            lockgate_plugin_gone_total{pipeline="siem",stage="1",plugin="noise"} 2
            # HELP lockgate_plugin_hits_total The counter `hits` of a plugin.
            # TYPE lockgate_plugin_hits_total counter
            lockgate_plugin_hits_total{pipeline="siem",stage="1",plugin="noise"} 7
            lockgate_plugin_hits_total{pipeline="siem",stage="2",plugin="noise"} 100
        "#]]
        .assert_eq(&rendered(&registry));
    }

    /// Its place may be another after a reload, and the component must be let go of.
    #[test]
    fn a_detached_plugin_is_not_shown_and_goes_on_counting_when_it_is_back() {
        let registry = Registry::default();
        let hits = |count| counting(&[("hits", PluginMetric::Counter(count))]);
        let held = Arc::new(());
        let (read, component) = (hits(5), held.clone());
        registry.attach(place("1", "noise"), move || {
            let _held = &component;
            read()
        });
        registry.detach("other");
        assert!(rendered(&registry).contains("} 5\n"));
        registry.detach("siem");
        assert_eq!(rendered(&registry), "");
        assert_eq!(Arc::strong_count(&held), 1);
        registry.detach("siem");
        registry.attach(place("1", "noise"), hits(2));
        assert!(rendered(&registry).contains("} 7\n"));
    }

    #[test]
    fn names_of_counters_and_histograms_never_collide() {
        let registry = Registry::default();
        let counter = PluginMetric::Counter(1);
        let read = counting(&[("size", counter.clone()), ("sizes", counter)]);
        registry.attach(place("1", "a"), read);
        let read = counting(&[
            ("size", histogram([1, 0], 1)),
            ("sizes", histogram([1, 0], 1)),
        ]);
        registry.attach(place("2", "b"), read);
        let text = rendered(&registry);
        let types: Vec<&str> = text
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE lockgate_plugin_"))
            .collect();
        assert_eq!(
            types,
            [
                "size histogram",
                "size_total counter",
                "sizes histogram",
                "sizes_total counter"
            ]
        );
    }

    #[test]
    fn a_histogram_whose_sum_would_be_infinite_starts_over() {
        let registry = Registry::default();
        let of = |sum| {
            let (bounds, buckets) = (&[1.0, 10.0][..], vec![0, 0]);
            PluginMetric::Histogram(Histogram {
                bounds,
                buckets,
                count: 1,
                sum,
            })
        };
        registry.attach(place("1", "a"), counting(&[("size", of(f64::MAX))]));
        registry.attach(place("1", "a"), counting(&[("size", of(f64::MAX))]));
        let text = rendered(&registry);
        assert!(
            text.contains("_count{pipeline=\"siem\",stage=\"1\",plugin=\"a\"} 1\n"),
            "{text}"
        );
    }

    #[test]
    fn a_metric_that_becomes_another_kind_starts_over() {
        let registry = Registry::default();
        let counter = ("size", PluginMetric::Counter(9));
        registry.attach(place("1", "a"), counting(&[counter]));
        registry.attach(place("1", "a"), counting(&[("size", histogram([1, 0], 1))]));
        let text = rendered(&registry);
        assert!(
            text.contains("lockgate_plugin_size_count") && !text.contains("9"),
            "{text}"
        );
    }
}
