//! Why a connection by SSH failed.

use thiserror::Error;

use crate::HostRefused;

/// Why a connection by SSH failed. Texts are the end of a sentence that begins with the other side.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Error {
    /// Its first bytes, or nothing.
    #[error("does not speak SSH 2: it begins with `{0}`")]
    NotSsh(String),
    #[error("closed the connection")]
    Closed,
    #[error("{0}")]
    Io(String),
    /// `what` is one of the lists that both sides choose from.
    #[error("offers no {what} that is known here, but `{offered}`")]
    NothingInCommon { what: &'static str, offered: String },
    /// It has keys, but no certificate.
    #[error("shows no host certificate, but offers `{0}`")]
    NoHostCertificate(String),
    #[error("shows a host certificate that {0}")]
    Host(#[from] HostRefused),
    #[error("does not accept the SSH certificate of `{user}`{}", reason(said))]
    UserRefused { user: String, said: String },
    #[error("refuses the channel{}", reason(.0))]
    ChannelRefused(String),
    #[error("refuses to pass the connection on{}", reason(.0))]
    DialRefused(String),
    #[error("ended the connection{}", reason(.0))]
    Disconnected(String),
    #[error("breaks the rules of SSH: {0}")]
    Protocol(&'static str),
    #[error("needs a signature that the key cannot make: `{0}`")]
    Signature(String),
    #[error("is not reached: this machine provides no random numbers")]
    NoRandom,
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Error {
        use std::io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
        match error.kind() {
            BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof => Error::Closed,
            _ => Error::Io(error.to_string()),
        }
    }
}

/// What the other side says of it, if it does.
fn reason(text: &str) -> String {
    match text {
        "" => String::new(),
        text => format!(": `{text}`"),
    }
}
