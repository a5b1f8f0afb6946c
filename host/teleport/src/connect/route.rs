use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::Address;

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
                let stream = TcpStream::connect((address.host.as_str(), address.port)).await?;
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
