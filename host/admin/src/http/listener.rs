//! The HTTP server for `/livez`, `/readyz` and `/metrics`, on loopback only.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::{HealthSource, Readiness};
use crate::limits;

/// Prometheus' text format.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The HTTP listener, bound.
#[derive(Debug)]
pub struct Listener {
    listener: TcpListener,
    address: SocketAddr,
}

impl Listener {
    /// Port 0 chooses a free port. An address beyond loopback is refused.
    pub async fn bind(address: SocketAddr) -> io::Result<Listener> {
        if !address.ip().is_loopback() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{address} is not a loopback address"),
            ));
        }
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        Ok(Listener { listener, address })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers requests until it is dropped.
    pub async fn serve(self, source: impl HealthSource) {
        let source = Arc::new(source);
        let room = Arc::new(Semaphore::new(limits::HTTP_CONNECTIONS));
        let mut connections = JoinSet::new();
        loop {
            while connections.try_join_next().is_some() {}
            let Ok(permit) = room.clone().acquire_owned().await else {
                return;
            };
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "the admin listener cannot accept a connection");
                    sleep(limits::ACCEPT_WAIT).await;
                    continue;
                }
            };
            let source = source.clone();
            connections.spawn(async move {
                let service = service_fn(|request: Request<Incoming>| {
                    let source = source.clone();
                    async move {
                        let (parts, _body) = request.into_parts();
                        let response = answer(&parts.method, parts.uri.path(), &*source).await;
                        Ok::<_, Infallible>(response)
                    }
                });
                // One request each: an idle connection would keep its place.
                let connection = http1::Builder::new()
                    .keep_alive(false)
                    .serve_connection(TokioIo::new(stream), service);
                if let Ok(Err(error)) = timeout(limits::HTTP_CONNECTION, connection).await {
                    tracing::debug!(%error, "a connection to the admin listener failed");
                }
                drop(permit);
            });
        }
    }
}

async fn answer(method: &Method, path: &str, source: &impl HealthSource) -> Response<Full<Bytes>> {
    let reads = matches!(*method, Method::GET | Method::HEAD);
    match path {
        "/livez" | "/readyz" | "/metrics" if !reads => {
            let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
            let allow = HeaderValue::from_static("GET, HEAD");
            response.headers_mut().insert(header::ALLOW, allow);
            response
        }
        "/livez" => text(StatusCode::OK, "ok\n"),
        "/readyz" => ready(&source.readiness()),
        "/metrics" => {
            let text = source.metrics().await;
            respond(StatusCode::OK, METRICS_TYPE, text.into())
        }
        _ => text(StatusCode::NOT_FOUND, "not found\n"),
    }
}

fn ready(readiness: &Readiness) -> Response<Full<Bytes>> {
    let status = if readiness.ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    match serde_json::to_string(readiness) {
        Ok(json) => respond(status, "application/json", format!("{json}\n").into()),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, &format!("{error}\n")),
    }
}

fn text(status: StatusCode, text: &str) -> Response<Full<Bytes>> {
    respond(status, "text/plain; charset=utf-8", text.to_owned().into())
}

fn respond(status: StatusCode, kind: &'static str, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::Listener;
    use crate::http::{HealthSource, Readiness, Reason};

    /// The status, and the body.
    async fn request(address: SocketAddr, line: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("{line} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head[9..12].parse().unwrap(), body.to_owned())
    }

    struct Fixed(Readiness);

    impl HealthSource for Fixed {
        fn readiness(&self) -> Readiness {
            self.0.clone()
        }

        async fn metrics(&self) -> String {
            "# TYPE up gauge\nup 1\n".to_owned()
        }
    }

    async fn listening(readiness: Readiness) -> (SocketAddr, tokio::task::JoinHandle<()>) {
        let listener = Listener::bind("127.0.0.1:0".parse().unwrap())
            .await
            .unwrap();
        let address = listener.address();
        let server = tokio::spawn(listener.serve(Fixed(readiness)));
        (address, server)
    }

    #[tokio::test]
    async fn a_host_that_delivers_is_live_and_ready() {
        let (address, server) = listening(Readiness {
            ready: true,
            reasons: Vec::new(),
        })
        .await;
        for (line, status, body) in [
            ("GET /livez", 200, "ok\n"),
            ("HEAD /livez", 200, ""),
            ("GET /readyz", 200, "{\"ready\":true,\"reasons\":[]}\n"),
            (
                "GET /readyz?verbose",
                200,
                "{\"ready\":true,\"reasons\":[]}\n",
            ),
            ("GET /metrics", 200, "# TYPE up gauge\nup 1\n"),
            ("HEAD /metrics", 200, ""),
            ("POST /metrics", 405, "only GET and HEAD\n"),
            ("GET /", 404, "not found\n"),
            ("GET /livez/", 404, "not found\n"),
            ("POST /readyz", 405, "only GET and HEAD\n"),
        ] {
            assert_eq!(
                request(address, line).await,
                (status, body.to_owned()),
                "{line}"
            );
        }
        server.abort();
    }

    #[tokio::test]
    async fn a_host_that_is_not_ready_says_why_since_when_and_what_comes_next() {
        let (address, server) = listening(Readiness {
            ready: false,
            reasons: vec![
                Reason {
                    pipeline: Some("siem".to_owned()),
                    kind: "endpoint".to_owned(),
                    subject: "url".to_owned(),
                    message: "nothing but a probe is sent".to_owned(),
                    since: 1_767_225_600_250,
                    next_attempt: Some(1_767_225_630_250),
                    ..Reason::default()
                },
                Reason {
                    kind: "store".to_owned(),
                    ..Reason::default()
                },
            ],
        })
        .await;
        let (status, body) = request(address, "GET /readyz").await;
        assert_eq!(status, 503);
        assert_eq!(
            body,
            concat!(
                r#"{"ready":false,"reasons":[{"pipeline":"siem","kind":"endpoint","#,
                r#""subject":"url","message":"nothing but a probe is sent","#,
                r#""since":"2026-01-01T00:00:00.250Z","next_attempt":"2026-01-01T00:00:30.250Z"},"#,
                r#"{"kind":"store","subject":"","message":"","#,
                r#""since":"1970-01-01T00:00:00.000Z"}]}"#,
                "\n"
            )
        );
        assert_eq!(request(address, "GET /livez").await.0, 200);
        server.abort();
    }

    #[tokio::test]
    async fn an_address_beyond_loopback_is_refused() {
        for address in ["0.0.0.0:0", "192.0.2.1:8686", "[::]:0"] {
            let error = Listener::bind(address.parse().unwrap()).await.unwrap_err();
            assert!(error.to_string().contains("loopback"), "{error}");
        }
    }
}
