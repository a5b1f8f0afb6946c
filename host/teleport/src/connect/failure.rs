use std::error::Error as StdError;
use std::fmt;

use thiserror::Error;
use tonic::{Code, Status};

/// Who objected to a TLS handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Lockgate, to what the server showed.
    Ours,
    /// The server, to what Lockgate showed.
    Theirs,
}

/// Why a connection could not be made or a call failed, and what to do about it.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Failure {
    #[error(
        "the credentials in `{path}` cannot be used; they are read again as soon as the file changes"
    )]
    Credentials { path: String },
    /// Found out before dialling: what a server says of an expired certificate varies, and may be
    /// nothing at all.
    #[error(
        "the credentials in `{path}` expired at {until}. Renew them with `tctl auth sign` or let tbot write them; they are read again \
         as soon as the file changes"
    )]
    Expired { path: String, until: String },
    #[error(
        "Teleport's Auth service at `{address}` cannot be reached: {reason}. Check the address, and that its port is open to this machine"
    )]
    Unreachable { address: String, reason: String },
    #[error("{}", Tls { address, side: *side, reason })]
    Tls {
        address: String,
        side: Side,
        reason: String,
    },
    #[error(
        "`{address}` does not agree to HTTP/2 (it chose {}). The address must be that of Teleport's Auth service, port 3025 as a rule",
        negotiated.as_deref().map_or("nothing".to_owned(), |name| format!("`{name}`"))
    )]
    NoHttp2 {
        address: String,
        negotiated: Option<String>,
    },
    #[error(
        "Teleport denies access: `{message}`. The user of the credentials must exist, must not be locked, and needs a role that allows \
         `list` and `read` on `event` and `session`"
    )]
    AccessDenied { message: String },
    #[error("this Teleport does not know the call: `{message}`")]
    Unimplemented { message: String },
    #[error("Teleport has no such thing: `{message}`")]
    NotFound { message: String },
    /// The server's own answer, the same each time: asking again does not help.
    #[error("Teleport cannot answer: {code:?} `{message}`")]
    Refused { code: Code, message: String },
    #[error("the connection to Teleport broke: {reason}")]
    Lost { reason: String },
}

impl Failure {
    /// Sorts what a call failed with.
    pub fn of(address: &str, status: &Status) -> Failure {
        let message = status.message().to_owned();
        // Only what happened on this side has a source; what the server said has none.
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
            // The caller's own user is gone.
            Code::NotFound if message.starts_with("access denied") => {
                Failure::AccessDenied { message }
            }
            Code::NotFound => Failure::NotFound { message },
            Code::Unimplemented => Failure::Unimplemented { message },
            Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Aborted => {
                Failure::Lost { reason: message }
            }
            code => Failure::Refused { code, message },
        }
    }

    /// True where another connection may help.
    pub fn is_connection(&self) -> bool {
        matches!(
            self,
            Failure::Lost { .. }
                | Failure::Unreachable { .. }
                | Failure::Tls { .. }
                | Failure::Credentials { .. }
                | Failure::Expired { .. }
        )
    }
}

/// Sorts what a handshake failed with.
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
    let side = if matches!(error, rustls::Error::AlertReceived(_)) {
        Side::Theirs
    } else {
        Side::Ours
    };
    Failure::Tls {
        address: address.to_owned(),
        side,
        reason: error.to_string(),
    }
}

/// An `io::Error` does not list what it wraps among its sources, but one step further.
fn find_tls<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a rustls::Error> {
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

/// An error with all its causes, each said once.
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
                "the certificate of `{address}` is not trusted: {reason}. The address must be that of the Auth service of the cluster that \
                 the credentials are from"
            ),
            Side::Theirs => write!(
                f,
                "`{address}` refused the connection during the TLS handshake: {reason}. The credentials may be expired, or from another \
                 cluster"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_sorted_by_what_helps() {
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
    fn what_happened_here_is_not_taken_for_an_answer() {
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
    fn messages_say_what_to_do() {
        let address = "auth:3025".to_owned();
        for (failure, word) in [
            (
                Failure::Expired {
                    path: "/etc/identity".into(),
                    until: "2026-01-05T00:00:00Z".into(),
                },
                "`tctl auth sign`",
            ),
            (
                Failure::Unreachable {
                    address: address.clone(),
                    reason: "refused".into(),
                },
                "port",
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
