//! Requests and responses of sinks.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::{
    Delivery, Encoded, Joined, Pair, Part, Rejection, Request, RequestBody, Response, ResponseBody,
    Retry,
};

/// Groups documents by what those of a request have in common, such as a path: the indices of each
/// group, at most `most`, in the order of their first documents.
///
/// ```
/// let groups = lockgate_plugin::group([(0, "a"), (1, "b"), (2, "a"), (3, "a")], 2);
/// assert_eq!(groups, [("a", vec![0, 2]), ("b", vec![1]), ("a", vec![3])]);
/// ```
pub fn group<K: Ord + Clone>(
    documents: impl IntoIterator<Item = (u32, K)>,
    most: usize,
) -> Vec<(K, Vec<u32>)> {
    let mut groups: Vec<(K, Vec<u32>)> = vec![];
    let mut open: BTreeMap<K, usize> = BTreeMap::new();
    for (index, key) in documents {
        match open.get(&key) {
            Some(&at) if groups[at].1.len() < most => groups[at].1.push(index),
            _ => {
                open.insert(key.clone(), groups.len());
                groups.push((key, vec![index]));
            }
        }
    }
    groups
}

impl Request {
    /// A POST to the operator's URL.
    pub fn post(content_type: &str, body: impl Into<RequestBody>, carries: Vec<u32>) -> Request {
        Request {
            method: "POST".into(),
            path_suffix: String::new(),
            query: vec![],
            headers: vec![Pair::new("content-type", content_type)],
            body: body.into(),
            tag: String::new(),
            carries,
        }
    }

    /// What is appended to the path of the operator's URL: `[A-Za-z0-9._~/-]*`, beginning with `/`
    /// or `.`, without empty, `.` or `..` segments.
    pub fn path_suffix(mut self, suffix: impl Into<String>) -> Request {
        self.path_suffix = suffix.into();
        self
    }

    /// Adds a query parameter, unencoded.
    pub fn query(mut self, name: impl Into<String>, value: impl Into<String>) -> Request {
        self.query.push(Pair::new(name, value));
        self
    }

    /// What `classify` is given of this request. At most 1 KiB.
    pub fn tag(mut self, tag: impl Into<String>) -> Request {
        self.tag = tag.into();
        self
    }
}

impl RequestBody {
    /// A JSON array of documents, which need not pass through the plugin.
    pub fn array(documents: &[u32]) -> RequestBody {
        RequestBody::Parts(vec![
            Part::Text("[".into()),
            Part::joined(documents, ","),
            Part::Text("]".into()),
        ])
    }
}

impl Part {
    /// Documents with a text between each two.
    pub fn joined(documents: &[u32], separator: impl Into<String>) -> Part {
        Part::Documents(Joined {
            documents: documents.to_vec(),
            separator: separator.into(),
        })
    }
}

#[allow(
    clippy::derivable_impls,
    reason = "the record is generated without a default"
)]
impl Default for Encoded {
    /// No requests, no rejections.
    fn default() -> Encoded {
        Encoded {
            requests: vec![],
            rejected: vec![],
        }
    }
}

impl From<String> for RequestBody {
    fn from(text: String) -> RequestBody {
        RequestBody::Parts(vec![Part::Text(text)])
    }
}

impl From<Vec<Part>> for RequestBody {
    fn from(parts: Vec<Part>) -> RequestBody {
        RequestBody::Parts(parts)
    }
}

impl From<Vec<u8>> for RequestBody {
    fn from(bytes: Vec<u8>) -> RequestBody {
        RequestBody::Bytes(bytes)
    }
}

impl Rejection {
    pub fn new(index: u32, reason: impl Into<String>) -> Rejection {
        Rejection {
            index,
            reason: reason.into(),
        }
    }
}

impl ResponseBody {
    /// The body as text; what is not UTF-8 is replaced.
    pub fn text(&self) -> Cow<'_, str> {
        match self {
            ResponseBody::Text(text) => text.into(),
            ResponseBody::Bytes(bytes) => String::from_utf8_lossy(bytes),
        }
    }
}

impl Response {
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The value of a header, whatever its case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|header| header.name.eq_ignore_ascii_case(name))
            .map(|header| header.value.as_str())
    }

    /// Milliseconds that a `Retry-After` of seconds asks for. (The host respects the header by
    /// itself, dates included.)
    pub fn retry_after(&self) -> Option<u32> {
        let seconds: u32 = self.header("retry-after")?.trim().parse().ok()?;
        Some(seconds.saturating_mul(1000))
    }

    /// One sentence for people: the status and the beginning of the body.
    pub fn summary(&self) -> String {
        let body = self.body.text();
        let body = body.trim();
        if body.is_empty() {
            return format!("the receiver answered {}", self.status);
        }
        let excerpt: String = body.chars().take(200).collect();
        let dots = if excerpt.len() < body.len() {
            "…"
        } else {
            ""
        };
        format!("the receiver answered {}: {excerpt}{dots}", self.status)
    }
}

impl Delivery {
    /// Hold, and report what the receiver answered to the operator.
    pub fn hold(response: &Response) -> Delivery {
        Delivery::Hold(response.summary())
    }

    /// Hold, and send the same again.
    pub fn retry(response: &Response) -> Delivery {
        Delivery::Retry(Retry {
            message: response.summary(),
            after: response.retry_after(),
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::{Delivery, Pair, Retry, test};

    #[test]
    fn a_retry_says_what_was_answered_and_when_to_come_back() {
        let mut response = test::response(503, "busy\n");
        response.headers.push(Pair::new("Retry-After", "7"));
        assert_eq!(
            Delivery::retry(&response),
            Delivery::Retry(Retry {
                message: "the receiver answered 503: busy".into(),
                after: Some(7000),
            })
        );
        let long = test::response(500, &"é".repeat(300)).summary();
        assert_eq!(
            long,
            format!("the receiver answered 500: {}…", "é".repeat(200))
        );
    }
}
