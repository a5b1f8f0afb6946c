//! The way to the Auth service: its own port, or through the proxy.

use std::io::ErrorKind;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};

use super::Address;

/// Time limit for each address of a name that has several.
const PER_ADDRESS: Duration = Duration::from_secs(8);

/// How to reach the Auth Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// TCP to its own port, 3025.
    Direct,
}

/// A byte stream to the Auth Service, below TLS.
pub(super) trait Pipe: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Pipe for T {}

impl Route {
    pub(super) async fn open(self, address: &Address) -> std::io::Result<Box<dyn Pipe>> {
        match self {
            Route::Direct => {
                let stream = dial(address).await?;
                stream.set_nodelay(true)?;
                Ok(Box::new(stream))
            }
        }
    }

    /// The ALPN protocols to offer. A route through a proxy puts its routing entry first.
    pub(super) fn alpn(self) -> Vec<&'static [u8]> {
        match self {
            Route::Direct => vec![b"h2"],
        }
    }
}

/// Tries each address of the name until one answers.
async fn dial(address: &Address) -> std::io::Result<TcpStream> {
    let mut last = None;
    for address in lookup_host((address.host.as_str(), address.port)).await? {
        match tokio::time::timeout(PER_ADDRESS, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
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
