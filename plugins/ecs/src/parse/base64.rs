//! Base64 as Java's basic decoder reads it: the standard alphabet, padding optional, spare bits
//! ignored.

/// The decoded text. Invalid UTF-8 is replaced.
pub fn decode(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let plain = match bytes.iter().position(|byte| *byte == b'=') {
        None => bytes,
        // If there is padding, it must be complete.
        Some(end) => {
            let padding = &bytes[end..];
            let whole = bytes.len().is_multiple_of(4)
                && padding.len() <= 2
                && padding.iter().all(|byte| *byte == b'=');
            if !whole {
                return None;
            }
            &bytes[..end]
        }
    };
    if plain.len() % 4 == 1 {
        return None;
    }
    let mut decoded = Vec::with_capacity(plain.len() / 4 * 3 + 2);
    for four in plain.chunks(4) {
        let mut bits = 0u32;
        for byte in four {
            bits = bits << 6 | u32::from(sextet(*byte)?);
        }
        bits <<= 6 * (4 - four.len());
        let [_, first, second, third] = bits.to_be_bytes();
        decoded.extend_from_slice(&[first, second, third][..four.len() - 1]);
    }
    Some(match String::from_utf8(decoded) {
        Ok(text) => text,
        Err(invalid) => String::from_utf8_lossy(invalid.as_bytes()).into_owned(),
    })
}

fn sextet(byte: u8) -> Option<u8> {
    match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_decoded_like_in_java() {
        for (text, expected) in [
            ("eyJhIjoxfQ==", Some(r#"{"a":1}"#)),
            ("eyJhIjoxfQ", Some(r#"{"a":1}"#)),
            ("eyJhIjoxfQ=", None),
            ("eyJh=joxfQ==", None),
            ("YWI=", Some("ab")),
            ("YWJj", Some("abc")),
            ("Y", None),
            ("Y===", None),
            ("", Some("")),
            ("not base64", None),
            ("_-Aa", None),
            ("/w==", Some("\u{fffd}")),
        ] {
            assert_eq!(decode(text).as_deref(), expected, "{text}");
        }
    }
}
