//! OpenSSH certificates (`PROTOCOL.certkeys` in its sources), and who may sign them.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use thiserror::Error;

use crate::key::PublicKey;
use crate::wire::Reader;

/// What follows the name of a key's kind in that of its certificate.
const SUFFIX: &str = "-cert-v01@openssh.com";
/// Most principals that are read.
const PRINCIPALS_MAX: usize = 1000;
/// Most principals that a message lists.
const PRINCIPALS_SHOWN: usize = 10;

/// Whom a certificate is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CertificateKind {
    User,
    Host,
}

/// A certificate whose signature is valid. By whom it is signed, and when it is valid, is for the
/// reader to judge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// All of it, as it is sent.
    pub blob: Vec<u8>,
    pub key: PublicKey,
    pub kind: CertificateKind,
    pub key_id: String,
    /// The names of the host, or the logins of the user.
    pub principals: Vec<String>,
    /// Seconds since the Unix epoch; the second is exclusive.
    pub validity: (u64, u64),
    /// The names of its critical options.
    pub critical_options: Vec<String>,
    /// The public key of who signed it.
    pub authority: Vec<u8>,
}

/// Why a host certificate does not show that this is the host. Texts follow "a certificate that".
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum HostRefused {
    #[error("cannot be read, or whose signature is wrong")]
    Unreadable,
    #[error("is for users")]
    ForUsers,
    #[error("is signed by an authority that the credentials do not name")]
    Authority,
    /// Seconds since the Unix epoch.
    #[error("has expired")]
    Expired { at: u64 },
    #[error("is not valid yet")]
    NotYetValid { from: u64 },
    #[error("is not for `{host}`, but for {}", shown(principals))]
    Name {
        host: String,
        principals: Vec<String>,
    },
    #[error("has the critical option `{0}`, which is not known here")]
    CriticalOption(String),
}

impl Certificate {
    /// Reads one, as it is sent. `None`: it is damaged, its kind of key cannot be used, or its
    /// signature is not that of the key that it names.
    pub fn parse(blob: &[u8]) -> Option<Certificate> {
        let mut reader = Reader(blob);
        let kind = reader.text()?.strip_suffix(SUFFIX)?;
        reader.string()?; // The nonce.
        let key = PublicKey::read(kind, &mut reader)?;
        reader.long()?; // The serial number.
        let kind = match reader.number()? {
            1 => CertificateKind::User,
            2 => CertificateKind::Host,
            _ => return None,
        };
        let key_id = reader.text()?.to_owned();
        let mut list = Reader(reader.string()?);
        let mut principals = Vec::new();
        while !list.0.is_empty() && principals.len() < PRINCIPALS_MAX {
            principals.push(list.text()?.to_owned());
        }
        let validity = (reader.long()?, reader.long()?);
        let mut list = Reader(reader.string()?);
        let mut critical_options = Vec::new();
        while !list.0.is_empty() {
            critical_options.push(list.text()?.to_owned());
            list.string()?;
        }
        reader.string()?; // Extensions.
        reader.string()?; // Reserved.
        let authority = reader.string()?;
        let signed = &blob[..blob.len() - reader.0.len()];
        let signature = reader.string()?;
        let is_signed =
            reader.0.is_empty() && PublicKey::parse(authority)?.verifies(None, signed, signature);
        is_signed.then(|| Certificate {
            blob: blob.to_owned(),
            key,
            kind,
            key_id,
            principals,
            validity,
            critical_options,
            authority: authority.to_owned(),
        })
    }

    /// One in the form of authorized_keys: the name of its kind, and base64.
    pub fn of_line(line: &str) -> Option<Certificate> {
        let mut words = line.split_ascii_whitespace();
        let kind = words.next()?;
        let blob = BASE64_STANDARD.decode(words.next()?).ok()?;
        let is_named = Reader(&blob).text() == Some(kind);
        is_named.then(|| Certificate::parse(&blob)).flatten()
    }

    /// Whether it is the certificate of this host at this time, in seconds since the Unix epoch.
    /// As with OpenSSH, all of these count: who signed it, its time, and its principals. Go takes a
    /// certificate without principals for that of every host; here it is that of none.
    pub fn check_host(
        &self,
        host: &str,
        authorities: &[Vec<u8>],
        now: u64,
    ) -> Result<(), HostRefused> {
        if self.kind != CertificateKind::Host {
            return Err(HostRefused::ForUsers);
        }
        if !authorities.contains(&self.authority) {
            return Err(HostRefused::Authority);
        }
        self.check_time(now)?;
        if let Some(option) = self.critical_options.first() {
            return Err(HostRefused::CriticalOption(option.clone()));
        }
        let host = host.strip_suffix('.').unwrap_or(host);
        let mut names = self.principals.iter();
        if !names.any(|name| name.eq_ignore_ascii_case(host)) {
            return Err(HostRefused::Name {
                host: host.to_owned(),
                principals: self.principals.clone(),
            });
        }
        Ok(())
    }

    /// Whether it is valid at this time.
    pub fn check_time(&self, now: u64) -> Result<(), HostRefused> {
        let (from, until) = self.validity;
        if now < from {
            return Err(HostRefused::NotYetValid { from });
        }
        if now >= until {
            return Err(HostRefused::Expired { at: until });
        }
        Ok(())
    }
}

/// The public key in a `@cert-authority` line of a known_hosts file. The patterns of hosts in it
/// do not count: in an identity file they name the cluster, and not its hosts.
pub fn authority_of_line(line: &str) -> Option<Vec<u8>> {
    let mut words = line.split_ascii_whitespace();
    if words.next() != Some("@cert-authority") {
        return None;
    }
    words.next()?; // Patterns.
    let kind = words.next()?;
    let blob = BASE64_STANDARD.decode(words.next()?).ok()?;
    let key = PublicKey::parse(&blob)?;
    (key.name() == kind).then_some(blob)
}

/// The name of a certificate's kind, for a kind of key.
pub(crate) fn certificate_name(key: &str) -> String {
    format!("{key}{SUFFIX}")
}

/// The signature that a name for certificates in a negotiation stands for.
pub(crate) fn signature_of(name: &str) -> Option<&str> {
    name.strip_suffix(SUFFIX)
}

fn shown(principals: &[String]) -> String {
    let quoted = |name: &String| format!("`{}`", crate::message::said(name.as_bytes()));
    let first: Vec<String> = principals
        .iter()
        .take(PRINCIPALS_SHOWN)
        .map(quoted)
        .collect();
    match principals.len() {
        0 => "no host".to_owned(),
        // The others were not read.
        PRINCIPALS_MAX => format!(
            "{} and at least {} more",
            first.join(", "),
            PRINCIPALS_MAX - first.len()
        ),
        all if all > first.len() => {
            format!("{} and {} more", first.join(", "), all - first.len())
        }
        _ => first.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_were_not_read_are_not_counted() {
        let names = |count: usize| vec!["a".to_owned(); count];
        assert_eq!(shown(&names(0)), "no host");
        assert!(shown(&names(12)).ends_with("`a` and 2 more"));
        assert!(shown(&names(PRINCIPALS_MAX)).ends_with("`a` and at least 990 more"));
    }
}
