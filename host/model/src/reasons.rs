use std::collections::HashMap;

use crate::ReasonIndex;

/// Most distinct reasons of one commit.
pub const REASONS_MAX: usize = 64;
/// Longest reason, in bytes.
pub const REASON_MAX: usize = 200;

/// The table of reasons of one commit. Reasons come from plugins, so it is bounded: a reason is cut
/// at [`REASON_MAX`], and those after the first [`REASONS_MAX`] share one line, `other reasons (N)`.
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

    pub fn texts(&self) -> Vec<String> {
        let mut texts = self.texts.clone();
        if self.others > 0 {
            texts.push(format!("other reasons ({})", self.others));
        }
        texts
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
        let texts = reasons.texts();
        assert_eq!(texts.len(), REASONS_MAX + 1);
        assert_eq!(texts[63], "reason 63");
        assert_eq!(texts[64], "other reasons (36)");
    }

    #[test]
    fn a_long_reason_is_cut_at_a_character() {
        let mut reasons = Reasons::default();
        reasons.index(&"é".repeat(150));
        reasons.index(&format!("a{}", "é".repeat(150)));
        let texts = reasons.texts();
        assert_eq!(texts[0], "é".repeat(100));
        assert_eq!(texts[1].len(), 199);
    }
}
