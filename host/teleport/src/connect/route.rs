//! The routes to the Auth Service: its own port, or through the proxy.

use std::fmt;
use std::io::ErrorKind;
use std::str::FromStr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};

use super::Address;

/// Time limit for each address of a name that has several.
const PER_ADDRESS: Duration = Duration::from_secs(8);

/// How the Auth Service is reached. The names are those of a source's `connect`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// TCP to its own port, 3025.
    Auth,
    /// TCP to the proxy's port, by TLS routing: the proxy passes the bytes on without decrypting
    /// them.
    Proxy,
    /// The same inside a connection upgrade, because a load balancer in front of the proxy
    /// terminates TLS.
    ProxyUpgrade,
    /// SSH to the proxy, which passes the bytes of a channel on: without TLS routing, the only way
    /// through it.
    SshTunnel,
}

impl Route {
    pub const ALL: [Route; 4] = [
        Route::Auth,
        Route::Proxy,
        Route::ProxyUpgrade,
        Route::SshTunnel,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Route::Auth => "auth",
            Route::Proxy => "proxy",
            Route::ProxyUpgrade => "proxy-upgrade",
            Route::SshTunnel => "ssh-tunnel",
        }
    }
}

impl FromStr for Route {
    type Err = ();

    fn from_str(name: &str) -> Result<Route, ()> {
        let found = Route::ALL.into_iter().find(|route| route.name() == name);
        found.ok_or(())
    }
}

/// As the end of a sentence that begins with "connected to Teleport".
impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Route::Auth => "at the Auth Service's own address",
            Route::Proxy => "through its proxy by TLS routing",
            Route::ProxyUpgrade => "through its proxy by TLS routing in a connection upgrade",
            Route::SshTunnel => "through its proxy by an SSH tunnel",
        })
    }
}

/// A byte stream, below TLS.
pub(super) trait Pipe: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Pipe for T {}

/// Tries each address of the name until one answers.
pub(super) async fn tcp(address: &Address) -> std::io::Result<TcpStream> {
    let mut last = None;
    for address in lookup_host((address.host.as_str(), address.port)).await? {
        match tokio::time::timeout(PER_ADDRESS, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Ok(Err(error)) => last = Some(error),
            Err(_) => {
                last = Some(std::io::Error::new(
                    ErrorKind::TimedOut,
                    format!("`{address}` does not answer"),
                ))
            }
        }
    }
    Err(last.unwrap_or_else(|| std::io::Error::new(ErrorKind::NotFound, "the name has no address")))
}
