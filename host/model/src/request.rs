//! Requests that a sink returned, and what the contract demands of them.
//!
//! A guest's request is data until [`Request::check`] has passed it: method, path, header and index
//! rules are enforced here, before anything is sent, so that a component that breaks them is
//! handled like one that trapped.

use std::collections::HashSet;

use bytes::Bytes;
use thiserror::Error;

/// At most this many headers in a request.
pub const HEADERS_MAX: usize = 64;

/// Refused in a guest's request, whatever the operator configured. `Proxy-*` too.
const REFUSED: [&str; 10] = [
    "host",
    "content-length",
    "transfer-encoding",
    "connection",
    "upgrade",
    "te",
    "trailer",
    "expect",
    "cookie",
    "authorization",
];

/// A request as a component returned it.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    pub method: String,
    /// Appended to the path of the operator's URL.
    pub path_suffix: String,
    /// Unencoded.
    pub query: Vec<(String, String)>,
    pub headers: Vec<(String, String)>,
    pub body: Bytes,
    /// Which documents of the batch it carries, by index.
    pub carries: Vec<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    Post,
    Put,
    Patch,
}

impl Method {
    pub fn as_str(self) -> &'static str {
        match self {
            Method::Post => "POST",
            Method::Put => "PUT",
            Method::Patch => "PATCH",
        }
    }
}

/// A request that keeps every rule of the contract. Only [`Request::check`] makes one.
#[derive(Clone, Debug, PartialEq)]
pub struct CheckedRequest {
    method: Method,
    inner: Request,
}

impl CheckedRequest {
    pub fn method(&self) -> Method {
        self.method
    }
    pub fn path_suffix(&self) -> &str {
        &self.inner.path_suffix
    }
    pub fn query(&self) -> &[(String, String)] {
        &self.inner.query
    }
    pub fn headers(&self) -> &[(String, String)] {
        &self.inner.headers
    }
    pub fn body(&self) -> &Bytes {
        &self.inner.body
    }
    pub fn carries(&self) -> &[u32] {
        &self.inner.carries
    }
}

/// A rule of the contract that a component's result broke.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Violation {
    #[error("the method `{0}` is not POST, PUT or PATCH")]
    Method(String),
    #[error("the path suffix `{0}` has a character outside `[A-Za-z0-9._~/-]`, a `..` or a `//`")]
    Path(String),
    #[error("{0} headers are more than {HEADERS_MAX}")]
    TooManyHeaders(usize),
    #[error("the header name `{0}` is not a token")]
    HeaderName(String),
    #[error("the header `{0}` is not for a component to set")]
    HeaderRefused(String),
    #[error("the value of the header `{0}` has a character that is not visible ASCII")]
    HeaderValue(String),
    #[error("index {0} is not in the batch of {1}")]
    NoSuchIndex(u32, usize),
    #[error("index {0} is carried or rejected twice")]
    IndexTwice(u32),
    #[error("index {0} is neither carried nor rejected")]
    IndexMissing(u32),
}

impl Request {
    /// Enforces the rules for one request. `operator_headers`: names the operator set, in lower
    /// case; a component cannot override them.
    pub fn check(self, operator_headers: &[String]) -> Result<CheckedRequest, Violation> {
        let method = match self.method.as_str() {
            "POST" => Method::Post,
            "PUT" => Method::Put,
            "PATCH" => Method::Patch,
            _ => return Err(Violation::Method(self.method)),
        };
        if !is_path_suffix(&self.path_suffix) {
            return Err(Violation::Path(self.path_suffix));
        }
        if self.headers.len() > HEADERS_MAX {
            return Err(Violation::TooManyHeaders(self.headers.len()));
        }
        for (name, value) in &self.headers {
            if !is_header_name(name) {
                return Err(Violation::HeaderName(name.clone()));
            }
            if is_refused_header(name) || operator_headers.contains(&name.to_ascii_lowercase()) {
                return Err(Violation::HeaderRefused(name.clone()));
            }
            if !value
                .bytes()
                .all(|byte| byte == b' ' || byte.is_ascii_graphic())
            {
                return Err(Violation::HeaderValue(name.clone()));
            }
        }
        Ok(CheckedRequest {
            method,
            inner: self,
        })
    }
}

/// Every index of a batch of `documents` stands in exactly one request or in one rejection.
pub fn check_indexes<'a>(
    documents: usize,
    carried: impl Iterator<Item = &'a [u32]>,
    rejected: impl Iterator<Item = u32>,
) -> Result<(), Violation> {
    let mut seen = vec![false; documents];
    for index in carried.flatten().copied().chain(rejected) {
        match seen.get_mut(index as usize) {
            None => return Err(Violation::NoSuchIndex(index, documents)),
            Some(true) => return Err(Violation::IndexTwice(index)),
            Some(slot) => *slot = true,
        }
    }
    match seen.iter().position(|&seen| !seen) {
        Some(missing) => Err(Violation::IndexMissing(missing as u32)),
        None => Ok(()),
    }
}

/// What a receiver answered, as `classify` sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    /// Invalid UTF-8 is replaced, known secrets are masked.
    pub body: String,
    pub truncated: bool,
    /// Milliseconds from a `Retry-After` header.
    pub retry_after: Option<u64>,
}

/// What became of one request's documents.
#[derive(Clone, Debug, PartialEq)]
pub enum Delivery {
    Delivered,
    /// By index in the batch; what the request carried and the list lacks was delivered.
    Mixed(Vec<(u32, DocumentFate)>),
    /// Hold and send the same again, not before `after` milliseconds.
    Retry {
        message: String,
        after: Option<u32>,
    },
    /// The receiver refused the batch, not every document: send it again in halves.
    Split(String),
    /// All of them go to the dead letters.
    Rejected(String),
}

#[derive(Clone, Debug, PartialEq)]
pub enum DocumentFate {
    Delivered,
    Rejected(String),
    Retry,
}

impl Delivery {
    /// In a `mixed` answer every index was carried by the request, and stands once.
    pub fn check(self, carries: &[u32]) -> Result<Delivery, Violation> {
        if let Delivery::Mixed(fates) = &self {
            let carried: HashSet<u32> = carries.iter().copied().collect();
            let mut seen = HashSet::new();
            for (index, _) in fates {
                if !carried.contains(index) {
                    return Err(Violation::NoSuchIndex(*index, carries.len()));
                }
                if !seen.insert(*index) {
                    return Err(Violation::IndexTwice(*index));
                }
            }
        }
        Ok(self)
    }
}

/// A token of RFC 9110 5.6.2, as every header name must be.
pub fn is_header_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(is_token_byte)
}

/// A header that belongs to the host: neither a component nor the operator's `headers` can set it.
/// In any case.
pub fn is_refused_header(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    REFUSED.contains(&lower.as_str()) || lower.starts_with("proxy-")
}

fn is_path_suffix(text: &str) -> bool {
    text.bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"._~/-".contains(&byte))
        && !text.contains("..")
        && !text.contains("//")
}

// RFC 9110 5.6.2.
fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(change: impl FnOnce(&mut Request)) -> Request {
        let mut request = Request {
            method: "POST".into(),
            path_suffix: ".7f3.log".into(),
            query: vec![],
            headers: vec![("content-type".into(), "application/json".into())],
            body: Bytes::from_static(b"[]"),
            carries: vec![0],
        };
        change(&mut request);
        request
    }

    #[test]
    fn requests_that_break_a_rule_are_refused() {
        let header = |name: &str, value: &str| {
            let pair = (name.to_owned(), value.to_owned());
            request(|r| r.headers = vec![pair])
        };
        for (request, violation) in [
            (
                request(|r| r.method = "GET".into()),
                Violation::Method("GET".into()),
            ),
            (
                request(|r| r.path_suffix = "/../etc".into()),
                Violation::Path("/../etc".into()),
            ),
            (
                request(|r| r.path_suffix = "//evil.example".into()),
                Violation::Path("//evil.example".into()),
            ),
            (
                request(|r| r.path_suffix = "@evil.example".into()),
                Violation::Path("@evil.example".into()),
            ),
            (
                header("Host", "evil"),
                Violation::HeaderRefused("Host".into()),
            ),
            (
                header("AUTHORIZATION", "x"),
                Violation::HeaderRefused("AUTHORIZATION".into()),
            ),
            (
                header("Proxy-Foo", "x"),
                Violation::HeaderRefused("Proxy-Foo".into()),
            ),
            (
                header("X-Api-Key", "x"),
                Violation::HeaderRefused("X-Api-Key".into()),
            ),
            (header("a b", "x"), Violation::HeaderName("a b".into())),
            (
                header("x", "a\r\nHost: evil"),
                Violation::HeaderValue("x".into()),
            ),
            (
                request(|r| r.headers = vec![("x".into(), "y".into()); 65]),
                Violation::TooManyHeaders(65),
            ),
        ] {
            assert_eq!(request.check(&["x-api-key".into()]).unwrap_err(), violation);
        }
        assert!(request(|_| {}).check(&[]).is_ok());
    }

    #[test]
    fn each_index_stands_exactly_once() {
        let check = |carried: &[&[u32]], rejected: &[u32]| {
            check_indexes(3, carried.iter().copied(), rejected.iter().copied())
        };
        assert_eq!(check(&[&[0, 2], &[1]], &[]), Ok(()));
        assert_eq!(check(&[&[0, 1]], &[2]), Ok(()));
        assert_eq!(
            check(&[&[0, 1], &[1, 2]], &[]),
            Err(Violation::IndexTwice(1))
        );
        assert_eq!(check(&[&[0, 1]], &[1]), Err(Violation::IndexTwice(1)));
        assert_eq!(check(&[&[0, 1, 3]], &[]), Err(Violation::NoSuchIndex(3, 3)));
        assert_eq!(check(&[&[0]], &[1]), Err(Violation::IndexMissing(2)));
    }
}
