//! Private keys, in all formats that Teleport writes.

use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;

use super::{IdentityError, openssh};

/// Decodes a private key of any of the kinds that Teleport writes: PKCS#1, PKCS#8, SEC1 or
/// OpenSSH's own.
pub(super) fn decode(label: &str, text: &str) -> Result<PrivateKeyDer<'static>, IdentityError> {
    match label {
        "ENCRYPTED PRIVATE KEY" => Err(IdentityError::KeyEncrypted),
        "RSA PRIVATE KEY" | "EC PRIVATE KEY" | "PRIVATE KEY" => {
            if text.contains("Proc-Type:") {
                return Err(IdentityError::KeyEncrypted);
            }
            PrivateKeyDer::from_pem_slice(text.as_bytes())
                .map_err(|_| IdentityError::Block(label.to_owned()))
        }
        "OPENSSH PRIVATE KEY" => openssh::decode(text),
        other => Err(IdentityError::KeyKind(other.to_owned())),
    }
}
