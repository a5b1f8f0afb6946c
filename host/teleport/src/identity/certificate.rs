//! What is shown of an X.509 certificate.

use jiff::civil::{DateTime, date};
use lockgate_model::Millis;
use rustls::server::ParsedCertificate;
use rustls_pki_types::CertificateDer;

use super::IdentityError;
use super::der::{expect, take};

const INTEGER: u8 = 0x02;
const SEQUENCE: u8 = 0x30;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
/// The version, absent in version 1.
const VERSION: u8 = 0xa0;

/// Begin and end of a certificate's validity.
pub(super) fn valid(certificate: &CertificateDer<'_>) -> Result<(Millis, Millis), IdentityError> {
    // Rustls parses the whole certificate but does not expose its validity.
    ParsedCertificate::try_from(certificate).map_err(|_| IdentityError::Certificate)?;
    let times = validity(certificate).and_then(|mut validity| {
        let (tag, from) = take(&mut validity)?;
        let from = time_of(tag, from)?;
        let (tag, until) = take(&mut validity)?;
        Some((from, time_of(tag, until)?))
    });
    times.ok_or(IdentityError::Certificate)
}

/// The field `validity` (RFC 5280, section 4.1): two times.
fn validity(certificate: &[u8]) -> Option<&[u8]> {
    expect(&mut after_issuer(certificate)?, SEQUENCE)
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

/// The common name of the subject: in Teleport's certificates, the user.
pub(super) fn common_name(certificate: &CertificateDer<'_>) -> Option<String> {
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
            .fold(0i16, |number, &digit| number * 10 + i16::from(digit - b'0'))
    };
    let year = match (tag, number(year)) {
        (UTC_TIME, year @ 50..) => 1900 + year,
        (UTC_TIME, year) => 2000 + year,
        (_, year) => year,
    };
    let [month, day, hour, minute, second] =
        std::array::from_fn(|at| number(&rest[at * 2..at * 2 + 2]) as i8);
    let time = DateTime::new(year, month, day, hour, minute, second, 0).ok()?;
    let since = time.duration_since(date(1970, 1, 1).at(0, 0, 0, 0));
    Millis::try_from(since.as_millis())
        .ok()
        .filter(|&time| time >= 0)
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
}
