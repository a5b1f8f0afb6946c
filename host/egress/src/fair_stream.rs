//! A connection that lets others have the thread, however much the receiver sends.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Without a pause, so much is read at most: less than a millisecond of work, also if it is all
/// decrypted and parsed in the smallest parts.
const BYTES_MAX: usize = 64 * 1024;
const READS_MAX: usize = 16;

/// A stream whose reader pauses, so that other tasks have a turn. It is the innermost: TLS is not
/// kept busy by tiny records, either.
pub struct FairStream<S> {
    stream: S,
    /// Since the last pause.
    bytes: usize,
    reads: usize,
}

impl<S> FairStream<S> {
    pub fn new(stream: S) -> FairStream<S> {
        FairStream {
            stream,
            bytes: 0,
            reads: 0,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for FairStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let polled = if self.bytes >= BYTES_MAX || self.reads >= READS_MAX {
            // Behind what others have to do.
            context.waker().wake_by_ref();
            Poll::Pending
        } else {
            let before = buffer.filled().len();
            let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
            self.bytes += buffer.filled().len() - before;
            self.reads += 1;
            polled
        };
        if polled.is_pending() {
            (self.bytes, self.reads) = (0, 0);
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for FairStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
    use std::task::{Wake, Waker};

    use super::*;

    /// Always has so many bytes more.
    struct Endless(usize);

    impl AsyncRead for Endless {
        fn poll_read(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buffer: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            let bytes = vec![0; self.0.min(buffer.remaining())];
            buffer.put_slice(&bytes);
            Poll::Ready(Ok(()))
        }
    }

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Relaxed);
        }
    }

    #[test]
    fn a_reader_pauses_after_so_many_bytes_or_reads_and_is_woken_at_once() {
        for (part, reads) in [(1, READS_MAX), (1 << 20, BYTES_MAX / 8192), (4096, 16)] {
            let mut stream = FairStream::new(Endless(part));
            let woken = Arc::new(Woken::default());
            let waker = Waker::from(woken.clone());
            let mut context = Context::from_waker(&waker);
            for pauses in 1..4 {
                let mut read = 0;
                let mut memory = [0; 8192];
                while let Poll::Ready(read_one) =
                    Pin::new(&mut stream).poll_read(&mut context, &mut ReadBuf::new(&mut memory))
                {
                    read_one.unwrap();
                    read += 1;
                    assert!(read <= READS_MAX, "it never pauses");
                }
                assert_eq!((read, woken.0.load(Relaxed)), (reads, pauses), "{part}");
            }
        }
    }
}
