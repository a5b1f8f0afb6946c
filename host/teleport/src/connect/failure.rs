//! Why a connection or a call failed, derived from the error that tonic reports.

use std::error::Error as StdError;
use std::fmt;

use lockgate_model::{Millis, OutboundProxy};
use rustls::pki_types::UnixTime;
use rustls::{AlertDescription, CertificateError, InvalidMessage};
use thiserror::Error;
use tonic::{Code, Status};

use super::{OutboundFailure, ProxyFailure, Route, TunnelFailure};

/// The side that refused a TLS handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Lockgate, because of the server's certificate.
    Ours,
    /// Lockgate, because the server's certificate is not valid at this time.
    OurClock,
    /// The server, because of Lockgate's certificate.
    Theirs,
}

/// Why a connection could not be made or a call failed, and what to do about it.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Failure {
    #[error(
        "the credentials in `{path}` cannot be used; they are read again when the file changes"
    )]
    Credentials { path: String },
    /// Checked before connecting: servers report an expired certificate differently, or not at all.
    #[error(
        "the credentials in `{path}` expired at {until}. Renew them with \
         `tctl auth sign --user=NAME` or with `tbot`; they are read again when the file changes"
    )]
    Expired { path: String, until: String },
    /// Teleport refused the handshake. Its clock decides, so it was asked.
    #[error(
        "the credentials in `{path}` are not valid before {from}, by the clock of this machine, \
         and `{address}` refused the TLS handshake: {reason}. Set the clock if it is wrong; or \
         else renew the credentials with `tctl auth sign --user=NAME` or with `tbot`"
    )]
    NotYetValid {
        path: String,
        from: String,
        address: String,
        reason: String,
    },
    #[error(
        "Teleport cannot be reached at `{address}`: {reason}. {}",
        what_to_check(reason)
    )]
    Unreachable { address: String, reason: String },
    #[error("{}", Tls { address, side: *side, reason })]
    Tls {
        address: String,
        side: Side,
        reason: String,
    },
    /// The handshake shows that neither Teleport's Auth Service nor its Proxy Service listens
    /// there.
    #[error(
        "`{address}` {found}: another service listens there, not Teleport. Check the host and the \
         port in `addr`; the port of a proxy is usually 443 or 3080, and that of the Auth Service \
         3025"
    )]
    OtherService {
        address: String,
        found: String,
        speaks_tls: bool,
    },
    #[error(
        "`{address}` does not support HTTP/2 (it chose {}). Use the address of Teleport's Auth \
         Service, usually port 3025",
        negotiated.as_deref().map_or("nothing".to_owned(), |name| format!("`{name}`"))
    )]
    NoHttp2 {
        address: String,
        negotiated: Option<String>,
    },
    #[error(
        "Teleport denies access: `{message}`. The user of the credentials must exist, must not be \
         locked, and needs a role that allows `list` and `read` on `event` and `session`"
    )]
    AccessDenied { message: String },
    #[error(
        "the cluster at `{address}` is `{found}`, and the store has the events of `{expected}`. \
         Change `addr` and the credentials back; to read another cluster, give it a source of its \
         own (`[sources.NAME]`) or a new store"
    )]
    OtherCluster {
        address: String,
        found: String,
        expected: String,
    },
    #[error("this version of Teleport does not support the call: `{message}`")]
    Unimplemented { message: String },
    #[error("Teleport did not find it: `{message}`")]
    NotFound { message: String },
    #[error("Teleport limits how much it is asked for: `{message}`")]
    Throttled { message: String },
    /// The server's own answer. It is the same each time, so retrying does not help.
    #[error("Teleport answered with an error: {code:?} `{message}`")]
    Refused { code: Code, message: String },
    #[error("the connection to Teleport broke: {reason}")]
    Lost { reason: String },
    #[error(transparent)]
    Outbound(#[from] OutboundFailure),
    #[error(transparent)]
    Proxy(#[from] ProxyFailure),
    #[error(transparent)]
    Tunnel(#[from] TunnelFailure),
    /// No connection by the configured route, which may be what is wrong.
    #[error(
        "{failure}. `connect = \"{}\"` decides on the route: if it is left out, what answers at \
         `addr` does",
        route.name()
    )]
    Configured { route: Route, failure: Box<Failure> },
}

/// A name that is not found has no port.
fn what_to_check(reason: &str) -> &'static str {
    if reason.contains("lookup address") {
        "Check the host name, and that this machine's resolver knows it"
    } else {
        "Check the address, and that this machine may connect to its port"
    }
}

impl Failure {
    /// The same failure, of credentials that are not valid before `from` by the clock of this
    /// machine.
    pub(super) fn before_validity(self, path: String, from: String) -> Failure {
        match self {
            Failure::Tls {
                address,
                side: Side::Theirs,
                reason,
            } => Failure::NotYetValid {
                path,
                from,
                address,
                reason,
            },
            Failure::Configured { route, failure } => {
                match failure.before_validity(path, from) {
                    // The route is not what is wrong.
                    failure @ Failure::NotYetValid { .. } => failure,
                    failure => Failure::Configured {
                        route,
                        failure: Box::new(failure),
                    },
                }
            }
            failure => failure,
        }
    }

    /// Names the outbound proxy of a connection that leads to something else: it may have answered
    /// itself.
    pub(super) fn through(self, outbound: Option<&OutboundProxy>) -> Failure {
        match (self, outbound) {
            (
                Failure::OtherService {
                    address,
                    found,
                    speaks_tls,
                },
                Some(outbound),
            ) => Failure::OtherService {
                address,
                found: format!("{found} through the outbound proxy `{outbound}`"),
                speaks_tls,
            },
            (Failure::Configured { route, failure }, outbound) => Failure::Configured {
                route,
                failure: Box::new(failure.through(outbound)),
            },
            (failure, _) => failure,
        }
    }

    /// Names the configured route where another one may be the remedy.
    pub(super) fn by_configured(self, route: Route) -> Failure {
        if matches!(self, Failure::Proxy(ProxyFailure::Outbound(_))) {
            return self;
        }
        let is_of_route = matches!(
            self,
            Failure::Tls { .. }
                | Failure::OtherService { .. }
                | Failure::NoHttp2 { .. }
                | Failure::Proxy(_)
                | Failure::Tunnel(_)
        );
        if !is_of_route {
            return self;
        }
        let failure = Box::new(self);
        Failure::Configured { route, failure }
    }

    /// Classifies the status of a failed call.
    pub fn of(address: &str, status: &Status) -> Failure {
        let message = status.message().to_owned();
        // Only local errors have a source; the server's answers have none.
        if let Some(source) = status.source() {
            return match find_tls(source) {
                Some(error) => of_tls(address, error),
                None => Failure::Lost {
                    reason: chain(source),
                },
            };
        }
        match status.code() {
            Code::PermissionDenied | Code::Unauthenticated => Failure::AccessDenied { message },
            // The user of the credentials does not exist.
            Code::NotFound if message.starts_with("access denied") => {
                Failure::AccessDenied { message }
            }
            Code::NotFound => Failure::NotFound { message },
            Code::Unimplemented => Failure::Unimplemented { message },
            // The same code stands for an answer that is too large, and a smaller one helps.
            Code::ResourceExhausted if !message.contains("larger than max") => {
                Failure::Throttled { message }
            }
            Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Aborted => {
                Failure::Lost { reason: message }
            }
            code => Failure::Refused { code, message },
        }
    }

    /// Whether a new connection may help.
    pub fn is_connection(&self) -> bool {
        matches!(
            self,
            Failure::Lost { .. }
                | Failure::Unreachable { .. }
                | Failure::Tls { .. }
                | Failure::OtherService { .. }
                | Failure::Credentials { .. }
                | Failure::Expired { .. }
                | Failure::NotYetValid { .. }
                | Failure::OtherCluster { .. }
                | Failure::Outbound(_)
                | Failure::Proxy(_)
                | Failure::Tunnel(_)
                | Failure::Configured { .. }
        )
    }
}

/// Classifies the error of a handshake.
pub(super) fn of_io(address: &str, error: &std::io::Error) -> Failure {
    match find_tls(error) {
        Some(error) => of_tls(address, error),
        None if error.kind() == std::io::ErrorKind::UnexpectedEof => Failure::Tls {
            address: address.to_owned(),
            side: Side::Theirs,
            reason: "it closed the connection".to_owned(),
        },
        None => Failure::Unreachable {
            address: address.to_owned(),
            reason: error.to_string(),
        },
    }
}

fn of_tls(address: &str, error: &rustls::Error) -> Failure {
    let other = |found: &str, speaks_tls| Failure::OtherService {
        address: address.to_owned(),
        found: found.to_owned(),
        speaks_tls,
    };
    match error {
        rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol)
        | rustls::Error::NoApplicationProtocol => {
            return other("speaks TLS, but not HTTP/2 (`NoApplicationProtocol`)", true);
        }
        rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            return other("does not speak TLS", false);
        }
        _ => {}
    }
    let side = match error {
        rustls::Error::AlertReceived(_) => Side::Theirs,
        rustls::Error::InvalidCertificate(
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. },
        ) => Side::OurClock,
        _ => Side::Ours,
    };
    Failure::Tls {
        address: address.to_owned(),
        side,
        reason: match error {
            rustls::Error::InvalidCertificate(error) => untimely(error),
            _ => None,
        }
        .unwrap_or_else(|| error.to_string()),
    }
}

/// That a certificate is not valid now, with the time as people read it.
fn untimely(error: &CertificateError) -> Option<String> {
    let at = |time: &UnixTime| crate::time::time(time.as_secs() as Millis * 1000);
    match error {
        CertificateError::ExpiredContext { not_after, .. } => {
            Some(format!("it expired at {}", at(not_after)))
        }
        CertificateError::NotValidYetContext { not_before, .. } => {
            Some(format!("it is not valid before {}", at(not_before)))
        }
        _ => None,
    }
}

/// An `io::Error` does not report the error it wraps as its source; this function looks inside.
pub(super) fn find_tls<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a rustls::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(tls) = error.downcast_ref() {
            return Some(tls);
        }
        let inner = error
            .downcast_ref::<std::io::Error>()
            .and_then(std::io::Error::get_ref);
        if let Some(tls) = inner.and_then(|inner| find_tls(inner)) {
            return Some(tls);
        }
        next = error.source();
    }
    None
}

/// An error with all its causes, without repetitions.
pub(super) fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let more = cause.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        next = cause.source();
    }
    text
}

struct Tls<'a> {
    address: &'a str,
    side: Side,
    reason: &'a str,
}

impl fmt::Display for Tls<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tls {
            address,
            side,
            reason,
        } = self;
        match side {
            Side::Ours => write!(
                f,
                "the certificate of `{address}` is not trusted: {reason}. Use the address of the \
                 Auth Service of the cluster that issued the credentials"
            ),
            Side::OurClock => write!(
                f,
                "by the clock of this machine, the certificate of `{address}` is not valid now: \
                 {reason}. Set the clock if it is wrong, or else renew that certificate"
            ),
            Side::Theirs => write!(
                f,
                "`{address}` refused the TLS handshake: {reason}. The credentials may have \
                 expired, or may be from another cluster"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use lockgate_model::{OutboundExceptions, OutboundScheme};

    use super::*;

    #[test]
    fn answers_are_classified() {
        let of = |code, message: &str| Failure::of("auth:3025", &Status::new(code, message));
        let denied = |message: &str| Failure::AccessDenied {
            message: message.into(),
        };
        let text = "access denied\n\tuser \"bot\" not found";
        assert_eq!(of(Code::NotFound, text), denied(text));
        assert_eq!(
            of(Code::PermissionDenied, "access denied"),
            denied("access denied")
        );
        let missing = "open /var/lib/teleport/log/records/x.tar: no such file or directory";
        assert_eq!(
            of(Code::NotFound, missing),
            Failure::NotFound {
                message: missing.into()
            }
        );
        let broken = "events.UserLogin.Metadata: Index: readUint64: x";
        assert_eq!(
            of(Code::Unknown, broken),
            Failure::Refused {
                code: Code::Unknown,
                message: broken.into()
            }
        );
        assert!(of(Code::Unavailable, "restart").is_connection());
        assert!(!of(Code::Unknown, broken).is_connection());
    }

    #[test]
    fn local_errors_are_not_taken_for_answers_of_the_server() {
        let io = |error| std::io::Error::new(std::io::ErrorKind::InvalidData, error);
        let alert = rustls::Error::AlertReceived(rustls::AlertDescription::CertificateExpired);
        let status = Status::from_error(Box::new(io(alert)));
        let Failure::Tls {
            side: Side::Theirs,
            reason,
            ..
        } = Failure::of("auth:3025", &status)
        else {
            panic!("{status:?}");
        };
        assert!(reason.to_lowercase().contains("expired"), "{reason}");
        let status = Status::from_error("a broken pipe".into());
        assert!(matches!(
            Failure::of("auth:3025", &status),
            Failure::Lost { .. }
        ));
    }

    #[test]
    fn a_port_of_another_service_is_not_blamed_on_the_credentials() {
        for (error, found) in [
            (
                rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol),
                "speaks TLS, but not HTTP/2",
            ),
            (
                rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType),
                "does not speak TLS",
            ),
        ] {
            let message = of_tls("auth:443", &error).to_string();
            assert!(
                message.starts_with(&format!("`auth:443` {found}")),
                "{message}"
            );
            assert!(message.contains("another service") && message.contains("`addr`"));
            assert!(!message.contains("credentials"), "{message}");
        }
    }

    /// A proxy that answers `CONNECT` with a page of its own, for example.
    #[test]
    fn an_outbound_proxy_is_named_where_it_may_have_answered_itself() {
        let outbound = OutboundProxy {
            scheme: OutboundScheme::Http,
            host: "proxy.example.com".to_owned(),
            port: 3128,
            login: None,
            variable: "HTTPS_PROXY",
            exceptions: OutboundExceptions::new(""),
        };
        let failure = || {
            let error = rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType);
            of_tls("teleport.test:443", &error).by_configured(Route::Proxy)
        };
        let message = failure().through(Some(&outbound)).to_string();
        let words = "`teleport.test:443` does not speak TLS through the outbound proxy \
                     `http://proxy.example.com:3128`: ";
        assert!(message.starts_with(words), "{message}");
        assert_eq!(failure().through(None), failure());
    }

    #[test]
    fn a_clock_that_is_wrong_is_not_blamed_on_the_address() {
        for error in [
            CertificateError::Expired,
            CertificateError::NotValidYetContext {
                time: UnixTime::since_unix_epoch(Duration::from_secs(1000)),
                not_before: UnixTime::since_unix_epoch(Duration::from_secs(3000)),
            },
        ] {
            let error = rustls::Error::InvalidCertificate(error);
            let message = of_tls("auth:3025", &error).to_string();
            assert!(message.contains("Set the clock"), "{message}");
            assert!(!message.contains("Use the address"), "{message}");
            assert!(!message.contains("UNIX"), "{message}");
        }
    }

    #[test]
    fn messages_state_the_remedy() {
        let address = "auth:3025".to_owned();
        for (failure, word) in [
            (
                Failure::Expired {
                    path: "/etc/identity".into(),
                    until: "2026-01-05T00:00:00Z".into(),
                },
                "`tctl auth sign --user=NAME`",
            ),
            (
                Failure::Unreachable {
                    address: address.clone(),
                    reason: "refused".into(),
                },
                "port",
            ),
            (
                Failure::Unreachable {
                    address: address.clone(),
                    reason: "failed to lookup address information: Name or service not known"
                        .into(),
                },
                "Check the host name",
            ),
            (
                Failure::NoHttp2 {
                    address: address.clone(),
                    negotiated: None,
                },
                "3025",
            ),
            (
                Failure::Tls {
                    address: address.clone(),
                    side: Side::Ours,
                    reason: "UnknownIssuer".into(),
                },
                "cluster",
            ),
            (
                Failure::Tls {
                    address,
                    side: Side::Theirs,
                    reason: "UnknownCA".into(),
                },
                "another cluster",
            ),
            (
                Failure::AccessDenied {
                    message: "access denied".into(),
                },
                "`list` and `read`",
            ),
        ] {
            assert!(failure.to_string().contains(word), "{failure}");
        }
    }
}
