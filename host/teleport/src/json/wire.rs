//! The protobuf wire format, as much of it as a `Struct` needs.

use super::{JsonError, Span};

/// The content of a `Value`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Kind {
    Null,
    Bool(bool),
    Number(f64),
    String(Span),
    Struct(Span),
    List(Span),
}

/// One field of a message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field {
    pub(super) number: u32,
    payload: Payload,
}

#[derive(Clone, Copy, Debug)]
enum Payload {
    Varint(u64),
    Fixed64(u64),
    Fixed32,
    Bytes(Span),
}

impl Field {
    pub(super) fn message(self) -> Result<Span, JsonError> {
        match self.payload {
            Payload::Bytes(span) => Ok(span),
            _ => Err(JsonError::Malformed),
        }
    }
}

/// Reads the fields of one message within the event's bytes.
pub(super) struct Reader<'a> {
    wire: &'a [u8],
    at: usize,
    end: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(wire: &'a [u8], span: Span) -> Reader<'a> {
        Reader {
            wire,
            at: span.start as usize,
            end: span.end as usize,
        }
    }

    pub(super) fn field(&mut self) -> Result<Option<Field>, JsonError> {
        if self.at == self.end {
            return Ok(None);
        }
        let tag = self.varint()?;
        let number = u32::try_from(tag >> 3).map_err(|_| JsonError::Malformed)?;
        if number == 0 {
            return Err(JsonError::Malformed);
        }
        let payload = match tag & 7 {
            0 => Payload::Varint(self.varint()?),
            1 => Payload::Fixed64(u64::from_le_bytes(self.fixed()?)),
            2 => {
                let len = self.varint()?;
                if len > (self.end - self.at) as u64 {
                    return Err(JsonError::Malformed);
                }
                let start = self.at;
                self.at += len as usize;
                Payload::Bytes(Span {
                    start: start as u32,
                    end: self.at as u32,
                })
            }
            5 => {
                self.fixed::<4>()?;
                Payload::Fixed32
            }
            // Groups are not used since proto3.
            _ => return Err(JsonError::Malformed),
        };
        Ok(Some(Field { number, payload }))
    }

    #[inline]
    fn varint(&mut self) -> Result<u64, JsonError> {
        let bytes = &self.wire[self.at..self.end];
        match bytes.first() {
            Some(&byte) if byte < 0x80 => {
                self.at += 1;
                Ok(u64::from(byte))
            }
            _ => self.long_varint(),
        }
    }

    fn long_varint(&mut self) -> Result<u64, JsonError> {
        let mut value = 0u64;
        for shift in 0..10 {
            let byte = *self.wire[..self.end]
                .get(self.at)
                .ok_or(JsonError::Malformed)?;
            self.at += 1;
            value |= u64::from(byte & 0x7f) << (7 * shift);
            if byte < 0x80 {
                // The tenth byte has room for one bit.
                return if shift == 9 && byte > 1 {
                    Err(JsonError::Malformed)
                } else {
                    Ok(value)
                };
            }
        }
        Err(JsonError::Malformed)
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], JsonError> {
        let bytes = self.wire[self.at..self.end]
            .first_chunk::<N>()
            .ok_or(JsonError::Malformed)?;
        self.at += N;
        Ok(*bytes)
    }
}

/// The next entry of a map, if it is encoded as every encoder does: key, value, nothing else, the
/// key shorter than 128 bytes and the value shorter than 16 KiB. Moves the reader past it; anything
/// else is left for [`Reader::field`].
#[inline]
pub(super) fn simple_entry(reader: &mut Reader<'_>) -> Option<(Span, Span)> {
    let rest = &reader.wire[reader.at..reader.end];
    let (&tag, after) = rest.split_first()?;
    let (entry, head) = short_len(after)?;
    let body = after.get(head..head + entry)?;
    let [0x0a, key_len @ 0..=0x7f, ..] = *body else {
        return None;
    };
    let key_end = 2 + key_len as usize;
    let [0x12, value @ ..] = body.get(key_end..)? else {
        return None;
    };
    let (value_len, value_head) = short_len(value)?;
    if tag != 0x0a || value.len() != value_head + value_len {
        return None;
    }
    let start = reader.at + 1 + head;
    let end = start + entry;
    reader.at = end;
    let span = |start: usize, end: usize| Span {
        start: start as u32,
        end: end as u32,
    };
    Some((span(start + 2, start + key_end), span(end - value_len, end)))
}

/// A length encoded in one or two bytes, and how many bytes it takes.
#[inline]
fn short_len(bytes: &[u8]) -> Option<(usize, usize)> {
    match *bytes {
        [low @ 0..=0x7f, ..] => Some((low as usize, 1)),
        [low, high @ 0..=0x7f, ..] => Some(((low & 0x7f) as usize | (high as usize) << 7, 2)),
        _ => None,
    }
}

/// Reads a `Value`, with a fast path for the usual encodings.
#[inline]
pub(super) fn kind_of(wire: &[u8], span: Span) -> Result<Kind, JsonError> {
    match *span.of(wire) {
        [0x1a, len @ 0..=0x7f, ref rest @ ..] if rest.len() == len as usize => {
            Ok(Kind::String(Span {
                start: span.start + 2,
                end: span.end,
            }))
        }
        [0x11, a, b, c, d, e, f, g, h] => {
            Ok(Kind::Number(f64::from_le_bytes([a, b, c, d, e, f, g, h])))
        }
        [0x20, value @ 0..=0x7f] => Ok(Kind::Bool(value != 0)),
        _ => any_kind_of(wire, span),
    }
}

/// Reads a `Value`: a oneof, of which the last field on the wire wins. An unset value reads as
/// null.
fn any_kind_of(wire: &[u8], span: Span) -> Result<Kind, JsonError> {
    let mut kind = None;
    let mut reader = Reader::new(wire, span);
    while let Some(field) = reader.field()? {
        let next = match (field.number, field.payload) {
            (1, Payload::Varint(_)) => Kind::Null,
            (2, Payload::Fixed64(bits)) => Kind::Number(f64::from_bits(bits)),
            (3, Payload::Bytes(span)) => Kind::String(span),
            (4, Payload::Varint(value)) => Kind::Bool(value != 0),
            (5, Payload::Bytes(span)) => Kind::Struct(span),
            (6, Payload::Bytes(span)) => Kind::List(span),
            (1..=6, _) => return Err(JsonError::Malformed),
            _ => continue,
        };
        // Protobuf would merge two objects or two lists. No encoder writes them, so they are
        // refused.
        if matches!(
            (kind, next),
            (Some(Kind::Struct(_)), Kind::Struct(_)) | (Some(Kind::List(_)), Kind::List(_))
        ) {
            return Err(JsonError::Malformed);
        }
        kind = Some(next);
    }
    Ok(kind.unwrap_or(Kind::Null))
}
