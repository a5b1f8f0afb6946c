//! A `time` that Fluentd's documented `time_format %Y-%m-%dT%H:%M:%S` accepts.
//!
//! Observed with Fluentd 1.18: the parser ignores text after the seconds. With another
//! `time_format`, such as `%iso8601`, it reads the zone. A `time` of another form, or with a zone
//! that is not on the map, or one that is not a string, makes it refuse the whole request. A
//! document without `time` gets its time of arrival.

use lockgate_plugin::Timestamp;
use lockgate_plugin::json::{self, Malformed};
use lockgate_plugin::time::{Rfc3339, days_in_month};

/// The payload with the event's time, or `None` if it need not change.
pub fn repair(payload: &str, time: Timestamp) -> Result<Option<String>, Malformed> {
    if is_fine(payload) {
        Ok(None)
    } else {
        walk(payload, time)
    }
}

/// The key and the beginning of the value, as the host writes them.
const KEY: &[u8; 8] = b"\"time\":\"";

/// Whether the payload certainly has an accepted `time`; `false` means unknown. This recognises
/// most documents without scanning them from the beginning.
///
/// The match could be inside a user's text. So the quote before it must follow a `{` or a `,`.
/// Inside a string, a quote can only follow a backslash, so this quote begins or ends a string. If
/// it ended one, `time` would be outside any string, which is invalid JSON. So the match is the
/// complete key `time`, followed by its value. It belongs to the document, and not to an inner
/// object, if the enclosing object ends where the document ends. It is the only one, because the
/// host guarantees unique keys.
fn is_fine(payload: &str) -> bool {
    let bytes = payload.as_bytes();
    let Some(at) = last_key(bytes).filter(|&at| at > 0 && matches!(bytes[at - 1], b'{' | b','))
    else {
        return false;
    };
    let value = &payload[at + KEY.len()..];
    value
        .find('"')
        .is_some_and(|end| is_accepted(&value[..end]))
        && json::enclosing_end(payload, at) == Ok(payload.len())
}

/// How far the search may step back from a byte: to the next position of that byte in the key.
const STEPS: [u8; 256] = {
    let mut steps = [KEY.len() as u8; 256];
    let mut at = KEY.len() - 1;
    while at > 0 {
        steps[KEY[at] as usize] = at as u8;
        at -= 1;
    }
    steps
};

/// The last position of [`KEY`], by Horspool's algorithm from the end: keys are sorted, and `time`
/// is one of the last.
fn last_key(bytes: &[u8]) -> Option<usize> {
    let mut at = bytes.len().checked_sub(KEY.len())?;
    while bytes[at] != KEY[0] || bytes[at..at + KEY.len()] != *KEY {
        at = at.checked_sub(STEPS[usize::from(bytes[at])].into())?;
    }
    Some(at)
}

fn walk(payload: &str, time: Timestamp) -> Result<Option<String>, Malformed> {
    let mut own = None;
    for field in json::fields(payload) {
        let field = field?;
        if field.key() == "time" {
            own = Some(field);
        }
    }
    if let Some(field) = own {
        if json::text(field.value).is_some_and(|text| is_accepted(&text)) {
            return Ok(None);
        }
        let (before, after) = (&payload[..field.value_start], &payload[field.end..]);
        // Fluentd counts seconds from 1970 on. Go's zero time, of the year 1, is earlier.
        let time = Rfc3339(time.max(0));
        return Ok(Some(format!("{before}\"{time}\"{after}")));
    }
    Ok(None)
}

/// Whether the text begins with a date from the year 1000 on and a time of day, followed by the
/// rest of RFC 3339 or nothing.
fn is_accepted(text: &str) -> bool {
    let bytes = text.as_bytes();
    let Some((start, rest)) = bytes.split_first_chunk::<19>() else {
        return false;
    };
    let separators = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')];
    if separators.iter().any(|&(at, byte)| start[at] != byte) {
        return false;
    }
    let number = |range: std::ops::Range<usize>| {
        start[range].iter().try_fold(0u32, |number, byte| {
            byte.is_ascii_digit()
                .then(|| number * 10 + u32::from(byte - b'0'))
        })
    };
    let (Some(year), Some(month), Some(day)) = (number(0..4), number(5..7), number(8..10)) else {
        return false;
    };
    let (Some(hour), Some(minute), Some(second)) = (number(11..13), number(14..16), number(17..19))
    else {
        return false;
    };
    year >= 1000
        && (1..=days_in_month(year, month)).contains(&day)
        && hour < 24
        && minute < 60
        && second < 60
        && is_end(rest)
}

/// A fraction and a zone, either of which may be absent.
fn is_end(rest: &[u8]) -> bool {
    let zone = match rest.split_first() {
        Some((b'.', rest)) => {
            let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
            if digits == 0 {
                return false;
            }
            &rest[digits..]
        }
        _ => rest,
    };
    match zone {
        [] | [b'Z'] => true,
        [b'+' | b'-', hours @ .., b':', _, _] if hours.len() == 2 => {
            let minutes = &zone[4..];
            let is_number = |digits: &[u8]| digits.iter().all(u8::is_ascii_digit);
            is_number(hours) && is_number(minutes) && hours < &b"24"[..] && minutes < &b"60"[..]
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    const TIME: Timestamp = 1_767_600_000_123;

    #[test]
    fn a_time_that_fluentd_refuses_is_replaced_by_the_events() {
        for (payload, expected) in [
            (r#"{"a":1,"time":"2026-01-05T08:00:00.123Z","z":2}"#, None),
            (r#"{"time":"2026-01-05T08:00:00Z"}"#, None),
            (r#"{"time":"2024-02-29T23:59:59.000000001+02:00"}"#, None),
            (r#"{"time":"2026-01-05T08:00:00"}"#, None),
            (r#"{"\u0074ime":"2026\u002d01-05T08:00:00Z"}"#, None),
            (r#"{"time":"1000-01-01T00:00:00-23:59"}"#, None),
            (
                r#"{"time":"2026-01-05T08:00:00+99:99"}"#,
                Some(r#"{"time":"2026-01-05T08:00:00.123Z"}"#),
            ),
            (
                r#"{"time":"2026-01-05T08:00:00.5-24:00"}"#,
                Some(r#"{"time":"2026-01-05T08:00:00.123Z"}"#),
            ),
            (
                r#"{"time":"2026-01-05T08:00:00+02:60"}"#,
                Some(r#"{"time":"2026-01-05T08:00:00.123Z"}"#),
            ),
            (
                r#"{"time":"0999-12-31T23:59:59Z"}"#,
                Some(r#"{"time":"2026-01-05T08:00:00.123Z"}"#),
            ),
            (
                r#"{"time":1767600000}"#,
                Some(r#"{"time":"2026-01-05T08:00:00.123Z"}"#),
            ),
            (
                r#"{"a":1, "time" : null ,"z":2}"#,
                Some(r#"{"a":1, "time" : "2026-01-05T08:00:00.123Z" ,"z":2}"#),
            ),
            (
                r#"{"time":{"time":"2026-01-05T08:00:00Z"}}"#,
                Some(r#"{"time":"2026-01-05T08:00:00.123Z"}"#),
            ),
            (
                r#"{"time":"yesterday"}"#,
                Some(r#"{"time":"2026-01-05T08:00:00.123Z"}"#),
            ),
            (
                r#"{"time":""}"#,
                Some(r#"{"time":"2026-01-05T08:00:00.123Z"}"#),
            ),
            (
                r#"{"time":"2026-02-29T08:00:00Z"}"#,
                Some(r#"{"time":"2026-01-05T08:00:00.123Z"}"#),
            ),
            (
                r#"{"time":"2026-01-05 08:00:00Z"}"#,
                Some(r#"{"time":"2026-01-05T08:00:00.123Z"}"#),
            ),
            (
                r#"{"time":"2026-01-05T24:00:00Z"}"#,
                Some(r#"{"time":"2026-01-05T08:00:00.123Z"}"#),
            ),
            (
                r#"{"time":"2026-01-05T08:00:00.Z"}"#,
                Some(r#"{"time":"2026-01-05T08:00:00.123Z"}"#),
            ),
            (
                r#"{"time":"2026-01-05T08:00:00Zulu"}"#,
                Some(r#"{"time":"2026-01-05T08:00:00.123Z"}"#),
            ),
            (
                r#"{"time":"+026-01-05T08:00:00Z"}"#,
                Some(r#"{"time":"2026-01-05T08:00:00.123Z"}"#),
            ),
            // Texts that look like a good time of the document, but are not.
            (
                r#"{"a":"\"time\":\"2026-01-05T08:00:00Z\"","time":5}"#,
                Some(
                    r#"{"a":"\"time\":\"2026-01-05T08:00:00Z\"","time":"2026-01-05T08:00:00.123Z"}"#,
                ),
            ),
            // A document without `time` is unchanged.
            (r#"{"a":{"time":5}}"#, None),
            (r#"{"x\"time":5}"#, None),
            ("{}", None),
        ] {
            assert_eq!(
                repair(payload, TIME).unwrap().as_deref(),
                expected,
                "{payload}"
            );
        }
    }

    #[test]
    fn values_other_than_objects_are_refused() {
        for payload in ["", "[]", "1", r#"{"a":1"#, r#"{"a":1}{"b":2}"#] {
            assert!(repair(payload, TIME).is_err(), "{payload}");
        }
    }

    #[test]
    fn an_event_without_a_sane_time_gets_an_acceptable_one() {
        for time in [i64::MIN, -62_135_596_800_000, 0, i64::MAX] {
            let repaired = repair(r#"{"time":""}"#, time).unwrap().unwrap();
            assert_eq!(repair(&repaired, time), Ok(None), "{repaired}");
        }
        let of_zero = repair(r#"{"time":"0001-01-01T00:00:00Z"}"#, -62_135_596_800_000);
        let expected = r#"{"time":"1970-01-01T00:00:00.000Z"}"#;
        assert_eq!(of_zero.unwrap().as_deref(), Some(expected));
    }

    proptest! {
        #[test]
        fn the_last_key_is_found(text in "[\"time:,{}]{0,6}((\"time\":\"){0,2}[\"time:,{}x]{0,9}){0,3}") {
            prop_assert_eq!(last_key(text.as_bytes()), text.rfind(r#""time":""#), "{}", text);
        }

        /// Objects full of texts that look like a good time: the quick check never accepts one that
        /// the scan would repair.
        #[test]
        fn the_quick_check_is_never_wrong(value in lookalike()) {
            let payload = json!({"a": value[0], "server\\": value[1], "time": value[2], "z": value[3]}).to_string();
            let without = json!({"a": value[0], "x\"time": value[2], "z": value[3]}).to_string();
            for payload in [payload, without] {
                if is_fine(&payload) {
                    prop_assert_eq!(walk(&payload, TIME), Ok(None), "{}", payload);
                }
            }
        }
    }

    fn lookalike() -> impl Strategy<Value = Vec<Value>> {
        let leaf = prop_oneof![
            Just(json!("2026-01-05T08:00:00Z")),
            Just(json!(r#"","time":"2026-01-05T08:00:00Z""#)),
            Just(json!(r#"{"time":"2026-01-05T08:00:00Z"}"#)),
            Just(json!({"time": "2026-01-05T08:00:00Z"})),
            Just(json!("\\")),
            Just(json!(5)),
        ];
        let nested = leaf.prop_recursive(3, 16, 4, |inner| {
            let keys = prop_oneof![Just("time"), Just(",\"time"), Just("\\"), Just("{")];
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::hash_map(keys, inner, 0..4)
                    .prop_map(|map| map.into_iter().collect()),
            ]
        });
        prop::collection::vec(nested, 4)
    }
}
