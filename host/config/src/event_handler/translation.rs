//! A configuration of ours, as text, that remembers where each of its lines comes from.

use std::ops::Range;
use std::path::Path;

/// The text, and the same without secrets.
#[derive(Default)]
pub(super) struct Translation {
    pub(super) text: String,
    pub(super) shown: String,
    /// Parts of `text`, and where they come from in the file of the Event Handler.
    pub(super) places: Vec<(Range<usize>, Range<usize>)>,
}

impl Translation {
    /// A line of our own.
    pub(super) fn line(&mut self, line: &str) {
        self.from(0..0, line);
    }

    pub(super) fn from(&mut self, origin: Range<usize>, line: &str) {
        self.secret(origin, line, line);
    }

    /// A line with a secret, and what is shown in its place.
    pub(super) fn secret(&mut self, origin: Range<usize>, line: &str, shown: &str) {
        let start = self.text.len();
        self.text.push_str(line);
        self.places.push((start..self.text.len(), origin));
        self.text.push('\n');
        self.shown.push_str(shown);
        self.shown.push('\n');
    }
}

/// A TOML string with this value, in a key in which references are replaced.
pub fn quoted(text: &str) -> String {
    plain(&text.replace("${", "$${"))
}

pub(super) fn quoted_path(path: &Path) -> String {
    quoted(&path.to_string_lossy())
}

/// A TOML array of strings.
pub(super) fn list(texts: &[String]) -> String {
    let texts: Vec<String> = texts.iter().map(|text| plain(text)).collect();
    format!("[{}]", texts.join(", "))
}

fn plain(text: &str) -> String {
    let mut quoted = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => quoted += &format!("\\u{:04X}", u32::from(c)),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use toml::de::DeTable;

    use super::*;
    use crate::substitution::{Piece, pieces};

    proptest! {
        #[test]
        fn what_is_quoted_is_read_as_it_was(text in r#"([$\{}"\\ a-z\n\t]|\PC){0,20}"#) {
            let line = format!("key = {}", quoted(&text));
            let table = DeTable::parse(&line).unwrap();
            let read = table.get_ref()["key"].get_ref().as_str().unwrap();
            let read: String = pieces(read).into_iter().map(|piece| match piece {
                Piece::Text(text) => text,
                other => panic!("a reference: {other:?}"),
            }).collect();
            prop_assert_eq!(read, text);
        }
    }
}
