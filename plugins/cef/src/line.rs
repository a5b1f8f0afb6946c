//! Lines in CEF, version 0, and their escapes.
//!
//! By the rules of ArcSight's "Common Event Format Implementation Standard": in the header `|` and
//! `\` have a backslash before them, in values of the extension `=` and `\`. Line breaks are
//! written as `\n` and `\r` in values, and there are none in a header.

use std::fmt::Write as _;

/// A line that is being written.
pub struct Line {
    text: String,
    is_extended: bool,
}

impl Line {
    /// A line with its header. `severity`: 0 to 10.
    pub fn new(fields: [&str; 5], severity: u8) -> Line {
        let mut text = String::from("CEF:0");
        for field in fields {
            text.push('|');
            for char in field.chars() {
                match char {
                    '|' | '\\' => text.extend(['\\', char]),
                    '\n' | '\r' => text.push(' '),
                    _ => text.push(char),
                }
            }
        }
        // Writing to a text never fails.
        let _ = write!(text, "|{severity}|");
        Line {
            text,
            is_extended: false,
        }
    }

    /// Appends a value to the extension, unless it is empty.
    pub fn add(&mut self, key: &str, value: &str) {
        if value.is_empty() {
            return;
        }
        if std::mem::replace(&mut self.is_extended, true) {
            self.text.push(' ');
        }
        self.text.push_str(key);
        self.text.push('=');
        for char in value.chars() {
            match char {
                '=' | '\\' => self.text.extend(['\\', char]),
                '\n' => self.text.push_str("\\n"),
                '\r' => self.text.push_str("\\r"),
                _ => self.text.push(char),
            }
        }
    }

    /// Appends a custom value and its label, unless it is empty.
    pub fn add_labelled(&mut self, key: &str, label: &str, value: &str) {
        if !value.is_empty() {
            self.add(key, value);
            self.add(&format!("{key}Label"), label);
        }
    }

    pub fn finish(self) -> String {
        self.text
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Reads a line as a receiver does: the fields of the header, and the extension.
    fn parse(line: &str) -> (Vec<String>, Vec<(String, String)>) {
        let mut header = vec![String::new()];
        let mut chars = line.strip_prefix("CEF:0|").unwrap().chars();
        while header.len() <= 6 {
            match chars.next().unwrap() {
                '|' => header.push(String::new()),
                '\\' => header.last_mut().unwrap().push(chars.next().unwrap()),
                char => header.last_mut().unwrap().push(char),
            }
        }
        header.pop();
        // A key is a word before a `=` without a backslash.
        let rest = chars.as_str();
        let mut extension: Vec<(String, String)> = vec![];
        let mut value = String::new();
        let mut chars = rest.chars();
        while let Some(char) = chars.next() {
            match char {
                '\\' => value.push(match chars.next().unwrap() {
                    'n' => '\n',
                    'r' => '\r',
                    other => other,
                }),
                '=' => {
                    let (before, key) = value.rsplit_once(' ').unwrap_or(("", &value));
                    let key = key.to_owned();
                    if let Some((_, last)) = extension.last_mut() {
                        before.clone_into(last);
                    }
                    extension.push((key, String::new()));
                    value.clear();
                }
                _ => value.push(char),
            }
        }
        if let Some((_, last)) = extension.last_mut() {
            *last = value;
        }
        (header, extension)
    }

    #[test]
    fn what_has_a_meaning_in_cef_is_escaped() {
        let mut line = Line::new(["Ven|dor", "Pro\\duct", "1", "T1\n0", "a=b"], 3);
        line.add("msg", "a=b \\ c|d\r\ne");
        line.add("suser", "");
        line.add_labelled("cs1", "Session", "x");
        line.add_labelled("cs2", "Empty", "");
        assert_eq!(
            line.finish(),
            r"CEF:0|Ven\|dor|Pro\\duct|1|T1 0|a=b|3|msg=a\=b \\ c|d\r\ne cs1=x cs1Label=Session"
        );
    }

    proptest! {
        #[test]
        fn a_parser_gets_back_what_went_in(
            fields in prop::array::uniform5("(\\PC|[|=\\\\ nr]){0,12}"),
            severity in 0u8..11,
            values in prop::collection::vec("(\\PC|[|=\\\\ nr\n\r\t]| [a-z]{1,3}=){0,12}", 0..6),
        ) {
            let mut line = Line::new(fields.each_ref().map(String::as_str), severity);
            let mut expected = vec![];
            for (at, value) in values.into_iter().enumerate() {
                let key = format!("cs{at}");
                line.add(&key, &value);
                if !value.is_empty() {
                    expected.push((key, value));
                }
            }
            let line = line.finish();
            prop_assert!(!line.contains(['\n', '\r']));
            let (header, extension) = parse(&line);
            prop_assert_eq!(&header[..5], &fields[..]);
            prop_assert_eq!(&header[5], &severity.to_string());
            prop_assert_eq!(extension, expected);
        }
    }
}
