//! The size of a request that an endpoint takes, as far as its answers show.

use std::collections::BTreeMap;

use crate::index::RequestId;
use crate::limits::{EXPECTED_MAX, SIZE_LIMIT_MAX};

#[derive(Debug, Default)]
pub(crate) struct Sizes {
    /// Bytes of a body that was too large, or of the largest that got its answer in time. It grows
    /// again slowly.
    limit: Option<usize>,
    /// A request that got no answer in time set the limit.
    is_slow: bool,
    /// Requests that got no answer in time and were split.
    expected: BTreeMap<RequestId, Halves>,
}

/// The progress of a request that was split.
#[derive(Debug)]
struct Halves {
    /// Documents that have not been accepted.
    open: usize,
    /// Bytes of the largest request that was accepted.
    largest: usize,
}

impl Sizes {
    /// A body of this size was too large.
    pub(crate) fn refuse(&mut self, bytes: usize) {
        let smaller = self.limit.map_or(bytes, |before| before.min(bytes));
        self.limit = Some(smaller);
    }

    /// A request was accepted.
    pub(crate) fn accept(&mut self) {
        self.limit = self
            .limit
            .map(|bytes| bytes.saturating_add(bytes / 256 + 1))
            .filter(|&bytes| bytes < SIZE_LIMIT_MAX);
        self.is_slow &= self.limit.is_some();
    }

    /// This request got no answer in time and is split.
    pub(crate) fn expect_halves(&mut self, whole: RequestId, documents: usize) {
        let halves = Halves {
            open: documents,
            largest: 0,
        };
        self.expected.insert(whole, halves);
        if self.expected.len() > EXPECTED_MAX {
            self.expected.pop_first();
        }
    }

    /// Documents of that request were accepted in a smaller one. If none is left it was too
    /// large, or else one of its documents is at fault.
    pub(crate) fn half_accepted(&mut self, whole: RequestId, documents: usize, bytes: usize) {
        let Some(halves) = self.expected.get_mut(&whole) else {
            return;
        };
        halves.open = halves.open.saturating_sub(documents);
        halves.largest = halves.largest.max(bytes);
        if halves.open == 0 {
            let largest = halves.largest;
            self.expected.remove(&whole);
            self.refuse(largest);
            self.is_slow = true;
        }
    }

    /// Larger requests got no answer in time.
    pub(crate) fn is_slow(&self) -> bool {
        self.is_slow
    }

    /// Bytes that the endpoint probably takes at once, at most `wanted`.
    pub(crate) fn below_limit(&self, wanted: usize) -> usize {
        let below = self.limit.map_or(usize::MAX, |bytes| bytes / 4 * 3);
        wanted.min(below).max(1)
    }
}
