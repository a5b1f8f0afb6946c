//! Certificates that are yet to be signed: for the simulator and for tests.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use ring::rand::{SecureRandom, SystemRandom};

use crate::certificate::certificate_name;
use crate::wire::{Put, string};
use crate::{CertificateKind, Error, PublicKey, SecretKey};

/// What a certificate is to say.
#[derive(Clone, Copy, Debug)]
pub struct Draft<'a> {
    pub key: &'a PublicKey,
    pub kind: CertificateKind,
    pub key_id: &'a str,
    pub principals: &'a [&'a str],
    /// Seconds since the Unix epoch; the second is exclusive.
    pub validity: (u64, u64),
    /// Sorted by name.
    pub extensions: &'a [(&'a str, &'a str)],
}

impl Draft<'_> {
    /// The certificate, as it is sent.
    pub fn sign(&self, public: &PublicKey, key: &SecretKey) -> Result<Vec<u8>, Error> {
        let mut nonce = [0; 32];
        let filled = SystemRandom::new().fill(&mut nonce);
        filled.map_err(|_| Error::NoRandom)?;
        let mut out = string(certificate_name(self.key.name()).as_bytes());
        out.put_string(&nonce);
        self.key.write(&mut out);
        out.extend_from_slice(&0u64.to_be_bytes()); // The serial number.
        out.put_number(match self.kind {
            CertificateKind::User => 1,
            CertificateKind::Host => 2,
        });
        out.put_string(self.key_id.as_bytes());
        let mut principals = Vec::new();
        for name in self.principals {
            principals.put_string(name.as_bytes());
        }
        out.put_string(&principals);
        out.extend_from_slice(&self.validity.0.to_be_bytes());
        out.extend_from_slice(&self.validity.1.to_be_bytes());
        out.put_string(b""); // Critical options.
        let mut extensions = Vec::new();
        for (name, value) in self.extensions {
            extensions.put_string(name.as_bytes());
            // A value is a string inside the string.
            let value = match *value {
                "" => Vec::new(),
                value => string(value.as_bytes()),
            };
            extensions.put_string(&value);
        }
        out.put_string(&extensions);
        out.put_string(b""); // Reserved.
        out.put_string(&public.blob());
        let signature = key.sign(public.algorithms()[0], &out)?;
        out.put_string(&signature);
        Ok(out)
    }

    /// The certificate in the form of authorized_keys.
    pub fn line(&self, public: &PublicKey, key: &SecretKey) -> Result<String, Error> {
        let blob = self.sign(public, key)?;
        let name = certificate_name(self.key.name());
        Ok(format!("{name} {}", BASE64_STANDARD.encode(blob)))
    }
}
