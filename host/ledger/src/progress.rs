//! The progress of a pipeline in a stream.

use lockgate_model::{Seq, SeqRange};

/// How far a pipeline is in a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    pub stream: String,
    /// The first sequence that the epoch counts: the oldest event kept when it began.
    pub begin: Seq,
    /// Every entry below it (from `begin`) has its outcome; this one has not.
    pub watermark: Seq,
    /// Finished entries above the watermark: ascending, apart from each other.
    pub done: Vec<SeqRange>,
}

impl Progress {
    /// Of a pipeline that has finished nothing.
    pub fn new(stream: &str, begin: Seq) -> Progress {
        Progress {
            stream: stream.to_owned(),
            begin,
            watermark: begin,
            done: Vec::new(),
        }
    }

    /// True if any entry of the range has its outcome (or lies before the epoch).
    pub fn touches(&self, range: &SeqRange) -> bool {
        range.start < self.watermark
            || self
                .done
                .iter()
                .any(|done| done.start < range.end && range.start < done.end)
    }

    /// Marks a range done that [`touches`](Self::touches) nothing.
    pub fn finish(&mut self, range: SeqRange) {
        let at = self.done.partition_point(|done| done.start < range.start);
        self.done.insert(at, range);
        self.done.dedup_by(|next, kept| {
            let joined = kept.end == next.start;
            if joined {
                kept.end = next.end;
            }
            joined
        });
        if self.done[0].start == self.watermark {
            self.watermark = self.done.remove(0).end;
        }
    }

    /// The ranges below `head` without an outcome.
    pub fn waiting(&self, head: Seq) -> Vec<SeqRange> {
        let mut ranges = Vec::new();
        let mut start = self.watermark;
        for done in &self.done {
            ranges.push(start..done.start);
            start = done.end;
        }
        if start < head {
            ranges.push(start..head);
        }
        ranges
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn ranges_behave_like_a_set(begin in 1u64..5, ranges in prop::collection::vec((1u64..60, 1u64..9), 0..40)) {
            let mut progress = Progress::new("s", begin);
            let mut model = BTreeSet::new();
            for (start, len) in ranges {
                let range = start..start + len;
                let taken = start < begin || range.clone().any(|seq| model.contains(&seq));
                prop_assert_eq!(progress.touches(&range), taken);
                if !taken {
                    progress.finish(range.clone());
                    model.extend(range);
                }
                let waiting: Vec<u64> = progress.waiting(70).into_iter().flatten().collect();
                let expected: Vec<u64> = (begin..70).filter(|seq| !model.contains(seq)).collect();
                prop_assert_eq!(&waiting, &expected);
                prop_assert_eq!(progress.watermark, expected[0]);
            }
        }
    }
}
