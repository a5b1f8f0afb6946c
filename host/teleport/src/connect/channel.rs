//! gRPC over one TLS connection.

use std::time::Duration;

use hyper_util::rt::TokioIo;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use crate::SourceLimits;

/// HTTP/2 flow control, in bytes: stream window, connection window, largest frame. Large windows
/// keep throughput up over links with high latency.
const WINDOWS: (u32, u32, u32) = (4 << 20, 8 << 20, 1 << 20);

/// Adds the `version` metadata to each call.
#[derive(Clone, Debug)]
pub(crate) struct Version(Option<MetadataValue<Ascii>>);

impl Version {
    /// Calls carry no `version`.
    pub(super) const NONE: Version = Version(None);

    /// The server's version, or Lockgate's own if the answer has none.
    pub(super) fn of(server: &str) -> Version {
        let server = if server.is_empty() {
            env!("CARGO_PKG_VERSION")
        } else {
            server
        };
        Version(server.parse().ok())
    }
}

impl Interceptor for Version {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(version) = &self.0 {
            request.metadata_mut().insert("version", version.clone());
        }
        Ok(request)
    }
}

/// Opens a gRPC channel. It does not reconnect: [`Connector`](super::Connector) does, because only
/// the connector can report why a connection fails.
pub(super) async fn channel<S>(
    stream: S,
    limits: &SourceLimits,
) -> Result<Channel, tonic::transport::Error>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
{
    let mut stream = Some(TokioIo::new(stream));
    let once = tower::service_fn(move |_| {
        let stream = stream
            .take()
            .ok_or_else(|| std::io::Error::other("the connection is closed"));
        async move { stream }
    });
    let (stream_window, connection_window, frame) = WINDOWS;
    Endpoint::from_static("http://teleport.cluster.local")
        .origin(http::Uri::from_static("https://teleport.cluster.local"))
        .user_agent(concat!("lockgate/", env!("CARGO_PKG_VERSION")))?
        .http2_keep_alive_interval(limits.keepalive.max(Duration::from_secs(60)))
        .keep_alive_timeout(limits.keepalive_timeout)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(stream_window)
        .initial_connection_window_size(connection_window)
        .max_frame_size(frame)
        .connect_with_connector(once)
        .await
}
