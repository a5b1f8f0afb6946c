//! Tokens of OAuth 2.0 by client credentials (RFC 6749, 4.4). They are kept until shortly before
//! they expire, and never logged.

use std::error::Error;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use http::{Method, Request, Uri};
use http_body_util::Full;
use lockgate_model::{HeldMask, LINE_MAX, Masks, escape, percent_encoded};
use serde_json::Value;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout_at};
use url::{Position, Url};

use crate::error::innermost;
use crate::http_client::{HttpClient, chunk};
use crate::{ClientCredentials, EndpointError, OAuth2Auth, SendError};

/// Of a token whose answer does not say how long it is valid.
const LIFETIME: Duration = Duration::from_secs(300);
/// A token is renewed so long before it expires, or half of its life if that is shorter.
const AHEAD: Duration = Duration::from_secs(60);
/// Between attempts to renew a token that is still valid.
const RETRY: Duration = Duration::from_secs(10);
const TIMEOUT: Duration = Duration::from_secs(10);
const ANSWER_MAX: usize = 64 * 1024;
/// Bytes. Servers take heads of 8 to 64 KiB.
const TOKEN_MAX: usize = 16 * 1024;

const UNREACHABLE: &str =
    "check `token-url` in `auth.oauth2`, and that this machine may connect there";
const REFUSED: &str =
    "check `client-id`, `client-secret`, `scopes` and `credentials` in `auth.oauth2`";

/// Where the tokens of an endpoint come from, and the present one.
pub struct TokenSource {
    auth: OAuth2Auth,
    uri: Uri,
    http: HttpClient,
    masks: Masks,
    current: Mutex<Option<Token>>,
}

struct Token {
    header: HeaderValue,
    renew_at: Instant,
    until: Instant,
    /// Its own, and that of the one before.
    _masks: [Option<HeldMask>; 2],
}

impl TokenSource {
    pub fn new(
        auth: OAuth2Auth,
        http: HttpClient,
        masks: Masks,
    ) -> Result<TokenSource, EndpointError> {
        let uri = token_uri(&auth)?;
        Ok(TokenSource {
            auth,
            uri,
            http,
            masks,
            current: Mutex::new(None),
        })
    }

    /// The value of `Authorization`. Asks for a token if there is none, or the present one expires
    /// soon; as long as that is valid, a failure changes nothing.
    pub async fn header(&self, deadline: Instant) -> Result<HeaderValue, SendError> {
        // Whoever waits here finds the token that the first one gets.
        let mut current = self.current.lock().await;
        let now = Instant::now();
        if let Some(token) = current.as_ref().filter(|token| now < token.renew_at) {
            return Ok(token.header.clone());
        }
        match self.fetch(deadline).await {
            Ok((header, lifetime, mask)) => {
                let before = current.take();
                let before = before.and_then(|token| token._masks.into_iter().next().flatten());
                *current = Some(Token {
                    header: header.clone(),
                    renew_at: now + lifetime.saturating_sub(AHEAD).max(lifetime / 2),
                    until: now + lifetime,
                    _masks: [mask, before],
                });
                Ok(header)
            }
            Err(error) => match current.as_mut().filter(|token| now < token.until) {
                Some(token) => {
                    token.renew_at = now + RETRY;
                    Ok(token.header.clone())
                }
                None => Err(error),
            },
        }
    }

    /// The receiver does not accept this token (401): another one, if there is one.
    pub async fn other_than(
        &self,
        refused: &HeaderValue,
        deadline: Instant,
    ) -> Option<HeaderValue> {
        let mut current = self.current.lock().await;
        if let Some(token) = current.as_mut().filter(|token| token.header == *refused) {
            token.renew_at = Instant::now();
            token.until = token.renew_at;
        }
        drop(current);
        let header = self.header(deadline).await.ok()?;
        (header != *refused).then_some(header)
    }

    async fn fetch(
        &self,
        deadline: Instant,
    ) -> Result<(HeaderValue, Duration, Option<HeldMask>), SendError> {
        let deadline = deadline.min(Instant::now() + TIMEOUT);
        let (status, body) = match timeout_at(deadline, self.ask()).await {
            Ok(answer) => answer?,
            Err(_) => return Err(self.failed("does not answer", Some(UNREACHABLE), false)),
        };
        let answer: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
        let text = |key: &str| answer[key].as_str().unwrap_or_default();
        let token = text("access_token");
        if status != 200 || token.is_empty() {
            let words = [text("error"), text("error_description")];
            let words = words.into_iter().filter(|word| !word.is_empty());
            let words: Vec<&str> = words.collect();
            let said = match words.as_slice() {
                [] if status == 200 => "without a token".to_owned(),
                [] => status.to_string(),
                words => format!("{status}: {}", words.join(": ")),
            };
            let said = escape(&self.masks.mask(&said), LINE_MAX).into_owned();
            // 429 and 5xx pass; the rest is for the operator.
            let passes = status == 429 || status >= 500;
            let hint = (!passes).then_some(REFUSED);
            return Err(self.failed(&format!("answered {said}"), hint, !passes));
        }
        let kind = text("token_type");
        if !kind.is_empty() && !kind.eq_ignore_ascii_case("bearer") {
            let kind = escape(kind, 64);
            let what = format!("gives tokens of the type `{kind}`, not `Bearer`");
            return Err(self.failed(&what, None, true));
        }
        let refused = || {
            let kibibytes = TOKEN_MAX / 1024;
            let what = format!(
                "gives a token longer than {kibibytes} KiB, or with characters that RFC 6750 does \
                 not allow"
            );
            self.failed(&what, None, true)
        };
        if !is_bearer_token(token) {
            return Err(refused());
        }
        // Before anything can be seen that repeats it.
        let mask = self.masks.hold(token);
        let mut header = HeaderValue::try_from(format!("Bearer {token}")).map_err(|_| refused())?;
        header.set_sensitive(true);
        let lifetime = &answer["expires_in"];
        let seconds = lifetime
            .as_u64()
            .or_else(|| lifetime.as_str()?.parse().ok());
        let lifetime = seconds.map_or(LIFETIME, |seconds| Duration::from_secs(seconds.min(86_400)));
        Ok((header, lifetime, mask))
    }

    async fn ask(&self) -> Result<(u16, Vec<u8>), SendError> {
        let OAuth2Auth {
            client_id,
            client_secret,
            scopes,
            credentials,
            ..
        } = &self.auth;
        let mut form = "grant_type=client_credentials".to_owned();
        if !scopes.is_empty() {
            form += &format!("&scope={}", percent_encoded(&scopes.join(" ")));
        }
        let (id, secret) = (
            percent_encoded(client_id),
            percent_encoded(client_secret.expose()),
        );
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        let form_type = HeaderValue::from_static("application/x-www-form-urlencoded");
        headers.insert(CONTENT_TYPE, form_type);
        match credentials {
            ClientCredentials::Basic => {
                let text = format!("Basic {}", BASE64.encode(format!("{id}:{secret}")));
                let mut value = HeaderValue::try_from(text)
                    .map_err(|error| self.failed(&error.to_string(), None, true))?;
                value.set_sensitive(true);
                headers.insert(AUTHORIZATION, value);
            }
            ClientCredentials::Body => {
                form += &format!("&client_id={id}&client_secret={secret}");
            }
        }
        let unreachable = |error: &(dyn Error + 'static)| {
            let reason = innermost(error).to_string();
            let reason = escape(&self.masks.mask(&reason), LINE_MAX).into_owned();
            let what = format!("cannot be reached: {reason}");
            self.failed(&what, Some(UNREACHABLE), false)
        };
        let mut request = Request::new(Full::from(form));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = headers;
        let answer = self.http.send(request).await;
        let mut response = answer.map_err(|unanswered| unreachable(&unanswered.error))?;
        let status = response.status().as_u16();
        let mut body = Vec::new();
        while let Some(chunk) = chunk(&mut response)
            .await
            .map_err(|error| unreachable(&error))?
        {
            body.extend_from_slice(&chunk);
            if body.len() > ANSWER_MAX {
                return Err(self.failed("answers with more than a token", None, true));
            }
        }
        Ok((status, body))
    }

    /// `what`: what the token server does.
    fn failed(&self, what: &str, hint: Option<&'static str>, needs_operator: bool) -> SendError {
        let host = self.uri.host().unwrap_or_default();
        SendError::Token {
            message: format!("there is no token for the receiver: `{host}` {what}"),
            hint,
            needs_operator,
        }
    }
}

/// RFC 6750, 2.1.
fn is_bearer_token(token: &str) -> bool {
    let characters = token.trim_end_matches('=');
    let is_one = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte);
    !characters.is_empty() && characters.bytes().all(is_one) && token.len() <= TOKEN_MAX
}

fn token_uri(auth: &OAuth2Auth) -> Result<Uri, EndpointError> {
    const SETTING: &str = "auth.oauth2.token-url";
    let url = Url::parse(auth.token_url.expose())
        .map_err(|error| EndpointError::Url(SETTING, error.to_string()))?;
    if !matches!(url.scheme(), "https" | "http") {
        return Err(EndpointError::Scheme(SETTING));
    }
    let refused = |reason: String| EndpointError::Url(SETTING, reason);
    if !url.username().is_empty() || url.password().is_some() {
        let reason = "it has a user name or a password; write `client-id` and `client-secret`";
        return Err(refused(reason.to_owned()));
    }
    (url[..Position::AfterQuery].parse())
        .map_err(|error: http::uri::InvalidUri| refused(error.to_string()))
}

#[cfg(test)]
mod tests {
    use lockgate_model::Secret;

    use super::*;

    #[test]
    fn only_what_may_be_a_bearer_token_is_one() {
        for (token, expected) in [
            ("eyJhbGciOi.J9-_~+/x==", true),
            ("t", true),
            ("", false),
            ("==", false),
            ("a=b", false),
            ("two words", false),
            ("\"errors\":false", false),
            ("a\r\nb", false),
            ("größe", false),
        ] {
            assert_eq!(is_bearer_token(token), expected, "{token:?}");
        }
        assert!(is_bearer_token(&"a".repeat(TOKEN_MAX)));
        assert!(!is_bearer_token(&"a".repeat(TOKEN_MAX + 1)));
    }

    #[test]
    fn a_server_of_tokens_is_named_by_a_url_without_credentials() {
        let uri = |url: &str| {
            token_uri(&OAuth2Auth {
                token_url: Secret::new(url),
                client_id: "lockgate".into(),
                client_secret: Secret::new("cl1ent-secret"),
                scopes: vec![],
                credentials: ClientCredentials::Basic,
            })
        };
        let expected = Uri::from_static("https://login.example.com/t?a=b");
        assert_eq!(uri("https://login.example.com/t?a=b#c"), Ok(expected));
        for (url, words) in [
            ("ftp://login.example.com/", "must start with `https://`"),
            ("login", "is not a URL: "),
            ("https://me:hunter22@login.example.com/", "`client-secret`"),
        ] {
            let error = uri(url).unwrap_err().to_string();
            assert!(error.starts_with("`auth.oauth2.token-url`"), "{error}");
            assert!(error.contains(words), "{error}");
            assert!(!error.contains("hunter22"), "{error}");
        }
    }
}
