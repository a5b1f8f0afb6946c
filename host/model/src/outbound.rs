//! The outbound proxy: through it, a network lets its machines reach others.

use std::fmt;

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
}

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
