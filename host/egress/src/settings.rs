//! All that the operator configures for the requests to an endpoint, checked and ready for use.

use std::sync::Arc;
use std::time::SystemTime;

use http::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Uri};
use lockgate_model::request::CheckedRequest;
use lockgate_model::{HeldMask, Masks, OutboundProxy};
use rustls::ClientConfig;
use tokio::time::Instant;
use url::Url;

use crate::address::Resolver;
use crate::handshake::Presented;
use crate::headers::operator_headers;
use crate::http_client::HttpClient;
use crate::oauth2::TokenSource;
use crate::proxy;
use crate::signer::Signer;
use crate::target::Target;
use crate::tls::{self, Authorities};
use crate::{Auth, Destination, Endpoint, EndpointError, SendError};

/// Targets, credentials, and the connections that are made with them.
pub struct Settings {
    target: Target,
    session_target: Option<Target>,
    /// The operator's headers and credentials, which replace the sink's.
    headers: HeaderMap,
    pub client_certificate: Option<Presented>,
    signer: Option<Signer>,
    tokens: Option<TokenSource>,
    proxy: Option<OutboundProxy>,
    pub pooled: HttpClient,
    /// Never reuses a connection.
    pub fresh: HttpClient,
    /// Of credentials that were read again.
    pub masks: Arc<Vec<HeldMask>>,
}

impl Settings {
    /// Checks the endpoint and parses its certificates. Does not connect. Its credentials are to
    /// be masked by then. `masks`: for the tokens that a server gives.
    pub fn new(
        endpoint: &Endpoint,
        masks: &Masks,
        resolver: &Resolver,
    ) -> Result<Settings, EndpointError> {
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
        let targets = [
            ("url", Some(&target)),
            ("session-url", session_target.as_ref()),
        ];
        for (setting, target) in targets {
            if !endpoint.allow_link_local && target.is_some_and(Target::is_of_link) {
                return Err(EndpointError::LinkLocal(setting));
            }
        }
        if endpoint.connections == 0 {
            return Err(EndpointError::NoConnections);
        }
        let headers = operator_headers(endpoint)?;
        let signer = Signer::new(&endpoint.auth)?;
        let tokens = token_source(endpoint, masks, resolver)?;
        let config = endpoint.tls_config(targets)?;
        let client_certificate = endpoint.client_certificate.as_ref();
        let client_certificate = client_certificate
            .map(|client| tls::presented(&client.cert))
            .transpose()?;
        Ok(Settings {
            pooled: HttpClient::new(
                config.clone(),
                endpoint.proxy.as_ref(),
                resolver,
                endpoint.connections,
            )?,
            fresh: HttpClient::new(config, endpoint.proxy.as_ref(), resolver, 0)?,
            proxy: endpoint.proxy.clone(),
            headers,
            signer,
            tokens,
            target,
            session_target,
            client_certificate,
            masks: Arc::default(),
        })
    }

    pub fn target(&self, destination: Destination) -> &Target {
        match destination {
            Destination::Url => &self.target,
            Destination::SessionUrl => self.session_target.as_ref().unwrap_or(&self.target),
        }
    }

    /// Those of a request: the sink's, and the operator's in their place.
    pub fn headers(&self, request: &CheckedRequest) -> Result<HeaderMap, SendError> {
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

    /// The value of `Authorization`, if it is a token that a server gives.
    pub async fn token(&self, deadline: Instant) -> Result<Option<HeaderValue>, SendError> {
        match &self.tokens {
            Some(tokens) => tokens.header(deadline).await.map(Some),
            None => Ok(None),
        }
    }

    /// Another token than the one that the receiver does not accept, if there is one.
    pub async fn other_token(
        &self,
        refused: &HeaderValue,
        deadline: Instant,
    ) -> Option<HeaderValue> {
        self.tokens.as_ref()?.other_than(refused, deadline).await
    }

    /// Signs a request as it is sent.
    pub fn sign(
        &self,
        (method, url): (&Method, &Url),
        headers: &mut HeaderMap,
        body: &[u8],
        now: SystemTime,
    ) -> Result<(), SendError> {
        let Some(signer) = &self.signer else {
            return Ok(());
        };
        signer
            .sign(method.as_str(), url, headers, body, now)
            .map_err(|error| SendError::Other(format!("it cannot be signed: {error}")))
    }

    /// The proxy that a request to this URL goes through.
    pub fn proxy_of(&self, uri: &Uri) -> Option<&OutboundProxy> {
        self.proxy
            .as_ref()
            .filter(|proxy| proxy::serves(proxy, uri))
    }

    /// The names of the operator's headers, in lower case.
    pub fn operator_headers(&self) -> Vec<String> {
        let mut names: Vec<HeaderName> = self.headers.keys().cloned().collect();
        names.extend(self.signer.iter().flat_map(Signer::names));
        names.extend(self.tokens.as_ref().map(|_| AUTHORIZATION));
        names.iter().map(|name| name.as_str().to_owned()).collect()
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
}

fn token_source(
    endpoint: &Endpoint,
    masks: &Masks,
    resolver: &Resolver,
) -> Result<Option<TokenSource>, EndpointError> {
    let Auth::OAuth2(auth) = &endpoint.auth else {
        return Ok(None);
    };
    // The token server is rarely the receiver: its certificate may be signed by other authorities
    // than those in `ca`.
    let is_https = auth
        .token_url
        .expose()
        .to_ascii_lowercase()
        .starts_with("https:");
    let authorities = match &endpoint.ca {
        _ if !is_https => Authorities::None,
        Some(ca) => Authorities::Also(ca),
        None => Authorities::Platform,
    };
    let http = HttpClient::new(
        tls::config(authorities, None)?,
        endpoint.proxy.as_ref(),
        resolver,
        1,
    )?;
    TokenSource::new(auth.clone(), http, masks.clone()).map(Some)
}

impl Endpoint {
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
