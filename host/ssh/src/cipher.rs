//! Packets (RFC 4253, section 6), in the clear and encrypted with authentication.

use bytes::{Buf, BytesMut};
use ring::aead::chacha20_poly1305_openssh as chacha;
use ring::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};

use crate::Error;

/// Largest packet that is read, in bytes, as with OpenSSH and Go.
const PACKET_MAX: usize = 256 * 1024;
const TAG: usize = 16;

/// How packets are encrypted. All of these authenticate them, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cipher {
    Aes256Gcm,
    Aes128Gcm,
    ChaCha20Poly1305,
}

impl Cipher {
    pub const ALL: [Cipher; 3] = [
        Cipher::Aes256Gcm,
        Cipher::Aes128Gcm,
        Cipher::ChaCha20Poly1305,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Cipher::Aes256Gcm => "aes256-gcm@openssh.com",
            Cipher::Aes128Gcm => "aes128-gcm@openssh.com",
            Cipher::ChaCha20Poly1305 => "chacha20-poly1305@openssh.com",
        }
    }

    pub fn named(name: &str) -> Option<Cipher> {
        Cipher::ALL.into_iter().find(|cipher| cipher.name() == name)
    }

    pub fn key_bytes(self) -> usize {
        match self {
            Cipher::Aes256Gcm => 32,
            Cipher::Aes128Gcm => 16,
            Cipher::ChaCha20Poly1305 => chacha::KEY_LEN,
        }
    }

    /// Of the initial value. The nonce of ChaCha20 is the number of the packet.
    pub fn iv_bytes(self) -> usize {
        match self {
            Cipher::Aes256Gcm | Cipher::Aes128Gcm => 12,
            Cipher::ChaCha20Poly1305 => 0,
        }
    }
}

/// The nonces of AES-GCM: the last eight bytes count packets (RFC 5647, section 7.1).
struct Counter([u8; 12]);

impl Counter {
    fn next(&mut self) -> Nonce {
        let nonce = Nonce::assume_unique_for_key(self.0);
        let (_, count) = self.0.split_at_mut(4);
        for byte in count.iter_mut().rev() {
            *byte = byte.wrapping_add(1);
            if *byte != 0 {
                break;
            }
        }
        nonce
    }
}

/// A key for one direction.
enum Key<C> {
    Clear,
    Gcm(Box<LessSafeKey>, Counter),
    ChaCha(Box<C>),
}

impl<C> Key<C> {
    /// `key` and `iv` have the lengths that the cipher names.
    fn new(
        cipher: Cipher,
        key: &[u8],
        iv: &[u8],
        chacha: fn(&[u8; chacha::KEY_LEN]) -> C,
    ) -> Option<Key<C>> {
        let algorithm = match cipher {
            Cipher::Aes256Gcm => &AES_256_GCM,
            Cipher::Aes128Gcm => &AES_128_GCM,
            Cipher::ChaCha20Poly1305 => {
                return Some(Key::ChaCha(Box::new(chacha(key.try_into().ok()?))));
            }
        };
        let key = UnboundKey::new(algorithm, key).ok()?;
        let counter = Counter(iv.try_into().ok()?);
        Some(Key::Gcm(Box::new(LessSafeKey::new(key)), counter))
    }
}

/// Takes packets from a stream.
pub(crate) struct Opener {
    key: Key<chacha::OpeningKey>,
    /// The number of the next packet.
    pub sequence: u32,
}

impl Opener {
    pub fn clear() -> Opener {
        Opener {
            key: Key::Clear,
            sequence: 0,
        }
    }

    pub fn is_clear(&self) -> bool {
        matches!(self.key, Key::Clear)
    }

    /// From here on. `sequence`: the number of the next packet.
    pub fn with_key(cipher: Cipher, key: &[u8], iv: &[u8], sequence: u32) -> Option<Opener> {
        let key = Key::new(cipher, key, iv, chacha::OpeningKey::new)?;
        Some(Opener { key, sequence })
    }

    /// The payload of the next packet, once it is there.
    pub fn open(&mut self, stream: &mut BytesMut) -> Result<Option<Vec<u8>>, Error> {
        let Some(&first) = stream.first_chunk::<4>() else {
            return Ok(None);
        };
        let (length, block, tag) = match &self.key {
            Key::Clear => (first, 8, 0),
            Key::Gcm(..) => (first, 16, TAG),
            Key::ChaCha(key) => (key.decrypt_packet_length(self.sequence, first), 8, TAG),
        };
        let length = u32::from_be_bytes(length) as usize;
        // In the clear, the length counts, too.
        let filled = length + if tag == 0 { 4 } else { 0 };
        if !(8..=PACKET_MAX).contains(&length) || !filled.is_multiple_of(block) {
            return Err(Error::Protocol("the length of a packet"));
        }
        if stream.len() < 4 + length + tag {
            return Ok(None);
        }
        let broken = || Error::Protocol("a packet that was changed on its way");
        let mut packet = stream.split_to(4 + length + tag);
        let content = match &mut self.key {
            Key::Clear => &packet[4..],
            Key::Gcm(key, counter) => {
                let (head, sealed) = packet.split_at_mut(4);
                let opened = key.open_in_place(counter.next(), Aad::from(&*head), sealed);
                &*opened.map_err(|_| broken())?
            }
            Key::ChaCha(key) => {
                let (sealed, tag) = packet.split_at_mut(4 + length);
                let tag = (&*tag).try_into().map_err(|_| broken())?;
                key.open_in_place(self.sequence, sealed, tag)
                    .map_err(|_| broken())?
            }
        };
        let padding = usize::from(content[0]);
        // A payload has a byte at least.
        if padding < 4 || padding + 2 > length {
            return Err(Error::Protocol("the padding of a packet"));
        }
        let payload = content[1..length - padding].to_vec();
        self.sequence = self.sequence.wrapping_add(1);
        Ok(Some(payload))
    }
}

/// Appends packets to a stream.
pub(crate) struct Sealer {
    key: Key<chacha::SealingKey>,
    pub sequence: u32,
}

impl Sealer {
    pub fn clear() -> Sealer {
        Sealer {
            key: Key::Clear,
            sequence: 0,
        }
    }

    pub fn with_key(cipher: Cipher, key: &[u8], iv: &[u8], sequence: u32) -> Option<Sealer> {
        let key = Key::new(cipher, key, iv, chacha::SealingKey::new)?;
        Some(Sealer { key, sequence })
    }

    pub fn seal(&mut self, payload: &[u8], stream: &mut BytesMut) -> Result<(), Error> {
        let (block, head) = match self.key {
            Key::Clear => (8, 5),
            Key::Gcm(..) => (16, 1),
            Key::ChaCha(_) => (8, 1),
        };
        let mut padding = block - (head + payload.len()) % block;
        if padding < 4 {
            padding += block;
        }
        let length = 1 + payload.len() + padding;
        let mut random = [0; 32];
        let random = &mut random[..padding];
        SystemRandom::new()
            .fill(random)
            .map_err(|_| Error::NoRandom)?;
        let start = stream.len();
        stream.reserve(4 + length + TAG);
        // Payloads are below 64 kB.
        stream.extend_from_slice(&(length as u32).to_be_bytes());
        stream.extend_from_slice(&[padding as u8]);
        stream.extend_from_slice(payload);
        stream.extend_from_slice(random);
        let packet = &mut stream[start..];
        let failed = Error::Protocol("a packet that cannot be encrypted");
        match &mut self.key {
            Key::Clear => {}
            Key::Gcm(key, counter) => {
                let (head, content) = packet.split_at_mut(4);
                let tag =
                    key.seal_in_place_separate_tag(counter.next(), Aad::from(&*head), content);
                let tag = tag.map_err(|_| failed)?;
                stream.extend_from_slice(tag.as_ref());
            }
            Key::ChaCha(key) => {
                let mut tag = [0; TAG];
                key.seal_in_place(self.sequence, packet, &mut tag);
                stream.extend_from_slice(&tag);
            }
        }
        self.sequence = self.sequence.wrapping_add(1);
        Ok(())
    }
}

/// Takes a line of at most `max` bytes, without its end. `None`: it is not there yet.
pub(crate) fn line(stream: &mut BytesMut, max: usize) -> Result<Option<Vec<u8>>, Vec<u8>> {
    match stream.iter().take(max).position(|&byte| byte == b'\n') {
        Some(end) => {
            let line = stream.split_to(end).to_vec();
            stream.advance(1);
            let line = line.strip_suffix(b"\r").map(<[u8]>::to_vec).unwrap_or(line);
            Ok(Some(line))
        }
        None if stream.len() >= max => Err(stream.to_vec()),
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pair(cipher: Option<Cipher>, sequence: u32) -> (Sealer, Opener) {
        let Some(cipher) = cipher else {
            return (Sealer::clear(), Opener::clear());
        };
        let (key, iv) = (vec![7; cipher.key_bytes()], vec![0xff; cipher.iv_bytes()]);
        (
            Sealer::with_key(cipher, &key, &iv, sequence).expect("a key"),
            Opener::with_key(cipher, &key, &iv, sequence).expect("a key"),
        )
    }

    fn any_cipher() -> impl Strategy<Value = Option<Cipher>> {
        prop::sample::select(vec![
            None,
            Some(Cipher::Aes128Gcm),
            Some(Cipher::Aes256Gcm),
            Some(Cipher::ChaCha20Poly1305),
        ])
    }

    proptest! {
        #[test]
        fn packets_are_opened_as_they_were_sealed_however_they_are_cut(
            cipher in any_cipher(),
            sequence in prop::sample::select(vec![0, 5, u32::MAX]),
            payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..300), 1..5),
            cut in 1..400usize,
        ) {
            let (mut sealer, mut opener) = pair(cipher, sequence);
            let mut wire = BytesMut::new();
            for payload in &payloads {
                sealer.seal(payload, &mut wire).expect("a packet");
            }
            let (mut stream, mut opened) = (BytesMut::new(), Vec::new());
            for piece in wire.chunks(cut) {
                stream.extend_from_slice(piece);
                while let Some(payload) = opener.open(&mut stream).expect("a packet") {
                    opened.push(payload);
                }
            }
            prop_assert_eq!(opened, payloads);
            prop_assert!(stream.is_empty());
        }

        #[test]
        fn a_changed_packet_is_not_opened(
            cipher in any_cipher().prop_filter("encrypted", Option::is_some),
            payload in prop::collection::vec(any::<u8>(), 1..100),
            at in any::<prop::sample::Index>(),
            bit in 0..8u8,
        ) {
            let (mut sealer, mut opener) = pair(cipher, 3);
            let mut wire = BytesMut::new();
            sealer.seal(&payload, &mut wire).expect("a packet");
            let at = at.index(wire.len());
            wire[at] ^= 1 << bit;
            // A changed length may ask for more bytes.
            prop_assert!(!matches!(opener.open(&mut wire), Ok(Some(_))));
        }

        #[test]
        fn any_bytes_are_packets_or_an_error(cipher in any_cipher(), bytes: Vec<u8>) {
            let (_, mut opener) = pair(cipher, 0);
            let mut stream = BytesMut::from(&bytes[..]);
            while let Ok(Some(_)) = opener.open(&mut stream) {}
        }
    }
}
