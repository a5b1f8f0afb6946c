//! The validity and the subject of an X.509 certificate.

use crate::der::{expect, take};
use crate::{Day, Millis};

const INTEGER: u8 = 0x02;
const SEQUENCE: u8 = 0x30;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
/// The version, absent in version 1.
const VERSION: u8 = 0xa0;

/// A certificate is said to expire within this time, in milliseconds. One that is valid for a
/// shorter time is, once so small a part of that is left.
const SOON: Millis = 7 * Day::MILLIS;
const SOON_PART: Millis = 5;

/// Begin and end of a certificate's validity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    pub not_before: Millis,
    pub not_after: Millis,
}

impl Validity {
    /// Reads the field `validity` (RFC 5280, section 4.1) of a certificate in DER. Checks nothing
    /// else. `None`: it is not where a certificate has it.
    pub fn of_der(certificate: &[u8]) -> Option<Validity> {
        let mut times = expect(&mut after_issuer(certificate)?, SEQUENCE)?;
        let (tag, from) = take(&mut times)?;
        let not_before = time_of(tag, from)?;
        let (tag, until) = take(&mut times)?;
        Some(Validity {
            not_before,
            not_after: time_of(tag, until)?,
        })
    }

    /// The time from which an operator should know that it expires.
    pub fn expires_soon_from(&self) -> Millis {
        let lifetime = self.not_after.saturating_sub(self.not_before);
        self.not_after - SOON.min(lifetime / SOON_PART)
    }
}

/// Whether a certificate in DER is of version 1 of X.509: it has no extensions, and no version,
/// which is the default.
pub fn is_version_1(mut certificate: &[u8]) -> bool {
    let fields = expect(&mut certificate, SEQUENCE);
    let signed = fields.and_then(|mut fields| expect(&mut fields, SEQUENCE));
    signed.is_some_and(|signed| signed.first() == Some(&INTEGER))
}

/// What follows the issuer: validity and subject first.
fn after_issuer(mut certificate: &[u8]) -> Option<&[u8]> {
    let mut fields = expect(&mut certificate, SEQUENCE)?;
    let mut signed = expect(&mut fields, SEQUENCE)?;
    if signed.first() == Some(&VERSION) {
        take(&mut signed)?;
    }
    let _serial = expect(&mut signed, INTEGER)?;
    let _algorithm = expect(&mut signed, SEQUENCE)?;
    let _issuer = expect(&mut signed, SEQUENCE)?;
    Some(signed)
}

/// The common name of the subject of a certificate in DER: in Teleport's certificates, the user.
pub fn common_name(certificate: &[u8]) -> Option<String> {
    /// 2.5.4.3, as an OBJECT IDENTIFIER.
    const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
    let mut after = after_issuer(certificate)?;
    let _validity = expect(&mut after, SEQUENCE)?;
    let mut names = expect(&mut after, SEQUENCE)?;
    while let Some((_, mut set)) = take(&mut names) {
        let mut name = expect(&mut set, SEQUENCE)?;
        let (_, kind) = take(&mut name)?;
        let (_, value) = take(&mut name)?;
        if kind == COMMON_NAME {
            return String::from_utf8(value.to_vec()).ok();
        }
    }
    None
}

/// `YYMMDDHHMMSSZ` from 1950 to 2049, or `YYYYMMDDHHMMSSZ`.
fn time_of(tag: u8, text: &[u8]) -> Option<Millis> {
    let (digits, rest) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let year_digits = match (tag, digits.len()) {
        (UTC_TIME, 12) => 2,
        (GENERALIZED_TIME, 14) => 4,
        _ => return None,
    };
    if rest != b"Z" || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let (year, rest) = digits.split_at(year_digits);
    let number = |digits: &[u8]| {
        digits
            .iter()
            .fold(0, |number, &digit| number * 10 + i64::from(digit - b'0'))
    };
    let year = match (tag, number(year)) {
        (UTC_TIME, year @ 50..) => 1900 + year,
        (UTC_TIME, year) => 2000 + year,
        (_, year) => year,
    };
    let [month, day, hour, minute, second] =
        std::array::from_fn(|at| number(&rest[at * 2..at * 2 + 2]));
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let day = Day::from_date(year, month as u8, day as u8)?;
    let time = day.start() + ((hour * 60 + minute) * 60 + second) * 1000;
    (time >= 0).then_some(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_a_time_are_read() {
        for (tag, text, seconds) in [
            (UTC_TIME, "700101000000Z", Some(0)),
            (UTC_TIME, "491231235959Z", Some(2_524_607_999)),
            (UTC_TIME, "991231235959Z", Some(946_684_799)),
            (GENERALIZED_TIME, "20990101000000Z", Some(4_070_908_800)),
            // RFC 5280: a certificate without an end.
            (GENERALIZED_TIME, "99991231235959Z", Some(253_402_300_799)),
            (UTC_TIME, "691231235959Z", None),
            (UTC_TIME, "20990101000000Z", None),
            (UTC_TIME, "260230000000Z", None),
            (UTC_TIME, "260101240000Z", None),
            (GENERALIZED_TIME, "20990101000000+", None),
            (GENERALIZED_TIME, "20991301000000Z", None),
            (GENERALIZED_TIME, "2099010100000xZ", None),
            (INTEGER, "20990101000000Z", None),
            (UTC_TIME, "", None),
        ] {
            let millis = seconds.map(|seconds: Millis| seconds * 1000);
            assert_eq!(time_of(tag, text.as_bytes()), millis, "{text}");
        }
    }

    #[test]
    fn a_week_or_a_fifth_of_its_life_before_its_end_a_certificate_expires_soon() {
        const HOUR: Millis = 3_600_000;
        for (hours, left) in [(365 * 24, 7 * 24), (5, 1), (0, 0)] {
            let validity = Validity {
                not_before: 1_000 * HOUR,
                not_after: (1_000 + hours) * HOUR,
            };
            let soon = (1_000 + hours - left) * HOUR;
            assert_eq!(validity.expires_soon_from(), soon, "{hours}");
        }
    }
}
