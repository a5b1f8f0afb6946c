//! Signatures of AWS, version 4: the receiver checks who sent a request, and that nothing in it was
//! changed.

use std::time::SystemTime;

use http::header::{CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue};
use lockgate_model::{Millis, percent_encoded, utc};
use ring::digest::{SHA256, digest};
use ring::hmac::{HMAC_SHA256, Key, sign};
use url::Url;

use crate::AwsAuth;

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
pub const DATE: HeaderName = HeaderName::from_static("x-amz-date");
pub const HASH: HeaderName = HeaderName::from_static("x-amz-content-sha256");
pub const TOKEN: HeaderName = HeaderName::from_static("x-amz-security-token");

/// The headers that prove who sends this request, `Authorization` among them. `headers`: those that
/// it has; nothing that a proxy may change is signed.
pub fn headers(
    auth: &AwsAuth,
    method: &str,
    url: &Url,
    headers: &HeaderMap,
    body: &[u8],
    now: SystemTime,
) -> Vec<(HeaderName, String)> {
    let hash = hex(digest(&SHA256, body).as_ref());
    let time = time_of(now);
    let mut added = vec![(DATE, time.clone()), (HASH, hash.clone())];
    let token = auth.session_token.as_ref();
    added.extend(token.map(|token| (TOKEN, token.expose().to_owned())));
    let content_type = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    let content_type = content_type.map(|value| String::from_utf8_lossy(value).into_owned());
    let mut signed: Vec<(String, String)> = added
        .iter()
        .map(|(name, value)| (name.to_string(), value.clone()))
        .chain(content_type.map(|value| (CONTENT_TYPE.to_string(), value)))
        .chain([(HOST.to_string(), host(url))])
        .collect();
    signed.sort();
    let request = canonical(method, url, &signed, &hash, auth.service != "s3");
    let value = authorization(auth, &request, &signed, &time);
    added.push((http::header::AUTHORIZATION, value));
    added
}

/// `20150830T123600Z`.
fn time_of(now: SystemTime) -> String {
    let since = now.duration_since(SystemTime::UNIX_EPOCH);
    let seconds = since.map_or(0, |since| since.as_secs());
    let text = utc(Millis::try_from(seconds.saturating_mul(1000)).unwrap_or(Millis::MAX));
    text.replace(['-', ':'], "")
}

/// As the client writes it into the header.
fn host(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

/// `signed`: the names, in lower case, and the values of the headers, sorted by name. All services
/// but S3 encode the path once more.
fn canonical(
    method: &str,
    url: &Url,
    signed: &[(String, String)],
    hash: &str,
    encodes_path: bool,
) -> String {
    let path = match encodes_path {
        true => encoded_path(url.path()),
        false => url.path().to_owned(),
    };
    let mut pairs: Vec<(String, String)> = url
        .query()
        .unwrap_or_default()
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (normal(name), normal(value)))
        .collect();
    pairs.sort();
    let query: Vec<String> = pairs
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let headers: String = signed
        .iter()
        .map(|(name, value)| {
            let words: Vec<&str> = value.split_ascii_whitespace().collect();
            format!("{name}:{}\n", words.join(" "))
        })
        .collect();
    let (query, names) = (query.join("&"), names(signed));
    format!("{method}\n{path}\n{query}\n{headers}\n{names}\n{hash}")
}

fn names(signed: &[(String, String)]) -> String {
    let names: Vec<&str> = signed.iter().map(|(name, _)| name.as_str()).collect();
    names.join(";")
}

/// Without empty segments, and each segment encoded.
fn encoded_path(path: &str) -> String {
    let segments = path.split('/').filter(|segment| !segment.is_empty());
    let segments: Vec<String> = segments.map(percent_encoded).collect();
    let end = if path.ends_with('/') && !segments.is_empty() {
        "/"
    } else {
        ""
    };
    format!("/{}{end}", segments.join("/"))
}

/// A part of a query, encoded as AWS does it.
fn normal(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let digits = after
            .get(..2)
            .and_then(|digits| std::str::from_utf8(digits).ok());
        let decoded = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match decoded.filter(|_| byte == b'%') {
            Some(decoded) => {
                bytes.push(decoded);
                rest = &after[2..];
            }
            None => {
                bytes.push(byte);
                rest = after;
            }
        }
    }
    let mut encoded = String::with_capacity(bytes.len());
    for byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

fn authorization(auth: &AwsAuth, request: &str, signed: &[(String, String)], time: &str) -> String {
    let date = time.split('T').next().unwrap_or_default();
    let AwsAuth {
        region, service, ..
    } = auth;
    let scope = format!("{date}/{region}/{service}/aws4_request");
    let request = hex(digest(&SHA256, request.as_bytes()).as_ref());
    let text = format!("{ALGORITHM}\n{time}\n{scope}\n{request}");
    let mut key = format!("AWS4{}", auth.secret_key.expose()).into_bytes();
    for part in [date, region, service, "aws4_request"] {
        key = sign(&Key::new(HMAC_SHA256, &key), part.as_bytes())
            .as_ref()
            .to_vec();
    }
    let signature = sign(&Key::new(HMAC_SHA256, &key), text.as_bytes());
    format!(
        "{ALGORITHM} Credential={}/{scope}, SignedHeaders={}, Signature={}",
        auth.access_key.expose(),
        names(signed),
        hex(signature.as_ref())
    )
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use lockgate_model::Secret;

    use super::*;

    fn auth(access: &str, secret: &str, service: &str) -> AwsAuth {
        AwsAuth {
            region: "us-east-1".to_owned(),
            service: service.to_owned(),
            access_key: Secret::new(access),
            secret_key: Secret::new(secret),
            session_token: None,
        }
    }

    /// The signature of a request with these headers besides the date.
    fn signature(
        auth: &AwsAuth,
        time: &str,
        (method, url): (&str, &str),
        headers: &[(&str, &str)],
        body: &str,
    ) -> String {
        let mut signed: Vec<(String, String)> = headers
            .iter()
            .chain(&[("x-amz-date", time)])
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        signed.sort();
        let hash = hex(digest(&SHA256, body.as_bytes()).as_ref());
        let url = Url::parse(url).unwrap();
        let request = canonical(method, &url, &signed, &hash, auth.service != "s3");
        let value = authorization(auth, &request, &signed, time);
        value.rsplit_once('=').unwrap().1.to_owned()
    }

    /// AWS publishes these: the test suite of version 4, and the examples for S3.
    #[test]
    fn signatures_are_those_that_aws_publishes() {
        let suite = auth(
            "AKIDEXAMPLE",
            "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
            "service",
        );
        let host = ("host", "example.amazonaws.com");
        let form = ("content-type", "application/x-www-form-urlencoded");
        for (request, headers, body, expected) in [
            (
                ("GET", "https://example.amazonaws.com/"),
                &[host][..],
                "",
                "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
            ),
            (
                ("POST", "https://example.amazonaws.com/"),
                &[host],
                "",
                "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b",
            ),
            (
                (
                    "GET",
                    "https://example.amazonaws.com/?Param2=value2&Param1=value1",
                ),
                &[host],
                "",
                "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
            ),
            (
                ("GET", "https://example.amazonaws.com//"),
                &[host],
                "",
                "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
            ),
            (
                ("POST", "https://example.amazonaws.com/"),
                &[host, form],
                "Param1=value1",
                "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a",
            ),
        ] {
            let found = signature(&suite, "20150830T123600Z", request, headers, body);
            assert_eq!(found, expected, "{request:?}");
        }
        let s3 = auth(
            "AKIAIOSFODNN7EXAMPLE",
            "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
            "s3",
        );
        let host = ("host", "examplebucket.s3.amazonaws.com");
        let text = "Welcome to Amazon S3.";
        let (empty_hash, text_hash) = (
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072",
        );
        for (request, headers, body, expected) in [
            (
                ("GET", "https://examplebucket.s3.amazonaws.com/test.txt"),
                &[
                    host,
                    ("range", "bytes=0-9"),
                    ("x-amz-content-sha256", empty_hash),
                ][..],
                "",
                "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
            ),
            (
                (
                    "PUT",
                    "https://examplebucket.s3.amazonaws.com/test%24file.text",
                ),
                &[
                    host,
                    ("date", "Fri, 24 May 2013 00:00:00 GMT"),
                    ("x-amz-content-sha256", text_hash),
                    ("x-amz-storage-class", "REDUCED_REDUNDANCY"),
                ],
                text,
                "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
            ),
            (
                (
                    "GET",
                    "https://examplebucket.s3.amazonaws.com/?max-keys=2&prefix=J",
                ),
                &[host, ("x-amz-content-sha256", empty_hash)],
                "",
                "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
            ),
        ] {
            let found = signature(&s3, "20130524T000000Z", request, headers, body);
            assert_eq!(found, expected, "{request:?}");
        }
    }

    #[test]
    fn a_request_gets_the_headers_that_it_is_checked_by() {
        let mut auth = auth("AKIDEXAMPLE", "secret", "es");
        auth.session_token = Some(Secret::new("a-token"));
        let url = Url::parse("https://search.example.com:8443/_bulk?q=%2B").unwrap();
        let at = SystemTime::UNIX_EPOCH + Duration::from_millis(1_440_938_160_999);
        let headers = headers(&auth, "POST", &url, &HeaderMap::new(), b"{}", at);
        let value = |wanted: HeaderName| {
            let found = headers.iter().find(|(name, _)| *name == wanted);
            found.map(|(_, value)| value.as_str()).unwrap()
        };
        assert_eq!(value(DATE), "20150830T123600Z");
        assert_eq!(
            value(HASH),
            "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
        );
        assert_eq!(value(TOKEN), "a-token");
        let begin = "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/es/aws4_request, \
                     SignedHeaders=host;x-amz-content-sha256;x-amz-date;x-amz-security-token, \
                     Signature=";
        let authorization = value(http::header::AUTHORIZATION);
        assert!(authorization.starts_with(begin), "{authorization}");
    }
}
