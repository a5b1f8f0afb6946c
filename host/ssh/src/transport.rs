//! The lowest layer (RFC 4253), without I/O: bytes come in and go out, and the messages of the
//! layers above are in them. Keys are exchanged, also again and again, without the layers above.

use bytes::BytesMut;
use ring::agreement::EphemeralPrivateKey;

use crate::cipher::{Opener, Sealer, line};
use crate::exchange::{Agreed, KexInit, Transcript};
use crate::message::{
    DEBUG, DISCONNECT, EXT_INFO, IGNORE, KEX_ECDH_INIT, KEX_ECDH_REPLY, KEXINIT, NEWKEYS,
    SERVICE_REQUEST, UNIMPLEMENTED, said,
};
use crate::server::HostKey;
use crate::wire::{Put, Reader, string, strings};
use crate::{Certificate, Error, HostCheck, HostRefused};

/// What this side calls itself. RFC 4253 allows no `-` in it.
pub const VERSION: &str = concat!("SSH-2.0-Lockgate_", env!("CARGO_PKG_VERSION"));
/// Longest line with a version (RFC 4253, section 4.2).
const VERSION_MAX: usize = 255;
/// The signatures of users that the server takes (RFC 8308).
const USER_SIGNATURES: &str =
    "ssh-ed25519,ecdsa-sha2-nistp256,ecdsa-sha2-nistp384,rsa-sha2-512,rsa-sha2-256";

/// Most messages that wait for a key exchange, and most bytes that wait to be sent.
const HELD_MAX: usize = 1000;
const OUTGOING_MAX: usize = 8 << 20;
/// The other side asks, but does not read answers.
const UNREAD: Error = Error::Protocol("more requests than it takes answers to");

/// When this side begins another key exchange: after so many bytes in either direction, or packets.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub rekey_bytes: u64,
    pub rekey_packets: u64,
}

impl Default for Limits {
    /// RFC 4253, section 9, and RFC 4344, section 3.1.
    fn default() -> Limits {
        Limits {
            rekey_bytes: 1 << 30,
            rekey_packets: 1 << 30,
        }
    }
}

pub(crate) enum Side {
    Client(HostCheck),
    Server(HostKey),
}

/// Of one connection.
pub(crate) struct Transport {
    side: Side,
    limits: Limits,
    /// Bytes that have come.
    pub incoming: BytesMut,
    /// Bytes to send.
    pub outgoing: BytesMut,
    their_version: Option<Vec<u8>>,
    opener: Opener,
    sealer: Sealer,
    exchange: Exchange,
    /// The hash of the first exchange.
    pub session: Option<Vec<u8>>,
    /// Messages of the layers above that wait for the end of a key exchange.
    held: Vec<Vec<u8>>,
    is_strict: bool,
    /// Since the last key exchange.
    bytes: u64,
    packets: u64,
    /// The signatures that the server takes of users, if it says so.
    pub signatures: Option<Vec<String>>,
}

/// How far a key exchange is.
enum Exchange {
    /// None is under way.
    Idle,
    /// Ours has been sent.
    Begun(KexInit),
    /// Both are known.
    Agreed(Box<Agreement>),
    /// Ours is in use; theirs follows after its `NEWKEYS`.
    Keyed(Box<Opener>),
}

/// What both sides have said.
struct Agreement {
    ours: KexInit,
    theirs: KexInit,
    agreed: Agreed,
    /// Of the client.
    key: Option<(EphemeralPrivateKey, Vec<u8>)>,
    skip: bool,
}

impl Transport {
    pub fn new(side: Side, limits: Limits) -> Result<Transport, Error> {
        let mut transport = Transport {
            side,
            limits,
            incoming: BytesMut::new(),
            outgoing: BytesMut::from(VERSION.as_bytes()),
            their_version: None,
            opener: Opener::clear(),
            sealer: Sealer::clear(),
            exchange: Exchange::Idle,
            session: None,
            held: Vec::new(),
            is_strict: false,
            bytes: 0,
            packets: 0,
            signatures: None,
        };
        transport.outgoing.extend_from_slice(b"\r\n");
        transport.begin()?;
        Ok(transport)
    }

    /// Sends a message of a layer above, or keeps it until the keys have been exchanged.
    pub fn send(&mut self, payload: Vec<u8>) -> Result<(), Error> {
        let due = self.bytes > self.limits.rekey_bytes || self.packets > self.limits.rekey_packets;
        if due && matches!(self.exchange, Exchange::Idle) {
            self.begin()?;
        }
        if self.is_exchanging() {
            if self.held.len() >= HELD_MAX {
                return Err(UNREAD);
            }
            self.held.push(payload);
            return Ok(());
        }
        self.write(&payload)
    }

    /// Whether messages are kept back.
    pub fn is_exchanging(&self) -> bool {
        match self.exchange {
            Exchange::Begun(_) | Exchange::Agreed(_) => true,
            Exchange::Idle | Exchange::Keyed(_) => false,
        }
    }

    /// The next message of a layer above.
    pub fn next(&mut self) -> Result<Option<Vec<u8>>, Error> {
        if self.their_version.is_none() && !self.read_version()? {
            return Ok(None);
        }
        loop {
            let number = self.opener.sequence;
            let Some(payload) = self.opener.open(&mut self.incoming)? else {
                return Ok(None);
            };
            self.bytes += payload.len() as u64;
            self.packets += 1;
            if self.handle(&payload, number)? {
                return Ok(Some(payload));
            }
        }
    }

    /// Says that the message just read is not known. `number` is not kept for messages above, and
    /// who gets this does nothing about it but log.
    pub fn refuse(&mut self) -> Result<(), Error> {
        let mut payload = vec![UNIMPLEMENTED];
        payload.put_number(self.opener.sequence.wrapping_sub(1));
        self.send(payload)
    }

    fn read_version(&mut self) -> Result<bool, Error> {
        // The first line says enough.
        let not_ssh = |bytes: &[u8]| {
            let line = bytes.split(|byte| b"\r\n".contains(byte)).next();
            let line = line.unwrap_or_default();
            Error::NotSsh(said(&line[..line.len().min(40)]))
        };
        // Something else may not end its lines, and wait for us.
        let start = self.incoming.len().min(4);
        if !b"SSH-".starts_with(&self.incoming[..start]) {
            return Err(not_ssh(&self.incoming));
        }
        let taken = line(&mut self.incoming, VERSION_MAX).map_err(|bytes| not_ssh(&bytes))?;
        let Some(version) = taken else {
            return Ok(false);
        };
        if !version.starts_with(b"SSH-2.0-") && !version.starts_with(b"SSH-1.99-") {
            return Err(not_ssh(&version));
        }
        self.their_version = Some(version);
        Ok(true)
    }

    fn begin(&mut self) -> Result<(), Error> {
        let init = match &self.side {
            Side::Client(_) => KexInit::new(None)?,
            Side::Server(host) => KexInit::new(Some(host.signatures()))?,
        };
        self.write(&init.payload)?;
        self.exchange = Exchange::Begun(init);
        Ok(())
    }

    fn write(&mut self, payload: &[u8]) -> Result<(), Error> {
        if self.outgoing.len() > OUTGOING_MAX {
            return Err(UNREAD);
        }
        self.bytes += payload.len() as u64;
        self.packets += 1;
        self.sealer.seal(payload, &mut self.outgoing)
    }

    fn is_client(&self) -> bool {
        matches!(self.side, Side::Client(_))
    }

    /// Whether the message is for a layer above.
    fn handle(&mut self, payload: &[u8], number: u32) -> Result<bool, Error> {
        let mut reader = Reader(&payload[1..]);
        let is_first = self.session.is_none();
        // Nobody can be sure of what comes before the keys, or between them.
        let is_between = matches!(self.exchange, Exchange::Agreed(_) | Exchange::Keyed(_));
        let kind = payload[0];
        match kind {
            DISCONNECT => {
                reader.number();
                let said = said(reader.string().unwrap_or_default());
                return Err(Error::Disconnected(said));
            }
            // Of the beginning of a strict exchange nothing may be added or taken away.
            IGNORE | DEBUG | UNIMPLEMENTED if !(self.opener.is_clear() && self.is_strict) => {}
            KEXINIT => self.agree(payload, number)?,
            KEX_ECDH_INIT | KEX_ECDH_REPLY => self.exchange_keys(kind, reader)?,
            NEWKEYS => self.take_keys()?,
            SERVICE_REQUEST.. if !is_first && !is_between => {
                if kind == EXT_INFO {
                    self.read_extensions(reader);
                    return Ok(false);
                }
                return Ok(true);
            }
            _ => return Err(Error::Protocol("a message in the middle of a key exchange")),
        }
        Ok(false)
    }

    fn agree(&mut self, payload: &[u8], number: u32) -> Result<(), Error> {
        if matches!(self.exchange, Exchange::Idle) {
            self.begin()?;
        }
        let Exchange::Begun(ours) = std::mem::replace(&mut self.exchange, Exchange::Idle) else {
            return Err(Error::Protocol("a key exchange within another"));
        };
        let theirs = KexInit::parse(payload.to_vec())?;
        if self.session.is_none() {
            self.is_strict = theirs.is_strict();
            if self.is_strict && number != 0 {
                return Err(Error::Protocol("a message before a strict key exchange"));
            }
        }
        let (client, server) = match self.is_client() {
            true => (&ours, &theirs),
            false => (&theirs, &ours),
        };
        let agreed = Agreed::on(client, server, self.is_client())?;
        let mut key = None;
        if self.is_client() {
            let (secret, public) = agreed.ephemeral()?;
            self.write(&[&[KEX_ECDH_INIT], &string(&public)[..]].concat())?;
            key = Some((secret, public));
        }
        let skip = agreed.skip;
        self.exchange = Exchange::Agreed(Box::new(Agreement {
            ours,
            theirs,
            agreed,
            key,
            skip,
        }));
        Ok(())
    }

    fn exchange_keys(&mut self, kind: u8, mut reader: Reader<'_>) -> Result<(), Error> {
        let malformed = || Error::Protocol("a malformed key exchange");
        let Exchange::Agreed(agreement) = &mut self.exchange else {
            return Err(Error::Protocol("a key exchange that has not begun"));
        };
        let Agreement {
            ours,
            theirs,
            agreed,
            key,
            skip,
        } = &mut **agreement;
        if std::mem::take(skip) {
            return Ok(());
        }
        let their_version = self.their_version.as_deref().unwrap_or_default();
        let our_version = VERSION.as_bytes();
        let (secret, hash, reply) = match (&self.side, kind) {
            (Side::Client(check), KEX_ECDH_REPLY) => {
                let [host_key, their_public, signature] = reader.strings().ok_or_else(malformed)?;
                let (key, public) = key.take().ok_or_else(malformed)?;
                let certificate = Certificate::parse(host_key).ok_or(HostRefused::Unreadable)?;
                check(&certificate)?;
                let secret = agreed.secret(key, their_public)?;
                let hash = agreed.hash(&Transcript {
                    versions: [our_version, their_version],
                    inits: [&ours.payload, &theirs.payload],
                    host_key,
                    publics: [&public, their_public],
                    secret: &secret,
                });
                let is_signed =
                    (certificate.key).verifies(Some(&agreed.signature), &hash, signature);
                if !is_signed {
                    return Err(Error::Protocol("a key exchange that the host did not sign"));
                }
                (secret, hash, None)
            }
            (Side::Server(host), KEX_ECDH_INIT) => {
                let their_public = reader.string().ok_or_else(malformed)?;
                let (key, public) = agreed.ephemeral()?;
                let secret = agreed.secret(key, their_public)?;
                let hash = agreed.hash(&Transcript {
                    versions: [their_version, our_version],
                    inits: [&theirs.payload, &ours.payload],
                    host_key: &host.certificate,
                    publics: [their_public, &public],
                    secret: &secret,
                });
                let signature = host.key.sign(&agreed.signature, &hash)?;
                let reply = strings(&[&host.certificate, &public, &signature]);
                (secret, hash, Some([&[KEX_ECDH_REPLY], &reply[..]].concat()))
            }
            _ => return Err(malformed()),
        };
        let is_first = self.session.is_none();
        let wants_extensions = is_first && reply.is_some() && theirs.wants_extensions();
        let session = self.session.get_or_insert_with(|| hash.clone()).clone();
        let agreed = agreed.clone();
        if let Some(reply) = reply {
            self.write(&reply)?;
        }
        self.write(&[NEWKEYS])?;
        let (out, back) = if self.is_client() { (0, 1) } else { (1, 0) };
        let of = |direction: usize| {
            let (key, iv) = agreed.keys(direction, &secret, &hash, &session);
            (agreed.ciphers[direction], key, iv)
        };
        let next = |sequence| if self.is_strict { 0 } else { sequence };
        let unusable = || Error::Protocol("keys that cannot be used");
        let (cipher, key, iv) = of(out);
        let sealer = Sealer::with_key(cipher, &key, &iv, next(self.sealer.sequence));
        self.sealer = sealer.ok_or_else(unusable)?;
        let (cipher, key, iv) = of(back);
        // Its number is known once the other side uses it.
        let opener = Opener::with_key(cipher, &key, &iv, 0).ok_or_else(unusable)?;
        self.exchange = Exchange::Keyed(Box::new(opener));
        (self.bytes, self.packets) = (0, 0);
        if wants_extensions {
            let mut payload = vec![EXT_INFO];
            payload.put_number(1);
            payload.put_string(b"server-sig-algs");
            payload.put_string(USER_SIGNATURES.as_bytes());
            self.write(&payload)?;
        }
        for payload in std::mem::take(&mut self.held) {
            self.write(&payload)?;
        }
        Ok(())
    }

    fn take_keys(&mut self) -> Result<(), Error> {
        let Exchange::Keyed(opener) = std::mem::replace(&mut self.exchange, Exchange::Idle) else {
            return Err(Error::Protocol("new keys that nobody agreed on"));
        };
        let sequence = match self.is_strict {
            true => 0,
            false => self.opener.sequence,
        };
        self.opener = *opener;
        self.opener.sequence = sequence;
        Ok(())
    }

    fn read_extensions(&mut self, mut reader: Reader<'_>) {
        for _ in 0..reader.number().unwrap_or_default() {
            let Some([name, value]) = reader.strings() else {
                return;
            };
            if name == b"server-sig-algs" {
                self.signatures = Reader(&string(value)).names();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn what_the_other_side_does_not_read_is_bounded() {
        let new = || {
            let side = Side::Client(Arc::new(|_| Ok(())));
            Transport::new(side, Limits::default()).expect("a transport")
        };
        // During a key exchange.
        let mut transport = new();
        let sent = (0..10_000).position(|_| transport.send(vec![UNIMPLEMENTED; 5]).is_err());
        assert_eq!(sent, Some(HELD_MAX));
        // At other times.
        let mut transport = new();
        transport.exchange = Exchange::Idle;
        let sent = (0..100_000).position(|_| transport.send(vec![UNIMPLEMENTED; 500]).is_err());
        assert!(sent.is_some());
        assert!(transport.outgoing.len() < OUTGOING_MAX + 1000);
    }
}
