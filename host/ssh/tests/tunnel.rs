//! A client and a server, in memory: each kind of key, faults, and more data than a window holds.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use lockgate_ssh::{
    Certificate, CertificateKind, Client, Draft, Error, HostCheck, HostKey, HostRefused, Limits,
    Login, PublicKey, SecretKey, Server, Stream,
};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519};
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;
use tokio::io::{
    AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, duplex, split,
};
use tokio::sync::oneshot;

const NOW: u64 = 1_800_000_000;
const HOST: &str = "proxy.example.com";
const RSA: &str = include_str!("../../sim/testdata/rsa.pkcs8.pem");

#[derive(Clone)]
struct Pair {
    public: PublicKey,
    secret: SecretKey,
}

impl Pair {
    fn p256() -> Pair {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key");
        Pair::of(&key, PublicKey::P256(key.public_key_raw().to_vec()))
    }

    fn p384() -> Pair {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).expect("a key");
        Pair::of(&key, PublicKey::P384(key.public_key_raw().to_vec()))
    }

    fn ed25519() -> Pair {
        let key = KeyPair::generate_for(&PKCS_ED25519).expect("a key");
        Pair::of(&key, PublicKey::Ed25519(key.public_key_raw().to_vec()))
    }

    fn rsa() -> Pair {
        let key = KeyPair::from_pem(RSA).expect("a key");
        // A sequence of two integers with long lengths: `30 82 .. .. 02 82 .. .. N 02 03 E`.
        let der = key.public_key_raw();
        let length = usize::from(der[6]) << 8 | usize::from(der[7]);
        let (modulus, rest) = der[8..].split_at(length);
        let public = PublicKey::Rsa {
            modulus: modulus[1..].to_vec(),
            exponent: rest[2..].to_vec(),
        };
        let key = PrivateKeyDer::from_pem_slice(RSA.as_bytes()).expect("a key");
        let secret = SecretKey::new(&key).expect("a key");
        Pair { public, secret }
    }

    fn of(key: &KeyPair, public: PublicKey) -> Pair {
        let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
        let secret = SecretKey::new(&key).expect("a key");
        Pair { public, secret }
    }

    fn all() -> [Pair; 4] {
        [Pair::ed25519(), Pair::p256(), Pair::p384(), Pair::rsa()]
    }

    fn certificate(&self, authority: &Pair, kind: CertificateKind, name: &str) -> Vec<u8> {
        let draft = Draft {
            key: &self.public,
            kind,
            key_id: "id",
            principals: &["other", name],
            validity: (NOW - 60, NOW + 60),
            extensions: &[("permit-pty", "")],
        };
        let signed = draft.sign(&authority.public, &authority.secret);
        signed.expect("a certificate")
    }
}

/// What two sides need to know each other.
struct Fixture {
    hosts: Pair,
    users: Pair,
    host: HostKey,
    user: Pair,
    host_name: &'static str,
    now: u64,
    limits: Limits,
}

impl Fixture {
    fn new(hosts: Pair, host: Pair, user: Pair) -> Fixture {
        Fixture {
            host: HostKey {
                certificate: host.certificate(&hosts, CertificateKind::Host, HOST),
                key: host.secret,
                public: host.public,
            },
            hosts,
            users: Pair::ed25519(),
            user,
            host_name: HOST,
            now: NOW,
            limits: Limits::default(),
        }
    }

    fn check(&self) -> HostCheck {
        let (name, now) = (self.host_name, self.now);
        let authorities = vec![self.hosts.public.blob()];
        Arc::new(move |certificate| certificate.check_host(name, &authorities, now))
    }

    async fn server(&self, stream: DuplexStream) -> Result<Server<DuplexStream>, Error> {
        let users = self.users.public.blob();
        let accepts = move |user: &str, certificate: &Certificate| {
            certificate.authority == users && certificate.principals.iter().any(|own| own == user)
        };
        Server::accept(stream, self.host.clone(), accepts, self.limits).await
    }

    async fn client<S>(&self, stream: S) -> Result<Client<S>, Error>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let certificate = self
            .user
            .certificate(&self.users, CertificateKind::User, "bot");
        let login = Login {
            user: "bot",
            certificate: &Certificate::parse(&certificate).expect("a certificate"),
            key: &self.user.secret,
        };
        Client::connect(stream, self.check(), login, self.limits).await
    }

    /// Both ends of a channel.
    async fn opened(&self) -> (Stream, Stream) {
        let (near, far) = duplex(4096);
        self.opened_on(near, far).await
    }

    async fn opened_on<S>(&self, near: S, far: DuplexStream) -> (Stream, Stream)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let client = async {
            let client = self.client(near).await?;
            client.open("transport", "dial", b"where").await
        };
        let server = async {
            let asked = self.server(far).await?.channel().await?;
            assert_eq!(asked.kind, "transport");
            let dial = asked.accept().await?;
            assert_eq!((&*dial.request, &*dial.payload), ("dial", &b"where"[..]));
            dial.accept()
        };
        let (client, server) = tokio::join!(client, server);
        (client.expect("a client"), server.expect("a server"))
    }

    /// The client's error while the server goes on for as long as it can.
    async fn fails(&self) -> Error {
        let (near, far) = duplex(4096);
        let (client, _) = tokio::join!(self.client(near), self.server(far));
        client.err().expect("an error")
    }
}

async fn echo(fixture: &Fixture, bytes: usize) {
    let (client, server) = fixture.opened().await;
    let sent: Vec<u8> = (0..bytes).map(|at| (at * 31 % 251) as u8).collect();
    let copy = async {
        let (mut reader, mut writer) = split(server);
        tokio::io::copy(&mut reader, &mut writer)
            .await
            .expect("a copy");
        writer.shutdown().await.expect("an end");
    };
    let (mut reader, mut writer) = split(client);
    let write = async {
        writer.write_all(&sent).await.expect("it is sent");
        writer.shutdown().await.expect("an end");
    };
    let mut received = Vec::new();
    let read = reader.read_to_end(&mut received);
    let (_, (), read) = tokio::join!(copy, write, read);
    read.expect("it comes back");
    assert!(received == sent, "{} of {bytes} bytes", received.len());
}

#[tokio::test]
async fn bytes_pass_with_each_kind_of_key() {
    for authority in Pair::all() {
        for key in Pair::all() {
            echo(&Fixture::new(authority.clone(), key.clone(), key), 1000).await;
        }
    }
}

/// More than the windows, and with one key exchange after another.
#[tokio::test]
async fn nothing_is_lost_while_keys_are_exchanged_again() {
    let mut fixture = Fixture::new(Pair::p256(), Pair::p256(), Pair::ed25519());
    echo(&fixture, 9 << 20).await;
    for rekey_bytes in [1, 100_000] {
        fixture.limits.rekey_bytes = rekey_bytes;
        echo(&fixture, 1 << 20).await;
    }
    fixture.limits = Limits {
        rekey_packets: 3,
        ..Limits::default()
    };
    echo(&fixture, 1 << 20).await;
}

#[tokio::test]
async fn a_host_that_is_another_one_is_refused() {
    let of = |change: &dyn Fn(&mut Fixture)| {
        let mut fixture = Fixture::new(Pair::p256(), Pair::rsa(), Pair::p256());
        change(&mut fixture);
        fixture
    };
    let cases: [(Fixture, HostRefused); 5] = [
        (
            of(&|fixture| fixture.hosts = Pair::p256()),
            HostRefused::Authority,
        ),
        (
            of(&|fixture| fixture.now = NOW + 60),
            HostRefused::Expired { at: NOW + 60 },
        ),
        (
            of(&|fixture| fixture.now = NOW - 61),
            HostRefused::NotYetValid { from: NOW - 60 },
        ),
        (
            of(&|fixture| fixture.host_name = "example.com"),
            HostRefused::Name {
                host: "example.com".to_owned(),
                principals: vec!["other".to_owned(), HOST.to_owned()],
            },
        ),
        (
            of(&|fixture| {
                let pair = Pair::p256();
                fixture.host.certificate =
                    pair.certificate(&fixture.hosts, CertificateKind::User, HOST);
            }),
            HostRefused::ForUsers,
        ),
    ];
    for (fixture, refused) in cases {
        assert_eq!(fixture.fails().await, Error::Host(refused));
    }
    // It has the certificate of the host, but not its key.
    let fixture = of(&|fixture| fixture.host.key = Pair::rsa().secret);
    assert!(fixture.opened().await.0.write_all(b"x").await.is_ok());
    let fixture = of(&|fixture| {
        let host = Pair::ed25519();
        fixture.host.certificate = host.certificate(&fixture.hosts, CertificateKind::Host, HOST);
        (fixture.host.public, fixture.host.key) = (host.public, Pair::ed25519().secret);
    });
    let error = fixture.fails().await;
    assert!(matches!(error, Error::Protocol(_)), "{error}");
}

#[tokio::test]
async fn a_user_of_another_authority_is_refused() {
    let fixture = Fixture::new(Pair::p256(), Pair::p256(), Pair::p256());
    let (near, far) = duplex(4096);
    let other = Fixture::new(fixture.hosts.clone(), Pair::p256(), Pair::p256());
    let server = async { fixture.server(far).await.map(drop) };
    let client = async { other.client(near).await.map(drop) };
    tokio::select! {
        _ = server => panic!("it waits for another attempt"),
        refused = client => assert!(matches!(refused, Err(Error::UserRefused { .. }))),
    }
}

#[tokio::test]
async fn a_refusal_is_told_with_its_reason() {
    let fixture = Fixture::new(Pair::p256(), Pair::p256(), Pair::p256());
    for at_channel in [true, false] {
        let (near, far) = duplex(4096);
        let client = async { fixture.client(near).await?.open("c", "r", b"").await };
        let server = async {
            let asked = fixture.server(far).await?.channel().await?;
            match at_channel {
                true => asked.refuse("not here").await,
                false => asked.accept().await?.refuse(" no \x1b[1m auth\r\n").await,
            }
        };
        let (client, _) = tokio::join!(client, server);
        let expected = match at_channel {
            true => Error::ChannelRefused("not here".to_owned()),
            false => Error::DialRefused("no  [1m auth".to_owned()),
        };
        assert_eq!(client.err(), Some(expected));
    }
}

#[tokio::test]
async fn a_connection_that_breaks_off_is_an_error_and_not_an_end() {
    let fixture = Fixture::new(Pair::p256(), Pair::p256(), Pair::p256());
    let (mut client, server) = fixture.opened().await;
    drop(server);
    let error = client.read(&mut [0; 8]).await.expect_err("an error");
    assert!(
        error.to_string().contains("closed the connection"),
        "{error}"
    );
    // An orderly end is none.
    let (mut client, mut server) = fixture.opened().await;
    server.write_all(b"last").await.expect("it is sent");
    server.shutdown().await.expect("an end");
    let mut received = Vec::new();
    client.read_to_end(&mut received).await.expect("an end");
    assert_eq!(received, b"last");
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_dropped_closes_though_the_other_side_stops_reading() {
    let fixture = Fixture::new(Pair::p256(), Pair::p256(), Pair::p256());
    let (near, far) = duplex(4096);
    let (closing, closed) = oneshot::channel();
    let is_stuck = Arc::new(AtomicBool::new(false));
    let near = Stuck {
        stream: near,
        is_stuck: Arc::clone(&is_stuck),
        _closing: closing,
    };
    let (mut client, _server) = fixture.opened_on(near, far).await;
    is_stuck.store(true, Ordering::Relaxed);
    client.write_all(b"x").await.expect("it is taken");
    // It is being flushed now.
    tokio::time::sleep(Duration::from_secs(1)).await;
    drop(client);
    let closed = tokio::time::timeout(Duration::from_secs(6), closed).await;
    assert!(closed.expect("it is closed in time").is_err());
}

/// As TLS whose peer stops reading: it takes what is written, and a flush never ends.
struct Stuck {
    stream: DuplexStream,
    is_stuck: Arc<AtomicBool>,
    _closing: oneshot::Sender<()>,
}

impl Stuck {
    fn is_stuck(&self) -> bool {
        self.is_stuck.load(Ordering::Relaxed)
    }
}

impl AsyncRead for Stuck {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, out)
    }
}

impl AsyncWrite for Stuck {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        match self.is_stuck() {
            true => Poll::Ready(Ok(bytes.len())),
            false => Pin::new(&mut self.stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        match self.is_stuck() {
            true => Poll::Pending,
            false => Pin::new(&mut self.stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[tokio::test]
async fn something_else_is_recognised_at_once() {
    let fixture = Fixture::new(Pair::p256(), Pair::p256(), Pair::p256());
    for answer in [
        &b"HTTP/1.1 400 Bad Request\r\n\r\n"[..],
        b"\x15\x03\x01\x00\x02\x02",
        b"SSH-1.5-old\r\n",
        &[b'S'; 400],
    ] {
        let (near, mut far) = duplex(4096);
        far.write_all(answer).await.expect("it is sent");
        let refused = tokio::time::timeout(Duration::from_secs(60), fixture.client(near));
        let refused = refused.await.expect("it does not wait for more").err();
        assert!(matches!(refused, Some(Error::NotSsh(_))), "{refused:?}");
    }
    let (near, far) = duplex(4096);
    drop(far);
    assert_eq!(fixture.client(near).await.err(), Some(Error::Closed));
}

#[test]
fn a_certificate_that_is_changed_is_none() {
    let authority = Pair::ed25519();
    for pair in Pair::all() {
        let blob = pair.certificate(&authority, CertificateKind::Host, HOST);
        let certificate = Certificate::parse(&blob).expect("a certificate");
        assert_eq!(certificate.principals, ["other", HOST]);
        assert_eq!(certificate.key_id, "id");
        assert!(pair.secret.belongs_to(&certificate.key));
        assert!(!Pair::p256().secret.belongs_to(&certificate.key));
        for at in 0..blob.len() {
            let mut changed = blob.clone();
            changed[at] ^= 1;
            assert_eq!(Certificate::parse(&changed), None, "byte {at}");
            assert_eq!(Certificate::parse(&blob[..at]), None, "{at} bytes");
        }
    }
}
