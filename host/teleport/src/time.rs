//! Times as text, as the store keeps them, and as protobuf timestamps.

use std::time::Duration;

use lockgate_model::Millis;

/// A time as people read it, in RFC 3339, in UTC.
pub fn rfc3339(millis: Millis) -> String {
    time(millis)
}

/// Parses a time in RFC 3339.
pub fn of_rfc3339(text: &str) -> Option<Millis> {
    parse_time(text)
}

/// Formats a time as the store keeps it.
pub(crate) fn time(millis: Millis) -> String {
    jiff::Timestamp::from_millisecond(millis)
        .map_or_else(|_| format!("{millis} ms"), |time| time.to_string())
}

/// Parses a time as the store keeps it.
pub(crate) fn parse_time(text: &str) -> Option<Millis> {
    text.parse::<jiff::Timestamp>()
        .ok()
        .map(|time| time.as_millisecond())
}

pub(crate) fn to_proto(millis: Millis) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: millis.div_euclid(1000),
        nanos: (millis.rem_euclid(1000) * 1_000_000) as i32,
    }
}

/// Rounds down to a millisecond. An absent time is the Unix epoch, as in protobuf.
pub(crate) fn of_proto(time: Option<&prost_types::Timestamp>) -> Millis {
    time.map_or(0, |time| {
        time.seconds
            .saturating_mul(1000)
            .saturating_add(i64::from(time.nanos).div_euclid(1_000_000))
    })
}

/// A span as an operator says it.
pub(crate) fn words(span: Duration) -> String {
    let secs = span.as_secs();
    match secs {
        _ if secs > 0 && secs.is_multiple_of(3600) => format!("{} h", secs / 3600),
        _ if secs > 0 && secs.is_multiple_of(60) => format!("{} min", secs / 60),
        _ => format!("{} s", span.as_secs_f64()),
    }
}
