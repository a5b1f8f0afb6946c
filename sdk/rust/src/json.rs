//! Reading JSON in one pass, without building a tree.
//!
//! The host guarantees that each payload is one valid JSON object without duplicate keys. So these
//! functions scan the text and return slices of it. They find the end of every value, but do not
//! check its content. For text that is not JSON they return [`Malformed`] or slices of the text,
//! and never panic.
//!
//! ```
//! use lockgate_plugin::json;
//!
//! let payload = r#"{"addr.remote":"192.0.2.7:52","server_labels":{"env":"prod"},"user":"zo\u00eb"}"#;
//! assert_eq!(json::find(payload, "addr.remote"), Ok(Some(r#""192.0.2.7:52""#)));
//! assert_eq!(json::find(payload, "server_labels.env"), Ok(Some(r#""prod""#)));
//! assert_eq!(json::find(payload, "login"), Ok(None));
//! assert_eq!(json::text(r#""zo\u00eb""#).as_deref(), Some("zoë"));
//!
//! let keys: Result<Vec<_>, _> = json::fields(payload).map(|field| Ok(field?.key().into_owned())).collect();
//! assert_eq!(keys, Ok::<_, json::Malformed>(vec!["addr.remote".into(), "server_labels".into(), "user".into()]));
//! ```

use std::borrow::Cow;
use std::fmt;

/// The text ends too early, or is not valid JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// Position in the text, in bytes.
    pub at: usize,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "this is not valid JSON at byte {}", self.at)
    }
}

impl std::error::Error for Malformed {}

/// One member of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field<'a> {
    /// The key as in the text, without its quotes. See [`key`](Field::key).
    pub raw_key: &'a str,
    /// The value as in the text.
    pub value: &'a str,
    /// Start of the member, at the quote of its key, in the text passed to [`fields`].
    pub start: usize,
    /// Start of its value.
    pub value_start: usize,
    /// End of its value.
    pub end: usize,
}

impl<'a> Field<'a> {
    /// The key, unescaped.
    pub fn key(&self) -> Cow<'a, str> {
        unescape(self.raw_key)
    }
}

/// One element of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Element<'a> {
    /// The value as in the text.
    pub value: &'a str,
    /// Its start in the text passed to [`elements`].
    pub start: usize,
    pub end: usize,
}

/// The members of an object, in order. Ends after an error.
pub fn fields(object: &str) -> Fields<'_> {
    Fields {
        walk: Walk::new(object, b'{', b'}'),
    }
}

/// The elements of a list, in order. Ends after an error.
pub fn elements(list: &str) -> Elements<'_> {
    Elements {
        walk: Walk::new(list, b'[', b']'),
    }
}

/// The value at a path, as in the text, or `None` if there is none.
///
/// Teleport's keys may contain dots (`addr.remote`, labels such as
/// `teleport.internal/resource-id`). So a path is first tried as one literal key, and then as
/// nested keys, the longest first: `a.b.c` is the key `a.b.c`, or else `c` in `a.b`, or else `b.c`
/// in `a`.
pub fn find<'a>(object: &'a str, path: &str) -> Result<Option<&'a str>, Malformed> {
    let mut best: Option<(usize, &'a str)> = None;
    for field in fields(object) {
        let field = field?;
        // Most keys differ from the path in their first letter, so that is checked first.
        let first = field.raw_key.as_bytes().first();
        if first.is_some_and(|&first| first != b'\\' && Some(&first) != path.as_bytes().first()) {
            continue;
        }
        let key = field.key();
        let Some(rest) = path.strip_prefix(key.as_ref()) else {
            continue;
        };
        if rest.is_empty() {
            return Ok(Some(field.value));
        }
        let Some(rest) = rest.strip_prefix('.') else {
            continue;
        };
        if field.value.starts_with('{') && best.is_none_or(|(length, _)| length < key.len()) {
            let inside = find(field.value, rest).map_err(|inner| Malformed {
                at: field.value_start + inner.at,
            })?;
            if let Some(value) = inside {
                best = Some((key.len(), value));
            }
        }
    }
    Ok(best.map(|(_, value)| value))
}

/// The content of a string, or `None` if the value is not a string.
pub fn text(value: &str) -> Option<Cow<'_, str>> {
    let inside = value.strip_prefix('"')?.strip_suffix('"')?;
    Some(unescape(inside))
}

/// Appends a text as a JSON string, with its quotes.
pub fn write_text(out: &mut String, text: &str) {
    const HEX: [u8; 16] = *b"0123456789abcdef";
    out.push('"');
    let mut done = 0;
    for (at, byte) in text.bytes().enumerate() {
        let escape = match byte {
            b'"' => "\\\"",
            b'\\' => "\\\\",
            b'\n' => "\\n",
            b'\r' => "\\r",
            b'\t' => "\\t",
            0..0x20 => "",
            _ => continue,
        };
        out.push_str(&text[done..at]);
        done = at + 1;
        if escape.is_empty() {
            out.push_str("\\u00");
            out.push(HEX[usize::from(byte >> 4)].into());
            out.push(HEX[usize::from(byte & 15)].into());
        } else {
            out.push_str(escape);
        }
    }
    out.push_str(&text[done..]);
    out.push('"');
}

/// The end of the value that begins at `start`, in bytes.
pub fn value_end(text: &str, start: usize) -> Result<usize, Malformed> {
    let bytes = text.as_bytes();
    match bytes.get(start) {
        Some(b'"') => string_end(bytes, start),
        Some(b'{' | b'[') => nested_end(bytes, start + 1, 1),
        Some(b'-' | b'0'..=b'9' | b't' | b'f' | b'n') => {
            let rest = &bytes[start..];
            let length = rest
                .iter()
                .position(|byte| matches!(byte, b',' | b'}' | b']' | b' ' | b'\n' | b'\r' | b'\t'));
            Ok(start + length.unwrap_or(rest.len()))
        }
        _ => Err(Malformed { at: start }),
    }
}

/// The end of the object or list that encloses the position `at`, which must be outside any string.
/// A cheap way to check whether something belongs to the outermost object: then this is the end of
/// the text.
pub fn enclosing_end(text: &str, at: usize) -> Result<usize, Malformed> {
    nested_end(text.as_bytes(), at, 1)
}

// === impl Fields ===

/// See [`fields`].
#[derive(Clone, Debug)]
pub struct Fields<'a> {
    walk: Walk<'a>,
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<Field<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        self.walk.step(|text, start| {
            let bytes = text.as_bytes();
            if bytes.get(start) != Some(&b'"') {
                return Err(Malformed { at: start });
            }
            let key_end = string_end(bytes, start)?;
            let colon = skip_space(bytes, key_end);
            if bytes.get(colon) != Some(&b':') {
                return Err(Malformed { at: colon });
            }
            let value_start = skip_space(bytes, colon + 1);
            let end = value_end(text, value_start)?;
            Ok((
                Field {
                    raw_key: &text[start + 1..key_end - 1],
                    value: &text[value_start..end],
                    start,
                    value_start,
                    end,
                },
                end,
            ))
        })
    }
}

// === impl Elements ===

/// See [`elements`].
#[derive(Clone, Debug)]
pub struct Elements<'a> {
    walk: Walk<'a>,
}

impl<'a> Iterator for Elements<'a> {
    type Item = Result<Element<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        self.walk.step(|text, start| {
            let end = value_end(text, start)?;
            Ok((
                Element {
                    value: &text[start..end],
                    start,
                    end,
                },
                end,
            ))
        })
    }
}

// === impl Walk ===

#[derive(Clone, Copy, Debug, PartialEq)]
enum At {
    Opening,
    Inside,
    Done,
}

/// The common syntax of objects and lists: an opening bracket, items separated by commas, a closing
/// bracket, and nothing after it.
#[derive(Clone, Debug)]
struct Walk<'a> {
    text: &'a str,
    open: u8,
    close: u8,
    position: usize,
    at: At,
}

impl<'a> Walk<'a> {
    fn new(text: &'a str, open: u8, close: u8) -> Walk<'a> {
        Walk {
            text,
            open,
            close,
            position: 0,
            at: At::Opening,
        }
    }

    /// Reads the next item with `item`, which returns it and its end.
    fn step<T>(
        &mut self,
        item: impl FnOnce(&'a str, usize) -> Result<(T, usize), Malformed>,
    ) -> Option<Result<T, Malformed>> {
        let start = match self.separator() {
            Ok(start) => start?,
            Err(malformed) => return self.fail(malformed),
        };
        match item(self.text, start) {
            Ok((item, end)) => {
                self.position = end;
                Some(Ok(item))
            }
            Err(malformed) => self.fail(malformed),
        }
    }

    /// Start of the next item, after the opening bracket or the comma. `None` after the closing
    /// bracket.
    fn separator(&mut self) -> Result<Option<usize>, Malformed> {
        let bytes = self.text.as_bytes();
        let mut position = skip_space(bytes, self.position);
        match (self.at, bytes.get(position).copied()) {
            (At::Done, _) => return Ok(None),
            (At::Opening, Some(byte)) if byte == self.open => {
                self.at = At::Inside;
                position = skip_space(bytes, position + 1);
                if bytes.get(position) == Some(&self.close) {
                    return self.finish(position);
                }
            }
            (At::Inside, Some(b',')) => position = skip_space(bytes, position + 1),
            (At::Inside, Some(byte)) if byte == self.close => return self.finish(position),
            _ => return Err(Malformed { at: position }),
        }
        Ok(Some(position))
    }

    fn finish(&mut self, close: usize) -> Result<Option<usize>, Malformed> {
        self.at = At::Done;
        let end = skip_space(self.text.as_bytes(), close + 1);
        if end == self.text.len() {
            Ok(None)
        } else {
            Err(Malformed { at: end })
        }
    }

    fn fail<T>(&mut self, malformed: Malformed) -> Option<Result<T, Malformed>> {
        self.at = At::Done;
        Some(Err(malformed))
    }
}

fn skip_space(bytes: &[u8], mut at: usize) -> usize {
    while let Some(b' ' | b'\n' | b'\r' | b'\t') = bytes.get(at) {
        at += 1;
    }
    at
}

/// The position after the string whose opening quote is at `start`.
fn string_end(bytes: &[u8], start: usize) -> Result<usize, Malformed> {
    let mut at = start + 1;
    loop {
        at = quote_or_backslash(bytes, at);
        match bytes.get(at) {
            Some(b'"') => return Ok(at + 1),
            Some(_) => at += 2,
            None => return Err(Malformed { at: bytes.len() }),
        }
    }
}

/// The position after the bracket that closes `depth` open ones. `at` must be outside any string.
fn nested_end(bytes: &[u8], mut at: usize, mut depth: usize) -> Result<usize, Malformed> {
    loop {
        match bytes.get(at) {
            Some(b'"') => {
                at = string_end(bytes, at)?;
                continue;
            }
            Some(b'{' | b'[') => depth += 1,
            Some(b'}' | b']') => {
                depth -= 1;
                if depth == 0 {
                    return Ok(at + 1);
                }
            }
            Some(_) => {}
            None => return Err(Malformed { at: bytes.len() }),
        }
        at += 1;
    }
}

/// The next `"` or `\` from `at` on. Compares eight bytes at a time, because a guest has no wider
/// registers by default.
fn quote_or_backslash(bytes: &[u8], mut at: usize) -> usize {
    while let Some(eight) = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        let word = u64::from_le_bytes(*eight);
        let hit =
            zero_bytes(word ^ (EACH * b'"' as u64)) | zero_bytes(word ^ (EACH * b'\\' as u64));
        if hit != 0 {
            return at + hit.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    while let Some(byte) = bytes.get(at) {
        if matches!(byte, b'"' | b'\\') {
            return at;
        }
        at += 1;
    }
    bytes.len()
}

const EACH: u64 = u64::MAX / 255;

/// Sets the top bit of every zero byte. It may be wrong for bytes above the lowest zero byte.
fn zero_bytes(word: u64) -> u64 {
    word.wrapping_sub(EACH) & !word & (EACH << 7)
}

/// Unescapes the content of a string. Text that is not a JSON string is unchanged.
fn unescape(inside: &str) -> Cow<'_, str> {
    if !inside.as_bytes().contains(&b'\\') {
        return Cow::Borrowed(inside);
    }
    match serde_json::from_str(&format!("\"{inside}\"")) {
        Ok(text) => Cow::Owned(text),
        Err(_) => Cow::Borrowed(inside),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    #[test]
    fn a_path_is_a_literal_key_first_then_nesting() {
        let object = r#" { "a" : {"b":{"c":1},"b.c":2} , "a.b":{"c":3}, "\u0061b": [ "x" , {"y":"}"} ] , "n":null, "a.b.c.d": 4} "#;
        for (path, found) in [
            ("a.b.c", Some("3")),
            ("a.b", Some(r#"{"c":3}"#)),
            ("a.b.c.d", Some("4")),
            ("ab", Some(r#"[ "x" , {"y":"}"} ]"#)),
            ("n", Some("null")),
            ("n.x", None),
            ("ab.y", None),
            ("", None),
            ("a.", None),
            (".a", None),
        ] {
            assert_eq!(find(object, path), Ok(found), "{path}");
        }
        assert_eq!(
            find(r#"{"a":{"b":{"c":1},"b.c":2}}"#, "a.b.c"),
            Ok(Some("2"))
        );
        assert_eq!(find(r#"{"":{"":7}}"#, "."), Ok(Some("7")));
    }

    #[test]
    fn the_enclosing_object_ends_at_its_bracket() {
        let object = r#"{"a":{"b":"}","c":[{}]},"d":"]"}"#;
        let end = |place: &str| enclosing_end(object, object.find(place).unwrap()).unwrap();
        assert_eq!((end(r#""a""#), end(r#""d""#)), (object.len(), object.len()));
        assert_eq!((end(r#""b""#), end(r#""c""#)), (23, 23));
        assert!(enclosing_end(r#"{"a":1"#, 1).is_err());
    }

    #[test]
    fn text_that_is_not_an_object_is_refused() {
        for text in [
            "",
            "null",
            "[1]",
            "{",
            "{}x",
            r#"{"a"}"#,
            r#"{"a":}"#,
            r#"{"a":1,}"#,
            r#"{"a":1"#,
            r#"{"a":"x}"#,
            r#"{"a":"x\"#,
            "{,}",
            r#"{"a":[}"#,
        ] {
            assert!(fields(text).any(|field| field.is_err()), "{text}");
        }
        assert_eq!(fields(" {} ").count(), 0);
        assert_eq!(elements(" [ ] ").count(), 0);
    }

    /// The scanner returns the same values as `serde_json`, at the right positions.
    fn check(text: &str) {
        match serde_json::from_str::<Value>(text).unwrap() {
            Value::Object(object) => {
                let mut seen = 0;
                for field in fields(text).map(Result::unwrap) {
                    assert_eq!(&text[field.value_start..field.end], field.value);
                    assert_eq!(
                        object[field.key().as_ref()],
                        serde_json::from_str::<Value>(field.value).unwrap()
                    );
                    assert!(text[field.start..].starts_with('"'));
                    check(field.value);
                    seen += 1;
                }
                assert_eq!(seen, object.len());
            }
            Value::Array(list) => {
                let found: Vec<_> = elements(text).map(Result::unwrap).collect();
                assert_eq!(found.len(), list.len());
                for (element, value) in found.iter().zip(list) {
                    assert_eq!(&text[element.start..element.end], element.value);
                    assert_eq!(serde_json::from_str::<Value>(element.value).unwrap(), value);
                    check(element.value);
                }
            }
            Value::String(value) => assert_eq!(super::text(text).unwrap(), value),
            _ => assert_eq!(super::text(text), None),
        }
    }

    fn value() -> impl Strategy<Value = Value> {
        let text = prop_oneof!["[a-z.]{0,12}", "[\\PC\"\\\\{}\\[\\],:\n\u{1}]{0,20}"];
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            (-1e9..1e9).prop_map(Value::from),
            text.clone().prop_map(Value::from)
        ];
        leaf.prop_recursive(4, 40, 6, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::btree_map(text.clone(), inner, 0..6)
                    .prop_map(|map| Value::Object(map.into_iter().collect()))
            ]
        })
    }

    proptest! {
        #[test]
        fn the_scanner_agrees_with_serde(value in value(), pretty: bool) {
            check(&if pretty { serde_json::to_string_pretty(&value).unwrap() } else { value.to_string() });
        }

        #[test]
        fn a_written_text_is_read_unchanged(text in "\\PC*|[\u{0}-\u{7f}]{0,30}") {
            let mut out = String::new();
            write_text(&mut out, &text);
            prop_assert_eq!(serde_json::from_str::<String>(&out).unwrap(), text);
        }

        #[test]
        fn foreign_text_never_panics(text in "[{}\\[\\]\":,\\\\a1 é]{0,30}", path in "[a.]{0,4}") {
            let _ = find(&text, &path);
            fields(&text).for_each(drop);
            elements(&text).for_each(drop);
            let _ = super::text(&text);
        }
    }
}
