//! Credentials for Teleport: identity files, or a certificate, a key and an authority in three
//! files.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lockgate_model::{Validity, common_name};
use lockgate_stamps::Stamps;
use rustls::client::WebPkiServerVerifier;
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use thiserror::Error;

mod der;
mod key;
mod openssh;
mod sections;

pub use sections::parse;

/// Largest credentials file that is accepted, in bytes.
pub const FILE_MAX: u64 = 1024 * 1024;
/// Longest line of an identity file, in bytes, as in Teleport's own reader.
pub const LINE_MAX: usize = 64 * 1024;

/// Where the credentials are stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credentials {
    /// The output of `tctl auth sign --format=file`, and of `identity` in `tbot`.
    IdentityFile(PathBuf),
    /// The output of `tctl auth sign --format=tls`: three PEM files.
    KeyTrio {
        certificate: PathBuf,
        key: PathBuf,
        authority: PathBuf,
    },
}

/// Loaded credentials.
pub struct Identity {
    pub key: PrivateKeyDer<'static>,
    /// The client certificate, followed by its chain if the file has one.
    pub certificates: Vec<CertificateDer<'static>>,
    /// The only roots that the Auth Service's certificate is verified against.
    pub authorities: Vec<CertificateDer<'static>>,
    /// The SSH user certificate, one line: for the SSH tunnel.
    pub ssh_certificate: Option<String>,
    /// `@cert-authority` lines: who may sign the certificates of the cluster's hosts.
    pub ssh_authorities: Vec<String>,
    /// The user that the client certificate names.
    pub user: Option<String>,
    /// Of the client certificate.
    pub validity: Validity,
}

/// Why a file does not contain usable credentials.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum IdentityError {
    #[error("it has no private key")]
    NoKey,
    #[error("it has no TLS certificate")]
    NoCertificate,
    #[error("it has no TLS certificate authority")]
    NoAuthority,
    #[error("line {0} is longer than {LINE_MAX} bytes")]
    LineTooLong(usize),
    #[error("the block `{0}` has no end")]
    Unterminated(String),
    #[error("the block `{0}` cannot be decoded")]
    Block(String),
    #[error("the private key is encrypted: store it without a passphrase")]
    KeyEncrypted,
    #[error("the private key is of a kind that cannot be used for TLS: `{0}`")]
    KeyKind(String),
    #[error("the client certificate cannot be read")]
    Certificate,
    #[error("the private key does not belong to the certificate, or cannot be used: {0}")]
    Unusable(String),
    #[error("a certificate authority in it cannot be used: {0}")]
    Authority(String),
}

/// Why credentials could not be loaded, with the file at fault.
#[derive(Debug, Error)]
pub enum LoadError {
    #[error("the credentials file `{}` cannot be read: {reason}", path.display())]
    Read { path: PathBuf, reason: String },
    #[error("the credentials file `{}` is larger than {FILE_MAX} bytes", path.display())]
    TooLarge { path: PathBuf },
    #[error("the credentials file `{}` is not usable: {reason}", path.display())]
    Parse {
        path: PathBuf,
        reason: IdentityError,
    },
}

impl LoadError {
    /// The file at fault.
    pub fn path(&self) -> &Path {
        match self {
            LoadError::Read { path, .. }
            | LoadError::TooLarge { path }
            | LoadError::Parse { path, .. } => path,
        }
    }
}

impl Credentials {
    pub fn identity_file(path: impl Into<PathBuf>) -> Credentials {
        Credentials::IdentityFile(path.into())
    }

    pub fn key_trio(
        certificate: impl Into<PathBuf>,
        key: impl Into<PathBuf>,
        authority: impl Into<PathBuf>,
    ) -> Credentials {
        Credentials::KeyTrio {
            certificate: certificate.into(),
            key: key.into(),
            authority: authority.into(),
        }
    }

    /// The file that contains the client certificate, for messages about its expiry.
    pub fn certificate_path(&self) -> &Path {
        match self {
            Credentials::IdentityFile(path) => path,
            Credentials::KeyTrio { certificate, .. } => certificate,
        }
    }

    /// Distinguishes contents of the files.
    pub fn stamps(&self) -> Stamps {
        Stamps::of(self.paths())
    }

    /// Reads and checks the files, including whether the key belongs to the certificate. Does not
    /// check whether they have expired.
    pub fn load(&self) -> Result<Identity, LoadError> {
        let identity = match self {
            Credentials::IdentityFile(path) => {
                parse(&read(path)?).map_err(|reason| LoadError::Parse {
                    path: path.clone(),
                    reason,
                })?
            }
            Credentials::KeyTrio {
                certificate,
                key,
                authority,
            } => {
                let at = |path: &PathBuf| {
                    let path = path.clone();
                    move |reason| LoadError::Parse { path, reason }
                };
                let key = sections::key_in(&read(key)?).map_err(at(key))?;
                let authorities =
                    sections::certificates_in(&read(authority)?).map_err(at(authority))?;
                if authorities.is_empty() {
                    return Err(at(authority)(IdentityError::NoAuthority));
                }
                let certificates =
                    sections::certificates_in(&read(certificate)?).map_err(at(certificate))?;
                Identity::new(key, certificates, authorities).map_err(at(certificate))?
            }
        };
        identity.tls(&[]).map_err(|reason| {
            let path = match (self, &reason) {
                (Credentials::IdentityFile(path), _) => path,
                (Credentials::KeyTrio { authority, .. }, IdentityError::Authority(_)) => authority,
                (Credentials::KeyTrio { key, .. }, _) => key,
            };
            let path = path.clone();
            LoadError::Parse { path, reason }
        })?;
        Ok(identity)
    }

    fn paths(&self) -> Vec<&Path> {
        match self {
            Credentials::IdentityFile(path) => vec![path],
            Credentials::KeyTrio {
                certificate,
                key,
                authority,
            } => vec![certificate, key, authority],
        }
    }
}

impl Identity {
    fn new(
        key: PrivateKeyDer<'static>,
        certificates: Vec<CertificateDer<'static>>,
        authorities: Vec<CertificateDer<'static>>,
    ) -> Result<Identity, IdentityError> {
        let first = certificates.first().ok_or(IdentityError::NoCertificate)?;
        // Rustls parses the whole certificate but does not expose its validity.
        ParsedCertificate::try_from(first).map_err(|_| IdentityError::Certificate)?;
        let validity = Validity::of_der(first).ok_or(IdentityError::Certificate)?;
        let user = common_name(first);
        Ok(Identity {
            user,
            key,
            certificates,
            authorities,
            ssh_certificate: None,
            ssh_authorities: Vec::new(),
            validity,
        })
    }

    /// TLS configuration of the client: these authorities as the only roots, this certificate, TLS
    /// 1.2 or newer.
    pub fn tls(&self, alpn: &[&[u8]]) -> Result<ClientConfig, IdentityError> {
        let unusable = |error: rustls::Error| IdentityError::Unusable(error.to_string());
        let roots = self.roots()?;
        let mut config =
            ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_safe_default_protocol_versions()
                .map_err(unusable)?
                .with_root_certificates(roots)
                .with_client_auth_cert(self.certificates.clone(), self.key.clone_key())
                .map_err(unusable)?;
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        Ok(config)
    }

    /// Verifies the Auth Service's certificate as [`tls`](Self::tls) does.
    pub(crate) fn verifier(&self) -> Result<Arc<WebPkiServerVerifier>, IdentityError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        WebPkiServerVerifier::builder_with_provider(Arc::new(self.roots()?), provider)
            .build()
            .map_err(|error| IdentityError::Unusable(error.to_string()))
    }

    fn roots(&self) -> Result<RootCertStore, IdentityError> {
        let mut roots = RootCertStore::empty();
        for authority in &self.authorities {
            roots
                .add(authority.clone())
                .map_err(|error| IdentityError::Authority(error.to_string()))?;
        }
        Ok(roots)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("validity", &self.validity)
            .finish_non_exhaustive()
    }
}

fn read(path: &Path) -> Result<String, LoadError> {
    use std::io::Read;
    let failed = |reason: std::io::Error| LoadError::Read {
        path: path.to_owned(),
        reason: reason.to_string(),
    };
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .map_err(failed)?
        .take(FILE_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() as u64 > FILE_MAX {
        return Err(LoadError::TooLarge {
            path: path.to_owned(),
        });
    }
    // Lines that are neither PEM nor SSH are ignored, even if they are not UTF-8.
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests;
