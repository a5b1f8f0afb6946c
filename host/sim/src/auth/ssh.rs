//! OpenSSH certificates (`PROTOCOL.certkeys` in its sources), as far as an identity file contains
//! them.

use std::time::SystemTime;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use rcgen::{KeyPair, PKCS_ED25519, SigningKey};
use rustls::crypto::ring;

use lockgate_model::der;

use super::identity::{KeyKind, User};
use crate::SimError;
use crate::certificate::since_epoch;

const FOR_USERS: u32 = 1;
const ED25519: &str = "ssh-ed25519";

/// A new SSH certificate authority. Nothing here speaks SSH, so it is not kept.
pub(super) struct Authority(KeyPair);

impl Authority {
    pub(super) fn new() -> Result<Authority, SimError> {
        Ok(Authority(KeyPair::generate_for(&PKCS_ED25519)?))
    }

    /// The public key, in the format of authorized_keys.
    pub(super) fn public_key(&self) -> String {
        line(ED25519, &self.public())
    }

    /// A user certificate with Teleport's extensions, in the format of authorized_keys.
    #[allow(
        clippy::disallowed_methods,
        reason = "certificates are valid from now on"
    )]
    pub(super) fn sign(
        &self,
        cluster: &str,
        user: &User,
        (kind, public_key): (KeyKind, &[u8]),
        expires: SystemTime,
    ) -> Result<String, SimError> {
        let (name, public_key) = subject(kind, public_key);
        let until = since_epoch(expires).as_secs();
        let from = since_epoch(SystemTime::now())
            .as_secs()
            .saturating_sub(60)
            .min(until.saturating_sub(86_400));
        let nologin = format!("-teleport-nologin-{}", user.name);
        let principals = [&*nologin, "-teleport-internal-join"].map(|name| string(name.as_bytes()));
        let roles = serde_json::json!({ "version": "v1", "roles": user.roles }).to_string();
        // Sorted by name. A value is a string inside the string.
        let extensions = [
            ("permit-pty", ""),
            ("teleport-roles", &*roles),
            ("teleport-route-to-cluster", cluster),
        ]
        .map(|(name, value)| {
            let value = if value.is_empty() {
                Vec::new()
            } else {
                string(value.as_bytes())
            };
            [string(name.as_bytes()), string(&value)].concat()
        });
        let mut certificate = [
            string(name.as_bytes()),
            string(&random()?),
            public_key,
            // The serial number.
            0u64.to_be_bytes().to_vec(),
            FOR_USERS.to_be_bytes().to_vec(),
            string(user.name.as_bytes()),
            string(&principals.concat()),
            from.to_be_bytes().to_vec(),
            until.to_be_bytes().to_vec(),
            // Critical options.
            string(b""),
            string(&extensions.concat()),
            // Reserved.
            string(b""),
            string(&self.public()),
        ]
        .concat();
        let signature = self.0.sign(&certificate)?;
        let signature = [string(ED25519.as_bytes()), string(&signature)].concat();
        certificate.extend(string(&signature));
        Ok(line(name, &certificate))
    }

    fn public(&self) -> Vec<u8> {
        [string(ED25519.as_bytes()), string(self.0.public_key_raw())].concat()
    }
}

/// The type of a certificate for a key, and the part of it that holds the key.
fn subject(kind: KeyKind, public_key: &[u8]) -> (&'static str, Vec<u8>) {
    match kind {
        KeyKind::Ecdsa => (
            "ecdsa-sha2-nistp256-cert-v01@openssh.com",
            [string(b"nistp256"), string(public_key)].concat(),
        ),
        KeyKind::Ed25519 => ("ssh-ed25519-cert-v01@openssh.com", string(public_key)),
        KeyKind::Rsa => {
            // DER has modulus and exponent, as numbers of the same form; SSH wants the exponent
            // first.
            let mut public_key = public_key;
            let mut numbers = der::expect(&mut public_key, 0x30).unwrap_or_default();
            let [modulus, exponent] =
                [(); 2].map(|()| string(der::expect(&mut numbers, 2).unwrap_or_default()));
            ("ssh-rsa-cert-v01@openssh.com", [exponent, modulus].concat())
        }
    }
}

fn line(kind: &str, bytes: &[u8]) -> String {
    format!("{kind} {}", BASE64_STANDARD.encode(bytes))
}

fn string(bytes: &[u8]) -> Vec<u8> {
    // Nothing in a certificate is near 4 GiB.
    [&(bytes.len() as u32).to_be_bytes(), bytes].concat()
}

fn random() -> Result<[u8; 32], SimError> {
    let mut bytes = [0; 32];
    let filled = ring::default_provider().secure_random.fill(&mut bytes);
    filled.map_err(|_| SimError::Certificate("no random numbers".to_owned()))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rustls::SignatureScheme;

    use super::*;

    fn take<'a>(rest: &mut &'a [u8], length: usize) -> &'a [u8] {
        let (taken, after) = rest.split_at(length);
        *rest = after;
        taken
    }

    fn take_string<'a>(rest: &mut &'a [u8]) -> &'a [u8] {
        let length = take(rest, 4)
            .iter()
            .fold(0, |length, &byte| length << 8 | usize::from(byte));
        take(rest, length)
    }

    /// The fields in the order of the specification.
    #[test]
    fn a_certificate_reads_as_openssh_specifies_it() {
        let authority = Authority::new().expect("an authority");
        let point = [4; 65];
        let expires = SystemTime::UNIX_EPOCH + Duration::from_secs(2_000_000);
        let user = User {
            name: "bot".into(),
            roles: vec!["auditor".into()],
        };
        let line = authority
            .sign("example.com", &user, (KeyKind::Ecdsa, &point), expires)
            .expect("a certificate");
        let (kind, body) = line.split_once(' ').expect("two words");
        let bytes = BASE64_STANDARD.decode(body).expect("base64");

        let mut rest = &bytes[..];
        assert_eq!(take_string(&mut rest), kind.as_bytes());
        assert_eq!(take_string(&mut rest).len(), 32, "the nonce");
        assert_eq!(take_string(&mut rest), b"nistp256");
        assert_eq!(take_string(&mut rest), point);
        assert_eq!(take(&mut rest, 8), [0; 8], "the serial number");
        assert_eq!(take(&mut rest, 4), [0, 0, 0, 1], "for users");
        assert_eq!(take_string(&mut rest), b"bot");
        let mut principals = take_string(&mut rest);
        assert_eq!(take_string(&mut principals), b"-teleport-nologin-bot");
        assert_eq!(take_string(&mut principals), b"-teleport-internal-join");
        assert!(principals.is_empty());
        assert_eq!(take(&mut rest, 8), (2_000_000u64 - 86_400).to_be_bytes());
        assert_eq!(take(&mut rest, 8), 2_000_000u64.to_be_bytes());
        assert_eq!(take_string(&mut rest), b"", "critical options");
        let mut extensions = take_string(&mut rest);
        for (name, value) in [
            ("permit-pty", None),
            (
                "teleport-roles",
                Some(r#"{"roles":["auditor"],"version":"v1"}"#),
            ),
            ("teleport-route-to-cluster", Some("example.com")),
        ] {
            assert_eq!(take_string(&mut extensions), name.as_bytes());
            let mut found = take_string(&mut extensions);
            let found = (!found.is_empty()).then(|| take_string(&mut found));
            assert_eq!(found, value.map(str::as_bytes), "{name}");
        }
        assert!(extensions.is_empty());
        assert_eq!(take_string(&mut rest), b"", "reserved");
        let mut public = take_string(&mut rest);
        assert_eq!(take_string(&mut public), b"ssh-ed25519");
        let public = take_string(&mut public);
        let signed = &bytes[..bytes.len() - rest.len()];
        let mut signature = take_string(&mut rest);
        assert_eq!(take_string(&mut signature), b"ssh-ed25519");
        let signature = take_string(&mut signature);
        assert!(rest.is_empty());

        let algorithms = ring::default_provider().signature_verification_algorithms;
        let (_, ed25519) = algorithms
            .mapping
            .iter()
            .find(|(scheme, _)| *scheme == SignatureScheme::ED25519)
            .expect("the algorithm");
        ed25519[0]
            .verify_signature(public, signed, signature)
            .expect("a signature");
    }
}
