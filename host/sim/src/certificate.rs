//! Certificate authorities and certificates. Keys are ECDSA P-256, which rustls, Go, OpenSSL and
//! BoringSSL support, where the caller gives no other.

use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, date_time_ymd,
};

use crate::SimError;

pub(crate) const TEN_YEARS: Duration = Duration::from_secs(10 * 365 * 86_400);

/// A certificate with its key.
pub(crate) struct CertifiedKey {
    pub(crate) certificate: Certificate,
    pub(crate) key: KeyPair,
}

/// A certificate authority that can sign.
pub(crate) struct Authority {
    /// PEM.
    pub(crate) certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// An empty `organisation` is omitted.
    pub(crate) fn new(name: &str, organisation: &str) -> Result<Authority, SimError> {
        Authority::with_key(name, organisation, KeyPair::generate()?)
    }

    /// Recreates an authority from its key. Certificates that it signed earlier stay valid under
    /// the new certificate.
    pub(crate) fn with_key(
        name: &str,
        organisation: &str,
        key: KeyPair,
    ) -> Result<Authority, SimError> {
        let mut params = params(
            &[
                (DnType::CommonName, name),
                (DnType::OrganizationName, organisation),
            ],
            in_ten_years(),
        )?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::CrlSign,
            KeyUsagePurpose::DigitalSignature,
        ];
        let certificate = params.self_signed(&key)?.pem();
        Ok(Authority {
            certificate,
            issuer: Issuer::new(params, key),
        })
    }

    pub(crate) fn key(&self) -> &KeyPair {
        self.issuer.key()
    }

    /// Signs a certificate for a server or a client. `names` are the SANs; a client of Teleport has
    /// none.
    pub(crate) fn sign(
        &self,
        subject: &[(DnType, &str)],
        names: &[&str],
        expires: SystemTime,
    ) -> Result<CertifiedKey, SimError> {
        self.sign_for(KeyPair::generate()?, subject, names, expires)
    }

    /// The same for a given key.
    pub(crate) fn sign_for(
        &self,
        key: KeyPair,
        subject: &[(DnType, &str)],
        names: &[&str],
        expires: SystemTime,
    ) -> Result<CertifiedKey, SimError> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = params(subject, expires)?;
        params.subject_alt_names = CertificateParams::new(names)?.subject_alt_names;
        params.key_usages = vec![
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::KeyEncipherment,
        ];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params.use_authority_key_identifier_extension = true;
        Ok(CertifiedKey {
            certificate: params.signed_by(&key, &self.issuer)?,
            key,
        })
    }
}

/// The certificate is valid from a minute ago, as with Teleport, or from a day before `expires` if
/// that has passed.
#[allow(
    clippy::disallowed_methods,
    reason = "certificates are valid from now on"
)]
fn params(subject: &[(DnType, &str)], expires: SystemTime) -> Result<CertificateParams, SimError> {
    let expires = since_epoch(expires);
    let now = since_epoch(SystemTime::now());
    let begins = now
        .saturating_sub(Duration::from_secs(60))
        .min(expires.saturating_sub(Duration::from_secs(86_400)));
    let mut name = DistinguishedName::new();
    for (kind, value) in subject.iter().filter(|(_, value)| !value.is_empty()) {
        name.push(kind.clone(), *value);
    }
    let epoch = date_time_ymd(1970, 1, 1);
    let mut params = CertificateParams::default();
    params.distinguished_name = name;
    params.not_before = epoch + begins;
    params.not_after = epoch + expires;
    Ok(params)
}

#[allow(
    clippy::disallowed_methods,
    reason = "certificates are valid from now on"
)]
pub(crate) fn in_ten_years() -> SystemTime {
    SystemTime::now() + TEN_YEARS
}

pub(crate) fn since_epoch(time: SystemTime) -> Duration {
    Duration::from_secs(
        time.duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs(),
    )
}
