//! The finished entries of a stream: the watermark and the done ranges.

use std::collections::BTreeMap;

use lockgate_model::{Seq, SeqRange};

/// How far a pipeline is in a stream: everything below the watermark is final, and so are the done
/// ranges above it.
///
/// The store keeps the same, and saves it in the transaction of each commit. This copy decides what
/// may be dispatched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FinishedEntries {
    watermark: Seq,
    done: BTreeMap<Seq, Seq>,
}

impl FinishedEntries {
    pub(crate) fn new(watermark: Seq, done: impl IntoIterator<Item = SeqRange>) -> FinishedEntries {
        let mut finished = FinishedEntries {
            watermark,
            done: BTreeMap::new(),
        };
        for range in done {
            finished.finish(range);
        }
        finished
    }

    pub(crate) fn watermark(&self) -> Seq {
        self.watermark
    }

    /// Marks a range finished, no entry of which is.
    pub(crate) fn finish(&mut self, range: SeqRange) {
        let mut range = range;
        if let Some(end) = self.done.remove(&range.end) {
            range.end = end;
        }
        if range.start <= self.watermark {
            self.watermark = self.watermark.max(range.end);
            return;
        }
        match self.done.range_mut(..range.start).next_back() {
            Some((_, end)) if *end == range.start => *end = range.end,
            _ => {
                self.done.insert(range.start, range.end);
            }
        }
    }

    /// The unfinished ranges at or above `from`. The last one ends at `Seq::MAX`.
    pub(crate) fn unfinished(&self, from: Seq) -> impl Iterator<Item = SeqRange> {
        let from = from.max(self.watermark);
        let covering = self.done.range(..=from).next_back();
        let start = covering.map_or(from, |(_, &end)| from.max(end));
        let mut done = self.done.range(start..);
        let mut next = Some(start);
        std::iter::from_fn(move || {
            let start = next.take()?;
            let Some((&first, &end)) = done.next() else {
                return Some(start..Seq::MAX);
            };
            next = Some(end);
            Some(start..first)
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_watermark_moves_over_finished_ranges_only() {
        let open_end = 41..Seq::MAX;
        let ranges = |entries: &FinishedEntries, from| entries.unfinished(from).collect::<Vec<_>>();
        let mut entries = FinishedEntries::new(1, []);
        entries.finish(11..21);
        entries.finish(31..41);
        assert_eq!(entries.watermark(), 1);
        assert_eq!(ranges(&entries, 1), [1..11, 21..31, open_end.clone()]);
        assert_eq!(ranges(&entries, 11), [21..31, open_end.clone()]);
        assert_eq!(ranges(&entries, 35), vec![open_end.clone()]);
        entries.finish(1..11);
        assert_eq!(entries.watermark(), 21);
        entries.finish(21..31);
        assert_eq!(entries.watermark(), 41);
        assert_eq!(ranges(&entries, 1), vec![open_end]);
    }

    #[test]
    fn done_ranges_found_in_the_store_are_not_dispatched_again() {
        let entries = FinishedEntries::new(5, [8..10, 5..6]);
        assert_eq!(entries.watermark(), 6);
        let ranges: Vec<_> = entries.unfinished(6).collect();
        assert_eq!(ranges, [6..8, 10..Seq::MAX]);
    }

    proptest! {
        #[test]
        fn unfinished_ranges_are_what_a_set_of_finished_entries_leaves(
            ranges in prop::collection::vec((1u64..60, 1u64..9), 0..40),
            from in 0u64..70,
        ) {
            let mut entries = FinishedEntries::new(1, []);
            let mut finished = std::collections::BTreeSet::new();
            for (start, len) in ranges {
                if (start..start + len).all(|seq| !finished.contains(&seq)) {
                    finished.extend(start..start + len);
                    entries.finish(start..start + len);
                }
            }
            let unfinished: Vec<Seq> = (from.max(1)..100).filter(|seq| !finished.contains(seq)).collect();
            let ranges: Vec<SeqRange> = entries.unfinished(from).collect();
            prop_assert!(ranges.iter().all(|range| !range.is_empty()));
            let found: Vec<Seq> = ranges.into_iter().flat_map(|range| range.start..range.end.min(100)).collect();
            prop_assert_eq!(found, unfinished);
            prop_assert_eq!(entries.watermark(), (1..).find(|seq| !finished.contains(seq)).unwrap());
        }
    }
}
