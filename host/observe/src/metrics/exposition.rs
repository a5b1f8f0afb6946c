//! Prometheus' text format.

use std::collections::BTreeMap;
use std::fmt::Write;

/// The answer to one scrape. Families and their series are sorted, so the same figures give the
/// same text.
///
/// The format: Prometheus, "Exposition formats", text-based format 0.0.4.
#[derive(Clone, Debug, Default)]
pub struct Exposition {
    families: BTreeMap<String, Family>,
}

#[derive(Clone, Debug)]
struct Family {
    kind: &'static str,
    help: String,
    series: BTreeMap<Vec<(String, String)>, Value>,
}

/// The figure of one series.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Only ever grows, until its process ends.
    Counter(u64),
    /// A counter of seconds.
    Seconds(f64),
    Gauge(f64),
    Histogram(Histogram),
}

/// Observations by size.
#[derive(Clone, Debug, PartialEq)]
pub struct Histogram {
    /// Upper bounds, ascending and finite.
    pub bounds: &'static [f64],
    /// Observations at or below the bound with the same index and above the one before it.
    pub buckets: Vec<u64>,
    /// All observations, also those above the last bound.
    pub count: u64,
    pub sum: f64,
}

impl Exposition {
    /// Adds one series, or replaces it. `name`: `[a-z][a-z0-9_]*`; of a counter it ends in
    /// `_total`. Labels in the order in which they are shown, with names like that of a family.
    ///
    /// Returns false, and leaves the series out, if the family has another kind.
    pub fn add(&mut self, name: &str, help: &str, labels: &[(&str, &str)], value: Value) -> bool {
        let kind = value.kind();
        let family = self.families.entry(name.to_owned());
        let family = family.or_insert_with(|| Family {
            kind,
            help: help.to_owned(),
            series: BTreeMap::new(),
        });
        if family.kind != kind {
            return false;
        }
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        family
            .series
            .insert(labels.iter().map(own).collect(), value);
        true
    }

    /// The text format.
    pub fn render(&self) -> String {
        let mut text = String::new();
        for (name, family) in &self.families {
            let help = family.help.replace('\\', "\\\\").replace('\n', "\\n");
            text += &format!("# HELP {name} {help}\n# TYPE {name} {}\n", family.kind);
            for (labels, value) in &family.series {
                value.render(&mut text, name, &rendered(labels));
            }
        }
        text
    }
}

// === impl Value ===

impl Value {
    fn kind(&self) -> &'static str {
        match self {
            Value::Counter(_) | Value::Seconds(_) => "counter",
            Value::Gauge(_) => "gauge",
            Value::Histogram(_) => "histogram",
        }
    }

    /// `labels`: `a="b",c="d"`, or nothing.
    fn render(&self, text: &mut String, name: &str, labels: &str) {
        let mut line = |suffix: &str, labels: &str, value: &str| {
            // Writing to a string cannot fail.
            let _ = match labels {
                "" => writeln!(text, "{name}{suffix} {value}"),
                _ => writeln!(text, "{name}{suffix}{{{labels}}} {value}"),
            };
        };
        match self {
            Value::Counter(count) => line("", labels, &count.to_string()),
            Value::Gauge(value) | Value::Seconds(value) => line("", labels, &number(*value)),
            Value::Histogram(histogram) => {
                let comma = if labels.is_empty() { "" } else { "," };
                let mut below = 0;
                for (bound, count) in histogram.bounds.iter().zip(&histogram.buckets) {
                    below += count;
                    let labels = format!("{labels}{comma}le=\"{}\"", number(*bound));
                    line("_bucket", &labels, &below.to_string());
                }
                let all = format!("{labels}{comma}le=\"+Inf\"");
                line("_bucket", &all, &histogram.count.to_string());
                line("_sum", labels, &number(histogram.sum));
                line("_count", labels, &histogram.count.to_string());
            }
        }
    }
}

fn rendered(labels: &[(String, String)]) -> String {
    let label = |(name, value): &(String, String)| {
        let value = value
            .replace('\\', "\\\\")
            .replace('"', "\\\"")
            .replace('\n', "\\n");
        format!("{name}=\"{value}\"")
    };
    labels.iter().map(label).collect::<Vec<_>>().join(",")
}

/// As Go's `ParseFloat` reads it.
fn number(value: f64) -> String {
    if value == f64::INFINITY {
        "+Inf".to_owned()
    } else if value == f64::NEG_INFINITY {
        "-Inf".to_owned()
    } else {
        value.to_string()
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn families_are_written_as_prometheus_reads_them() {
        let mut exposition = Exposition::default();
        fn add(exposition: &mut Exposition, name: &str, labels: &[(&str, &str)], value: Value) {
            assert!(exposition.add(name, "What \\ is\ncounted.", labels, value));
        }
        let odd = [("pipeline", "siem"), ("path", "a\\b\"c\nd")];
        add(&mut exposition, "b_total", &odd, Value::Counter(u64::MAX));
        add(
            &mut exposition,
            "b_total",
            &[("pipeline", "a")],
            Value::Counter(1),
        );
        add(&mut exposition, "a", &[], Value::Gauge(0.5));
        for (nth, value) in [f64::INFINITY, f64::NEG_INFINITY, f64::NAN, 1e6]
            .iter()
            .enumerate()
        {
            let nth = nth.to_string();
            add(&mut exposition, "d", &[("nth", &nth)], Value::Gauge(*value));
        }
        let histogram = || {
            Value::Histogram(Histogram {
                bounds: &[0.001, 2.5, 1e6],
                buckets: vec![1, 0, 2],
                count: 4,
                sum: 1.25,
            })
        };
        add(&mut exposition, "c", &[("stage", "1")], histogram());
        add(&mut exposition, "e", &[], histogram());
        expect![[r#"
            # HELP a What \\ is\ncounted.
            # TYPE a gauge
            a 0.5
            # HELP b_total What \\ is\ncounted.
            # TYPE b_total counter
            b_total{pipeline="a"} 1
            b_total{pipeline="siem",path="a\\b\"c\nd"} 18446744073709551615
            # HELP c What \\ is\ncounted.
            # TYPE c histogram
            c_bucket{stage="1",le="0.001"} 1
            c_bucket{stage="1",le="2.5"} 1
            c_bucket{stage="1",le="1000000"} 3
            c_bucket{stage="1",le="+Inf"} 4
            c_sum{stage="1"} 1.25
            c_count{stage="1"} 4
            # HELP d What \\ is\ncounted.
            # TYPE d gauge
            d{nth="0"} +Inf
            d{nth="1"} -Inf
            d{nth="2"} NaN
            d{nth="3"} 1000000
            # HELP e What \\ is\ncounted.
            # TYPE e histogram
            e_bucket{le="0.001"} 1
            e_bucket{le="2.5"} 1
            e_bucket{le="1000000"} 3
            e_bucket{le="+Inf"} 4
            e_sum 1.25
            e_count 4
        "#]]
        .assert_eq(&exposition.render());
    }

    #[test]
    fn a_family_has_one_kind_and_a_series_one_value() {
        let mut exposition = Exposition::default();
        assert!(exposition.add("a", "A.", &[], Value::Gauge(1.0)));
        assert!(!exposition.add("a", "A.", &[("x", "y")], Value::Counter(1)));
        assert!(exposition.add("a", "A.", &[], Value::Gauge(2.0)));
        assert_eq!(exposition.render(), "# HELP a A.\n# TYPE a gauge\na 2\n");
    }
}
