use std::collections::BTreeMap;

use lockgate_model::{Seq, SeqRange};

/// How far a pipeline is in a stream: everything below the watermark is final, and so are the done
/// ranges above it.
///
/// The store keeps the same, and saves it in the transaction of each commit. This copy decides what
/// may be dispatched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Progress {
    watermark: Seq,
    done: BTreeMap<Seq, Seq>,
}

impl Progress {
    pub(crate) fn new(watermark: Seq, done: impl IntoIterator<Item = SeqRange>) -> Progress {
        let mut progress = Progress {
            watermark,
            done: BTreeMap::new(),
        };
        for range in done {
            progress.finish(range);
        }
        progress
    }

    pub(crate) fn watermark(&self) -> Seq {
        self.watermark
    }

    pub(crate) fn finish(&mut self, range: SeqRange) {
        self.done.insert(range.start, range.end);
        while let Some(entry) = self.done.first_entry() {
            if *entry.key() > self.watermark {
                break;
            }
            let end = entry.remove();
            self.watermark = self.watermark.max(end);
        }
    }

    /// The first unfinished sequence at or above `from`, and where the next finished range begins
    /// (or `Seq::MAX`).
    pub(crate) fn gap(&self, from: Seq) -> SeqRange {
        let mut start = from.max(self.watermark);
        for (&first, &end) in &self.done {
            if first > start {
                return start..first;
            }
            start = start.max(end);
        }
        start..Seq::MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_watermark_moves_over_finished_ranges_only() {
        let mut progress = Progress::new(1, []);
        progress.finish(11..21);
        progress.finish(31..41);
        assert_eq!(progress.watermark(), 1);
        assert_eq!(progress.gap(1), 1..11);
        assert_eq!(progress.gap(11), 21..31);
        assert_eq!(progress.gap(35), 41..Seq::MAX);
        progress.finish(1..11);
        assert_eq!(progress.watermark(), 21);
        progress.finish(21..31);
        assert_eq!(progress.watermark(), 41);
        assert_eq!(progress.gap(1), 41..Seq::MAX);
    }

    #[test]
    fn done_ranges_found_in_the_store_are_not_dispatched_again() {
        let progress = Progress::new(5, [8..10, 5..6]);
        assert_eq!(progress.watermark(), 6);
        assert_eq!(progress.gap(6), 6..8);
        assert_eq!(progress.gap(8), 10..Seq::MAX);
    }
}
