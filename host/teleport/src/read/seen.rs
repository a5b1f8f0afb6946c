//! Suppresses events that were read before.

use std::collections::{HashSet, VecDeque};

/// Hashes of the last events read. They show which events of overlapping windows and repeated pages
/// are duplicates.
#[derive(Debug)]
pub(crate) struct Seen {
    known: HashSet<u64>,
    order: VecDeque<u64>,
    max: usize,
}

impl Seen {
    /// `recent` begins with the oldest.
    pub(crate) fn new(max: usize, recent: &[u64]) -> Seen {
        let mut seen = Seen {
            known: HashSet::new(),
            order: VecDeque::new(),
            max: max.max(1),
        };
        for &hash in recent {
            seen.insert(hash);
        }
        seen
    }

    /// Returns whether the hash was new.
    pub(crate) fn insert(&mut self, hash: u64) -> bool {
        if !self.known.insert(hash) {
            return false;
        }
        self.order.push_back(hash);
        if self.order.len() > self.max
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remembers_the_last_and_forgets_the_oldest() {
        let mut seen = Seen::new(3, &[1, 2, 3, 4]);
        assert!(!seen.insert(2) && !seen.insert(4));
        assert!(seen.insert(1), "forgotten");
        assert!(seen.insert(2), "forgotten when 1 came again");
        assert_eq!(seen.order.len(), 3);
        assert_eq!(seen.known.len(), 3);
    }
}
