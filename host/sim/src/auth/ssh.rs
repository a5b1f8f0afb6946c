//! The cluster's SSH authorities, and what they sign: the certificates of users and of the proxy.

use std::time::SystemTime;

use lockgate_model::der;
use lockgate_ssh::{CertificateKind, Draft, HostKey, PublicKey, SecretKey};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519};
use rustls::pki_types::PrivateKeyDer;

use super::identity::{KeyKind, User};
use crate::SimError;
use crate::certificate::since_epoch;
use crate::output_dir::OutputDir;

/// Files of the keys.
const USERS: &str = "ssh-user-ca.key";
const HOSTS: &str = "ssh-host-ca.key";

/// An SSH certificate authority.
pub(super) struct Authority(Pair);

/// A key, in the two halves that SSH wants.
struct Pair {
    public: PublicKey,
    secret: SecretKey,
}

impl Authority {
    /// Of this run alone.
    pub(super) fn new(kind: KeyKind) -> Result<Authority, SimError> {
        Ok(Authority(Pair::of(&kind.generate()?)?))
    }

    pub(super) fn of_users(dir: &OutputDir, kind: KeyKind) -> Result<Authority, SimError> {
        Authority::kept(dir, USERS, kind)
    }

    pub(super) fn of_hosts(dir: &OutputDir, kind: KeyKind) -> Result<Authority, SimError> {
        Authority::kept(dir, HOSTS, kind)
    }

    /// Whether the directory has both.
    pub(super) fn are_kept(dir: &OutputDir) -> bool {
        dir.holds(&[USERS, HOSTS])
    }

    /// Made at the first time.
    fn kept(dir: &OutputDir, name: &str, kind: KeyKind) -> Result<Authority, SimError> {
        if !dir.holds(&[name]) {
            dir.write(name, &kind.generate()?.serialize_pem())?;
        }
        let key = KeyPair::from_pem(&dir.read(name)?).map_err(|error| dir.damaged(name, error))?;
        Ok(Authority(Pair::of(&key)?))
    }

    /// The public key, as certificates name it.
    pub(super) fn blob(&self) -> Vec<u8> {
        self.0.public.blob()
    }

    /// The public key, in the format of authorized_keys.
    pub(super) fn public_key(&self) -> String {
        self.0.public.line()
    }

    /// A user certificate with Teleport's extensions, in the format of authorized_keys.
    pub(super) fn sign_user(
        &self,
        cluster: &str,
        user: &User,
        key: &KeyPair,
        expires: SystemTime,
    ) -> Result<String, SimError> {
        let nologin = format!("-teleport-nologin-{}", user.name);
        let roles = serde_json::json!({ "version": "v1", "roles": user.roles }).to_string();
        let draft = Draft {
            key: &public_key(key),
            kind: CertificateKind::User,
            key_id: &user.name,
            principals: &[&nologin, "-teleport-internal-join"],
            validity: validity(expires),
            extensions: &[
                ("permit-pty", ""),
                ("teleport-roles", &roles),
                ("teleport-route-to-cluster", cluster),
            ],
        };
        draft.line(&self.0.public, &self.0.secret).map_err(failed)
    }

    /// What a host shows that has these names.
    pub(super) fn sign_host(
        &self,
        kind: KeyKind,
        names: &[&str],
        expires: SystemTime,
    ) -> Result<HostKey, SimError> {
        let Pair { public, secret } = Pair::of(&kind.generate()?)?;
        let draft = Draft {
            key: &public,
            kind: CertificateKind::Host,
            key_id: "",
            principals: names,
            validity: validity(expires),
            extensions: &[
                ("x-teleport-authority", "simulator"),
                ("x-teleport-role", "Proxy"),
            ],
        };
        let certificate = draft.sign(&self.0.public, &self.0.secret);
        Ok(HostKey {
            certificate: certificate.map_err(failed)?,
            key: secret,
            public,
        })
    }
}

impl Pair {
    fn of(key: &KeyPair) -> Result<Pair, SimError> {
        let unusable = || SimError::Certificate("a key that SSH cannot use".to_owned());
        let der = PrivateKeyDer::try_from(key.serialize_der()).map_err(|_| unusable())?;
        Ok(Pair {
            public: public_key(key),
            secret: SecretKey::new(&der).ok_or_else(unusable)?,
        })
    }
}

fn public_key(key: &KeyPair) -> PublicKey {
    let raw = key.public_key_raw();
    if key.algorithm() == &PKCS_ED25519 {
        return PublicKey::Ed25519(raw.to_vec());
    }
    if key.algorithm() == &PKCS_ECDSA_P256_SHA256 {
        return PublicKey::P256(raw.to_vec());
    }
    // DER has two numbers, with a zero before those that would be negative.
    let mut raw = raw;
    let mut numbers = der::expect(&mut raw, 0x30).unwrap_or_default();
    let [modulus, exponent] = [(); 2].map(|()| {
        let number = der::expect(&mut numbers, 2).unwrap_or_default();
        number.strip_prefix(&[0]).unwrap_or(number).to_vec()
    });
    PublicKey::Rsa { modulus, exponent }
}

/// From a minute ago, as with Teleport, or from a day before the end if that has passed.
#[allow(
    clippy::disallowed_methods,
    reason = "certificates are valid from now on"
)]
fn validity(expires: SystemTime) -> (u64, u64) {
    let until = since_epoch(expires).as_secs();
    let from = since_epoch(SystemTime::now()).as_secs();
    let from = from.saturating_sub(60).min(until.saturating_sub(86_400));
    (from, until)
}

fn failed(error: lockgate_ssh::Error) -> SimError {
    SimError::Certificate(error.to_string())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use lockgate_ssh::Certificate;

    use super::*;

    #[test]
    fn a_user_certificate_is_as_teleport_writes_it() {
        for kind in [KeyKind::Ecdsa, KeyKind::Ed25519, KeyKind::Rsa] {
            let authority = Authority::new(kind).expect("an authority");
            let key = kind.generate().expect("a key");
            let expires = SystemTime::UNIX_EPOCH + Duration::from_secs(2_000_000);
            let user = User {
                name: "bot".into(),
                roles: vec!["auditor".into()],
            };
            let line = authority
                .sign_user("example.com", &user, &key, expires)
                .expect("a certificate");
            let certificate = Certificate::of_line(&line).expect("a valid signature");
            assert_eq!(certificate.kind, CertificateKind::User);
            assert_eq!(certificate.key_id, "bot");
            let principals = ["-teleport-nologin-bot", "-teleport-internal-join"];
            assert_eq!(certificate.principals, principals);
            assert_eq!(certificate.validity, (2_000_000 - 86_400, 2_000_000));
            assert_eq!(certificate.authority, authority.blob());
            for text in [
                &b"teleport-roles"[..],
                br#"{"roles":["auditor"],"version":"v1"}"#,
            ] {
                let mut windows = certificate.blob.windows(text.len());
                assert!(windows.any(|window| window == text), "{kind:?}");
            }
        }
    }
}
