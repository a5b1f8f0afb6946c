//! The outbound proxy that an endpoint is reached through, and what is its fault.

use std::error::Error;

use http::Uri;
use http::header::HeaderValue;
use lockgate_model::{LINE_MAX, Masks, OutboundLogin, OutboundProxy, OutboundScheme, escape};

use crate::connect::{ConnectError, port};
use crate::error::{find, innermost};
use crate::headers::basic;
use crate::{EndpointError, SendError};

const UNREACHABLE: &str = "check the proxy's address, and that this machine may connect to it";
const TLS: &str = "with `https://`, the proxy's certificate is checked like the receiver's; if the \
    proxy does not speak TLS itself, as most do not, write `http://`";
const LOGIN: &str = "write `USER:PASSWORD@` before the proxy's host; characters such as `@`, `:` and \
    `/` are percent-encoded there";
const REFUSED: &str = "have the proxy allow the receiver's host; or, if this machine can reach it by \
    itself, set `proxy = \"none\"` in this sink, or name the host in `NO_PROXY`";
const OTHER: &str = "check the scheme and the port of the proxy";

/// Where the proxy is.
pub fn uri(proxy: &OutboundProxy) -> Result<Uri, EndpointError> {
    let refused = || EndpointError::Proxy(proxy.to_string());
    proxy.to_string().parse().map_err(|_| refused())
}

/// The value of `Proxy-Authorization`.
pub fn authorization(login: &OutboundLogin) -> HeaderValue {
    let text = format!("Basic {}", basic(&login.user, &login.password));
    // Base64 is visible ASCII.
    let value = HeaderValue::try_from(text);
    let mut value = value.unwrap_or(HeaderValue::from_static("Basic"));
    value.set_sensitive(true);
    value
}

/// Whether requests to this URL go through the proxy.
pub fn serves(proxy: &OutboundProxy, target: &Uri) -> bool {
    let host = target.host().unwrap_or_default();
    proxy.serves(&format!("{host}:{}", port(target)))
}

/// The error, if the proxy is what failed.
pub fn fault(error: &ConnectError, proxy: &OutboundProxy, masks: &Masks) -> Option<SendError> {
    let told = match error {
        ConnectError::Receiver(_) | ConnectError::Timeout => return None,
        ConnectError::Proxy(error) => {
            let error: &(dyn Error + 'static) = &**error;
            let is_tls = find::<rustls::Error>(error).is_some();
            let reason = innermost(error).to_string();
            let reason = escape(&masks.mask(&reason), LINE_MAX).into_owned();
            return Some(unreachable(proxy, &reason, is_tls));
        }
        ConnectError::Through(told) => told.as_str(),
    };
    let told = (told.strip_prefix("tunnel error: "))
        .or(told.strip_prefix("SOCKS error: "))
        .unwrap_or(told);
    Some(match told {
        "proxy authorization required"
        | "credentials not accepted"
        | "server does not support user/pass authentication" => login(proxy),
        "io error establishing tunnel"
        | "io error during SOCKS handshake"
        | "unexpected end of file"
        | "failed parsing server response"
        | "server implements authentication incorrectly" => {
            refused(proxy, &format!("does not answer as a proxy: {told}"), OTHER)
        }
        // An HTTP proxy gives its reason in a status, which the client does not keep.
        "unsuccessful" => refused(proxy, "refused to connect to the receiver", REFUSED),
        told => {
            let told = format!("did not connect to the receiver: {told}");
            refused(proxy, &told, REFUSED)
        }
    })
}

/// It wants to know who this is.
pub fn login(proxy: &OutboundProxy) -> SendError {
    let what = match proxy.login {
        None => "asks for a user name and a password (407)",
        Some(_) => "does not accept the user name and the password (407)",
    };
    let what = match proxy.scheme {
        OutboundScheme::Socks5 => what.trim_end_matches(" (407)"),
        _ => what,
    };
    refused(proxy, what, LOGIN)
}

fn unreachable(proxy: &OutboundProxy, reason: &str, is_tls: bool) -> SendError {
    let (what, hint) = match is_tls {
        true => (format!("cannot be trusted: {reason}"), TLS),
        false => (format!("cannot be reached: {reason}"), UNREACHABLE),
    };
    SendError::Proxy {
        message: text(proxy, &what),
        hint,
        needs_operator: is_tls,
    }
}

fn refused(proxy: &OutboundProxy, what: &str, hint: &'static str) -> SendError {
    SendError::Proxy {
        message: text(proxy, what),
        hint,
        needs_operator: true,
    }
}

fn text(proxy: &OutboundProxy, what: &str) -> String {
    format!(
        "the outbound proxy `{proxy}` of `{}` {what}",
        proxy.variable
    )
}
