//! Times and days, as numbers and as text.

use std::fmt;

/// Milliseconds since the Unix epoch, UTC. Signed: Teleport sends Go's zero time (year 1).
pub type Millis = i64;

/// A UTC day, counted from 1970-01-01. Prints as `2026-01-31`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Day(pub i32);

impl Day {
    pub const MILLIS: i64 = 86_400_000;

    pub fn of(time: Millis) -> Day {
        Day(time
            .div_euclid(Self::MILLIS)
            .clamp(i32::MIN.into(), i32::MAX.into()) as i32)
    }

    pub fn start(self) -> Millis {
        i64::from(self.0) * Self::MILLIS
    }

    /// The inverse of [`date`](Self::date). `None`: the calendar has no such day.
    pub fn from_date(year: i64, month: u8, day: u8) -> Option<Day> {
        let shifted_month = (i64::from(month) + 9) % 12;
        let shifted_year = year.checked_sub(i64::from(month <= 2))?;
        let (era, year_of_era) = (shifted_year.div_euclid(400), shifted_year.rem_euclid(400));
        let day_of_year = (153 * shifted_month + 2) / 5 + i64::from(day) - 1;
        let day_of_era = 365 * year_of_era + year_of_era / 4 - year_of_era / 100 + day_of_year;
        let days = era.checked_mul(146_097)? + day_of_era - 719_468;
        let found = Day(i32::try_from(days).ok()?);
        (found.date() == (year, month, day)).then_some(found)
    }

    /// Year, month from 1 and day of the month from 1, in the proleptic Gregorian calendar.
    pub fn date(self) -> (i64, u8, u8) {
        // Years begin on 1 March, so that a leap day is the last day of a year.
        let z = i64::from(self.0) + 719_468;
        let era = z.div_euclid(146_097);
        let day_of_era = z.rem_euclid(146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted_month = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
        let month = if shifted_month < 10 {
            shifted_month + 3
        } else {
            shifted_month - 9
        };
        let year = year_of_era + era * 400 + i64::from(month <= 2);
        (year, month as u8, day as u8)
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = self.date();
        write!(f, "{year:04}-{month:02}-{day:02}")
    }
}

/// A time as people read it: `2026-01-31T07:30:00Z` (RFC 3339), to the second.
pub fn utc(time: Millis) -> String {
    let day = Day::of(time);
    let seconds = (time - day.start()) / 1000;
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{day}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Day, utc};

    #[test]
    fn days_print_as_dates() {
        for (millis, text) in [
            (0, "1970-01-01"),
            (-1, "1969-12-31"),
            (1_767_600_000_000, "2026-01-05"),
            (951_782_400_000, "2000-02-29"),
            (-62_135_596_800_000, "0001-01-01"),
        ] {
            assert_eq!(Day::of(millis).to_string(), text, "{millis}");
        }
    }

    #[test]
    fn times_print_in_utc() {
        for (millis, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (-1, "1969-12-31T23:59:59Z"),
            (1_767_600_000_999, "2026-01-05T08:00:00Z"),
        ] {
            assert_eq!(utc(millis), text);
        }
    }

    #[test]
    fn days_that_the_calendar_does_not_have_are_refused() {
        for (year, month, day) in [(2026, 2, 29), (2026, 0, 1), (2026, 13, 1), (2026, 4, 31)] {
            assert_eq!(Day::from_date(year, month, day), None);
        }
    }

    proptest! {
        #[test]
        fn a_day_is_the_day_of_its_date(day in -1_000_000..4_000_000) {
            let (year, month, of_month) = Day(day).date();
            prop_assert_eq!(Day::from_date(year, month, of_month), Some(Day(day)));
        }
    }
}
