//! The types of RFC 4251, section 5: read from foreign bytes, and written.

/// Reads values one after another. `None`: there are not enough bytes, or they have another form.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    pub fn byte(&mut self) -> Option<u8> {
        let (&byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(byte)
    }

    pub fn flag(&mut self) -> Option<bool> {
        Some(self.byte()? != 0)
    }

    pub fn number(&mut self) -> Option<u32> {
        let (bytes, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u32::from_be_bytes(*bytes))
    }

    pub fn long(&mut self) -> Option<u64> {
        let (bytes, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u64::from_be_bytes(*bytes))
    }

    pub fn bytes(&mut self, length: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(bytes)
    }

    pub fn string(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.number()?).ok()?;
        self.bytes(length)
    }

    pub fn strings<const N: usize>(&mut self) -> Option<[&'a [u8]; N]> {
        let mut strings = [&[][..]; N];
        for string in &mut strings {
            *string = self.string()?;
        }
        Some(strings)
    }

    /// A string of UTF-8.
    pub fn text(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.string()?).ok()
    }

    /// A string that is a list of names.
    pub fn names(&mut self) -> Option<Vec<String>> {
        let text = self.text()?;
        let names = text.split(',').filter(|name| !name.is_empty());
        Some(names.map(str::to_owned).collect())
    }

    /// An mpint above zero of at most `max` bytes, without its sign.
    pub fn positive(&mut self, max: usize) -> Option<&'a [u8]> {
        let bytes = match self.string()? {
            [0, bytes @ ..] => bytes,
            [0x80..=0xff, ..] => return None,
            bytes => bytes,
        };
        (!bytes.is_empty() && bytes.len() <= max && bytes[0] != 0).then_some(bytes)
    }
}

/// Appends values.
pub trait Put {
    fn put_number(&mut self, number: u32);
    fn put_string(&mut self, bytes: &[u8]);
    /// A non-negative number, big-endian, as an mpint.
    fn put_positive(&mut self, bytes: &[u8]);
    fn put_names(&mut self, names: &[&str]);
}

impl Put for Vec<u8> {
    fn put_number(&mut self, number: u32) {
        self.extend_from_slice(&number.to_be_bytes());
    }

    fn put_string(&mut self, bytes: &[u8]) {
        // Nothing that is written here is near 4 GiB.
        self.put_number(bytes.len() as u32);
        self.extend_from_slice(bytes);
    }

    fn put_positive(&mut self, bytes: &[u8]) {
        let start = bytes.iter().position(|&byte| byte != 0);
        let bytes = &bytes[start.unwrap_or(bytes.len())..];
        if bytes.first().is_some_and(|&byte| byte >= 0x80) {
            self.put_string(&[&[0], bytes].concat());
        } else {
            self.put_string(bytes);
        }
    }

    fn put_names(&mut self, names: &[&str]) {
        self.put_string(names.join(",").as_bytes());
    }
}

/// One string.
pub fn string(bytes: &[u8]) -> Vec<u8> {
    strings(&[bytes])
}

/// Several strings.
pub fn strings(parts: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::new();
    for part in parts {
        out.put_string(part);
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_are_written_as_the_rfc_has_them() {
        for (bytes, written) in [
            (&[][..], &[0, 0, 0, 0][..]),
            (&[0, 0], &[0, 0, 0, 0]),
            (&[0x80], &[0, 0, 0, 2, 0, 0x80]),
            (&[0, 9, 0xa3], &[0, 0, 0, 2, 9, 0xa3]),
        ] {
            let mut out = Vec::new();
            out.put_positive(bytes);
            assert_eq!(out, written);
        }
        for refused in [&[0x80][..], &[0], &[], &[0, 0, 1]] {
            assert_eq!(Reader(&string(refused)).positive(8), None, "{refused:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(bytes: Vec<u8>, number: u32, names in prop::collection::vec("[a-z@.-]{1,9}", 0..4)) {
            let mut out = Vec::new();
            out.put_string(&bytes);
            out.put_number(number);
            out.put_names(&names.iter().map(String::as_str).collect::<Vec<_>>());
            let mut reader = Reader(&out);
            prop_assert_eq!(reader.string(), Some(&bytes[..]));
            prop_assert_eq!(reader.number(), Some(number));
            prop_assert_eq!(reader.names(), Some(names));
            prop_assert!(reader.0.is_empty());
        }

        #[test]
        fn numbers_are_read_as_written(bytes in prop::collection::vec(any::<u8>(), 1..40)) {
            let mut out = Vec::new();
            out.put_positive(&bytes);
            let start = bytes.iter().position(|&byte| byte != 0);
            let expected = start.map(|start| &bytes[start..]);
            prop_assert_eq!(Reader(&out).positive(40), expected);
        }
    }
}
