//! The reasons of a commit, in a table of limited size.

use std::borrow::Cow;
use std::collections::HashMap;

use crate::ReasonIndex;

/// Most distinct reasons of one commit.
pub const REASONS_MAX: usize = 64;
/// Longest reason, in bytes.
pub const REASON_MAX: usize = 200;

/// The table of reasons of one commit. Reasons come from plugins, so it is bounded: a reason is cut
/// at [`REASON_MAX`], and those after the first [`REASONS_MAX`] share one line,
/// `other reasons (N)`.
#[derive(Clone, Debug, Default)]
pub struct Reasons {
    texts: Vec<String>,
    known: HashMap<String, ReasonIndex>,
    /// Number of distinct reasons that share the last line.
    others: usize,
}

impl Reasons {
    /// The index of a reason in [`Commit::reasons`](crate::Commit).
    pub fn index(&mut self, text: &str) -> ReasonIndex {
        let text = cut(text, REASON_MAX);
        if let Some(&index) = self.known.get(text) {
            return index;
        }
        let index = self.texts.len().min(REASONS_MAX) as ReasonIndex;
        if self.texts.len() < REASONS_MAX {
            self.texts.push(text.to_owned());
        } else {
            self.others += 1;
        }
        self.known.insert(text.to_owned(), index);
        index
    }

    /// The text of an index.
    pub fn text(&self, index: ReasonIndex) -> Cow<'_, str> {
        match self.texts.get(usize::from(index)) {
            Some(text) => text.into(),
            None => format!("other reasons ({})", self.others).into(),
        }
    }
}

/// The longest prefix of at most `max` bytes that ends at a character.
fn cut(text: &str, max: usize) -> &str {
    &text[..text.floor_char_boundary(max)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_past_the_limit_share_a_line_that_counts_them() {
        let mut reasons = Reasons::default();
        for nth in 0..300 {
            let index = reasons.index(&format!("reason {}", nth % 100));
            assert_eq!(usize::from(index), (nth % 100).min(REASONS_MAX));
        }
        assert_eq!(reasons.text(63), "reason 63");
        assert_eq!(reasons.text(64), "other reasons (36)");
    }

    #[test]
    fn a_long_reason_is_cut_at_a_character() {
        let mut reasons = Reasons::default();
        reasons.index(&"é".repeat(150));
        reasons.index(&format!("a{}", "é".repeat(150)));
        assert_eq!(reasons.text(0), "é".repeat(100));
        assert_eq!(reasons.text(1).len(), 199);
    }
}
