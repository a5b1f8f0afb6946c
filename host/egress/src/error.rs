//! Why a request got no answer, in words for the operator.

use std::error::Error;
use std::io;
use std::time::Duration;

use lockgate_model::{LINE_MAX, Masks, Millis, OutboundProxy, escape};
use rustix::io::Errno;
use thiserror::Error;

use crate::address::LinkAddress;
use crate::budget::{descriptor_limit, is_exhausted};
use crate::connect::ConnectError;
use crate::handshake::{self, Presented};
use crate::http_client::{HEAD_BYTES_MAX, HEADERS_MAX, HttpError};
use crate::proxy::fault;

const NOT_HTTP: &str =
    "check the port of the URL: something other than an HTTP server listens there";
const FLOOD: &str =
    "check the port of the URL, and what answers there: a working HTTP server does not send this";
const NOT_PLAIN: &str = "write `https://` in the URL";

/// The way out if this process may not open as many files as it needs.
pub const DESCRIPTORS_HINT: &str = "raise the limit, with `LimitNOFILE=` in the unit of systemd or \
                                    with `ulimit -n`, or lower `in-flight` of the sinks";

/// Why there is no answer. Except after [`SendError::Request`], a pipeline holds and tries again.
///
/// No message contains any part of a URL or a secret.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum SendError {
    /// No connection: refused, unreachable, name not found.
    #[error("the receiver cannot be reached: {0}")]
    Connect(String),
    /// This host does not connect to such an address.
    #[error("the receiver's URL cannot be used: {0}")]
    Address(LinkAddress),
    /// The outbound proxy is what failed. `needs_operator`: another attempt does not help.
    #[error("{message}")]
    Proxy {
        message: String,
        hint: &'static str,
        needs_operator: bool,
    },
    /// The token server gives none. `needs_operator`: another attempt does not help.
    #[error("{message}")]
    Token {
        message: String,
        hint: Option<&'static str>,
        needs_operator: bool,
    },
    /// This host has no file descriptor left for a connection. It says nothing of the receiver.
    /// `limit`: what the process may have open, if that is the reason.
    #[error("no file descriptor is left for a connection{}", of_limit(*.limit))]
    Descriptors { limit: Option<u64> },
    /// The TLS handshake failed, even if TLS 1.3 reports it only after the client's last message.
    #[error("{message}")]
    Tls {
        refused_by: Party,
        message: String,
        hint: Option<&'static str>,
    },
    #[error("the receiver did not answer within {} s", .0.as_secs_f64())]
    Timeout(Duration),
    /// The connection ended before an answer. Some servers refuse a client certificate, or the lack
    /// of one, in this way (TLS 1.3).
    #[error("the receiver closed the connection before it answered")]
    Closed,
    /// The receiver keeps sending, but never an answer that can be used.
    #[error("the receiver sends {0}")]
    Flood(String),
    /// The sink's request breaks a rule and can never be sent: it is narrowed down to its
    /// document.
    #[error("the request cannot be sent: {0}")]
    Request(String),
    #[error("the request failed: {0}")]
    Other(String),
}

fn of_limit(limit: Option<u64>) -> String {
    match limit {
        Some(limit) => format!(": the limit is {limit} (`ulimit -n`)"),
        None => " in the whole system".to_owned(),
    }
}

/// The side that refused the other in a TLS handshake.
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
            SendError::Tls { hint, .. } | SendError::Token { hint, .. } => *hint,
            SendError::Proxy { hint, .. } => Some(*hint),
            SendError::Closed => Some(
                "check that the port in the URL is the receiver's, and that it speaks TLS if the \
                 URL begins with `https://`; some receivers close the connection if they do not \
                 accept the client certificate (`tls`)",
            ),
            SendError::Descriptors { limit: Some(_) } => Some(DESCRIPTORS_HINT),
            SendError::Descriptors { limit: None } => {
                Some("raise `fs.file-max` of the system, or end what has so many files open")
            }
            SendError::Address(_) => Some(
                "check who answers for this name; if events belong there, write the address itself in \
                 the URL, and set `allow-link-local = true` in this sink",
            ),
            SendError::Connect(_) => {
                Some("check the host and port of the URL, and that the receiver is running")
            }
            SendError::Timeout(_) => Some(
                "if the receiver is slow, raise `timeout` of the sink, or lower `events` in the \
                 pipeline's table `batch`; else check the port of the URL, and any firewalls in \
                 between",
            ),
            SendError::Flood(_) => Some(FLOOD),
            SendError::Request(_) | SendError::Other(_) => None,
        }
    }
}

/// The details of an attempt that failed.
pub struct Attempt<'a> {
    pub is_https: bool,
    /// Shown to a receiver that asks for it.
    pub client: Option<&'a Presented>,
    pub timeout: Duration,
    /// Of this request.
    pub proxy: Option<&'a OutboundProxy>,
    pub masks: &'a Masks,
    pub now: Millis,
}

/// Converts an error of the HTTP client.
pub fn classify(error: &(dyn Error + 'static), attempt: &Attempt<'_>) -> SendError {
    let Attempt {
        client,
        timeout,
        masks,
        now,
        ..
    } = *attempt;
    let (connect, tls) = (find::<ConnectError>(error), find::<rustls::Error>(error));
    let io = find::<io::Error>(error);
    // Whoever else is involved, this host is at fault.
    if tls.is_none()
        && let Some(shortage) = io.and_then(|io| shortage(io, is_exhausted))
    {
        return shortage;
    }
    let of_proxy = connect.zip(attempt.proxy);
    if let Some(fault) = of_proxy.and_then(|(error, proxy)| fault(error, proxy, masks)) {
        return fault;
    }
    if let Some(error) = tls {
        return handshake::failure(error, client, now);
    }
    if let Some(&address) = find::<LinkAddress>(error) {
        return SendError::Address(address);
    }
    if matches!(connect, Some(ConnectError::Timeout)) {
        return SendError::Timeout(timeout);
    }
    let closed = || {
        let what = SendError::Closed.to_string();
        let outdated = client.and_then(|client| handshake::outdated(&what, client, now));
        outdated.unwrap_or(SendError::Closed)
    };
    if connect.is_some() {
        let reason = io.map_or_else(|| innermost(error).to_string(), io::Error::to_string);
        // The system gives up before we do if there are several addresses.
        return if io.is_some_and(|io| io.kind() == io::ErrorKind::TimedOut) {
            SendError::Timeout(timeout)
        } else if io.is_some_and(is_closed) {
            closed()
        } else {
            SendError::Connect(text(&reason, masks))
        };
    }
    if let Some(flood @ HttpError::TooManyInterim) = find::<HttpError>(error) {
        return SendError::Flood(flood.to_string());
    }
    let hyper = find::<hyper::Error>(error);
    if io.is_some_and(is_closed)
        || hyper.is_some_and(|hyper| {
            hyper.is_incomplete_message() || hyper.is_canceled() || hyper.is_closed()
        })
    {
        return closed();
    }
    if hyper.is_some_and(hyper::Error::is_parse_too_large) {
        let kibibytes = HEAD_BYTES_MAX / 1024;
        return SendError::Flood(format!(
            "an answer whose head has more than {kibibytes} KiB, or over {HEADERS_MAX} headers"
        ));
    }
    if hyper.is_some_and(hyper::Error::is_parse) {
        // A TLS server answers a plain request with an alert, which is not HTTP.
        let (message, hint) = match attempt.is_https {
            true => ("the receiver's answer is not HTTP", NOT_HTTP),
            false => (
                "the receiver's answer is not HTTP: the port probably speaks TLS",
                NOT_PLAIN,
            ),
        };
        return SendError::Tls {
            refused_by: Party::Unknown,
            message: message.to_owned(),
            hint: Some(hint),
        };
    }
    SendError::Other(text(&innermost(error).to_string(), masks))
}

/// Whether a file descriptor is what the host does not have.
fn shortage(error: &io::Error, is_exhausted: impl Fn() -> bool) -> Option<SendError> {
    match Errno::from_io_error(error) {
        Some(Errno::MFILE) => {}
        Some(Errno::NFILE) => return Some(SendError::Descriptors { limit: None }),
        // Looking up a name opens files, and does not say why it could not.
        None if error.kind() != io::ErrorKind::TimedOut && !is_closed(error) && is_exhausted() => {}
        _ => return None,
    }
    Some(SendError::Descriptors {
        limit: descriptor_limit(),
    })
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

/// The first error of this type in the chain of sources. An `io::Error` does not report the error
/// it wraps as its source; this function looks inside.
pub fn find<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
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
pub fn innermost<'a>(error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error
}

#[cfg(test)]
mod tests {
    use std::vec::IntoIter;

    use http::Uri;
    use hyper_util::client::legacy::connect::HttpConnector;
    use tower_service::Service;

    use super::*;

    #[tokio::test]
    async fn a_name_that_leads_to_a_metadata_service_is_named_with_the_way_out() {
        let address = LinkAddress("169.254.169.254".parse().unwrap());
        // Looks each name up to this address.
        let resolver =
            tower::service_fn(move |_| std::future::ready(Err::<IntoIter<_>, _>(address)));
        let mut tcp = HttpConnector::new_with_resolver(resolver);
        let error = tcp.call(Uri::from_static("http://logs.example.com/")).await;
        let error = ConnectError::Receiver(error.expect_err("it is refused").into());
        let attempt = Attempt {
            is_https: false,
            client: None,
            timeout: Duration::from_secs(1),
            proxy: None,
            masks: &Masks::new(),
            now: 0,
        };
        let error = classify(&error, &attempt);
        assert_eq!(error, SendError::Address(address));
        let hint = error.hint().unwrap_or_default();
        assert!(hint.contains("`allow-link-local = true`"), "{hint}");
        let text = error.to_string();
        assert!(text.contains("169.254.169.254"), "{text}");
    }

    #[test]
    fn a_lack_of_file_descriptors_is_not_held_against_the_receiver() {
        let of_process = SendError::Descriptors {
            limit: descriptor_limit(),
        };
        let of_system = SendError::Descriptors { limit: None };
        let unknown_name = || io::Error::other("failed to lookup address information");
        for (error, is_exhausted, expected) in [
            (Errno::MFILE.into(), false, Some(of_process.clone())),
            (Errno::NFILE.into(), false, Some(of_system)),
            (unknown_name(), true, Some(of_process)),
            (unknown_name(), false, None),
            (Errno::CONNREFUSED.into(), true, None),
            (io::ErrorKind::TimedOut.into(), true, None),
        ] {
            assert_eq!(shortage(&error, || is_exhausted), expected, "{error}");
        }
        let error = SendError::Descriptors { limit: Some(1024) };
        assert_eq!(
            error.to_string(),
            "no file descriptor is left for a connection: the limit is 1024 (`ulimit -n`)"
        );
        let hint = error.hint().unwrap_or_default();
        assert!(hint.contains("LimitNOFILE=") && hint.contains("in-flight"));
    }
}
