//! The outbound proxy: through it, a network lets its machines reach others.

use std::fmt;
use std::net::IpAddr;

use crate::Secret;

/// An HTTP or SOCKS proxy of the operator's network. Shown without its password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboundProxy {
    pub scheme: OutboundScheme,
    /// A name or an IP address, without brackets.
    pub host: String,
    pub port: u16,
    pub login: Option<OutboundLogin>,
    /// The environment variable that names it.
    pub variable: &'static str,
    /// What is reached without it.
    pub exceptions: OutboundExceptions,
}

/// The hosts that are reached without the outbound proxy, as `NO_PROXY` names them. This machine is
/// always one of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OutboundExceptions(Vec<String>);

/// What is spoken to an outbound proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutboundScheme {
    /// `CONNECT` of HTTP/1.1.
    Http,
    /// The same over TLS.
    Https,
    /// SOCKS 5. The proxy looks names up.
    Socks5,
}

/// Who this host is, for the outbound proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboundLogin {
    pub user: String,
    pub password: Secret,
}

impl OutboundProxy {
    /// Whether this address, `host:port`, is reached through it.
    pub fn serves(&self, address: &str) -> bool {
        !self.exceptions.name(address)
    }
}

impl OutboundExceptions {
    /// The value of `NO_PROXY`: a list with commas.
    pub fn new(text: &str) -> OutboundExceptions {
        let items = text.split(',');
        OutboundExceptions(items.map(|item| item.trim().to_ascii_lowercase()).collect())
    }

    /// Whether they name this address: `host:port`, or a host alone.
    pub fn name(&self, address: &str) -> bool {
        let (host, port) = split_port(address);
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        let ip: Option<IpAddr> = host.parse().ok();
        if host == "localhost" || ip.is_some_and(|ip| ip.is_loopback()) {
            return true;
        }
        let mut items = self.0.iter();
        items.any(|item| is_named(&host, ip, port, item))
    }
}

impl OutboundScheme {
    pub fn name(self) -> &'static str {
        match self {
            OutboundScheme::Http => "http",
            OutboundScheme::Https => "https",
            OutboundScheme::Socks5 => "socks5",
        }
    }
}

impl fmt::Display for OutboundProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, port) = (self.scheme.name(), self.port);
        match self.host.contains(':') {
            true => write!(f, "{scheme}://[{}]:{port}", self.host),
            false => write!(f, "{scheme}://{}:{port}", self.host),
        }
    }
}

/// Whether an item of `NO_PROXY` names the host: `*`, an address, a network (`10.0.0.0/8`), a
/// domain with those below it (`example.com`), or those alone (`.example.com`); some with a port.
fn is_named(host: &str, ip: Option<IpAddr>, port: Option<&str>, exception: &str) -> bool {
    if exception == "*" {
        return true;
    }
    if let Some((network, bits)) = exception.split_once('/') {
        let (Some(ip), Ok(network), Ok(bits)) = (ip, network.parse(), bits.parse()) else {
            return false;
        };
        return is_within(ip, network, bits);
    }
    // An IPv6 address without brackets has no port.
    let (name, of_port) = match exception.parse::<IpAddr>() {
        Ok(_) => (exception, None),
        Err(_) => split_port(exception),
    };
    if of_port.is_some() && of_port != port {
        return false;
    }
    let name = name.trim_start_matches('[').trim_end_matches(']');
    if let Ok(address) = name.parse::<IpAddr>() {
        return ip == Some(address);
    }
    let name = name.strip_prefix('*').unwrap_or(name).trim_end_matches('.');
    match name.strip_prefix('.') {
        _ if name.is_empty() || ip.is_some() => false,
        Some(_) => host.ends_with(name),
        None => host == name || host.ends_with(&format!(".{name}")),
    }
}

fn split_port(address: &str) -> (&str, Option<&str>) {
    match address.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (address, None),
    }
}

fn is_within(ip: IpAddr, network: IpAddr, bits: u32) -> bool {
    let shared = |ip: u128, network: u128, width: u32| {
        bits <= width && (ip ^ network).checked_shr(width - bits).unwrap_or(0) == 0
    };
    match (ip, network) {
        (IpAddr::V4(ip), IpAddr::V4(network)) => {
            shared(u32::from(ip).into(), u32::from(network).into(), 32)
        }
        (IpAddr::V6(ip), IpAddr::V6(network)) => shared(ip.into(), network.into(), 128),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exceptions_are_hosts_domains_addresses_and_networks() {
        for (addr, exceptions, exempt) in [
            ("localhost:3025", "", true),
            ("127.0.0.1:3025", "", true),
            ("[::1]:3025", "", true),
            ("t.example.com:443", "", false),
            ("t.example.com:443", "*", true),
            ("t.example.com:443", "other.com, example.com", true),
            ("T.Example.Com:443", "t.EXAMPLE.com", true),
            ("t.example.com:443", ".example.com", true),
            ("t.example.com:443", "*.example.com", true),
            ("example.com:443", ".example.com", false),
            ("notexample.com:443", "example.com", false),
            ("t.example.com:443", "t.example.com:443", true),
            ("t.example.com:443", "t.example.com:3080", false),
            ("10.1.2.3:443", "10.0.0.0/8", true),
            ("11.1.2.3:443", "10.0.0.0/8", false),
            ("11.1.2.3:443", "0.0.0.0/0", true),
            ("10.1.2.3:443", "10.1.2.3", true),
            ("10.1.2.3:443", "2.3", false),
            ("[2001:db8::7]:443", "2001:db8::/32", true),
            ("[2001:db8::7]:443", "2001:db8::7", true),
            ("[2001:db8::7]:443", "[2001:db8::7]:443", true),
            ("[2001:db9::7]:443", "2001:db8::/32", false),
            ("10.1.2.3:443", "2001:db8::/32, 10.0.0.0/99, x/y, ,", false),
        ] {
            let named = OutboundExceptions::new(exceptions).name(addr);
            assert_eq!(named, exempt, "{addr} {exceptions}");
        }
    }
}
