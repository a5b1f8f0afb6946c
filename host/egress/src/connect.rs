//! Connections to receivers: TCP, the outbound proxy, TLS.

use std::error::Error;
use std::future::{Ready, ready};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use http::header::{HeaderMap, HeaderValue, USER_AGENT};
use http::uri::Scheme;
use http::{Extensions, Uri};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::proxy::{SocksV5, Tunnel};
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::rt::TokioIo;
use lockgate_model::{OutboundProxy, OutboundScheme};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;
use tower_service::Service;

use crate::EndpointError;
use crate::address::Resolver;
use crate::fair_stream::FairStream;
use crate::proxy::{self, serves};

pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// So a host that is gone is noticed after a minute, also while nothing is sent.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
const KEEP_ALIVE_RETRIES: u32 = 3;
/// How long what was sent may stay without an acknowledgement.
#[cfg(target_os = "linux")]
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(30);
/// How this host names itself.
pub const AGENT: HeaderValue =
    HeaderValue::from_static(concat!("lockgate/", env!("CARGO_PKG_VERSION")));

type BoxError = Box<dyn Error + Send + Sync>;

/// Why there is no connection.
#[derive(Debug, Error)]
pub enum ConnectError {
    #[error("there is no connection to the receiver")]
    Receiver(#[source] BoxError),
    /// There is no connection to the proxy, or no TLS with it.
    #[error("there is no connection to the proxy")]
    Proxy(#[source] BoxError),
    /// The proxy does not lead to the receiver: what it says, in the words of the library.
    #[error("the proxy does not lead to the receiver: {0}")]
    Through(String),
    #[error("connecting takes too long")]
    Timeout,
}

/// Opens the connections of an endpoint.
#[derive(Clone)]
pub struct Connector {
    tcp: HttpConnector<Resolver>,
    tls: TlsConnector,
    proxy: Option<Arc<Proxy>>,
}

struct Proxy {
    configured: OutboundProxy,
    uri: Uri,
    login: Option<HeaderValue>,
}

impl Connector {
    pub fn new(
        tls: ClientConfig,
        proxy: Option<&OutboundProxy>,
        resolver: &Resolver,
    ) -> Result<Connector, EndpointError> {
        let mut tcp = HttpConnector::new_with_resolver(resolver.clone());
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_keepalive(Some(KEEP_ALIVE));
        tcp.set_keepalive_interval(Some(KEEP_ALIVE));
        tcp.set_keepalive_retries(Some(KEEP_ALIVE_RETRIES));
        #[cfg(target_os = "linux")]
        tcp.set_tcp_user_timeout(Some(UNACKNOWLEDGED_MAX));
        let proxy = proxy.map(|proxy| {
            Ok(Arc::new(Proxy {
                uri: proxy::uri(proxy)?,
                login: proxy.login.as_ref().map(proxy::authorization),
                configured: proxy.clone(),
            }))
        });
        Ok(Connector {
            tcp,
            tls: TlsConnector::from(Arc::new(tls)),
            proxy: proxy.transpose()?,
        })
    }

    /// The proxy that leads to this URL.
    fn proxy_of(&self, uri: &Uri) -> Option<&Proxy> {
        let proxy = self.proxy.as_deref();
        proxy.filter(|proxy| serves(&proxy.configured, uri))
    }

    /// The login of a proxy that is asked for this URL, not for a connection to its host.
    pub fn login_of(&self, uri: &Uri) -> Option<&HeaderValue> {
        let proxy = self.proxy_of(uri)?;
        let is_asked = proxy.configured.scheme != OutboundScheme::Socks5 && !is_https(uri);
        proxy.login.as_ref().filter(|_| is_asked)
    }

    async fn connect(self, uri: Uri) -> Result<Stream, ConnectError> {
        let until = Instant::now() + CONNECT_TIMEOUT;
        let receiver = |error: BoxError| ConnectError::Receiver(error);
        let mut is_proxied = false;
        let mut pipe = match self.proxy_of(&uri) {
            None => match timeout_at(until, self.tcp(uri.clone())).await {
                Ok(opened) => opened.map_err(receiver)?,
                Err(_) => return Err(ConnectError::Timeout),
            },
            Some(proxy) => {
                let opened = timeout_at(until, self.to_proxy(proxy)).await;
                let opened = opened.map_err(|_| io::Error::from(io::ErrorKind::TimedOut).into());
                let pipe = opened.flatten().map_err(ConnectError::Proxy)?;
                let is_tunnel = proxy.configured.scheme == OutboundScheme::Socks5;
                if is_tunnel || is_https(&uri) {
                    match timeout_at(until, through(proxy, pipe, &uri)).await {
                        Ok(opened) => opened?,
                        Err(_) => return Err(ConnectError::Timeout),
                    }
                } else {
                    is_proxied = true;
                    pipe
                }
            }
        };
        if is_https(&uri) {
            let host = uri.host().unwrap_or_default();
            pipe = match timeout_at(until, self.shake(host, pipe)).await {
                Ok(opened) => opened.map_err(receiver)?,
                Err(_) => return Err(ConnectError::Timeout),
            };
        }
        Ok(Stream {
            io: TokioIo::new(pipe),
            is_proxied,
            past: Past::default(),
        })
    }

    async fn to_proxy(&self, proxy: &Proxy) -> Result<BoxedPipe, BoxError> {
        let pipe = self.tcp(proxy.uri.clone()).await?;
        match proxy.configured.scheme {
            OutboundScheme::Https => self.shake(&proxy.configured.host, pipe).await,
            OutboundScheme::Http | OutboundScheme::Socks5 => Ok(pipe),
        }
    }

    async fn tcp(&self, uri: Uri) -> Result<BoxedPipe, BoxError> {
        let stream = self.tcp.clone().call(uri).await?;
        Ok(Box::new(FairStream::new(stream.into_inner())))
    }

    async fn shake(&self, host: &str, pipe: BoxedPipe) -> Result<BoxedPipe, BoxError> {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let name = ServerName::try_from(host.to_owned())?;
        Ok(Box::new(self.tls.connect(name, pipe).await?))
    }
}

/// Has the proxy connect to the host of this URL.
async fn through(proxy: &Proxy, pipe: BoxedPipe, uri: &Uri) -> Result<BoxedPipe, ConnectError> {
    let failed = |told: String| ConnectError::Through(told);
    let (host, port) = (uri.host().unwrap_or_default(), port(uri));
    let host: Uri = format!("{host}:{port}")
        .parse()
        .map_err(|_| failed("its host name cannot be used".to_owned()))?;
    let opened = Opened(Some(TokioIo::new(pipe)));
    let pipe = match proxy.configured.scheme {
        OutboundScheme::Socks5 => {
            let mut socks = SocksV5::new(proxy.uri.clone(), opened);
            if let Some(login) = &proxy.configured.login {
                let password = login.password.expose().to_owned();
                socks = socks.with_auth(login.user.clone(), password);
            }
            let opened = socks.call(host).await;
            opened.map_err(|error| failed(error.to_string()))?
        }
        OutboundScheme::Http | OutboundScheme::Https => {
            let headers = HeaderMap::from_iter([(USER_AGENT, AGENT)]);
            let mut tunnel = Tunnel::new(proxy.uri.clone(), opened).with_headers(headers);
            if let Some(login) = &proxy.login {
                tunnel = tunnel.with_auth(login.clone());
            }
            let opened = tunnel.call(host).await;
            opened.map_err(|error| failed(error.to_string()))?
        }
    };
    Ok(pipe.into_inner())
}

pub fn is_https(uri: &Uri) -> bool {
    uri.scheme() == Some(&Scheme::HTTPS)
}

pub fn port(uri: &Uri) -> u16 {
    let default = if is_https(uri) { 443 } else { 80 };
    uri.port_u16().unwrap_or(default)
}

impl Service<Uri> for Connector {
    type Response = Stream;
    type Error = ConnectError;
    type Future = Pin<Box<dyn Future<Output = Result<Stream, ConnectError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(self.clone().connect(uri))
    }
}

/// Bytes in both directions.
trait Pipe: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Pipe for S {}

type BoxedPipe = Box<dyn Pipe>;

/// A connection that is there already, for the tunnels of hyper-util: they ask for one.
struct Opened(Option<TokioIo<BoxedPipe>>);

impl Service<Uri> for Opened {
    type Response = TokioIo<BoxedPipe>;
    type Error = io::Error;
    type Future = Ready<io::Result<TokioIo<BoxedPipe>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        ready(self.0.take().ok_or(io::ErrorKind::NotConnected.into()))
    }
}

/// Whether a connection has carried an answer: only then may it have been idle, and closed by the
/// receiver meanwhile.
#[derive(Clone, Debug, Default)]
pub struct Past(Arc<AtomicBool>);

impl Past {
    pub fn of(extensions: &Extensions) -> Option<&Past> {
        extensions.get()
    }

    pub fn answered(&self) {
        self.0.store(true, Relaxed);
    }

    pub fn has_answered(&self) -> bool {
        self.0.load(Relaxed)
    }
}

/// A connection on which HTTP is spoken.
pub struct Stream {
    io: TokioIo<BoxedPipe>,
    /// The proxy is asked for URLs.
    is_proxied: bool,
    past: Past,
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        let connected = Connected::new().proxy(self.is_proxied);
        connected.extra(self.past.clone())
    }
}

impl Read for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(context, buffer)
    }
}

impl Write for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}
