//! Protobuf `Struct` wire bytes to JSON text, in one pass and without building a tree.
//!
//! Apart from white space, the text is the same as from Teleport's own handler: keys sorted by byte
//! order at every level, numbers as protojson prints doubles, as few escapes as possible, and
//! non-ASCII characters unescaped.

use std::str;

use thiserror::Error;

mod out;
mod wire;

use out::Out;
use wire::{Kind, Reader, kind_of, simple_entry};

/// Deepest nesting of objects and lists.
pub const DEPTH_MAX: usize = 128;

/// Why bytes could not be turned into JSON text.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum JsonError {
    /// Not the wire form of a `Struct`: cut short, a wrong wire type, a length past the end.
    #[error("the event is not a protobuf Struct")]
    Malformed,
    #[error("the event is nested deeper than {DEPTH_MAX} levels")]
    TooDeep,
    /// JSON has neither NaN nor infinity.
    #[error("the event has a number that is not finite")]
    NotFinite,
    #[error("the event has text that is not UTF-8")]
    NotUtf8,
}

/// Top-level fields that a reader needs. Empty if absent or not a string.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Captured<'a> {
    pub code: &'a str,
    pub sid: &'a str,
    pub uid: &'a str,
    pub user: &'a str,
    /// The original type of an event that the server does not know and calls `unknown`.
    pub unknown_event: &'a str,
}

/// Converts events to text, reusing its buffers.
#[derive(Debug, Default)]
pub struct Converter {
    entries: Vec<Entry>,
    out: Out,
}

/// One field of an object, as offsets into the event's bytes.
#[derive(Clone, Copy, Debug)]
struct Entry {
    /// The first eight bytes of the key, big-endian. They decide most comparisons.
    prefix: u64,
    key: Span,
    value: Span,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Span {
    start: u32,
    end: u32,
}

impl Span {
    fn of(self, wire: &[u8]) -> &[u8] {
        &wire[self.start as usize..self.end as usize]
    }
}

impl Converter {
    pub fn new() -> Converter {
        Converter::default()
    }

    /// Appends the JSON text of one event. On an error, `text` is unchanged.
    ///
    /// If an object has the same key twice, the last one wins.
    pub fn append<'a>(
        &mut self,
        wire: &'a [u8],
        text: &mut String,
    ) -> Result<Captured<'a>, JsonError> {
        if u32::try_from(wire.len()).is_err() {
            return Err(JsonError::Malformed);
        }
        self.entries.clear();
        self.out.clear();
        let mut captured = Raw::default();
        let whole = Span {
            start: 0,
            end: wire.len() as u32,
        };
        self.object(wire, whole, 0, Some(&mut captured))?;
        // Every string of the event is between two quotes here, so all of them are valid UTF-8 if
        // the whole text is.
        text.push_str(str::from_utf8(self.out.written()).map_err(|_| JsonError::NotUtf8)?);
        let field = |bytes: &'a [u8]| str::from_utf8(bytes).map_err(|_| JsonError::NotUtf8);
        Ok(Captured {
            code: field(captured.code)?,
            sid: field(captured.sid)?,
            uid: field(captured.uid)?,
            user: field(captured.user)?,
            unknown_event: field(captured.unknown_event)?,
        })
    }

    fn object<'a>(
        &mut self,
        wire: &'a [u8],
        span: Span,
        depth: usize,
        mut captured: Option<&mut Raw<'a>>,
    ) -> Result<(), JsonError> {
        if depth >= DEPTH_MAX {
            return Err(JsonError::TooDeep);
        }
        let base = self.entries.len();
        collect(wire, span, &mut self.entries)?;
        let fields = &mut self.entries[base..];
        fields.sort_unstable_by(|a, b| {
            // Equal keys stay in wire order.
            a.prefix
                .cmp(&b.prefix)
                .then_with(|| a.key.of(wire).cmp(b.key.of(wire)))
                .then(a.key.start.cmp(&b.key.start))
        });
        let end = self.entries.len();
        self.out.push(b'{');
        let mut first = true;
        for at in base..end {
            let Entry { prefix, key, value } = self.entries[at];
            let key_bytes = key.of(wire);
            if at + 1 < end
                && self.entries[at + 1].prefix == prefix
                && self.entries[at + 1].key.of(wire) == key_bytes
            {
                continue;
            }
            if !first {
                self.out.push(b',');
            }
            first = false;
            self.out.string(wire, key);
            self.out.push(b':');
            let written = self.value(wire, value, depth)?;
            if let (Some(captured), Some(bytes)) = (captured.as_deref_mut(), written) {
                captured.set(key_bytes, bytes);
            }
        }
        self.out.push(b'}');
        self.entries.truncate(base);
        Ok(())
    }

    /// Writes a value. Returns its bytes if it is a string.
    fn value<'a>(
        &mut self,
        wire: &'a [u8],
        span: Span,
        depth: usize,
    ) -> Result<Option<&'a [u8]>, JsonError> {
        match kind_of(wire, span)? {
            Kind::Null => self.out.literal(b"null"),
            Kind::Bool(true) => self.out.literal(b"true"),
            Kind::Bool(false) => self.out.literal(b"false"),
            Kind::Number(number) => self.out.number(number)?,
            Kind::String(span) => {
                self.out.string(wire, span);
                return Ok(Some(span.of(wire)));
            }
            Kind::Struct(span) => self.object(wire, span, depth + 1, None)?,
            Kind::List(span) => self.list(wire, span, depth + 1)?,
        }
        Ok(None)
    }

    fn list(&mut self, wire: &[u8], span: Span, depth: usize) -> Result<(), JsonError> {
        if depth >= DEPTH_MAX {
            return Err(JsonError::TooDeep);
        }
        self.out.push(b'[');
        let mut reader = Reader::new(wire, span);
        let mut first = true;
        while let Some(field) = reader.field()? {
            if field.number != 1 {
                continue;
            }
            if !first {
                self.out.push(b',');
            }
            first = false;
            self.value(wire, field.message()?, depth)?;
        }
        self.out.push(b']');
        Ok(())
    }
}

#[derive(Default)]
struct Raw<'a> {
    code: &'a [u8],
    sid: &'a [u8],
    uid: &'a [u8],
    user: &'a [u8],
    unknown_event: &'a [u8],
}

impl<'a> Raw<'a> {
    fn set(&mut self, key: &[u8], value: &'a [u8]) {
        match key {
            b"code" => self.code = value,
            b"sid" => self.sid = value,
            b"uid" => self.uid = value,
            b"user" => self.user = value,
            b"unknown_event" => self.unknown_event = value,
            _ => {}
        }
    }
}

/// Reads the entries of a map<string, Value>: each is a message of key = 1 and value = 2.
fn collect(wire: &[u8], span: Span, entries: &mut Vec<Entry>) -> Result<(), JsonError> {
    let mut reader = Reader::new(wire, span);
    loop {
        while let Some((key, value)) = simple_entry(&mut reader) {
            entries.push(Entry {
                prefix: prefix(key.of(wire)),
                key,
                value,
            });
        }
        let Some(field) = reader.field()? else {
            return Ok(());
        };
        if field.number != 1 {
            continue;
        }
        let entry = field.message()?;
        let (mut key, mut value) = (None, None);
        let mut reader = Reader::new(wire, entry);
        while let Some(field) = reader.field()? {
            // Protobuf would merge repeated fields. No encoder writes them, so they are refused.
            match field.number {
                1 if key.is_none() => key = Some(field.message()?),
                2 if value.is_none() => value = Some(field.message()?),
                1 | 2 => return Err(JsonError::Malformed),
                _ => {}
            }
        }
        // An absent key is empty; an absent value is unset, which reads as null.
        let nothing = Span {
            start: entry.end,
            end: entry.end,
        };
        let key = key.unwrap_or(nothing);
        entries.push(Entry {
            prefix: prefix(key.of(wire)),
            key,
            value: value.unwrap_or(nothing),
        });
    }
}

fn prefix(key: &[u8]) -> u64 {
    match key.first_chunk::<8>() {
        Some(bytes) => u64::from_be_bytes(*bytes),
        None => {
            let mut bytes = [0; 8];
            bytes[..key.len()].copy_from_slice(key);
            u64::from_be_bytes(bytes)
        }
    }
}

#[cfg(test)]
mod tests;
