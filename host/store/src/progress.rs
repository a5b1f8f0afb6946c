//! How a [`Progress`] stands in the database.

use lockgate_ledger::Progress;
use lockgate_model::Seq;

/// The done ranges: `[[5,9],[12,20]]`.
pub fn done_text(progress: &Progress) -> String {
    let pairs: Vec<String> = progress
        .done
        .iter()
        .map(|range| format!("[{},{}]", range.start, range.end))
        .collect();
    format!("[{}]", pairs.join(","))
}

/// `None` if the text is not what [`done_text`] writes, or breaks the order.
pub fn parse(stream: &str, begin: Seq, watermark: Seq, done: &str) -> Option<Progress> {
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_was_written_is_read(begin in 1u64..5, ranges in prop::collection::vec((1u64..60, 1u64..9), 0..40)) {
            let mut progress = Progress::new("s", begin);
            for (start, len) in ranges {
                if !progress.touches(&(start..start + len)) {
                    progress.finish(start..start + len);
                }
                let text = done_text(&progress);
                prop_assert_eq!(parse("s", begin, progress.watermark, &text), Some(progress.clone()));
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
            assert_eq!(parse("s", 1, 5, text), None, "{text}");
        }
        assert!(parse("s", 6, 5, "[]").is_none());
        assert!(parse("s", 1, 5, "[[7,9],[11,12]]").is_some());
    }
}
