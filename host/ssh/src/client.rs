//! The client: it verifies the host, shows its certificate, and opens the channel.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::certificate::certificate_name;
use crate::channel::{Channel, Item, OURS, PIECE, WINDOW};
use crate::connection::{Connection, decline_channel};
use crate::message::{
    CHANNEL_OPEN, CHANNEL_OPEN_CONFIRMATION, CHANNEL_OPEN_FAILURE, CHANNEL_REQUEST, SERVICE_ACCEPT,
    SERVICE_REQUEST, USERAUTH_FAILURE, USERAUTH_REQUEST, USERAUTH_SUCCESS, said,
};
use crate::transport::{Limits, Side, Transport};
use crate::wire::{Put, Reader, string, strings};
use crate::{Certificate, Error, HostRefused, SecretKey, Stream};

/// How long to wait for the reason of a refusal.
const REASON: Duration = Duration::from_secs(3);
/// Longest reason that is read, in bytes.
const REASON_MAX: usize = 1024;

/// Whether this is the host; asked at each key exchange, because certificates expire.
pub type HostCheck = Arc<dyn Fn(&Certificate) -> Result<(), HostRefused> + Send + Sync>;

/// Who logs in.
pub struct Login<'a> {
    pub user: &'a str,
    pub certificate: &'a Certificate,
    pub key: &'a SecretKey,
}

/// A connection to a host that has been verified, and that has let us in.
pub struct Client<S>(Connection<S>);

impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> Client<S> {
    pub async fn connect(
        stream: S,
        check: HostCheck,
        login: Login<'_>,
        limits: Limits,
    ) -> Result<Client<S>, Error> {
        let transport = Transport::new(Side::Client(check), limits)?;
        let mut client = Client(Connection::new(stream, transport));
        client.log_in(login).await?;
        Ok(client)
    }

    /// Opens a channel of this kind, and makes this request in it. Then it is a stream of bytes.
    pub async fn open(
        mut self,
        kind: &str,
        request: &str,
        payload: &[u8],
    ) -> Result<Stream, Error> {
        let Client(connection) = &mut self;
        let mut message = vec![CHANNEL_OPEN];
        message.put_string(kind.as_bytes());
        for number in [OURS, WINDOW, PIECE] {
            message.put_number(number);
        }
        connection.send(message)?;
        let mut channel = confirmed(connection).await?;
        let mut message = channel.message(CHANNEL_REQUEST);
        message.put_string(request.as_bytes());
        message.push(1); // It wants an answer.
        message.extend_from_slice(payload);
        connection.send(message)?;
        let mut received = BytesMut::new();
        let mut stderr = Vec::new();
        loop {
            let message = connection.receive().await?;
            match channel.read(&message)? {
                Some(Item::Answer(true)) => break,
                Some(Item::Answer(false)) => {
                    let reading = read_reason(connection, &mut channel, &mut stderr);
                    // What has come of it until then is shown.
                    let _ = tokio::time::timeout(REASON, reading).await;
                    return Err(Error::DialRefused(said(&stderr)));
                }
                Some(Item::Closed) => return Err(Error::DialRefused(said(&stderr))),
                Some(Item::Data(data)) => received.extend_from_slice(data),
                Some(Item::Stderr(text)) => stderr.extend_from_slice(text),
                Some(_) => {}
                None => refuse(connection, &message)?,
            }
        }
        Ok(Stream::new(self.0, channel, received))
    }

    async fn log_in(&mut self, login: Login<'_>) -> Result<(), Error> {
        const SERVICE: &[u8] = b"ssh-userauth";
        let Client(connection) = self;
        connection.send([&[SERVICE_REQUEST], &string(SERVICE)[..]].concat())?;
        let answer = connection.receive().await?;
        if answer[0] != SERVICE_ACCEPT {
            return Err(Error::Protocol("no answer to the wish to log in"));
        }
        let algorithms = login.certificate.key.algorithms();
        // The better one of RSA's two, of those that the server takes.
        let taken = |name: &&&str| match &connection.transport.signatures {
            None => true,
            Some(names) => names.iter().any(|other| other == **name),
        };
        let algorithm = algorithms.iter().find(taken).unwrap_or(&algorithms[0]);
        let mut message = vec![USERAUTH_REQUEST];
        for text in [login.user, "ssh-connection", "publickey"] {
            message.put_string(text.as_bytes());
        }
        message.push(1); // With a signature.
        message.put_string(certificate_name(algorithm).as_bytes());
        message.put_string(&login.certificate.blob);
        let session = connection.transport.session.clone().unwrap_or_default();
        let signed = [string(&session), message.clone()].concat();
        message.put_string(&login.key.sign(algorithm, &signed)?);
        connection.send(message)?;
        loop {
            let answer = connection.receive().await?;
            match answer[0] {
                USERAUTH_SUCCESS => return Ok(()),
                USERAUTH_FAILURE => {
                    return Err(Error::UserRefused {
                        user: login.user.to_owned(),
                        said: std::mem::take(&mut connection.banner),
                    });
                }
                _ => refuse(connection, &answer)?,
            }
        }
    }
}

/// The channel, once the server has opened it.
async fn confirmed<S>(connection: &mut Connection<S>) -> Result<Channel, Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    loop {
        let message = connection.receive().await?;
        let mut reader = Reader(&message[1..]);
        match message[0] {
            CHANNEL_OPEN_CONFIRMATION if reader.number() == Some(OURS) => {
                let mut number = || {
                    reader
                        .number()
                        .ok_or(Error::Protocol("a malformed channel"))
                };
                let (theirs, window, piece) = (number()?, number()?, number()?);
                return Channel::new(theirs, window, piece);
            }
            CHANNEL_OPEN_FAILURE if reader.number() == Some(OURS) => {
                reader.number();
                return Err(Error::ChannelRefused(said(
                    reader.string().unwrap_or_default(),
                )));
            }
            _ => refuse(connection, &message)?,
        }
    }
}

/// Reads until the server has said why it refuses.
async fn read_reason<S>(
    connection: &mut Connection<S>,
    channel: &mut Channel,
    stderr: &mut Vec<u8>,
) -> Result<(), Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    while stderr.len() < REASON_MAX {
        let message = connection.receive().await?;
        match channel.read(&message)? {
            Some(Item::Stderr(text)) => stderr.extend_from_slice(text),
            Some(Item::Eof | Item::Closed) => break,
            _ => {}
        }
    }
    Ok(())
}

/// Declines what a server may ask for, and answers to nothing else.
fn refuse<S>(connection: &mut Connection<S>, message: &[u8]) -> Result<(), Error> {
    match message[0] {
        CHANNEL_OPEN => decline_channel(&mut connection.transport, message),
        _ => connection.transport.refuse(),
    }
}

/// For the server's side of the same.
pub(crate) fn user_request(payload: &[u8]) -> Option<UserRequest<'_>> {
    let mut reader = Reader(payload.get(1..)?);
    let user = reader.text()?;
    let [service, method] = reader.strings()?;
    if service != b"ssh-connection" || method != b"publickey" {
        return Some(UserRequest { user, key: None });
    }
    let has_signature = reader.flag()?;
    let algorithm = reader.text()?;
    let blob = reader.string()?;
    let signed = &payload[..payload.len() - reader.0.len()];
    let signature = match has_signature {
        true => Some(reader.string()?),
        false => None,
    };
    Some(UserRequest {
        user,
        key: Some((algorithm, blob, signed, signature)),
    })
}

/// What a user shows: the name of the signature, the certificate, what is signed, the signature.
pub(crate) struct UserRequest<'a> {
    pub user: &'a str,
    #[allow(clippy::type_complexity, reason = "read in one place")]
    pub key: Option<(&'a str, &'a [u8], &'a [u8], Option<&'a [u8]>)>,
}

/// What a client that asks whether a key would do is told.
pub(crate) fn would_do(algorithm: &str, blob: &[u8]) -> Vec<u8> {
    const USERAUTH_PK_OK: u8 = 60;
    [
        &[USERAUTH_PK_OK],
        &strings(&[algorithm.as_bytes(), blob])[..],
    ]
    .concat()
}
