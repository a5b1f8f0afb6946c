//! Refuses credentials that would cross a network unencrypted.

use std::net::{IpAddr, Ipv6Addr};
use std::ops::Range;

use lockgate_model::{Secret, names_a_secret};

use crate::issues::Issue;
use crate::reading::Reading;
use crate::substitution::references;
use crate::url::split_port;
use crate::value::Value;

/// A credential of a sink: its key as messages show it, and its span.
pub(crate) type Credential = (String, Range<usize>);

/// The header, if it holds a credential: by its name, or because its value is a reference.
pub(crate) fn header(value: &Value<'_>) -> Option<Credential> {
    let is_secret = names_a_secret(&value.name) || !references(value.shown()).is_empty();
    is_secret.then(|| (value.path.clone(), value.key_span.clone()))
}

/// Checks one URL of a sink. `credentials`: what is sent along.
pub(crate) fn check(
    r: &mut Reading<'_>,
    value: &Value<'_>,
    url: &Secret,
    credentials: &[Credential],
) {
    let Some(host) = plain_host(url.expose()) else {
        return;
    };
    if is_loopback(host) {
        return;
    }
    let (subject, also) = match credentials.first() {
        Some((key, span)) => (format!("`{key}`"), Some(span.clone())),
        None if holds_a_secret(value.shown(), url.expose()) => ("a secret".into(), None),
        None => return,
    };
    let message = format!("`{}` would send {subject} unencrypted.", value.path);
    let hint = "write `https://`; or, if the whole way to the receiver is trusted, set \
                `allow-plaintext = true` in this sink";
    let issue = Issue::new(value.key_span.clone(), message, "`http://`", hint);
    r.issue(match also {
        Some(span) => issue.also(span, "a credential"),
        None => issue,
    });
}

/// The host of an `http://` URL.
fn plain_host(url: &str) -> Option<&str> {
    let (scheme, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?']).next()?;
    scheme
        .eq_ignore_ascii_case("http")
        .then(|| split_port(authority).0)
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    match address.parse() {
        Ok(IpAddr::V4(address)) => address.is_loopback(),
        Ok(IpAddr::V6(address)) => {
            address == Ipv6Addr::LOCALHOST
                || address.to_ipv4_mapped().is_some_and(|it| it.is_loopback())
        }
        Err(_) => {
            let name = host.trim_end_matches('.').to_ascii_lowercase();
            name == "localhost" || name.ends_with(".localhost")
        }
    }
}

/// Whether the path or the query holds a secret. `written`: the URL as written in the file.
fn holds_a_secret(written: &str, url: &str) -> bool {
    let authority = written.find("://").map_or(0, |at| at + 3);
    let path = written[authority..]
        .find(['/', '?'])
        .map_or(written.len(), |at| authority + at);
    let by_reference = references(written)
        .iter()
        .any(|reference| reference.start >= path && authority > 0);
    let query = url.split_once('?').map_or("", |(_, query)| query);
    by_reference
        || query
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .any(|(name, value)| names_a_secret(name) && !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_of_this_machine_are_loopback() {
        for (url, expected) in [
            ("http://localhost:8080/x", true),
            ("HTTP://LOCALHOST./", true),
            ("http://app.localhost", true),
            ("http://127.3.2.1/", true),
            ("http://[::1]:80/", true),
            ("http://[::ffff:127.0.0.1]/", true),
            ("http://localhost.example.com/", false),
            ("http://127.0.0.1.example.com/", false),
            ("http://10.0.0.1/", false),
            ("http://[2001:db8::1]?x", false),
        ] {
            let host = plain_host(url).expect(url);
            assert_eq!(is_loopback(host), expected, "{url}");
        }
        assert_eq!(plain_host("https://logs.example.com/"), None);
    }

    #[test]
    fn secrets_are_found_in_path_and_query_but_not_in_the_authority() {
        for (written, url, expected) in [
            ("http://h/a?q=1", "http://h/a?q=1", false),
            ("http://${env:HOST}/a", "http://h/a", false),
            ("http://h/${env:T}/a", "http://h/t0ken/a", true),
            ("http://h?x=${file:t}", "http://h?x=t0ken", true),
            ("http://h/?token=abc", "http://h/?token=abc", true),
            ("${env:URL}", "http://h/?api_key=abc", true),
            ("${env:URL}", "http://h/a", false),
        ] {
            assert_eq!(holds_a_secret(written, url), expected, "{written}");
        }
    }
}
