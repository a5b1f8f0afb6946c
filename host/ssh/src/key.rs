//! Keys and signatures: RSA, ECDSA on P-256 and P-384, and Ed25519.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_2048_8192_SHA512, RsaPublicKeyComponents, UnparsedPublicKey, VerificationAlgorithm,
};
use rustls::SignatureScheme;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::sign::SigningKey;
use rustls_pki_types::PrivateKeyDer;
use std::sync::Arc;

use crate::Error;
use crate::wire::{Put, Reader, string, strings};

/// Largest RSA modulus, in bytes.
const RSA_MAX: usize = 1024;
/// The signatures of RSA keys, the better one first. Those with SHA-1 are not accepted.
const RSA: [&str; 2] = ["rsa-sha2-512", "rsa-sha2-256"];

/// A public key that can verify.
#[derive(Clone, PartialEq, Eq)]
pub enum PublicKey {
    Rsa { modulus: Vec<u8>, exponent: Vec<u8> },
    P256(Vec<u8>),
    P384(Vec<u8>),
    Ed25519(Vec<u8>),
}

impl std::fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl PublicKey {
    /// A key as certificates and authorized_keys have it, in base64 there. Its own certificate is
    /// not one.
    pub fn parse(blob: &[u8]) -> Option<PublicKey> {
        let mut reader = Reader(blob);
        let kind = reader.text()?;
        let key = PublicKey::read(kind, &mut reader)?;
        reader.0.is_empty().then_some(key)
    }

    /// What follows the name of the kind.
    pub(crate) fn read(kind: &str, reader: &mut Reader<'_>) -> Option<PublicKey> {
        let on_curve = |reader: &mut Reader<'_>, name: &[u8], length| {
            let [curve, point] = reader.strings()?;
            // Not compressed.
            let is_point = point.len() == length && point[0] == 4;
            (curve == name && is_point).then(|| point.to_vec())
        };
        Some(match kind {
            "ssh-rsa" => {
                let exponent = reader.positive(8)?.to_vec();
                let modulus = reader.positive(RSA_MAX)?.to_vec();
                PublicKey::Rsa { modulus, exponent }
            }
            "ecdsa-sha2-nistp256" => PublicKey::P256(on_curve(reader, b"nistp256", 65)?),
            "ecdsa-sha2-nistp384" => PublicKey::P384(on_curve(reader, b"nistp384", 97)?),
            "ssh-ed25519" => {
                let point = reader.string()?;
                PublicKey::Ed25519((point.len() == 32).then(|| point.to_vec())?)
            }
            _ => return None,
        })
    }

    /// What [`read`](Self::read) reads.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        match self {
            PublicKey::Rsa { modulus, exponent } => {
                out.put_positive(exponent);
                out.put_positive(modulus);
            }
            PublicKey::P256(point) => out.extend(strings(&[b"nistp256", point])),
            PublicKey::P384(point) => out.extend(strings(&[b"nistp384", point])),
            PublicKey::Ed25519(point) => out.put_string(point),
        }
    }

    /// What [`parse`](Self::parse) reads.
    pub fn blob(&self) -> Vec<u8> {
        let mut out = string(self.name().as_bytes());
        self.write(&mut out);
        out
    }

    /// In the form of authorized_keys.
    pub fn line(&self) -> String {
        format!("{} {}", self.name(), BASE64_STANDARD.encode(self.blob()))
    }

    /// The name of its kind.
    pub fn name(&self) -> &'static str {
        match self {
            PublicKey::Rsa { .. } => "ssh-rsa",
            PublicKey::P256(_) => "ecdsa-sha2-nistp256",
            PublicKey::P384(_) => "ecdsa-sha2-nistp384",
            PublicKey::Ed25519(_) => "ssh-ed25519",
        }
    }

    /// The signatures that it can verify.
    pub fn algorithms(&self) -> &'static [&'static str] {
        match self {
            PublicKey::Rsa { .. } => &RSA,
            PublicKey::P256(_) => &["ecdsa-sha2-nistp256"],
            PublicKey::P384(_) => &["ecdsa-sha2-nistp384"],
            PublicKey::Ed25519(_) => &["ssh-ed25519"],
        }
    }

    /// Whether it is the signature of the message. `algorithm`: the only one that is accepted.
    pub fn verifies(&self, algorithm: Option<&str>, message: &[u8], signature: &[u8]) -> bool {
        self.verify(algorithm, message, signature).is_some()
    }

    fn verify(&self, algorithm: Option<&str>, message: &[u8], signature: &[u8]) -> Option<()> {
        let mut reader = Reader(signature);
        let name = reader.text()?;
        let signature = reader.string()?;
        let is_allowed = algorithm.is_none_or(|algorithm| algorithm == name);
        if !is_allowed || !self.algorithms().contains(&name) || !reader.0.is_empty() {
            return None;
        }
        let by = |algorithm: &'static dyn VerificationAlgorithm, point: &[u8], signature: &[u8]| {
            let key = UnparsedPublicKey::new(algorithm, point);
            key.verify(message, signature).ok()
        };
        match self {
            PublicKey::Rsa { modulus, exponent } => {
                let key = RsaPublicKeyComponents {
                    n: modulus,
                    e: exponent,
                };
                let parameters = match name {
                    "rsa-sha2-512" => &RSA_PKCS1_2048_8192_SHA512,
                    _ => &RSA_PKCS1_2048_8192_SHA256,
                };
                // Leading zeros may have been left out.
                let length = modulus.len();
                let zeros = vec![0; length.checked_sub(signature.len())?];
                let signature = [&zeros, signature].concat();
                key.verify(parameters, message, &signature).ok()
            }
            PublicKey::P256(point) => by(&ECDSA_P256_SHA256_FIXED, point, &fixed(signature, 32)?),
            PublicKey::P384(point) => by(&ECDSA_P384_SHA384_FIXED, point, &fixed(signature, 48)?),
            PublicKey::Ed25519(point) => by(&ED25519, point, signature),
        }
    }
}

/// The two numbers of an ECDSA signature, filled up with zeros.
fn fixed(signature: &[u8], length: usize) -> Option<Vec<u8>> {
    let mut reader = Reader(signature);
    let mut out = Vec::with_capacity(2 * length);
    for _ in 0..2 {
        let number = reader.positive(length)?;
        out.resize(out.len() + length - number.len(), 0);
        out.extend_from_slice(number);
    }
    reader.0.is_empty().then_some(out)
}

/// A private key that can sign.
#[derive(Clone)]
pub struct SecretKey(Arc<dyn SigningKey>);

impl SecretKey {
    /// `None`: a kind that cannot be used, or damage.
    pub fn new(key: &PrivateKeyDer<'_>) -> Option<SecretKey> {
        any_supported_type(key).ok().map(SecretKey)
    }

    /// A signature, with its name.
    pub(crate) fn sign(&self, algorithm: &str, message: &[u8]) -> Result<Vec<u8>, Error> {
        let cannot = || Error::Signature(algorithm.to_owned());
        let scheme = match algorithm {
            "rsa-sha2-512" => SignatureScheme::RSA_PKCS1_SHA512,
            "rsa-sha2-256" => SignatureScheme::RSA_PKCS1_SHA256,
            "ecdsa-sha2-nistp256" => SignatureScheme::ECDSA_NISTP256_SHA256,
            "ecdsa-sha2-nistp384" => SignatureScheme::ECDSA_NISTP384_SHA384,
            "ssh-ed25519" => SignatureScheme::ED25519,
            _ => return Err(cannot()),
        };
        let signer = self.0.choose_scheme(&[scheme]).ok_or_else(cannot)?;
        let signature = signer.sign(message).map_err(|_| cannot())?;
        let signature = match algorithm {
            "ecdsa-sha2-nistp256" | "ecdsa-sha2-nistp384" => {
                numbers_of_der(&signature).ok_or_else(cannot)?
            }
            _ => signature,
        };
        Ok(strings(&[algorithm.as_bytes(), &signature]))
    }

    /// Whether the two are a pair.
    pub fn belongs_to(&self, public: &PublicKey) -> bool {
        const MESSAGE: &[u8] = b"whether the two are a pair";
        let algorithm = public.algorithms()[0];
        let signature = self.sign(algorithm, MESSAGE);
        signature.is_ok_and(|signature| public.verifies(Some(algorithm), MESSAGE, &signature))
    }
}

/// An ECDSA signature of TLS, a DER sequence of two integers, as SSH has it.
fn numbers_of_der(der: &[u8]) -> Option<Vec<u8>> {
    // Both are short enough for lengths of one byte.
    let [0x30, length, rest @ ..] = der else {
        return None;
    };
    if usize::from(*length) != rest.len() {
        return None;
    }
    let (mut rest, mut out) = (rest, Vec::new());
    for _ in 0..2 {
        let [0x02, length, after @ ..] = rest else {
            return None;
        };
        let (number, after) = after.split_at_checked(usize::from(*length))?;
        out.put_positive(number);
        rest = after;
    }
    rest.is_empty().then_some(out)
}
