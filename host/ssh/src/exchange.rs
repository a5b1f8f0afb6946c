//! Key exchange (RFC 4253, sections 7 and 8; RFC 5656, RFC 8731): what both sides agree on, and the
//! keys that follow from it.

use ring::agreement::{
    Algorithm, ECDH_P256, ECDH_P384, EphemeralPrivateKey, UnparsedPublicKey, X25519,
    agree_ephemeral,
};
use ring::digest::{self, Context, SHA256, SHA384};
use ring::rand::{SecureRandom, SystemRandom};

use crate::Error;
use crate::certificate::{certificate_name, signature_of};
use crate::cipher::Cipher;
use crate::message::KEXINIT;
use crate::wire::{Put, Reader};

/// Methods of key exchange, the best one first. Those on NIST's curves are for Teleport in FIPS
/// mode.
const METHODS: [&str; 4] = [
    "curve25519-sha256",
    "curve25519-sha256@libssh.org",
    "ecdh-sha2-nistp256",
    "ecdh-sha2-nistp384",
];
/// Names among the methods that say what a side knows.
const EXT_INFO: &str = "ext-info-c";
const STRICT: [&str; 2] = [
    "kex-strict-c-v00@openssh.com",
    "kex-strict-s-v00@openssh.com",
];
/// Kinds of host certificates. Their signatures come from this name, less the suffix.
const HOST_KEYS: [&str; 5] = [
    "ssh-ed25519",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "rsa-sha2-512",
    "rsa-sha2-256",
];
/// Every cipher here authenticates by itself, so none of these is ever used. Some servers want a
/// name all the same.
const MACS: [&str; 2] = ["hmac-sha2-256-etm@openssh.com", "hmac-sha2-256"];

/// The message with which a side begins a key exchange.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KexInit {
    /// The payload: part of what is signed.
    pub payload: Vec<u8>,
    methods: Vec<String>,
    host_keys: Vec<String>,
    /// From the client, and to it.
    ciphers: [Vec<String>; 2],
    compressions: [Vec<String>; 2],
    follows: bool,
}

/// What two sides agree on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Agreed {
    method: String,
    /// The name of the signature of the host key.
    pub signature: String,
    /// From the client, and to it.
    pub ciphers: [Cipher; 2],
    /// The other side's next packet is of another method, and does not count.
    pub skip: bool,
}

impl KexInit {
    /// `host_keys`: the names of the server's own signatures. The client has none, and takes all.
    pub fn new(host_keys: Option<&[&str]>) -> Result<KexInit, Error> {
        let mut methods = METHODS.to_vec();
        match host_keys {
            None => methods.extend([EXT_INFO, STRICT[0]]),
            Some(_) => methods.push(STRICT[1]),
        }
        let host_keys = host_keys.unwrap_or(&HOST_KEYS);
        let host_keys: Vec<String> = host_keys.iter().map(|key| certificate_name(key)).collect();
        let host_keys: Vec<&str> = host_keys.iter().map(String::as_str).collect();
        let ciphers = Cipher::ALL.map(Cipher::name);
        let mut payload = vec![KEXINIT];
        let mut cookie = [0; 16];
        let filled = SystemRandom::new().fill(&mut cookie);
        filled.map_err(|_| Error::NoRandom)?;
        payload.extend_from_slice(&cookie);
        for names in [
            &methods[..],
            &host_keys,
            &ciphers,
            &ciphers,
            &MACS,
            &MACS,
            &["none"],
            &["none"],
            &[],
            &[],
        ] {
            payload.put_names(names);
        }
        payload.extend_from_slice(&[0; 5]);
        KexInit::parse(payload)
    }

    pub fn parse(payload: Vec<u8>) -> Result<KexInit, Error> {
        let malformed = Error::Protocol("a malformed beginning of a key exchange");
        KexInit::read(payload).ok_or(malformed)
    }

    fn read(payload: Vec<u8>) -> Option<KexInit> {
        let mut reader = Reader(&payload);
        reader.bytes(17)?;
        let mut lists = [const { Vec::new() }; 10];
        for list in &mut lists {
            *list = reader.names()?;
        }
        let follows = reader.flag()?;
        reader.number()?;
        let [
            methods,
            host_keys,
            out,
            back,
            _,
            _,
            out_pack,
            back_pack,
            _,
            _,
        ] = lists;
        Some(KexInit {
            methods,
            host_keys,
            ciphers: [out, back],
            compressions: [out_pack, back_pack],
            follows,
            payload,
        })
    }

    /// Whether this side knows strict key exchange, which keeps others from removing packets.
    pub fn is_strict(&self) -> bool {
        STRICT.iter().any(|name| has(&self.methods, name))
    }

    /// Whether this side, a client, wants to know which signatures a server takes.
    pub fn wants_extensions(&self) -> bool {
        has(&self.methods, EXT_INFO)
    }
}

fn has(names: &[String], name: &str) -> bool {
    names.iter().any(|other| other == name)
}

impl Agreed {
    /// Chooses the client's first choice of each that the server knows. `theirs` is the message of
    /// the side whose guess may be wrong.
    pub fn on(client: &KexInit, server: &KexInit, is_client: bool) -> Result<Agreed, Error> {
        let theirs = if is_client { server } else { client };
        let common = |what, lists: fn(&KexInit) -> &Vec<String>| {
            let chosen = lists(client).iter().find(|name| has(lists(server), name));
            chosen.cloned().ok_or_else(|| Error::NothingInCommon {
                what,
                offered: shown(lists(theirs)),
            })
        };
        let method = common("method of key exchange", |init| &init.methods)?;
        if !METHODS.contains(&&*method) {
            return Err(Error::Protocol("a key exchange that nobody offered"));
        }
        let host_key = common("host key", |init| &init.host_keys)
            .map_err(|_| Error::NoHostCertificate(shown(&theirs.host_keys)))?;
        let signature = signature_of(&host_key).unwrap_or_default().to_owned();
        let known = |name: String| {
            Cipher::named(&name).ok_or(Error::Protocol("a cipher that nobody offered"))
        };
        let ciphers = [
            known(common("cipher", |init| &init.ciphers[0])?)?,
            known(common("cipher", |init| &init.ciphers[1])?)?,
        ];
        common("way without compression", |init| &init.compressions[0])?;
        common("way without compression", |init| &init.compressions[1])?;
        let is_right = client.methods.first() == server.methods.first()
            && client.host_keys.first() == server.host_keys.first();
        Ok(Agreed {
            method,
            signature,
            ciphers,
            skip: theirs.follows && !is_right,
        })
    }

    fn algorithms(&self) -> (&'static Algorithm, &'static digest::Algorithm) {
        match &*self.method {
            "ecdh-sha2-nistp256" => (&ECDH_P256, &SHA256),
            "ecdh-sha2-nistp384" => (&ECDH_P384, &SHA384),
            _ => (&X25519, &SHA256),
        }
    }

    /// A new key for this exchange alone, with its public half.
    pub fn ephemeral(&self) -> Result<(EphemeralPrivateKey, Vec<u8>), Error> {
        let (algorithm, _) = self.algorithms();
        let random = SystemRandom::new();
        let key = EphemeralPrivateKey::generate(algorithm, &random).map_err(|_| Error::NoRandom)?;
        let public = key.compute_public_key().map_err(|_| Error::NoRandom)?;
        Ok((key, public.as_ref().to_vec()))
    }

    /// The secret that both sides now have, as an mpint.
    pub fn secret(&self, key: EphemeralPrivateKey, theirs: &[u8]) -> Result<Vec<u8>, Error> {
        let (algorithm, _) = self.algorithms();
        let theirs = UnparsedPublicKey::new(algorithm, theirs);
        agree_ephemeral(key, &theirs, |secret| {
            let mut out = Vec::new();
            out.put_positive(secret);
            out
        })
        .map_err(|_| Error::Protocol("a key exchange with a wrong key"))
    }

    /// What the server signs.
    pub fn hash(&self, parts: &Transcript<'_>) -> Vec<u8> {
        let (_, algorithm) = self.algorithms();
        let mut text = Vec::new();
        for part in [
            parts.versions[0],
            parts.versions[1],
            parts.inits[0],
            parts.inits[1],
            parts.host_key,
            parts.publics[0],
            parts.publics[1],
        ] {
            text.put_string(part);
        }
        text.extend_from_slice(parts.secret);
        digest::digest(algorithm, &text).as_ref().to_vec()
    }

    /// Key and initial value of a direction: 0 from the client, 1 to it (RFC 4253, section 7.2).
    pub fn keys(
        &self,
        direction: usize,
        secret: &[u8],
        hash: &[u8],
        session: &[u8],
    ) -> (Vec<u8>, Vec<u8>) {
        let (_, algorithm) = self.algorithms();
        let derive = |letter: u8, length: usize| {
            let mut out = Vec::new();
            while out.len() < length {
                let mut context = Context::new(algorithm);
                context.update(secret);
                context.update(hash);
                if out.is_empty() {
                    context.update(&[letter]);
                    context.update(session);
                } else {
                    context.update(&out);
                }
                out.extend_from_slice(context.finish().as_ref());
            }
            out.truncate(length);
            out
        };
        let cipher = self.ciphers[direction];
        let letters = [(b'C', b'A'), (b'D', b'B')][direction];
        (
            derive(letters.0, cipher.key_bytes()),
            derive(letters.1, cipher.iv_bytes()),
        )
    }
}

/// All that two sides have said in a key exchange: the client's first, then the server's.
pub(crate) struct Transcript<'a> {
    pub versions: [&'a [u8]; 2],
    pub inits: [&'a [u8]; 2],
    pub host_key: &'a [u8],
    pub publics: [&'a [u8]; 2],
    /// An mpint.
    pub secret: &'a [u8],
}

fn shown(names: &[String]) -> String {
    crate::message::said(names.join(",").as_bytes())
}
