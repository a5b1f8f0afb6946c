//! What the TOML parser says, in words for people.

use std::ops::Range;

use toml::de::Error;

use crate::document::Document;
use crate::report::Issue;

/// True where the text was understood all the same, so that its other problems are real.
pub(crate) fn is_harmless(error: &Error) -> bool {
    error.message().starts_with("duplicate key")
}

/// One issue a line: what the parser finds wrong after the first is mostly its own confusion.
pub(crate) fn issues(document: &Document, errors: &[Error]) -> Vec<Issue> {
    let mut issues: Vec<Issue> = Vec::new();
    let mut lines: Vec<usize> = Vec::new();
    // An open string swallows brackets, so that they are missed too: the string comes first.
    let (strings, others): (Vec<_>, Vec<_>) =
        errors.iter().partition(|error| is_open_string(error));
    for error in strings.into_iter().chain(others) {
        let issue = issue(&document.text, error);
        let line = document.position(issue.span.start).0;
        if !lines.contains(&line) {
            lines.push(line);
            issues.push(issue);
        }
    }
    issues
}

fn is_open_string(error: &Error) -> bool {
    error.message().starts_with("invalid") && error.message().contains("string, expected")
}

fn issue(text: &str, error: &Error) -> Issue {
    let message = error
        .message()
        .trim_end_matches(", expected nothing")
        .trim_end_matches(", expected literal string");
    let span = error.span().unwrap_or(text.len()..text.len());
    let word = text.get(span.clone()).unwrap_or_default();
    if is_harmless(error) {
        return Issue::new(
            span,
            format!("`{word}` stands here a second time."),
            "again",
            "keep one of them",
        );
    }
    // The parser takes a word without quotes for a broken number, date or boolean, and says so.
    let is_scalar = ["boolean", "integer", "float", "date", "time", "number"]
        .iter()
        .any(|kind| message.contains(&format!("invalid {kind}")));
    let (problem, hint) =
        if word.trim().is_empty() && message.contains("string values must be quoted") {
            ("there is no value", "key = \"value\"")
        } else if is_scalar && word.starts_with(|c: char| c.is_alphabetic() || "/.:".contains(c)) {
            ("this string has no quotes", "key = \"value\"")
        } else if is_open_string(error) {
            ("this string is not closed", hint(message))
        } else {
            (message, hint(message))
        };
    Issue::new(
        visible(text, span),
        format!("This is not TOML: {problem}."),
        "",
        hint,
    )
}

fn hint(message: &str) -> &'static str {
    let hints = [
        ("string values must be quoted", "key = \"value\""),
        ("invalid value", "strings stand in quotes: key = \"value\""),
        ("missing value", "key = \"value\""),
        ("key with no value", "key = \"value\""),
        ("missing assignment", "key = \"value\""),
        (
            "invalid multi-line",
            "close the string with the three quotes that opened it",
        ),
        (
            "invalid basic string",
            "close the string with `\"` on the same line",
        ),
        (
            "invalid literal string",
            "close the string with `'` on the same line",
        ),
        ("unclosed array table", "close the header with `]]`"),
        ("unclosed array", "close the list with `]`"),
        ("unclosed inline table", "close the table with `}`"),
        ("unclosed table", "close the header with `]`"),
        ("missing comma", "put a comma between the two"),
        (
            "invalid unquoted key",
            "keys are letters, digits, `-` and `_`; any other key stands in quotes",
        ),
        (
            "max recursion depth",
            "nest fewer tables and lists into each other",
        ),
        (
            "recursion limit",
            "nest fewer tables and lists into each other",
        ),
    ];
    let found = hints.iter().find(|(start, _)| message.contains(start));
    found.map_or("https://toml.io says how TOML is written", |(_, hint)| hint)
}

/// A place that can be underlined, for an error at the very end of the text.
fn visible(text: &str, span: Range<usize>) -> Range<usize> {
    let end = text.trim_end().len();
    if span.start < end || end == 0 {
        return span;
    }
    text[..end]
        .char_indices()
        .next_back()
        .map_or(0, |(start, _)| start)..end
}
