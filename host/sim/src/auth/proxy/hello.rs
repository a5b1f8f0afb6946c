//! Looks into the first message of a TLS client, and leaves it in the stream.

use std::io::{Error, ErrorKind, Result};
use std::pin::Pin;
use std::task::{Context, Poll};

use rustls::server::Acceptor;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

/// Largest ClientHello, in bytes.
const HELLO_MAX: usize = 64 << 10;

/// The ALPN protocols that the client offers, and the stream with all its bytes.
pub(super) async fn read<S: AsyncRead + Unpin>(
    mut stream: S,
) -> Result<(Vec<Vec<u8>>, Replayed<S>)> {
    let mut bytes = Vec::new();
    loop {
        let mut chunk = [0; 4096];
        let read = stream.read(&mut chunk).await?;
        if read == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        bytes.extend_from_slice(&chunk[..read]);
        let mut acceptor = Acceptor::default();
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            acceptor.read_tls(&mut rest)?;
        }
        let accepted = acceptor
            .accept()
            .map_err(|(error, _)| Error::new(ErrorKind::InvalidData, error))?;
        if let Some(accepted) = accepted {
            let protocols = accepted.client_hello().alpn();
            let protocols = protocols.into_iter().flatten().map(<[u8]>::to_vec);
            return Ok((protocols.collect(), Replayed { bytes, stream }));
        }
        if bytes.len() > HELLO_MAX {
            return Err(ErrorKind::InvalidData.into());
        }
    }
}

/// A stream whose first bytes have been read before.
pub(super) struct Replayed<S> {
    bytes: Vec<u8>,
    stream: S,
}

impl<S: AsyncRead + Unpin> AsyncRead for Replayed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<Result<()>> {
        if self.bytes.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, out);
        }
        let length = self.bytes.len().min(out.remaining());
        out.put_slice(&self.bytes[..length]);
        self.bytes.drain(..length);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Replayed<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
