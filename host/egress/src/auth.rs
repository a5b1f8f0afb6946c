//! The ways in which the host authenticates to a receiver.

use lockgate_model::Secret;

/// Credentials that are part of the request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Auth {
    #[default]
    None,
    /// `Authorization: Bearer …` (RFC 6750).
    Bearer(Secret),
    /// `Authorization: Basic …` (RFC 7617).
    Basic { user: String, password: Secret },
    /// Another header of the receiver, or `Authorization` with another scheme.
    Header { name: String, value: Secret },
    /// A query parameter of the URL.
    Query { name: String, value: Secret },
    /// A header with an HMAC over the body as it is sent.
    Hmac(HmacAuth),
    /// Signatures of AWS, version 4.
    Aws(AwsAuth),
    /// `Authorization: Bearer …` with a token of OAuth 2.0.
    OAuth2(OAuth2Auth),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HmacAuth {
    pub header: String,
    pub algorithm: HmacAlgorithm,
    pub encoding: HmacEncoding,
    /// Before the encoded value, such as `sha256=`.
    pub prefix: String,
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

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AwsAuth {
    pub region: String,
    /// Such as `es` or `s3`.
    pub service: String,
    pub access_key: Secret,
    pub secret_key: Secret,
    /// Of temporary credentials.
    pub session_token: Option<Secret>,
}

/// Client credentials (RFC 6749, 4.4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OAuth2Auth {
    pub token_url: Secret,
    pub client_id: String,
    pub client_secret: Secret,
    pub scopes: Vec<String>,
    pub credentials: ClientCredentials,
}

/// How a client shows its id and secret to the token server (RFC 6749, 2.3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientCredentials {
    Basic,
    Body,
}
