//! HTTP connections to one endpoint, and one attempt to send a request.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_ENCODING, HeaderValue};
use http::{Method, Request, StatusCode, Uri};
use http_body_util::Full;
use hyper::body::Incoming;
use lockgate_model::request::{CheckedRequest, Method as Asked, RequestRules, Response};
use lockgate_model::{HeldMask, Masks, Millis, Secret, Validity};
use tokio::time::{Instant, timeout_at};
use url::Url;

use crate::address::Resolver;
use crate::answer::ResponseReader;
use crate::budget::{Connection, Connections};
use crate::compression::Compressor;
use crate::connect::{CONNECT_TIMEOUT, is_https};
use crate::error::{Attempt, classify};
use crate::http_client::{HttpClient, Unanswered};
use crate::proxy;
use crate::settings::Settings;
use crate::{Endpoint, EndpointError, SendError};

/// Credentials that were in use before are masked until so many others have been.
const PREVIOUS_MASKED: usize = 8;

/// The URL of an endpoint that a request goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination {
    Url,
    /// `url` if the operator gave no `session-url`.
    SessionUrl,
}

impl Destination {
    /// The key in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Destination::Url => "url",
            Destination::SessionUrl => "session-url",
        }
    }
}

/// A request, and how it is sent.
struct Outgoing<'a> {
    request: &'a CheckedRequest,
    destination: Destination,
    may_stay: bool,
}

/// Connections to one endpoint.
pub struct EndpointClient {
    name: String,
    settings: RwLock<Arc<Settings>>,
    /// How often the settings were renewed.
    renewals: AtomicU64,
    /// Masks of credentials that were renewed: answers may still repeat those before.
    previous: Mutex<VecDeque<Arc<Vec<HeldMask>>>>,
    compression: Option<Compressor>,
    timeout: Duration,
    /// Those of the process, and the tokens that a server gives for this endpoint.
    masks: Masks,
    /// Of the process.
    process_masks: Masks,
    resolver: Resolver,
    clock: fn() -> SystemTime,
    connections: Connections,
}

impl EndpointClient {
    /// Checks the endpoint and parses its certificates. Does not connect.
    pub fn new(endpoint: Endpoint) -> Result<EndpointClient, EndpointError> {
        endpoint.mask_credentials();
        let (masks, resolver) = (endpoint.masks.scope(), Resolver::default());
        let settings = Settings::new(&endpoint, &masks, &resolver)?;
        Ok(EndpointClient {
            settings: RwLock::new(Arc::new(settings)),
            renewals: AtomicU64::new(0),
            previous: Mutex::default(),
            compression: (endpoint.compression)
                .map(|compression| Compressor::new(compression, endpoint.workers)),
            timeout: endpoint.timeout,
            masks,
            process_masks: endpoint.masks,
            resolver,
            clock: endpoint.clock,
            connections: endpoint.budget.join(endpoint.connections),
            name: endpoint.name,
        })
    }

    /// Requests from now on use the credentials of this endpoint, on new connections. Those that
    /// have begun end as they are. Nothing changes if it cannot be used.
    ///
    /// `secrets`: values of the operator's references, to be masked like the credentials.
    pub fn renew(&self, endpoint: &Endpoint, secrets: &[Secret]) -> Result<(), EndpointError> {
        let endpoint = Endpoint {
            masks: self.process_masks.clone(),
            ..endpoint.clone()
        };
        // Before anything can be seen that repeats them.
        let masks = endpoint.hold_masks(secrets);
        let mut renewed = Settings::new(&endpoint, &self.masks, &self.resolver)?;
        renewed.masks = Arc::new(masks);
        let mut settings = self
            .settings
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *settings, Arc::new(renewed));
        drop(settings);
        self.renewals.fetch_add(1, Relaxed);
        let mut previous = self.previous.lock().unwrap_or_else(PoisonError::into_inner);
        previous.push_back(before.masks.clone());
        if previous.len() > PREVIOUS_MASKED {
            previous.pop_front();
        }
        Ok(())
    }

    /// How often it was [renewed](Self::renew).
    pub fn renewals(&self) -> u64 {
        self.renewals.load(Relaxed)
    }

    /// The file of the client certificate, and when that is valid.
    pub fn client_certificate(&self) -> Option<(PathBuf, Validity)> {
        let settings = self.settings();
        let certificate = settings.client_certificate.as_ref()?;
        Some((certificate.file.clone(), certificate.validity?))
    }

    fn settings(&self) -> Arc<Settings> {
        let settings = self.settings.read().unwrap_or_else(PoisonError::into_inner);
        settings.clone()
    }

    /// The pipeline's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The names of the operator's headers, in lower case.
    pub fn operator_headers(&self) -> Vec<String> {
        self.settings().operator_headers()
    }

    /// The names of the query parameters of the operator's URLs, decoded, credentials included.
    pub fn operator_query(&self) -> Vec<String> {
        self.settings().operator_query()
    }

    /// The rules for a sink's requests, for
    /// [`Request::check`](lockgate_model::request::Request::check). `allow_headers`: names of
    /// headers, in upper or lower case, that the operator allows beyond those that every sink may
    /// set.
    pub fn request_rules(&self, allow_headers: &[String]) -> RequestRules {
        RequestRules {
            operator_headers: self.operator_headers(),
            allowed_headers: allow_headers
                .iter()
                .map(|name| name.to_ascii_lowercase())
                .collect(),
            operator_query: self.operator_query(),
        }
    }

    /// The most requests at the same time: as many as the operator allows, or fewer if all
    /// endpoints together could take more file descriptors than there are for them.
    pub fn most_at_once(&self) -> usize {
        self.connections.most()
    }

    /// It may have fewer connections than the operator allows, for lack of file descriptors.
    pub fn is_short_of_descriptors(&self) -> bool {
        self.connections.are_short()
    }

    /// Waits for leave to have one more connection.
    pub async fn connection(&self) -> Connection<'_> {
        self.connections.next().await
    }

    /// Sends a request once and returns the answer, whatever its status.
    ///
    /// If the connection turns out to be closed, the request is sent a second time, at once and on
    /// a fresh connection: receivers close idle connections without notice. A receiver may
    /// therefore see a request twice, as with every retry.
    ///
    /// `body`: assembles the body of the request, each time that it is sent.
    ///
    /// `response_max`: bytes of the answer's body to return. Longer bodies are truncated.
    pub async fn send(
        &self,
        connection: Connection<'_>,
        request: &CheckedRequest,
        body: impl Fn() -> Bytes,
        destination: Destination,
        response_max: usize,
    ) -> Result<Response, SendError> {
        let settings = self.settings();
        let token = settings.token(Instant::now() + self.timeout).await?;
        let outgoing = Outgoing {
            request,
            destination,
            may_stay: connection.may_stay,
        };
        let (mut response, mut deadline) = self
            .send_once(&settings, &outgoing, &body, token.as_ref())
            .await?;
        if let Some(refused) = token.filter(|_| response.status() == StatusCode::UNAUTHORIZED)
            && let Some(token) = settings.other_token(&refused, deadline).await
        {
            (response, deadline) = self
                .send_once(&settings, &outgoing, &body, Some(&token))
                .await?;
        }
        let reader = ResponseReader {
            masks: &self.masks,
            body_max: response_max,
            deadline,
            now: (self.clock)(),
            name: &self.name,
        };
        Ok(reader.read(response).await)
    }

    /// Sends a request, and once more if its connection was closed already. Also returns until when
    /// the rest of the answer is waited for.
    async fn send_once(
        &self,
        settings: &Settings,
        outgoing: &Outgoing<'_>,
        body: &impl Fn() -> Bytes,
        token: Option<&HeaderValue>,
    ) -> Result<(http::Response<Incoming>, Instant), SendError> {
        let Outgoing {
            request,
            destination,
            may_stay,
        } = *outgoing;
        let target = settings.target(destination);
        let method = match request.method() {
            Asked::Post => Method::POST,
            Asked::Put => Method::PUT,
            Asked::Patch => Method::PATCH,
        };
        let url = target
            .join(request.path_suffix(), request.query())
            .map_err(SendError::Request)?;
        let uri = uri(&url)?;
        let mut headers = settings.headers(request)?;
        if let Some(token) = token {
            headers.insert(AUTHORIZATION, token.clone());
        }
        // What the sink has encoded itself stays as it is.
        let compression = self
            .compression
            .as_ref()
            .filter(|_| !headers.contains_key(CONTENT_ENCODING));
        if let Some(compression) = compression {
            headers.insert(CONTENT_ENCODING, compression.header());
        }
        let http = async || {
            let mut bytes = body();
            if let Some(compression) = compression {
                let compressed = compression.compress(bytes).await;
                bytes = compressed.map_err(|error| {
                    SendError::Other(format!("its body cannot be compressed: {error}"))
                })?;
            }
            let mut headers = headers.clone();
            settings.sign((&method, &url), &mut headers, &bytes, (self.clock)())?;
            let mut http = Request::new(Full::new(bytes));
            *http.method_mut() = method.clone();
            *http.uri_mut() = uri.clone();
            *http.headers_mut() = headers;
            Ok::<_, SendError>(http)
        };
        // Compressing may have to wait for its turn, which is not the receiver's fault.
        let deadline = OnceLock::new();
        let deadline = || *deadline.get_or_init(|| Instant::now() + self.timeout);
        let first = match may_stay {
            true => &settings.pooled,
            false => &settings.fresh,
        };
        let http_request = http().await?;
        let mut result = self
            .attempt(settings, first, http_request, deadline())
            .await;
        if let Err(Failed {
            error: SendError::Closed,
            was_idle: true,
        }) = result
        {
            tracing::debug!(
                pipeline = self.name,
                "the receiver closed the connection before it answered; sending once more on a \
                 fresh one"
            );
            let http_request = http().await?;
            result = self
                .attempt(settings, &settings.fresh, http_request, deadline())
                .await;
        }
        match result {
            Ok(response) => Ok((response, deadline())),
            Err(failed) => Err(failed.error),
        }
    }

    /// Asks the server of the endpoint for its root with `HEAD`, which changes nothing and needs no
    /// credentials but the client certificate. Returns the status: any answer shows that it is
    /// reached.
    pub async fn reach(&self, destination: Destination) -> Result<u16, SendError> {
        let settings = self.settings();
        let target = settings.target(destination);
        let root = target.root().map_err(SendError::Request)?;
        let mut request = Request::new(Full::default());
        *request.method_mut() = Method::HEAD;
        *request.uri_mut() = uri(&root)?;
        let deadline = Instant::now() + self.timeout.min(CONNECT_TIMEOUT);
        let answer = self.attempt(&settings, &settings.fresh, request, deadline);
        match answer.await {
            Ok(response) => Ok(response.status().as_u16()),
            Err(failed) => Err(failed.error),
        }
    }

    async fn attempt(
        &self,
        settings: &Settings,
        client: &HttpClient,
        request: Request<Full<Bytes>>,
        deadline: Instant,
    ) -> Result<http::Response<Incoming>, Failed> {
        let is_https = is_https(request.uri());
        let proxy = settings.proxy_of(request.uri());
        match timeout_at(deadline, client.send(request)).await {
            Ok(Ok(response)) => match proxy {
                Some(proxy) if response.status() == StatusCode::PROXY_AUTHENTICATION_REQUIRED => {
                    Err(proxy::login(proxy).into())
                }
                _ => Ok(response),
            },
            Ok(Err(Unanswered { error, was_idle })) => {
                let attempt = Attempt {
                    is_https,
                    client: settings.client_certificate.as_ref().filter(|_| is_https),
                    timeout: self.timeout.min(CONNECT_TIMEOUT),
                    proxy,
                    masks: &self.masks,
                    now: millis((self.clock)()),
                };
                let error = classify(&error, &attempt);
                Err(Failed { error, was_idle })
            }
            Err(_) => Err(SendError::Timeout(self.timeout).into()),
        }
    }
}

/// An attempt without an answer.
struct Failed {
    error: SendError,
    /// The connection had been idle, so the receiver may have closed it before the request.
    was_idle: bool,
}

impl From<SendError> for Failed {
    fn from(error: SendError) -> Failed {
        Failed {
            error,
            was_idle: false,
        }
    }
}

fn uri(url: &Url) -> Result<Uri, SendError> {
    let uri = url.as_str().parse();
    uri.map_err(|error| SendError::Request(format!("its URL cannot be used: {error}")))
}

fn millis(time: SystemTime) -> Millis {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as Millis)
}
