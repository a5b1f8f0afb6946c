//! A receiver's answer, and what a sink's `classify` makes of it.

use std::collections::HashSet;
use std::time::Duration;

use bytes::Bytes;

use super::{Method, Violation};

/// The longest wait that a receiver or a component can ask for. A longer one is reduced to this.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);

/// A request as `classify` gets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    pub method: Method,
    pub path_suffix: String,
    pub tag: String,
    pub carries: Vec<u32>,
}

/// A receiver's answer, as `classify` gets it.
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
    /// Where the host has put the request, if it was appended to a file. For people: no sink sees
    /// it.
    pub place: Option<String>,
}

/// The result for one document that the sink read from a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Disposition {
    Delivered,
    Rejected(String),
    Retry,
}

/// The result of `classify` for a response.
#[derive(Clone, Debug, PartialEq)]
pub enum Classification {
    /// The host decides by the status.
    ByStatus,
    Delivered,
    /// By index in the call of `encode`. Documents of the request that are not in the list were
    /// delivered.
    Mixed(Vec<(u32, Disposition)>),
    /// Send the same request again, after at least `after` milliseconds.
    Retry {
        message: String,
        after: Option<u32>,
    },
    /// The receiver refused the request because of some documents: send it again in halves.
    Split(String),
    /// Every document of the request is dead-lettered.
    Rejected(String),
    /// The endpoint needs the operator's attention.
    Hold(String),
}

impl Classification {
    /// Checks that every index of a `mixed` result is one of the request's, and occurs once.
    pub fn check(self, carries: &[u32]) -> Result<Classification, Violation> {
        if let Classification::Mixed(dispositions) = &self {
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

#[cfg(test)]
mod tests {
    use super::*;

    /// One look at all others for each entry would take hours.
    #[test]
    fn a_mixed_answer_of_a_million_entries_is_checked_in_one_pass() {
        let carries: Vec<u32> = (0..1_000_000).collect();
        let entries = carries.iter().rev();
        let mixed =
            Classification::Mixed(entries.map(|&index| (index, Disposition::Retry)).collect());
        assert!(mixed.clone().check(&carries).is_ok());
        assert_eq!(
            mixed.check(&carries[1..]),
            Err(Violation::NoSuchIndex(0, 999_999))
        );
        let twice = vec![(7, Disposition::Delivered); 2];
        assert_eq!(
            Classification::Mixed(twice).check(&carries),
            Err(Violation::IndexTwice(7))
        );
    }
}
