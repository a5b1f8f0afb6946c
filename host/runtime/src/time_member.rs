//! Whether a document's own time is one that its receiver will accept: looked at by the host, so
//! that the payload need not be copied into the sink.
//!
//! Payloads are known to be one JSON object without duplicate keys. The member's name has no quote
//! and no backslash, see `setup`.

use memchr::memmem::Finder;
use memchr::{memchr, memchr2};

use crate::json::unescape;

/// The name of the member, and what finds it in a payload.
#[derive(Debug)]
pub(crate) struct TimeMember {
    name: String,
    /// `"name"`
    key: Finder<'static>,
    /// `"name":"`
    key_and_quote: Finder<'static>,
}

impl TimeMember {
    pub(crate) fn new(name: &str) -> TimeMember {
        let finder = |text: String| Finder::new(text.as_bytes()).into_owned();
        TimeMember {
            name: name.to_owned(),
            key: finder(format!("\"{name}\"")),
            key_and_quote: finder(format!("\"{name}\":\"")),
        }
    }

    /// True where the payload's member is absent, or an RFC 3339 time with a zone.
    pub(crate) fn is_fine(&self, payload: &str) -> bool {
        if self.is_surely_fine(payload) {
            return true;
        }
        // A key that is not there in plain could only be there with escapes.
        let bytes = payload.as_bytes();
        if self.key.find(bytes).is_none() && memchr(b'\\', bytes).is_none() {
            return true;
        }
        match value(payload, &self.name) {
            None => true,
            Some(Value::Text(text)) if text.contains('\\') => is_rfc3339(&unescape(text)),
            Some(Value::Text(text)) => is_rfc3339(text),
            Some(Value::Other) => false,
        }
    }

    /// True where a good time is found without walking through the payload from its beginning;
    /// false decides nothing.
    ///
    /// A match may be a user's text instead of the key. A quote that follows `{` or `,` begins a
    /// string: inside a string it would follow a backslash, and a string that ends with `{` or `,`
    /// would be followed by a bare word. So it is a whole key, and it is a top-level one if the
    /// object around it ends where the payload ends.
    fn is_surely_fine(&self, payload: &str) -> bool {
        let bytes = payload.as_bytes();
        let key_len = self.key_and_quote.needle().len();
        self.key_and_quote.find_iter(bytes).any(|at| {
            let start = at + key_len;
            at > 0
                && matches!(bytes[at - 1], b'{' | b',')
                && memchr(b'"', &bytes[start..]).is_some_and(|len| {
                    is_rfc3339(&payload[start..start + len])
                        && container_end(bytes, start + len + 1) == bytes.len()
                })
        })
    }
}

enum Value<'a> {
    /// Without the quotes, with its escapes.
    Text(&'a str),
    Other,
}

/// The value of a top-level member.
fn value<'a>(payload: &'a str, member: &str) -> Option<Value<'a>> {
    let bytes = payload.as_bytes();
    let mut at = memchr(b'{', bytes)? + 1;
    loop {
        // A key, or the end of an empty object.
        let start = at + memchr2(b'"', b'}', &bytes[at..])?;
        if bytes[start] == b'}' {
            return None;
        }
        let end = string_end(bytes, start + 1);
        let key = &payload[start + 1..end - 1];
        let is_it = key == member || (key.contains('\\') && unescape(key) == member);
        at = end + memchr(b':', &bytes[end..])? + 1;
        while matches!(bytes.get(at), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            at += 1;
        }
        let value = at;
        at = match bytes.get(at)? {
            b'"' => string_end(bytes, at + 1),
            b'{' | b'[' => container_end(bytes, at + 1),
            _ => at,
        };
        if is_it {
            let is_text = bytes[value] == b'"';
            return Some(if is_text {
                Value::Text(&payload[value + 1..at - 1])
            } else {
                Value::Other
            });
        }
        // Past a number or a word, and the comma.
        at += memchr2(b',', b'}', &bytes[at..])?;
        if bytes[at] == b'}' {
            return None;
        }
        at += 1;
    }
}

/// Behind the closing quote of the string whose inside begins at `at`.
fn string_end(bytes: &[u8], mut at: usize) -> usize {
    while let Some(found) = memchr2(b'"', b'\\', bytes.get(at..).unwrap_or_default()) {
        at += found;
        if bytes[at] == b'"' {
            return at + 1;
        }
        at += 2;
    }
    bytes.len()
}

/// Behind the bracket that closes the object or list around `at`, which is not inside a string.
fn container_end(bytes: &[u8], mut at: usize) -> usize {
    let mut depth = 1;
    while let Some(byte) = bytes.get(at) {
        at += 1;
        match byte {
            b'"' => at = string_end(bytes, at),
            b'{' | b'[' => depth += 1,
            b'}' | b']' => {
                depth -= 1;
                if depth == 0 {
                    return at;
                }
            }
            _ => {}
        }
    }
    bytes.len() + 1
}

/// `2026-01-05T08:00:00.123Z`: a real date from the year 1000 on, up to nanoseconds, `Z` or an
/// offset within a day. Without leap seconds, which many receivers refuse.
fn is_rfc3339(text: &str) -> bool {
    let Some((start, rest)) = text.as_bytes().split_first_chunk::<19>() else {
        return false;
    };
    let separators = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')];
    if separators.iter().any(|&(at, byte)| start[at] != byte) {
        return false;
    }
    let date = (
        number(&start[..4]),
        number(&start[5..7]),
        number(&start[8..10]),
    );
    let time = (
        number(&start[11..13]),
        number(&start[14..16]),
        number(&start[17..]),
    );
    let ((Some(year), Some(month), Some(day)), (Some(hour), Some(minute), Some(second))) =
        (date, time)
    else {
        return false;
    };
    let zone = match rest {
        [b'.', fraction @ ..] => {
            let digits = fraction
                .iter()
                .take_while(|byte| byte.is_ascii_digit())
                .count();
            if !(1..=9).contains(&digits) {
                return false;
            }
            &fraction[digits..]
        }
        _ => rest,
    };
    year >= 1000
        && (1..=days_in_month(year, month)).contains(&day)
        && hour < 24
        && minute < 60
        && second < 60
        && is_zone(zone)
}

fn is_zone(zone: &[u8]) -> bool {
    match zone {
        [b'Z'] => true,
        [b'+' | b'-', hours @ .., b':', a, b] => {
            hours.len() == 2
                && number(hours).is_some_and(|hours| hours < 24)
                && number(&[*a, *b]).is_some_and(|minutes| minutes < 60)
        }
        _ => false,
    }
}

fn number(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0, |number, byte| {
        byte.is_ascii_digit()
            .then(|| number * 10 + u32::from(byte - b'0'))
    })
}

/// 0 where there is no such month.
fn days_in_month(year: u32, month: u32) -> u32 {
    match month {
        2 if year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)) => {
            29
        }
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Map, Value, json};

    use super::*;
    use crate::json::check_object;

    #[test]
    fn a_time_with_a_zone_is_fine_and_so_is_none() {
        for (payload, expected) in [
            ("{}", true),
            (" { } ", true),
            (r#"{"a":1}"#, true),
            (r#"{"a":1,"time":"2026-01-05T08:00:00.123Z","z":2}"#, true),
            (r#"{"time":"2024-02-29T23:59:59.000000001+02:00"}"#, true),
            (r#"{ "time" : "2026-01-05T08:00:00-23:59" }"#, true),
            (r#"{"\u0074ime":"2026\u002d01-05T08:00:00Z"}"#, true),
            (r#"{"time":"2026-01-05T08:00:00"}"#, false),
            (r#"{"time":"2026-01-05T08:00:00+24:00"}"#, false),
            (r#"{"time":"2026-01-05T08:00:00+02:60"}"#, false),
            (r#"{"time":"2026-01-05T08:00:00+0200"}"#, false),
            (r#"{"time":"0999-01-05T08:00:00Z"}"#, false),
            (r#"{"time":"2026-02-29T08:00:00Z"}"#, false),
            (r#"{"time":"2026-01-05T24:00:00Z"}"#, false),
            (r#"{"time":"2026-01-05T08:00:00.Z"}"#, false),
            (r#"{"time":"2026-01-05 08:00:00Z"}"#, false),
            (r#"{"time":"2026-01-05T08:00:00Zulu"}"#, false),
            (r#"{"time":1767600000}"#, false),
            (r#"{"a":1, "time" : null ,"z":2}"#, false),
            (r#"{"\u0074ime":null}"#, false),
            (r#"{"time":["2026-01-05T08:00:00Z"]}"#, false),
            // A time that is good or bad, but not the document's own.
            (r#"{"a":{"time":"2026-01-05T08:00:00Z"},"time":5}"#, false),
            (r#"{"time":{"time":"2026-01-05T08:00:00Z"}}"#, false),
            (r#"{"a":{"time":5}}"#, true),
            (r#"{"a":"\"time\":5","time":"2026-01-05T08:00:00Z"}"#, true),
            (
                r#"{"a":"\"time\":\"2026-01-05T08:00:00Z\"","time":5}"#,
                false,
            ),
            (r#"{"x\"time":"2026-01-05T08:00:00Z","\"time":5}"#, true),
            (r#"{"a":["time",5],"b":"time"}"#, true),
        ] {
            assert_eq!(
                TimeMember::new("time").is_fine(payload),
                expected,
                "{payload}"
            );
        }
    }

    proptest! {
        #[test]
        fn the_host_sees_what_a_parser_sees(object in object(), pretty in any::<bool>(), escaped in any::<bool>()) {
            let value = Value::Object(object);
            let mut payload = if pretty {
                serde_json::to_string_pretty(&value).unwrap()
            } else {
                value.to_string()
            };
            if escaped {
                payload = payload.replace("ime", "\\u0069me");
            }
            prop_assert_eq!(check_object(&payload), Ok(()));
            let parsed: Value = serde_json::from_str(&payload).unwrap();
            let expected = match parsed.get("time") {
                None => true,
                Some(Value::String(text)) => is_rfc3339(text),
                Some(_) => false,
            };
            prop_assert_eq!(TimeMember::new("time").is_fine(&payload), expected, "{}", payload);
        }
    }

    /// Objects full of what looks like the member.
    fn object() -> impl Strategy<Value = Map<String, Value>> {
        let leaf = prop_oneof![
            Just(json!("2026-01-05T08:00:00Z")),
            Just(json!("2026-01-05T08:00:00")),
            Just(json!(r#"","time":"2026-01-05T08:00:00Z""#)),
            Just(json!(r#"{"time":"2026-01-05T08:00:00Z"}"#)),
            Just(json!("time")),
            Just(json!("\\")),
            Just(json!("{,\"")),
            Just(json!(5)),
            Just(json!(null)),
        ];
        let keys = || {
            prop_oneof![
                Just("time".to_owned()),
                Just(",\"time".to_owned()),
                Just("\\".to_owned()),
                Just("{".to_owned()),
                Just("b\"time\":\"".to_owned()),
            ]
        };
        let nested = leaf.prop_recursive(3, 16, 4, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(keys(), inner, 0..4)
                    .prop_map(|map| map.into_iter().collect()),
            ]
        });
        prop::collection::btree_map(keys(), nested, 0..5).prop_map(|map| map.into_iter().collect())
    }
}
