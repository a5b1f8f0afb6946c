//! Compressed payloads. A frame is read in one go, so that a filter on a few events does not cost
//! the whole block.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::Cursor;

use lockgate_model::{BlockParts, Texts};
use zstd::bulk::{Compressor, Decompressor};

use super::bytes::{self, Input, ends_of, texts_of};
use super::{CodecError, Heads};
use crate::limits::{BLOCK_MAX, FRAME_EVENTS};

const LEVEL: i32 = 1;
/// A zstd block of 4 bytes (RFC 8878 3.1.1.2: RLE) stands for 128 KiB at most, so nothing honest is
/// denser than this.
const DENSEST: usize = 32 << 10;

thread_local! {
    // Making a context costs more than a small frame.
    static COMPRESSOR: RefCell<Option<Compressor<'static>>> = const { RefCell::new(None) };
    static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
}

/// Writes a frame in place of what `frame` holds.
pub fn compress(plain: &[u8], frame: &mut Vec<u8>) -> Result<(), CodecError> {
    COMPRESSOR.with_borrow_mut(|slot| {
        let compressor = match slot {
            Some(compressor) => compressor,
            None => slot.insert(Compressor::new(LEVEL).map_err(|_| CodecError::Frame)?),
        };
        frame.clear();
        frame.reserve(zstd::zstd_safe::compress_bound(plain.len()));
        let written = compressor.compress_to_buffer(plain, frame);
        written.map(drop).map_err(|_| CodecError::Frame)
    })
}

/// Appends what is in a frame: exactly `len` bytes.
pub fn decompress(frame: &[u8], len: usize, plain: &mut Vec<u8>) -> Result<(), CodecError> {
    plain.reserve(len);
    let end = plain.len() as u64;
    let mut rest = Cursor::new(plain);
    rest.set_position(end);
    let written = DECOMPRESSOR.with_borrow_mut(|slot| {
        let decompressor = match slot {
            Some(decompressor) => decompressor,
            None => slot.insert(Decompressor::new().map_err(|_| CodecError::Frame)?),
        };
        decompressor
            .decompress_to_buffer(frame, &mut rest)
            .map_err(|_| CodecError::Frame)
    })?;
    if written == len {
        Ok(())
    } else {
        Err(CodecError::Frame)
    }
}

/// Refuses what no compressor makes, before memory is taken for it.
pub fn plausible(frame: &[u8], plain: usize) -> Result<(), CodecError> {
    if plain > frame.len().saturating_mul(DENSEST) {
        Err(CodecError::Frame)
    } else {
        Ok(())
    }
}

pub fn encode(parts: &BlockParts) -> Result<Vec<u8>, CodecError> {
    let texts = parts.payloads.bytes.as_bytes();
    let mut out = Vec::with_capacity(texts.len() / 4 + 64);
    let mut frame = Vec::new();
    let mut start = 0;
    for ends in parts.payloads.ends.chunks(FRAME_EVENTS) {
        let end = ends.last().copied().unwrap_or(0) as usize;
        push(&texts[start..end], &mut frame, &mut out)?;
        start = end;
    }
    if !parts.raw.is_empty() {
        push(
            &parts.raw.values().flatten().copied().collect::<Vec<u8>>(),
            &mut frame,
            &mut out,
        )?;
    }
    Ok(out)
}

pub fn decode(
    payload: &[u8],
    heads: &Heads,
) -> Result<(Texts, BTreeMap<u32, Vec<u8>>), CodecError> {
    let mut ends = heads.lengths.clone();
    ends_of(&mut ends)?;
    let total = ends.last().copied().unwrap_or(0) as usize;
    let raw_total: u64 = heads.raw.values().map(|&len| u64::from(len)).sum();
    if total as u64 + raw_total > BLOCK_MAX as u64 {
        return Err(CodecError::TooLarge);
    }
    plausible(payload, total + raw_total as usize)?;

    let mut input = Input(payload);
    let mut texts = Vec::with_capacity(total);
    let mut start = 0;
    for ends in ends.chunks(FRAME_EVENTS) {
        let end = ends.last().copied().unwrap_or(0) as usize;
        pull(&mut input, end - start, &mut texts)?;
        start = end;
    }
    let mut raw = BTreeMap::new();
    if !heads.raw.is_empty() {
        let mut bytes = Vec::new();
        pull(&mut input, raw_total as usize, &mut bytes)?;
        let mut rest = bytes.as_slice();
        for (&row, &len) in &heads.raw {
            let (payload, after) = rest.split_at(len as usize);
            raw.insert(row, payload.to_vec());
            rest = after;
        }
    }
    input.end()?;
    Ok((texts_of(texts, ends)?, raw))
}

fn push(plain: &[u8], frame: &mut Vec<u8>, out: &mut Vec<u8>) -> Result<(), CodecError> {
    frame.clear();
    if !plain.is_empty() {
        compress(plain, frame)?;
    }
    bytes::varint(out, frame.len() as u64);
    out.extend_from_slice(frame);
    Ok(())
}

fn pull(input: &mut Input<'_>, len: usize, plain: &mut Vec<u8>) -> Result<(), CodecError> {
    let compressed = input.int()? as usize;
    let frame = input.take(compressed)?;
    match (frame.is_empty(), len == 0) {
        (true, true) => Ok(()),
        (false, false) => decompress(frame, len, plain),
        _ => Err(CodecError::Frame),
    }
}
