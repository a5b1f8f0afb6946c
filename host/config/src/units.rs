//! Quantities with units: `"30s"`, `"64 MiB"`, `"2000/s"`.

use std::time::Duration;

use lockgate_model::SIZE_FACTORS;

/// The units, as messages list them.
pub(crate) const TIME_UNITS: &str = "`ms`, `s`, `m`, `h` and `d`";
pub(crate) const SIZE_UNITS: &str = "`B`, `kB`, `KiB`, `MB`, `MiB`, `GB`, `GiB`, `TB` and `TiB`";
pub(crate) const SHARE_UNITS: &str = "`%`";
pub(crate) const RATE_UNITS: &str = "`/s`, `/m` and `/h`";

const TIMES: [(&str, u64); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

/// A limit of events per unit of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventRate {
    pub events: u64,
    pub per: Duration,
}

impl EventRate {
    pub fn per_second(self) -> f64 {
        self.events as f64 / self.per.as_secs_f64()
    }
}

/// The problem with a quantity, as the end of a sentence that starts with its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum UnitIssue {
    NoNumber,
    NoUnit,
    UnknownUnit(String),
    Fraction,
    /// More decimals than are counted.
    TooFine,
    TooLarge,
}

/// Parses a duration. Parts may follow each other from large to small, as in `1h30m`.
pub(crate) fn duration(text: &str) -> Result<Duration, UnitIssue> {
    let mut rest = text.trim();
    let mut millis = 0u64;
    let mut last = u64::MAX;
    loop {
        let (number, unit, after) = number_and_unit(rest)?;
        let factor = factor(unit, &TIMES)?;
        if factor >= last {
            return Err(UnitIssue::UnknownUnit(format!(
                "{unit} after a unit that is not larger"
            )));
        }
        last = factor;
        millis = number
            .checked_mul(factor)
            .and_then(|part| millis.checked_add(part))
            .ok_or(UnitIssue::TooLarge)?;
        rest = after.trim_start();
        if rest.is_empty() {
            return Ok(Duration::from_millis(millis));
        }
    }
}

/// Parses a duration on a command line, written as in the file: `25ms`, `1h30m`.
pub fn duration_argument(text: &str) -> Result<Duration, String> {
    duration(text).map_err(|_| {
        format!(
            "a duration is a whole number with one of the units {TIME_UNITS}, for example `25ms`"
        )
    })
}

/// A size of a command line, written as in the file: `64 MiB`. `Err`: what it should be.
pub fn size_argument(text: &str) -> Result<u64, String> {
    size(text).map_err(|_| {
        format!("a size is a whole number with one of the units {SIZE_UNITS}, such as `64 MiB`")
    })
}

/// Bytes.
pub(crate) fn size(text: &str) -> Result<u64, UnitIssue> {
    let (number, unit, rest) = number_and_unit(text.trim())?;
    if !rest.is_empty() {
        return Err(UnitIssue::UnknownUnit(format!("{unit}{rest}")));
    }
    number
        .checked_mul(factor(unit, &SIZE_FACTORS)?)
        .ok_or(UnitIssue::TooLarge)
}

pub(crate) fn rate(text: &str) -> Result<EventRate, UnitIssue> {
    let (number, unit) = text.split_once('/').unwrap_or((text, ""));
    let number = number.trim();
    if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(if number.contains('.') {
            UnitIssue::Fraction
        } else {
            UnitIssue::NoNumber
        });
    }
    let per = match unit.trim() {
        "" => return Err(UnitIssue::NoUnit),
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        other => return Err(UnitIssue::UnknownUnit(format!("/{other}"))),
    };
    Ok(EventRate {
        events: number.parse().map_err(|_| UnitIssue::TooLarge)?,
        per: Duration::from_secs(per),
    })
}

/// Thousandths: `1%` is 10, `0.5%` is 5.
pub(crate) fn share(text: &str) -> Result<u32, UnitIssue> {
    let text = text.trim();
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.strip_suffix('%').unwrap_or(text).trim_end();
    let (whole, decimals) = number.split_once('.').unwrap_or((number, "0"));
    if !digits(whole) || !digits(decimals) {
        return Err(UnitIssue::NoNumber);
    }
    if !text.ends_with('%') {
        return Err(UnitIssue::NoUnit);
    }
    let tenths: u32 = match decimals.trim_end_matches('0') {
        "" => 0,
        tenths if tenths.len() == 1 => tenths.parse().map_err(|_| UnitIssue::TooFine)?,
        _ => return Err(UnitIssue::TooFine),
    };
    let whole: u32 = whole.parse().map_err(|_| UnitIssue::TooLarge)?;
    let share = whole.checked_mul(10).ok_or(UnitIssue::TooLarge)?;
    share.checked_add(tenths).ok_or(UnitIssue::TooLarge)
}

/// The shortest text that [`share`] reads as the same.
pub(crate) fn show_share(thousandths: u32) -> String {
    match (thousandths / 10, thousandths % 10) {
        (whole, 0) => format!("{whole}%"),
        (whole, tenths) => format!("{whole}.{tenths}%"),
    }
}

/// The shortest text that [`duration`] reads as the same.
pub fn show_duration(duration: Duration) -> String {
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let (unit, factor) = TIMES
        .into_iter()
        .find(|(_, factor)| millis > 0 && millis.is_multiple_of(*factor))
        .unwrap_or(("s", 1_000));
    // People say 24h, not 1d.
    if unit == "d" && millis == factor {
        "24h".into()
    } else {
        format!("{}{unit}", millis / factor)
    }
}

fn number_and_unit(text: &str) -> Result<(u64, &str, &str), UnitIssue> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let rest = &text[digits..];
    if digits == 0 {
        return Err(UnitIssue::NoNumber);
    }
    if rest.starts_with('.') || rest.starts_with(',') {
        return Err(UnitIssue::Fraction);
    }
    let number = text[..digits].parse().map_err(|_| UnitIssue::TooLarge)?;
    let rest = rest.trim_start();
    let unit = rest
        .find(|c: char| c.is_ascii_digit() || c.is_whitespace())
        .unwrap_or(rest.len());
    if unit == 0 {
        return Err(UnitIssue::NoUnit);
    }
    Ok((number, &rest[..unit], &rest[unit..]))
}

fn factor(unit: &str, units: &[(&str, u64)]) -> Result<u64, UnitIssue> {
    let found = units.iter().find(|(name, _)| *name == unit);
    found
        .map(|(_, factor)| *factor)
        .ok_or_else(|| UnitIssue::UnknownUnit(unit.to_owned()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use lockgate_model::show_size;

    use super::*;

    #[test]
    fn durations_parse() {
        for (text, millis) in [
            ("500ms", 500),
            ("1s", 1000),
            ("5m", 300_000),
            ("24h", 86_400_000),
            ("7d", 604_800_000),
            ("1h30m", 5_400_000),
            ("1 s", 1000),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for (text, issue) in [
            ("", UnitIssue::NoNumber),
            ("s", UnitIssue::NoNumber),
            ("-1s", UnitIssue::NoNumber),
            ("5", UnitIssue::NoUnit),
            ("1.5h", UnitIssue::Fraction),
            ("5 weeks", UnitIssue::UnknownUnit("weeks".into())),
            ("5M", UnitIssue::UnknownUnit("M".into())),
            ("99999999999999999999s", UnitIssue::TooLarge),
            ("999999999999999999d", UnitIssue::TooLarge),
        ] {
            assert_eq!(duration(text), Err(issue), "{text}");
        }
        assert!(duration("1m1h").is_err(), "small before large");
    }

    #[test]
    fn sizes_and_rates_parse() {
        for (text, bytes) in [
            ("64 MiB", 64 << 20),
            ("1GiB", 1 << 30),
            ("768 KiB", 768 << 10),
            ("100 kB", 100_000),
            ("0 B", 0),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for (text, issue) in [
            ("64", UnitIssue::NoUnit),
            ("64 mb", UnitIssue::UnknownUnit("mb".into())),
            ("1 MiB 2", UnitIssue::UnknownUnit("MiB 2".into())),
            ("1.5 GiB", UnitIssue::Fraction),
            ("99999999 TiB", UnitIssue::TooLarge),
        ] {
            assert_eq!(size(text), Err(issue), "{text}");
        }
        assert_eq!(
            rate("2000/s"),
            Ok(EventRate {
                events: 2000,
                per: Duration::from_secs(1)
            })
        );
        assert_eq!(
            rate("10 / h"),
            Ok(EventRate {
                events: 10,
                per: Duration::from_secs(3600)
            })
        );
        for (text, thousandths) in [("1%", 10), ("0.5 %", 5), ("100%", 1000), ("2.50%", 25)] {
            assert_eq!(share(text), Ok(thousandths), "{text}");
        }
        for (text, issue) in [
            ("1", UnitIssue::NoUnit),
            ("%", UnitIssue::NoNumber),
            ("-1%", UnitIssue::NoNumber),
            ("1.%", UnitIssue::NoNumber),
            ("0.25%", UnitIssue::TooFine),
            ("9999999999%", UnitIssue::TooLarge),
        ] {
            assert_eq!(share(text), Err(issue), "{text}");
        }
        assert_eq!(
            (show_share(10), show_share(5)),
            ("1%".into(), "0.5%".into())
        );
        assert_eq!(rate("2000"), Err(UnitIssue::NoUnit));
        assert_eq!(rate("fast/s"), Err(UnitIssue::NoNumber));
        assert_eq!(rate("5/day"), Err(UnitIssue::UnknownUnit("/day".into())));
    }

    proptest! {
        #[test]
        fn shown_quantities_parse_as_the_same_value(number in 0u64..1 << 50) {
            prop_assert_eq!(duration(&show_duration(Duration::from_millis(number))), Ok(Duration::from_millis(number)));
            prop_assert_eq!(size(&show_size(number)), Ok(number));
        }

        #[test]
        fn no_text_panics(text in ".{0,40}") {
            let _ = (duration(&text), size(&text), rate(&text));
        }
    }
}
