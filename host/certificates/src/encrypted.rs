//! A private key encrypted with a passphrase: PKCS #8 with PBES2 (RFC 8018), PBKDF2 with
//! HMAC-SHA-256, and AES-256 in CBC mode. Every OpenSSL since 1.0 reads it.

use std::num::NonZeroU32;

use aes::Aes256;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cbc::cipher::block_padding::Pkcs7;
use cbc::cipher::{BlockEncryptMut, KeyIvInit};
use ring::pbkdf2::{PBKDF2_HMAC_SHA256, derive};
use ring::rand::{SecureRandom, SystemRandom};

use crate::CertificateError;

/// As many as OWASP's recommendation for PBKDF2 with HMAC-SHA-256.
const ITERATIONS: NonZeroU32 = NonZeroU32::new(600_000).expect("not zero");

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const OCTETS: u8 = 0x04;
const NULL: [u8; 2] = [0x05, 0x00];
/// Object identifiers, with their tags and lengths.
const PBES2: &[u8] = &[
    0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x05, 0x0d,
];
const PBKDF2: &[u8] = &[
    0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x05, 0x0c,
];
const HMAC_SHA256: &[u8] = &[0x06, 0x08, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x02, 0x09];
const AES256_CBC: &[u8] = &[
    0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x01, 0x2a,
];

/// `der`: the key in PKCS #8.
pub(crate) fn pem(
    der: &[u8],
    passphrase: &str,
    random: &SystemRandom,
) -> Result<String, CertificateError> {
    let (mut salt, mut iv) = ([0; 16], [0; 16]);
    for bytes in [&mut salt, &mut iv] {
        random.fill(bytes).map_err(|_| CertificateError::Random)?;
    }
    let mut key = [0; 32];
    derive(
        PBKDF2_HMAC_SHA256,
        ITERATIONS,
        &salt,
        passphrase.as_bytes(),
        &mut key,
    );
    let cipher = cbc::Encryptor::<Aes256>::new(&key.into(), &iv.into());
    let encrypted = cipher.encrypt_padded_vec_mut::<Pkcs7>(der);

    let function = sequence(&[HMAC_SHA256, &NULL]);
    let iterations = ITERATIONS.get().to_be_bytes();
    // Its first byte is zero, so the number is positive.
    let iterations = tagged(INTEGER, &iterations[usize::from(iterations[1] < 0x80)..]);
    let derivation = sequence(&[&tagged(OCTETS, &salt), &iterations, &function]);
    let derivation = sequence(&[PBKDF2, &derivation]);
    let scheme = sequence(&[AES256_CBC, &tagged(OCTETS, &iv)]);
    let algorithm = sequence(&[PBES2, &sequence(&[&derivation, &scheme])]);
    let info = sequence(&[&algorithm, &tagged(OCTETS, &encrypted)]);

    let mut pem = String::from("-----BEGIN ENCRYPTED PRIVATE KEY-----\n");
    let text = STANDARD.encode(info);
    for line in text.as_bytes().chunks(64) {
        pem.extend(line.iter().map(|byte| char::from(*byte)));
        pem.push('\n');
    }
    pem += "-----END ENCRYPTED PRIVATE KEY-----\n";
    Ok(pem)
}

fn sequence(parts: &[&[u8]]) -> Vec<u8> {
    tagged(SEQUENCE, &parts.concat())
}

/// DER: tag, length, content.
fn tagged(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut der = vec![tag];
    match content.len() {
        short @ 0..0x80 => der.push(short as u8),
        long => {
            let bytes = long.to_be_bytes();
            let first = bytes.iter().position(|byte| *byte != 0).unwrap_or(0);
            der.push(0x80 | (bytes.len() - first) as u8);
            der.extend(&bytes[first..]);
        }
    }
    der.extend(content);
    der
}
