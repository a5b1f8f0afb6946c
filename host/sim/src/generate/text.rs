//! Short texts without allocation: ids, addresses, times.

use lockgate_model::{Day, Millis};

const CAPACITY: usize = 64;
const HEX: &[u8; 16] = b"0123456789abcdef";

/// ASCII text of at most 64 bytes. Longer text is truncated.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ShortText {
    bytes: [u8; CAPACITY],
    len: usize,
}

impl Default for ShortText {
    fn default() -> ShortText {
        ShortText {
            bytes: [0; CAPACITY],
            len: 0,
        }
    }
}

impl ShortText {
    /// The 122 free bits of `bits` as a UUID of version 4; version and variant overwrite the other
    /// six.
    pub(crate) fn uuid(bits: u128) -> ShortText {
        let bits = bits & !(0xf << 76) & !(0x3 << 62) | (0x4 << 76) | (0x2 << 62);
        let mut text = ShortText {
            bytes: [b'-'; CAPACITY],
            len: 36,
        };
        let mut at = 0;
        for byte in bits.to_be_bytes() {
            if matches!(at, 8 | 13 | 18 | 23) {
                at += 1;
            }
            text.bytes[at] = HEX[usize::from(byte >> 4)];
            text.bytes[at + 1] = HEX[usize::from(byte & 15)];
            at += 2;
        }
        text
    }

    /// RFC 3339, UTC, milliseconds with trailing zeros dropped, as Teleport's server writes event
    /// times.
    pub(crate) fn time(time: Millis) -> ShortText {
        let mut text = ShortText::second(time);
        let millis = time.rem_euclid(1000) as u64;
        if millis > 0 {
            text.push(b".");
            let (digits, fraction) = match millis {
                _ if millis.is_multiple_of(100) => (1, millis / 100),
                _ if millis.is_multiple_of(10) => (2, millis / 10),
                _ => (3, millis),
            };
            text.push_padded(fraction, digits);
        }
        text.push(b"Z");
        text
    }

    /// RFC 3339 with nine digits of a second, as Go writes fields that are not the event's own
    /// time.
    pub(crate) fn time_nanos(time: Millis, nanos: u64) -> ShortText {
        let mut text = ShortText::second(time);
        text.push(b".");
        text.push_padded(
            time.rem_euclid(1000) as u64 * 1_000_000 + nanos % 1_000_000,
            9,
        );
        text.push(b"Z");
        text
    }

    fn second(time: Millis) -> ShortText {
        let (year, month, day) = Day::of(time).date();
        let second = time.rem_euclid(Day::MILLIS) as u64 / 1000;
        let mut text = ShortText::default();
        for (value, digits, after) in [
            (year as u64, 4, b"-"),
            (month.into(), 2, b"-"),
            (day.into(), 2, b"T"),
            (second / 3600, 2, b":"),
            (second / 60 % 60, 2, b":"),
        ] {
            text.push_padded(value, digits);
            text.push(after);
        }
        text.push_padded(second % 60, 2);
        text
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) {
        let count = bytes.len().min(CAPACITY - self.len);
        self.bytes[self.len..self.len + count].copy_from_slice(&bytes[..count]);
        self.len += count;
    }

    /// The low `digits` hexadecimal digits of `value`.
    pub(crate) fn push_hex(&mut self, value: u64, digits: usize) {
        for digit in (0..digits).rev() {
            self.push(&[HEX[(value >> (4 * digit)) as usize & 15]]);
        }
    }

    pub(crate) fn push_number(&mut self, value: u64) {
        self.push(itoa::Buffer::new().format(value).as_bytes());
    }

    fn push_padded(&mut self, mut value: u64, digits: usize) {
        let mut text = [b'0'; 9];
        for digit in text[..digits].iter_mut().rev() {
            *digit = b'0' + (value % 10) as u8;
            value /= 10;
        }
        self.push(&text[..digits]);
    }

    pub(crate) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..self.len]).unwrap_or_default()
    }
}

impl AsRef<[u8]> for ShortText {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_formatted_as_by_teleport() {
        for (time, expected) in [
            (1_767_600_000_000, "2026-01-05T08:00:00Z"),
            (1_767_600_000_770, "2026-01-05T08:00:00.77Z"),
            (1_767_600_000_700, "2026-01-05T08:00:00.7Z"),
            (1_767_600_000_007, "2026-01-05T08:00:00.007Z"),
            (951_868_799_999, "2000-02-29T23:59:59.999Z"),
        ] {
            assert_eq!(ShortText::time(time).as_str(), expected);
            assert!(
                ShortText::time(time)
                    .as_str()
                    .starts_with(&Day::of(time).to_string())
            );
        }
        assert_eq!(
            ShortText::time_nanos(1_767_600_000_007, 12_345).as_str(),
            "2026-01-05T08:00:00.007012345Z"
        );
    }

    #[test]
    fn uuids_carry_version_and_variant() {
        assert_eq!(
            ShortText::uuid(u128::MAX).as_str(),
            "ffffffff-ffff-4fff-bfff-ffffffffffff"
        );
        assert_eq!(
            ShortText::uuid(0).as_str(),
            "00000000-0000-4000-8000-000000000000"
        );
    }

    #[test]
    fn long_text_is_truncated() {
        let mut text = ShortText::default();
        text.push(&[b'a'; 100]);
        assert_eq!(text.as_str().len(), 64);
    }
}
