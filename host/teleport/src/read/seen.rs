//! Suppresses events that were read before.

use std::collections::BTreeSet;

use lockgate_model::{KnownEvents, Millis};

/// Every event of a range of time that is in the store. They show which events of overlapping
/// windows and repeated pages are duplicates.
#[derive(Debug)]
pub(crate) struct Seen {
    known: BTreeSet<(Millis, u64)>,
    /// The range, both ends inclusive. Empty if `to < from`.
    from: Millis,
    to: Millis,
    max: usize,
    /// The new events since the last [`take_added`](Self::take_added).
    added: Vec<(Millis, u64)>,
}

impl Seen {
    /// An empty range.
    pub(crate) fn new(max: usize) -> Seen {
        Seen {
            known: BTreeSet::new(),
            from: Millis::MAX,
            to: Millis::MIN,
            max: max.max(1),
            added: Vec::new(),
        }
    }

    /// Those of one range.
    pub(crate) fn of(from: Millis, known: KnownEvents) -> Seen {
        Seen {
            known: known.events.into_iter().collect(),
            from,
            to: known.until,
            ..Seen::new(usize::MAX)
        }
    }

    /// Keeps the range if at most `max` events are in it.
    pub(crate) fn with_max(self, max: usize) -> Seen {
        Seen { max, ..self }
    }

    /// The end of the range, if it begins at or before `from`.
    pub(crate) fn end_from(&self, from: Millis) -> Option<Millis> {
        (self.from <= from && from <= self.to).then_some(self.to)
    }

    /// The last time up to which there are at most `max` events from `from` on, or all of one
    /// time.
    pub(crate) fn bound(&self, from: Millis, to: Millis, max: usize) -> Millis {
        match self.known.range((from, 0)..).nth(max) {
            Some(&(time, _)) if time > from => to.min(time - 1),
            Some(_) => from,
            None => to,
        }
    }

    /// Returns whether the event was new.
    pub(crate) fn insert(&mut self, time: Millis, hash: u64) -> bool {
        let is_new = self.known.insert((time, hash));
        if is_new {
            self.added.push((time, hash));
        }
        is_new
    }

    /// Takes note of events that another reader has stored.
    pub(crate) fn note(&mut self, stored: &[(Millis, u64)]) {
        let (from, to) = (self.from, self.to);
        let inside = stored.iter().filter(|(time, _)| (from..=to).contains(time));
        self.known.extend(inside);
    }

    pub(crate) fn take_added(&mut self) -> Vec<(Millis, u64)> {
        std::mem::take(&mut self.added)
    }

    /// Forgets events before `time`, which are not read again soon, if there are too many.
    pub(crate) fn forget_before(&mut self, time: Millis) {
        if self.known.len() > self.max && time > self.from {
            self.known = self.known.split_off(&(time, 0));
            self.from = time;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(from: Millis, until: Millis, times: &[Millis]) -> Seen {
        let known = KnownEvents {
            events: times.iter().map(|&time| (time, 7)).collect(),
            until,
            is_complete: true,
        };
        Seen::of(from, known)
    }

    #[test]
    fn an_event_is_new_once_and_forgotten_only_when_there_are_too_many() {
        let mut seen = Seen {
            max: 3,
            ..seen(10, 90, &[11, 12, 13])
        };
        assert!(!seen.insert(12, 7) && seen.end_from(10) == Some(90) && seen.end_from(9).is_none());
        seen.forget_before(13);
        assert!(!seen.insert(12, 7), "three fit");
        assert!(seen.insert(12, 8) && !seen.insert(12, 8));
        assert_eq!(seen.take_added(), [(12, 8)]);
        seen.forget_before(13);
        assert!(seen.end_from(12).is_none() && seen.end_from(13) == Some(90));
        seen.note(&[(9, 1), (14, 1), (91, 1)]);
        assert_eq!(seen.known, BTreeSet::from([(13, 7), (14, 1)]));
    }

    #[test]
    fn a_range_is_bounded_by_the_number_of_its_events_but_not_within_a_millisecond() {
        let seen = Seen {
            known: [(1, 1), (2, 1), (2, 2), (2, 3), (5, 1)].into(),
            ..seen(0, 90, &[])
        };
        for (from, max, end) in [
            (0, 9, 80),
            (0, 1, 1),
            (0, 3, 1),
            (0, 4, 4),
            (2, 1, 2),
            (3, 1, 80),
        ] {
            assert_eq!(seen.bound(from, 80, max), end, "{from} {max}");
        }
    }
}
