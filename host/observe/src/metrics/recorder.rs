//! The host's own counts while it runs.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::exposition::{Exposition, Histogram, Value};

/// Series of one metric. Further ones share a series whose last label is [`OTHER`].
const SERIES_MAX: usize = 1000;
/// The last label of what is past the limit.
const OTHER: &str = "(other)";

/// A metric of the host: its name, with the unit, and what it means.
#[derive(Debug)]
pub struct Metric {
    pub name: &'static str,
    pub kind: Kind,
    pub labels: &'static [&'static str],
    pub help: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    Counter,
    Gauge,
    /// The bounds of its buckets, ascending.
    Histogram(&'static [f64]),
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram(_) => "histogram",
        }
    }
}

/// Counters and histograms that grow while the host runs. Clones are one recorder.
///
/// A call costs a lock and a look-up, so it is for requests, calls and batches, and not for events.
#[derive(Clone, Debug, Default)]
pub struct Recorder {
    families: Arc<Mutex<BTreeMap<&'static str, Family>>>,
}

#[derive(Debug)]
struct Family {
    metric: &'static Metric,
    series: BTreeMap<Vec<String>, Value>,
}

impl Recorder {
    /// Adds to a counter. `labels`: as many values as the metric has labels.
    pub fn add(&self, metric: &'static Metric, labels: &[&str], count: u64) {
        self.change(metric, labels, |value| {
            if let Value::Counter(sum) = value {
                *sum = sum.saturating_add(count);
            }
        });
    }

    /// Sets a gauge.
    pub fn set(&self, metric: &'static Metric, labels: &[&str], now: f64) {
        self.change(metric, labels, |value| {
            if let Value::Gauge(value) = value {
                *value = now;
            }
        });
    }

    /// Adds an observation to a histogram.
    pub fn observe(&self, metric: &'static Metric, labels: &[&str], observed: f64) {
        self.change(metric, labels, |value| {
            if let Value::Histogram(histogram) = value {
                histogram.observe(observed);
            }
        });
    }

    /// Adds everything that was recorded.
    pub fn expose(&self, exposition: &mut Exposition) {
        let families = self.families.lock().unwrap_or_else(PoisonError::into_inner);
        for Family { metric, series } in families.values() {
            for (labels, value) in series {
                let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
                exposition.put(metric, &labels, value.clone());
            }
        }
    }

    fn change(&self, metric: &'static Metric, labels: &[&str], change: impl FnOnce(&mut Value)) {
        let mut families = self.families.lock().unwrap_or_else(PoisonError::into_inner);
        let family = families.entry(metric.name).or_insert_with(|| Family {
            metric,
            series: BTreeMap::new(),
        });
        let mut key: Vec<String> = labels.iter().map(|&label| label.to_owned()).collect();
        if family.series.len() >= SERIES_MAX
            && !family.series.contains_key(&key)
            && let Some(last) = key.last_mut()
        {
            *last = OTHER.to_owned();
        }
        change(family.series.entry(key).or_insert_with(|| metric.zero()));
    }
}

impl Metric {
    fn zero(&self) -> Value {
        match self.kind {
            Kind::Counter => Value::Counter(0),
            Kind::Gauge => Value::Gauge(0.0),
            Kind::Histogram(bounds) => Value::Histogram(Histogram {
                bounds,
                buckets: vec![0; bounds.len()],
                count: 0,
                sum: 0.0,
            }),
        }
    }
}

impl Histogram {
    fn observe(&mut self, observed: f64) {
        self.count += 1;
        self.sum += observed;
        let bucket = self.bounds.partition_point(|&bound| bound < observed);
        if let Some(bucket) = self.buckets.get_mut(bucket) {
            *bucket += 1;
        }
    }
}

impl Exposition {
    /// Adds one series of a metric of the host. `labels`: their values.
    pub fn put(&mut self, metric: &Metric, labels: &[&str], value: Value) {
        debug_assert_eq!(metric.labels.len(), labels.len(), "{}", metric.name);
        let labels = metric.labels.iter().zip(labels);
        let labels: Vec<(&str, &str)> = labels.map(|(&name, &value)| (name, value)).collect();
        let is_added = self.add(metric.name, metric.help, &labels, value);
        debug_assert!(is_added, "{} has two kinds", metric.name);
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    static REQUESTS: Metric = Metric {
        name: "requests_total",
        kind: Kind::Counter,
        labels: &["endpoint", "status"],
        help: "Requests.",
    };
    static SECONDS: Metric = Metric {
        name: "request_seconds",
        kind: Kind::Histogram(&[0.1, 1.0]),
        labels: &["endpoint"],
        help: "Time.",
    };

    #[test]
    fn what_is_recorded_is_exposed() {
        let recorder = Recorder::default();
        recorder.add(&REQUESTS, &["url", "200"], 2);
        recorder.add(&REQUESTS, &["url", "200"], 1);
        recorder.observe(&SECONDS, &["url"], 0.1);
        recorder.observe(&SECONDS, &["url"], 7.0);
        let mut exposition = Exposition::default();
        recorder.expose(&mut exposition);
        expect![[r#"
            # HELP request_seconds Time.
            # TYPE request_seconds histogram
            request_seconds_bucket{endpoint="url",le="0.1"} 1
            request_seconds_bucket{endpoint="url",le="1"} 1
            request_seconds_bucket{endpoint="url",le="+Inf"} 2
            request_seconds_sum{endpoint="url"} 7.1
            request_seconds_count{endpoint="url"} 2
            # HELP requests_total Requests.
            # TYPE requests_total counter
            requests_total{endpoint="url",status="200"} 3
        "#]]
        .assert_eq(&exposition.render());
    }

    #[test]
    fn series_past_the_limit_share_one() {
        let recorder = Recorder::default();
        for status in 0..3 * SERIES_MAX {
            recorder.add(&REQUESTS, &["url", &status.to_string()], 1);
        }
        let mut exposition = Exposition::default();
        recorder.expose(&mut exposition);
        let text = exposition.render();
        assert_eq!(text.lines().count(), 2 + SERIES_MAX + 1);
        let rest = format!("status=\"(other)\"}} {}\n", 2 * SERIES_MAX);
        assert!(text.contains(&rest), "{text}");
    }
}
