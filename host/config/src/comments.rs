//! Finds the comments of a TOML text, which the parser does not report.

use std::ops::Range;

const QUOTES: [&str; 4] = ["\"\"\"", "'''", "\"", "'"];

/// The spans of the comments of a valid TOML text, with their `#`.
pub(crate) fn comments(text: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    // The quotes of the string that `at` is in.
    let mut open = "";
    let mut at = 0;
    while let Some(next) = text[at..].chars().next() {
        let rest = &text[at..];
        if open.is_empty() && next == '#' {
            let end = rest.find('\n').map_or(text.len(), |newline| at + newline);
            found.push(at..end);
            at = end;
        } else if open.is_empty() {
            open = QUOTES
                .into_iter()
                .find(|quotes| rest.starts_with(quotes))
                .unwrap_or_default();
            at += if open.is_empty() {
                next.len_utf8()
            } else {
                open.len()
            };
        } else if next == '\\' && open.starts_with('"') {
            at += 1 + rest[1..].chars().next().map_or(0, char::len_utf8);
        } else if rest.starts_with(open) {
            at += open.len();
            // Up to two more quotes belong to a string in three quotes.
            while open.len() == 3 && text[at..].starts_with(&open[..1]) {
                at += 1;
            }
            open = "";
        } else {
            at += next.len_utf8();
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::comments;

    #[test]
    fn comments_are_distinguished_from_strings() {
        let text = r##"
# a
b = "#\"#" # b
c = '#\' # c
d = """
# "#\"""""" # d
e = '''#''''' # e
"#" = "" # f"##;
        let found: Vec<&str> = comments(text)
            .into_iter()
            .map(|range| &text[range])
            .collect();
        assert_eq!(found, ["# a", "# b", "# c", "# d", "# e", "# f"]);
    }
}
