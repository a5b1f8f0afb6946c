//! The operator's headers and credentials, which the requests of a sink carry.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use lockgate_model::request::{is_header_name, is_refused_header};
use lockgate_model::{HeldMask, MASKED_MIN_CHARS, Secret, names_a_secret, percent_encoded};

use crate::{Auth, Endpoint, EndpointError};

/// What the operator sets on every request, credentials included.
pub fn operator_headers(endpoint: &Endpoint) -> Result<HeaderMap, EndpointError> {
    let mut headers = HeaderMap::new();
    for (name, value) in &endpoint.headers {
        if is_refused_header(name) {
            return Err(EndpointError::HeaderRefused(name.clone()));
        }
        let (name, value) = header(name, value.expose())?;
        headers.append(name, value);
    }
    let (name, value) = match &endpoint.auth {
        Auth::None | Auth::Query { .. } | Auth::Hmac(_) | Auth::Aws(_) | Auth::OAuth2(_) => {
            return Ok(headers);
        }
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

pub fn header(name: &str, value: &str) -> Result<(HeaderName, HeaderValue), EndpointError> {
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

impl Endpoint {
    /// Its credentials in every form in which they may be seen, and whose they are. The code that
    /// resolves `${env:…}` and `${file:…}` masks their values, whatever their names.
    pub(crate) fn credentials(&self) -> Vec<Credential> {
        let mut credentials = Vec::new();
        let mut add = |key: &str, secret: &Secret| {
            // In `Splunk TOKEN` and `Bearer TOKEN`, the token alone is a secret, too.
            let value = secret.expose();
            let token = value.split_once(' ').map(|(_, token)| token);
            let texts = [Some(value), token].into_iter().flatten();
            credentials.push(Credential {
                key: key.to_owned(),
                texts: texts.map(Secret::new).collect(),
            });
        };
        match &self.auth {
            Auth::None => {}
            Auth::Bearer(value) => add("auth.bearer", value),
            Auth::Header { value, .. } => add("auth.header.value", value),
            Auth::Query { value, .. } => add("auth.query.value", value),
            Auth::Hmac(auth) => add("auth.hmac.secret", &auth.secret),
            Auth::Aws(auth) => {
                add("auth.aws.secret-key", &auth.secret_key);
                let token = auth.session_token.iter();
                token.for_each(|token| add("auth.aws.session-token", token));
            }
            Auth::OAuth2(auth) => {
                let (id, secret) = (&auth.client_id, &auth.client_secret);
                add("auth.oauth2.client-secret", secret);
                let secret = percent_encoded(secret.expose());
                let shown = basic(&percent_encoded(id), &Secret::new(secret));
                add("auth.oauth2", &Secret::new(shown));
            }
            Auth::Basic { user, password } => {
                add("auth.basic.password", password);
                add("auth.basic", &Secret::new(basic(user, password)));
            }
        }
        // Its access key is an identifier, and so is the client's id of OAuth 2.0.
        for (name, value) in self.headers.iter().filter(|(name, _)| names_a_secret(name)) {
            add(&format!("headers.{name}"), value);
        }
        for (key, url) in [
            ("url", Some(&self.url)),
            ("session-url", self.session_url.as_ref()),
        ] {
            let Some(Ok(url)) = url.map(|url| url::Url::parse(url.expose())) else {
                continue;
            };
            for (_, value) in url.query_pairs().filter(|(name, _)| names_a_secret(name)) {
                add(key, &Secret::new(value));
            }
        }
        if let Some(login) = self.proxy.as_ref().and_then(|proxy| proxy.login.as_ref()) {
            add("proxy", &login.password);
            add("proxy", &Secret::new(basic(&login.user, &login.password)));
        }
        credentials
    }

    /// Masks the credentials in all output from here on.
    pub(crate) fn mask_credentials(&self) {
        for Credential { key, texts } in self.credentials() {
            let masked = texts.iter().map(|text| self.masks.add(text.expose()));
            // All of them: one that is too short hides none of the others.
            if !masked.fold(true, |all, is_masked| all & is_masked) {
                tracing::warn!(
                    pipeline = self.name,
                    key,
                    "this credential is too short to be masked in logs and messages: it has, or a \
                     word of it has, fewer than {MASKED_MIN_CHARS} characters"
                );
            }
        }
    }

    /// Masks the credentials, and these secrets, for as long as the result lives.
    pub(crate) fn hold_masks(&self, secrets: &[Secret]) -> Vec<HeldMask> {
        let credentials = self.credentials();
        let texts = credentials.iter().flat_map(|credential| &credential.texts);
        let texts = texts.chain(secrets);
        texts
            .filter_map(|text| self.masks.hold(text.expose()))
            .collect()
    }
}

/// A credential, with what masks it.
pub(crate) struct Credential {
    key: String,
    texts: Vec<Secret>,
}

pub fn basic(user: &str, password: &Secret) -> String {
    BASE64.encode(format!("{user}:{}", password.expose()))
}
