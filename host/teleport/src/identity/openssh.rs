//! Private keys in OpenSSH's format, rewritten into the forms that TLS libraries read.

use rustls_pki_types::{PrivateKeyDer, PrivatePkcs1KeyDer, PrivatePkcs8KeyDer, PrivateSec1KeyDer};
use ssh_key::private::{EcdsaKeypair, Ed25519Keypair, KeypairData, RsaKeypair};
use ssh_key::{Mpint, PrivateKey};

use super::IdentityError;

/// Largest RSA modulus, in bytes: 8192 bits, as TLS libraries have it.
const RSA_MAX: usize = 1024;

pub(super) fn decode(text: &str) -> Result<PrivateKeyDer<'static>, IdentityError> {
    let key = PrivateKey::from_openssh(text)
        .map_err(|_| IdentityError::Block("OPENSSH PRIVATE KEY".to_owned()))?;
    match key.key_data() {
        KeypairData::Ed25519(pair) => Ok(PrivatePkcs8KeyDer::from(ed25519(pair)).into()),
        KeypairData::Ecdsa(EcdsaKeypair::NistP256 { public, private }) => {
            Ok(PrivateSec1KeyDer::from(p256(private.as_slice(), public.as_bytes())).into())
        }
        KeypairData::Rsa(pair) => Ok(PrivatePkcs1KeyDer::from(rsa(pair)?).into()),
        KeypairData::Encrypted(_) => Err(IdentityError::KeyEncrypted),
        other => Err(IdentityError::KeyKind(
            other
                .algorithm()
                .map_or("unknown".to_owned(), |kind| kind.to_string()),
        )),
    }
}

/// PKCS#8 (RFC 8410).
fn ed25519(pair: &Ed25519Keypair) -> Vec<u8> {
    const ALGORITHM: &[u8] = &[0x06, 0x03, 0x2b, 0x65, 0x70];
    let seed = tlv(0x04, &pair.private.to_bytes());
    sequence(&[tlv(0x02, &[0]), tlv(0x30, ALGORITHM), tlv(0x04, &seed)])
}

/// SEC1 (RFC 5915), with the curve and the public point: readers want both.
fn p256(private: &[u8], point: &[u8]) -> Vec<u8> {
    const PRIME256V1: &[u8] = &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
    let bits = [&[0], point].concat();
    sequence(&[
        tlv(0x02, &[1]),
        tlv(0x04, private),
        tlv(0xa0, PRIME256V1),
        tlv(0xa1, &tlv(0x03, &bits)),
    ])
}

/// PKCS#1 (RFC 8017). OpenSSH does not store d mod (p-1) and d mod (q-1), so they are computed.
fn rsa(pair: &RsaKeypair) -> Result<Vec<u8>, IdentityError> {
    let number = |value: &Mpint| match value.as_positive_bytes() {
        Some(bytes) if !bytes.is_empty() && bytes.len() <= RSA_MAX => Ok(bytes.to_vec()),
        _ => Err(IdentityError::Block("OPENSSH PRIVATE KEY".to_owned())),
    };
    let (n, e) = (number(&pair.public.n)?, number(&pair.public.e)?);
    let (d, p, q, inverse) = (
        number(&pair.private.d)?,
        number(&pair.private.p)?,
        number(&pair.private.q)?,
        number(&pair.private.iqmp)?,
    );
    let (dp, dq) = (remainder(&d, &minus_one(&p)), remainder(&d, &minus_one(&q)));
    let numbers = [&[0][..], &n, &e, &d, &p, &q, &dp, &dq, &inverse];
    Ok(sequence(&numbers.map(integer)))
}

fn sequence(parts: &[Vec<u8>]) -> Vec<u8> {
    tlv(0x30, &parts.concat())
}

/// A DER INTEGER of an unsigned big-endian number.
fn integer(bytes: &[u8]) -> Vec<u8> {
    let start = bytes
        .iter()
        .position(|&byte| byte != 0)
        .unwrap_or(bytes.len().saturating_sub(1));
    let bytes = &bytes[start..];
    if bytes.first().is_none_or(|&byte| byte >= 0x80) {
        tlv(0x02, &[&[0], bytes].concat())
    } else {
        tlv(0x02, bytes)
    }
}

fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    let len = content.len().to_be_bytes();
    match content.len() {
        0..0x80 => out.push(content.len() as u8),
        _ => {
            let start = len
                .iter()
                .position(|&byte| byte != 0)
                .unwrap_or(len.len() - 1);
            out.push(0x80 | (len.len() - start) as u8);
            out.extend_from_slice(&len[start..]);
        }
    }
    out.extend_from_slice(content);
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

/// `value mod modulus`, both big-endian, bit by bit: done once for a key, so plain beats fast.
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

    #[test]
    fn integers_are_minimal_and_positive() {
        for (bytes, der) in [
            (&[0][..], &[2, 1, 0][..]),
            (&[0, 0, 5], &[2, 1, 5]),
            (&[0x80], &[2, 2, 0, 0x80]),
            (&[], &[2, 1, 0]),
        ] {
            assert_eq!(integer(bytes), der);
        }
    }
}
