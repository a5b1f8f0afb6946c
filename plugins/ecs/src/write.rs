//! Writes the document and cleans it up: removes null, `""`, `{}` and `[]`, also in lists.

use lockgate_plugin::json;

use crate::keys::Name;
use crate::value::{Object, Value};

/// Deepest nesting of a document, which is that of an event's payload. Deeper values are written as
/// strings of JSON.
const DEPTH: usize = 128;

/// The document as JSON. `clean`: without empty values.
pub fn document(object: &Object<'_>, clean: bool, capacity: usize) -> String {
    let mut out = String::with_capacity(capacity);
    write_object(&mut out, object, clean, 1);
    if out.is_empty() {
        out.push_str("{}");
    }
    out
}

/// Writes a value, or nothing if the clean-up leaves nothing.
fn write(out: &mut String, value: &Value<'_>, clean: bool, depth: usize) {
    match value {
        Value::List(_) | Value::Words(_) | Value::Object(_) if depth > DEPTH => {
            let mut inner = String::new();
            write(&mut inner, value, clean, 1);
            if !inner.is_empty() {
                json::write_text(out, &inner);
            }
        }
        Value::Raw(written) => write_raw(out, written, clean, depth),
        Value::Text(text) if clean && text.is_empty() => {}
        Value::Text(text) => quote(out, text),
        Value::List(list) => {
            let start = out.len();
            out.push('[');
            let mut any = false;
            for value in list {
                any |= member(out, any, |_| {}, |out| write(out, value, clean, depth + 1));
            }
            close(out, start, any, clean, ']');
        }
        Value::Words(words) => {
            out.push('[');
            for (at, word) in words.iter().enumerate() {
                out.push_str(if at > 0 { "," } else { "" });
                quote(out, word);
            }
            out.push(']');
        }
        Value::Object(object) => write_object(out, object, clean, depth),
    }
}

fn write_object(out: &mut String, object: &Object<'_>, clean: bool, depth: usize) {
    let start = out.len();
    out.push('{');
    let mut any = false;
    for (key, value) in &object.members {
        let name = |out: &mut String| match key {
            // These words need no escapes.
            Name::Known(key) => {
                out.push('"');
                out.push_str(key.name());
                out.push_str("\":");
            }
            Name::Other(key) => {
                quote(out, key);
                out.push(':');
            }
        };
        any |= member(out, any, name, |out| write(out, value, clean, depth + 1));
    }
    close(out, start, any, clean, '}');
}

/// Writes a JSON string. Most texts need no escapes.
fn quote(out: &mut String, text: &str) {
    const EACH: u64 = u64::MAX / 255;
    const HIGH: u64 = EACH << 7;
    let zero = |word: u64| word.wrapping_sub(EACH) & !word;
    let mut special = 0;
    let (chunks, rest) = text.as_bytes().as_chunks::<8>();
    for eight in chunks {
        let word = u64::from_le_bytes(*eight);
        let control = word.wrapping_sub(EACH * 0x20) & !word;
        special |= control
            | zero(word ^ (EACH * u64::from(b'"')))
            | zero(word ^ (EACH * u64::from(b'\\')));
    }
    let plain = special & HIGH == 0
        && rest
            .iter()
            .all(|byte| *byte >= 0x20 && !matches!(byte, b'"' | b'\\'));
    if plain {
        out.push('"');
        out.push_str(text);
        out.push('"');
    } else {
        json::write_text(out, text);
    }
}

/// Writes a comma, a name and a value, or nothing if the value writes nothing.
fn member(
    out: &mut String,
    comma: bool,
    name: impl FnOnce(&mut String),
    value: impl FnOnce(&mut String),
) -> bool {
    let start = out.len();
    if comma {
        out.push(',');
    }
    name(out);
    let named = out.len();
    value(out);
    if out.len() == named {
        out.truncate(start);
        return false;
    }
    true
}

fn close(out: &mut String, start: usize, any: bool, clean: bool, bracket: char) {
    if clean && !any {
        out.truncate(start);
    } else {
        out.push(bracket);
    }
}

fn write_raw(out: &mut String, written: &str, clean: bool, depth: usize) {
    match written.as_bytes().first() {
        Some(b'{' | b'[') => nested(out, written, clean, depth),
        _ if clean && matches!(written, "null" | "\"\"") => {}
        _ => out.push_str(written),
    }
}

/// An open object or list while nested JSON is copied.
struct Open {
    /// Its start in the output, including the comma and the key before it.
    start: usize,
    /// Whether it has a member.
    any: bool,
    object: bool,
}

/// Copies an object or a list of any depth in one pass.
fn nested(out: &mut String, written: &str, clean: bool, depth: usize) {
    let bytes = written.as_bytes();
    let mut open: Vec<Open> = Vec::with_capacity(8);
    let mut at = 0;
    // Start in the output of the member whose key has been written.
    let mut keyed = None;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b' ' | b'\n' | b'\r' | b'\t' | b',' | b':' => {
                at += 1;
                continue;
            }
            b'}' | b']' => {
                let Some(closed) = open.pop() else { return };
                if clean && !closed.any {
                    out.truncate(closed.start);
                } else {
                    out.push(byte.into());
                    if let Some(outer) = open.last_mut() {
                        outer.any = true;
                    }
                }
                at += 1;
                if open.is_empty() {
                    return;
                }
                continue;
            }
            _ => {}
        }
        let after_key = keyed.is_some();
        let start = keyed.take().unwrap_or_else(|| {
            let start = out.len();
            if open.last().is_some_and(|outer| outer.any) {
                out.push(',');
            }
            start
        });
        let in_object = open.last().is_some_and(|outer| outer.object);
        if matches!(byte, b'{' | b'[') && depth + open.len() <= DEPTH {
            open.push(Open {
                start,
                any: false,
                object: byte == b'{',
            });
            out.push(byte.into());
            at += 1;
            continue;
        }
        let Ok(end) = json::value_end(written, at) else {
            return;
        };
        let value = &written[at..end];
        at = end;
        if in_object && !after_key && byte == b'"' {
            out.push_str(value);
            out.push(':');
            keyed = Some(start);
            continue;
        }
        if clean && matches!(value, "null" | "\"\"") {
            out.truncate(start);
            continue;
        }
        match byte {
            b'{' | b'[' => json::write_text(out, value),
            _ => out.push_str(value),
        }
        if let Some(outer) = open.last_mut() {
            outer.any = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_values_are_removed() {
        let check = |written: &str, expected: &str| {
            let object = Object {
                members: vec![("x".into(), Value::raw(written))],
            };
            assert_eq!(document(&object, true, 0), expected, "{written}");
            // The same after a rule has inspected them.
            let mut value = Value::raw(written);
            let _ = (value.as_object().is_some(), value.as_list().is_some());
            assert_eq!(
                document(
                    &Object {
                        members: vec![("x".into(), value)]
                    },
                    true,
                    0
                ),
                expected,
                "{written}"
            );
        };
        check("1", r#"{"x":1}"#);
        check(
            r#"{"a":null,"b":"","c":{},"d":[],"e":{"f":[null,{"g":""}]}}"#,
            "{}",
        );
        check(
            r#"{ "a" : null , "b" : [ false , "" , 0 , { } ] , "":"k" }"#,
            r#"{"x":{"b":[false,0],"":"k"}}"#,
        );
        check(
            r#"[{"a":1,"b":null},[[]],"null","{}",{"c":"\\"}]"#,
            r#"{"x":[{"a":1},"null","{}",{"c":"\\"}]}"#,
        );
        let object = Object {
            members: vec![("x".into(), Value::raw(r#"{"a":[null,""]}"#))],
        };
        assert_eq!(document(&object, false, 0), r#"{"x":{"a":[null,""]}}"#);
    }

    #[test]
    fn values_nested_too_deeply_are_written_as_text() {
        let written = format!("{}7{}", "[".repeat(130), "]".repeat(130));
        let expected = format!(r#"{{"x":{}"[[[7]]]"{}}}"#, "[".repeat(127), "]".repeat(127));
        let object = Object {
            members: vec![("x".into(), Value::raw(&written))],
        };
        assert_eq!(document(&object, true, 0), expected);
        let unfolded = (0..130).fold(Value::raw("7"), |inner, _| Value::List(vec![inner]));
        let object = Object {
            members: vec![("x".into(), unfolded)],
        };
        assert_eq!(document(&object, true, 0), expected);
    }
}
