//! Accepts TLS connections, for both simulators.

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
pub(crate) const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

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
    /// Binds `listen` (`host:port`; port 0 chooses a free port) and serves until [`Self::stop`].
    pub(crate) async fn start<S, F>(
        listen: &str,
        tls: rustls::ServerConfig,
        serve: S,
    ) -> Result<Listener, SimError>
    where
        S: Fn(TlsStream<TcpStream>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = ()> + Send,
    {
        let refused = |source| SimError::Bind {
            listen: listen.to_owned(),
            source,
        };
        let socket = TcpListener::bind(listen).await.map_err(refused)?;
        let address = socket.local_addr().map_err(refused)?;
        let connections = Connections(Arc::new(watch::Sender::new(0)));
        let (stop, stopped) = oneshot::channel();
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        let epochs = connections.clone();
        let task = tokio::spawn(async move {
            tokio::select! {
                () = accept(socket, acceptor, epochs, serve) => {}
                _ = stopped => {}
            }
        });
        Ok(Listener {
            address,
            connections,
            stop,
            task,
        })
    }

    /// Closes the port and every connection; when this returns the address can be bound again.
    pub(crate) async fn stop(self) {
        drop(self.stop);
        if let Err(error) = self.task.await {
            tracing::error!(%error, "the simulator failed");
        }
    }
}

async fn accept<S, F>(
    socket: TcpListener,
    acceptor: TlsAcceptor,
    connections: Connections,
    serve: S,
) where
    S: Fn(TlsStream<TcpStream>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = ()> + Send,
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
        let (acceptor, serve, mut epoch) = (acceptor.clone(), serve.clone(), connections.epoch());
        tasks.spawn(async move {
            let connection = async {
                // Answers are small and awaited: Nagle's algorithm would hold them back.
                let _ = stream.set_nodelay(true);
                match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
                    Ok(Ok(stream)) => serve(stream).await,
                    Ok(Err(error)) => tracing::debug!(%error, "TLS handshake failed"),
                    Err(_) => tracing::debug!("TLS handshake timed out"),
                }
            };
            tokio::select! {
                () = connection => {}
                _ = epoch.changed() => {}
            }
        });
    }
}
