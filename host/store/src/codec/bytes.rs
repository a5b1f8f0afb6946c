//! Varints and columns of them.

use lockgate_model::Texts;

use super::CodecError;

pub fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub fn texts(out: &mut Vec<u8>, texts: &Texts) {
    let mut start = 0;
    for &end in &texts.ends {
        varint(out, u64::from(end - start));
        start = end;
    }
    out.extend_from_slice(texts.bytes.as_bytes());
}

/// Differences, so that neighbours take a byte or two.
pub fn deltas(out: &mut Vec<u8>, values: &[i64]) {
    let mut last = 0i64;
    for &value in values {
        let delta = value.wrapping_sub(last);
        varint(out, ((delta << 1) ^ (delta >> 63)) as u64);
        last = value;
    }
}

/// The rest of untrusted bytes.
pub struct Input<'a>(pub &'a [u8]);

impl<'a> Input<'a> {
    pub fn varint(&mut self) -> Result<u64, CodecError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.0.split_first().ok_or(CodecError::Short)?;
            self.0 = rest;
            if shift == 63 && byte > 1 {
                break;
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(CodecError::Number)
    }

    pub fn int(&mut self) -> Result<u32, CodecError> {
        self.varint()?.try_into().map_err(|_| CodecError::Number)
    }

    /// A number of things that take a byte each at least: never more than there are bytes, so it
    /// may be allocated for.
    pub fn count(&mut self) -> Result<usize, CodecError> {
        let count = self.varint()?;
        if count > self.0.len() as u64 {
            Err(CodecError::Short)
        } else {
            Ok(count as usize)
        }
    }

    pub fn take(&mut self, len: usize) -> Result<&'a [u8], CodecError> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(CodecError::Short)?;
        self.0 = rest;
        Ok(taken)
    }

    pub fn ints(&mut self, count: usize) -> Result<Vec<u32>, CodecError> {
        let mut values = Vec::with_capacity(count.min(self.0.len()));
        for _ in 0..count {
            values.push(self.int()?);
        }
        Ok(values)
    }

    pub fn deltas(&mut self, count: usize) -> Result<Vec<i64>, CodecError> {
        let mut values = Vec::with_capacity(count.min(self.0.len()));
        let mut last = 0i64;
        for _ in 0..count {
            let coded = self.varint()?;
            last = last.wrapping_add((coded >> 1) as i64 ^ -((coded & 1) as i64));
            values.push(last);
        }
        Ok(values)
    }

    pub fn texts(&mut self, count: usize) -> Result<Texts, CodecError> {
        let mut ends = self.ints(count)?;
        ends_of(&mut ends)?;
        let bytes = self.take(ends.last().copied().unwrap_or(0) as usize)?;
        texts_of(bytes.to_vec(), ends)
    }

    pub fn end(&self) -> Result<(), CodecError> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(CodecError::Rest)
        }
    }
}

/// Turns lengths into ends, in place.
pub fn ends_of(lengths: &mut [u32]) -> Result<(), CodecError> {
    let mut end = 0u32;
    for length in lengths {
        end = end.checked_add(*length).ok_or(CodecError::Number)?;
        *length = end;
    }
    Ok(())
}

pub fn texts_of(bytes: Vec<u8>, ends: Vec<u32>) -> Result<Texts, CodecError> {
    let texts = Texts {
        bytes: String::from_utf8(bytes).map_err(|_| CodecError::Text)?,
        ends,
    };
    if texts.is_well_formed() {
        Ok(texts)
    } else {
        Err(CodecError::Text)
    }
}
