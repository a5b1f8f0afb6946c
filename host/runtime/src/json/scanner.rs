//! Scans JSON text in one pass.

use std::borrow::Cow;

use super::{DEPTH_MAX, DocumentError};

/// A scanner over the text of one document.
pub(super) struct Scanner<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
    open: Vec<Open>,
    /// Keys of all open objects, the innermost last.
    keys: Vec<Key<'a>>,
}

/// Ordered by its first bytes before all else, which decide most comparisons.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Key<'a> {
    first: u64,
    text: Cow<'a, str>,
}

impl<'a> Key<'a> {
    fn new(text: Cow<'a, str>) -> Key<'a> {
        let mut first = [0; 8];
        let len = text.len().min(8);
        first[..len].copy_from_slice(&text.as_bytes()[..len]);
        Key {
            first: u64::from_be_bytes(first),
            text,
        }
    }
}

enum Open {
    Array,
    /// Index of its first key in `keys`.
    Object(usize),
}

impl<'a> Scanner<'a> {
    pub(super) fn new(text: &'a str) -> Scanner<'a> {
        Scanner {
            text,
            bytes: text.as_bytes(),
            at: 0,
            open: Vec::new(),
            keys: Vec::with_capacity(64),
        }
    }

    /// Scans the whole text, which must be one object.
    pub(super) fn object(mut self) -> Result<(), DocumentError> {
        self.space();
        if self.peek() != Some(b'{') {
            return Err(DocumentError::NotAnObject);
        }
        self.value()?;
        self.space();
        if self.at < self.bytes.len() {
            Err(DocumentError::Trailing(self.at))
        } else {
            Ok(())
        }
    }

    /// Scans a value with its content. A loop, not a recursion, so that the text cannot exhaust the
    /// stack.
    fn value(&mut self) -> Result<(), DocumentError> {
        loop {
            // A value begins here.
            let opened = match self.next()? {
                b'{' => self.enter(Open::Object(self.keys.len()))?,
                b'[' => self.enter(Open::Array)?,
                b'"' => self.string().map(|_| false)?,
                b't' => self.literal("true")?,
                b'f' => self.literal("false")?,
                b'n' => self.literal("null")?,
                b'-' | b'0'..=b'9' => self.number()?,
                _ => return Err(DocumentError::Unexpected(self.at - 1)),
            };
            self.space();
            if opened {
                let close = if matches!(self.open.last(), Some(Open::Object(_))) {
                    b'}'
                } else {
                    b']'
                };
                if self.peek() != Some(close) {
                    self.key_if_object()?;
                    continue;
                }
                self.at += 1;
                self.leave()?;
            }
            // A value ends here, and perhaps those around it.
            loop {
                self.space();
                if self.open.is_empty() {
                    return Ok(());
                }
                match (self.next()?, self.open.last()) {
                    (b',', _) => break,
                    (b'}', Some(Open::Object(_))) | (b']', Some(Open::Array)) => self.leave()?,
                    _ => return Err(DocumentError::Unexpected(self.at - 1)),
                }
            }
            self.space();
            self.key_if_object()?;
        }
    }

    fn enter(&mut self, open: Open) -> Result<bool, DocumentError> {
        if self.open.len() == DEPTH_MAX {
            return Err(DocumentError::Depth);
        }
        self.open.push(open);
        Ok(true)
    }

    fn leave(&mut self) -> Result<(), DocumentError> {
        if let Some(Open::Object(first)) = self.open.pop() {
            let keys = &mut self.keys[first..];
            // Usually the keys are already in order, as in Teleport's events. Sorting, unlike
            // hashing, is not slow for any input.
            if !keys.is_sorted_by(|a, b| a < b) {
                keys.sort_unstable();
                if let Some(pair) = keys.windows(2).find(|pair| pair[0] == pair[1]) {
                    return Err(DocumentError::KeyTwice(
                        pair[0].text.chars().take(100).collect(),
                    ));
                }
            }
            self.keys.truncate(first);
        }
        Ok(())
    }

    /// Scans a key and its colon, if the next value is in an object.
    fn key_if_object(&mut self) -> Result<(), DocumentError> {
        if !matches!(self.open.last(), Some(Open::Object(_))) {
            return Ok(());
        }
        if self.next()? != b'"' {
            return Err(DocumentError::Unexpected(self.at - 1));
        }
        let start = self.at;
        let escaped = self.string()?;
        let raw = &self.text[start..self.at - 1];
        self.keys.push(Key::new(if escaped {
            Cow::Owned(unescape(raw))
        } else {
            Cow::Borrowed(raw)
        }));
        self.space();
        if self.next()? != b':' {
            return Err(DocumentError::Unexpected(self.at - 1));
        }
        self.space();
        Ok(())
    }

    /// Scans a string after its opening quote. Returns whether it contains an escape.
    fn string(&mut self) -> Result<bool, DocumentError> {
        let mut escaped = false;
        loop {
            self.plain();
            match self.next()? {
                b'"' => return Ok(escaped),
                b'\\' => {
                    escaped = true;
                    self.escape()?;
                }
                _ => return Err(DocumentError::Control(self.at - 1)),
            }
        }
    }

    /// Skips ordinary characters of a string, eight bytes at a time.
    fn plain(&mut self) {
        const ONES: u64 = 0x0101_0101_0101_0101;
        const HIGHS: u64 = 0x8080_8080_8080_8080;
        let zero_byte = |word: u64| word.wrapping_sub(ONES) & !word & HIGHS;
        while let Some(chunk) = self.bytes[self.at..].first_chunk::<8>() {
            let word = u64::from_le_bytes(*chunk);
            let control = word.wrapping_sub(ONES * 0x20) & !word & HIGHS;
            let special = control
                | zero_byte(word ^ (ONES * u64::from(b'"')))
                | zero_byte(word ^ (ONES * u64::from(b'\\')));
            if special != 0 {
                // A borrow may mark a byte above the first match, but never one below it.
                self.at += (special.trailing_zeros() / 8) as usize;
                return;
            }
            self.at += 8;
        }
        while self
            .peek()
            .is_some_and(|byte| byte >= 0x20 && byte != b'"' && byte != b'\\')
        {
            self.at += 1;
        }
    }

    fn escape(&mut self) -> Result<(), DocumentError> {
        let start = self.at - 1;
        match self.next()? {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Ok(()),
            b'u' => match self.hex(start)? {
                0xDC00..=0xDFFF => Err(DocumentError::LoneSurrogate(start)),
                0xD800..=0xDBFF => {
                    let low = self.bytes[self.at..].starts_with(b"\\u");
                    self.at += 2 * usize::from(low);
                    if low && matches!(self.hex(start)?, 0xDC00..=0xDFFF) {
                        Ok(())
                    } else {
                        Err(DocumentError::LoneSurrogate(start))
                    }
                }
                _ => Ok(()),
            },
            _ => Err(DocumentError::Escape(start)),
        }
    }

    fn hex(&mut self, start: usize) -> Result<u32, DocumentError> {
        let mut value = 0;
        for _ in 0..4 {
            let digit = (self.next()? as char)
                .to_digit(16)
                .ok_or(DocumentError::Escape(start))?;
            value = value * 16 + digit;
        }
        Ok(value)
    }

    fn literal(&mut self, word: &str) -> Result<bool, DocumentError> {
        let start = self.at - 1;
        if !self.bytes[start..].starts_with(word.as_bytes()) {
            return Err(if word.as_bytes().starts_with(&self.bytes[start..]) {
                DocumentError::Ends
            } else {
                DocumentError::Unexpected(start)
            });
        }
        self.at = start + word.len();
        Ok(false)
    }

    fn number(&mut self) -> Result<bool, DocumentError> {
        let start = self.at - 1;
        self.at -= 1;
        self.at += usize::from(self.bytes[start] == b'-');
        let whole = self.digits();
        let leading_zero = whole > 1 && self.bytes[self.at - whole] == b'0';
        let mut good = whole > 0 && !leading_zero;
        if self.peek() == Some(b'.') {
            self.at += 1;
            good &= self.digits() > 0;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            self.at += usize::from(matches!(self.peek(), Some(b'+' | b'-')));
            good &= self.digits() > 0;
        }
        // Most parsers refuse numbers that a 64-bit float cannot hold, some together with the whole
        // batch.
        let text = std::str::from_utf8(&self.bytes[start..self.at]).unwrap_or("");
        good = good && (self.at - start < 300 && !text.contains(['e', 'E']) || is_finite(text));
        if good {
            Ok(false)
        } else {
            Err(DocumentError::Number(start))
        }
    }

    fn digits(&mut self) -> usize {
        let start = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        self.at - start
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn next(&mut self) -> Result<u8, DocumentError> {
        let byte = self.peek().ok_or(DocumentError::Ends)?;
        self.at += 1;
        Ok(byte)
    }
}

/// Resolves the escapes of a string that has been checked.
pub(crate) fn unescape(raw: &str) -> String {
    let mut text = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(at) = rest.find('\\') {
        text.push_str(&rest[..at]);
        let unit = |from: usize| {
            rest.get(at + from..at + from + 4)
                .and_then(|hex| u32::from_str_radix(hex, 16).ok())
                .unwrap_or(0)
        };
        let (char, len) = match rest.as_bytes().get(at + 1) {
            Some(b'u') => match unit(2) {
                high @ 0xD800..=0xDBFF => (
                    0x10000 + ((high - 0xD800) << 10) + unit(8).saturating_sub(0xDC00),
                    12,
                ),
                unit => (unit, 6),
            },
            Some(b'b') => (8, 2),
            Some(b'f') => (12, 2),
            Some(b'n') => (10, 2),
            Some(b'r') => (13, 2),
            Some(b't') => (9, 2),
            Some(&same) => (u32::from(same), 2),
            None => (0, 1),
        };
        text.push(char::from_u32(char).unwrap_or(char::REPLACEMENT_CHARACTER));
        rest = rest.get(at + len..).unwrap_or("");
    }
    text.push_str(rest);
    text
}

fn is_finite(number: &str) -> bool {
    number.parse::<f64>().is_ok_and(f64::is_finite)
}
