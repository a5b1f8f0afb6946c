//! Turns the errors of the TOML parser into issues.

use std::ops::Range;

use toml::de::Error;

use crate::document::Document;
use crate::issues::Issue;

/// Typographic quotes, into which editors and chat programs change `"` and `'`.
const TYPOGRAPHIC_QUOTES: [char; 8] = ['“', '”', '„', '‟', '‘', '’', '‚', '‛'];
const STRAIGHT_QUOTES: &str = "TOML needs straight quotes: `key = \"value\"`";

/// Whether the text was understood nevertheless, so that its other problems are real.
pub(crate) fn is_harmless(error: &Error) -> bool {
    error.message().starts_with("duplicate key")
}

/// At most one issue per line: further errors of the parser are mostly consequences of the first.
pub(crate) fn issues(document: &Document, errors: &[Error]) -> Vec<Issue> {
    let open_list = open_list(&document.text, errors).map(|open| (open, "list", "]"));
    let open_table = || open_table(&document.text, errors).map(|open| (open, "table", "}"));
    if let Some((open, kind, bracket)) = open_list.or_else(open_table) {
        // Everything after it was read as part of it.
        let is_before = |error: &&Error| error.span().is_some_and(|span| span.end <= open);
        let before: Vec<Error> = errors.iter().filter(is_before).cloned().collect();
        let mut issues = self::issues(document, &before);
        issues.push(Issue::new(
            open..open + 1,
            format!("This is not TOML: this {kind} is not closed."),
            "opened here",
            format!("close the {kind} with `{bracket}`"),
        ));
        return issues;
    }
    let mut issues: Vec<Issue> = Vec::new();
    let mut lines: Vec<usize> = Vec::new();
    // An open string swallows closing brackets, which the parser then misses: report the string.
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

/// The bracket of a list that was not closed before the next key or header: the parser misses a
/// comma at the beginning of that line.
fn open_list(text: &str, errors: &[Error]) -> Option<usize> {
    let at = line_of(text, errors, "missing comma between array elements")?;
    let line = text[at..].lines().next()?;
    let key = line.split_once('=').map(|(key, _)| key.trim());
    let is_key =
        key.is_some_and(|key| !key.is_empty() && !key.contains(['"', '\'', ',', '{', '[']));
    if !(is_key || is_header(line)) {
        return None;
    }
    let mut open = open_brackets(text, at);
    open.retain(|&(_, bracket)| bracket == '[');
    open.pop().map(|(index, _)| index)
}

/// The bracket of an inline table that was not closed before the next header or the end. Its
/// entries may stand on lines of their own, so that a key does not end it.
fn open_table(text: &str, errors: &[Error]) -> Option<usize> {
    let at = line_of(text, errors, "missing comma between key-value pairs")
        .or_else(|| line_of(text, errors, "missing key for inline table element"))?;
    let (open, bracket) = open_brackets(text, at).pop()?;
    let mut end = at;
    for line in text[at..].split_inclusive('\n') {
        if is_header(line) {
            break;
        }
        end += line.len();
    }
    let is_open = open_brackets(text, end).contains(&(open, bracket));
    (bracket == '{' && is_open).then_some(open)
}

/// Where the parser found this at the beginning of a line.
fn line_of(text: &str, errors: &[Error], message: &str) -> Option<usize> {
    let is_found = |error: &&Error| error.message().contains(message);
    let at = errors.iter().find(is_found)?.span()?.start;
    let before = text[..at].rsplit('\n').next()?;
    before.trim().is_empty().then_some(at)
}

/// Whether the line is that of a table, not an element of a list.
fn is_header(line: &str) -> bool {
    let name = line
        .trim_start_matches('[')
        .trim_end()
        .trim_end_matches(']');
    let is_bare = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let is_value = ["true", "false", "inf", "nan"].contains(&name);
    let is_name = name.contains(char::is_alphabetic) && !is_value;
    line.starts_with('[') && name.chars().all(is_bare) && is_name
}

/// The brackets of `text[..end]` that are not closed there.
fn open_brackets(text: &str, end: usize) -> Vec<(usize, char)> {
    let mut open = Vec::new();
    let mut quote = None;
    let mut characters = text[..end].char_indices();
    while let Some((index, character)) = characters.next() {
        match (quote, character) {
            (Some('"'), '\\') => _ = characters.next(),
            (Some('#'), '\n') => quote = None,
            (Some(opened), closed) if opened == closed => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'' | '#') => quote = Some(character),
            (None, '[' | '{') => open.push((index, character)),
            (None, ']' | '}') => _ = open.pop(),
            (None, _) => {}
        }
    }
    open
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
            format!("`{word}` is defined twice."),
            "duplicate",
            "keep one of them",
        );
    }
    // The parser reports a word without quotes as a broken number, date or boolean.
    let is_scalar = ["boolean", "integer", "float", "date", "time", "number"]
        .iter()
        .any(|kind| message.contains(&format!("invalid {kind}")));
    let rest = text[span.start..]
        .find('\n')
        .unwrap_or(text.len() - span.start);
    let line = text[..span.start + rest].trim_end();
    let (problem, hint) = if word.starts_with(TYPOGRAPHIC_QUOTES) {
        ("these quotes are typographic", STRAIGHT_QUOTES)
    } else if is_open_string(error) && line.ends_with(TYPOGRAPHIC_QUOTES) {
        ("this string ends with a typographic quote", STRAIGHT_QUOTES)
    } else if word.trim().is_empty() && message.contains("string values must be quoted") {
        ("there is no value", "write `key = \"value\"`")
    } else if is_scalar && word.starts_with(|c: char| c.is_alphabetic() || "/.:".contains(c)) {
        ("this string has no quotes", "write `key = \"value\"`")
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
        ("string values must be quoted", "write `key = \"value\"`"),
        ("invalid value", "strings are quoted: `key = \"value\"`"),
        ("missing value", "write `key = \"value\"`"),
        ("key with no value", "write `key = \"value\"`"),
        ("missing assignment", "write `key = \"value\"`"),
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
        ("missing comma", "separate the two with a comma"),
        (
            "invalid unquoted key",
            "keys are letters, digits, `-` and `_`; any other key must be quoted",
        ),
        ("max recursion depth", "nest tables and lists less deeply"),
        ("recursion limit", "nest tables and lists less deeply"),
    ];
    let found = hints.iter().find(|(start, _)| message.contains(start));
    found.map_or("see https://toml.io for the syntax", |(_, hint)| hint)
}

/// A span that can be underlined, even for an error at the very end of the text.
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
