//! HTTP connections to one endpoint, and one attempt to send a request.

use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use lockgate_model::request::{
    CheckedRequest, Method, RequestRules, Response, is_header_name, is_refused_header,
};
use lockgate_model::{MASKED_MIN_CHARS, Masks, Millis, Secret, Validity, names_a_secret};
use reqwest::header::{AUTHORIZATION, CONTENT_ENCODING, HeaderMap, HeaderName, HeaderValue};
use rustls::ClientConfig;
use tokio::time::{Instant, timeout_at};

use crate::answer::ResponseReader;
use crate::body::UnkeptBody;
use crate::budget::{Connection, Connections};
use crate::compression::Compressor;
use crate::error::{Attempt, classify};
use crate::handshake::Presented;
use crate::target::Target;
use crate::tls::{self, Authorities};
use crate::{Auth, Endpoint, EndpointError, SendError};

/// Fluentd closes idle connections after 10 s without notice, so they are dropped before that.
const IDLE_MAX: Duration = Duration::from_secs(8);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

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

/// Connections to one endpoint.
pub struct EndpointClient {
    name: String,
    target: Target,
    session_target: Option<Target>,
    /// The operator's headers and credentials, which replace the sink's.
    headers: HeaderMap,
    operator_headers: Vec<String>,
    client_certificate: Option<Presented>,
    compression: Option<Compressor>,
    timeout: Duration,
    masks: Masks,
    clock: fn() -> SystemTime,
    connections: Connections,
    pooled: reqwest::Client,
    /// Never reuses a connection.
    fresh: reqwest::Client,
    /// Whether there has been an answer, so that there may be idle connections.
    answered: AtomicBool,
}

impl EndpointClient {
    /// Checks the endpoint and parses its certificates. Does not connect.
    pub fn new(endpoint: Endpoint) -> Result<EndpointClient, EndpointError> {
        let credential = match &endpoint.auth {
            Auth::Query { name, value } => Some((name.as_str(), value.expose())),
            _ => None,
        };
        let target = Target::parse("url", endpoint.url.expose(), credential)?;
        let session_target = endpoint
            .session_url
            .as_ref()
            .map(|url| Target::parse("session-url", url.expose(), credential))
            .transpose()?;
        if endpoint.connections == 0 {
            return Err(EndpointError::NoConnections);
        }
        let headers = operator_headers(&endpoint)?;
        endpoint.mask_credentials();
        let config = endpoint.tls_config([
            ("url", Some(&target)),
            ("session-url", session_target.as_ref()),
        ])?;
        let client_certificate = endpoint.client_certificate.as_ref();
        let client_certificate = client_certificate
            .map(|client| tls::presented(&client.cert))
            .transpose()?;
        Ok(EndpointClient {
            pooled: http_client(config.clone(), endpoint.connections)?,
            fresh: http_client(config, 0)?,
            operator_headers: headers
                .keys()
                .map(|name| name.as_str().to_owned())
                .collect(),
            headers,
            target,
            session_target,
            client_certificate,
            compression: (endpoint.compression)
                .map(|compression| Compressor::new(compression, endpoint.workers)),
            timeout: endpoint.timeout,
            masks: endpoint.masks,
            clock: endpoint.clock,
            connections: endpoint.budget.join(endpoint.connections),
            answered: AtomicBool::new(false),
            name: endpoint.name,
        })
    }

    /// The file of the client certificate, and when that is valid.
    pub fn client_certificate(&self) -> Option<(&Path, Validity)> {
        let certificate = self.client_certificate.as_ref()?;
        Some((&certificate.file, certificate.validity?))
    }

    /// The pipeline's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The names of the operator's headers, in lower case.
    pub fn operator_headers(&self) -> &[String] {
        &self.operator_headers
    }

    /// The names of the query parameters of the operator's URLs, decoded, credentials included.
    pub fn operator_query(&self) -> Vec<String> {
        let targets = [Some(&self.target), self.session_target.as_ref()];
        let mut names: Vec<String> = targets
            .into_iter()
            .flatten()
            .flat_map(|target| target.query_names())
            .cloned()
            .collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// The rules for a sink's requests, for
    /// [`Request::check`](lockgate_model::request::Request::check). `allow_headers`: names of
    /// headers, in upper or lower case, that the operator allows beyond those that every sink may
    /// set.
    pub fn request_rules(&self, allow_headers: &[String]) -> RequestRules {
        RequestRules {
            operator_headers: self.operator_headers.clone(),
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

    /// [`send_on`](Self::send_on) a connection, once there may be one; that wait does not count
    /// towards the time-out.
    pub async fn send(
        &self,
        request: &CheckedRequest,
        body: impl Fn() -> Bytes,
        destination: Destination,
        response_max: usize,
    ) -> Result<Response, SendError> {
        let connection = self.connection().await;
        self.send_on(connection, request, body, destination, response_max)
            .await
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
    pub async fn send_on(
        &self,
        connection: Connection<'_>,
        request: &CheckedRequest,
        body: impl Fn() -> Bytes,
        destination: Destination,
        response_max: usize,
    ) -> Result<Response, SendError> {
        let target = self.target(destination);
        let method = match request.method() {
            Method::Post => reqwest::Method::POST,
            Method::Put => reqwest::Method::PUT,
            Method::Patch => reqwest::Method::PATCH,
        };
        let url = target
            .join(request.path_suffix(), request.query())
            .map_err(SendError::Request)?;
        let mut headers = self.headers(request)?;
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
            let mut http = reqwest::Request::new(method.clone(), url.clone());
            *http.headers_mut() = headers.clone();
            *http.body_mut() = Some(reqwest::Body::wrap(UnkeptBody::new(bytes)));
            Ok(http)
        };
        // Compressing may have to wait for its turn, which is not the receiver's fault.
        let deadline = OnceLock::new();
        let deadline = || *deadline.get_or_init(|| Instant::now() + self.timeout);
        let is_https = target.is_https();
        let attempt = async |client| {
            let http = http().await?;
            self.attempt(client, http, is_https, deadline()).await
        };
        let mut result = match connection.may_stay {
            true => attempt(&self.pooled).await,
            false => attempt(&self.fresh).await,
        };
        if let Err(error) = &result
            && error.is_stale_connection()
            && self.answered.load(Relaxed)
        {
            tracing::debug!(
                pipeline = self.name,
                "the receiver closed an idle connection; sending again on a fresh one"
            );
            result = attempt(&self.fresh).await;
        }
        let response = result?;
        self.answered.store(true, Relaxed);
        let reader = ResponseReader {
            masks: &self.masks,
            body_max: response_max,
            deadline: deadline(),
            now: (self.clock)(),
            name: &self.name,
        };
        Ok(reader.read(response).await)
    }

    /// Asks the server of the endpoint for its root with `HEAD`, which changes nothing and needs no
    /// credentials but the client certificate. Returns the status: any answer shows that it is
    /// reached.
    pub async fn reach(&self, destination: Destination) -> Result<u16, SendError> {
        let target = self.target(destination);
        let root = target.root().map_err(SendError::Request)?;
        let request = reqwest::Request::new(reqwest::Method::HEAD, root);
        let deadline = Instant::now() + self.timeout.min(CONNECT_TIMEOUT);
        let answer = self.attempt(&self.fresh, request, target.is_https(), deadline);
        answer.await.map(|response| response.status().as_u16())
    }

    fn target(&self, destination: Destination) -> &Target {
        match destination {
            Destination::Url => &self.target,
            Destination::SessionUrl => self.session_target.as_ref().unwrap_or(&self.target),
        }
    }

    async fn attempt(
        &self,
        client: &reqwest::Client,
        request: reqwest::Request,
        is_https: bool,
        deadline: Instant,
    ) -> Result<reqwest::Response, SendError> {
        match timeout_at(deadline, client.execute(request)).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => {
                let attempt = Attempt {
                    is_https,
                    client: self.client_certificate.as_ref().filter(|_| is_https),
                    timeout: self.timeout.min(CONNECT_TIMEOUT),
                    masks: &self.masks,
                    now: millis((self.clock)()),
                };
                Err(classify(&error, &attempt))
            }
            Err(_) => Err(SendError::Timeout(self.timeout)),
        }
    }

    fn headers(&self, request: &CheckedRequest) -> Result<HeaderMap, SendError> {
        let mut headers = HeaderMap::with_capacity(request.headers().len() + self.headers.len());
        for (name, value) in request.headers() {
            let refused = |_| SendError::Request(format!("the header `{name}` cannot be sent"));
            let header = HeaderName::try_from(name).map_err(|error| refused(error.to_string()))?;
            headers.append(
                header,
                HeaderValue::try_from(value).map_err(|error| refused(error.to_string()))?,
            );
        }
        for name in self.headers.keys() {
            headers.remove(name);
        }
        headers.extend(
            self.headers
                .iter()
                .map(|(name, value)| (name.clone(), value.clone())),
        );
        Ok(headers)
    }
}

impl Endpoint {
    /// Masks the credentials in all output from here on. The code that resolves `${env:…}` and
    /// `${file:…}` masks their values, whatever their names.
    fn mask_credentials(&self) {
        let mask = |key: &str, secret: &Secret| {
            // In `Splunk TOKEN` and `Bearer TOKEN`, the token alone is a secret, too.
            let value = secret.expose();
            let token = value.split_once(' ').map(|(_, token)| token);
            if ![Some(value), token]
                .into_iter()
                .flatten()
                .all(|text| self.masks.add(text))
            {
                tracing::warn!(
                    pipeline = self.name,
                    key,
                    "this credential is too short to be masked in logs and messages: it has, or a \
                     word of it has, fewer than {MASKED_MIN_CHARS} characters"
                );
            }
        };
        match &self.auth {
            Auth::None => {}
            Auth::Bearer(value) => mask("auth.bearer", value),
            Auth::Header { value, .. } => mask("auth.header.value", value),
            Auth::Query { value, .. } => mask("auth.query.value", value),
            Auth::Basic { user, password } => {
                mask("auth.basic.password", password);
                self.masks.add(&basic(user, password));
            }
        }
        for (name, value) in self.headers.iter().filter(|(name, _)| names_a_secret(name)) {
            mask(&format!("headers.{name}"), value);
        }
        for (key, url) in [
            ("url", Some(&self.url)),
            ("session-url", self.session_url.as_ref()),
        ] {
            let Some(Ok(url)) = url.map(|url| reqwest::Url::parse(url.expose())) else {
                continue;
            };
            for (_, value) in url.query_pairs().filter(|(name, _)| names_a_secret(name)) {
                mask(key, &Secret::new(value));
            }
        }
    }

    fn tls_config(
        &self,
        targets: [(&'static str, Option<&Target>); 2],
    ) -> Result<ClientConfig, EndpointError> {
        let mut https = false;
        for (setting, target) in targets {
            let Some(target) = target else { continue };
            https |= target.is_https();
            if !target.is_https() && (self.ca.is_some() || self.client_certificate.is_some()) {
                return Err(EndpointError::TlsWithoutHttps(setting));
            }
        }
        let authorities = match &self.ca {
            Some(ca) => Authorities::Given(ca),
            None if https => Authorities::Platform,
            None => Authorities::None,
        };
        tls::config(authorities, self.client_certificate.as_ref())
    }
}

/// Turns off everything that reqwest does by itself: redirects, proxies from the environment,
/// referers, retries.
fn http_client(
    tls: ClientConfig,
    idle_connections: usize,
) -> Result<reqwest::Client, EndpointError> {
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .http1_only()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        .retry(reqwest::retry::never())
        .tcp_nodelay(true)
        .connect_timeout(CONNECT_TIMEOUT)
        .pool_idle_timeout(IDLE_MAX)
        .pool_max_idle_per_host(idle_connections)
        .user_agent(concat!("lockgate/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|error| EndpointError::Setup(error.without_url().to_string()))
}

fn operator_headers(endpoint: &Endpoint) -> Result<HeaderMap, EndpointError> {
    let mut headers = HeaderMap::new();
    for (name, value) in &endpoint.headers {
        if is_refused_header(name) {
            return Err(EndpointError::HeaderRefused(name.clone()));
        }
        let (name, value) = header(name, value.expose())?;
        headers.append(name, value);
    }
    let (name, value) = match &endpoint.auth {
        Auth::None | Auth::Query { .. } => return Ok(headers),
        Auth::Bearer(token) => (AUTHORIZATION.as_str(), format!("Bearer {}", token.expose())),
        Auth::Basic { user, password } => (
            AUTHORIZATION.as_str(),
            format!("Basic {}", basic(user, password)),
        ),
        Auth::Header { name, value } => (name.as_str(), value.expose().to_owned()),
    };
    if is_refused_header(name) && !name.eq_ignore_ascii_case(AUTHORIZATION.as_str()) {
        return Err(EndpointError::HeaderRefused(name.to_owned()));
    }
    let (name, value) = header(name, &value).map_err(|error| match error {
        EndpointError::HeaderValue(_) => EndpointError::AuthValue,
        error => error,
    })?;
    headers.insert(name, value);
    Ok(headers)
}

fn header(name: &str, value: &str) -> Result<(HeaderName, HeaderValue), EndpointError> {
    let valid = |value: &str| {
        value
            .bytes()
            .all(|byte| byte == b' ' || byte.is_ascii_graphic())
    };
    let header = HeaderName::try_from(name)
        .ok()
        .filter(|_| is_header_name(name));
    let header = header.ok_or_else(|| EndpointError::HeaderName(name.to_owned()))?;
    let mut value = HeaderValue::try_from(value)
        .ok()
        .filter(|_| valid(value))
        .ok_or_else(|| EndpointError::HeaderValue(name.to_owned()))?;
    // Keeps the value out of the client's own traces.
    value.set_sensitive(true);
    Ok((header, value))
}

fn millis(time: SystemTime) -> Millis {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as Millis)
}

fn basic(user: &str, password: &Secret) -> String {
    BASE64.encode(format!("{user}:{}", password.expose()))
}
