//! Counters and observations of one stage's component.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use crate::limits::METRICS_MAX;

/// One metric of a component, since its stage was configured.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Measure {
    /// Times it was added to or observed.
    pub count: u64,
    /// Of all values.
    pub sum: f64,
}

#[derive(Debug, Default)]
pub(crate) struct Metrics {
    measures: Mutex<BTreeMap<String, Measure>>,
}

impl Metrics {
    /// False where the name is refused: malformed, or one more than a stage may have.
    pub(crate) fn add(&self, name: &str, value: f64) -> bool {
        let mut measures = self.measures.lock().unwrap_or_else(PoisonError::into_inner);
        if !measures.contains_key(name) {
            if measures.len() == METRICS_MAX || !is_name(name) {
                return false;
            }
            measures.insert(name.to_owned(), Measure::default());
        }
        if let Some(measure) = measures.get_mut(name).filter(|_| value.is_finite()) {
            measure.count += 1;
            measure.sum += value;
        }
        true
    }

    pub(crate) fn snapshot(&self) -> BTreeMap<String, Measure> {
        self.measures
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

fn is_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name.starts_with(|first: char| first.is_ascii_lowercase())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_few_and_plain() {
        let metrics = Metrics::default();
        assert!(
            metrics.add("hits", 2.0) && metrics.add("hits", 0.5) && metrics.add("hits", f64::NAN)
        );
        assert!(
            !metrics.add("", 1.0)
                && !metrics.add("Hits", 1.0)
                && !metrics.add("a b", 1.0)
                && !metrics.add("a\n", 1.0)
        );
        assert_eq!(
            metrics.snapshot(),
            BTreeMap::from([("hits".into(), Measure { count: 2, sum: 2.5 })])
        );
        let accepted = (0..100)
            .filter(|n| metrics.add(&format!("m{n}"), 1.0))
            .count();
        assert_eq!(accepted, METRICS_MAX - 1);
    }
}
