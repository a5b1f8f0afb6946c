use lockgate_model::Millis;
use rustls_pki_types::CertificateDer;
use x509_cert::Certificate;
use x509_cert::der::Decode;

use super::IdentityError;

/// End of a certificate's validity.
pub(super) fn not_after(certificate: &CertificateDer<'_>) -> Result<Millis, IdentityError> {
    let certificate = Certificate::from_der(certificate).map_err(|_| IdentityError::Certificate)?;
    let until = certificate
        .tbs_certificate
        .validity
        .not_after
        .to_unix_duration();
    Millis::try_from(until.as_millis()).map_err(|_| IdentityError::Certificate)
}
