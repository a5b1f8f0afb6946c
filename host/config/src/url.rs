//! The rules for a sink's URL. The authority comes from the configuration alone, so its rules are
//! strict.

/// The problem with `url`, as the end of a sentence, and a hint. Neither repeats the URL, which may
/// hold a token.
pub(crate) fn problem(url: &str) -> Option<(&'static str, &'static str)> {
    if url.trim() != url {
        return Some((
            "begins or ends with white space",
            "remove it: a copied URL often has some",
        ));
    }
    let lower = url.to_ascii_lowercase();
    let Some(rest) = lower
        .strip_prefix("https://")
        .or_else(|| lower.strip_prefix("http://"))
    else {
        return Some((
            "does not start with `https://` or `http://`",
            "begin it with its scheme, for example `https://logs.example.com:8443/audit`, or \
             `file:///var/log/teleport/{date}.ndjson`; a URL is not shown, as it may hold a secret",
        ));
    };
    if !url
        .bytes()
        .all(|byte| byte.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&byte))
    {
        return Some((
            "contains a character that is not allowed in a URL",
            "percent-encode it: a space is `%20`",
        ));
    }
    if rest.contains('#') {
        return Some((
            "has a fragment, which is never sent",
            "remove the `#` and what follows, or write the `#` as `%23`",
        ));
    }
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    if authority.contains('@') {
        return Some((
            "contains a user name or a password",
            "write `auth = { basic = { user = \"…\", password = \"${env:NAME}\" } }` instead",
        ));
    }
    let (host, port) = split_port(authority);
    if !is_host(host) {
        return Some((
            "has no valid host",
            "for example `https://logs.example.com:8443/audit` or `https://[2001:db8::1]/`",
        ));
    }
    if port.is_some_and(|port| !is_port(port)) {
        return Some((
            "has a port that is not a number from 1 to 65535",
            "for example `https://logs.example.com:8443/audit`",
        ));
    }
    None
}

/// `host` or `host:port` of a URL that has no [`problem`].
pub(crate) fn authority(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.split(['/', '?']).next().unwrap_or_default()
}

/// `host` and `port` of `host:port`; the brackets of an IPv6 address belong to the host.
pub(crate) fn split_port(authority: &str) -> (&str, Option<&str>) {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (authority, None),
    }
}

pub(crate) fn is_host(host: &str) -> bool {
    match host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
    {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            !host.is_empty()
                && host.len() <= 253
                && host
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
        }
    }
}

pub(crate) fn is_port(port: &str) -> bool {
    port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port > 0)
}

#[cfg(test)]
mod tests {
    use super::problem;

    #[test]
    fn urls_are_accepted_or_refused_with_the_reason() {
        for url in [
            "https://logstash.internal:9601",
            "HTTPS://x/",
            "http://127.0.0.1:8080/a/b?token=x&y",
            "https://[::1]:443/x",
            "https://x?a",
            "https://x/@me",
        ] {
            assert_eq!(problem(url), None, "{url}");
        }
        for (url, expected) in [
            ("", "does not start"),
            ("ftp://x", "does not start"),
            ("logs.example.com/x", "does not start"),
            ("https://", "no valid host"),
            ("https:///path", "no valid host"),
            ("https://x y/", "a character"),
            ("https://x/ ", "white space"),
            (" https://x/", "white space"),
            ("https://exämple/", "a character"),
            ("https://x/\r\nHost: y", "a character"),
            ("https://x/#frag", "a fragment"),
            ("https://u:p@x/", "a user"),
            ("https://x:0/", "a port"),
            ("https://x:99999/", "a port"),
            ("https://x:+80/", "a port"),
            ("https://x:/", "a port"),
            ("https://[::1/", "no valid host"),
            ("https://a,b/", "no valid host"),
        ] {
            assert!(
                problem(url).is_some_and(|(problem, _)| problem.contains(expected)),
                "{url}: {:?}",
                problem(url)
            );
        }
    }
}
