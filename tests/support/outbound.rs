//! An outbound proxy: `CONNECT` of HTTP/1.1, or SOCKS 5. It knows names of its own.

use std::io::{Error, Result};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;

/// The first byte of a TLS connection.
const TLS: u8 = 22;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutboundKind {
    Http,
    Socks5,
}

pub struct OutboundProxy {
    shared: Arc<Shared>,
    address: SocketAddr,
    /// Its tasks end with it.
    _runtime: Runtime,
}

struct Shared {
    kind: OutboundKind,
    /// `USER:PASSWORD`.
    login: Option<String>,
    /// `HOST:PORT`, and where that is. It connects to nothing else.
    known: Vec<(String, String)>,
    asked: Mutex<Vec<String>>,
}

impl OutboundProxy {
    pub fn start(kind: OutboundKind, login: Option<&str>, known: &[(&str, &str)]) -> OutboundProxy {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let known = known.iter();
        let known = known.map(|(name, at)| ((*name).to_owned(), (*at).to_owned()));
        let shared = Arc::new(Shared {
            kind,
            login: login.map(str::to_owned),
            known: known.collect(),
            asked: Mutex::default(),
        });
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"));
        let listener = listener.expect("a port");
        let address = listener.local_addr().expect("an address");
        let of_connections = shared.clone();
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let shared = of_connections.clone();
                tokio::spawn(async move { shared.serve(stream).await });
            }
        });
        OutboundProxy {
            shared,
            address,
            _runtime: runtime,
        }
    }

    /// As `HTTPS_PROXY` has it; `login` is `USER:PASSWORD@` or empty.
    pub fn url(&self, login: &str) -> String {
        let scheme = match self.shared.kind {
            OutboundKind::Http => "http",
            OutboundKind::Socks5 => "socks5",
        };
        format!("{scheme}://{login}{}", self.address)
    }

    /// The addresses that it was asked for, without repetitions.
    pub fn asked(&self) -> Vec<String> {
        let mut asked = self.shared.asked().clone();
        asked.dedup();
        asked
    }
}

impl Shared {
    fn asked(&self) -> std::sync::MutexGuard<'_, Vec<String>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the address is; `None`: it is not allowed.
    fn find(&self, address: String) -> Option<String> {
        let found = self.known.iter().find(|(name, _)| *name == address);
        self.asked().push(address);
        found.map(|(_, at)| at.clone())
    }

    async fn serve(&self, mut stream: TcpStream) -> Result<()> {
        let opened = match self.kind {
            OutboundKind::Http => self.connect(&mut stream).await?,
            OutboundKind::Socks5 => self.socks(&mut stream).await?,
        };
        if let Some(mut far) = opened {
            copy_bidirectional(&mut stream, &mut far).await?;
        }
        Ok(())
    }

    async fn connect(&self, stream: &mut TcpStream) -> Result<Option<TcpStream>> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await?);
            if head == [TLS] {
                stream
                    .write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                    .await?;
                return Ok(None);
            }
        }
        let head = String::from_utf8(head).map_err(Error::other)?;
        let mut words = head.split(' ');
        let (method, target) = (words.next(), words.next().unwrap_or_default());
        let login = self.login.as_ref().map(|login| base64(login.as_bytes()));
        let mut lines = head.lines().map(str::to_ascii_lowercase);
        let login = login.map(|login| format!("proxy-authorization: basic {login}"));
        let is_let_in =
            login.is_none_or(|login| lines.any(|line| line == login.to_ascii_lowercase()));
        let (answer, opened) = if method != Some("CONNECT") {
            ("501 Not Implemented", None)
        } else if !is_let_in {
            ("407 Proxy Authentication Required", None)
        } else if let Some(at) = self.find(target.to_owned()) {
            (
                "200 Connection established",
                Some(TcpStream::connect(at).await?),
            )
        } else {
            ("403 Forbidden", None)
        };
        let answer = format!("HTTP/1.1 {answer}\r\n\r\n");
        stream.write_all(answer.as_bytes()).await?;
        Ok(opened)
    }

    async fn socks(&self, stream: &mut TcpStream) -> Result<Option<TcpStream>> {
        let [_, methods] = read(stream).await?;
        let mut offered = vec![0; usize::from(methods)];
        stream.read_exact(&mut offered).await?;
        let wanted = if self.login.is_some() { 2 } else { 0 };
        if !offered.contains(&wanted) {
            stream.write_all(&[5, 255]).await?;
            return Ok(None);
        }
        stream.write_all(&[5, wanted]).await?;
        if let Some(login) = &self.login {
            let [_] = read(stream).await?;
            let (user, password) = (text(stream).await?, text(stream).await?);
            let is_let_in = *login == format!("{user}:{password}");
            stream.write_all(&[1, u8::from(!is_let_in)]).await?;
            if !is_let_in {
                return Ok(None);
            }
        }
        let [_, _, _, kind] = read(stream).await?;
        assert_eq!(kind, 3, "names are left to the proxy");
        let name = text(stream).await?;
        let port = stream.read_u16().await?;
        let opened = match self.find(format!("{name}:{port}")) {
            Some(at) => Some(TcpStream::connect(at).await?),
            None => None,
        };
        let code = if opened.is_some() { 0 } else { 2 };
        stream.write_all(&[5, code, 0, 1, 0, 0, 0, 0, 0, 0]).await?;
        Ok(opened)
    }
}

async fn read<const N: usize>(stream: &mut TcpStream) -> Result<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes).await.map(|_| bytes)
}

async fn text(stream: &mut TcpStream) -> Result<String> {
    let [length] = read(stream).await?;
    let mut bytes = vec![0; usize::from(length)];
    stream.read_exact(&mut bytes).await?;
    String::from_utf8(bytes).map_err(Error::other)
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let at = |index: usize| u32::from(three.get(index).copied().unwrap_or_default());
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        for digit in 0..4 {
            text.push(match digit <= three.len() {
                true => char::from(DIGITS[(bits >> (18 - 6 * digit) & 63) as usize]),
                false => '=',
            });
        }
    }
    text
}
