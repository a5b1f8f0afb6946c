//! The order of times within a window.

use lockgate_model::Millis;

/// Checks that times do not run backwards within a window.
#[derive(Debug, Default)]
pub(super) struct TimeOrder {
    latest: Option<Millis>,
    credible: Option<Millis>,
    backwards: bool,
}

impl TimeOrder {
    /// True the first time that an event is older than one before it. `horizon`: the time of a
    /// later event is not credible.
    pub(super) fn note(&mut self, time: Millis, horizon: Millis) -> bool {
        if time <= horizon {
            self.credible = self.credible.max(Some(time));
        }
        let is_back = self.latest.is_some_and(|latest| time < latest);
        self.latest = self.latest.max(Some(time));
        is_back && !std::mem::replace(&mut self.backwards, true)
    }

    /// The time of the newest event so far.
    pub(super) fn latest(&self) -> Option<Millis> {
        self.latest
    }

    /// The time of the newest event so far whose time is credible.
    pub(super) fn credible(&self) -> Option<Millis> {
        self.credible
    }

    /// Whether all events came in order. Only then has everything before the newest been read.
    pub(super) fn is_kept(&self) -> bool {
        !self.backwards
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_times_are_in_order_and_going_backwards_is_reported_once() {
        let mut order = TimeOrder::default();
        assert!(![1, 2, 2, 5].into_iter().any(|time| order.note(time, 3)) && order.is_kept());
        assert_eq!(order.credible(), Some(2));
        assert_eq!(
            [4, 5, 3].map(|time| order.note(time, 9)),
            [true, false, false]
        );
        assert!(!order.is_kept());
        assert_eq!(order.latest(), Some(5));
    }
}
