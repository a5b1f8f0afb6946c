//! The address of the Auth service.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// `host:port`. IPv6 addresses are in brackets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    pub host: String,
    pub port: u16,
}

#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("the address `{0}` is not `host:port`, such as `teleport.example.com:3025`")]
pub struct AddressError(pub String);

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Address, AddressError> {
        let error = || AddressError(text.to_owned());
        let (host, port) = text.rsplit_once(':').ok_or_else(error)?;
        let port = port
            .parse()
            .ok()
            .filter(|&port| port != 0)
            .ok_or_else(error)?;
        let bare = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        let is_host = |host: &str| !host.is_empty() && !host.contains(['/', '@', ' ', '[', ']']);
        match bare {
            Some(host) if host.contains(':') && is_host(host) => Ok(Address {
                host: host.to_owned(),
                port,
            }),
            None if is_host(host) && !host.contains(':') => Ok(Address {
                host: host.to_owned(),
                port,
            }),
            _ => Err(error()),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Address { host, port } = self;
        if host.contains(':') {
            write!(f, "[{host}]:{port}")
        } else {
            write!(f, "{host}:{port}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_a_host_and_a_port() {
        for text in [
            "localhost:3025",
            "10.0.0.1:443",
            "[::1]:3025",
            "a-b.example.com:65535",
        ] {
            assert_eq!(text.parse::<Address>().expect(text).to_string(), text);
        }
        for text in [
            "localhost",
            ":3025",
            "host:",
            "host:0",
            "host:70000",
            "::1:3025",
            "https://host:443",
            "[host]:1",
            "u@h:1",
            "",
        ] {
            assert_eq!(text.parse::<Address>(), Err(AddressError(text.to_owned())));
        }
    }
}
