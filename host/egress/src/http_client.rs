//! HTTP/1.1 over connections that are kept for a while. A request is sent once, and redirects are
//! not followed.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, HeaderValue, PROXY_AUTHORIZATION, USER_AGENT};
use http::{Extensions, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::ext::on_informational;
use hyper_util::client::legacy::{self, Client};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use lockgate_model::OutboundProxy;
use rustls::ClientConfig;
use thiserror::Error;
use tokio::sync::Notify;

use crate::EndpointError;
use crate::address::Resolver;
use crate::connect::{AGENT, Connector, Past};

/// Fluentd closes idle connections after 10 s without notice, so they are dropped before that.
const IDLE_MAX: Duration = Duration::from_secs(8);
/// Bytes of the head of an answer.
pub const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Headers of an answer: hyper's own limit.
pub const HEADERS_MAX: usize = 100;
/// Interim answers (1xx) to a request. No request asks for one.
const INTERIM_MAX: usize = 16;

/// Sends requests on its own connections.
#[derive(Clone)]
pub struct HttpClient {
    client: Client<Connector, Full<Bytes>>,
    connector: Connector,
}

/// There is no answer.
#[derive(Debug)]
pub struct Unanswered {
    pub error: HttpError,
    /// The connection had been idle, so the receiver may have closed it before the request.
    pub was_idle: bool,
}

#[derive(Debug, Error)]
pub enum HttpError {
    #[error("more than {INTERIM_MAX} interim answers (1xx), and no final one")]
    TooManyInterim,
    #[error(transparent)]
    Client(legacy::Error),
}

impl HttpClient {
    /// `idle_connections`: the most that are kept for each host.
    pub fn new(
        tls: ClientConfig,
        proxy: Option<&OutboundProxy>,
        resolver: &Resolver,
        idle_connections: usize,
    ) -> Result<HttpClient, EndpointError> {
        let connector = Connector::new(tls, proxy, resolver)?;
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_MAX)
            .pool_max_idle_per_host(idle_connections)
            .retry_canceled_requests(false)
            .http1_max_buf_size(HEAD_BYTES_MAX)
            .build(connector.clone());
        Ok(HttpClient { client, connector })
    }

    pub async fn send(
        &self,
        mut request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, Unanswered> {
        let login = self.connector.login_of(request.uri()).cloned();
        let headers = request.headers_mut();
        (headers.entry(ACCEPT)).or_insert(HeaderValue::from_static("*/*"));
        headers.entry(USER_AGENT).or_insert(AGENT);
        if let Some(login) = login {
            headers.entry(PROXY_AUTHORIZATION).or_insert(login);
        }
        let interim = Interim::count(&mut request);
        let answer = tokio::select! {
            biased;
            () = interim.are_too_many() => {
                return Err(Unanswered { error: HttpError::TooManyInterim, was_idle: false });
            }
            answer = self.client.request(request) => answer,
        };
        match answer {
            Ok(response) => {
                if let Some(past) = Past::of(response.extensions()) {
                    past.answered();
                }
                Ok(response)
            }
            Err(error) => {
                let mut extensions = Extensions::new();
                if let Some(connected) = error.connect_info() {
                    connected.get_extras(&mut extensions);
                }
                Err(Unanswered {
                    was_idle: Past::of(&extensions).is_some_and(Past::has_answered),
                    error: HttpError::Client(error),
                })
            }
        }
    }
}

/// The interim answers to a request. hyper reads over them for as long as they come, in one go.
#[derive(Default)]
struct Interim {
    count: AtomicUsize,
    too_many: Notify,
}

impl Interim {
    fn count<B>(request: &mut Request<B>) -> Arc<Interim> {
        let interim = Arc::<Interim>::default();
        let counted = interim.clone();
        on_informational(request, move |_| {
            if counted.count.fetch_add(1, Relaxed) == INTERIM_MAX {
                counted.too_many.notify_one();
            }
        });
        interim
    }

    async fn are_too_many(&self) {
        self.too_many.notified().await;
    }
}

/// The next bytes of an answer. `None`: there are no more.
pub async fn chunk(response: &mut Response<Incoming>) -> Result<Option<Bytes>, hyper::Error> {
    while let Some(frame) = response.frame().await.transpose()? {
        if let Ok(bytes) = frame.into_data() {
            return Ok(Some(bytes));
        }
    }
    Ok(None)
}
