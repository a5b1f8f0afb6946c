//! Checks that a document is one JSON object without duplicate keys and lone surrogates, and of
//! bounded depth.
//!
//! A mapper's documents are checked in one pass, without building a tree, because sinks concatenate
//! them and receivers parse them. The form of numbers is checked, and that a 64-bit float can hold
//! them.

// The fuzz targets include this file, for which `mod scanner;` would be a file next to it.
#[path = "json/scanner.rs"]
mod scanner;

use thiserror::Error;

use scanner::Scanner;
pub(crate) use scanner::unescape;

/// Most nested objects and arrays, including the outermost.
pub(crate) const DEPTH_MAX: usize = 128;

/// Why a text is not a valid document. Positions are in bytes from its start.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum DocumentError {
    /// Another JSON value, or no JSON.
    #[error("it is not a JSON object")]
    NotAnObject,
    /// Truncated.
    #[error("it is incomplete")]
    Ends,
    /// Invalid JSON.
    #[error("there is an unexpected character at byte {0}")]
    Unexpected(usize),
    /// More text after the object.
    #[error("there is more text after the object, at byte {0}")]
    Trailing(usize),
    /// An unescaped control character.
    #[error("the string at byte {0} has a control character")]
    Control(usize),
    /// An invalid escape.
    #[error("the escape at byte {0} is not valid in JSON")]
    Escape(usize),
    /// `\ud800` to `\udfff` without the other half of the pair.
    #[error("the escape at byte {0} is a lone surrogate")]
    LoneSurrogate(usize),
    /// Such as `01`, `1.` or `1e400`.
    #[error("the number at byte {0} is malformed")]
    Number(usize),
    /// Two equal keys, compared after resolving escapes.
    #[error("the key `{0}` occurs twice in an object")]
    KeyTwice(String),
    /// Too many nested objects and arrays.
    #[error("it is nested deeper than {DEPTH_MAX} levels")]
    Depth,
}

/// Checks that `text` is a valid document: one JSON object, as an event's payload is and a mapper's
/// document must be.
pub fn check_object(text: &str) -> Result<(), DocumentError> {
    Scanner::new(text).object()
}

/// Removes the line breaks from a document that [`check_object`] has accepted. Its strings contain
/// none.
pub fn put_on_one_line(document: &mut String) {
    if memchr::memchr2(b'\n', b'\r', document.as_bytes()).is_some() {
        document.retain(|char| !matches!(char, '\n' | '\r'));
    }
}

#[cfg(test)]
mod tests;
