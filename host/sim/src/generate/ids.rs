//! Ids that look like random UUIDs but encode their position, so that the server needs no index of
//! its events.

use super::rng::mix;
use super::text::ShortText;

/// The kind of object that an id identifies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IdKind {
    Event = 1,
    Ssh = 2,
    Database = 3,
    Application = 4,
    Chunk = 5,
}

/// A keyed bijection between (kind, position) and the 122 free bits of a UUID: four Feistel rounds
/// over two halves of 61 bits.
#[derive(Clone, Debug)]
pub(crate) struct Ids {
    keys: [u64; 4],
}

const HALF: u64 = (1 << 61) - 1;
const KIND_SHIFT: u32 = 53;

impl Ids {
    pub(crate) fn new(seed: u64) -> Ids {
        Ids {
            keys: std::array::from_fn(|round| mix(mix(seed) ^ mix(0x1d5 + round as u64))),
        }
    }

    pub(crate) fn encode(&self, kind: IdKind, position: u64) -> ShortText {
        let (mut left, mut right) = (position & HALF, (kind as u64) << KIND_SHIFT);
        for key in self.keys {
            (left, right) = (right, left ^ mix(right ^ key) & HALF);
        }
        let bits = (u128::from(left) << 61) | u128::from(right);
        ShortText::uuid(
            ((bits >> 74) << 80) | ((bits >> 62 & 0xfff) << 64) | bits & ((1 << 62) - 1),
        )
    }

    /// The position, if `id` was made by [`Self::encode`] with this seed and kind.
    pub(crate) fn decode(&self, kind: IdKind, id: &str) -> Option<u64> {
        let bits = parse(id)?;
        let bits = ((bits >> 80) << 74) | ((bits >> 64 & 0xfff) << 62) | bits & ((1 << 62) - 1);
        let (mut left, mut right) = ((bits >> 61) as u64 & HALF, bits as u64 & HALF);
        for key in self.keys.iter().rev() {
            (left, right) = (right ^ mix(left ^ key) & HALF, left);
        }
        (right == (kind as u64) << KIND_SHIFT).then_some(left)
    }
}

fn parse(id: &str) -> Option<u128> {
    let bytes = id.as_bytes();
    if bytes.len() != 36 {
        return None;
    }
    let mut bits = 0;
    for (at, &byte) in bytes.iter().enumerate() {
        if matches!(at, 8 | 13 | 18 | 23) {
            if byte != b'-' {
                return None;
            }
            continue;
        }
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            _ => return None,
        };
        bits = (bits << 4) | u128::from(digit);
    }
    (bits >> 76 & 0xf == 4 && bits >> 62 & 0x3 == 2).then_some(bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_decode_to_their_position_and_to_nothing_else() {
        let ids = Ids::new(42);
        for position in [0, 1, 4_999, 5_000, 2_000_000, HALF] {
            let id = ids.encode(IdKind::Event, position);
            assert_eq!(
                ids.decode(IdKind::Event, id.as_str()),
                Some(position),
                "{}",
                id.as_str()
            );
            assert_eq!(ids.decode(IdKind::Ssh, id.as_str()), None);
            assert_eq!(Ids::new(43).decode(IdKind::Event, id.as_str()), None);
        }
        for foreign in [
            "",
            "x",
            "ffffffff-ffff-4fff-bfff-ffffffffffff",
            "ffffffff-ffff-4fff-bfff-fffffffffff\u{e9}",
            "../../etc/passwd",
        ] {
            assert_eq!(ids.decode(IdKind::Event, foreign), None, "{foreign}");
        }
    }
}
