//! A byte stream in the frames of a WebSocket (RFC 6455), as Teleport carries TLS through a load
//! balancer. The messages have no meaning of their own: their payloads, one after the other, are
//! the stream.
//!
//! The crates for WebSockets mask what a client sends with a random key, as the RFC asks for.
//! Teleport's proxy does not unmask, so its clients set the key to zero (Teleport `api/client`,
//! `alpn_conn_upgrade_websocket.go`).

use std::io::{Error, ErrorKind, Result};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

mod frame;

pub use frame::{Decoder, FrameError, Item, Role};

use frame::{Opcode, write_frame};

/// Added to the key of a handshake (RFC 6455, 1.3).
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// Bytes read at once, and the payload of the largest frame that is written.
const CHUNK: usize = 16 << 10;
/// Answers to pings are left out while more than this many bytes wait to be sent.
const PONGS_MAX: usize = 64 << 10;

/// The `Sec-WebSocket-Accept` that answers a `Sec-WebSocket-Key`.
pub fn accept(key: &str) -> String {
    let digest = ring::digest::digest(
        &ring::digest::SHA1_FOR_LEGACY_USE_ONLY,
        format!("{key}{GUID}").as_bytes(),
    );
    BASE64_STANDARD.encode(digest)
}

/// The stream. Each write is one final binary frame.
pub struct WebSocket<S> {
    stream: S,
    role: Role,
    decoder: Decoder,
    /// Read, and not yet taken.
    read: Bytes,
    chunk: Box<[u8]>,
    /// Whole frames to be sent.
    outbound: BytesMut,
    /// The other side has said that it ends.
    is_closed: bool,
    has_said_close: bool,
}

impl<S> WebSocket<S> {
    /// `stream` is past the handshake.
    pub fn new(stream: S, role: Role) -> WebSocket<S> {
        WebSocket {
            stream,
            role,
            decoder: Decoder::new(role),
            read: Bytes::new(),
            chunk: vec![0; CHUNK].into(),
            outbound: BytesMut::new(),
            is_closed: false,
            has_said_close: false,
        }
    }

    /// Queues a ping; it is sent with the next bytes.
    pub fn ping(&mut self) {
        write_frame(&mut self.outbound, self.role, Opcode::Ping, b"");
    }
}

impl<S: AsyncWrite + Unpin> WebSocket<S> {
    /// Sends what is queued.
    fn send(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        while !self.outbound.is_empty() {
            let sent = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.outbound))?;
            if sent == 0 {
                return Poll::Ready(Err(ErrorKind::WriteZero.into()));
            }
            self.outbound.advance(sent);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for WebSocket<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<Result<()>> {
        let this = self.get_mut();
        loop {
            if !this.read.is_empty() {
                let length = this.read.len().min(out.remaining());
                out.put_slice(&this.read.split_to(length));
                return Poll::Ready(Ok(()));
            }
            if this.is_closed {
                return Poll::Ready(Ok(()));
            }
            match this.decoder.next() {
                Ok(Some(Item::Data(bytes))) => this.read = bytes,
                Ok(Some(Item::Ping(payload))) => {
                    if this.outbound.len() <= PONGS_MAX {
                        write_frame(&mut this.outbound, this.role, Opcode::Pong, &payload);
                    }
                    // A task that only reads answers, too. Its waker may replace that of a writer,
                    // so reading and writing belong to one task, as they do for HTTP/2 and TLS.
                    if let Poll::Ready(Err(error)) = this.send(cx) {
                        return Poll::Ready(Err(error));
                    }
                    let _ = Pin::new(&mut this.stream).poll_flush(cx)?;
                }
                Ok(Some(Item::Close)) => this.is_closed = true,
                Ok(None) => {
                    let mut chunk = ReadBuf::new(&mut this.chunk);
                    ready!(Pin::new(&mut this.stream).poll_read(cx, &mut chunk))?;
                    let read = chunk.filled();
                    if !read.is_empty() {
                        this.decoder.push(read);
                    } else if this.decoder.is_between_frames() {
                        this.is_closed = true;
                    } else {
                        let message = "the stream ended in the middle of a WebSocket frame";
                        return Poll::Ready(Err(Error::new(ErrorKind::UnexpectedEof, message)));
                    }
                }
                Err(error) => return Poll::Ready(Err(Error::new(ErrorKind::InvalidData, error))),
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for WebSocket<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
        let this = self.get_mut();
        ready!(this.send(cx))?;
        let taken = &bytes[..bytes.len().min(CHUNK)];
        if !taken.is_empty() {
            write_frame(&mut this.outbound, this.role, Opcode::Binary, taken);
        }
        // What cannot be sent now is sent by the next write or by a flush.
        match this.send(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            _ => Poll::Ready(Ok(taken.len())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let this = self.get_mut();
        ready!(this.send(cx))?;
        Pin::new(&mut this.stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let this = self.get_mut();
        if !this.has_said_close {
            this.has_said_close = true;
            write_frame(&mut this.outbound, this.role, Opcode::Close, b"");
        }
        ready!(this.send(cx))?;
        Pin::new(&mut this.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[test]
    fn the_example_of_the_rfc_is_accepted() {
        assert_eq!(
            accept("dGhlIHNhbXBsZSBub25jZQ=="),
            "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        );
    }

    /// A pipe of 100 bytes: every write is cut.
    #[tokio::test]
    async fn bytes_arrive_in_both_directions_through_a_narrow_pipe() {
        let (near, far) = duplex(100);
        let mut client = WebSocket::new(near, Role::Client);
        let mut server = WebSocket::new(far, Role::Server);
        server.ping();
        let sent: Vec<u8> = (0..100_000u32).map(|number| number as u8).collect();
        let expected = sent.clone();
        let served = tokio::spawn(async move {
            let mut read = vec![0; 100_000];
            server.read_exact(&mut read).await.expect("bytes");
            server.write_all(&read).await.expect("a pipe");
            server.shutdown().await.expect("a pipe");
            server
        });
        client.write_all(&sent).await.expect("a pipe");
        client.flush().await.expect("a pipe");
        let mut back = Vec::new();
        client.read_to_end(&mut back).await.expect("bytes");
        assert_eq!(back, expected);
        served.await.expect("no panic");
    }

    #[tokio::test]
    async fn a_ping_is_answered_with_its_payload_and_a_zero_key() {
        let (near, mut far) = duplex(1 << 10);
        let mut client = WebSocket::new(near, Role::Client);
        far.write_all(&[0x89, 2, b'h', b'i', 0x82, 1, b'x'])
            .await
            .expect("a pipe");
        assert_eq!(client.read_u8().await.expect("a byte"), b'x');
        let mut pong = [0; 8];
        far.read_exact(&mut pong).await.expect("a pong");
        assert_eq!(pong, [0x8a, 0x82, 0, 0, 0, 0, b'h', b'i']);
    }

    #[tokio::test]
    async fn a_stream_that_ends_within_a_frame_is_broken_and_one_between_frames_has_ended() {
        for (bytes, is_whole) in [
            (&[0x82, 2, b'x'][..], false),
            (&[0x82], false),
            (&[0x82, 1, b'x'], true),
            (&[0x82, 1, b'x', 0x88, 0], true),
        ] {
            let (near, mut far) = duplex(1 << 10);
            let mut client = WebSocket::new(near, Role::Client);
            far.write_all(bytes).await.expect("a pipe");
            drop(far);
            let mut read = Vec::new();
            let ended = client.read_to_end(&mut read).await;
            assert_eq!(ended.is_ok(), is_whole, "{bytes:?}");
        }
    }
}
