//! The documents of a request: one JSON object, or an array of objects. They are read in one pass
//! that keeps only their ids, because the receiver shares a machine with the host that it measures.

use std::collections::hash_map::DefaultHasher;
use std::fmt;
use std::hash::Hasher;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// The documents of one request.
#[derive(Debug, PartialEq)]
pub(super) struct Documents {
    /// One per document: a hash of its `uid`, else of its `event.id` (an event mapped to ECS), else
    /// of its text.
    pub(super) ids: Vec<u128>,
    /// Each document as one line, if asked for.
    pub(super) lines: Vec<u8>,
}

/// Reads a body. Stricter than real receivers, to find bodies that they would lose silently: text
/// must be UTF-8; NDJSON, truncated JSON, scalars and lone surrogates are errors.
pub(super) fn read(body: &[u8], lines: bool) -> Result<Documents, String> {
    let text = std::str::from_utf8(body).map_err(|error| format!("not UTF-8: {error}"))?;
    if text.contains("\\ud") || text.contains("\\uD") {
        // Skipping a value does not check its escapes; reading it does.
        serde_json::from_str::<serde_json::Value>(text).map_err(|error| error.to_string())?;
    }
    let found: OneOrMany<Id> = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let mut ids: Vec<u128> = found.0.iter().map(|id| id.0.unwrap_or_default()).collect();
    let mut out = Vec::new();
    if lines || found.0.iter().any(|id| id.0.is_none()) {
        let raw: OneOrMany<&RawValue> = match text.trim_start().starts_with('[') {
            true => serde_json::from_str(text),
            false => serde_json::from_str(text).map(|one| OneOrMany(vec![one])),
        }
        .map_err(|error| error.to_string())?;
        for ((document, id), slot) in raw.0.iter().zip(&found.0).zip(&mut ids) {
            if id.0.is_none() {
                *slot = hash(document.get().as_bytes());
            }
            if lines {
                line(document.get(), &mut out);
            }
        }
    }
    Ok(Documents { ids, lines: out })
}

/// A 128-bit hash, comparable only within this process: the standard library may change its hash
/// function.
pub(super) fn hash(text: &[u8]) -> u128 {
    let [high, low] = [0u8, 1].map(|half| {
        let mut hasher = DefaultHasher::new();
        hasher.write_u8(half);
        hasher.write(text);
        hasher.finish()
    });
    (u128::from(high) << 64) | u128::from(low)
}

fn line(document: &str, out: &mut Vec<u8>) {
    // In valid JSON, line breaks occur only between tokens.
    match document.contains(['\n', '\r']) {
        true => out.extend(document.bytes().map(|byte| {
            if matches!(byte, b'\n' | b'\r') {
                b' '
            } else {
                byte
            }
        })),
        false => out.extend_from_slice(document.as_bytes()),
    }
    out.push(b'\n');
}

struct OneOrMany<T>(Vec<T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for OneOrMany<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visit<T>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Visit<T> {
            type Value = OneOrMany<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object or an array of objects")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
                let mut all = Vec::new();
                while let Some(item) = items.next_element()? {
                    all.push(item);
                }
                Ok(OneOrMany(all))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                T::deserialize(serde::de::value::MapAccessDeserializer::new(map))
                    .map(|one| OneOrMany(vec![one]))
            }
        }
        deserializer.deserialize_any(Visit(std::marker::PhantomData))
    }
}

/// The id of one document. Any JSON except an object is an error.
struct Id(Option<u128>);

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Id, D::Error> {
        struct Visit;
        impl<'de> Visitor<'de> for Visit {
            type Value = Id;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Id, A::Error> {
                let (mut uid, mut mapped) = (None, None);
                while let Some(key) = map.next_key::<Key>()? {
                    match key {
                        Key::Uid => uid = map.next_value::<Text>()?.0,
                        Key::Event => mapped = map.next_value::<EventId>()?.0,
                        Key::Other => drop(map.next_value::<IgnoredAny>()?),
                    }
                }
                Ok(Id(uid.or(mapped)))
            }
        }
        deserializer.deserialize_map(Visit)
    }
}

enum Key {
    Uid,
    Event,
    Other,
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Key, D::Error> {
        struct Visit;
        impl Visitor<'_> for Visit {
            type Value = Key;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key")
            }

            fn visit_str<E>(self, key: &str) -> Result<Key, E> {
                Ok(match key {
                    "uid" => Key::Uid,
                    "event" => Key::Event,
                    _ => Key::Other,
                })
            }
        }
        deserializer.deserialize_identifier(Visit)
    }
}

/// The hash of a non-empty string; `None` for other values.
struct Text(Option<u128>);
/// The hash of `id` in an object; `None` for other values.
struct EventId(Option<u128>);

macro_rules! or_none {
    ($name:ident, $lifetime:lifetime, { $($visit:item)* }) => {
        impl<$lifetime> Deserialize<$lifetime> for $name {
            fn deserialize<D: Deserializer<$lifetime>>(deserializer: D) -> Result<$name, D::Error> {
                struct Visit;
                impl<$lifetime> Visitor<$lifetime> for Visit {
                    type Value = $name;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str("a value")
                    }

                    fn visit_unit<E>(self) -> Result<$name, E> {
                        Ok($name(None))
                    }

                    fn visit_bool<E>(self, _: bool) -> Result<$name, E> {
                        Ok($name(None))
                    }

                    fn visit_i64<E>(self, _: i64) -> Result<$name, E> {
                        Ok($name(None))
                    }

                    fn visit_u64<E>(self, _: u64) -> Result<$name, E> {
                        Ok($name(None))
                    }

                    fn visit_f64<E>(self, _: f64) -> Result<$name, E> {
                        Ok($name(None))
                    }

                    fn visit_seq<A: SeqAccess<$lifetime>>(self, mut items: A) -> Result<$name, A::Error> {
                        while items.next_element::<IgnoredAny>()?.is_some() {}
                        Ok($name(None))
                    }

                    $($visit)*
                }
                deserializer.deserialize_any(Visit)
            }
        }
    };
}

or_none!(Text, 'de, {
    fn visit_str<E>(self, text: &str) -> Result<Text, E> {
        Ok(Text((!text.is_empty()).then(|| hash(text.as_bytes()))))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Text, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Text(None))
    }
});

or_none!(EventId, 'de, {
    fn visit_str<E>(self, _: &str) -> Result<EventId, E> {
        Ok(EventId(None))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<EventId, A::Error> {
        let mut id = None;
        while let Some(key) = map.next_key::<std::borrow::Cow<'_, str>>()? {
            match &*key {
                "id" => id = map.next_value::<Text>()?.0,
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(EventId(id))
    }
});

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> u128 {
        hash(text.as_bytes())
    }

    #[test]
    fn ids_come_from_uid_then_event_id_then_the_text() {
        for (body, expected) in [
            (r#"{"uid":"u-1","event":"x"}"#, vec![id("u-1")]),
            (
                " [ {\"uid\":\"u-1\"} ,\n{\"a\":{\"uid\":\"no\"},\"uid\":\"u-2\"}]\n",
                vec![id("u-1"), id("u-2")],
            ),
            (r#"{"event":{"kind":"event","id":"e-1"}}"#, vec![id("e-1")]),
            (r#"{"event":{"id":"e-1"},"uid":"u-1"}"#, vec![id("u-1")]),
            (
                r#"[{"a":1},{"uid":"u-1"}]"#,
                vec![id(r#"{"a":1}"#), id("u-1")],
            ),
            (
                r#"{"uid":7,"event":["x"]}"#,
                vec![id(r#"{"uid":7,"event":["x"]}"#)],
            ),
            (
                r#"{"uid":"","event":{"id":null}}"#,
                vec![id(r#"{"uid":"","event":{"id":null}}"#)],
            ),
            (
                r#"{"uid":"\u0061\u00e9\ud83d\udd25"}"#,
                vec![id("a\u{e9}\u{1f525}")],
            ),
            ("[]", vec![]),
        ] {
            assert_eq!(
                read(body.as_bytes(), false).map(|documents| documents.ids),
                Ok(expected),
                "{body}"
            );
        }
    }

    #[test]
    fn bodies_that_receivers_would_lose_are_errors() {
        for body in [
            &b""[..],
            b"null",
            b"1",
            b"\"x\"",
            b"{\"uid\":\"a\"}\n{\"uid\":\"b\"}",
            b"[{\"uid\":\"a\"},1]",
            b"[[{\"uid\":\"a\"}]]",
            b"[{\"uid\":\"a\"}",
            b"[{\"uid\":\"a\"},]",
            b"{\"uid\":\"a\",\"n\":NaN}",
            b"{\"uid\":\"a\",\"x\":\"\\ud83d\"}",
            b"{\"uid\":\"a\",\"x\":\"\xff\"}",
            b"{\"uid\":\"a\",\"x\":\"\n\"}",
            b"{\"uid\":\"a\",\"uid\"}",
        ] {
            assert!(
                read(body, true).is_err(),
                "{}",
                String::from_utf8_lossy(body)
            );
        }
    }

    #[test]
    fn captured_documents_are_one_line_each() {
        let documents =
            read(b"[{\"uid\":\"a\",\n \"b\":1},{\"uid\":\"c\"}]", true).expect("documents");
        assert_eq!(
            documents.lines,
            b"{\"uid\":\"a\",  \"b\":1}\n{\"uid\":\"c\"}\n"
        );
        assert_eq!(
            read(b" {\"uid\":\"a\"} ", true).expect("a document").lines,
            b"{\"uid\":\"a\"}\n"
        );
    }
}
