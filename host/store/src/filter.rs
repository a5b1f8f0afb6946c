//! Which ids a block may hold: a Bloom filter for each block, so that one event is found without
//! reading every block.
//!
//! A filter has 16 bits for each id, and an id sets 8 of them: a block that does not hold an id is
//! read in vain once in about two thousand times. The first 8 bytes of the id's SHA-256, as two
//! big-endian numbers `a` and `b` of 32 bits, decide which: for n from 0 to 7 the bit
//! `(a + n * (b | 1)) mod 2^32 * bits / 2^32`, where bit 0 is the lowest bit of the first byte.

use std::collections::HashSet;

use lockgate_model::{Block, BlockParts, Seq};
use sha2::{Digest, Sha256};

use crate::Heads;
use crate::schema::row_checksum;

const BITS_PER_ID: usize = 16;
const BITS_SET: u32 = 8;

/// An id as filters know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct IdHash {
    start: u32,
    step: u32,
}

impl IdHash {
    /// Of a session's id, or of an event's: the key of an event of a recording begins with the
    /// session's id, which is left out here, because it is not always known.
    pub fn of(id: &str) -> IdHash {
        let id = id.rsplit('/').next().unwrap_or(id);
        let digest = Sha256::digest(id);
        let word = |at: usize| {
            u32::from_be_bytes([digest[at], digest[at + 1], digest[at + 2], digest[at + 3]])
        };
        IdHash {
            start: word(0),
            step: word(4) | 1,
        }
    }

    fn bits(self, len: usize) -> impl Iterator<Item = usize> {
        (0..BITS_SET).map(move |nth| {
            let at = self.start.wrapping_add(nth.wrapping_mul(self.step));
            ((u64::from(at) * len as u64) >> 32) as usize
        })
    }
}

/// The filter of a block that is about to be written.
pub fn of_parts(parts: &BlockParts) -> Vec<u8> {
    let keys = (0..parts.keys.len()).map(|row| parts.keys.at(row));
    let sessions = (0..parts.sessions.values.len()).map(|nth| parts.sessions.values.at(nth));
    of_ids(keys.chain(sessions))
}

/// The same filter, of a block that was written.
pub fn of_heads(heads: &Heads) -> Vec<u8> {
    let keys = (0..heads.keys.len()).map(|row| heads.keys.at(row));
    let sessions = (0..heads.sessions.values.len()).map(|nth| heads.sessions.values.at(nth));
    of_ids(keys.chain(sessions))
}

/// The same filter, of events that may have been a block.
pub fn of_rows(events: &Block, rows: &[usize]) -> Vec<u8> {
    let ids = rows
        .iter()
        .flat_map(|&row| [events.view(row).key, events.session(row)]);
    of_ids(ids)
}

fn of_ids<'a>(ids: impl Iterator<Item = &'a str>) -> Vec<u8> {
    let ids: HashSet<IdHash> = ids.filter(|id| !id.is_empty()).map(IdHash::of).collect();
    let mut filter = vec![0; (ids.len() * BITS_PER_ID).div_ceil(8)];
    let len = filter.len() * 8;
    for id in ids {
        for bit in id.bits(len) {
            filter[bit / 8] |= 1 << (bit % 8);
        }
    }
    filter
}

/// False: the block does not hold the id.
pub fn may_hold(filter: &[u8], id: IdHash) -> bool {
    !filter.is_empty()
        && id
            .bits(filter.len() * 8)
            .all(|bit| filter[bit / 8] & 1 << (bit % 8) != 0)
}

/// A filter that lies would hide an event.
pub fn checksum(stream_id: i64, first_seq: Seq, filter: &[u8]) -> [u8; 16] {
    row_checksum([stream_id.into(), first_seq.into(), filter.into()])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::codec;
    use crate::codec::tests::some_parts;

    proptest! {
        #[test]
        fn a_filter_knows_every_id_of_its_block(parts in some_parts()) {
            let filter = of_parts(&parts);
            for row in 0..parts.keys.len() {
                for id in [parts.keys.at(row), parts.sessions.at(row)] {
                    prop_assert!(id.is_empty() || may_hold(&filter, IdHash::of(id)), "{id}");
                }
            }
            let (heads, _) = codec::encode(&parts).unwrap();
            prop_assert_eq!(of_heads(&codec::decode_heads(&heads).unwrap()), filter);
        }
    }

    #[test]
    fn few_other_ids_seem_to_be_there() {
        let ids: Vec<String> = (0..512).map(|nth| format!("id-{nth}")).collect();
        let filter = of_ids(ids.iter().map(String::as_str));
        assert_eq!(filter.len(), 1024);
        let wrong = (0..100_000)
            .filter(|nth| may_hold(&filter, IdHash::of(&format!("other-{nth}"))))
            .count();
        assert!(wrong < 150, "{wrong} of 100,000");
    }

    #[test]
    fn an_event_of_a_recording_is_known_with_and_without_its_session() {
        let filter = of_ids(["5d0f/e-1"].into_iter());
        assert!(may_hold(&filter, IdHash::of("e-1")));
        assert!(may_hold(&filter, IdHash::of("5d0f/e-1")));
        assert!(!may_hold(&filter, IdHash::of("e-2")));
        assert!(!may_hold(&of_ids([].into_iter()), IdHash::of("e-1")));
    }
}
