//! Certificates for mutual TLS between a host and its receiver: an authority, a server and a
//! client, as `configure` of Teleport's Event Handler makes them.
//!
//! Keys are ECDSA P-256, and serial numbers random. The authority signs nothing else: its path
//! length is zero, and its key can be thrown away.

mod authority;
mod encrypted;

use std::net::IpAddr;
use std::time::Duration;

use lockgate_model::{Millis, Secret};
use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, SerialNumber, date_time_ymd,
};
use ring::rand::{SecureRandom, SystemRandom};
use thiserror::Error;

pub use authority::is_authority;

/// What the certificates say.
#[derive(Clone, Debug)]
pub struct Request {
    /// Their begin.
    pub now: Millis,
    pub valid: Duration,
    /// The common name of the server.
    pub server: String,
    /// The names and addresses of server and client.
    pub names: Vec<String>,
    pub addresses: Vec<IpAddr>,
}

/// The certificates, in PEM.
#[derive(Debug)]
pub struct Certificates {
    pub authority: Certified,
    pub server: Certified,
    pub client: Certified,
    /// The server's key, encrypted with the passphrase (PKCS #8).
    pub encrypted_key: Secret,
    pub passphrase: Secret,
}

/// A certificate and its key (PKCS #8).
#[derive(Debug)]
pub struct Certified {
    pub certificate: String,
    pub key: Secret,
}

#[derive(Debug, Error)]
pub enum CertificateError {
    #[error("`{0}` is not a DNS name")]
    Name(String),
    #[error("the certificates would be valid for longer than certificates can be")]
    Validity,
    #[error("the certificates cannot be made: {0}")]
    Made(#[from] rcgen::Error),
    #[error("this machine gives no random numbers")]
    Random,
}

/// The last year that certificates can name.
const LAST_YEAR: i32 = 9999;
const PASSPHRASE_BYTES: usize = 32;

/// Makes new keys and certificates.
pub fn issue(request: &Request) -> Result<Certificates, CertificateError> {
    let random = SystemRandom::new();
    let key = KeyPair::generate()?;
    let mut params = request.params("CA", &random)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let authority = Certified {
        certificate: params.self_signed(&key)?.pem(),
        key: Secret::new(key.serialize_pem()),
    };
    let issuer = Issuer::new(params, key);
    let leaf = |name: &str, usage| {
        let key = KeyPair::generate()?;
        let mut params = request.params(name, &random)?;
        params.subject_alt_names = request.alternative_names()?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&key, &issuer)?.pem();
        Ok::<_, CertificateError>((certificate, key))
    };
    let (server, server_key) = leaf(&request.server, ExtendedKeyUsagePurpose::ServerAuth)?;
    let (client, client_key) = leaf("Client", ExtendedKeyUsagePurpose::ClientAuth)?;
    let passphrase = passphrase(&random)?;
    let encrypted = encrypted::pem(&server_key.serialize_der(), passphrase.expose(), &random)?;
    let certified = |certificate, key: KeyPair| Certified {
        certificate,
        key: Secret::new(key.serialize_pem()),
    };
    Ok(Certificates {
        authority,
        server: certified(server, server_key),
        client: certified(client, client_key),
        encrypted_key: Secret::new(encrypted),
        passphrase,
    })
}

impl Request {
    fn params(
        &self,
        name: &str,
        random: &SystemRandom,
    ) -> Result<CertificateParams, CertificateError> {
        let mut serial = [0; 16];
        random
            .fill(&mut serial)
            .map_err(|_| CertificateError::Random)?;
        // Positive, in as many bytes.
        serial[0] = serial[0] & 0x7f | 0x40;
        let begin = Duration::from_millis(self.now.max(0) as u64);
        let epoch = date_time_ymd(1970, 1, 1);
        let longest = date_time_ymd(LAST_YEAR, 12, 31) - epoch;
        let end = begin
            .checked_add(self.valid)
            .ok_or(CertificateError::Validity)?;
        if longest < end {
            return Err(CertificateError::Validity);
        }
        let mut params = CertificateParams::default();
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        params.distinguished_name.push(DnType::CommonName, name);
        params.not_before = epoch + begin;
        params.not_after = epoch + end;
        Ok(params)
    }

    fn alternative_names(&self) -> Result<Vec<SanType>, CertificateError> {
        let names = self.names.iter().map(|name| {
            let ascii = Ia5String::try_from(name.as_str());
            let refused = || CertificateError::Name(name.clone());
            let is_name = |name: &str| {
                let of_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
                // RFC 9525 6.3: a whole label, the first.
                let name = name.strip_prefix("*.").unwrap_or(name);
                !name.is_empty() && name.bytes().all(of_name)
            };
            match ascii {
                Ok(ascii) if is_name(name) => Ok(SanType::DnsName(ascii)),
                _ => Err(refused()),
            }
        });
        let addresses = self.addresses.iter().copied().map(SanType::IpAddress);
        names.chain(addresses.map(Ok)).collect()
    }
}

fn passphrase(random: &SystemRandom) -> Result<Secret, CertificateError> {
    let mut bytes = [0; PASSPHRASE_BYTES];
    random
        .fill(&mut bytes)
        .map_err(|_| CertificateError::Random)?;
    let hex = bytes.iter().map(|byte| format!("{byte:02x}"));
    Ok(Secret::new(hex.collect::<String>()))
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) fn request() -> Request {
        Request {
            now: 1_767_225_600_000,
            valid: Duration::from_secs(87_600 * 3_600),
            server: "Server".into(),
            names: vec!["localhost".into()],
            addresses: vec![IpAddr::from([127, 0, 0, 1])],
        }
    }

    #[test]
    fn each_issue_has_keys_and_a_passphrase_of_its_own() {
        let (a, b) = (issue(&request()).unwrap(), issue(&request()).unwrap());
        assert_ne!(a.passphrase.expose(), b.passphrase.expose());
        assert_eq!(a.passphrase.expose().len(), 64);
        assert_ne!(a.authority.key.expose(), b.authority.key.expose());
        assert!(!format!("{a:?}").contains("PRIVATE KEY"), "no key is shown");
    }

    #[test]
    fn what_cannot_be_certified_is_refused() {
        let name = |name: &str| Request {
            names: vec![name.into()],
            ..request()
        };
        for wrong in ["", "a b", "exämple", "a/b", "*", "*.", "a*.b", "a.*"] {
            let error = issue(&name(wrong)).unwrap_err();
            assert!(matches!(error, CertificateError::Name(_)), "{error}");
        }
        assert!(issue(&name("*.example.com")).is_ok());
        let long = Request {
            valid: Duration::from_secs(8_000 * 366 * 86_400),
            ..request()
        };
        assert!(matches!(issue(&long), Err(CertificateError::Validity)));
    }
}
