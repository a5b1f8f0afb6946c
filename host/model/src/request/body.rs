//! The body of a request as a list of parts, and how the host assembles it.

use std::collections::HashSet;

use bytes::{BufMut, Bytes, BytesMut};

use super::Violation;

/// Longest text between two documents of a body, in bytes.
const SEPARATOR_MAX: usize = 64;

/// A part of a body. The host inserts the documents, so that a sink need not see them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    Text(String),
    /// The payload of the document with this index in the call, unchanged.
    Document(u32),
    /// The payload as a JSON string, quoted and escaped.
    DocumentAsString(u32),
    /// Payloads as they are, with a text between each two.
    Documents {
        indexes: Vec<u32>,
        separator: String,
    },
}

impl Part {
    /// The documents in it, by index.
    fn documents(&self) -> &[u32] {
        match self {
            Part::Text(_) => &[],
            Part::Document(index) | Part::DocumentAsString(index) => std::slice::from_ref(index),
            Part::Documents { indexes, .. } => indexes,
        }
    }
}

/// The body of a request, before the documents are inserted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    Parts(Vec<Part>),
    Bytes(Bytes),
}

impl Body {
    /// The bytes to send. `payload` returns a document's payload by its index in the call.
    pub fn assemble<'a>(&self, payload: impl Fn(u32) -> &'a str) -> Bytes {
        let parts = match self {
            Body::Bytes(bytes) => return bytes.clone(),
            Body::Parts(parts) => parts,
        };
        let mut body = BytesMut::with_capacity(self.len(&payload));
        for part in parts {
            match part {
                Part::Text(text) => body.put_slice(text.as_bytes()),
                Part::Document(index) => body.put_slice(payload(*index).as_bytes()),
                Part::DocumentAsString(index) => put_json_string(&mut body, payload(*index)),
                Part::Documents { indexes, separator } => {
                    for (at, index) in indexes.iter().enumerate() {
                        if at > 0 {
                            body.put_slice(separator.as_bytes());
                        }
                        body.put_slice(payload(*index).as_bytes());
                    }
                }
            }
        }
        body.freeze()
    }

    /// Length of the result of [`assemble`](Self::assemble).
    pub fn len<'a>(&self, payload: impl Fn(u32) -> &'a str) -> usize {
        match self {
            Body::Bytes(bytes) => bytes.len(),
            Body::Parts(parts) => parts
                .iter()
                .map(|part| match part {
                    Part::Text(text) => text.len(),
                    Part::Document(index) => payload(*index).len(),
                    Part::DocumentAsString(index) => json_string_len(payload(*index)),
                    Part::Documents { indexes, separator } => {
                        let payloads: usize =
                            indexes.iter().map(|&index| payload(index).len()).sum();
                        payloads + separator.len() * indexes.len().saturating_sub(1)
                    }
                })
                .sum(),
        }
    }

    /// The rules for what a body is made of. `carries`: the documents of its request.
    pub(crate) fn check(&self, carries: &[u32]) -> Result<(), Violation> {
        let Body::Parts(parts) = self else {
            return Ok(());
        };
        let separators = parts.iter().filter_map(|part| match part {
            Part::Documents { separator, .. } => Some(separator.len()),
            _ => None,
        });
        if let Some(len) = separators.max().filter(|&len| len > SEPARATOR_MAX) {
            return Err(Violation::SeparatorTooLong(len));
        }
        let documents = parts.iter().flat_map(Part::documents).copied();
        // Usually they are in the order of `carries`: then no set is built.
        if documents.clone().eq(carries.iter().copied()) {
            return Ok(());
        }
        let mut missing: HashSet<u32> = carries.iter().copied().collect();
        for index in documents {
            if !missing.remove(&index) {
                return Err(if carries.contains(&index) {
                    Violation::DocumentTwice(index)
                } else {
                    Violation::NotCarried(index)
                });
            }
        }
        Ok(())
    }

    /// Whether the body starts with the magic number of this `Content-Encoding`. A body of parts is
    /// never encoded.
    pub(crate) fn is_encoded_as(&self, encoding: &str) -> bool {
        let magic: &[u8] = match encoding {
            "identity" => return true,
            "gzip" => &[0x1f, 0x8b],
            "zstd" => &[0x28, 0xb5, 0x2f, 0xfd],
            _ => return false,
        };
        matches!(self, Body::Bytes(bytes) if bytes.starts_with(magic))
    }
}

/// The escape of a byte in a JSON string, if it needs one.
fn escape(byte: u8) -> Option<[u8; 6]> {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    match byte {
        b'"' | b'\\' => Some([b'\\', byte, 0, 0, 0, 0]),
        b'\n' => Some(*b"\\n\0\0\0\0"),
        b'\r' => Some(*b"\\r\0\0\0\0"),
        b'\t' => Some(*b"\\t\0\0\0\0"),
        0..0x20 => {
            let (high, low) = (HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]);
            Some([b'\\', b'u', b'0', b'0', high, low])
        }
        _ => None,
    }
}

fn put_json_string(body: &mut BytesMut, text: &str) {
    let bytes = text.as_bytes();
    body.put_u8(b'"');
    let mut start = 0;
    for (at, &byte) in bytes.iter().enumerate() {
        if let Some(escaped) = escape(byte) {
            body.put_slice(&bytes[start..at]);
            body.put_slice(&escaped[..escaped_len(&escaped)]);
            start = at + 1;
        }
    }
    body.put_slice(&bytes[start..]);
    body.put_u8(b'"');
}

fn json_string_len(text: &str) -> usize {
    let grown: usize = text
        .bytes()
        .filter_map(escape)
        .map(|escaped| escaped_len(&escaped) - 1)
        .sum();
    text.len() + grown + 2
}

fn escaped_len(escaped: &[u8; 6]) -> usize {
    if escaped[1] == b'u' { 6 } else { 2 }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn documents_are_inserted_as_the_parts_say() {
        let payloads = [r#"{"a":1}"#, "{\"b\":\"x\\\\y\"}"];
        let body = Body::Parts(vec![
            Part::Text("[".into()),
            Part::Document(1),
            Part::Text(",".into()),
            Part::DocumentAsString(1),
            Part::Text(",".into()),
            Part::Documents {
                indexes: vec![0, 1, 0],
                separator: ", ".into(),
            },
            Part::Text("]".into()),
        ]);
        let assembled = body.assemble(|index| payloads[index as usize]);
        assert_eq!(
            std::str::from_utf8(&assembled).unwrap(),
            r#"[{"b":"x\\y"},"{\"b\":\"x\\\\y\"}",{"a":1}, {"b":"x\\y"}, {"a":1}]"#
        );
        assert_eq!(body.len(|index| payloads[index as usize]), assembled.len());
    }

    proptest! {
        #[test]
        fn a_payload_survives_as_a_json_string(text in "[\\x00-\\x7fäü\u{2028}]{0,60}") {
            let body = Body::Parts(vec![Part::DocumentAsString(0)]);
            let assembled = body.assemble(|_| &text);
            prop_assert_eq!(body.len(|_| &text), assembled.len());
            let inner = &assembled[1..assembled.len() - 1];
            let mut back = String::new();
            let mut chars = std::str::from_utf8(inner).unwrap().chars();
            while let Some(char) = chars.next() {
                prop_assert!(char != '"' && (char as u32) >= 0x20);
                if char != '\\' {
                    back.push(char);
                    continue;
                }
                back.push(match chars.next().unwrap() {
                    'n' => '\n',
                    'r' => '\r',
                    't' => '\t',
                    'u' => {
                        let code: String = chars.by_ref().take(4).collect();
                        char::from_u32(u32::from_str_radix(&code, 16).unwrap()).unwrap()
                    }
                    plain => plain,
                });
            }
            prop_assert_eq!(back, text);
        }
    }
}
