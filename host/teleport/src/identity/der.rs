//! Writes DER (ITU-T X.690): tag, length, value.

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

#[cfg(test)]
mod tests {
    use lockgate_model::der::take;
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
