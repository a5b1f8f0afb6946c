//! Durations as Go's `time.ParseDuration` reads them.

use std::time::Duration;

const UNITS: [(&str, u128); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// `1m30s`, `1.5h`, `0`. `None`: it is not a duration, or negative.
pub(super) fn go_duration(text: &str) -> Option<Duration> {
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    if rest.is_empty() {
        return None;
    }
    let mut nanos: u128 = 0;
    while !rest.is_empty() {
        let number = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let after = &rest[number..];
        let unit = after.find(|c: char| c.is_ascii_digit() || c == '.');
        let (unit, next) = after.split_at(unit.unwrap_or(after.len()));
        let (_, factor) = UNITS.iter().find(|(name, _)| *name == unit)?;
        let (whole, fraction) = rest[..number]
            .split_once('.')
            .unwrap_or((&rest[..number], ""));
        if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
            return None;
        }
        let whole: u128 = if whole.is_empty() {
            0
        } else {
            whole.parse().ok()?
        };
        nanos = nanos.checked_add(whole.checked_mul(*factor)?)?;
        let fraction = &fraction[..fraction.len().min(18)];
        if !fraction.is_empty() {
            nanos += fraction.parse::<u128>().ok()? * factor / 10u128.pow(fraction.len() as u32);
        }
        rest = next;
    }
    // As much as Go's type holds.
    (nanos <= i64::MAX as u128).then(|| Duration::from_nanos(nanos as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_reads_them() {
        for (text, expected) in [
            ("10s", Some(10_000)),
            ("1m30s", Some(90_000)),
            ("24h", Some(86_400_000)),
            ("1.5h", Some(5_400_000)),
            (".5s", Some(500)),
            ("1s500ms", Some(1_500)),
            ("0", Some(0)),
            ("+2m", Some(120_000)),
            ("2000us", Some(2)),
            ("", None),
            ("5", None),
            ("1d", None),
            ("-1s", None),
            ("1.2.3s", None),
            (".s", None),
            ("s", None),
            ("99999999999999h", None),
        ] {
            let duration = go_duration(text).map(|duration| duration.as_millis());
            assert_eq!(duration, expected, "{text}");
        }
    }
}
