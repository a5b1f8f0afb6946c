//! Outbound proxies: as `HTTPS_PROXY` and `NO_PROXY` say, and as Teleport's own clients read them,
//! or as the key `proxy` of a sink says.

use std::ops::Range;

use lockgate_model::{
    OutboundExceptions, OutboundLogin, OutboundProxy, OutboundScheme, Secret, percent_decoded,
};

use crate::issues::Issue;
use crate::reading::Reading;
use crate::url::{is_host, is_port, split_port};
use crate::value::Value;

/// The first that is set counts.
const VARIABLES: [&str; 4] = ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"];
const PROXY_HINT: &str = "write `http://HOST:PORT`, `https://HOST:PORT` or \
                          `socks5://HOST:PORT`, with `USER:PASSWORD@` before the host if the proxy \
                          asks for them; or `none`";
const EXCEPTIONS: [&str; 2] = ["NO_PROXY", "no_proxy"];

/// The outbound proxy of the environment. It must be readable unless this address is reached
/// without it. `span` is that of the key with the address.
pub(crate) fn proxy(r: &mut Reading<'_>, addr: &str, span: Range<usize>) -> Option<OutboundProxy> {
    let variables = VARIABLES.into_iter();
    let mut set = variables.filter_map(|name| Some((name, r.foreign_variable(name)?)));
    let (variable, text) = set.next()?;
    let exceptions = EXCEPTIONS.into_iter();
    let exceptions = exceptions
        .filter_map(|name| r.foreign_variable(name))
        .next();
    let exceptions = OutboundExceptions::new(exceptions.as_deref().unwrap_or_default());
    match parse(variable, &text) {
        Ok((mut proxy, written)) => {
            proxy.exceptions = exceptions;
            let login = proxy.login.iter();
            r.secrets.extend(login.map(|login| login.password.clone()));
            r.secrets.extend(written);
            Some(proxy)
        }
        Err(_) if exceptions.name(addr) => None,
        Err(problem) => {
            // The value may hold a password.
            let message = format!("The environment variable `{variable}` {problem}.");
            let hint = "write `http://HOST:PORT`, `https://HOST:PORT` or `socks5://HOST:PORT`, with \
                        `USER:PASSWORD@` before the host if the proxy asks for them; or name this \
                        address in `NO_PROXY`";
            r.issue(Issue::new(span, message, "connects by it", hint));
            None
        }
    }
}

/// The value of the key `proxy`. `None`: `"none"`, or it is not a proxy.
pub(crate) fn written(r: &mut Reading<'_>, value: &Value<'_>) -> Option<OutboundProxy> {
    let secret = value.secret(r, PROXY_HINT)?;
    if secret.expose() == "none" {
        return None;
    }
    // Without a scheme it could be a typo of `none`.
    let found = match secret.expose().contains("://") {
        true => parse("proxy", secret.expose()),
        false => Err("is neither `none` nor the URL of a proxy"),
    };
    match found {
        Ok((proxy, written)) => {
            let login = proxy.login.iter();
            r.secrets.extend(login.map(|login| login.password.clone()));
            r.secrets.extend(written);
            Some(proxy)
        }
        Err(problem) => {
            // The value may hold a password.
            let message = format!("`{}` {problem}.", value.path);
            r.issue(Issue::new(
                value.key_span.clone(),
                message,
                "not a proxy",
                PROXY_HINT,
            ));
            None
        }
    }
}

/// The proxy, and its password as it was written. The error is the end of a sentence.
fn parse(
    variable: &'static str,
    text: &str,
) -> Result<(OutboundProxy, Option<Secret>), &'static str> {
    let (scheme, rest) = match text.split_once("://") {
        None => ("http".to_owned(), text),
        Some((scheme, rest)) => (scheme.to_ascii_lowercase(), rest),
    };
    let (scheme, default_port) = match &*scheme {
        "http" => (OutboundScheme::Http, 80),
        "https" => (OutboundScheme::Https, 443),
        "socks5" | "socks5h" => (OutboundScheme::Socks5, 1080),
        _ => return Err("names a kind of proxy that is not known"),
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let (login, address) = match authority.rsplit_once('@') {
        None => (None, authority),
        Some((login, address)) => (Some(login), address),
    };
    let (host, port) = split_port(address);
    if !is_host(host) {
        return Err("has no valid host");
    }
    let port = match port {
        None => default_port,
        Some(port) if is_port(port) => port.parse().unwrap_or(default_port),
        Some(_) => return Err("has a port that is not a number from 1 to 65535"),
    };
    let written = login.and_then(|login| login.split_once(':'));
    let written = written.map(|(_, password)| Secret::new(password));
    let login = match login {
        None => None,
        Some(login) => {
            let (user, password) = login.split_once(':').unwrap_or((login, ""));
            let decoded = |text| percent_decoded(text).ok_or("has a `%` that encodes no character");
            let (user, password) = (decoded(user)?, decoded(password)?);
            // The limits of SOCKS 5, and what would end the user name of HTTP.
            let is_socks = scheme == OutboundScheme::Socks5;
            if is_socks && (!(1..=255).contains(&user.len()) || password.len() > 255) {
                return Err(
                    "has a user name or a password of a length that SOCKS 5 does not allow",
                );
            }
            if !is_socks && user.contains(':') {
                return Err("has a user name with a `:`, which HTTP does not allow");
            }
            let password = Secret::new(password);
            Some(OutboundLogin { user, password })
        }
    };
    let host = host
        .trim_start_matches('[')
        .trim_end_matches(']')
        .to_owned();
    let proxy = OutboundProxy {
        scheme,
        host,
        port,
        login,
        variable,
        exceptions: OutboundExceptions::default(),
    };
    Ok((proxy, written))
}

#[cfg(test)]
mod tests {
    use super::*;

    type Login = Option<(String, String)>;

    fn shown(text: &str) -> Result<(String, Login), &'static str> {
        let (proxy, _) = parse("HTTPS_PROXY", text)?;
        assert!(!format!("{proxy:?} {proxy}").contains("s3cret"), "{text}");
        let login = proxy.login.as_ref();
        let login = login.map(|login| (login.user.clone(), login.password.expose().to_owned()));
        Ok((proxy.to_string(), login))
    }

    #[test]
    fn proxies_are_read_as_teleports_clients_read_them() {
        let login = |user: &str, password: &str| Some((user.to_owned(), password.to_owned()));
        for (text, proxy, with) in [
            ("http://proxy:3128", "http://proxy:3128", None),
            (
                "proxy.example.com:3128",
                "http://proxy.example.com:3128",
                None,
            ),
            ("proxy", "http://proxy:80", None),
            ("HTTPS://proxy/", "https://proxy:443", None),
            ("socks5://10.0.0.1", "socks5://10.0.0.1:1080", None),
            (
                "socks5h://[2001:db8::1]:9050",
                "socks5://[2001:db8::1]:9050",
                None,
            ),
            (
                "http://me:s3cret@proxy:1",
                "http://proxy:1",
                login("me", "s3cret"),
            ),
            (
                "http://me:s3cret%40%3a%25@proxy:1",
                "http://proxy:1",
                login("me", "s3cret@:%"),
            ),
            (
                "http://me:s3cret@x@proxy:1",
                "http://proxy:1",
                login("me", "s3cret@x"),
            ),
            ("http://me@proxy:1", "http://proxy:1", login("me", "")),
        ] {
            assert_eq!(shown(text), Ok((proxy.to_owned(), with)), "{text}");
        }
        for (text, problem) in [
            ("ftp://proxy:21", "names a kind"),
            ("http://", "has no valid host"),
            ("http://pro xy", "has no valid host"),
            ("http://proxy:0", "has a port"),
            ("http://me:%zz@proxy", "has a `%`"),
            ("http://me:%+f@proxy", "has a `%`"),
            ("http://me:%e9@proxy", "has a `%`"),
            ("http://m%3ae:x@proxy", "has a user name with a `:`"),
            ("socks5://:x@proxy", "SOCKS 5 does not allow"),
        ] {
            let found = shown(text).expect_err(text);
            assert!(found.contains(problem), "{text}: {found}");
        }
    }
}
