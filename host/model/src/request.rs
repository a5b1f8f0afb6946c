//! Requests that a sink returned, and the rules of the contract for them.
//!
//! [`Request::check`] enforces every rule before anything is sent. A component that breaks a rule
//! is treated like one that trapped.

mod answer;
mod body;

pub use answer::{Classification, Disposition, RETRY_AFTER_MAX, Response, Sent};
pub use body::{Body, Part};

use thiserror::Error;

/// Most headers of a request.
pub const HEADERS_MAX: usize = 64;

/// Most bytes of all header names and values of a request.
pub const HEADER_BYTES_MAX: usize = 16 * 1024;

/// Longest value of a header, in bytes.
pub const HEADER_VALUE_MAX: usize = 4 * 1024;

/// Longest path suffix, in bytes.
pub const PATH_SUFFIX_MAX: usize = 2 * 1024;

/// Most bytes of all names and values of a request's query, unencoded.
pub const QUERY_BYTES_MAX: usize = 4 * 1024;

/// Most pairs of a request's query.
pub const QUERY_PAIRS_MAX: usize = 64;

/// Longest name of a query parameter, in characters.
pub const QUERY_NAME_MAX: usize = 128;

/// Longest tag, in bytes.
pub const TAG_MAX: usize = 1024;

/// Headers that every sink may set. Others carry authority with some receivers and proxies
/// (`X-Forwarded-User`, `X-HTTP-Method-Override`, `es-security-runas-user`, a tenant), so the
/// operator must allow them.
const ALLOWED: [&str; 5] = [
    "accept",
    "content-encoding",
    "content-language",
    "content-type",
    "idempotency-key",
];

/// Headers that only the host sets, even if the operator allows them. `Proxy-*` too.
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
    pub body: Body,
    /// Passed to `classify` unchanged.
    pub tag: String,
    /// The documents of the call that it carries, by index.
    pub carries: Vec<u32>,
}

/// The rules of the operator's endpoint for a sink's requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestRules {
    /// Names of the headers that the operator sets, in lower case. A sink must not set them.
    pub operator_headers: Vec<String>,
    /// Names of further headers that the operator allows the sink to set, in lower case.
    pub allowed_headers: Vec<String>,
    /// Names of the query parameters of the operator's URL, decoded. A sink must not set them: some
    /// receivers use the first of two parameters with the same name, and a sink must not choose the
    /// token.
    pub operator_query: Vec<String>,
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

/// A request that follows all rules of the contract. Only [`Request::check`] can create one.
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
    pub fn body(&self) -> &Body {
        &self.inner.body
    }
    pub fn tag(&self) -> &str {
        &self.inner.tag
    }
    /// At least one.
    pub fn carries(&self) -> &[u32] {
        &self.inner.carries
    }
    /// The request as `classify` gets it.
    pub fn sent(&self) -> Sent {
        Sent {
            method: self.method,
            path_suffix: self.inner.path_suffix.clone(),
            tag: self.inner.tag.clone(),
            carries: self.inner.carries.clone(),
        }
    }
}

/// A rule of the contract that a component's result broke.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Violation {
    #[error("the method `{0}` is not POST, PUT or PATCH")]
    Method(String),
    #[error(
        "the path suffix `{0}` has a character outside `[A-Za-z0-9._~/-]`, or an empty, `.` or \
         `..` segment"
    )]
    Path(String),
    #[error("the path suffix `{0}` must begin with `/` or `.`, so that it cannot extend a name")]
    PathBoundary(String),
    #[error("the path suffix has {0} bytes; the limit is {PATH_SUFFIX_MAX}")]
    PathTooLong(usize),
    #[error("the query parameter `{0}` is set by the operator's URL")]
    QueryName(String),
    #[error(
        "the name `{0}` of a query parameter is not 1 to {QUERY_NAME_MAX} characters of \
         `[A-Za-z0-9._~-]`"
    )]
    QueryNameCharacters(String),
    #[error("the query has {0} parameters; the limit is {QUERY_PAIRS_MAX}")]
    QueryTooManyPairs(usize),
    #[error("the query has {0} bytes; the limit is {QUERY_BYTES_MAX}")]
    QueryTooLong(usize),
    #[error("the request has {0} headers; the limit is {HEADERS_MAX}")]
    TooManyHeaders(usize),
    #[error("the headers have {0} bytes; the limit is {HEADER_BYTES_MAX}")]
    HeadersTooLong(usize),
    #[error("the header name `{0}` is not a token")]
    HeaderName(String),
    #[error("the header `{0}` is not one that a sink may set")]
    HeaderRefused(String),
    #[error(
        "the header `{0}` needs the operator's permission: `allow-headers = [\"{0}\"]` in the sink"
    )]
    HeaderNotAllowed(String),
    #[error("the value of the header `{0}` has a character that is not visible ASCII")]
    HeaderValue(String),
    #[error("the value of the header `{0}` has {1} bytes; the limit is {HEADER_VALUE_MAX}")]
    HeaderValueTooLong(String, usize),
    #[error("the request has the header `{0}` twice")]
    HeaderTwice(String),
    #[error("`content-encoding: {0}` does not fit the body")]
    ContentEncoding(String),
    #[error("the tag has {0} bytes; the limit is {TAG_MAX}")]
    TagTooLong(usize),
    #[error("a request carries no document")]
    CarriesNothing,
    #[error("the body has document {0}, which the request does not carry")]
    NotCarried(u32),
    #[error("the body has document {0} twice")]
    DocumentTwice(u32),
    #[error("the separator of joined documents has {0} bytes; the limit is 64")]
    SeparatorTooLong(usize),
    #[error("index {0} is not in the batch of {1}")]
    NoSuchIndex(u32, usize),
    #[error("index {0} is carried or rejected twice")]
    IndexTwice(u32),
    #[error("index {0} is neither carried nor rejected")]
    IndexMissing(u32),
}

impl Request {
    /// Enforces the rules for one request. [`check_indexes`] enforces that every document of the
    /// call is either in one request or rejected.
    pub fn check(self, rules: &RequestRules) -> Result<CheckedRequest, Violation> {
        let method = match self.method.as_str() {
            "POST" => Method::Post,
            "PUT" => Method::Put,
            "PATCH" => Method::Patch,
            _ => return Err(Violation::Method(shortened(&self.method))),
        };
        check_path(&self.path_suffix)?;
        self.check_query(rules)?;
        self.check_headers(rules)?;
        if self.tag.len() > TAG_MAX {
            return Err(Violation::TagTooLong(self.tag.len()));
        }
        if self.carries.is_empty() {
            return Err(Violation::CarriesNothing);
        }
        self.body.check(&self.carries)?;
        Ok(CheckedRequest {
            method,
            inner: self,
        })
    }

    fn check_query(&self, rules: &RequestRules) -> Result<(), Violation> {
        if self.query.len() > QUERY_PAIRS_MAX {
            return Err(Violation::QueryTooManyPairs(self.query.len()));
        }
        let bytes = pairs_len(&self.query);
        if bytes > QUERY_BYTES_MAX {
            return Err(Violation::QueryTooLong(bytes));
        }
        if let Some((name, _)) = self.query.iter().find(|(name, _)| !is_query_name(name)) {
            return Err(Violation::QueryNameCharacters(shortened(name)));
        }
        // Some receivers ignore the case of names.
        let is_operators = |name: &str| {
            let mut names = rules.operator_query.iter();
            names.any(|operators| operators.to_lowercase() == name.to_lowercase())
        };
        match self.query.iter().find(|(name, _)| is_operators(name)) {
            Some((name, _)) => Err(Violation::QueryName(name.clone())),
            None => Ok(()),
        }
    }

    fn check_headers(&self, rules: &RequestRules) -> Result<(), Violation> {
        if self.headers.len() > HEADERS_MAX {
            return Err(Violation::TooManyHeaders(self.headers.len()));
        }
        let bytes = pairs_len(&self.headers);
        if bytes > HEADER_BYTES_MAX {
            return Err(Violation::HeadersTooLong(bytes));
        }
        for (at, (name, value)) in self.headers.iter().enumerate() {
            if !is_header_name(name) {
                return Err(Violation::HeaderName(name.clone()));
            }
            let lower = name.to_ascii_lowercase();
            if is_refused_header(&lower) || rules.operator_headers.contains(&lower) {
                return Err(Violation::HeaderRefused(lower));
            }
            if !ALLOWED.contains(&lower.as_str()) && !rules.allowed_headers.contains(&lower) {
                return Err(Violation::HeaderNotAllowed(lower));
            }
            let mut before = self.headers[..at].iter();
            if before.any(|(before, _)| before.eq_ignore_ascii_case(name)) {
                return Err(Violation::HeaderTwice(lower));
            }
            if value.len() > HEADER_VALUE_MAX {
                return Err(Violation::HeaderValueTooLong(lower, value.len()));
            }
            if !value
                .bytes()
                .all(|byte| byte == b' ' || byte.is_ascii_graphic())
            {
                return Err(Violation::HeaderValue(lower));
            }
            if lower == "content-encoding" && !self.body.is_encoded_as(value) {
                return Err(Violation::ContentEncoding(shortened(value)));
            }
        }
        Ok(())
    }
}

/// Checks that every document of a call is either in exactly one request or rejected once.
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

/// A token of RFC 9110 5.6.2, as every header name must be.
pub fn is_header_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(is_token_byte)
}

/// Whether only the host sets this header: neither a component nor the operator's `headers` can set
/// it. `name` may be in upper or lower case.
pub fn is_refused_header(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    REFUSED.contains(&lower.as_str()) || lower.starts_with("proxy-")
}

/// Receivers read other names in different ways: some end a name at a NUL or at `[`, or remove
/// spaces around it, and so take it for a parameter of the operator.
fn is_query_name(name: &str) -> bool {
    (1..=QUERY_NAME_MAX).contains(&name.len()) && name.bytes().all(is_unreserved_byte)
}

fn check_path(suffix: &str) -> Result<(), Violation> {
    if suffix.is_empty() {
        return Ok(());
    }
    if suffix.len() > PATH_SUFFIX_MAX {
        return Err(Violation::PathTooLong(suffix.len()));
    }
    let allowed = |byte: u8| byte == b'/' || is_unreserved_byte(byte);
    let segments = suffix.strip_prefix('/').unwrap_or(suffix);
    let mut segments = segments.strip_suffix('/').unwrap_or(segments).split('/');
    if !suffix.bytes().all(allowed)
        || (suffix != "/" && segments.any(|segment| matches!(segment, "" | "." | "..")))
    {
        return Err(Violation::Path(shortened(suffix)));
    }
    if !suffix.starts_with(['/', '.']) {
        return Err(Violation::PathBoundary(shortened(suffix)));
    }
    Ok(())
}

fn pairs_len(pairs: &[(String, String)]) -> usize {
    pairs
        .iter()
        .map(|(name, value)| name.len() + value.len())
        .sum()
}

/// Shortens and escapes text for a message.
fn shortened(text: &str) -> String {
    crate::escape(text, 120).into_owned()
}

// RFC 3986 2.3.
fn is_unreserved_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"._~-".contains(&byte)
}

// RFC 9110 5.6.2.
fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn request(change: impl FnOnce(&mut Request)) -> Request {
        let mut request = Request {
            method: "POST".into(),
            path_suffix: ".7f3.log".into(),
            query: vec![],
            headers: vec![("content-type".into(), "application/json".into())],
            body: Body::Bytes(Bytes::from_static(b"[]")),
            tag: String::new(),
            carries: vec![0],
        };
        change(&mut request);
        request
    }

    fn rules() -> RequestRules {
        RequestRules {
            operator_headers: vec!["x-api-key".into()],
            allowed_headers: vec!["x-splunk-request-channel".into(), "host".into()],
            operator_query: vec!["token".into()],
        }
    }

    #[test]
    fn requests_that_break_a_rule_are_refused() {
        let header = |name: &str, value: &str| {
            let pair = (name.to_owned(), value.to_owned());
            request(|r| r.headers = vec![pair])
        };
        let path = |suffix: &str| {
            let suffix = suffix.to_owned();
            request(|r| r.path_suffix = suffix)
        };
        let query = |name: &str| {
            let pair = (name.to_owned(), "x".to_owned());
            request(|r| r.query = vec![pair])
        };
        let part = |index| request(|r| r.body = Body::Parts(vec![Part::Document(index)]));
        let joined = |indexes: &[u32], separator: &str| {
            let (indexes, separator) = (indexes.to_vec(), separator.to_owned());
            request(|r| r.body = Body::Parts(vec![Part::Documents { indexes, separator }]))
        };
        for (request, violation) in [
            (
                request(|r| r.method = "GET".into()),
                Violation::Method("GET".into()),
            ),
            (path("/../etc"), Violation::Path("/../etc".into())),
            (path("/./etc"), Violation::Path("/./etc".into())),
            (
                path("//evil.example"),
                Violation::Path("//evil.example".into()),
            ),
            (
                path("@evil.example"),
                Violation::Path("@evil.example".into()),
            ),
            (path("23/evil"), Violation::PathBoundary("23/evil".into())),
            (
                path(&format!("/{}", "a".repeat(100_000))),
                Violation::PathTooLong(100_001),
            ),
            (
                request(|r| r.query = vec![("token".into(), "mine".into())]),
                Violation::QueryName("token".into()),
            ),
            (
                request(|r| r.query = vec![("TOKEN".into(), "mine".into())]),
                Violation::QueryName("TOKEN".into()),
            ),
            (
                request(|r| r.query = vec![(String::new(), String::new()); 30_000]),
                Violation::QueryTooManyPairs(30_000),
            ),
            (query(""), Violation::QueryNameCharacters(String::new())),
            (
                query("token[]"),
                Violation::QueryNameCharacters("token[]".into()),
            ),
            (
                query("token "),
                Violation::QueryNameCharacters("token ".into()),
            ),
            (
                query(" token"),
                Violation::QueryNameCharacters(" token".into()),
            ),
            (
                query("token\0"),
                Violation::QueryNameCharacters("token\\u{0}".into()),
            ),
            (
                query("t\u{f6}ken"),
                Violation::QueryNameCharacters("t\u{f6}ken".into()),
            ),
            (
                query(&"q".repeat(129)),
                Violation::QueryNameCharacters(format!("{}…(+24 bytes)", "q".repeat(105))),
            ),
            (
                request(|r| r.query = vec![("q".into(), "x".repeat(100_000))]),
                Violation::QueryTooLong(100_001),
            ),
            (
                header("Host", "evil"),
                Violation::HeaderRefused("host".into()),
            ),
            (
                header("AUTHORIZATION", "x"),
                Violation::HeaderRefused("authorization".into()),
            ),
            (
                header("Proxy-Foo", "x"),
                Violation::HeaderRefused("proxy-foo".into()),
            ),
            (
                header("X-Api-Key", "x"),
                Violation::HeaderRefused("x-api-key".into()),
            ),
            (
                header("X-Forwarded-User", "root"),
                Violation::HeaderNotAllowed("x-forwarded-user".into()),
            ),
            (
                header("X-HTTP-Method-Override", "DELETE"),
                Violation::HeaderNotAllowed("x-http-method-override".into()),
            ),
            (
                header("es-security-runas-user", "root"),
                Violation::HeaderNotAllowed("es-security-runas-user".into()),
            ),
            (header("a b", "x"), Violation::HeaderName("a b".into())),
            (
                header("accept", "a\r\nHost: evil"),
                Violation::HeaderValue("accept".into()),
            ),
            (
                header("Content-Encoding", "gzip"),
                Violation::ContentEncoding("gzip".into()),
            ),
            (
                header("accept", &"x".repeat(20_000)),
                Violation::HeadersTooLong(20_006),
            ),
            (
                request(|r| r.headers = vec![("accept".into(), "y".into()); 65]),
                Violation::TooManyHeaders(65),
            ),
            (
                header("accept", &"x".repeat(4097)),
                Violation::HeaderValueTooLong("accept".into(), 4097),
            ),
            (
                request(|r| r.headers.push(("Content-Type".into(), "text/plain".into()))),
                Violation::HeaderTwice("content-type".into()),
            ),
            (
                request(|r| r.tag = "t".repeat(1025)),
                Violation::TagTooLong(1025),
            ),
            (request(|r| r.carries = vec![]), Violation::CarriesNothing),
            (part(1), Violation::NotCarried(1)),
            (joined(&[0, 1], ","), Violation::NotCarried(1)),
            (joined(&[0, 0], ","), Violation::DocumentTwice(0)),
            (
                joined(&[0], &",".repeat(65)),
                Violation::SeparatorTooLong(65),
            ),
        ] {
            assert_eq!(request.check(&rules()).unwrap_err(), violation);
        }
        for request in [
            request(|_| {}),
            path("/a/b/"),
            path("/"),
            query("_source-type.v~2"),
            query(&"q".repeat(128)),
            header("X-Splunk-Request-Channel", "c"),
            header("accept", &"x".repeat(4096)),
            part(0),
            joined(&[0], ", "),
            request(|r| {
                r.headers = vec![("content-encoding".into(), "gzip".into())];
                r.body = Body::Bytes(Bytes::from_static(&[0x1f, 0x8b, 8]));
            }),
        ] {
            request
                .clone()
                .check(&rules())
                .unwrap_or_else(|error| panic!("{request:?}: {error}"));
        }
    }

    #[test]
    fn each_index_is_carried_or_rejected_exactly_once() {
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
