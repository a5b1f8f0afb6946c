//! One connection's requests.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::server::TlsStream;

use super::control::Shared;
use super::documents;
use super::fault::Fault;

#[derive(Clone, Copy, Debug)]
pub(super) struct ConnectionLimits {
    pub(super) idle: Option<Duration>,
    pub(super) body_max: usize,
}

/// Closes the connection instead of answering.
#[derive(Debug, thiserror::Error)]
#[error("the answer was lost on purpose")]
struct Lost;

/// Serves one connection until it ends, or has been idle for too long.
pub(super) async fn serve(
    shared: Arc<Shared>,
    limits: ConnectionLimits,
    stream: TlsStream<TcpStream>,
) {
    // When the last answer was sent. `None` while a request is being handled.
    let idle_since = Mutex::new(Some(Instant::now()));
    let set = |since| *idle_since.lock().unwrap_or_else(PoisonError::into_inner) = since;
    let requests = service_fn(|request| {
        let (shared, set) = (&shared, &set);
        async move {
            set(None);
            let response = answer(shared, limits, request).await;
            set(Some(Instant::now()));
            response
        }
    });
    let connection =
        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), requests);
    let idle = async {
        let Some(limit) = limits.idle else {
            return std::future::pending().await;
        };
        loop {
            let since = *idle_since.lock().unwrap_or_else(PoisonError::into_inner);
            match since {
                Some(since) if since.elapsed() >= limit => return,
                Some(since) => tokio::time::sleep_until(since + limit).await,
                None => tokio::time::sleep(limit).await,
            }
        }
    };
    tokio::select! {
        ended = connection => if let Err(error) = ended {
            tracing::debug!(%error, "connection ended");
        },
        () = idle => {}
    }
}

async fn answer(
    shared: &Shared,
    limits: ConnectionLimits,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Lost> {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path();
    if parts.method == Method::GET && path == "/stats" {
        return Ok(stats(shared));
    }
    if !matches!(parts.method, Method::POST | Method::PUT) {
        return Ok(text(
            StatusCode::METHOD_NOT_ALLOWED,
            "send documents with POST".to_owned(),
        ));
    }
    let plan = shared.plan();
    let body = match Limited::new(body, limits.body_max).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) => {
            shared.refuse(path);
            let status = match error.is::<LengthLimitError>() {
                true => StatusCode::PAYLOAD_TOO_LARGE,
                false => StatusCode::BAD_REQUEST,
            };
            return Ok(text(status, error.to_string()));
        }
    };
    if plan.hang {
        shared.hold().await;
    }
    if !plan.latency.is_zero() {
        tokio::time::sleep(plan.latency).await;
    }
    let status = StatusCode::from_u16(plan.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if !status.is_success() {
        shared.refuse(path);
        return Ok(text(status, String::new()));
    }
    let documents = match documents::read(&body, shared.captures()) {
        Ok(documents) => documents,
        Err(reason) => {
            shared.refuse(path);
            return Ok(text(StatusCode::BAD_REQUEST, reason));
        }
    };
    let fault = shared.fault(path, &body, documents.ids.len());
    match fault {
        Some(Fault::Status(status)) => {
            shared.refuse(path);
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            return Ok(text(status, String::new()));
        }
        Some(Fault::Hang) => shared.hold().await,
        Some(Fault::AnswerLate) | None => {}
    }
    if let Err(error) = shared.accept(path, &documents) {
        tracing::error!(%error, "cannot write the capture file");
        shared.refuse(path);
        return Ok(text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()));
    }
    if fault == Some(Fault::AnswerLate) {
        shared.hold().await;
    }
    match plan.lose {
        true => Err(Lost),
        false => Ok(text(status, String::new())),
    }
}

fn stats(shared: &Shared) -> Response<Full<Bytes>> {
    let json = serde_json::to_vec(&shared.totals()).unwrap_or_default();
    let mut response = Response::new(Full::from(json));
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static("application/json"),
    );
    response
}

fn text(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static("text/plain"),
    );
    response
}
