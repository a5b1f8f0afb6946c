//! Counters and histograms of one stage's component.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::mem::discriminant;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::limits::{METRICS_MAX, REFUSALS_COUNTED, REFUSALS_LOGGED};

/// Upper bounds of a histogram's buckets, three per decade. The range is wide, because the host
/// does not know the unit.
pub const BUCKETS: [f64; 28] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0,
    100.0, 250.0, 500.0, 1e3, 2.5e3, 5e3, 1e4, 2.5e4, 5e4, 1e5, 2.5e5, 5e5, 1e6,
];

/// A component's metrics by name, since its stage was configured.
pub type Snapshot = BTreeMap<String, Metric>;

/// The value of one metric of a component.
#[derive(Clone, Debug, PartialEq)]
#[allow(
    clippy::large_enum_variant,
    reason = "a stage has few metrics, and they live as long as the stage"
)]
pub enum Metric {
    Counter(u64),
    Histogram(Histogram),
}

/// Observations of a component. All of them, and their sum, are finite.
#[derive(Clone, Debug, PartialEq)]
pub struct Histogram {
    pub count: u64,
    pub sum: f64,
    /// Observations at or below the bound of [`BUCKETS`] with the same index, and above the one
    /// before it. Observations above the last bound are only in `count`.
    pub buckets: [u64; BUCKETS.len()],
}

/// Why a component's metric was not counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum MetricError {
    Name,
    TooMany,
    OtherKind,
    Infinite,
}

/// The metrics of a stage, over all its calls.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    metrics: Mutex<Snapshot>,
}

/// What one call has counted. It is added to that of its stage when the call ends: one that is made
/// again would count twice.
#[derive(Debug, Default)]
pub(crate) struct CallMetrics {
    counted: Snapshot,
    /// Of these: names that the stage did not have.
    new: usize,
}

impl CallMetrics {
    pub(crate) fn add(
        &mut self,
        stage: &Metrics,
        name: &str,
        value: u32,
    ) -> Result<(), MetricError> {
        self.with(
            stage,
            name,
            || Metric::Counter(0),
            |metric| metric.add(Metric::Counter(value.into())),
        )
    }

    pub(crate) fn observe(
        &mut self,
        stage: &Metrics,
        name: &str,
        value: f64,
    ) -> Result<(), MetricError> {
        if !value.is_finite() {
            return Err(MetricError::Infinite);
        }
        let empty = || Metric::Histogram(Histogram::default());
        self.with(stage, name, empty, |metric| match metric {
            Metric::Histogram(histogram) => histogram.observe(value),
            Metric::Counter(_) => Err(MetricError::OtherKind),
        })
    }

    /// The call is made again.
    pub(crate) fn discard(&mut self) {
        *self = CallMetrics::default();
    }

    fn with(
        &mut self,
        stage: &Metrics,
        name: &str,
        new: impl FnOnce() -> Metric,
        change: impl FnOnce(&mut Metric) -> Result<(), MetricError>,
    ) -> Result<(), MetricError> {
        if let Some(metric) = self.counted.get_mut(name) {
            return change(metric);
        }
        let mut metric = new();
        {
            let known = stage.lock();
            match known.get(name) {
                Some(known) if discriminant(known) == discriminant(&metric) => {}
                Some(_) => return Err(MetricError::OtherKind),
                None if !is_name(name) => return Err(MetricError::Name),
                None if known.len() + self.new >= METRICS_MAX => return Err(MetricError::TooMany),
                None => self.new += 1,
            }
        }
        change(&mut metric)?;
        self.counted.insert(name.to_owned(), metric);
        Ok(())
    }
}

impl Metrics {
    /// Adds what a call has counted. Returns what cannot be added: another call has been faster, or
    /// a sum would be infinite.
    pub(crate) fn count(&self, call: &mut CallMetrics) -> Vec<(String, MetricError)> {
        let mut refused = Vec::new();
        if call.counted.is_empty() {
            return refused;
        }
        let mut metrics = self.lock();
        for (name, counted) in std::mem::take(call).counted {
            let is_full = metrics.len() == METRICS_MAX;
            let added = match metrics.get_mut(&name) {
                Some(metric) => metric.add(counted),
                None if is_full => Err(MetricError::TooMany),
                None => {
                    metrics.insert(name, counted);
                    continue;
                }
            };
            if let Err(error) = added {
                refused.push((name, error));
            }
        }
        refused
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Snapshot> {
        self.metrics.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Metric {
    fn add(&mut self, other: Metric) -> Result<(), MetricError> {
        match (self, other) {
            (Metric::Counter(sum), Metric::Counter(value)) => {
                *sum = sum.saturating_add(value);
                Ok(())
            }
            (Metric::Histogram(all), Metric::Histogram(other)) => all.add(&other),
            _ => Err(MetricError::OtherKind),
        }
    }
}

impl Histogram {
    fn observe(&mut self, value: f64) -> Result<(), MetricError> {
        let sum = self.sum + value;
        if !sum.is_finite() {
            return Err(MetricError::Infinite);
        }
        self.count += 1;
        self.sum = sum;
        let bucket = BUCKETS.partition_point(|&bound| bound < value);
        if let Some(bucket) = self.buckets.get_mut(bucket) {
            *bucket += 1;
        }
        Ok(())
    }

    fn add(&mut self, other: &Histogram) -> Result<(), MetricError> {
        let sum = self.sum + other.sum;
        if !sum.is_finite() {
            return Err(MetricError::Infinite);
        }
        self.count += other.count;
        self.sum = sum;
        for (all, other) in self.buckets.iter_mut().zip(other.buckets) {
            *all += other;
        }
        Ok(())
    }
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram {
            count: 0,
            sum: 0.0,
            buckets: [0; BUCKETS.len()],
        }
    }
}

/// What was refused of a stage, so that each name is logged once per kind of problem.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    refused: Mutex<Refused>,
}

#[derive(Debug, Default)]
struct Refused {
    /// Hashes of names and problems: names may be long.
    seen: BTreeSet<u64>,
    /// More than [`METRICS_MAX`].
    too_many: bool,
}

impl Refusals {
    /// The line to log for a refused metric, unless it has been logged or enough others have.
    pub(crate) fn line(&self, name: &str, error: MetricError) -> Option<String> {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        if error == MetricError::TooMany {
            let was_logged = std::mem::replace(&mut refused.too_many, true);
            let name = || crate::log::line(name);
            return (!was_logged).then(|| {
                format!(
                    "a stage has at most {METRICS_MAX} metrics: `{}` and other further ones are refused (logged once)",
                    name()
                )
            });
        }
        let mut hasher = DefaultHasher::new();
        (name, error).hash(&mut hasher);
        if refused.seen.len() == REFUSALS_COUNTED || !refused.seen.insert(hasher.finish()) {
            return None;
        }
        let more = match refused.seen.len() {
            ..REFUSALS_LOGGED => "",
            REFUSALS_LOGGED => "; further refused metrics are only counted",
            _ => return None,
        };
        let name = crate::log::line(name);
        Some(format!(
            "the metric `{name}` is refused: {error} (logged once{more})"
        ))
    }

    /// The last line, for those that [`Refusals::line`] left out.
    pub(crate) fn rest(&self) -> Option<String> {
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let count = refused.seen.len();
        let at_least = if count == REFUSALS_COUNTED {
            "at least "
        } else {
            ""
        };
        match count.saturating_sub(REFUSALS_LOGGED) {
            0 => None,
            1 => Some("1 further refused metric is not shown".to_owned()),
            rest => Some(format!(
                "{at_least}{rest} further refused metrics are not shown"
            )),
        }
    }
}

impl fmt::Display for MetricError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MetricError::Name => f.write_str(
                "a name is `[a-z][a-z0-9_]*`, at most 64 bytes, and does not end in `_total`, \
                 `_count`, `_sum` or `_bucket`",
            ),
            MetricError::TooMany => write!(f, "a stage has at most {METRICS_MAX}"),
            MetricError::Infinite => f.write_str("values and their sum must be finite"),
            MetricError::OtherKind => f.write_str("it is a counter or a histogram, not both"),
        }
    }
}

/// Suffixes that the exposition format adds to names. With one of them, a name would stand for
/// another's family, and readers would refuse the whole text.
const RESERVED_SUFFIXES: [&str; 4] = ["_total", "_count", "_sum", "_bucket"];

fn is_name(name: &str) -> bool {
    let is_reserved = RESERVED_SUFFIXES
        .iter()
        .any(|suffix| name.ends_with(suffix));
    !is_reserved
        && (1..=64).contains(&name.len())
        && name.starts_with(|first: char| first.is_ascii_lowercase())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_add_up_and_histograms_sort_observations_into_buckets() {
        let metrics = Metrics::default();
        let mut call = CallMetrics::default();
        for value in [2, 3] {
            assert_eq!(call.add(&metrics, "hits", value), Ok(()));
        }
        for value in [0.0, 0.001] {
            call.observe(&metrics, "seconds", value).unwrap();
        }
        assert!(metrics.snapshot().is_empty(), "the call has not ended");
        assert_eq!(metrics.count(&mut call), []);
        call.add(&metrics, "hits", 1).unwrap();
        for value in [0.3, 7e9] {
            call.observe(&metrics, "seconds", value).unwrap();
        }
        assert_eq!(metrics.count(&mut call), []);
        let snapshot = metrics.snapshot();
        assert_eq!(snapshot["hits"], Metric::Counter(6));
        let Metric::Histogram(seconds) = &snapshot["seconds"] else {
            panic!("a histogram")
        };
        assert_eq!((seconds.count, seconds.sum.round()), (4, 7e9));
        assert_eq!((seconds.buckets[0], seconds.buckets[8]), (2, 1));
        assert_eq!(seconds.buckets.iter().sum::<u64>(), 3);
    }

    #[test]
    fn a_call_that_is_made_again_leaves_no_trace() {
        let metrics = Metrics::default();
        let mut call = CallMetrics::default();
        for discarded in [true, false] {
            for n in 0..METRICS_MAX {
                call.add(&metrics, &format!("m{n}"), 1).unwrap();
            }
            if discarded {
                call.discard();
            }
        }
        assert_eq!(metrics.count(&mut call), []);
        let snapshot = metrics.snapshot();
        assert_eq!(snapshot.len(), METRICS_MAX);
        assert!(snapshot.values().all(|sum| *sum == Metric::Counter(1)));
    }

    #[test]
    fn values_that_are_not_finite_leave_no_trace() {
        let metrics = Metrics::default();
        let mut call = CallMetrics::default();
        for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let observed = call.observe(&metrics, "size", value);
            assert_eq!(observed, Err(MetricError::Infinite));
        }
        metrics.count(&mut call);
        assert!(metrics.snapshot().is_empty());
        call.observe(&metrics, "size", f64::MAX).unwrap();
        assert_eq!(
            call.observe(&metrics, "size", f64::MAX),
            Err(MetricError::Infinite)
        );
        assert_eq!(metrics.count(&mut call), []);
        let before = metrics.snapshot();
        call.observe(&metrics, "size", f64::MAX).unwrap();
        let refused = [("size".to_owned(), MetricError::Infinite)];
        assert_eq!(metrics.count(&mut call), refused);
        assert_eq!(metrics.snapshot(), before);
    }

    #[test]
    fn metric_names_are_limited_and_have_one_kind() {
        let metrics = Metrics::default();
        let mut call = CallMetrics::default();
        for name in [
            "",
            "Hits",
            "a b",
            "a\n",
            "foo_count",
            "foo_sum",
            "a_bucket",
            "a_total",
        ] {
            let added = call.add(&metrics, name, 1);
            assert_eq!(added, Err(MetricError::Name), "{name:?}");
        }
        call.add(&metrics, "hits", 1).unwrap();
        for _ in 0..2 {
            let observed = call.observe(&metrics, "hits", 1.0);
            assert_eq!(observed, Err(MetricError::OtherKind));
            metrics.count(&mut call);
        }
        let accepted = (0..100)
            .filter(|n| call.add(&metrics, &format!("m{n}"), 1).is_ok())
            .count();
        assert_eq!(accepted, METRICS_MAX - 1);
        for _ in 0..2 {
            let observed = call.observe(&metrics, "one_more", 1.0);
            assert_eq!(observed, Err(MetricError::TooMany));
            assert_eq!(call.add(&metrics, "hits", 1), Ok(()), "a known one");
            assert_eq!(metrics.count(&mut call), []);
        }
    }

    /// Both were within the limits when they counted.
    #[test]
    fn of_two_calls_at_once_the_first_that_ends_decides() {
        let metrics = Metrics::default();
        let [mut first, mut second] = [CallMetrics::default(), CallMetrics::default()];
        first.add(&metrics, "size", 1).unwrap();
        second.observe(&metrics, "size", 1.0).unwrap();
        for n in 1..METRICS_MAX {
            first.add(&metrics, &format!("m{n}"), 1).unwrap();
        }
        second.add(&metrics, "one_more", 1).unwrap();
        assert_eq!(metrics.count(&mut first), []);
        let before = metrics.snapshot();
        let refused = [
            ("one_more".to_owned(), MetricError::TooMany),
            ("size".to_owned(), MetricError::OtherKind),
        ];
        assert_eq!(metrics.count(&mut second), refused);
        assert_eq!(metrics.snapshot(), before);
    }

    #[test]
    fn each_refused_name_is_logged_once_per_problem_and_the_rest_is_counted() {
        let refusals = Refusals::default();
        let line = |name: &str, error| refusals.line(name, error);
        let first = line("a b", MetricError::Name).expect("a line");
        assert!(
            first.starts_with("the metric `a b` is refused: a name is ")
                && first.ends_with("(logged once)"),
            "{first}"
        );
        assert_eq!(line("a b", MetricError::Name), None);
        assert!(line("a b", MetricError::Infinite).is_some());
        assert!(line("hits", MetricError::Infinite).is_some());
        // Not one of the 16.
        assert_eq!(
            line("m64", MetricError::TooMany).as_deref(),
            Some(
                "a stage has at most 64 metrics: `m64` and other further ones are refused (logged once)"
            )
        );
        assert_eq!(line("m65", MetricError::TooMany), None);
        let mut last = None;
        for n in 3..16 {
            assert_eq!(refusals.rest(), None);
            last = line(&format!("x{n}!"), MetricError::Name);
        }
        let last = last.expect("a line");
        assert!(
            last.ends_with("(logged once; further refused metrics are only counted)"),
            "{last}"
        );
        for (n, rest) in [
            (16, "1 further refused metric is not shown"),
            (17, "2 further refused metrics are not shown"),
        ] {
            for _ in 0..2 {
                assert_eq!(line(&format!("x{n}!"), MetricError::Name), None);
            }
            assert_eq!(refusals.rest().as_deref(), Some(rest));
        }
        for n in 0..10_000 {
            assert_eq!(line(&format!("y{n}!"), MetricError::Name), None);
        }
        assert_eq!(
            refusals.rest().as_deref(),
            Some("at least 1008 further refused metrics are not shown")
        );
    }
}
