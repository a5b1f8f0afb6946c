//! The binary form of a block's columns and of outcomes. Version 1.
//!
//! Integers are LEB128 varints, signed ones zigzag. A text column is its lengths, then its bytes.
//! Decoding is strict: any bytes give columns that keep every rule of [`BlockParts`], or an error;
//! what is allocated is bounded by the length of the input.
//!
//! - `heads`: length before compression, then one zstd frame of: rows; types, codes, sessions
//!   (each: number of values, values, a value for each row); times and indexes as differences;
//!   keys; lengths of the payloads; number of raw events, each as (difference of rows, length).
//! - `payload`: for each 128 rows, then for all raw events together: compressed length, zstd frame
//!   (nothing if there is no byte).

mod bytes;
mod frames;
mod heads;
mod outcomes;

use lockgate_model::BlockParts;
use thiserror::Error;

pub use heads::Heads;
pub use outcomes::{decode_outcomes, decode_seqs, encode_outcomes, encode_seqs};

/// The value of the column `codec`.
pub const VERSION: i64 = 1;

/// Why bytes are not a block.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum CodecError {
    #[error("it ends too early")]
    Short,
    #[error("bytes follow its end")]
    Rest,
    #[error("a number is out of its range")]
    Number,
    #[error("a text is not UTF-8")]
    Text,
    #[error("a compressed frame is broken")]
    Frame,
    #[error("more than {} MiB", crate::limits::BLOCK_MAX >> 20)]
    TooLarge,
    #[error("its columns differ in length or point nowhere")]
    Columns,
}

/// Encodes columns to (heads, payload).
pub fn encode(parts: &BlockParts) -> Result<(Vec<u8>, Vec<u8>), CodecError> {
    heads::check(parts)?;
    Ok((heads::encode(parts)?, frames::encode(parts)?))
}

/// The inverse of [`encode`].
pub fn decode(heads: &[u8], payload: &[u8]) -> Result<BlockParts, CodecError> {
    let heads = decode_heads(heads)?;
    let (payloads, raw) = frames::decode(payload, &heads)?;
    let Heads {
        types,
        codes,
        sessions,
        times,
        indexes,
        keys,
        ..
    } = heads;
    Ok(BlockParts {
        types,
        codes,
        sessions,
        times,
        indexes,
        keys,
        payloads,
        raw,
    })
}

/// All columns but the payloads.
pub fn decode_heads(heads: &[u8]) -> Result<Heads, CodecError> {
    heads::decode(heads)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeMap;

    use lockgate_model::{Block, BlockBuilder, FeedKind, Head};
    use proptest::prelude::*;

    use super::*;

    pub fn some_parts() -> impl Strategy<Value = BlockParts> {
        let event = (
            prop::sample::select(vec!["user.login", "session.start", "", "zoë"]),
            prop::sample::select(vec!["T1000I", ""]),
            prop::option::of("[a-f0-9]{1,8}"),
            prop_oneof![any::<i64>(), 1_767_600_000_000i64..1_767_700_000_000],
            prop_oneof![any::<i64>(), 0i64..300],
            "\\PC{0,12}",
            prop_oneof![4 => "\\PC{0,60}".prop_map(Ok), 1 => prop::collection::vec(any::<u8>(), 0..40).prop_map(Err)],
        );
        prop::collection::vec(event, 0..300).prop_map(|events| {
            let mut builder = BlockBuilder::new();
            for (event_type, code, session, time, index, key, payload) in &events {
                let session = session.as_deref().unwrap_or("");
                let head = Head {
                    key,
                    event_type,
                    code,
                    time: *time,
                    index: *index,
                    session,
                };
                match payload {
                    Ok(text) => builder.push(head, text),
                    Err(raw) => builder.push_raw(head, raw),
                }
            }
            builder.take()
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn what_was_encoded_is_decoded(parts in some_parts()) {
            let (heads, payload) = encode(&parts).unwrap();
            let decoded = decode_heads(&heads).unwrap();
            prop_assert_eq!(decoded.len(), parts.times.len());
            prop_assert_eq!(&decoded.times, &parts.times);
            for row in 0..decoded.len() {
                let len = parts.raw.get(&(row as u32)).map_or(parts.payloads.at(row).len(), Vec::len);
                prop_assert_eq!(decoded.payload_len(row) as usize, len);
            }
            prop_assert_eq!(decode(&heads, &payload).unwrap(), parts);
        }

        #[test]
        fn damaged_bytes_give_an_error_or_a_sound_block(
            parts in some_parts(), at in any::<prop::sample::Index>(), value in any::<u8>(), cut in any::<bool>(), in_heads in any::<bool>(),
        ) {
            let (mut heads, mut payload) = encode(&parts).unwrap();
            let bytes = if in_heads || payload.is_empty() { &mut heads } else { &mut payload };
            let at = at.index(bytes.len());
            if cut { bytes.truncate(at) } else { bytes[at] = value }
            if let Ok(parts) = decode(&heads, &payload) {
                walk(parts);
            }
        }

        // Without compression in the way, so that the columns themselves are damaged.
        #[test]
        fn any_columns_give_an_error_or_a_sound_block(body in prop::collection::vec(prop_oneof![0u8..6, any::<u8>()], 0..200), payload in prop::collection::vec(any::<u8>(), 0..50)) {
            let mut heads = Vec::new();
            bytes::varint(&mut heads, body.len() as u64);
            heads.extend(zstd::bulk::compress(&body, 1).unwrap());
            if let Ok(heads) = decode_heads(&heads) {
                prop_assert!(heads.len() <= body.len());
            }
            if let Ok(parts) = decode(&heads, &payload) {
                walk(parts);
            }
        }

        #[test]
        fn any_bytes_give_an_error_or_a_sound_block(heads in prop::collection::vec(any::<u8>(), 0..200), payload in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(parts) = decode(&heads, &payload) {
                walk(parts);
            }
            let _ = decode_outcomes(&heads);
        }
    }

    fn walk(parts: BlockParts) {
        let block = Block::new("s".into(), FeedKind::Sessions, 1, 0, parts);
        for row in 0..block.len() {
            let view = block.view(row);
            assert!(view.key.len() + view.payload.len() + block.payload_len(row) < usize::MAX);
        }
    }

    #[test]
    fn a_decompression_bomb_is_refused_before_it_is_unpacked() {
        let bomb = zstd::bulk::compress(&vec![0; 64 << 20], 19).unwrap();
        let mut heads = Vec::new();
        bytes::varint(&mut heads, 1 << 40);
        heads.extend(&bomb);
        assert_eq!(decode_heads(&heads), Err(CodecError::TooLarge));
        let mut heads = Vec::new();
        bytes::varint(&mut heads, 200 << 20);
        heads.extend(&bomb[..100]);
        assert_eq!(decode_heads(&heads), Err(CodecError::Frame));
    }

    #[test]
    fn columns_that_contradict_each_other_are_not_encoded() {
        let sound = || {
            let mut builder = BlockBuilder::new();
            builder.push(
                Head {
                    key: "k",
                    event_type: "t",
                    code: "c",
                    time: 1,
                    index: 1,
                    session: "",
                },
                "{}",
            );
            builder.take()
        };
        assert!(encode(&sound()).is_ok());
        let broken: [fn(&mut BlockParts); 6] = [
            |parts| parts.times.push(1),
            |parts| parts.types.rows[0] = 1,
            |parts| parts.keys.ends[0] = 9,
            |parts| parts.payloads.ends[0] = 1,
            |parts| parts.raw = BTreeMap::from([(1, vec![])]),
            |parts| parts.raw = BTreeMap::from([(0, vec![])]),
        ];
        for change in broken {
            let mut parts = sound();
            change(&mut parts);
            assert_eq!(encode(&parts), Err(CodecError::Columns), "{parts:?}");
        }
    }
}
