//! Accepts connections, for all simulators.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::SimError;

/// Time-out of a handshake.
pub(crate) const HANDSHAKE: Duration = Duration::from_secs(10);
/// Pause after a failed accept, which usually means that the process is out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// A running server.
pub(crate) struct Listener {
    pub(crate) address: SocketAddr,
    pub(crate) connections: Connections,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

/// Closes connections from outside.
#[derive(Clone, Debug)]
pub(crate) struct Connections(Arc<watch::Sender<u64>>);

impl Connections {
    /// Cuts every open connection at once.
    pub(crate) fn drop_all(&self) {
        self.0.send_modify(|epoch| *epoch += 1);
    }

    /// Changes when the connections that are open now are to be cut.
    pub(crate) fn epoch(&self) -> watch::Receiver<u64> {
        self.0.subscribe()
    }
}

impl Listener {
    /// Binds `listen` (`host:port`; port 0 chooses a free port) and serves TLS until
    /// [`Self::stop`].
    pub(crate) async fn start<S, F>(
        listen: &str,
        tls: rustls::ServerConfig,
        serve: S,
    ) -> Result<Listener, SimError>
    where
        S: Fn(TlsStream<TcpStream>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let bound = Bound::to(listen).await?;
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        let connections = Connections(Arc::new(watch::Sender::new(0)));
        Ok(bound.serve(connections, move |stream| {
            let (acceptor, serve) = (acceptor.clone(), serve.clone());
            async move {
                match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
                    Ok(Ok(stream)) => serve(stream).await,
                    Ok(Err(error)) => tracing::debug!(%error, "TLS handshake failed"),
                    Err(_) => tracing::debug!("TLS handshake timed out"),
                }
            }
        }))
    }

    /// Closes the port and every connection; when this returns the address can be bound again.
    pub(crate) async fn stop(self) {
        drop(self.stop);
        if let Err(error) = self.task.await {
            tracing::error!(%error, "the simulator failed");
        }
    }
}

/// A port that nothing is served at yet.
pub(crate) struct Bound {
    socket: TcpListener,
    pub(crate) address: SocketAddr,
}

impl Bound {
    pub(crate) async fn to(listen: &str) -> Result<Bound, SimError> {
        let refused = |source| SimError::Bind {
            listen: listen.to_owned(),
            source,
        };
        let socket = TcpListener::bind(listen).await.map_err(refused)?;
        let address = socket.local_addr().map_err(refused)?;
        Ok(Bound { socket, address })
    }

    /// Serves each connection as it comes until [`Listener::stop`].
    pub(crate) fn serve<S, F>(self, connections: Connections, serve: S) -> Listener
    where
        S: Fn(TcpStream) -> F + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let Bound { socket, address } = self;
        let (stop, stopped) = oneshot::channel();
        let epochs = connections.clone();
        let task = tokio::spawn(async move {
            tokio::select! {
                () = accept(socket, epochs, serve) => {}
                _ = stopped => {}
            }
        });
        Listener {
            address,
            connections,
            stop,
            task,
        }
    }
}

async fn accept<S, F>(socket: TcpListener, connections: Connections, serve: S)
where
    S: Fn(TcpStream) -> F,
    F: Future<Output = ()> + Send + 'static,
{
    // Dropping the set, when the server stops, ends its tasks.
    let mut tasks = JoinSet::new();
    loop {
        let stream = match socket.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "accepting a connection failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        while tasks.try_join_next().is_some() {}
        // Answers are small and awaited: Nagle's algorithm would hold them back.
        let _ = stream.set_nodelay(true);
        let (served, mut epoch) = (serve(stream), connections.epoch());
        tasks.spawn(async move {
            tokio::select! {
                () = served => {}
                _ = epoch.changed() => {}
            }
        });
    }
}
