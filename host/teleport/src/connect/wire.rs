//! The bytes of one connection: whether some still arrive, and a way to end it for all calls.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;

/// A connection from outside.
#[derive(Debug)]
pub(super) struct Wire {
    received: AtomicU64,
    cut: Mutex<Option<oneshot::Sender<()>>>,
}

/// A connection's stream.
#[derive(Debug)]
pub(super) struct Watched<S> {
    stream: S,
    wire: Arc<Wire>,
    cut: Cut,
}

#[derive(Debug)]
enum Cut {
    NotYet(oneshot::Receiver<()>),
    Never,
    Done,
}

impl Wire {
    pub(super) fn watch<S>(stream: S) -> (Arc<Wire>, Watched<S>) {
        let (cut, is_cut) = oneshot::channel();
        let wire = Arc::new(Wire {
            received: AtomicU64::new(0),
            cut: Mutex::new(Some(cut)),
        });
        let watched = Watched {
            stream,
            wire: wire.clone(),
            cut: Cut::NotYet(is_cut),
        };
        (wire, watched)
    }

    /// Bytes that have arrived so far.
    pub(super) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Ends the connection: each call on it fails at once.
    pub(super) fn cut(&self) {
        let mut cut = self.cut.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(cut) = cut.take() {
            // Nobody receives it where the connection has ended by itself.
            let _ = cut.send(());
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Cut::NotYet(cut) = &mut self.cut {
            match Pin::new(cut).poll(context) {
                Poll::Pending => {}
                Poll::Ready(Ok(())) => self.cut = Cut::Done,
                // Nobody is left who could.
                Poll::Ready(Err(_)) => self.cut = Cut::Never,
            }
        }
        if let Cut::Done = self.cut {
            let message = "Teleport answers on another connection, and no longer on this one";
            let error = io::Error::new(io::ErrorKind::ConnectionAborted, message);
            return Poll::Ready(Err(error));
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        let arrived = (buffer.filled().len() - before) as u64;
        self.wire.received.fetch_add(arrived, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
