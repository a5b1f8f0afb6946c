use std::collections::HashSet;

use bytes::Bytes;

use super::{Method, Violation};

/// What `classify` is shown of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    pub method: Method,
    pub path_suffix: String,
    pub tag: String,
    pub carries: Vec<u32>,
}

/// What a receiver answered, as `classify` sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Response {
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// Known secrets are masked. Not always UTF-8.
    pub body: Bytes,
    pub truncated: bool,
    /// Milliseconds from a `Retry-After` header.
    pub retry_after: Option<u64>,
}

/// What became of one document, as the sink reads it out of a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Disposition {
    Delivered,
    Rejected(String),
    Retry,
}

/// What `classify` says of a response.
#[derive(Clone, Debug, PartialEq)]
pub enum Delivery {
    /// The host's table for the status decides.
    ByStatus,
    Delivered,
    /// By index in the call of `encode`; what the request carried and the list lacks was delivered.
    Mixed(Vec<(u32, Disposition)>),
    /// The same request again, after at least `after` milliseconds.
    Retry {
        message: String,
        after: Option<u32>,
    },
    /// The receiver refused the request, not every document: again in halves.
    Split(String),
    /// Every document of the request is dead-lettered.
    Rejected(String),
    /// The endpoint needs its operator.
    Hold(String),
}

impl Delivery {
    /// In a `mixed` answer every index was carried by the request, once.
    pub fn check(self, carries: &[u32]) -> Result<Delivery, Violation> {
        if let Delivery::Mixed(dispositions) = &self {
            let carried: HashSet<u32> = carries.iter().copied().collect();
            let mut seen = HashSet::new();
            for (index, _) in dispositions {
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
