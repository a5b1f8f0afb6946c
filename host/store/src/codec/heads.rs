//! All columns but the payloads.

use std::collections::BTreeMap;

use lockgate_model::{BlockParts, Dictionary, Millis, Texts};

use super::bytes::{self, Input};
use super::{CodecError, frames};
use crate::limits::BLOCK_MAX;

/// The columns of a block that are read without decompressing its payloads. All have one length.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Heads {
    pub types: Dictionary,
    pub codes: Dictionary,
    /// Session ids; empty if an event has none.
    pub sessions: Dictionary,
    pub times: Vec<Millis>,
    pub indexes: Vec<i64>,
    pub keys: Texts,
    /// Bytes of each JSON text.
    pub(super) lengths: Vec<u32>,
    /// Bytes of the events that are not JSON, by row.
    pub(super) raw: BTreeMap<u32, u32>,
}

impl Heads {
    pub fn len(&self) -> usize {
        self.times.len()
    }

    pub fn is_empty(&self) -> bool {
        self.times.is_empty()
    }

    /// True for an event that could not be turned into JSON.
    pub fn is_raw(&self, row: usize) -> bool {
        self.raw.contains_key(&(row as u32))
    }

    /// Bytes of an event's payload, in whichever form it is kept.
    pub fn payload_len(&self, row: usize) -> u32 {
        self.raw
            .get(&(row as u32))
            .copied()
            .unwrap_or(self.lengths[row])
    }
}

/// The rules that decoding enforces, so that what was written can be read.
pub fn check(parts: &BlockParts) -> Result<(), CodecError> {
    let rows = parts.times.len();
    let dictionary = |column: &Dictionary| {
        column.rows.len() == rows
            && column.values.is_well_formed()
            && column
                .rows
                .iter()
                .all(|&row| (row as usize) < column.values.len())
            && column.values.len() <= rows
    };
    let sound = dictionary(&parts.types)
        && dictionary(&parts.codes)
        && dictionary(&parts.sessions)
        && parts.indexes.len() == rows
        && parts.keys.len() == rows
        && parts.keys.is_well_formed()
        && parts.payloads.len() == rows
        && parts.payloads.is_well_formed()
        && parts
            .raw
            .keys()
            .all(|&row| (row as usize) < rows && parts.payloads.at(row as usize).is_empty());
    if !sound {
        return Err(CodecError::Columns);
    }
    let raw: usize = parts.raw.values().map(Vec::len).sum();
    if parts.payloads.bytes.len() + raw > BLOCK_MAX {
        Err(CodecError::TooLarge)
    } else {
        Ok(())
    }
}

pub fn encode(parts: &BlockParts) -> Result<Vec<u8>, CodecError> {
    let rows = parts.times.len();
    let mut body = Vec::with_capacity(64 + rows * 24 + parts.keys.bytes.len());
    bytes::varint(&mut body, rows as u64);
    for column in [&parts.types, &parts.codes, &parts.sessions] {
        bytes::varint(&mut body, column.values.len() as u64);
        bytes::texts(&mut body, &column.values);
        column
            .rows
            .iter()
            .for_each(|&row| bytes::varint(&mut body, row.into()));
    }
    bytes::deltas(&mut body, &parts.times);
    bytes::deltas(&mut body, &parts.indexes);
    bytes::texts(&mut body, &parts.keys);
    let mut start = 0;
    for &end in &parts.payloads.ends {
        bytes::varint(&mut body, u64::from(end - start));
        start = end;
    }
    bytes::varint(&mut body, parts.raw.len() as u64);
    let mut last = 0;
    for (&row, payload) in &parts.raw {
        bytes::varint(&mut body, u64::from(row - last));
        bytes::varint(&mut body, payload.len() as u64);
        last = row;
    }
    if body.len() > BLOCK_MAX {
        return Err(CodecError::TooLarge);
    }
    let mut frame = Vec::new();
    frames::compress(&body, &mut frame)?;
    let mut out = Vec::with_capacity(frame.len() + 10);
    bytes::varint(&mut out, body.len() as u64);
    out.extend_from_slice(&frame);
    Ok(out)
}

pub fn decode(heads: &[u8]) -> Result<Heads, CodecError> {
    let mut input = Input(heads);
    let len = input.varint()?;
    if len > BLOCK_MAX as u64 {
        return Err(CodecError::TooLarge);
    }
    frames::plausible(input.0, len as usize)?;
    let mut body = Vec::new();
    frames::decompress(input.0, len as usize, &mut body)?;

    let mut input = Input(&body);
    let rows = input.count()?;
    let types = dictionary(&mut input, rows)?;
    let codes = dictionary(&mut input, rows)?;
    let sessions = dictionary(&mut input, rows)?;
    let times = input.deltas(rows)?;
    let indexes = input.deltas(rows)?;
    let keys = input.texts(rows)?;
    let lengths = input.ints(rows)?;
    let raw = raw(&mut input, &lengths)?;
    input.end()?;
    Ok(Heads {
        types,
        codes,
        sessions,
        times,
        indexes,
        keys,
        lengths,
        raw,
    })
}

fn dictionary(input: &mut Input<'_>, rows: usize) -> Result<Dictionary, CodecError> {
    let count = input.count()?;
    if count > rows {
        return Err(CodecError::Columns);
    }
    let values = input.texts(count)?;
    let rows = input.ints(rows)?;
    if rows.iter().any(|&row| row as usize >= count) {
        return Err(CodecError::Columns);
    }
    Ok(Dictionary { values, rows })
}

fn raw(input: &mut Input<'_>, lengths: &[u32]) -> Result<BTreeMap<u32, u32>, CodecError> {
    let mut raw = BTreeMap::new();
    let mut row = 0u32;
    for nth in 0..input.count()? {
        let delta = input.int()?;
        if nth > 0 && delta == 0 {
            return Err(CodecError::Columns);
        }
        row = row.checked_add(delta).ok_or(CodecError::Number)?;
        // A raw event has no text.
        if lengths.get(row as usize) != Some(&0) {
            return Err(CodecError::Columns);
        }
        raw.insert(row, input.int()?);
    }
    Ok(raw)
}
