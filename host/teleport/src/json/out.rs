//! The output buffer for the text of an event.

use super::{JsonError, Span};

/// From this size on, doubles may no longer be exact integers.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// Space reserved beyond the text itself: for a block that is copied whole, quotes, or a number.
const SLACK: usize = 40;

const BLOCK: usize = 16;

/// A buffer that copies text in blocks of fixed size, past the end of the text. Calling memcpy for
/// each short text would take longer than everything else.
#[derive(Debug, Default)]
pub(super) struct Out {
    bytes: Vec<u8>,
    at: usize,
}

impl Out {
    pub(super) fn clear(&mut self) {
        self.at = 0;
    }

    pub(super) fn written(&self) -> &[u8] {
        &self.bytes[..self.at]
    }

    #[inline]
    pub(super) fn push(&mut self, byte: u8) {
        self.room(1);
        self.bytes[self.at] = byte;
        self.at += 1;
    }

    #[inline]
    pub(super) fn literal(&mut self, text: &[u8]) {
        self.room(text.len());
        self.bytes[self.at..self.at + text.len()].copy_from_slice(text);
        self.at += text.len();
    }

    /// Writes a double as protojson does: as ECMAScript, except for the sign of zero.
    pub(super) fn number(&mut self, number: f64) -> Result<(), JsonError> {
        if !number.is_finite() {
            return Err(JsonError::NotFinite);
        }
        if number == 0.0 {
            self.literal(if number.is_sign_negative() {
                b"-0"
            } else {
                b"0"
            });
        } else if number.abs() < EXACT && number as i64 as f64 == number {
            self.literal(itoa::Buffer::new().format(number as i64).as_bytes());
        } else {
            self.literal(ryu_js::Buffer::new().format_finite(number).as_bytes());
        }
        Ok(())
    }

    /// Writes a string of the event in quotes.
    #[inline]
    pub(super) fn string(&mut self, wire: &[u8], span: Span) {
        let (from, len) = (span.start as usize, (span.end - span.start) as usize);
        self.room(len + SLACK);
        let start = self.at + 1;
        self.bytes[self.at] = b'"';
        let mut found = 0;
        let mut done = 0;
        while done < len {
            let left = len - done;
            let Some(block) = wire[from + done..].first_chunk::<BLOCK>() else {
                // Happens only near the end of the event.
                let rest = &wire[from + done..from + len];
                self.bytes[start + done..start + len].copy_from_slice(rest);
                found |= u64::from(rest.iter().any(|&byte| escape(byte) != 0));
                break;
            };
            self.bytes[start + done..start + done + BLOCK].copy_from_slice(block);
            let [low, high] = halves(block);
            found |= match left {
                16.. => special(low) | special(high),
                8..16 => special(low) | special(keep(high, left - 8)),
                _ => special(keep(low, left)),
            };
            done += BLOCK;
        }
        if found == 0 {
            self.bytes[start + len] = b'"';
            self.at = start + len + 1;
        } else {
            self.escaped(&wire[from..from + len]);
        }
    }

    #[cold]
    fn escaped(&mut self, text: &[u8]) {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        self.push(b'"');
        let mut start = 0;
        for (at, &byte) in text.iter().enumerate() {
            match escape(byte) {
                0 => continue,
                b'u' => {
                    self.literal(&text[start..at]);
                    self.literal(&[
                        b'\\',
                        b'u',
                        b'0',
                        b'0',
                        HEX[(byte >> 4) as usize],
                        HEX[(byte & 15) as usize],
                    ]);
                }
                letter => {
                    self.literal(&text[start..at]);
                    self.literal(&[b'\\', letter]);
                }
            }
            start = at + 1;
        }
        self.literal(&text[start..]);
        self.push(b'"');
    }

    #[inline]
    fn room(&mut self, len: usize) {
        if self.bytes.len() - self.at < len {
            self.grow(len);
        }
    }

    #[cold]
    fn grow(&mut self, len: usize) {
        let size = (self.at + len).max(self.bytes.len() * 2).max(4096);
        self.bytes.resize(size, 0);
    }
}

/// The letter after the backslash; `u` stands for `\u00xx`. 0 if the byte needs no escape.
fn escape(byte: u8) -> u8 {
    match byte {
        b'"' | b'\\' => byte,
        0x08 => b'b',
        0x09 => b't',
        0x0a => b'n',
        0x0c => b'f',
        0x0d => b'r',
        0..0x20 => b'u',
        _ => 0,
    }
}

const ONES: u64 = 0x0101_0101_0101_0101;
const TOPS: u64 = 0x8080_8080_8080_8080;
const SPACES: u64 = ONES * 0x20;

/// Non-zero if one of the eight bytes needs an escape.
#[inline]
fn special(bytes: u64) -> u64 {
    let quote = bytes ^ (ONES * b'"' as u64);
    let backslash = bytes ^ (ONES * b'\\' as u64);
    // A borrow can only mark a byte above a true match, and one match is enough.
    (bytes.wrapping_sub(SPACES) & !bytes
        | quote.wrapping_sub(ONES) & !quote
        | backslash.wrapping_sub(ONES) & !backslash)
        & TOPS
}

/// The first `len` of eight bytes; the others become spaces.
#[inline]
fn keep(bytes: u64, len: usize) -> u64 {
    let mask = (1u64 << (8 * len)) - 1;
    bytes & mask | SPACES & !mask
}

#[inline]
fn halves(block: &[u8; BLOCK]) -> [u64; 2] {
    let (halves, _) = block.as_chunks::<8>();
    [u64::from_le_bytes(halves[0]), u64::from_le_bytes(halves[1])]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_that_needs_an_escape_is_found_in_every_position() {
        for byte in 0..=255u8 {
            for at in 0..8 {
                let mut bytes = *b"abcd\xc3\xa9\xffz";
                bytes[at] = byte;
                let word = u64::from_le_bytes(bytes);
                assert_eq!(special(word) != 0, escape(byte) != 0, "{byte:#x} at {at}");
                assert_eq!(special(keep(word, at)), 0, "{byte:#x} after {at}");
            }
        }
    }
}
