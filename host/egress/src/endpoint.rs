//! An endpoint as the operator configured it: URL, credentials, certificates.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use lockgate_model::{Masks, OutboundProxy, Secret, Validity};
use thiserror::Error;

use crate::compression::{Compression, Workers};
use crate::{Auth, ConnectionBudget, tls};

/// Where a pipeline's documents go and with which credentials: the operator's `url`, `session-url`,
/// `tls`, `headers` and `auth`.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// The pipeline's name: the only part of an endpoint that is ever logged.
    pub name: String,
    /// `https://` or `http://`. A secret, because it may contain a token.
    pub url: Secret,
    /// URL for session recordings. `None`: `url`.
    pub session_url: Option<Secret>,
    /// Link-local addresses and those of metadata services may be written in a URL.
    pub allow_link_local: bool,
    /// What it is reached through, but for the exceptions.
    pub proxy: Option<OutboundProxy>,
    /// The authorities that may sign the receiver's certificate. `None`: the platform's.
    pub ca: Option<Pem>,
    /// Presented to a receiver that asks for a certificate.
    pub client_certificate: Option<ClientCertificate>,
    /// Applied after the sink's headers, which they replace.
    pub headers: Vec<(String, Secret)>,
    pub auth: Auth,
    /// Of the bodies of requests, but for those that the sink has encoded itself.
    pub compression: Option<Compression>,
    /// Where bodies are compressed. `None`: on the threads that serve connections.
    pub workers: Option<Arc<dyn Workers>>,
    /// Time from the start of an attempt to the end of the answer, including connecting. It begins
    /// once the body has been compressed.
    pub timeout: Duration,
    /// Most requests at the same time, and most connections.
    pub connections: usize,
    /// What it shares with other endpoints. By default it has its own, without a limit.
    pub budget: ConnectionBudget,
    /// The secrets to mask in every answer. This endpoint's credentials are added to it.
    pub masks: Masks,
    /// Interprets a `Retry-After` with a date.
    pub clock: fn() -> SystemTime,
}

impl Endpoint {
    /// An endpoint with the defaults: no credentials, the platform's authorities, 30 s, 8
    /// connections.
    #[allow(
        clippy::disallowed_methods,
        reason = "the default of the field `clock`"
    )]
    pub fn new(name: impl Into<String>, url: Secret) -> Self {
        Endpoint {
            name: name.into(),
            url,
            session_url: None,
            allow_link_local: false,
            proxy: None,
            ca: None,
            client_certificate: None,
            headers: Vec::new(),
            auth: Auth::None,
            compression: None,
            workers: None,
            timeout: Duration::from_secs(30),
            connections: 8,
            budget: ConnectionBudget::default(),
            masks: Masks::new(),
            clock: SystemTime::now,
        }
    }
}

/// A client certificate with its chain, and its key.
#[derive(Clone, Debug)]
pub struct ClientCertificate {
    pub cert: Pem,
    pub key: Pem,
}

/// A PEM file: its content, and its name in messages.
#[derive(Clone)]
pub struct Pem {
    pub(crate) file: PathBuf,
    pub(crate) text: Vec<u8>,
}

impl Pem {
    pub fn new(file: impl Into<PathBuf>, text: impl Into<Vec<u8>>) -> Self {
        Pem {
            file: file.into(),
            text: text.into(),
        }
    }

    /// Reads the file. Blocks until it has been read.
    ///
    /// # Errors
    /// [`EndpointError::Unreadable`].
    pub fn read(file: impl AsRef<Path>) -> Result<Self, EndpointError> {
        let file = file.as_ref();
        let text = fs::read(file).map_err(|error| EndpointError::Unreadable {
            file: file.into(),
            reason: error.to_string(),
        })?;
        Ok(Pem::new(file, text))
    }

    /// The time in which its first certificate is valid. `None`: it has none that can be read.
    pub fn validity(&self) -> Option<Validity> {
        tls::presented(self).ok()?.validity
    }

    /// The content of the file. A private key may be in it.
    pub fn text(&self) -> &[u8] {
        &self.text
    }
}

impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pem({})", self.file.display())
    }
}

/// Why an endpoint cannot be used as configured. No message contains a URL or a secret.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum EndpointError {
    /// `0` is the key, as in all variants about a URL.
    #[error("`{0}` is not a URL: {1}")]
    Url(&'static str, String),
    #[error("`{0}` must start with `https://` or `http://`")]
    Scheme(&'static str),
    #[error(
        "`{0}` must not contain a user name or a password; set `auth = {{ basic = {{ user = …, \
         password = … }} }}`"
    )]
    Userinfo(&'static str),
    #[error("`{0}` must not have a fragment (`#…`): it is never sent")]
    Fragment(&'static str),
    #[error(
        "`{0}` names a link-local address or that of a cloud's metadata service; if events belong \
         there, set `allow-link-local = true` in this sink"
    )]
    LinkLocal(&'static str),
    #[error("`tls` is set, but `{0}` starts with `http://`; write `https://` or remove `tls`")]
    TlsWithoutHttps(&'static str),
    #[error("`{}` cannot be read: {reason}", .file.display())]
    Unreadable { file: PathBuf, reason: String },
    #[error("`{}` contains no certificate in PEM (`-----BEGIN CERTIFICATE-----`)", .0.display())]
    NoCertificate(PathBuf),
    #[error("`{}` contains no private key in PEM (`-----BEGIN PRIVATE KEY-----`)", .0.display())]
    NoKey(PathBuf),
    #[error(
        "`{}` is a certificate of version 1 of X.509, which TLS clients and servers refuse; sign it \
         again with extensions: `openssl x509 -req -extfile EXTENSIONS …`, where the file \
         EXTENSIONS has the line `extendedKeyUsage = clientAuth`",
        .0.display()
    )]
    Version1(PathBuf),
    #[error("the private key in `{}` is encrypted; decrypt it with `openssl pkey -in KEY -out PLAIN_KEY`", .0.display())]
    EncryptedKey(PathBuf),
    #[error("`{}` is damaged: {reason}", .file.display())]
    Damaged { file: PathBuf, reason: String },
    #[error("the private key in `{}` does not belong to the certificate in `{}`", .key.display(), .cert.display())]
    KeyMismatch { cert: PathBuf, key: PathBuf },
    #[error(
        "this system has no trusted certificate authorities; install its package `ca-certificates` \
         or set `tls.ca`"
    )]
    NoAuthorities,
    #[error("`{0}` is not a valid header name")]
    HeaderName(String),
    #[error("the header `{0}` cannot be configured; credentials belong in `auth`")]
    HeaderRefused(String),
    #[error("the value of the header `{0}` contains a character that is not visible ASCII")]
    HeaderValue(String),
    #[error("`auth` contains a character that is not allowed in a header")]
    AuthValue,
    #[error("at least one connection is required")]
    NoConnections,
    #[error("the outbound proxy `{0}` cannot be used")]
    Proxy(String),
    #[error("the HTTP client cannot be set up: {0}")]
    Setup(String),
}

impl EndpointError {
    /// Whether another content of a file that the operator named would do.
    pub fn is_of_a_file(&self) -> bool {
        matches!(
            self,
            EndpointError::Unreadable { .. }
                | EndpointError::NoCertificate(_)
                | EndpointError::Version1(_)
                | EndpointError::NoKey(_)
                | EndpointError::EncryptedKey(_)
                | EndpointError::Damaged { .. }
                | EndpointError::KeyMismatch { .. }
        )
    }
}
