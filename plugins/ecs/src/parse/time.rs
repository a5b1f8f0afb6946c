//! ISO 8601.

use std::borrow::Cow;

use lockgate_plugin::time::{Rfc3339, days_in_month, days_since_epoch};

/// Like [`read`], but a text that already has the right form is unchanged.
pub fn parse(text: Cow<'_, str>) -> Option<Cow<'_, str>> {
    let bytes = text.as_bytes();
    let form = b"0000-00-00T00:00:00.000Z";
    let like = |(byte, form): (&u8, &u8)| {
        if *form == b'0' {
            byte.is_ascii_digit()
        } else {
            byte == form
        }
    };
    // Every month has days up to 28.
    let plain = bytes.len() == form.len()
        && bytes.iter().zip(form).all(like)
        && (&bytes[5..7] >= b"01" && &bytes[5..7] <= b"12")
        && (&bytes[8..10] >= b"01" && &bytes[8..10] <= b"28")
        && (&bytes[11..13] <= b"23" && bytes[14] <= b'5' && bytes[17] <= b'5');
    if plain {
        Some(text)
    } else {
        read(&text).map(Cow::Owned)
    }
}

/// Reads a date, or a date and a time with at least hours, as UTC with milliseconds. A time without
/// a zone is UTC. Finer fractions are truncated.
fn read(text: &str) -> Option<String> {
    let (date, rest) = text.split_at_checked(10)?;
    let (year, month, day) = (
        digits(date.get(..4)?)?,
        field(date, 4, '-')?,
        field(date, 7, '-')?,
    );
    if !(1..=days_in_month(year, month)).contains(&day) {
        return None;
    }
    let mut millis = 0;
    let mut offset = 0;
    if !rest.is_empty() {
        let rest = rest.strip_prefix('T')?;
        let (clock, zone) = rest.split_at(rest.find(['Z', '+', '-']).unwrap_or(rest.len()));
        millis = self::clock(clock)?;
        offset = self::zone(zone)?;
    }
    let time = days_since_epoch(i64::from(year), i64::from(month), i64::from(day)) * 86_400_000
        + millis
        - offset * 60_000;
    Some(Rfc3339(time).to_string())
}

/// Reads hours, minutes, seconds and a fraction, as milliseconds.
fn clock(text: &str) -> Option<i64> {
    let hours = digits(text.get(..2)?)?;
    let minutes = if text.len() > 2 {
        field(text, 2, ':')?
    } else {
        0
    };
    let seconds = if text.len() > 5 {
        field(text, 5, ':')?
    } else {
        0
    };
    let mut millis = 0;
    if text.len() > 8 {
        let fraction = text.get(8..)?.strip_prefix(['.', ','])?;
        digits(fraction).filter(|_| fraction.len() <= 9)?;
        millis = fraction
            .bytes()
            .chain(*b"000")
            .take(3)
            .fold(0, |millis, digit| millis * 10 + i64::from(digit - b'0'));
    }
    if hours > 23 || minutes > 59 || seconds > 59 {
        return None;
    }
    Some(i64::from(hours * 3600 + minutes * 60 + seconds) * 1000 + millis)
}

/// Reads a zone, as minutes east of UTC.
fn zone(text: &str) -> Option<i64> {
    let east = match text {
        "" | "Z" => return Some(0),
        _ => text
            .strip_prefix('+')
            .map(|digits| (1, digits))
            .or_else(|| text.strip_prefix('-').map(|digits| (-1, digits)))?,
    };
    let (sign, text) = east;
    let hours = digits(text.get(..2)?)?;
    let minutes = match text.get(2..)? {
        "" => 0,
        minutes => digits(minutes.strip_prefix(':').unwrap_or(minutes))
            .filter(|_| matches!(minutes.len(), 2 | 3))?,
    };
    if hours > 18 || minutes > 59 || (text.len() == 5 && !text[2..].starts_with(':')) {
        return None;
    }
    Some(sign * i64::from(hours * 60 + minutes))
}

/// Reads two digits after the sign at `at`.
fn field(text: &str, at: usize, sign: char) -> Option<u32> {
    digits(text.get(at..at + 3)?.strip_prefix(sign)?)
}

fn digits(text: &str) -> Option<u32> {
    let plain =
        !text.is_empty() && text.len() <= 9 && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_utc_with_milliseconds() {
        for (text, expected) in [
            ("2024-03-13T01:25:48.568Z", Some("2024-03-13T01:25:48.568Z")),
            ("2020-06-05T16:24:05Z", Some("2020-06-05T16:24:05.000Z")),
            (
                "2021-05-21T22:23:55.313999999Z",
                Some("2021-05-21T22:23:55.313Z"),
            ),
            ("2021-11-01T22:24:47,9Z", Some("2021-11-01T22:24:47.900Z")),
            ("2024-02-29", Some("2024-02-29T00:00:00.000Z")),
            ("2024-02-29T05", Some("2024-02-29T05:00:00.000Z")),
            ("2024-02-29T05:30", Some("2024-02-29T05:30:00.000Z")),
            (
                "2024-01-01T00:30:00+01:00",
                Some("2023-12-31T23:30:00.000Z"),
            ),
            ("2024-01-01T00:30:00-0130", Some("2024-01-01T02:00:00.000Z")),
            // The year would end in the middle of a character.
            ("abc\u{e9}\u{e9}\u{e9}+", None),
            ("2024-01-01T00:30:00+01", Some("2023-12-31T23:30:00.000Z")),
            ("0001-01-01T00:00:00Z", Some("0001-01-01T00:00:00.000Z")),
            ("1969-12-31T23:59:59.999Z", Some("1969-12-31T23:59:59.999Z")),
            ("2024-01-28T23:59:59.999Z", Some("2024-01-28T23:59:59.999Z")),
            ("2024-13-28T23:59:59.999Z", None),
            ("2024-01-28T23:60:59.999Z", None),
            ("2024-02-30T23:59:59.999Z", None),
            ("2023-02-29", None),
            ("2024-01-01T", None),
            ("2024-01-01T24:00:00Z", None),
            ("2024-01-01T00:00:00.1234567890Z", None),
            ("2024-01-01T00:00:00.Z", None),
            ("2024-01-01 00:00:00Z", None),
            ("2024-01-01T00:00:00Zé", None),
            ("2024-01-0é", None),
            ("202é-01-02", None),
            ("2024-01-02Té", None),
            ("2024-01-02T00+é1", None),
            ("", None),
        ] {
            assert_eq!(parse(text.into()).as_deref(), expected, "{text}");
        }
    }
}
