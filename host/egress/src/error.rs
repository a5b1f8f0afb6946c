//! Why a request got no answer, in words for the operator.

use std::error::Error;
use std::io;
use std::time::Duration;

use lockgate_model::{LINE_MAX, Masks, escape};
use rustls::{AlertDescription, CertificateError, InvalidMessage, PeerIncompatible};
use thiserror::Error;

/// Why there is no answer. Except after [`SendError::Request`], a pipeline holds and tries again.
///
/// No message contains any part of a URL or a secret.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum SendError {
    /// No connection: refused, unreachable, name not found.
    #[error("the receiver cannot be reached: {0}")]
    Connect(String),
    /// The TLS handshake failed, even if TLS 1.3 reports it only after the client's last message.
    #[error("{message}")]
    Tls { refused_by: Party, message: String },
    #[error("the receiver did not answer within {} s", .0.as_secs_f64())]
    Timeout(Duration),
    /// The connection ended before an answer. Some servers refuse a client certificate, or the lack
    /// of one, in this way (TLS 1.3).
    #[error("the receiver closed the connection before it answered")]
    Closed,
    /// The sink's request breaks a rule and can never be sent: treat it like a trap.
    #[error("the request cannot be sent: {0}")]
    Request(String),
    #[error("the request failed: {0}")]
    Other(String),
}

/// Who refused the other side in a TLS handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Party {
    /// The receiver does not accept our certificate, or expects one.
    Receiver,
    /// We do not accept the receiver's certificate.
    Us,
    Unknown,
}

impl SendError {
    /// The way out for an operator.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            SendError::Tls {
                refused_by: Party::Us,
                ..
            } => Some(
                "set `tls.ca` to the certificate of the authority that signed the receiver's \
                 certificate, and use a host name in `url` that the certificate contains",
            ),
            SendError::Tls {
                refused_by: Party::Receiver,
                ..
            } => Some(
                "set `tls.cert` and `tls.key` to a client certificate signed by an authority that \
                 the receiver trusts",
            ),
            SendError::Closed => Some(
                "some receivers close the connection if they do not accept the client certificate: \
                 check `tls`",
            ),
            SendError::Connect(_) => {
                Some("check the host and port of the URL, and that the receiver is running")
            }
            SendError::Timeout(_) => Some(
                "if the receiver is slow, raise `timeout` or lower `events` in \
                 `[pipelines.NAME.batch]`; else check the port of the URL, and any firewalls in \
                 between",
            ),
            SendError::Tls { .. } | SendError::Request(_) | SendError::Other(_) => None,
        }
    }

    /// Whether one more attempt on a fresh connection is worthwhile.
    pub(crate) fn is_stale_connection(&self) -> bool {
        *self == SendError::Closed
    }
}

/// Converts an error of the HTTP client.
pub fn classify(
    error: &reqwest::Error,
    has_certificate: bool,
    timeout: Duration,
    masks: &Masks,
) -> SendError {
    if let Some(error) = find::<rustls::Error>(error) {
        return tls(error, has_certificate);
    }
    if error.is_timeout() {
        return SendError::Timeout(timeout);
    }
    let io = find::<io::Error>(error);
    if error.is_connect() {
        let reason = io.map_or_else(|| innermost(error).to_string(), io::Error::to_string);
        // The connector reports a time-out in this way.
        return if io.is_some_and(|io| io.kind() == io::ErrorKind::TimedOut) {
            SendError::Timeout(timeout)
        } else if io.is_some_and(is_closed) {
            SendError::Closed
        } else {
            SendError::Connect(text(&reason, masks))
        };
    }
    let hyper = find::<hyper::Error>(error);
    if io.is_some_and(is_closed)
        || hyper.is_some_and(|hyper| {
            hyper.is_incomplete_message() || hyper.is_canceled() || hyper.is_closed()
        })
    {
        return SendError::Closed;
    }
    SendError::Other(text(&innermost(error).to_string(), masks))
}

fn is_closed(error: &io::Error) -> bool {
    use io::ErrorKind::{
        BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected, UnexpectedEof,
    };
    matches!(
        error.kind(),
        BrokenPipe | ConnectionAborted | ConnectionReset | NotConnected | UnexpectedEof
    )
}

fn text(reason: &str, masks: &Masks) -> String {
    escape(&masks.mask(reason), LINE_MAX).into_owned()
}

fn tls(error: &rustls::Error, has_certificate: bool) -> SendError {
    use rustls::Error::{AlertReceived, InvalidCertificate};
    let (refused_by, message) = match error {
        AlertReceived(alert) => return alerted(*alert, has_certificate),
        InvalidCertificate(error) => (
            Party::Us,
            format!(
                "the receiver's certificate is not accepted: {}",
                certificate(error)
            ),
        ),
        rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType) => (
            Party::Unknown,
            "the receiver does not speak TLS on this port".into(),
        ),
        rustls::Error::PeerIncompatible(PeerIncompatible::ServerDoesNotSupportTls12Or13) => (
            Party::Unknown,
            "the receiver supports neither TLS 1.2 nor 1.3".into(),
        ),
        error => (
            Party::Unknown,
            format!("the TLS connection failed: {error}"),
        ),
    };
    SendError::Tls {
        refused_by,
        message,
    }
}

fn alerted(alert: AlertDescription, has_certificate: bool) -> SendError {
    use AlertDescription as Alert;
    let (refused_by, message) = match alert {
        Alert::CertificateRequired => (
            Party::Receiver,
            "the receiver requires a client certificate".into(),
        ),
        // Before TLS 1.3, the alert for a missing client certificate.
        Alert::HandshakeFailure if !has_certificate => (
            Party::Receiver,
            "the receiver ended the TLS handshake; it probably requires a client certificate"
                .into(),
        ),
        Alert::BadCertificate
        | Alert::UnsupportedCertificate
        | Alert::CertificateRevoked
        | Alert::CertificateExpired
        | Alert::CertificateUnknown
        | Alert::UnknownCA
        | Alert::AccessDenied
        | Alert::DecryptError
        | Alert::HandshakeFailure => {
            let whom = if has_certificate {
                "the client certificate"
            } else {
                "a connection without a client certificate"
            };
            (
                Party::Receiver,
                format!("the receiver refused {whom} (TLS alert `{alert:?}`)"),
            )
        }
        Alert::ProtocolVersion => (
            Party::Unknown,
            "the receiver accepts neither TLS 1.2 nor 1.3".into(),
        ),
        Alert::UnrecognisedName => (
            Party::Unknown,
            "the receiver has no certificate for the host of the URL".into(),
        ),
        alert => (
            Party::Unknown,
            format!("the receiver ended the TLS connection (alert `{alert:?}`)"),
        ),
    };
    SendError::Tls {
        refused_by,
        message,
    }
}

fn certificate(error: &CertificateError) -> String {
    use CertificateError as Invalid;
    match error {
        Invalid::UnknownIssuer => "its authority is not trusted".into(),
        // rustls' own messages contain the host.
        Invalid::NotValidForName | Invalid::NotValidForNameContext { .. } => {
            "it is for another host name".into()
        }
        Invalid::Expired | Invalid::ExpiredContext { .. } => "it has expired".into(),
        Invalid::NotValidYet | Invalid::NotValidYetContext { .. } => {
            "it is not valid yet; check this machine's clock".into()
        }
        error => error.to_string(),
    }
}

/// The first error of this type in the chain of sources. An `io::Error` does not report the error
/// it wraps as its source; this function looks inside.
fn find<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = match error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref)
        {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}

/// The innermost error, which states the cause. The outer ones contain the URL.
fn innermost<'a>(error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error
}
