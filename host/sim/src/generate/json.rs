//! Converts an encoded Struct to JSON text: sorted keys, no spaces, as a receiver would see it.
//! Tests compare the host's own converter with it, so the two share no code.

/// JSON text of Struct wire bytes that this crate wrote. Not-a-number is written as `null`.
pub(crate) fn object(wire: &[u8], ascii: bool, out: &mut Vec<u8>) {
    let mut entries: Vec<(&[u8], &[u8])> = fields(wire)
        .map(|(_, entry)| {
            let mut pair: (&[u8], &[u8]) = (&[], &[]);
            for (tag, content) in fields(entry) {
                if tag >> 3 == 1 {
                    pair.0 = content
                } else {
                    pair.1 = content
                }
            }
            pair
        })
        .collect();
    entries.sort_unstable_by_key(|(key, _)| *key);
    out.push(b'{');
    for (at, (key, content)) in entries.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        text(key, ascii, out);
        out.push(b':');
        value(content, ascii, out);
    }
    out.push(b'}');
}

/// The Struct inside an encoded `EventUnstructured`.
pub(crate) fn payload(event: &[u8]) -> &[u8] {
    fields(event)
        .find(|(tag, _)| tag >> 3 == 5)
        .map_or(&[], |(_, content)| content)
}

fn value(wire: &[u8], ascii: bool, out: &mut Vec<u8>) {
    let Some((tag, content)) = fields(wire).next() else {
        return out.extend_from_slice(b"null");
    };
    match tag >> 3 {
        2 => number(
            f64::from_le_bytes(content.try_into().unwrap_or_default()),
            out,
        ),
        3 => text(content, ascii, out),
        4 => out.extend_from_slice(if content == [1] { b"true" } else { b"false" }),
        5 => object(content, ascii, out),
        6 => {
            out.push(b'[');
            for (at, (_, item)) in fields(content).enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                value(item, ascii, out);
            }
            out.push(b']');
        }
        _ => out.extend_from_slice(b"null"),
    }
}

fn number(value: f64, out: &mut Vec<u8>) {
    if value.fract() == 0.0 && value.abs() < 1e15 {
        out.extend_from_slice(itoa::Buffer::new().format(value as i64).as_bytes());
    } else {
        out.extend_from_slice(
            serde_json::Number::from_f64(value)
                .map_or("null".into(), |number| number.to_string())
                .as_bytes(),
        );
    }
}

fn text(bytes: &[u8], ascii: bool, out: &mut Vec<u8>) {
    let text = String::from_utf8_lossy(bytes);
    if !ascii || text.is_ascii() {
        let plain = text
            .bytes()
            .all(|byte| byte >= 0x20 && byte != b'"' && byte != b'\\');
        if plain {
            out.push(b'"');
            out.extend_from_slice(text.as_bytes());
            out.push(b'"');
        } else {
            out.extend_from_slice(serde_json::Value::from(text).to_string().as_bytes());
        }
        return;
    }
    for letter in serde_json::Value::from(text).to_string().chars() {
        if letter.is_ascii() {
            out.push(letter as u8);
        } else {
            for unit in letter.encode_utf16(&mut [0; 2]) {
                out.extend_from_slice(format!("\\u{unit:04x}").as_bytes());
            }
        }
    }
}

/// (tag, content) of each field. The content is the payload of a length-delimited field, the 8
/// bytes of a double, or the byte of a flag.
fn fields(mut wire: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    std::iter::from_fn(move || {
        let (&tag, rest) = wire.split_first()?;
        let (content, rest) = match tag & 7 {
            0 => {
                let end = rest.iter().position(|byte| byte & 0x80 == 0)? + 1;
                rest.split_at_checked(end)?
            }
            1 => rest.split_at_checked(8)?,
            2 => {
                let end = rest.iter().position(|byte| byte & 0x80 == 0)? + 1;
                let len = rest[..end]
                    .iter()
                    .rev()
                    .fold(0usize, |len, byte| (len << 7) | usize::from(byte & 0x7f));
                rest[end..].split_at_checked(len)?
            }
            _ => return None,
        };
        wire = rest;
        Some((tag, content))
    })
}
