//! The server, as a Teleport proxy is one: for the simulator and for tests.

use tokio::io::{AsyncRead, AsyncWrite};

use crate::certificate::signature_of;
use crate::channel::{Channel, Item, OURS, PIECE, WINDOW};
use crate::client::{user_request, would_do};
use crate::connection::Connection;
use crate::message::{
    CHANNEL_CLOSE, CHANNEL_EXTENDED_DATA, CHANNEL_FAILURE, CHANNEL_OPEN, CHANNEL_OPEN_CONFIRMATION,
    CHANNEL_OPEN_FAILURE, CHANNEL_SUCCESS, SERVICE_ACCEPT, SERVICE_REQUEST, USERAUTH_FAILURE,
    USERAUTH_REQUEST, USERAUTH_SUCCESS,
};
use crate::transport::{Limits, Side, Transport};
use crate::wire::{Put, Reader, string};
use crate::{Certificate, CertificateKind, Error, PublicKey, SecretKey, Stream};

/// Attempts to log in.
const ATTEMPTS: usize = 6;

/// What a server shows of itself.
#[derive(Clone)]
pub struct HostKey {
    /// As it is sent.
    pub certificate: Vec<u8>,
    pub key: SecretKey,
    /// The public half of the key.
    pub public: PublicKey,
}

impl HostKey {
    pub(crate) fn signatures(&self) -> &'static [&'static str] {
        self.public.algorithms()
    }
}

/// A connection with a user who has logged in.
pub struct Server<S> {
    connection: Connection<S>,
    pub user: String,
}

/// A channel that the client wants to open.
pub struct AskedChannel<S> {
    connection: Connection<S>,
    pub kind: String,
    channel: Channel,
}

/// A request that the client makes in a channel.
pub struct AskedDial<S> {
    connection: Connection<S>,
    channel: Channel,
    pub request: String,
    pub payload: Vec<u8>,
}

impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> Server<S> {
    /// `accepts` a user with this certificate, whose signature is valid.
    pub async fn accept(
        stream: S,
        host: HostKey,
        accepts: impl Fn(&str, &Certificate) -> bool,
        limits: Limits,
    ) -> Result<Server<S>, Error> {
        let transport = Transport::new(Side::Server(host), limits)?;
        let mut connection = Connection::new(stream, transport);
        for _ in 0..ATTEMPTS {
            let message = connection.receive().await?;
            match message[0] {
                SERVICE_REQUEST => {
                    let service = Reader(&message[1..]).string().unwrap_or_default();
                    connection.send([&[SERVICE_ACCEPT], &string(service)[..]].concat())?;
                }
                USERAUTH_REQUEST => {
                    let session = connection.transport.session.clone().unwrap_or_default();
                    let answer = judge(&message, &session, &accepts);
                    let answer = answer.ok_or(Error::Protocol("a malformed wish to log in"))?;
                    let (answer, user) = answer;
                    connection.send(answer)?;
                    if let Some(user) = user {
                        return Ok(Server { connection, user });
                    }
                }
                _ => connection.transport.refuse()?,
            }
        }
        connection.flush().await?;
        Err(Error::Protocol("too many attempts to log in"))
    }

    /// The next channel that the client wants to open.
    pub async fn channel(mut self) -> Result<AskedChannel<S>, Error> {
        loop {
            let message = self.connection.receive().await?;
            if message[0] != CHANNEL_OPEN {
                self.connection.transport.refuse()?;
                continue;
            }
            let malformed = || Error::Protocol("a malformed channel");
            let mut reader = Reader(&message[1..]);
            let kind = reader.text().ok_or_else(malformed)?.to_owned();
            let mut number = || reader.number().ok_or_else(malformed);
            let channel = Channel::new(number()?, number()?, number()?)?;
            return Ok(AskedChannel {
                connection: self.connection,
                kind,
                channel,
            });
        }
    }
}

/// The answer, and the user if it is a good one.
fn judge(
    message: &[u8],
    session: &[u8],
    accepts: impl Fn(&str, &Certificate) -> bool,
) -> Option<(Vec<u8>, Option<String>)> {
    let asked = user_request(message)?;
    let mut refused = vec![USERAUTH_FAILURE];
    refused.put_string(b"publickey");
    refused.push(0);
    let Some((algorithm, blob, signed, signature)) = asked.key else {
        return Some((refused, None));
    };
    let accepted = Certificate::parse(blob).filter(|certificate| {
        certificate.kind == CertificateKind::User && accepts(asked.user, certificate)
    });
    let Some(certificate) = accepted else {
        return Some((refused, None));
    };
    let Some(signature) = signature else {
        return Some((would_do(algorithm, blob), None));
    };
    let signed = [string(session), signed.to_vec()].concat();
    let name = signature_of(algorithm)?;
    Some(
        match certificate.key.verifies(Some(name), &signed, signature) {
            true => (vec![USERAUTH_SUCCESS], Some(asked.user.to_owned())),
            false => (refused, None),
        },
    )
}

impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> AskedChannel<S> {
    pub async fn refuse(mut self, reason: &str) -> Result<(), Error> {
        /// `SSH_OPEN_UNKNOWN_CHANNEL_TYPE`
        const UNKNOWN: u32 = 3;
        let mut message = self.channel.message(CHANNEL_OPEN_FAILURE);
        message.put_number(UNKNOWN);
        message.put_string(reason.as_bytes());
        message.put_string(b"");
        self.connection.send(message)?;
        self.connection.flush().await
    }

    /// Opens it, and waits for the request in it.
    pub async fn accept(mut self) -> Result<AskedDial<S>, Error> {
        let mut message = self.channel.message(CHANNEL_OPEN_CONFIRMATION);
        for number in [OURS, WINDOW, PIECE] {
            message.put_number(number);
        }
        self.connection.send(message)?;
        loop {
            let message = self.connection.receive().await?;
            match self.channel.read(&message)? {
                Some(Item::Request { name, payload, .. }) => {
                    let (request, payload) =
                        (String::from_utf8_lossy(name).into_owned(), payload.to_vec());
                    return Ok(AskedDial {
                        connection: self.connection,
                        channel: self.channel,
                        request,
                        payload,
                    });
                }
                Some(Item::Closed) => return Err(Error::Closed),
                Some(_) => {}
                None => self.connection.transport.refuse()?,
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> AskedDial<S> {
    /// As Teleport does: the reason follows the answer, as an error text of the channel.
    pub async fn refuse(mut self, reason: &str) -> Result<(), Error> {
        const STDERR: u32 = 1;
        let mut text = self.channel.message(CHANNEL_EXTENDED_DATA);
        text.put_number(STDERR);
        text.put_string(reason.as_bytes());
        for message in [
            self.channel.message(CHANNEL_FAILURE),
            text,
            self.channel.message(CHANNEL_CLOSE),
        ] {
            self.connection.send(message)?;
        }
        self.connection.flush().await?;
        // Until the client is gone.
        while self.connection.receive().await.is_ok() {}
        Ok(())
    }

    pub fn accept(mut self) -> Result<Stream, Error> {
        self.connection
            .send(self.channel.message(CHANNEL_SUCCESS))?;
        Ok(Stream::new(
            self.connection,
            self.channel,
            Default::default(),
        ))
    }
}
