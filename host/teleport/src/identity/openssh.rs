//! Private keys in OpenSSH's format (`PROTOCOL.key` of its sources), rewritten into the forms that
//! TLS libraries read.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs1KeyDer, PrivatePkcs8KeyDer, PrivateSec1KeyDer};

use super::IdentityError;
use super::der::{integer, sequence, tlv};

const LABEL: &str = "OPENSSH PRIVATE KEY";
const MAGIC: &[u8] = b"openssh-key-v1\0";
/// The padding fills the last block. Without a cipher, a block is 8 bytes.
const PADDING: &[u8] = &[1, 2, 3, 4, 5, 6, 7];
/// Largest RSA modulus, in bytes: 8192 bits, the limit of TLS libraries.
const RSA_MAX: usize = 1024;
/// Longest algorithm name that a message repeats, in bytes.
const NAME_MAX: usize = 64;

pub(super) fn decode(pem: &str) -> Result<PrivateKeyDer<'static>, IdentityError> {
    let damaged = || IdentityError::Block(LABEL.to_owned());
    let body: String = pem
        .lines()
        .filter(|line| !line.starts_with("-----"))
        .collect();
    let bytes = BASE64_STANDARD.decode(body).map_err(|_| damaged())?;
    let mut file = Reader(bytes.strip_prefix(MAGIC).ok_or_else(damaged)?);
    let [cipher, kdf, options] = file.strings().ok_or_else(damaged)?;
    if cipher != b"none" {
        return Err(IdentityError::KeyEncrypted);
    }
    let one_key = kdf == b"none" && options.is_empty() && file.number() == Some(1);
    let [public, private] = file.strings().ok_or_else(damaged)?;
    if !one_key || !file.0.is_empty() {
        return Err(damaged());
    }

    let mut private = Reader(private);
    // Two equal numbers, by which OpenSSH recognises the right passphrase.
    let [check, again] = [private.number(), private.number()];
    if check.is_none() || check != again {
        return Err(damaged());
    }
    let kind = private.string().ok_or_else(damaged)?;
    let key = match kind {
        b"ssh-ed25519" => ed25519(&mut private, public),
        b"ecdsa-sha2-nistp256" => p256(&mut private, public),
        b"ssh-rsa" => rsa(&mut private, public),
        other => {
            let name = str::from_utf8(other).map_err(|_| damaged())?;
            let is_name =
                name.len() <= NAME_MAX && name.bytes().all(|byte| byte.is_ascii_graphic());
            return Err(if is_name {
                IdentityError::KeyKind(name.to_owned())
            } else {
                damaged()
            });
        }
    };
    let comment = private.string();
    let padded = PADDING.starts_with(private.0);
    key.filter(|_| comment.is_some() && padded)
        .ok_or_else(damaged)
}

/// PKCS#8 (RFC 8410).
fn ed25519(private: &mut Reader<'_>, public: &[u8]) -> Option<PrivateKeyDer<'static>> {
    const ALGORITHM: &[u8] = &[0x06, 0x03, 0x2b, 0x65, 0x70];
    let [point, pair] = private.strings()?;
    let (seed, half) = pair.split_at_checked(32)?;
    if point.len() != 32 || half != point || public != strings(&[b"ssh-ed25519", point]) {
        return None;
    }
    let seed = tlv(0x04, &tlv(0x04, seed));
    let key = sequence(&[tlv(0x02, &[0]), tlv(0x30, ALGORITHM), seed]);
    Some(PrivatePkcs8KeyDer::from(key).into())
}

/// SEC1 (RFC 5915), with the curve and the public point: TLS libraries require both.
fn p256(private: &mut Reader<'_>, public: &[u8]) -> Option<PrivateKeyDer<'static>> {
    const PRIME256V1: &[u8] = &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
    let [curve, point] = private.strings()?;
    let scalar = private.positive(32)?;
    if curve != b"nistp256" || public != strings(&[b"ecdsa-sha2-nistp256", curve, point]) {
        return None;
    }
    let mut padded = [0; 32];
    padded[32 - scalar.len()..].copy_from_slice(scalar);
    let key = sequence(&[
        tlv(0x02, &[1]),
        tlv(0x04, &padded),
        tlv(0xa0, PRIME256V1),
        tlv(0xa1, &tlv(0x03, &[&[0], point].concat())),
    ]);
    Some(PrivateSec1KeyDer::from(key).into())
}

/// PKCS#1 (RFC 8017). OpenSSH does not store d mod (p-1) and d mod (q-1), so they are computed.
fn rsa(private: &mut Reader<'_>, public: &[u8]) -> Option<PrivateKeyDer<'static>> {
    let before = private.0;
    let [n, e] = [private.positive(RSA_MAX)?, private.positive(RSA_MAX)?];
    let [d, inverse] = [private.positive(RSA_MAX)?, private.positive(RSA_MAX)?];
    let [p, q] = [private.positive(RSA_MAX)?, private.positive(RSA_MAX)?];
    let [modulus, exponent] = Reader(before).strings()?;
    if public != strings(&[b"ssh-rsa", exponent, modulus]) {
        return None;
    }
    let (dp, dq) = (remainder(d, &minus_one(p)), remainder(d, &minus_one(q)));
    let numbers = [&[0][..], n, e, d, p, q, &dp, &dq, inverse];
    let key = sequence(&numbers.map(integer));
    Some(PrivatePkcs1KeyDer::from(key).into())
}

/// The types of RFC 4251, section 5.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn number(&mut self) -> Option<u32> {
        let (bytes, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u32::from_be_bytes(*bytes))
    }

    fn string(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.number()?).ok()?;
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(bytes)
    }

    fn strings<const N: usize>(&mut self) -> Option<[&'a [u8]; N]> {
        let mut strings = [&[][..]; N];
        for string in &mut strings {
            *string = self.string()?;
        }
        Some(strings)
    }

    /// An mpint above zero of at most `max` bytes, without its sign.
    fn positive(&mut self, max: usize) -> Option<&'a [u8]> {
        let bytes = match self.string()? {
            [0, bytes @ ..] => bytes,
            [0x80..=0xff, ..] => return None,
            bytes => bytes,
        };
        (!bytes.is_empty() && bytes.len() <= max && bytes[0] != 0).then_some(bytes)
    }
}

fn strings(parts: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::new();
    for part in parts {
        // Every part was read from a string, whose length has 32 bits.
        out.extend_from_slice(&(part.len() as u32).to_be_bytes());
        out.extend_from_slice(part);
    }
    out
}

/// An odd number less one.
fn minus_one(bytes: &[u8]) -> Vec<u8> {
    let mut out = bytes.to_vec();
    if let Some(last) = out.last_mut() {
        *last &= 0xfe;
    }
    out
}

/// `value mod modulus`, both big-endian, bit by bit. It runs once per key, so simplicity matters
/// more than speed.
fn remainder(value: &[u8], modulus: &[u8]) -> Vec<u8> {
    let width = modulus.len() + 1;
    let modulus: Vec<u8> = [&[0], modulus].concat();
    let mut rest = vec![0u8; width];
    if modulus.iter().all(|&byte| byte == 0) {
        return rest;
    }
    for bit in (0..value.len() * 8).map(|at| value[at / 8] >> (7 - at % 8) & 1) {
        let mut carry = bit;
        for byte in rest.iter_mut().rev() {
            (*byte, carry) = (*byte << 1 | carry, *byte >> 7);
        }
        if rest >= modulus {
            let mut borrow = false;
            for (byte, &less) in rest.iter_mut().zip(&modulus).rev() {
                let (first, under) = byte.overflowing_sub(less);
                let (second, under_again) = first.overflowing_sub(borrow.into());
                *byte = second;
                borrow = under || under_again;
            }
        }
    }
    rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remainders_are_right() {
        for (value, modulus) in [
            (0u64, 7u64),
            (6, 7),
            (7, 7),
            (1 << 40, 1_000_003),
            (u64::MAX, 0xffff_fffb),
            (12345, 1),
        ] {
            let rest = remainder(&value.to_be_bytes(), &modulus.to_be_bytes());
            assert_eq!(
                rest[1..],
                (value % modulus).to_be_bytes(),
                "{value} mod {modulus}"
            );
        }
    }

    /// A key file in OpenSSH's format.
    fn pem(cipher: &[u8], kind: &[u8], rest: &[u8]) -> String {
        let private = [&[0; 8][..], &strings(&[kind]), rest].concat();
        let body = [
            MAGIC,
            &strings(&[cipher, b"none", b""]),
            &1u32.to_be_bytes(),
            &strings(&[&strings(&[kind]), &private]),
        ];
        let body = BASE64_STANDARD.encode(body.concat());
        format!("-----BEGIN {LABEL}-----\n{body}\n-----END {LABEL}-----\n")
    }

    #[test]
    fn a_key_that_cannot_be_used_is_named() {
        let kind = |name: &str| IdentityError::KeyKind(name.to_owned());
        let damaged = IdentityError::Block(LABEL.to_owned());
        for (file, error) in [
            (pem(b"none", b"ssh-dss", b""), kind("ssh-dss")),
            (
                pem(b"none", b"ecdsa-sha2-nistp384", b""),
                kind("ecdsa-sha2-nistp384"),
            ),
            (
                pem(b"aes256-ctr", b"ssh-rsa", b""),
                IdentityError::KeyEncrypted,
            ),
            (pem(b"none", b"a\nb", b""), damaged.clone()),
            (pem(b"none", b"ssh-ed25519", b""), damaged.clone()),
            (String::new(), damaged),
        ] {
            assert_eq!(decode(&file).map(drop), Err(error), "{file}");
        }
    }

    /// Every changed byte is noticed, except in the seed, which only a handshake can check.
    #[test]
    fn the_halves_of_a_pair_must_agree() {
        let text = include_str!("../../testdata/keys/ed25519.openssh.pem");
        let body: String = text.lines().filter(|line| !line.starts_with('-')).collect();
        let bytes = BASE64_STANDARD.decode(body).expect("base64");
        let seed = bytes
            .windows(4)
            .rposition(|window| window == [0, 0, 0, 64])
            .expect("a pair")
            + 4;
        let comment = seed + 64;
        for at in 0..comment {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x01;
            let pem = format!("-----BEGIN\n{}\n", BASE64_STANDARD.encode(damaged));
            assert_eq!(
                decode(&pem).is_ok(),
                (seed..seed + 32).contains(&at),
                "byte {at}"
            );
        }
        assert!(decode(text).is_ok());
    }
}
