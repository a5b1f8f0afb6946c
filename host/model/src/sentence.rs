//! Errors of libraries as sentences.

/// An error as a sentence: with a capital letter, and with a full stop unless it has several lines.
/// Errors begin with a small letter and have no full stop, so that others can quote them.
pub fn sentence(error: &str) -> String {
    let mut chars = error.chars();
    let mut text: String = match chars.next() {
        Some(first) => first.to_uppercase().chain(chars).collect(),
        None => return String::new(),
    };
    let is_complete = text.ends_with(['.', '!', '?', ':', '…']);
    if !is_complete && !text.contains('\n') {
        text.push('.');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_become_sentences() {
        for (error, expected) in [
            ("", ""),
            ("the store is closed", "The store is closed."),
            ("`x` is damaged: no end", "`x` is damaged: no end."),
            ("Which dead letters?", "Which dead letters?"),
            ("This is one.", "This is one."),
            (
                "the store is damaged:\n  block 1",
                "The store is damaged:\n  block 1",
            ),
        ] {
            assert_eq!(sentence(error), expected);
        }
    }
}
