//! The format of a file: 16 bytes of magic, the SHA-256 of the rest, the key's length as 4 bytes
//! little-endian, the key, the content.
//!
//! The digest covers the key, so that a file moved to another name is not taken for what belongs
//! there.

use crate::digest::Digest;

const MAGIC: &[u8; 16] = b"lockgate code 1\n";
const DIGEST: usize = 32;
const BODY: usize = MAGIC.len() + DIGEST;

pub(super) fn seal(key: &str, content: &[u8]) -> Vec<u8> {
    let prefix = prefix(key);
    let mut bytes = Vec::with_capacity(BODY + prefix.len() + content.len());
    bytes.extend(MAGIC);
    bytes.extend([0; DIGEST]);
    bytes.extend(prefix);
    bytes.extend(content);
    let digest = Digest::of(&bytes[BODY..]);
    bytes[MAGIC.len()..BODY].copy_from_slice(digest.as_bytes());
    bytes
}

/// The content, if `bytes` is what `seal` made of it for this key.
pub(super) fn open(key: &str, mut bytes: Vec<u8>) -> Option<Vec<u8>> {
    let rest = bytes.strip_prefix(MAGIC)?;
    let (digest, body) = rest.split_at_checked(DIGEST)?;
    let prefix = prefix(key);
    if digest != Digest::of(body).as_bytes() || !body.starts_with(&prefix) {
        return None;
    }
    bytes.drain(..BODY + prefix.len());
    Some(bytes)
}

fn prefix(key: &str) -> Vec<u8> {
    // A key of 4 GiB does not occur; one that did would not be found again.
    let length = u32::try_from(key.len()).unwrap_or(u32::MAX);
    [&length.to_le_bytes()[..], key.as_bytes()].concat()
}
