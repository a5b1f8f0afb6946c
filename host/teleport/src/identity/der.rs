//! The part of DER (ITU-T X.690) that credentials need: tag, length, value.

pub(super) fn sequence(parts: &[Vec<u8>]) -> Vec<u8> {
    tlv(0x30, &parts.concat())
}

/// A DER INTEGER of an unsigned big-endian number.
pub(super) fn integer(bytes: &[u8]) -> Vec<u8> {
    let start = bytes
        .iter()
        .position(|&byte| byte != 0)
        .unwrap_or(bytes.len().saturating_sub(1));
    let bytes = &bytes[start..];
    if bytes.first().is_none_or(|&byte| byte >= 0x80) {
        tlv(0x02, &[&[0], bytes].concat())
    } else {
        tlv(0x02, bytes)
    }
}

pub(super) fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    let len = content.len().to_be_bytes();
    match content.len() {
        0..0x80 => out.push(content.len() as u8),
        _ => {
            let start = len
                .iter()
                .position(|&byte| byte != 0)
                .unwrap_or(len.len() - 1);
            out.push(0x80 | (len.len() - start) as u8);
            out.extend_from_slice(&len[start..]);
        }
    }
    out.extend_from_slice(content);
    out
}

/// Takes the first value off `rest` and returns it with its tag.
pub(super) fn take<'a>(rest: &mut &'a [u8]) -> Option<(u8, &'a [u8])> {
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
pub(super) fn expect<'a>(rest: &mut &'a [u8], tag: u8) -> Option<&'a [u8]> {
    take(rest).and_then(|(found, value)| (found == tag).then_some(value))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn integers_are_minimal_and_positive() {
        for (bytes, der) in [
            (&[0][..], &[2, 1, 0][..]),
            (&[0, 0, 5], &[2, 1, 5]),
            (&[0x80], &[2, 2, 0, 0x80]),
            (&[], &[2, 1, 0]),
        ] {
            assert_eq!(integer(bytes), der);
        }
    }

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
        fn values_are_read_as_written(tag: u8, length in prop_oneof![0..300usize, 65_000..66_000usize]) {
            let content = vec![7; length];
            let bytes = [tlv(tag, &content), vec![1, 2]].concat();
            let mut rest = &bytes[..];
            prop_assert_eq!(take(&mut rest), Some((tag, &content[..])));
            prop_assert_eq!(rest, [1, 2]);
        }
    }
}
