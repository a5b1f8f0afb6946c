//! Path suffixes that are made of metadata.

use crate::Document;
use crate::template::{Piece, Template};

/// Longest suffix that the host accepts, in bytes.
pub const SUFFIX_MAX: usize = 2048;

/// Appends a text as a part of a segment of a path. Letters, digits, `-`, `_` and, but at the
/// begin, `.` stay; everything else is written as `~` and its bytes in hexadecimal, so that two
/// texts never share a path and none can leave the operator's. An empty text is `~`.
///
/// ```
/// let mut path = String::from("/");
/// lockgate_plugin::path::write(&mut path, "../a b");
/// assert_eq!(path, "/~2e.~2fa~20b");
/// ```
pub fn write(out: &mut String, text: &str) {
    const HEX: [u8; 16] = *b"0123456789abcdef";
    if text.is_empty() {
        out.push('~');
    }
    for (at, byte) in text.bytes().enumerate() {
        if byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_' || (byte == b'.' && at > 0)
        {
            out.push(byte.into());
        } else {
            out.push('~');
            out.push(HEX[usize::from(byte >> 4)].into());
            out.push(HEX[usize::from(byte & 15)].into());
        }
    }
}

/// Why a template cannot be used for the suffix of a path. `None` if it can.
pub fn problem(template: &Template) -> Option<String> {
    let mut sample = String::new();
    for piece in template.pieces() {
        match piece {
            Piece::Text(text) => sample.push_str(text),
            Piece::Field(_) | Piece::Own(..) => sample.push('x'),
        }
    }
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._~/-".contains(&byte);
    if let Some(other) = sample
        .chars()
        .find(|&char| !char.is_ascii() || !allowed(char as u8))
    {
        return Some(format!("a path cannot contain `{other}`."));
    }
    let inside = sample.strip_prefix('/').unwrap_or(&sample);
    match inside.split('/').find(|it| ["", ".", ".."].contains(it)) {
        Some("") => Some("a segment of the path is empty.".to_owned()),
        Some(dots) => Some(format!("a segment of the path is `{dots}`.")),
        None => None,
    }
}

/// The suffix of a document's path: `/` and the template's text.
///
/// # Errors
/// It is longer than [`SUFFIX_MAX`].
pub fn suffix(template: &Template, document: &Document) -> Result<String, String> {
    let text = template.render_with(document, write);
    let suffix = format!("/{}", text.strip_prefix('/').unwrap_or(&text));
    if suffix.len() > SUFFIX_MAX {
        return Err(format!("its path has more than {SUFFIX_MAX} bytes"));
    }
    Ok(suffix)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test;

    #[test]
    fn a_suffix_stays_below_the_operators_path() {
        let suffix = |template: &str, event: &str| {
            let document = test::document(&format!(r#"{{"uid":"1","event":"{event}"}}"#));
            let template: Template = template.parse().unwrap();
            assert_eq!(problem(&template), None);
            super::suffix(&template, &document)
        };
        for (template, event, expected) in [
            ("{event-type}", "session.start", "/session.start"),
            ("/{date}/{event-type}", "exec", "/2026-01-05/exec"),
            ("{event-type}", "..", "/~2e."),
            ("{event-type}", ".", "/~2e"),
            ("{event-type}", "", "/~"),
            ("{event-type}", "a/../b?c", "/a~2f..~2fb~3fc"),
            ("t.{event-type}", "x", "/t.x"),
        ] {
            assert_eq!(suffix(template, event).as_deref(), Ok(expected));
        }
        assert!(suffix("{event-type}", &"/".repeat(700)).is_err());
    }

    #[test]
    fn a_template_that_leaves_the_path_is_refused() {
        for (template, reason) in [
            ("a//{key}", "a segment of the path is empty."),
            ("a/../{key}", "a segment of the path is `..`."),
            ("{key}/", "a segment of the path is empty."),
            ("a?b={key}", "a path cannot contain `?`."),
            ("", "a segment of the path is empty."),
        ] {
            let template = template.parse().unwrap();
            assert_eq!(problem(&template).as_deref(), Some(reason));
        }
    }
}
