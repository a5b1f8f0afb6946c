//! A simulated Teleport proxy in front of the Auth server: `/webapi/find`, TLS routing by ALPN, the
//! connection upgrade, with a web certificate from an authority of its own, and the SSH tunnel.
//!
//! As observed with Teleport 13.3.8: the first ALPN protocol decides. A routing entry passes the
//! bytes on to Auth as they are; what the proxy does not know ends in a closed connection, without
//! an alert.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lockgate_teleport::connect::routed_cluster;
use lockgate_teleport::connect::websocket::{Role, WebSocket};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use super::AuthOptions;
use crate::SimError;
use crate::listener::{Bound, Connections, HANDSHAKE, Listener};

mod hello;
mod tunnel;
mod web;

pub use tunnel::TunnelFault;
use web::Pages;
pub(super) use web::certificates;

/// The options of a proxy.
#[derive(Clone, Debug)]
pub struct ProxyOptions {
    /// `host:port`; port 0 chooses a free port.
    pub listen: String,
    /// Where a load balancer listens that terminates TLS.
    pub balancer: Option<String>,
    /// The load balancer offers HTTP by ALPN, and refuses everything else. By default it ignores
    /// ALPN.
    pub balancer_offers_http: bool,
    /// Which connection upgrade the proxy knows.
    pub upgrade: Upgrade,
    pub tls_routing: bool,
    /// Where the SSH tunnel listens. With TLS routing it is at the proxy's own port, too.
    pub tunnel: Option<String>,
    /// Where the proxy says that the SSH tunnel is; by default, where it listens.
    pub tunnel_public_addr: Option<String>,
    /// Names in the web certificate, and in that of SSH, besides those of this machine.
    pub public_names: Vec<String>,
}

impl Default for ProxyOptions {
    fn default() -> ProxyOptions {
        ProxyOptions {
            listen: "127.0.0.1:0".to_owned(),
            balancer: None,
            balancer_offers_http: false,
            upgrade: Upgrade::default(),
            tls_routing: true,
            tunnel: None,
            tunnel_public_addr: None,
            public_names: Vec::new(),
        }
    }
}

/// A kind of connection upgrade.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Upgrade {
    /// In the frames of a WebSocket.
    #[default]
    WebSocket,
    /// Raw bytes, as in Teleport 13.
    Alpn,
}

/// What a proxy does wrong, until it is changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProxyFaults {
    /// It answers connection upgrades with 403.
    pub refuses_upgrades: bool,
    /// It cannot reach Auth: it closes connections to it.
    pub is_without_auth: bool,
    /// What is wrong with the SSH tunnel.
    pub tunnel: Option<TunnelFault>,
}

/// The counts of a proxy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProxyServed {
    /// Requests for `/webapi/find`.
    pub finds: u64,
    /// Connections passed on to Auth.
    pub connections: u64,
}

/// A running proxy, with its load balancer if it has one.
pub(super) struct Proxy {
    pub address: SocketAddr,
    pub balancer: Option<SocketAddr>,
    pub tunnel: Option<SocketAddr>,
    shared: Arc<Shared>,
    listeners: Vec<Listener>,
}

/// What all connections of a proxy share.
struct Shared {
    auth: SocketAddr,
    cluster: String,
    version: String,
    clock_ahead: Duration,
    options: ProxyOptions,
    /// What `/webapi/find` names as the proxy's own address.
    public: SocketAddr,
    /// Where the SSH tunnel is, as `/webapi/find` says it.
    public_tunnel: String,
    ssh: tunnel::Host,
    faults: Mutex<ProxyFaults>,
    finds: AtomicU64,
    passed_on: AtomicU64,
    /// TLS with the web certificate, as the proxy offers it.
    web: TlsAcceptor,
    /// The same, as a load balancer offers it.
    balanced: TlsAcceptor,
    /// The same, at the port of the SSH tunnel.
    at_tunnel: TlsAcceptor,
}

impl Proxy {
    pub(super) async fn start(
        options: &AuthOptions,
        proxy: ProxyOptions,
        auth: SocketAddr,
        connections: Connections,
    ) -> Result<Proxy, SimError> {
        let web = certificates(&options.out, &proxy.public_names)?;
        let acceptor = |alpn: &[&[u8]]| {
            let mut web = web.clone();
            web.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
            TlsAcceptor::from(Arc::<ServerConfig>::new(web))
        };
        let bound = Bound::to(&proxy.listen).await?;
        let address = bound.address;
        let balancer = match &proxy.balancer {
            Some(listen) => Some(Bound::to(listen).await?),
            None => None,
        };
        let tunnel = match &proxy.tunnel {
            Some(listen) => Some(Bound::to(listen).await?),
            None => None,
        };
        let tunnel_address = tunnel.as_ref().map(|bound| bound.address);
        let listens = tunnel_address.map(|address| address.to_string());
        let public_tunnel = proxy.tunnel_public_addr.clone().or(listens);
        let shared = Arc::new(Shared {
            auth,
            cluster: options.events.cluster.clone(),
            version: options.server_version.clone(),
            clock_ahead: Duration::from_secs(options.clock_ahead),
            public: address,
            public_tunnel: public_tunnel.unwrap_or_default(),
            ssh: tunnel::Host::new(options, &proxy.public_names)?,
            faults: Mutex::default(),
            finds: AtomicU64::new(0),
            passed_on: AtomicU64::new(0),
            web: acceptor(&[b"h2", b"http/1.1", b"teleport-reversetunnel"]),
            balanced: match proxy.balancer_offers_http {
                true => acceptor(&[b"http/1.1"]),
                false => acceptor(&[]),
            },
            at_tunnel: acceptor(&[b"h2", b"http/1.1"]),
            options: proxy,
        });
        let balancer_address = balancer.as_ref().map(|bound| bound.address);
        let (of_proxy, of_all) = (Arc::clone(&shared), connections.clone());
        let mut listeners = vec![bound.serve(connections.clone(), move |stream| {
            let shared = Arc::clone(&of_proxy);
            async move { shared.route(stream).await }
        })];
        if let Some(bound) = balancer {
            let of_balancer = Arc::clone(&shared);
            listeners.push(bound.serve(connections, move |stream| {
                let shared = Arc::clone(&of_balancer);
                async move { shared.balance(stream).await }
            }));
        }
        if let Some(bound) = tunnel {
            let of_tunnel = Arc::clone(&shared);
            listeners.push(bound.serve(of_all, move |stream| {
                let shared = Arc::clone(&of_tunnel);
                async move { shared.serve_tunnel(stream).await }
            }));
        }
        Ok(Proxy {
            address,
            balancer: balancer_address,
            tunnel: tunnel_address,
            shared,
            listeners,
        })
    }

    pub(super) fn set_faults(&self, faults: ProxyFaults) {
        *self
            .shared
            .faults
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = faults;
    }

    pub(super) fn served(&self) -> ProxyServed {
        ProxyServed {
            finds: self.shared.finds.load(Ordering::Relaxed),
            connections: self.shared.passed_on.load(Ordering::Relaxed),
        }
    }

    pub(super) async fn stop(self) {
        for listener in self.listeners {
            listener.stop().await;
        }
    }
}

impl Shared {
    fn faults(&self) -> ProxyFaults {
        *self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection is passed on to Auth.
    fn count(&self) {
        self.passed_on.fetch_add(1, Ordering::Relaxed);
    }

    /// Serves a connection by its first ALPN protocol.
    async fn route(self: Arc<Self>, stream: TcpStream) {
        let Some((first, stream)) = first_protocol(stream).await else {
            return;
        };
        if let Some(cluster) = first.as_deref().and_then(routed_cluster) {
            return self.pass_on(&cluster, stream).await;
        }
        let known: [&[u8]; 3] = [b"h2", b"http/1.1", b"teleport-reversetunnel"];
        if first.is_some_and(|first| !known.contains(&&*first)) {
            return;
        }
        match tokio::time::timeout(HANDSHAKE, self.web.accept(stream)).await {
            Ok(Ok(stream)) => {
                let protocol = stream.get_ref().1.alpn_protocol();
                match protocol {
                    Some(b"teleport-reversetunnel") => tunnel::serve(&self, stream).await,
                    _ => web::serve(self, stream, Pages::All).await,
                }
            }
            Ok(Err(error)) => tracing::debug!(%error, "TLS handshake with the proxy failed"),
            Err(_) => tracing::debug!("TLS handshake with the proxy timed out"),
        }
    }

    /// Serves the port of the SSH tunnel. As with Teleport, the first byte of the client decides:
    /// TLS leads to a few pages of the website.
    async fn serve_tunnel(self: Arc<Self>, stream: TcpStream) {
        const TLS: u8 = 0x16;
        let mut first = [0];
        match tokio::time::timeout(HANDSHAKE, stream.peek(&mut first)).await {
            Ok(Ok(1..)) if first != [TLS] => return tunnel::serve(&self, stream).await,
            Ok(Ok(1..)) => {}
            _ => return,
        }
        if self.faults().tunnel == Some(TunnelFault::ResetsTls) {
            // Closed with bytes that nobody has read: a reset.
            return;
        }
        match tokio::time::timeout(HANDSHAKE, self.at_tunnel.accept(stream)).await {
            Ok(Ok(stream)) => web::serve(self, stream, Pages::OfTunnel).await,
            Ok(Err(error)) => tracing::debug!(%error, "TLS handshake with the tunnel failed"),
            Err(_) => tracing::debug!("TLS handshake with the tunnel timed out"),
        }
    }

    /// Serves a connection that comes through the load balancer.
    async fn balance(self: Arc<Self>, stream: TcpStream) {
        match tokio::time::timeout(HANDSHAKE, self.balanced.accept(stream)).await {
            Ok(Ok(stream)) => web::serve(self, stream, Pages::All).await,
            Ok(Err(error)) => tracing::debug!(%error, "TLS handshake with the balancer failed"),
            Err(_) => tracing::debug!("TLS handshake with the balancer timed out"),
        }
    }

    /// Serves what follows an upgrade: a connection with a routing entry, and nothing else.
    async fn upgraded<S>(&self, stream: S, kind: Upgrade)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin,
    {
        match kind {
            Upgrade::Alpn => self.route_upgraded(stream).await,
            Upgrade::WebSocket => {
                let mut stream = WebSocket::new(stream, Role::Server);
                // A real proxy pings while a connection is idle.
                stream.ping();
                self.route_upgraded(stream).await;
            }
        }
    }

    async fn route_upgraded<S>(&self, stream: S)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin,
    {
        let Some((first, stream)) = first_protocol(stream).await else {
            return;
        };
        if let Some(cluster) = first.as_deref().and_then(routed_cluster) {
            self.pass_on(&cluster, stream).await;
        }
    }

    /// Passes bytes on between the client and Auth.
    async fn pass_on<S>(&self, cluster: &str, mut stream: S)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin,
    {
        if cluster != self.cluster || self.faults().is_without_auth {
            return;
        }
        if let Ok(mut auth) = TcpStream::connect(self.auth).await {
            self.count();
            let _ = auth.set_nodelay(true);
            let _ = copy_bidirectional(&mut stream, &mut auth).await;
        }
    }
}

/// The first protocol that a TLS client offers, if any, and its stream from the beginning.
async fn first_protocol<S: AsyncRead + Unpin>(
    stream: S,
) -> Option<(Option<Vec<u8>>, hello::Replayed<S>)> {
    match tokio::time::timeout(HANDSHAKE, hello::read(stream)).await {
        Ok(Ok((protocols, stream))) => Some((protocols.into_iter().next(), stream)),
        Ok(Err(error)) => {
            tracing::debug!(%error, "no TLS handshake with the proxy");
            None
        }
        Err(_) => {
            tracing::debug!("TLS handshake with the proxy timed out");
            None
        }
    }
}
