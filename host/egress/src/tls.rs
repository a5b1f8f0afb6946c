//! TLS of an endpoint, from the authorities and the client certificate that the operator names.

use std::path::Path;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::{ClientConfig, Error, RootCertStore};
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use lockgate_model::{Validity, is_version_1};

use crate::handshake::Presented;
use crate::{ClientCertificate, EndpointError, Pem};

/// The authorities that may sign a receiver's certificate.
pub enum Authorities<'a> {
    /// Only these.
    Given(&'a Pem),
    /// The platform's, and these.
    Also(&'a Pem),
    Platform,
    /// None: the endpoint does not use TLS.
    None,
}

/// TLS 1.2 and 1.3 (Fluentd's default and Vector support at most 1.2), no resumption, no ALPN
/// (Fluentd offers none, and HTTP/1.1 is the default without it).
pub fn config(
    authorities: Authorities<'_>,
    client_certificate: Option<&ClientCertificate>,
) -> Result<ClientConfig, EndpointError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| EndpointError::Setup(error.to_string()))?
        .with_root_certificates(roots(authorities)?);
    let mut config = match client_certificate {
        None => builder.with_no_client_auth(),
        Some(ClientCertificate { cert, key }) => {
            let chain = certificates(cert)?;
            if is_version_1(&chain[0]) {
                return Err(EndpointError::Version1(cert.file.clone()));
            }
            builder
                .with_client_auth_cert(chain, private_key(key)?)
                .map_err(|error| match error {
                    Error::InconsistentKeys(_) => EndpointError::KeyMismatch {
                        cert: cert.file.clone(),
                        key: key.file.clone(),
                    },
                    error => damaged(&key.file, error),
                })?
        }
    };
    config.resumption = Resumption::disabled();
    Ok(config)
}

fn roots(authorities: Authorities<'_>) -> Result<RootCertStore, EndpointError> {
    let mut roots = RootCertStore::empty();
    match authorities {
        Authorities::Given(ca) => {
            for certificate in certificates(ca)? {
                roots
                    .add(certificate)
                    .map_err(|error| damaged(&ca.file, error))?;
            }
        }
        Authorities::Also(ca) => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            for certificate in certificates(ca)? {
                roots
                    .add(certificate)
                    .map_err(|error| damaged(&ca.file, error))?;
            }
        }
        Authorities::Platform => {
            // A platform's bundle may contain certificates that webpki cannot parse; ignore them.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if roots.is_empty() {
                return Err(EndpointError::NoAuthorities);
            }
        }
        Authorities::None => {}
    }
    Ok(roots)
}

/// The certificate for a receiver that asks for one: the first of the file.
pub fn presented(pem: &Pem) -> Result<Presented, EndpointError> {
    let certificates = certificates(pem)?;
    Ok(Presented {
        file: pem.file.clone(),
        validity: Validity::of_der(&certificates[0]),
    })
}

fn certificates(pem: &Pem) -> Result<Vec<CertificateDer<'static>>, EndpointError> {
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&pem.text)
        .collect::<Result<_, pem::Error>>()
        .map_err(|error| damaged(&pem.file, fault(&error)))?;
    if certificates.is_empty() {
        Err(EndpointError::NoCertificate(pem.file.clone()))
    } else {
        Ok(certificates)
    }
}

fn private_key(pem: &Pem) -> Result<PrivateKeyDer<'static>, EndpointError> {
    PrivateKeyDer::from_pem_slice(&pem.text).map_err(|error| match error {
        // In PKCS #8 the word is in the label, in older formats in a header.
        _ if String::from_utf8_lossy(&pem.text).contains("ENCRYPTED") => {
            EndpointError::EncryptedKey(pem.file.clone())
        }
        pem::Error::NoItemsFound => EndpointError::NoKey(pem.file.clone()),
        error => damaged(&pem.file, fault(&error)),
    })
}

/// The library's own message shows the missing line as numbers.
fn fault(error: &pem::Error) -> String {
    match error {
        pem::Error::MissingSectionEnd { end_marker } => format!(
            "the line `-----END {}-----` is missing, so it may be incomplete",
            String::from_utf8_lossy(end_marker)
        ),
        error => error.to_string(),
    }
}

fn damaged(file: &Path, error: impl ToString) -> EndpointError {
    EndpointError::Damaged {
        file: file.into(),
        reason: error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `openssl x509 -req` signs it if it is told nothing else.
    const VERSION_1: &str = "-----BEGIN CERTIFICATE-----
MIIBIjCBygIUGaqvPTkUPmFwBhaj1NNr+38Cu2kwCgYIKoZIzj0EAwIwFDESMBAG
A1UEAwwJYXV0aG9yaXR5MCAXDTI2MTEyMzIzNTEwM1oYDzIxMjYxMDMwMjM1MTAz
WjATMREwDwYDVQQDDAhsb2NrZ2F0ZTBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IA
BPlnjuvXOcdTxvrS1owpei+86Ju+t0NdAXIJu25tWrEAaphZ4b3aSRqMRcrGd9PV
P9uSOCCfTCZgFeKKhq1p8kkwCgYIKoZIzj0EAwIDRwAwRAIgTkn1MXmkc1F5kRyG
aYU6hZg0+1UZx4bZq6HBR6RNgPACIFuOAFfZSbGNb4wUPazXE8mdrDeBGeQ7z3EG
NL+dQRoN
-----END CERTIFICATE-----
";

    #[test]
    fn unusable_files_are_named() {
        let pair = || {
            let key = rcgen::KeyPair::generate().unwrap();
            let cert = rcgen::CertificateParams::new(vec!["localhost".into()])
                .unwrap()
                .self_signed(&key)
                .unwrap();
            (cert.pem(), key.serialize_pem())
        };
        let ((cert, key), (_, other_key)) = (pair(), pair());
        let ca = |text: &str| config(Authorities::Given(&Pem::new("ca.crt", text)), None).map(drop);
        let client_certificate = |cert: &str, key: &str| {
            let client_certificate = ClientCertificate {
                cert: Pem::new("c.crt", cert),
                key: Pem::new("c.key", key),
            };
            config(Authorities::None, Some(&client_certificate)).map(drop)
        };
        assert_eq!(ca(&cert), Ok(()));
        assert_eq!(client_certificate(&cert, &key), Ok(()));
        for (result, message) in [
            (
                ca(""),
                "`ca.crt` contains no certificate in PEM (`-----BEGIN CERTIFICATE-----`)",
            ),
            (
                ca(&key),
                "`ca.crt` contains no certificate in PEM (`-----BEGIN CERTIFICATE-----`)",
            ),
            (
                ca(&cert[..cert.len() - 30]),
                "`ca.crt` is damaged: the line `-----END CERTIFICATE-----` is missing, so it may be \
                 incomplete",
            ),
            (
                ca("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
                "`ca.crt` is damaged: ",
            ),
            (
                client_certificate(VERSION_1, &key),
                "`c.crt` is a certificate of version 1 of X.509, which TLS clients and servers \
                 refuse; sign it again with extensions: `openssl x509 -req -extfile EXTENSIONS …`",
            ),
            (
                client_certificate("", &key),
                "`c.crt` contains no certificate",
            ),
            (
                client_certificate(&cert, ""),
                "`c.key` contains no private key",
            ),
            (
                client_certificate(&cert, &cert),
                "`c.key` contains no private key",
            ),
            (
                client_certificate(&cert, &other_key),
                "the private key in `c.key` does not belong to the certificate in `c.crt`",
            ),
            (
                client_certificate(&cert, &key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY")),
                "the private key in `c.key` is encrypted; decrypt it with `openssl pkey",
            ),
        ] {
            let error = result.unwrap_err().to_string();
            assert!(error.starts_with(message), "{error}");
        }
        let error = Pem::read("/no/such/file.pem").unwrap_err().to_string();
        assert!(
            error.starts_with("`/no/such/file.pem` cannot be read: No such file"),
            "{error}"
        );
    }
}
