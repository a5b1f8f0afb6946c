//! The part of DER (ITU-T X.690) that credentials need: tag, length, value.

/// Takes the first value off `rest` and returns it with its tag.
pub fn take<'a>(rest: &mut &'a [u8]) -> Option<(u8, &'a [u8])> {
    let (&[tag, first], mut after) = rest.split_first_chunk()?;
    let length = match first {
        0..=0x7f => usize::from(first),
        // No credentials file needs more than four bytes for a length.
        0x81..=0x84 => {
            let (length, value) = after.split_at_checked(usize::from(first & 0x7f))?;
            after = value;
            length
                .iter()
                .fold(0, |length, &byte| length << 8 | usize::from(byte))
        }
        _ => return None,
    };
    let (value, after) = after.split_at_checked(length)?;
    *rest = after;
    Some((tag, value))
}

/// As [`take`], where the tag must be `tag`.
pub fn expect<'a>(rest: &mut &'a [u8], tag: u8) -> Option<&'a [u8]> {
    take(rest).and_then(|(found, value)| (found == tag).then_some(value))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn damaged_lengths_are_refused() {
        for bytes in [
            &[][..],
            &[0x30],
            &[0x30, 1],
            &[0x30, 0x80, 0],
            &[0x30, 0x82, 1],
            &[0x30, 0x84, 0xff, 0xff, 0xff, 0xff],
            &[0x30, 0x85, 0, 0, 0, 0, 0],
        ] {
            assert_eq!(take(&mut &*bytes), None, "{bytes:x?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_value_or_none(bytes: Vec<u8>) {
            let mut rest = &bytes[..];
            if let Some((tag, value)) = take(&mut rest) {
                prop_assert_eq!(tag, bytes[0]);
                prop_assert!(bytes.ends_with(rest));
                prop_assert!(value.len() + rest.len() + 2 <= bytes.len());
            }
        }
    }
}
