use std::io::ErrorKind;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};

use super::Address;

/// For one address of a name that has several.
const EACH: Duration = Duration::from_secs(8);

/// How bytes get to Auth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// TCP to Auth's own port, 3025.
    Direct,
}

/// Bytes to Auth and back; TLS comes on top.
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

    /// What TLS offers to speak. A route through a proxy puts its routing entry first.
    pub(super) fn alpn(self) -> Vec<&'static [u8]> {
        match self {
            Route::Direct => vec![b"h2"],
        }
    }
}

/// A name may have several addresses, of which some do not answer.
async fn dial(address: &Address) -> std::io::Result<TcpStream> {
    let mut last = None;
    for address in lookup_host((address.host.as_str(), address.port)).await? {
        match tokio::time::timeout(EACH, TcpStream::connect(address)).await {
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
