//! `${env:NAME}` and `${file:PATH}` inside strings; `$${` stands for `${`.

use std::ops::Range;

/// A part of a string with references.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Piece<'a> {
    Text(&'a str),
    /// The value of an environment variable.
    Variable(&'a str),
    /// The content of a file.
    File(&'a str),
    /// Starts with `${` but is neither.
    Unknown(&'a str),
}

pub(crate) fn pieces(text: &str) -> Vec<Piece<'_>> {
    spanned(text).into_iter().map(|(_, piece)| piece).collect()
}

/// The spans of the well-formed references in `text`.
pub(crate) fn references(text: &str) -> Vec<Range<usize>> {
    let is_reference = |piece: &Piece<'_>| matches!(piece, Piece::Variable(_) | Piece::File(_));
    spanned(text)
        .into_iter()
        .filter(|(_, piece)| is_reference(piece))
        .map(|(span, _)| span)
        .collect()
}

fn spanned(text: &str) -> Vec<(Range<usize>, Piece<'_>)> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(offset) = text[at..].find("${") {
        let start = at + offset;
        if text[at..start].ends_with('$') {
            found.push((at..start - 1, Piece::Text(&text[at..start - 1])));
            found.push((start..start + 2, Piece::Text("${")));
            at = start + 2;
            continue;
        }
        found.push((at..start, Piece::Text(&text[at..start])));
        let end = text[start..]
            .find('}')
            .map_or(text.len(), |brace| start + brace + 1);
        found.push((start..end, reference(&text[start..end])));
        at = end;
    }
    found.push((at..text.len(), Piece::Text(&text[at..])));
    found.retain(|(_, piece)| *piece != Piece::Text(""));
    found
}

fn reference(text: &str) -> Piece<'_> {
    let inner = text
        .strip_prefix("${")
        .and_then(|rest| rest.strip_suffix('}'))
        .unwrap_or_default();
    match inner.split_once(':') {
        Some(("env", name)) if is_variable_name(name) => Piece::Variable(name),
        Some(("file", path)) if !path.trim().is_empty() && !path.contains(char::is_control) => {
            Piece::File(path)
        }
        _ => Piece::Unknown(text),
    }
}

fn is_variable_name(name: &str) -> bool {
    !name.is_empty()
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_split_at_references() {
        use Piece::{File, Text, Unknown, Variable};
        for (text, expected) in [
            ("", vec![]),
            ("plain $5 {x}", vec![Text("plain $5 {x}")]),
            ("${env:A}", vec![Variable("A")]),
            (
                "a${env:A_1}b${file:/run/x y}",
                vec![Text("a"), Variable("A_1"), Text("b"), File("/run/x y")],
            ),
            ("a$${env:A}", vec![Text("a"), Text("${"), Text("env:A}")]),
            ("$$${env:A}", vec![Text("$"), Text("${"), Text("env:A}")]),
            ("${env:}", vec![Unknown("${env:}")]),
            ("${env:A B}", vec![Unknown("${env:A B}")]),
            ("${HOME}x", vec![Unknown("${HOME}"), Text("x")]),
            ("${env:A", vec![Unknown("${env:A")]),
        ] {
            assert_eq!(pieces(text), expected, "{text}");
        }
        assert_eq!(references("a${env:A}$${env:B}"), vec![1..9]);
    }
}
