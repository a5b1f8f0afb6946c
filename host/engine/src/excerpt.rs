//! What an answer says, for people: one line.

use lockgate_model::request::Response;

use crate::limits::{EXCERPT_MAX, EXCERPT_OF};

/// Of a page: a title may follow scripts and styles.
const PAGE_READ: usize = 16 * 1024;

/// Elements whose content is no text of the page.
const NO_TEXT: [&str; 4] = ["script", "style", "svg", "template"];
/// Elements within a line.
const INLINE: [&str; 14] = [
    "a", "abbr", "b", "code", "em", "font", "i", "kbd", "mark", "small", "span", "strong", "tt",
    "u",
];
/// Names of characters that pages of errors use.
const NAMED: [(&str, char); 14] = [
    ("amp", '&'),
    ("lt", '<'),
    ("gt", '>'),
    ("quot", '"'),
    ("apos", '\''),
    ("nbsp", ' '),
    ("ndash", '–'),
    ("mdash", '—'),
    ("hellip", '…'),
    ("laquo", '«'),
    ("raquo", '»'),
    ("lsquo", '‘'),
    ("rsquo", '’'),
    ("copy", '©'),
];

/// The first line of an answer's body; of a page in HTML its title, or its first line of text.
pub(crate) fn excerpt(response: &Response) -> String {
    let read = |most| String::from_utf8_lossy(&response.body[..response.body.len().min(most)]);
    let line = match is_page(response) {
        true => line_of_page(&read(PAGE_READ)),
        false => read(EXCERPT_OF).trim().lines().next().map(str::to_owned),
    };
    let line = line.unwrap_or_default();
    lockgate_model::escape(line.trim_end(), EXCERPT_MAX).into_owned()
}

fn is_page(response: &Response) -> bool {
    let mut headers = response.headers.iter();
    let is_html = |value: &str| {
        let value = value.trim_start().to_ascii_lowercase();
        ["text/html", "application/xhtml"]
            .iter()
            .any(|kind| value.starts_with(kind))
    };
    let is_named =
        headers.any(|(name, value)| name.eq_ignore_ascii_case("content-type") && is_html(value));
    let start = String::from_utf8_lossy(&response.body[..response.body.len().min(256)]);
    let start = start
        .trim_start_matches('\u{feff}')
        .trim_start()
        .to_ascii_lowercase();
    is_named && start.starts_with('<')
        || ["<!doctype html", "<html", "<head", "<body", "<title"]
            .iter()
            .any(|tag| start.starts_with(tag))
}

/// A part of a page.
enum Piece<'a> {
    Text(&'a str),
    /// A tag by its name, in lower case.
    Opened(String),
    Closed(String),
}

fn line_of_page(page: &str) -> Option<String> {
    let (mut title, mut in_title) = (String::new(), false);
    let (mut lines, mut line) = (Vec::new(), String::new());
    for piece in pieces(page.trim_start_matches('\u{feff}')) {
        match piece {
            Piece::Text(text) if in_title => title.push_str(text),
            Piece::Text(text) => line.push_str(text),
            Piece::Opened(name) if name == "title" => in_title = true,
            Piece::Closed(name) if name == "title" => in_title = false,
            Piece::Opened(name) | Piece::Closed(name) => {
                if !INLINE.contains(&name.as_str()) {
                    lines.push(std::mem::take(&mut line));
                }
            }
        }
    }
    lines.push(line);
    let lines = std::iter::once(title).chain(lines);
    let mut lines = lines.map(|line| decoded(&line));
    lines.find(|line| !line.is_empty())
}

fn pieces(page: &str) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let mut rest = page;
    while !rest.is_empty() {
        let Some(at) = rest.find('<') else {
            pieces.push(Piece::Text(rest));
            break;
        };
        let (text, tag) = rest.split_at(at);
        pieces.push(Piece::Text(text));
        if let Some(comment) = tag.strip_prefix("<!--") {
            rest = comment.split_once("-->").map_or("", |(_, rest)| rest);
            continue;
        }
        let inner = &tag[1..];
        if !inner.starts_with(|char: char| char.is_ascii_alphabetic() || "/!?".contains(char)) {
            pieces.push(Piece::Text("<"));
            rest = inner;
            continue;
        }
        // The rest of a page that is cut in the middle of a tag is no text.
        let (inner, after) = inner.split_once('>').unwrap_or((inner, ""));
        rest = after;
        let (name, is_closed) = match inner.strip_prefix('/') {
            Some(name) => (name, true),
            None => (inner, false),
        };
        let end = name.find(|char: char| !char.is_ascii_alphanumeric());
        let name = name[..end.unwrap_or(name.len())].to_ascii_lowercase();
        if !is_closed && NO_TEXT.contains(&name.as_str()) && !inner.ends_with('/') {
            rest = after_element(rest, &name);
        } else if is_closed {
            pieces.push(Piece::Closed(name));
        } else {
            pieces.push(Piece::Opened(name));
        }
    }
    pieces
}

/// What follows the end of this element.
fn after_element<'a>(text: &'a str, name: &str) -> &'a str {
    let end = format!("</{name}");
    // As long as the text: only ASCII changes.
    let lower = text.to_ascii_lowercase();
    match lower.find(&end) {
        Some(at) => text[at..].split_once('>').map_or("", |(_, rest)| rest),
        None => "",
    }
}

/// With its characters decoded, and each run of spaces and line ends as one space.
fn decoded(text: &str) -> String {
    let mut decoded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('&') {
        decoded.push_str(before);
        let name = after.split_once(';').map(|(name, _)| name);
        let char = name.filter(|name| name.len() <= 8).and_then(character);
        match (char, name) {
            (Some(char), Some(name)) => {
                decoded.push(char);
                rest = &after[name.len() + 1..];
            }
            _ => {
                decoded.push('&');
                rest = after;
            }
        }
    }
    decoded.push_str(rest);
    let words: Vec<&str> = decoded.split_whitespace().collect();
    words.join(" ")
}

/// `amp`, `#38` or `#x26`.
fn character(name: &str) -> Option<char> {
    let Some(number) = name.strip_prefix('#') else {
        let found = NAMED.iter().find(|(known, _)| *known == name);
        return found.map(|&(_, char)| char);
    };
    let number = match number.strip_prefix(['x', 'X']) {
        Some(hex) => u32::from_str_radix(hex, 16),
        None => number.parse(),
    };
    char::from_u32(number.ok()?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(body: impl Into<Vec<u8>>, kind: &str) -> String {
        excerpt(&Response {
            status: 502,
            headers: vec![("Content-Type".to_owned(), kind.to_owned())],
            body: body.into().into(),
            truncated: false,
            retry_after: None,
            place: None,
        })
    }

    #[test]
    fn a_page_is_shown_by_its_title_or_its_first_line_of_text() {
        for (page, line) in [
            (
                "<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>\r\n<center><h1>502 \
                 Bad Gateway</h1></center>\r\n<hr><center>nginx/1.22.1</center>\r\n</body>\r\n\
                 </html>\r\n",
                "502 Bad Gateway",
            ),
            (
                "<!DOCTYPE HTML PUBLIC \"-//IETF//DTD HTML 2.0//EN\">\n<HTML><HEAD>\n<TITLE>\n  403\n  \
                 Forbidden\n</TITLE>",
                "403 Forbidden",
            ),
            (
                "<!doctype html><html lang=en><title>Sign in &#183; Acme &amp; Sons&nbsp;&lt;SSO&gt;\
                 </title>",
                "Sign in · Acme & Sons <SSO>",
            ),
            (
                "<html><head><title> </title><style>h1 { color: red }</style><script>if (a < b) \
                 {}</script></head><body><!-- <p>no</p> --><h1>Your request was \
                 <b>blocked</b>.</h1><p>Ask somebody</p>",
                "Your request was blocked.",
            ),
            (
                "<html><body><p>a &unknown; b &#x26; c & d</p>",
                "a &unknown; b & c & d",
            ),
            ("\u{feff}\n<html><body>1 < 2<br>more", "1 < 2"),
            ("<html><body>It is cut <a href=\"x", "It is cut"),
            (
                "<html><title>two\u{1b}[31m lines\u{202e}</title>",
                "two\\u{1b}[31m lines\\u{202e}",
            ),
            ("<html></html>", ""),
            ("<html><script>never ends", ""),
        ] {
            assert_eq!(shown(page, "text/html; charset=utf-8"), line, "{page}");
            assert_eq!(shown(page, "text/plain"), line, "{page}");
        }
        // Only the header says that it is a page.
        assert_eq!(shown("<p>Not here</p>", "text/html"), "Not here");
    }

    #[test]
    fn another_answer_is_shown_by_its_first_line() {
        for (body, line) in [
            ("", ""),
            ("\r\n no such index \r\nmore", "no such index"),
            (
                "{\"error\":\"<b>no</b> &amp;\"}",
                "{\"error\":\"<b>no</b> &amp;\"}",
            ),
            (
                "<Error><Code>AccessDenied</Code></Error>",
                "<Error><Code>AccessDenied</Code></Error>",
            ),
        ] {
            assert_eq!(shown(body, "application/json"), line, "{body}");
        }
        assert_eq!(shown("not a page", "text/html"), "not a page");
    }

    proptest! {
        #[test]
        fn any_answer_is_one_short_line(body: Vec<u8>, page in "(<html>)?([<>/a&;!# -]|<!--|é|script){0,40}") {
            for body in [body, page.into_bytes()] {
                let line = shown(body, "text/html");
                prop_assert!(!line.contains('\n') && line.len() <= EXCERPT_MAX);
            }
        }
    }
}
