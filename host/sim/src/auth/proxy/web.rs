//! The proxy's web server, and its certificate.

use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use lockgate_teleport::connect::websocket::accept;
use rcgen::DnType;
use rustls::ServerConfig;
use rustls::crypto::ring;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::server::TlsStream;

use super::{Shared, Upgrade};
use crate::SimError;
use crate::certificate::{Authority, in_ten_years};
use crate::output_dir::OutputDir;

const CA: &str = "proxy-ca.crt";
const CERTIFICATE: &str = "proxy.crt";
const KEY: &str = "proxy.key";

/// Creates the proxy's certificate where it is missing, and returns its TLS without ALPN.
pub(in crate::auth) fn certificates(
    out: &Path,
    public_names: &[String],
) -> Result<ServerConfig, SimError> {
    let dir = OutputDir::create(out)?;
    if !dir.holds(&[CA, CERTIFICATE, KEY]) {
        let authority = Authority::new("Web CA of the simulator", "")?;
        let mut names = vec!["localhost", "127.0.0.1", "::1"];
        names.extend(public_names.iter().map(String::as_str));
        let subject = [(DnType::CommonName, "localhost")];
        let server = authority.sign(&subject, &names, in_ten_years())?;
        dir.write(CERTIFICATE, &server.certificate.pem())?;
        dir.write(KEY, &server.key.serialize_pem())?;
        dir.write(CA, &authority.certificate)?;
    }
    ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| SimError::Certificate(error.to_string()))?
        .with_no_client_auth()
        .with_single_cert(vec![dir.certificate(CERTIFICATE)?], dir.key(KEY)?)
        .map_err(|error| dir.damaged(CERTIFICATE, error))
}

/// How much of the website there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pages {
    All,
    /// What agents need, at the port of the SSH tunnel.
    OfTunnel,
}

/// Serves one connection until it ends, or until it is upgraded and that ends.
pub(super) async fn serve<S>(shared: Arc<Shared>, stream: TlsStream<S>, pages: Pages)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let io = TokioIo::new(stream);
    let (upgrade, mut upgrades) = tokio::sync::mpsc::channel(1);
    let of_calls = Arc::clone(&shared);
    let answers = service_fn(move |request| {
        let (shared, upgrade) = (Arc::clone(&of_calls), upgrade.clone());
        async move { Ok::<_, Infallible>(answer(&shared, request, &upgrade, pages)) }
    });
    let ended = if is_http2 {
        hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .serve_connection(io, answers)
            .await
    } else {
        hyper::server::conn::http1::Builder::new()
            .serve_connection(io, answers)
            .with_upgrades()
            .await
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "connection to the proxy ended");
    }
    let Ok((on_upgrade, kind)) = upgrades.try_recv() else {
        return;
    };
    let on_upgrade: hyper::upgrade::OnUpgrade = on_upgrade;
    if let Ok(stream) = on_upgrade.await {
        shared.upgraded(TokioIo::new(stream), kind).await;
    }
}

type Upgrades = tokio::sync::mpsc::Sender<(hyper::upgrade::OnUpgrade, Upgrade)>;

fn answer(
    shared: &Shared,
    mut request: Request<Incoming>,
    upgrades: &Upgrades,
    pages: Pages,
) -> Response<Full<Bytes>> {
    match request.uri().path() {
        "/webapi/find" => {
            shared.finds.fetch_add(1, Ordering::Relaxed);
            found(shared)
        }
        "/webapi/ping" => found(shared),
        _ if pages == Pages::OfTunnel => error(StatusCode::NOT_FOUND, "not found"),
        "/webapi/connectionupgrade" if shared.faults().refuses_upgrades => {
            error(StatusCode::FORBIDDEN, "the simulator refuses on purpose")
        }
        "/webapi/connectionupgrade" => {
            let Some((kind, headers)) = agreed(request.headers(), shared.options.upgrade) else {
                return error(StatusCode::NOT_FOUND, "no supported upgrades");
            };
            let upgraded = hyper::upgrade::on(&mut request);
            if upgrades.try_send((upgraded, kind)).is_err() {
                return error(StatusCode::BAD_REQUEST, "upgraded already");
            }
            let mut response = Response::new(Full::default());
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            *response.headers_mut() = headers;
            response
        }
        _ => error(StatusCode::NOT_FOUND, "not found"),
    }
}

/// What a proxy says of its cluster.
fn found(shared: &Shared) -> Response<Full<Bytes>> {
    let mut response = json(
        StatusCode::OK,
        &serde_json::json!({
            "auth": { "type": "" },
            "proxy": {
                "kube": { "enabled": false },
                "ssh": {
                    "listen_addr": "0.0.0.0:3023",
                    "tunnel_listen_addr": "0.0.0.0:3024",
                    "web_listen_addr": shared.public.to_string(),
                    "public_addr": shared.public.to_string(),
                    "ssh_tunnel_public_addr": shared.public_tunnel,
                },
                "db": {},
                "tls_routing_enabled": shared.options.tls_routing,
            },
            "server_version": shared.version,
            "min_client_version": "12.0.0",
            "cluster_name": shared.cluster,
            "automatic_upgrades": false,
        }),
    );
    let date = super::super::date(shared.clock_ahead);
    response.headers_mut().insert(header::DATE, date);
    response
}

/// The upgrade that the client asks for and the proxy knows, with the headers of the answer.
fn agreed(asked: &HeaderMap, known: Upgrade) -> Option<(Upgrade, HeaderMap)> {
    let text = |name: &str| asked.get(name).and_then(|value| value.to_str().ok());
    let mut headers = HeaderMap::new();
    let mut add = |name: header::HeaderName, value: &str| {
        let value = value.parse().ok()?;
        headers.insert(name, value);
        Some(())
    };
    add(header::CONNECTION, "Upgrade")?;
    match known {
        Upgrade::WebSocket => {
            let is_asked = text("upgrade").is_some_and(|kind| kind == "websocket")
                && text("sec-websocket-version") == Some("13");
            let protocol = text("sec-websocket-protocol")?;
            if !is_asked || !["alpn", "alpn-ping"].contains(&protocol) {
                return None;
            }
            add(header::UPGRADE, "websocket")?;
            add(header::SEC_WEBSOCKET_PROTOCOL, protocol)?;
            add(
                header::SEC_WEBSOCKET_ACCEPT,
                &accept(text("sec-websocket-key")?),
            )?;
        }
        Upgrade::Alpn => {
            if text("upgrade") != Some("alpn") && text("x-teleport-upgrade") != Some("alpn") {
                return None;
            }
            add(header::UPGRADE, "alpn")?;
            add("x-teleport-upgrade".parse().ok()?, "alpn")?;
        }
    }
    Some((known, headers))
}

fn error(status: StatusCode, message: &str) -> Response<Full<Bytes>> {
    json(
        status,
        &serde_json::json!({ "error": { "message": message } }),
    )
}

fn json(status: StatusCode, body: &serde_json::Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body.to_string()));
    *response.status_mut() = status;
    let kind = header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}
