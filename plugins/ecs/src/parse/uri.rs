//! URIs as in Java: `java.net.URI` first, and if that refuses, `java.net.URL`, which knows few
//! schemes and checks little.

use std::borrow::Cow;
use std::net::Ipv6Addr;

use crate::parse::address;
use crate::value::Value;

/// The parts of a URI, percent-decoded.
#[derive(Debug, Default, PartialEq, Eq)]
struct Parts<'a> {
    scheme: Option<Cow<'a, str>>,
    user: Option<Cow<'a, str>>,
    host: Option<&'a str>,
    port: Option<u32>,
    path: Option<Cow<'a, str>>,
    query: Option<Cow<'a, str>>,
    fragment: Option<Cow<'a, str>>,
}

/// The members of `url`, except `original`. `None` if the text is not a URI.
pub fn parse(text: &str) -> Option<Vec<(&'static str, Value<'static>)>> {
    let parts = uri(text).or_else(|| url(text))?;
    let mut members = vec![];
    let mut member = |name, text: Option<&str>| {
        members.extend(text.map(|text| (name, Value::text(text.to_owned()))))
    };
    member("domain", parts.host);
    member("fragment", parts.fragment.as_deref());
    member("query", parts.query.as_deref());
    member("scheme", parts.scheme.as_deref());
    member("user_info", parts.user.as_deref());
    if let Some((name, password)) = parts.user.as_deref().and_then(|user| user.split_once(':')) {
        member("username", Some(name));
        member("password", Some(password));
    }
    member("path", parts.path.as_deref());
    let last = parts.path.as_deref().and_then(|path| path.rsplit_once('/'));
    member(
        "extension",
        last.and_then(|(_, segment)| segment.rsplit_once('.'))
            .map(|(_, extension)| extension),
    );
    members.extend(parts.port.map(|port| ("port", Value::number(port))));
    Some(members)
}

/// Marks that need no escape anywhere.
const UNRESERVED: &str = "_-!.~*'()";
const PATH: &str = ":@&=+$,/;";
const ANY: &str = ";/?:@&=+$,[]";
const USER: &str = ";:&=+$,";
const REGISTRY: &str = "$,;:@&=+";

fn uri(text: &str) -> Option<Parts<'_>> {
    let mut parts = Parts::default();
    let mut rest = text;
    if let Some(at) = text
        .find(['/', '?', '#', ':'])
        .filter(|at| text[*at..].starts_with(':'))
    {
        let scheme = &text[..at];
        if !is_scheme(scheme) {
            return None;
        }
        parts.scheme = Some(Cow::Borrowed(scheme));
        rest = &text[at + 1..];
        if !rest.starts_with('/') {
            let opaque = cut(&mut rest, '#', &mut parts.fragment)?;
            return (!opaque.is_empty() && legal(opaque, ANY)).then_some(parts);
        }
    }
    let mut rest = cut(&mut rest, '#', &mut parts.fragment)?;
    let before = cut(&mut rest, '?', &mut parts.query)?;
    let mut path = before;
    if let Some(inside) = before.strip_prefix("//") {
        let (authority, after) = inside.split_at(inside.find('/').unwrap_or(inside.len()));
        // Without an authority, something else must follow.
        if !authority.is_empty() {
            self::authority(authority, &mut parts)?;
        } else if after.is_empty() && parts.query.is_none() && parts.fragment.is_none() {
            return None;
        }
        path = after;
    }
    if !legal(path, PATH) {
        return None;
    }
    parts.path = Some(unescape(path));
    Some(parts)
}

/// Splits the text at a sign. Checks and decodes the part after it.
fn cut<'a>(text: &mut &'a str, sign: char, after: &mut Option<Cow<'a, str>>) -> Option<&'a str> {
    let Some((before, inside)) = text.split_once(sign) else {
        return Some(text);
    };
    *after = Some(unescape(inside));
    legal(inside, ANY).then_some(before)
}

/// Sets user, host and port, unless the authority is registry-based (RFC 2396).
fn authority<'a>(text: &'a str, parts: &mut Parts<'a>) -> Option<()> {
    let bracketed = text.find(']').is_some_and(|at| at > 0);
    let registry = legal(text, REGISTRY);
    if legal_server(text, bracketed)
        && let Some((user, host, port)) = self::server(text)
    {
        (parts.user, parts.host, parts.port) = (user.map(unescape), Some(host), port);
        return Some(());
    }
    registry.then_some(())
}

fn legal_server(text: &str, bracketed: bool) -> bool {
    if bracketed {
        // `%` begins the zone of the address.
        return text
            .chars()
            .all(|sign| sign == '%' || legal(sign.encode_utf8(&mut [0; 4]), ";:&=+$,@[]"));
    }
    legal(text, ";:&=+$,@[]")
}

/// User, host and port of an authority that has a host.
#[allow(clippy::type_complexity)]
fn server(text: &str) -> Option<(Option<&str>, &str, Option<u32>)> {
    let (user, rest) = match text.split_once('@') {
        Some((user, rest)) if legal(user, USER) => (Some(user), rest),
        Some(_) => return None,
        None => (None, text),
    };
    let end = match rest.strip_prefix('[') {
        Some(inside) => {
            let inside = inside.split_once(']')?.0;
            let (address, zone) = inside
                .split_once('%')
                .map_or((inside, None), |(address, zone)| (address, Some(zone)));
            let zoned = zone.is_none_or(|zone| {
                !zone.is_empty()
                    && zone
                        .bytes()
                        .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
            });
            if !zoned || address.parse::<Ipv6Addr>().is_err() {
                return None;
            }
            inside.len() + 2
        }
        None => {
            let end = rest.find(':').unwrap_or(rest.len());
            if !is_quad(&rest[..end]) && !is_java_host(&rest[..end]) {
                return None;
            }
            end
        }
    };
    let (host, port) = rest.split_at(end);
    let port = match port.strip_prefix(':') {
        Some("") => None,
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => Some(java_int(digits)?),
        Some(_) => return None,
        None if port.is_empty() => None,
        None => return None,
    };
    Some((user, host, port))
}

fn is_quad(text: &str) -> bool {
    !text.contains(':') && address::is_ip(text)
}

/// Labels begin and end with a letter or digit; the last of several begins with a letter.
fn is_java_host(text: &str) -> bool {
    let name = text.strip_suffix('.').unwrap_or(text);
    let label = |label: &str| {
        let plain = label
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        plain && !label.is_empty() && !label.starts_with('-') && !label.ends_with('-')
    };
    let last = name.rsplit_once('.').map(|(_, last)| last);
    name.split('.').all(label)
        && last.is_none_or(|last| last.starts_with(|first: char| first.is_ascii_alphabetic()))
}

fn is_scheme(text: &str) -> bool {
    let rest = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
    text.starts_with(|first: char| first.is_ascii_alphabetic()) && text.bytes().all(rest)
}

/// Allows letters, digits, marks, `more`, escapes, and non-ASCII characters other than spaces and
/// controls.
fn legal(text: &str, more: &str) -> bool {
    let mut rest = text.chars();
    while let Some(sign) = rest.next() {
        let fine = match sign {
            '%' => (0..2).all(|_| rest.next().is_some_and(|digit| digit.is_ascii_hexdigit())),
            _ if sign.is_ascii() => {
                sign.is_ascii_alphanumeric() || UNRESERVED.contains(sign) || more.contains(sign)
            }
            _ => !sign.is_whitespace() && !sign.is_control(),
        };
        if !fine {
            return false;
        }
    }
    true
}

fn unescape(text: &str) -> Cow<'_, str> {
    if !text.contains('%') {
        return Cow::Borrowed(text);
    }
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let escape = text
            .get(at + 1..at + 3)
            .filter(|_| byte == b'%')
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        decoded.push(escape.unwrap_or(byte));
        at += if escape.is_some() { 3 } else { 1 };
    }
    Cow::Owned(String::from_utf8_lossy(&decoded).into_owned())
}

/// Parses like `java.net.URL`, which checks only scheme and port and decodes nothing.
fn url(text: &str) -> Option<Parts<'_>> {
    let text = text.trim_matches(|sign| sign <= ' ');
    let text = text
        .get(..4)
        .filter(|start| start.eq_ignore_ascii_case("url:"))
        .map_or(text, |start| &text[start.len()..]);
    let colon = text
        .find(['/', ':'])
        .filter(|at| text[*at..].starts_with(':'))?;
    let scheme = text[..colon].to_ascii_lowercase();
    if !matches!(
        scheme.as_str(),
        "http" | "https" | "ftp" | "file" | "jar" | "mailto"
    ) {
        return None;
    }
    let mut parts = Parts {
        scheme: Some(Cow::Owned(scheme)),
        ..Parts::default()
    };
    let rest = &text[colon + 1..];
    let (rest, fragment) = rest
        .split_once('#')
        .map_or((rest, None), |(rest, fragment)| (rest, Some(fragment)));
    let (rest, query) = rest
        .split_once('?')
        .map_or((rest, None), |(rest, query)| (rest, Some(query)));
    (parts.fragment, parts.query) = (fragment.map(Cow::Borrowed), query.map(Cow::Borrowed));
    let mut path = rest;
    if let Some(inside) = rest
        .strip_prefix("//")
        .filter(|_| !rest.starts_with("////"))
    {
        let (authority, after) = inside.split_at(inside.find('/').unwrap_or(inside.len()));
        path = after;
        let (user, host) = authority
            .split_once('@')
            .map_or((None, authority), |(user, host)| (Some(user), host));
        // With more than one `@`, there is no user.
        if !host.contains('@') {
            parts.user = user.map(Cow::Borrowed);
            let end = match host.strip_prefix('[') {
                Some(inside) => {
                    let inside = inside.split_once(']')?.0;
                    let address = inside
                        .split_once('%')
                        .map_or(inside, |(address, _)| address);
                    address.parse::<Ipv6Addr>().ok()?;
                    inside.len() + 2
                }
                None => host.find(':').unwrap_or(host.len()),
            };
            parts.host = Some(&host[..end]);
            parts.port = match host[end..].strip_prefix(':') {
                None if end < host.len() => return None,
                None | Some("") => None,
                Some("-1") => None,
                Some(digits) => Some(java_int(digits.strip_prefix('+').unwrap_or(digits))?),
            };
        }
    }
    parts.path = Some(without_dots(path));
    Some(parts)
}

/// Removes `/./` and `/x/../`.
fn without_dots(path: &str) -> Cow<'_, str> {
    if !path.contains("/.") {
        return Cow::Borrowed(path);
    }
    let mut kept: Vec<&str> = vec![];
    let mut segments = path.split('/').peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            "." if !kept.is_empty() => kept.extend(last.then_some("")),
            ".." if kept.len() > 1 => {
                kept.pop();
                kept.extend(last.then_some(""));
            }
            _ => kept.push(segment),
        }
    }
    Cow::Owned(kept.join("/"))
}

fn java_int(digits: &str) -> Option<u32> {
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
    digits
        .parse()
        .ok()
        .filter(|number| plain && *number <= i32::MAX as u32)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(text: &str, expected: &str) {
        let found = parse(text).map(|members| {
            let shown = members.iter().map(|(name, value)| match value {
                Value::Text(text) => format!("{name}={text}"),
                value => format!("{name}={}", value.as_plain().unwrap_or_default()),
            });
            shown.collect::<Vec<_>>().join(" ")
        });
        assert_eq!(found.as_deref().unwrap_or("refused"), expected, "{text}");
    }

    #[test]
    fn uris_are_parsed_like_in_java() {
        check(
            "postgres://al:p%40@db.example.com:5432/app?a=b#c",
            "domain=db.example.com fragment=c query=a=b scheme=postgres user_info=al:p@ username=al password=p@ path=/app port=5432",
        );
        check(
            "https://example.com/a.b/c.tar.gz",
            "domain=example.com scheme=https path=/a.b/c.tar.gz extension=gz",
        );
        check("mongodb://one:27017,two:27018/", "scheme=mongodb path=/");
        check("redis://my_host:6379", "scheme=redis path=");
        check("node:5432", "scheme=node");
        check("my_node:5432", "refused");
        check(
            "https://[2001:db8::1]:8443/x",
            "domain=[2001:db8::1] scheme=https path=/x port=8443",
        );
        check(
            "https://exa mple.com/x y",
            "domain=exa mple.com scheme=https path=/x y",
        );
        check("mysql://host:3306/x y", "refused");
        check("https://h/%zz", "domain=h scheme=https path=/%zz");
        check(
            "https://h/a/./b/../c d",
            "domain=h scheme=https path=/a/c d",
        );
        check("https://node.1:80", "scheme=https path=");
        check("https://h:-5/x y", "refused");
        check("//", "refused");
        check("https:", "scheme=https path=");
    }

    proptest! {
        #[test]
        fn foreign_text_never_panics(text in "([a-z]{1,5}:)?[/a-z0-9@:%\\[\\]?#. é_-]{0,24}") {
            let _ = parse(&text);
        }
    }
}
