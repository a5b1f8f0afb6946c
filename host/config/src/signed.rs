//! `auth.hmac`, `auth.aws` and `auth.oauth2`: what the host computes or fetches for each request.

use lockgate_model::Secret;

use crate::auth::Auth;
use crate::issues::Issue;
use crate::plaintext;
use crate::reading::Reading;
use crate::sink::{SECRET_HINT, header_name, header_value};
use crate::url;
use crate::value::Value;

/// `auth.hmac`: a header with an HMAC over the body as it is sent.
#[derive(Clone, Debug, PartialEq)]
pub struct HmacAuth {
    /// `header`.
    pub header: String,
    /// `algorithm`. Default: SHA-256.
    pub algorithm: HmacAlgorithm,
    /// `encoding`. Default: hexadecimal.
    pub encoding: HmacEncoding,
    /// `prefix` of the value. Default: none.
    pub prefix: String,
    /// `secret`: the key.
    pub secret: Secret,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HmacAlgorithm {
    Sha256,
    Sha512,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HmacEncoding {
    Hex,
    Base64,
}

/// `auth.aws`: signatures of version 4.
#[derive(Clone, Debug, PartialEq)]
pub struct AwsAuth {
    pub region: String,
    pub service: String,
    /// `access-key`: its id, which is sent.
    pub access_key: Secret,
    /// `secret-key`.
    pub secret_key: Secret,
    /// `session-token`: of temporary credentials.
    pub session_token: Option<Secret>,
}

/// `auth.oauth2`: client credentials.
#[derive(Clone, Debug, PartialEq)]
pub struct OAuth2Auth {
    /// `token-url`: `http` or `https`.
    pub token_url: Secret,
    pub client_id: String,
    pub client_secret: Secret,
    /// `scopes`. Default: none are asked for.
    pub scopes: Vec<String>,
    /// `credentials`: where the id and the secret of the client are. Default: in `Authorization`.
    pub credentials: ClientCredentials,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientCredentials {
    Basic,
    Body,
}

const ALGORITHMS: [(&str, HmacAlgorithm); 2] = [
    ("sha256", HmacAlgorithm::Sha256),
    ("sha512", HmacAlgorithm::Sha512),
];
const ENCODINGS: [(&str, HmacEncoding); 2] =
    [("hex", HmacEncoding::Hex), ("base64", HmacEncoding::Base64)];
const CREDENTIALS: [(&str, ClientCredentials); 2] = [
    ("basic", ClientCredentials::Basic),
    ("body", ClientCredentials::Body),
];

pub(crate) fn hmac(
    r: &mut Reading<'_>,
    way: &Value<'_>,
    headers: &[(String, Secret)],
) -> Option<Auth> {
    let mut table = way.table(r)?;
    let header = table
        .required("header", "header = \"X-Signature\"")
        .and_then(|value| Some((value.text(r)?, value)));
    let secret = table
        .required("secret", "secret = \"${env:NAME}\"")
        .and_then(|value| value.secret(r, SECRET_HINT));
    let algorithm = table
        .optional("algorithm")
        .and_then(|value| value.choice(r, &ALGORITHMS));
    let encoding = table
        .optional("encoding")
        .and_then(|value| value.choice(r, &ENCODINGS));
    let prefix = table.optional("prefix").and_then(|value| value.text(r));
    table.finish(r);
    let (header, place) = header?;
    let is_good = header_name(r, &header, place.shown(), &place.key_span);
    if is_good
        && headers
            .iter()
            .any(|(name, _)| name.eq_ignore_ascii_case(&header))
    {
        let message = format!("The header `{}` is also set by `headers`.", place.shown());
        let hint = "keep one of them";
        r.issue(Issue::new(place.key_span, message, "duplicate", hint));
    }
    Some(Auth::Hmac(HmacAuth {
        header,
        algorithm: algorithm.unwrap_or(HmacAlgorithm::Sha256),
        encoding: encoding.unwrap_or(HmacEncoding::Hex),
        prefix: prefix.unwrap_or_default(),
        secret: secret?,
    }))
}

pub(crate) fn aws(r: &mut Reading<'_>, way: &Value<'_>) -> Option<Auth> {
    let mut table = way.table(r)?;
    let region = table.required("region", "region = \"eu-central-1\"");
    let region = region.and_then(|value| word(r, &value));
    let service = table.required("service", "service = \"es\"");
    let service = service.and_then(|value| word(r, &value));
    let access_key = table
        .required("access-key", "access-key = \"${env:AWS_ACCESS_KEY_ID}\"")
        .and_then(|value| header_value(r, &value));
    let secret_key = table
        .required(
            "secret-key",
            "secret-key = \"${env:AWS_SECRET_ACCESS_KEY}\"",
        )
        .and_then(|value| value.secret(r, SECRET_HINT));
    let session_token = table
        .optional("session-token")
        .map(|value| header_value(r, &value));
    table.finish(r);
    Some(Auth::Aws(AwsAuth {
        region: region?,
        service: service?,
        access_key: access_key?,
        secret_key: secret_key?,
        session_token: session_token.flatten(),
    }))
}

/// `allow_plaintext`: the token may be asked for without TLS.
pub(crate) fn oauth2(r: &mut Reading<'_>, way: &Value<'_>, allow_plaintext: bool) -> Option<Auth> {
    let mut table = way.table(r)?;
    let token_url = table
        .required(
            "token-url",
            "token-url = \"https://login.example.com/oauth2/token\"",
        )
        .and_then(|value| {
            let url = value.secret(r, "for example `https://login.example.com/oauth2/token`")?;
            if let Some((problem, hint)) = url::problem(url.expose()) {
                let message = format!("`{}` {problem}.", value.path);
                r.issue(Issue::new(value.key_span.clone(), message, "", hint));
                return None;
            }
            if !allow_plaintext {
                let secret = (way.path.clone(), way.key_span.clone());
                plaintext::check(r, &value, &url, &[secret]);
            }
            Some(url)
        });
    let client_id = table
        .required("client-id", "client-id = \"lockgate\"")
        .and_then(|value| value.secret(r, SECRET_HINT));
    let client_secret = table
        .required("client-secret", "client-secret = \"${env:NAME}\"")
        .and_then(|value| value.secret(r, SECRET_HINT));
    let scopes = table.optional("scopes");
    let scopes = scopes.and_then(|value| value.texts(r, "scopes = [\"logs.write\"]"));
    let credentials = table
        .optional("credentials")
        .and_then(|value| value.choice(r, &CREDENTIALS));
    table.finish(r);
    let scopes = scopes.unwrap_or_default().into_iter();
    Some(Auth::OAuth2(OAuth2Auth {
        token_url: token_url?,
        client_id: client_id?.expose().to_owned(),
        client_secret: client_secret?,
        scopes: scopes.map(|scope| scope.text).collect(),
        credentials: credentials.unwrap_or(ClientCredentials::Basic),
    }))
}

/// A part of the scope of a signature.
fn word(r: &mut Reading<'_>, value: &Value<'_>) -> Option<String> {
    let text = value.text(r)?;
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    if !text.is_empty() && text.bytes().all(is_word) {
        return Some(text);
    }
    let message = format!("`{}` is not a name of AWS.", value.path);
    let hint = "use the short name, such as `eu-central-1` or `es`";
    r.issue(Issue::new(
        value.key_span.clone(),
        message,
        "letters, digits and `-`",
        hint,
    ));
    None
}
