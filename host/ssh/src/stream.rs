//! A channel as a stream of bytes. A task carries it: it reads and writes at the same time, so that
//! two sides that both send never wait for each other.

use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{
    AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, ReadHalf, WriteHalf,
    duplex, split,
};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::Error;
use crate::channel::{Channel, Item};
use crate::connection::{CHUNK, Connection, decline, decline_channel};
use crate::message::{CHANNEL_CLOSE, CHANNEL_EOF, CHANNEL_FAILURE, CHANNEL_OPEN, GLOBAL_REQUEST};
use crate::transport::Transport;

/// Bytes between the task and who uses the stream, in each direction.
const BUFFER: usize = 64 * 1024;
/// No more is taken from who uses the stream while so much waits to be sent.
const WAITING_MAX: usize = 256 * 1024;

/// How long the task goes on sending what was written to a stream that has been dropped.
const LINGER: Duration = Duration::from_secs(5);

/// The bytes of a channel. Dropping it closes the connection, once what was written is sent.
pub struct Stream {
    local: DuplexStream,
    failure: Arc<OnceLock<Error>>,
    _dropped: oneshot::Sender<()>,
}

impl Stream {
    /// `received`: data that has come already.
    pub(crate) fn new<S>(connection: Connection<S>, channel: Channel, received: BytesMut) -> Stream
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (local, far) = duplex(BUFFER);
        let failure = Arc::<OnceLock<Error>>::default();
        let shown = Arc::clone(&failure);
        let (dropped, is_dropped) = oneshot::channel();
        tokio::spawn(async move {
            let mut carrier = Carrier {
                transport: connection.transport,
                channel,
                received,
                is_ended: [false; 2],
                is_closed: false,
            };
            let mut far = split(far);
            let ended = carrier.run(connection.stream, &mut far, is_dropped).await;
            if let Err(error) = ended {
                let _ = shown.set(error);
            }
            // Only now, so that who sees the end of the stream sees the failure.
            drop(far);
        });
        Stream {
            local,
            failure,
            _dropped: dropped,
        }
    }

    fn broken(&self) -> Option<std::io::Error> {
        let kind = std::io::ErrorKind::ConnectionAborted;
        let failure = self.failure.get()?;
        let text = format!("the other side of the SSH tunnel {failure}");
        Some(std::io::Error::new(kind, text))
    }
}

struct Carrier {
    transport: Transport,
    channel: Channel,
    /// Data for who uses the stream.
    received: BytesMut,
    /// Who uses the stream sends no more; the other side sends no more.
    is_ended: [bool; 2],
    /// The other side has closed the channel.
    is_closed: bool,
}

impl Carrier {
    async fn run<S>(
        &mut self,
        stream: S,
        (from_local, to_local): &mut (ReadHalf<DuplexStream>, WriteHalf<DuplexStream>),
        mut dropped: oneshot::Receiver<()>,
    ) -> Result<(), Error>
    where
        S: AsyncRead + AsyncWrite,
    {
        let (mut reader, mut writer) = split(stream);
        let mut piece = vec![0; CHUNK];
        let mut until = None;
        // How the connection ended. What has come before is delivered.
        let mut end = None;
        let mut is_deaf = false;
        // Something has been written since the last flush.
        let mut is_unflushed = false;
        loop {
            if end.is_none() {
                end = self.take_messages().err().map(Err);
            }
            if is_deaf {
                self.transport.outgoing.clear();
                is_unflushed = false;
            }
            if until.is_some() {
                self.received.clear();
                let is_sent = self.is_ended[0]
                    && self.transport.outgoing.is_empty()
                    && !is_unflushed
                    && !self.transport.is_exchanging();
                if is_sent || self.is_closed {
                    return Ok(());
                }
            }
            if self.received.is_empty() {
                if let Some(end) = end {
                    return end;
                }
                if self.is_ended[1] || self.is_closed {
                    // Again and again: it does nothing the second time.
                    let _ = to_local.shutdown().await;
                }
                if self.is_closed && self.transport.outgoing.is_empty() && !is_unflushed {
                    return Ok(());
                }
            }
            let is_open = end.is_none();
            let waiting = self.transport.outgoing.len();
            let may_send = is_open
                && !self.is_ended[0]
                && !self.is_closed
                && self.channel.room() > 0
                && waiting < WAITING_MAX
                && !self.transport.is_exchanging();
            let room = self.channel.room().min(CHUNK);
            let Transport {
                incoming, outgoing, ..
            } = &mut self.transport;
            incoming.reserve(CHUNK);
            // TLS takes what its socket does not: a flush may wait for as long as a write.
            let sending = async {
                match waiting {
                    0 => writer.flush().await.map(|()| false),
                    _ => writer.write_buf(outgoing).await.map(|_| true),
                }
            };
            let lingered = async {
                match until {
                    Some(until) => tokio::time::sleep_until(until).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = &mut dropped, if until.is_none() => until = Some(Instant::now() + LINGER),
                () = lingered => return Ok(()),
                read = reader.read_buf(incoming), if is_open => match read {
                    // After the end of both directions, nothing is missing.
                    Ok(0) if self.is_closed || self.is_ended == [true; 2] => end = Some(Ok(())),
                    Ok(0) => end = Some(Err(Error::Closed)),
                    Ok(_) => {}
                    Err(error) => end = Some(Err(error.into())),
                },
                sent = sending, if is_open && (waiting > 0 || is_unflushed) => match sent {
                    Ok(is_more) => is_unflushed = is_more,
                    // The other side has gone. What it sent before is still there to be read.
                    Err(_) => is_deaf = true,
                },
                read = from_local.read(&mut piece[..room]), if may_send => match read {
                    Ok(length @ 1..) => {
                        let message = self.channel.data(&piece[..length]);
                        self.transport.send(message)?;
                    }
                    _ => {
                        self.is_ended[0] = true;
                        self.transport.send(self.channel.message(CHANNEL_EOF))?;
                    }
                },
                written = to_local.write(&self.received), if !self.received.is_empty() => {
                    // An error if the stream has been dropped.
                    let written = written.unwrap_or(self.received.len());
                    self.received.advance(written);
                    if let Some(message) = self.channel.use_up(written) {
                        self.transport.send(message)?;
                    }
                }
            }
        }
    }

    fn take_messages(&mut self) -> Result<(), Error> {
        while let Some(message) = self.transport.next()? {
            match self.channel.read(&message)? {
                Some(Item::Data(data)) => self.received.extend_from_slice(data),
                // Nothing here can show it.
                Some(Item::Stderr(text)) => {
                    let more = self.channel.use_up(text.len());
                    more.map_or(Ok(()), |message| self.transport.send(message))?;
                }
                Some(Item::Eof) => self.is_ended[1] = true,
                Some(Item::Closed) if !self.is_closed => {
                    self.is_closed = true;
                    self.transport.send(self.channel.message(CHANNEL_CLOSE))?;
                }
                Some(Item::Request {
                    wants_reply: true, ..
                }) => {
                    self.transport.send(self.channel.message(CHANNEL_FAILURE))?;
                }
                Some(_) => {}
                None => match message[0] {
                    GLOBAL_REQUEST => decline(&mut self.transport, &message)?,
                    CHANNEL_OPEN => decline_channel(&mut self.transport, &message)?,
                    _ => self.transport.refuse()?,
                },
            }
        }
        Ok(())
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = out.filled().len();
        let read = std::task::ready!(Pin::new(&mut self.local).poll_read(cx, out));
        if out.filled().len() == before
            && out.remaining() > 0
            && let Some(error) = self.broken()
        {
            return Poll::Ready(Err(error));
        }
        Poll::Ready(read)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        let written = std::task::ready!(Pin::new(&mut self.local).poll_write(cx, bytes));
        Poll::Ready(written.map_err(|error| self.broken().unwrap_or(error)))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.local).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.local).poll_shutdown(cx)
    }
}
