//! HTTP/1.1 over connections that are kept for a while. A request is sent once, and redirects are
//! not followed.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, HeaderValue, PROXY_AUTHORIZATION, USER_AGENT};
use http::{Extensions, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::{self, Client};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use lockgate_model::OutboundProxy;
use rustls::ClientConfig;

use crate::EndpointError;
use crate::connect::{AGENT, Connector, Past};

/// Fluentd closes idle connections after 10 s without notice, so they are dropped before that.
const IDLE_MAX: Duration = Duration::from_secs(8);

/// Sends requests on its own connections.
#[derive(Clone)]
pub struct HttpClient {
    client: Client<Connector, Full<Bytes>>,
    connector: Connector,
}

/// There is no answer.
#[derive(Debug)]
pub struct Unanswered {
    pub error: legacy::Error,
    /// The connection had been idle, so the receiver may have closed it before the request.
    pub was_idle: bool,
}

impl HttpClient {
    /// `idle_connections`: the most that are kept for each host.
    pub fn new(
        tls: ClientConfig,
        proxy: Option<&OutboundProxy>,
        idle_connections: usize,
    ) -> Result<HttpClient, EndpointError> {
        let connector = Connector::new(tls, proxy)?;
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_MAX)
            .pool_max_idle_per_host(idle_connections)
            .retry_canceled_requests(false)
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
        match self.client.request(request).await {
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
                    error,
                })
            }
        }
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
