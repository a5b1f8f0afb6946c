//! The counts of a receiver.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};

use serde::Serialize;

use super::documents::hash;

/// Paths counted one by one; documents of further ones are counted under [`OTHER`].
const PATHS_MAX: usize = 100_000;
const OTHER: &str = "(other paths)";

/// Counts since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// Requests that were answered, with any status.
    pub requests: u64,
    /// Documents of requests answered with 2xx.
    pub documents: u64,
    /// Distinct ids among them. The same id under another path is another document.
    pub distinct: u64,
    /// `documents - distinct`.
    pub duplicates: u64,
    /// Requests not answered with 2xx.
    pub refused: u64,
    pub by_path: BTreeMap<String, PathTotals>,
}

/// Counts of one path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PathTotals {
    pub requests: u64,
    pub documents: u64,
    pub refused: u64,
}

impl Totals {
    /// The same with so many paths, those with the most documents, and one entry for all others.
    pub fn with_paths(mut self, number: usize) -> Totals {
        let mut paths: Vec<_> = std::mem::take(&mut self.by_path).into_iter().collect();
        paths.sort_by_key(|(_, totals)| Reverse(totals.documents));
        let others = paths.split_off(number.min(paths.len()));
        self.by_path = paths.into_iter().collect();
        for (_, totals) in others {
            let other = self.by_path.entry(OTHER.to_owned()).or_default();
            other.requests += totals.requests;
            other.documents += totals.documents;
            other.refused += totals.refused;
        }
        self
    }
}

#[derive(Default)]
pub(super) struct Tally {
    totals: Totals,
    seen: HashSet<u128, BuildHasherDefault<IdHasher>>,
}

impl Tally {
    pub(super) fn accept(&mut self, path: &str, ids: &[u128]) {
        let salt = hash(path.as_bytes());
        let new = ids
            .iter()
            .filter(|id| self.seen.insert(**id ^ salt))
            .count() as u64;
        let count = ids.len() as u64;
        self.totals.requests += 1;
        self.totals.documents += count;
        self.totals.distinct += new;
        self.totals.duplicates += count - new;
        let path = self.path(path);
        path.requests += 1;
        path.documents += count;
    }

    pub(super) fn refuse(&mut self, path: &str) {
        self.totals.requests += 1;
        self.totals.refused += 1;
        let path = self.path(path);
        path.requests += 1;
        path.refused += 1;
    }

    pub(super) fn totals(&self) -> &Totals {
        &self.totals
    }

    fn path(&mut self, path: &str) -> &mut PathTotals {
        let paths = &mut self.totals.by_path;
        let key = if paths.len() < PATHS_MAX || paths.contains_key(path) {
            path
        } else {
            OTHER
        };
        if !paths.contains_key(key) {
            if key == OTHER {
                tracing::warn!(
                    "more than {PATHS_MAX} paths; documents of further ones are counted as `{OTHER}`"
                );
            }
            paths.insert(key.to_owned(), PathTotals::default());
        }
        paths.entry(key.to_owned()).or_default()
    }
}

/// A hasher for ids, which are already hashes.
#[derive(Default)]
struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes
            .iter()
            .for_each(|byte| self.0 = self.0.rotate_left(8) ^ u64::from(*byte));
    }

    fn write_u128(&mut self, id: u128) {
        self.0 = id as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::{PathTotals, Tally, Totals};

    fn path(requests: u64, documents: u64, refused: u64) -> PathTotals {
        PathTotals {
            requests,
            documents,
            refused,
        }
    }

    #[test]
    fn paths_with_few_documents_are_counted_together() {
        let mut tally = Tally::default();
        tally.accept("/a", &[1]);
        tally.accept("/b", &[1, 2, 3]);
        tally.accept("/c", &[1, 2]);
        tally.accept("/d", &[1]);
        tally.refuse("/d");
        let all = tally.totals();
        assert_eq!(all.clone().with_paths(4), *all);
        let few = all.clone().with_paths(2);
        let expected = [
            ("/b", path(1, 3, 0)),
            ("/c", path(1, 2, 0)),
            ("(other paths)", path(3, 2, 1)),
        ];
        assert_eq!(
            few,
            Totals {
                by_path: expected.map(|(name, of)| (name.to_owned(), of)).into(),
                ..all.clone()
            }
        );
    }
}
