//! A connection while it is set up: one message after another.

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::message::{GLOBAL_REQUEST, REQUEST_FAILURE, USERAUTH_BANNER, said};
use crate::transport::Transport;
use crate::wire::Reader;
use crate::{Error, message};

/// Bytes of a read.
pub(crate) const CHUNK: usize = 32 * 1024;

pub(crate) struct Connection<S> {
    pub stream: S,
    pub transport: Transport,
    /// What the server has told users so far.
    pub banner: String,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    pub fn new(stream: S, transport: Transport) -> Connection<S> {
        Connection {
            stream,
            transport,
            banner: String::new(),
        }
    }

    /// Queues a message. It is sent before the next one is received.
    pub fn send(&mut self, payload: Vec<u8>) -> Result<(), Error> {
        self.transport.send(payload)
    }

    pub async fn flush(&mut self) -> Result<(), Error> {
        while !self.transport.outgoing.is_empty() {
            self.stream.write_buf(&mut self.transport.outgoing).await?;
        }
        self.stream.flush().await?;
        Ok(())
    }

    /// The next message. Banners are kept, and requests for the whole connection are declined.
    pub async fn receive(&mut self) -> Result<Vec<u8>, Error> {
        loop {
            let next = self.transport.next()?;
            let Some(payload) = next else {
                self.flush().await?;
                self.read().await?;
                continue;
            };
            match payload[0] {
                USERAUTH_BANNER => {
                    let text = Reader(&payload[1..]).string().unwrap_or_default();
                    self.banner = said(text);
                }
                GLOBAL_REQUEST => self.decline(&payload)?,
                _ => return Ok(payload),
            }
        }
    }

    async fn read(&mut self) -> Result<(), Error> {
        self.transport.incoming.reserve(CHUNK);
        match self.stream.read_buf(&mut self.transport.incoming).await? {
            0 => Err(Error::Closed),
            _ => Ok(()),
        }
    }

    fn decline(&mut self, payload: &[u8]) -> Result<(), Error> {
        decline(&mut self.transport, payload)
    }
}

/// Declines a request for the whole connection, such as one that asks whether it still works.
pub(crate) fn decline(transport: &mut Transport, payload: &[u8]) -> Result<(), Error> {
    let mut reader = Reader(&payload[1..]);
    let wants_reply = reader.string().and(reader.flag());
    match wants_reply {
        Some(true) => transport.send(vec![REQUEST_FAILURE]),
        Some(false) => Ok(()),
        None => Err(Error::Protocol("a malformed request")),
    }
}

/// Refuses a channel that the other side wants to open.
pub(crate) fn decline_channel(transport: &mut Transport, payload: &[u8]) -> Result<(), Error> {
    use crate::wire::Put;
    /// `SSH_OPEN_ADMINISTRATIVELY_PROHIBITED`
    const PROHIBITED: u32 = 1;
    let mut reader = Reader(&payload[1..]);
    let theirs = reader.string().and_then(|_| reader.number());
    let theirs = theirs.ok_or(Error::Protocol("a malformed channel"))?;
    let mut out = vec![message::CHANNEL_OPEN_FAILURE];
    out.put_number(theirs);
    out.put_number(PROHIBITED);
    out.put_string(b"no channels are taken here");
    out.put_string(b"");
    transport.send(out)
}
