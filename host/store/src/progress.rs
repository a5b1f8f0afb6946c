use lockgate_model::{Seq, SeqRange};

/// What [`Store::register`](crate::Store::register) answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    /// The pipeline's pass over its streams: give it in every commit.
    pub epoch: u32,
    /// The number of its configuration: give it in every commit.
    pub generation: u32,
    /// In the order asked for.
    pub streams: Vec<Progress>,
}

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
    pub(crate) fn new(stream: &str, begin: Seq) -> Progress {
        Progress {
            stream: stream.to_owned(),
            begin,
            watermark: begin,
            done: Vec::new(),
        }
    }

    /// True where any entry of the range has its outcome (or lies before the epoch).
    pub(crate) fn touches(&self, range: &SeqRange) -> bool {
        range.start < self.watermark
            || self
                .done
                .iter()
                .any(|done| done.start < range.end && range.start < done.end)
    }

    /// Marks a range done that [`touches`](Self::touches) nothing.
    pub(crate) fn finish(&mut self, range: SeqRange) {
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
    pub(crate) fn waiting(&self, head: Seq) -> Vec<SeqRange> {
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

    /// The done ranges as the database keeps them: `[[5,9],[12,20]]`.
    pub(crate) fn done_text(&self) -> String {
        let pairs: Vec<String> = self
            .done
            .iter()
            .map(|range| format!("[{},{}]", range.start, range.end))
            .collect();
        format!("[{}]", pairs.join(","))
    }

    /// `None` where the text is not what [`done_text`](Self::done_text) writes, or breaks the
    /// order.
    pub(crate) fn parse(stream: &str, begin: Seq, watermark: Seq, done: &str) -> Option<Progress> {
        let pairs: Vec<(Seq, Seq)> = serde_json::from_str(done).ok()?;
        let mut last = watermark;
        let mut ranges = Vec::with_capacity(pairs.len());
        for (start, end) in pairs {
            if start <= last || end <= start {
                return None;
            }
            last = end;
            ranges.push(start..end);
        }
        (begin <= watermark).then(|| Progress {
            stream: stream.to_owned(),
            begin,
            watermark,
            done: ranges,
        })
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
                let text = progress.done_text();
                prop_assert_eq!(Progress::parse("s", begin, progress.watermark, &text), Some(progress.clone()));
            }
        }
    }

    #[test]
    fn texts_that_break_the_order_are_refused() {
        for text in [
            "",
            "[[1,2]]",
            "[[9,9]]",
            "[[8,9],[9,10]]",
            "[[8,7]]",
            "[[8,9,10]]",
            "[[-8,9]]",
        ] {
            assert_eq!(Progress::parse("s", 1, 5, text), None, "{text}");
        }
        assert!(Progress::parse("s", 6, 5, "[]").is_none());
        assert!(Progress::parse("s", 1, 5, "[[7,9],[11,12]]").is_some());
    }
}
