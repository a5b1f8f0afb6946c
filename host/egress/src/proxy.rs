//! The outbound proxy that an endpoint is reached through, and what is its fault.

use std::error::Error;

use lockgate_model::{LINE_MAX, Masks, OutboundProxy, OutboundScheme, escape, percent_encoded};
use url::Url;

use crate::{EndpointError, SendError};

const UNREACHABLE: &str = "check the proxy's address, and that this machine may connect to it";
const TLS: &str = "with `https://`, the proxy's certificate is checked like the receiver's; if the \
    proxy does not speak TLS itself, as most do not, write `http://`";
const LOGIN: &str = "write `USER:PASSWORD@` before the proxy's host; characters such as `@`, `:` and \
    `/` are percent-encoded there";
const REFUSED: &str = "have the proxy allow the receiver's host; or, if this machine can reach it by \
    itself, set `proxy = \"none\"` in this sink, or name the host in `NO_PROXY`";
const OTHER: &str = "check the scheme and the port of the proxy";

/// Sends what the proxy serves through it.
pub fn intercept(proxy: &OutboundProxy) -> Result<reqwest::Proxy, EndpointError> {
    let scheme = match proxy.scheme {
        // The proxy looks names up.
        OutboundScheme::Socks5 => "socks5h",
        scheme => scheme.name(),
    };
    let login = proxy.login.as_ref().map(|login| {
        let (user, password) = (&login.user, login.password.expose());
        format!("{}:{}@", percent_encoded(user), percent_encoded(password))
    });
    let shown = proxy.to_string();
    let address = shown.split_once("://").map_or("", |(_, address)| address);
    let url = format!("{scheme}://{}{address}", login.unwrap_or_default());
    // The error would quote the password.
    let url = Url::parse(&url).map_err(|_| EndpointError::Proxy(shown))?;
    let proxy = proxy.clone();
    Ok(reqwest::Proxy::custom(move |target| {
        serves(&proxy, target).then(|| url.clone())
    }))
}

/// Whether requests to this URL go through the proxy.
pub fn serves(proxy: &OutboundProxy, target: &Url) -> bool {
    let host = target.host_str().unwrap_or_default();
    let port = target.port_or_known_default().unwrap_or_default();
    proxy.serves(&format!("{host}:{port}"))
}

/// The error, if the proxy is what failed.
pub fn fault(
    error: &(dyn Error + 'static),
    proxy: &OutboundProxy,
    is_https: bool,
    masks: &Masks,
) -> Option<SendError> {
    let told = chain(error).find_map(|error| {
        let text = error.to_string();
        let told = text
            .strip_prefix("tunnel error: ")
            .or(text.strip_prefix("SOCKS error: "));
        told.map(str::to_owned)
    });
    let innermost = chain(error).last();
    let reason = innermost.map(ToString::to_string).unwrap_or_default();
    let reason = escape(&masks.mask(&reason), LINE_MAX).into_owned();
    let is_tls = crate::error::find::<rustls::Error>(error).is_some();
    let Some(told) = told else {
        // Without a tunnel, every connection is one to the proxy.
        let is_connect = error.downcast_ref().is_some_and(reqwest::Error::is_connect);
        let failed = is_connect && !is_https;
        return failed.then(|| unreachable(proxy, &reason, is_tls));
    };
    Some(match &*told {
        "proxy authorization required" => login(proxy),
        "credentials not accepted" | "server does not support user/pass authentication" => {
            login(proxy)
        }
        "failed to create underlying connection" => unreachable(proxy, &reason, is_tls),
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

fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
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
