//! Requests that are signed as they are sent: with a key that both sides have, or as AWS does it.

use std::time::SystemTime;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use ring::hmac;
use url::Url;

use crate::aws::{self, hex};
use crate::headers::header;
use crate::{Auth, AwsAuth, EndpointError, HmacAlgorithm, HmacAuth, HmacEncoding};

/// Signs each request once its body is as it is sent.
pub enum Signer {
    Hmac { name: HeaderName, auth: HmacAuth },
    Aws(AwsAuth),
}

impl Signer {
    /// `None`: these credentials need no signature.
    pub fn new(auth: &Auth) -> Result<Option<Signer>, EndpointError> {
        Ok(match auth {
            Auth::Hmac(auth) => {
                let (name, _) = header(&auth.header, &auth.prefix)?;
                let auth = auth.clone();
                Some(Signer::Hmac { name, auth })
            }
            Auth::Aws(auth) => {
                if let Some(token) = &auth.session_token {
                    header(aws::TOKEN.as_str(), token.expose())
                        .map_err(|_| EndpointError::AuthValue)?;
                }
                header("authorization", auth.access_key.expose())
                    .map_err(|_| EndpointError::AuthValue)?;
                Some(Signer::Aws(auth.clone()))
            }
            _ => None,
        })
    }

    /// The headers that it sets.
    pub fn names(&self) -> Vec<HeaderName> {
        match self {
            Signer::Hmac { name, .. } => vec![name.clone()],
            Signer::Aws(_) => vec![AUTHORIZATION, aws::DATE, aws::HASH, aws::TOKEN],
        }
    }

    pub fn sign(
        &self,
        method: &str,
        url: &Url,
        headers: &mut HeaderMap,
        body: &[u8],
        now: SystemTime,
    ) -> Result<(), String> {
        let added = match self {
            Signer::Hmac { name, auth } => vec![(name.clone(), auth.value(body))],
            Signer::Aws(auth) => aws::headers(auth, method, url, headers, body, now),
        };
        for (name, value) in added {
            let mut value = HeaderValue::try_from(value).map_err(|error| error.to_string())?;
            value.set_sensitive(true);
            headers.insert(name, value);
        }
        Ok(())
    }
}

impl HmacAuth {
    fn value(&self, body: &[u8]) -> String {
        let algorithm = match self.algorithm {
            HmacAlgorithm::Sha256 => hmac::HMAC_SHA256,
            HmacAlgorithm::Sha512 => hmac::HMAC_SHA512,
        };
        let key = hmac::Key::new(algorithm, self.secret.expose().as_bytes());
        let tag = hmac::sign(&key, body);
        let encoded = match self.encoding {
            HmacEncoding::Hex => hex(tag.as_ref()),
            HmacEncoding::Base64 => BASE64.encode(tag),
        };
        format!("{}{encoded}", self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use lockgate_model::Secret;

    use super::*;

    /// RFC 4231, 4.3.
    #[test]
    fn hmac_has_the_values_of_its_test_vectors() {
        let value = |algorithm, encoding| {
            let auth = HmacAuth {
                header: "X-Signature".to_owned(),
                algorithm,
                encoding,
                prefix: "v=".to_owned(),
                secret: Secret::new("Jefe"),
            };
            auth.value(b"what do ya want for nothing?")
        };
        let sha256 = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        let sha512 = "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea250554\
                      9758bf75c05a994a6d034f65f8f0e6fdcaeab1a34d4a6b4b636e070a38bce737";
        let base64 = "W9zBRr9gdU5qBCQmCJV1x1oAPwidJzmDnexYuWTsOEM=";
        for (algorithm, encoding, expected) in [
            (HmacAlgorithm::Sha256, HmacEncoding::Hex, sha256),
            (HmacAlgorithm::Sha512, HmacEncoding::Hex, sha512),
            (HmacAlgorithm::Sha256, HmacEncoding::Base64, base64),
        ] {
            assert_eq!(value(algorithm, encoding), format!("v={expected}"));
        }
    }
}
