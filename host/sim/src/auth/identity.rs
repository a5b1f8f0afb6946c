//! The output of `tctl auth sign`: an identity file, and the same credentials as three PEM files.

use std::time::SystemTime;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use lockgate_model::der;
use rcgen::{DnType, KeyPair, PKCS_ED25519};

use super::ssh;
use crate::SimError;
use crate::certificate::{Authority, CertifiedKey};
use crate::output_dir::OutputDir;

/// The user whom the identity belongs to.
#[derive(Clone, Debug)]
pub struct User {
    pub name: String,
    pub roles: Vec<String>,
}

impl Default for User {
    fn default() -> User {
        User {
            name: "event-handler".to_owned(),
            roles: vec!["event-handler".to_owned()],
        }
    }
}

/// The kind of the identity's private key. It follows from the signature algorithms that are
/// configured for a cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeyKind {
    /// On the curve P-256, in PKCS #8.
    #[default]
    Ecdsa,
    /// In PKCS #8.
    Ed25519,
    /// Of 2048 bits, in PKCS #1. It is always the same key, because ring makes none.
    Rsa,
}

/// The key of [`KeyKind::Rsa`]. Simulators alone trust it.
const RSA: &str = include_str!("../../testdata/rsa.pkcs8.pem");

impl KeyKind {
    pub(super) fn generate(self) -> Result<KeyPair, SimError> {
        Ok(match self {
            KeyKind::Ecdsa => KeyPair::generate()?,
            KeyKind::Ed25519 => KeyPair::generate_for(&PKCS_ED25519)?,
            KeyKind::Rsa => KeyPair::from_pem(RSA)?,
        })
    }

    /// PEM, in the format in which Teleport writes it.
    fn pem(self, key: &KeyPair) -> String {
        match self {
            KeyKind::Ecdsa | KeyKind::Ed25519 => key.serialize_pem(),
            KeyKind::Rsa => pkcs1(&key.serialize_der()).unwrap_or_default(),
        }
    }
}

/// The key that PKCS #8 wraps.
fn pkcs1(pkcs8: &[u8]) -> Option<String> {
    let mut rest = pkcs8;
    let mut members = der::expect(&mut rest, 0x30)?;
    der::expect(&mut members, 0x02)?;
    der::expect(&mut members, 0x30)?;
    let text = BASE64_STANDARD.encode(der::expect(&mut members, 0x04)?);
    let (mut pem, mut text) = ("-----BEGIN RSA PRIVATE KEY-----\n".to_owned(), &*text);
    while !text.is_empty() {
        let (line, rest) = text.split_at(text.len().min(64));
        pem += line;
        pem.push('\n');
        text = rest;
    }
    Some(pem + "-----END RSA PRIVATE KEY-----\n")
}

/// Writes `identity`, `client.crt`, `client.key` and `client.cas`.
///
/// The order of the identity file is that of Teleport's writers: key, SSH certificate, TLS
/// certificate, SSH host CA, TLS host CA.
pub(super) fn write(
    dir: &OutputDir,
    cluster: &str,
    (user, kind): (&User, KeyKind),
    users: &Authority,
    host_ca: &str,
    expires: SystemTime,
) -> Result<(), SimError> {
    let mut subject: Vec<_> = user
        .roles
        .iter()
        .map(|role| (DnType::OrganizationName, role.as_str()))
        .collect();
    subject.push((DnType::CommonName, &user.name));
    let CertifiedKey { certificate, key } =
        users.sign_for(kind.generate()?, &subject, &[], expires)?;
    let (key_pem, certificate_pem) = (unix_lines(&kind.pem(&key)), unix_lines(&certificate.pem()));
    let host_ca = unix_lines(host_ca);

    let ssh_users = ssh::Authority::of_users(dir, kind)?;
    let ssh_user = ssh_users.sign_user(cluster, user, &key, expires)?;
    let ssh_host = ssh::Authority::of_hosts(dir, kind)?.public_key();
    let known = format!("@cert-authority {cluster},*.{cluster} {ssh_host} type=host\n");

    dir.write("client.crt", &certificate_pem)?;
    dir.write("client.key", &key_pem)?;
    dir.write("client.cas", &host_ca)?;
    // Written last: a process that waits for this file finds the others complete.
    dir.write(
        "identity",
        &[
            &*key_pem,
            &ssh_user,
            "\n",
            &certificate_pem,
            &known,
            &host_ca,
        ]
        .concat(),
    )
}

fn unix_lines(pem: &str) -> String {
    pem.replace("\r\n", "\n")
}
