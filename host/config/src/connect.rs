//! `connect` of a source, and Teleport's environment variables that it goes with.

use std::ops::Range;

use crate::issues::Issue;
use crate::reading::Reading;
use crate::source::Connect;
use crate::url::{is_host, is_port, split_port};
use crate::value::Value;

/// Teleport's own variable: a list, separated by `,` or `;`, of `yes`, for all addresses, and of
/// `ADDRESS=yes`. What it does not name needs no upgrade.
const VARIABLE: &str = "TELEPORT_TLS_ROUTING_CONN_UPGRADE";
/// Another one: where the SSH tunnel of every proxy is.
const TUNNEL: &str = "TELEPORT_TUNNEL_PUBLIC_ADDR";

pub(crate) fn read(r: &mut Reading<'_>, value: &Value<'_>) -> Option<Connect> {
    let text = value.text(r)?;
    let connect = match &*text {
        "auto" => Connect::Auto,
        "auth" => Connect::Auth,
        "proxy" => Connect::Proxy,
        "proxy-upgrade" => Connect::ProxyUpgrade,
        "ssh-tunnel" => Connect::SshTunnel,
        _ => {
            r.issue(Issue::new(
                r.place(value),
                format!("`{}` is not a way to connect to Teleport.", value.path),
                "unknown",
                "write \"auto\", \"auth\", \"proxy\", \"proxy-upgrade\" or \"ssh-tunnel\"",
            ));
            return None;
        }
    };
    Some(connect)
}

/// What the variable says of this address. `span` is that of the source.
pub(crate) fn upgrade(r: &mut Reading<'_>, addr: &str, span: Range<usize>) -> Option<bool> {
    let text = r.foreign_variable(VARIABLE)?;
    match says(&text, addr) {
        Ok(said) => Some(said),
        Err(part) => {
            let message = format!("The environment variable `{VARIABLE}` has `{part}` in it.");
            let hint =
                "write `yes` or `no`, or `ADDRESS=yes` and `ADDRESS=no`, separated by commas";
            r.issue(Issue::new(span, message, "connects by it", hint));
            None
        }
    }
}

/// Where the SSH tunnel of the proxy is, as its variable says: `host:port`, or a host alone.
pub(crate) fn tunnel(r: &mut Reading<'_>, span: Range<usize>) -> Option<String> {
    let text = r.foreign_variable(TUNNEL)?;
    let (host, port) = split_port(&text);
    if is_host(host) && port.is_none_or(is_port) {
        return Some(text);
    }
    let message = format!("The environment variable `{TUNNEL}` is not an address.");
    let hint = "write `HOST:PORT`, such as `teleport.example.com:3024`";
    r.issue(Issue::new(span, message, "connects by it", hint));
    None
}

/// The error is the part that cannot be read.
fn says<'a>(text: &'a str, addr: &str) -> Result<bool, &'a str> {
    let (mut all, mut this) = (false, None);
    for part in text.split([',', ';']).map(str::trim) {
        match part.split_once('=') {
            None if part.is_empty() => {}
            None => all = flag(part).ok_or(part)?,
            Some((address, value)) => {
                let value = flag(value).ok_or(part)?;
                if address == addr || address == split_port(addr).0 {
                    this = Some(value);
                }
            }
        }
    }
    Ok(this.unwrap_or(all))
}

/// As Teleport reads it.
fn flag(text: &str) -> Option<bool> {
    match &*text.trim().to_ascii_lowercase() {
        "yes" | "y" | "true" | "t" | "on" | "1" => Some(true),
        "no" | "n" | "false" | "f" | "off" | "0" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_says_of_an_address_whether_it_needs_an_upgrade() {
        let addr = "teleport.example.com:443";
        for (text, said) in [
            ("yes", Ok(true)),
            ("TRUE", Ok(true)),
            ("0", Ok(false)),
            ("teleport.example.com:443=yes", Ok(true)),
            ("teleport.example.com=1", Ok(true)),
            ("other.example.com=yes", Ok(false)),
            ("yes;teleport.example.com:443=no", Ok(false)),
            ("teleport.example.com:443=no, yes", Ok(false)),
            ("0,other.example.com=1", Ok(false)),
            ("yes,", Ok(true)),
            ("maybe", Err("maybe")),
            ("yes,other=", Err("other=")),
        ] {
            assert_eq!(says(text, addr), said, "{text}");
        }
    }
}
