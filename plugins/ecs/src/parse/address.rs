//! `host:port` in all forms that Teleport writes.

use std::net::Ipv6Addr;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address<'a> {
    /// An IP literal or a host name.
    pub host: &'a str,
    /// Whether it is an IP literal in brackets.
    pub bracketed: bool,
    pub port: Option<u32>,
}

/// `lenient`: a host name may contain `_` (Q9).
pub fn parse(text: &str, lenient: bool) -> Option<Address<'_>> {
    if let Some(inside) = text.strip_prefix('[') {
        let (host, rest) = inside.split_once(']')?;
        let port = match rest {
            "" => None,
            _ => Some(port(rest.strip_prefix(':')?)?),
        };
        return is_ip(host).then_some(Address {
            host,
            bracketed: true,
            port,
        });
    }
    let (host, port) = split(text, |host| is_host_name(host, lenient))?;
    Some(Address {
        host,
        bracketed: false,
        port,
    })
}

/// A host name or an IP literal, without brackets.
pub fn host_port(text: &str) -> Option<(&str, Option<u32>)> {
    split(text, |host| is_host_name(host, false))
}

/// An IPv4 dotted quad, where leading zeros are allowed, or an IPv6 literal with an optional
/// `%zone`.
pub fn is_ip(text: &str) -> bool {
    if text.bytes().any(|byte| byte == b':') {
        let (address, zone) = text
            .split_once('%')
            .map_or((text, None), |(address, zone)| (address, Some(zone)));
        return zone != Some("") && address.parse::<Ipv6Addr>().is_ok();
    }
    let (mut parts, mut digits, mut number) = (1, 0, 0);
    for byte in text.bytes() {
        match byte {
            b'0'..=b'9' if digits < 3 => {
                (digits, number) = (digits + 1, number * 10 + u32::from(byte - b'0'))
            }
            b'.' if digits > 0 && number <= 255 => (parts, digits, number) = (parts + 1, 0, 0),
            _ => return false,
        }
    }
    parts == 4 && digits > 0 && number <= 255
}

/// Labels of letters, digits and `-`, with an optional dot at the end.
pub fn is_host_name(text: &str, lenient: bool) -> bool {
    let in_label =
        |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || (lenient && byte == b'_');
    let label = |label: &str| {
        let bytes = label.as_bytes();
        let first = bytes
            .first()
            .is_some_and(|first| first.is_ascii_alphanumeric() || (lenient && *first == b'_'));
        first && bytes.len() <= 63 && bytes.iter().all(|byte| in_label(*byte))
    };
    text.strip_suffix('.').unwrap_or(text).split('.').all(label)
}

/// `::1:3022` is a valid address, so the whole text is tried first.
fn split(text: &str, is_name: impl Fn(&str) -> bool) -> Option<(&str, Option<u32>)> {
    if is_ip(text) {
        return Some((text, None));
    }
    let with_port = text
        .rsplit_once(':')
        .and_then(|(host, digits)| Some((host, port(digits)?)));
    match with_port {
        Some((host, port)) if is_ip(host) || is_name(host) => Some((host, Some(port))),
        _ if is_name(text) => Some((text, None)),
        _ => None,
    }
}

fn port(digits: &str) -> Option<u32> {
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit()) && !digits.starts_with('0');
    digits
        .parse()
        .ok()
        .filter(|port| plain && *port <= i32::MAX as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_parsed_in_all_forms() {
        for (text, expected) in [
            ("192.0.2.7:3022", Some(("192.0.2.7", false, Some(3022)))),
            ("192.0.2.7", Some(("192.0.2.7", false, None))),
            ("010.0.02.007", Some(("010.0.02.007", false, None))),
            ("2001:db8:::3022", Some(("2001:db8::", false, Some(3022)))),
            ("::1:3022", Some(("::1:3022", false, None))),
            ("fe80::1%eth0", Some(("fe80::1%eth0", false, None))),
            ("[2001:db8::1]:443", Some(("2001:db8::1", true, Some(443)))),
            ("[2001:db8::1]", Some(("2001:db8::1", true, None))),
            ("[2001:db8::1]443", None),
            (
                "node.example.com.:22",
                Some(("node.example.com.", false, Some(22))),
            ),
            ("192.0.2.256:22", Some(("192.0.2.256", false, Some(22)))),
            ("192.0.2:22", Some(("192.0.2", false, Some(22)))),
            ("192.0..7:22", None),
            ("node", Some(("node", false, None))),
            ("node:0", None),
            ("node:+1", None),
            ("node:99999999999", None),
            ("my_host:22", None),
            ("-node", None),
            ("", None),
        ] {
            let found = parse(text, false).map(|found| (found.host, found.bracketed, found.port));
            assert_eq!(found, expected, "{text}");
        }
        assert_eq!(
            parse("my_host:22", true).map(|found| found.host),
            Some("my_host")
        );
    }
}
