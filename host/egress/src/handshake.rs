//! Why a TLS connection failed, and the way out.

use std::path::PathBuf;

use lockgate_model::{LINE_MAX, Millis, Validity, escape, utc};
use rustls::{AlertDescription, CertificateError, InvalidMessage, PeerIncompatible};
use rustls_pki_types::UnixTime;

use crate::{Party, SendError};

/// Names of a certificate that a message lists.
const NAMES_SHOWN: usize = 5;

const AUTHORITY: &str = "set `tls.ca` to the certificate of the authority that signed the \
    receiver's certificate";
const SELF_SIGNED: &str = "give the receiver a certificate that an authority has signed, and set \
    `tls.ca` to that of the authority; if it signs its own, it must not be an authority itself \
    (`openssl req -x509 -addext basicConstraints=critical,CA:FALSE`)";
const RENEW_RECEIVER: &str = "renew the certificate at the receiver, or correct this machine's \
    clock if it is wrong";
const RENEW_CLIENT: &str = "renew the certificate; the new one is used once its file is there";
const VERSION_1: &str = "sign it again with extensions: `openssl x509 -req -extfile EXTENSIONS …`, \
    where the file EXTENSIONS has the line `subjectAltName = DNS:HOST` for the host in the URL";
const REPLACE: &str = "give the receiver another certificate";
const CLOCKS: &str = "check the clocks of the receiver and of this machine";
const CLOCK: &str = "check this machine's clock";
const NAME: &str = "use a host name in the URL that the certificate has, or give the receiver a \
    certificate for the host in the URL";
const CLIENT: &str = "set `tls.cert` and `tls.key` to a client certificate signed by an authority \
    that the receiver trusts";
const PLAIN: &str = "write `http://` in the URL, or name the port on which the receiver speaks TLS";
const OLD: &str = "enable TLS 1.2 or 1.3 at the receiver";

/// The certificate that is presented to receivers that ask for one.
#[derive(Clone, Debug)]
pub struct Presented {
    pub file: PathBuf,
    pub validity: Option<Validity>,
}

impl Presented {
    /// That it is not valid now, in words.
    pub fn fault(&self, now: Millis) -> Option<String> {
        let file = self.file.display();
        let Validity {
            not_before,
            not_after,
        } = self.validity?;
        if not_after <= now {
            Some(format!("`{file}` expired at {}", utc(not_after)))
        } else if now < not_before {
            Some(format!("`{file}` is not valid before {}", utc(not_before)))
        } else {
            None
        }
    }
}

/// A failed handshake, or a connection that the receiver ended in it. `client`: what it was shown.
pub fn failure(error: &rustls::Error, client: Option<&Presented>, now: Millis) -> SendError {
    use rustls::Error::{AlertReceived, InvalidCertificate};
    let (refused_by, message, hint) = match error {
        AlertReceived(alert) => return alerted(*alert, client, now),
        InvalidCertificate(error) => {
            let (what, hint) = certificate(error);
            let message = format!("the receiver's certificate is not accepted: {what}");
            (Party::Us, message, hint)
        }
        rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType) => (
            Party::Unknown,
            "the receiver does not speak TLS on this port".into(),
            Some(PLAIN),
        ),
        rustls::Error::PeerIncompatible(PeerIncompatible::ServerDoesNotSupportTls12Or13) => (
            Party::Unknown,
            "the receiver supports neither TLS 1.2 nor 1.3".into(),
            Some(OLD),
        ),
        error => (
            Party::Unknown,
            format!("the TLS connection failed: {error}"),
            None,
        ),
    };
    SendError::Tls {
        refused_by,
        message,
        hint,
    }
}

/// That the client certificate is not valid now, after `what` happened: many receivers only end the
/// connection, and some name another reason.
pub fn outdated(what: &str, client: &Presented, now: Millis) -> Option<SendError> {
    let is_not_yet = client
        .validity
        .is_some_and(|validity| now < validity.not_before);
    Some(SendError::Tls {
        refused_by: Party::Receiver,
        message: format!("{what}: the client certificate {}", client.fault(now)?),
        hint: Some(if is_not_yet { CLOCK } else { RENEW_CLIENT }),
    })
}

fn alerted(alert: AlertDescription, client: Option<&Presented>, now: Millis) -> SendError {
    use AlertDescription as Alert;
    let (refused_by, message, hint) = match alert {
        Alert::CertificateRequired => (
            Party::Receiver,
            "the receiver requires a client certificate".into(),
            Some(CLIENT),
        ),
        // Before TLS 1.3, the alert for a missing client certificate.
        Alert::HandshakeFailure if client.is_none() => (
            Party::Receiver,
            "the receiver ended the TLS handshake; it probably requires a client certificate"
                .into(),
            Some(CLIENT),
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
            let what = "the receiver refused the connection";
            if let Some(outdated) = client.and_then(|client| outdated(what, client, now)) {
                return outdated;
            }
            let whom = match client {
                Some(_) => "the client certificate",
                None => "a connection without a client certificate",
            };
            let hint = match alert {
                Alert::CertificateExpired | Alert::CertificateRevoked if client.is_some() => {
                    RENEW_CLIENT
                }
                _ => CLIENT,
            };
            (
                Party::Receiver,
                format!("the receiver refused {whom} (TLS alert `{alert:?}`)"),
                Some(hint),
            )
        }
        Alert::ProtocolVersion => (
            Party::Unknown,
            "the receiver accepts neither TLS 1.2 nor 1.3".into(),
            Some(OLD),
        ),
        Alert::UnrecognisedName => (
            Party::Unknown,
            "the receiver has no certificate for the host of the URL".into(),
            Some(NAME),
        ),
        alert => (
            Party::Unknown,
            format!("the receiver ended the TLS connection (alert `{alert:?}`)"),
            None,
        ),
    };
    SendError::Tls {
        refused_by,
        message,
        hint,
    }
}

/// What is wrong with the receiver's certificate, and the way out.
fn certificate(error: &CertificateError) -> (String, Option<&'static str>) {
    use CertificateError as Invalid;
    match error {
        Invalid::UnknownIssuer => ("its authority is not trusted".into(), Some(AUTHORITY)),
        Invalid::BadSignature => (
            "another authority of the same name has signed it".into(),
            Some(AUTHORITY),
        ),
        Invalid::NotValidForName => ("it is for another host name".into(), Some(NAME)),
        // rustls' own message contains the host.
        Invalid::NotValidForNameContext { presented, .. } => (names(presented), Some(NAME)),
        Invalid::Expired => ("it has expired".into(), Some(RENEW_RECEIVER)),
        Invalid::ExpiredContext { not_after, .. } => (
            format!("it expired at {}", time(*not_after)),
            Some(RENEW_RECEIVER),
        ),
        Invalid::NotValidYet => ("it is not valid yet".into(), Some(CLOCKS)),
        Invalid::NotValidYetContext { not_before, .. } => (
            format!("it is not valid before {}", time(*not_before)),
            Some(CLOCKS),
        ),
        Invalid::Revoked => ("it was revoked".into(), Some(REPLACE)),
        error if error.to_string().contains("CaUsedAsEndEntity") => (
            "it is the certificate of an authority (`CA:TRUE`), not of a server".into(),
            Some(SELF_SIGNED),
        ),
        error if error.to_string().contains("UnsupportedCertVersion") => (
            "it is of version 1 of X.509, without extensions".into(),
            Some(VERSION_1),
        ),
        error => (error.to_string(), Some(REPLACE)),
    }
}

/// `names`: as rustls shows them, such as `DnsName("example.com")`.
fn names(names: &[String]) -> String {
    let bare = |name: &String| {
        let inside = name
            .split_once('(')
            .and_then(|(_, rest)| rest.split_once(')'));
        let bare = inside
            .map_or(name.as_str(), |(inside, _)| inside)
            .trim_matches('"');
        format!("`{}`", escape(bare, LINE_MAX / NAMES_SHOWN))
    };
    let shown: Vec<String> = names.iter().take(NAMES_SHOWN).map(bare).collect();
    let more = match names.len().saturating_sub(NAMES_SHOWN) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    match names {
        [] => "it has no host names (a common name does not count)".to_owned(),
        _ => format!(
            "it is for {}{more}, not for the host of the URL",
            shown.join(", ")
        ),
    }
}

fn time(time: UnixTime) -> String {
    utc(Millis::try_from(time.as_secs().saturating_mul(1000)).unwrap_or(Millis::MAX))
}
