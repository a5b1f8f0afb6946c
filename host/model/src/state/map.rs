//! A sorted map of short texts that takes little more memory than they do.
//!
//! A `BTreeMap<String, String>` needs more than a hundred bytes for an entry of a few, and a clone
//! as much again. Here neighbours share an allocation, and clones share all that is not changed.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// Entries of a chunk, and bytes of its text, beyond which it is divided.
const CHUNK_ENTRIES: usize = 64;
const CHUNK_BYTES: usize = 4 * 1024;

/// What [`Entry::value`] says of a key that is removed.
const REMOVED: u32 = u32::MAX;

/// Keys, in order, each with a value or with the note that it is removed. A clone is cheap, and
/// changes to it cost the chunks that they touch.
#[derive(Clone, Default)]
pub struct StateMap {
    /// Never empty, and in order.
    chunks: Vec<Arc<Chunk>>,
    len: usize,
}

/// Neighbouring entries. It is never changed, but replaced by another one.
struct Chunk {
    /// Keys and values, one after the other.
    text: Box<str>,
    entries: Box<[Entry]>,
}

#[derive(Clone, Copy)]
struct Entry {
    start: u32,
    key: u32,
    /// Length of the value, or [`REMOVED`].
    value: u32,
}

impl StateMap {
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// `Some(None)`: the key is noted as removed.
    pub fn get(&self, key: &str) -> Option<Option<&str>> {
        let chunk = self.chunks.get(self.chunk_of(key)?)?;
        let index = chunk.search(key).ok()?;
        Some(chunk.entry(index).1)
    }

    /// In the order of the keys.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Option<&str>)> {
        self.chunks.iter().flat_map(|chunk| chunk.iter())
    }

    /// `None` notes that the key is removed.
    ///
    /// # Panics
    /// If a key and its value have 4 GiB or more.
    pub fn insert(&mut self, key: &str, value: Option<&str>) {
        let Some(at) = self.chunk_of(key) else {
            self.len = 1;
            let chunk = Chunk::of(std::iter::once((key, value)));
            self.chunks.push(Arc::new(chunk));
            return;
        };
        let chunk = &self.chunks[at];
        let found = chunk.search(key);
        let (before, after) = match found {
            Ok(index) => (index, index + 1),
            Err(index) => (index, index),
        };
        let new = Chunk::of(
            chunk
                .iter()
                .take(before)
                .chain([(key, value)])
                .chain(chunk.iter().skip(after)),
        );
        self.len += usize::from(found.is_err());
        if new.is_too_large() {
            let half = new.entries.len() / 2;
            let left = Chunk::of(new.iter().take(half));
            let right = Chunk::of(new.iter().skip(half));
            self.chunks[at] = Arc::new(left);
            self.chunks.insert(at + 1, Arc::new(right));
        } else {
            self.chunks[at] = Arc::new(new);
        }
    }

    /// Forgets the key.
    pub fn forget(&mut self, key: &str) {
        let Some(at) = self.chunk_of(key) else {
            return;
        };
        let chunk = &self.chunks[at];
        let Ok(index) = chunk.search(key) else {
            return;
        };
        self.len -= 1;
        if chunk.entries.len() == 1 {
            self.remove_chunk(at);
            return;
        }
        // Chunks that have become small are joined, so that there are never many of them.
        let next = self.chunks.get(at + 1);
        let next = next.filter(|next| chunk.is_small_with(next));
        let left = chunk.iter().take(index).chain(chunk.iter().skip(index + 1));
        let new = Chunk::of(left.chain(next.into_iter().flat_map(|next| next.iter())));
        if next.is_some() {
            self.remove_chunk(at + 1);
        }
        self.chunks[at] = Arc::new(new);
    }

    /// With these changes. What they note as removed is left out.
    pub fn with(&self, changes: &StateMap) -> StateMap {
        // Few changes touch few chunks. Many are merged in one pass.
        if changes.len < self.len / 8 {
            let mut map = self.clone();
            for (key, value) in changes.iter() {
                match value {
                    Some(_) => map.insert(key, value),
                    None => map.forget(key),
                }
            }
            return map;
        }
        let (mut old, mut new) = (self.iter().peekable(), changes.iter().peekable());
        let merged = std::iter::from_fn(|| {
            loop {
                let (key, value) = match (old.peek(), new.peek()) {
                    (Some((old_key, _)), Some((new_key, _))) if old_key < new_key => old.next()?,
                    (_, Some((new_key, _))) => {
                        old.next_if(|(old_key, _)| old_key == new_key);
                        new.next()?
                    }
                    _ => old.next()?,
                };
                if value.is_some() {
                    return Some((key, value));
                }
            }
        });
        StateMap::from_sorted(merged)
    }

    /// Each key once, in order.
    fn from_sorted<'a>(entries: impl Iterator<Item = (&'a str, Option<&'a str>)>) -> StateMap {
        let mut map = StateMap::default();
        let (mut chunk, mut bytes) = (Vec::new(), 0);
        let push = |map: &mut StateMap, chunk: &mut Vec<_>| {
            map.len += chunk.len();
            map.chunks.push(Arc::new(Chunk::of(chunk.drain(..))));
        };
        for (key, value) in entries {
            bytes += key.len() + value.map_or(0, str::len);
            // Some room for what comes between.
            if chunk.len() == CHUNK_ENTRIES * 3 / 4 || bytes > CHUNK_BYTES && !chunk.is_empty() {
                push(&mut map, &mut chunk);
                bytes = key.len() + value.map_or(0, str::len);
            }
            chunk.push((key, value));
        }
        if !chunk.is_empty() {
            push(&mut map, &mut chunk);
        }
        map
    }

    fn remove_chunk(&mut self, at: usize) {
        self.chunks.remove(at);
        if self.chunks.len() < self.chunks.capacity() / 4 {
            self.chunks.shrink_to(self.chunks.len() * 2);
        }
    }

    /// The chunk that has the key, or would have it. `None`: there is none.
    fn chunk_of(&self, key: &str) -> Option<usize> {
        let after = self.chunks.partition_point(|chunk| chunk.entry(0).0 <= key);
        (!self.chunks.is_empty()).then(|| after.saturating_sub(1))
    }
}

impl From<&BTreeMap<String, String>> for StateMap {
    fn from(map: &BTreeMap<String, String>) -> StateMap {
        let entries = map.iter();
        StateMap::from_sorted(entries.map(|(key, value)| (key.as_str(), Some(value.as_str()))))
    }
}

impl<'a> FromIterator<(&'a str, &'a str)> for StateMap {
    /// In any order. The last one of several equal keys counts.
    fn from_iter<I: IntoIterator<Item = (&'a str, &'a str)>>(entries: I) -> StateMap {
        let mut sorted: Vec<_> = entries.into_iter().collect();
        // Stable, and reversed: then the first of equal ones is the last that was given.
        sorted.reverse();
        sorted.sort_by_key(|&(key, _)| key);
        sorted.dedup_by_key(|&mut (key, _)| key);
        StateMap::from_sorted(sorted.into_iter().map(|(key, value)| (key, Some(value))))
    }
}

impl PartialEq for StateMap {
    fn eq(&self, other: &StateMap) -> bool {
        self.len == other.len && self.iter().eq(other.iter())
    }
}

impl Eq for StateMap {}

impl fmt::Debug for StateMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl Chunk {
    fn of<'a>(entries: impl Iterator<Item = (&'a str, Option<&'a str>)>) -> Chunk {
        let mut text = String::new();
        let length = |text: &str| u32::try_from(text.len()).expect("less than 4 GiB");
        let entries = entries
            .map(|(key, value)| {
                let start = length(&text);
                text.push_str(key);
                text.push_str(value.unwrap_or_default());
                Entry {
                    start,
                    key: length(key),
                    value: value.map_or(REMOVED, length),
                }
            })
            .collect();
        Chunk {
            text: text.into_boxed_str(),
            entries,
        }
    }

    fn entry(&self, index: usize) -> (&str, Option<&str>) {
        let Entry { start, key, value } = self.entries[index];
        let start = start as usize;
        let end = start + key as usize;
        let value = (value != REMOVED).then(|| &self.text[end..end + value as usize]);
        (&self.text[start..end], value)
    }

    fn iter(&self) -> impl Iterator<Item = (&str, Option<&str>)> {
        (0..self.entries.len()).map(|index| self.entry(index))
    }

    /// Where the key is, or would be.
    fn search(&self, key: &str) -> Result<usize, usize> {
        let key_of = |entry: &Entry| {
            let start = entry.start as usize;
            &self.text[start..start + entry.key as usize]
        };
        self.entries
            .binary_search_by(|entry| key_of(entry).cmp(key))
    }

    fn is_small_with(&self, next: &Chunk) -> bool {
        self.entries.len() + next.entries.len() <= CHUNK_ENTRIES / 2
            && self.text.len() + next.text.len() <= CHUNK_BYTES / 2
    }

    fn is_too_large(&self) -> bool {
        let entries = self.entries.len();
        entries > CHUNK_ENTRIES || entries > 1 && self.text.len() > CHUNK_BYTES
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A map, and the same as a map of the standard library.
    #[derive(Clone, Default)]
    struct Pair {
        map: StateMap,
        model: BTreeMap<String, Option<String>>,
    }

    impl Pair {
        fn change(&mut self, key: u16, change: &Change) {
            let key = format!("key {key:05}");
            match change {
                Change::Forget => {
                    self.map.forget(&key);
                    self.model.remove(&key);
                }
                Change::Remove => {
                    self.map.insert(&key, None);
                    self.model.insert(key, None);
                }
                Change::Put(length) => {
                    let value = "v".repeat(*length);
                    self.map.insert(&key, Some(&value));
                    self.model.insert(key, Some(value));
                }
            }
        }

        fn check(&self) {
            let model = self.model.iter();
            let model = model.map(|(key, value)| (key.as_str(), value.as_deref()));
            assert!(self.map.iter().eq(model));
            assert_eq!(self.map.len(), self.model.len());
            for (key, value) in &self.model {
                assert_eq!(self.map.get(key), Some(value.as_deref()));
            }
            for chunk in &self.map.chunks {
                assert!(!chunk.entries.is_empty() && chunk.entries.len() <= CHUNK_ENTRIES);
            }
        }
    }

    #[derive(Clone, Debug)]
    enum Change {
        Forget,
        Remove,
        Put(usize),
    }

    fn changes(most: usize) -> impl Strategy<Value = Vec<(u16, Change)>> {
        let change = prop_oneof![
            2 => Just(Change::Forget),
            1 => Just(Change::Remove),
            4 => (0..40usize).prop_map(Change::Put),
            1 => (0..9000usize).prop_map(Change::Put),
        ];
        proptest::collection::vec((0..400u16, change), 0..most)
    }

    proptest! {
        #[test]
        fn it_behaves_like_the_map_of_the_standard_library(
            first in changes(300),
            second in changes(300),
        ) {
            let mut before = Pair::default();
            first.iter().for_each(|(key, change)| before.change(*key, change));
            before.check();
            let mut after = before.clone();
            second.iter().for_each(|(key, change)| after.change(*key, change));
            after.check();
            before.check();
            let durable = StateMap::default().with(&before.map);
            prop_assert!(durable.iter().all(|(_, value)| value.is_some()));
            let mut changed = durable.model();
            for (key, value) in &after.model {
                match value {
                    Some(_) => _ = changed.insert(key.clone(), value.clone()),
                    None => _ = changed.remove(key),
                }
            }
            let merged = Pair { map: durable.with(&after.map), model: changed };
            merged.check();
            prop_assert_eq!(merged.map.get("key"), None);
        }
    }

    impl StateMap {
        fn model(&self) -> BTreeMap<String, Option<String>> {
            let owned =
                |(key, value): (&str, Option<&str>)| (key.to_owned(), value.map(str::to_owned));
            self.iter().map(owned).collect()
        }

        /// Bytes of memory, without what the allocator adds.
        fn allocated(&self) -> usize {
            let chunks = self.chunks.iter().map(|chunk| {
                let entries = chunk.entries.len() * size_of::<Entry>();
                size_of::<Chunk>() + 2 * size_of::<usize>() + entries + chunk.text.len()
            });
            chunks.sum::<usize>() + self.chunks.capacity() * size_of::<usize>()
        }
    }

    /// A grant of 64 MiB once cost 2.7 GB: 160 bytes for a key of four.
    #[test]
    fn an_entry_of_a_few_bytes_costs_a_few_bytes() {
        let keys: Vec<String> = (0..100_000u32)
            .map(|n| format!("{:05}", n.wrapping_mul(7919) % 100_000))
            .collect();
        let mut map = StateMap::default();
        keys.iter().for_each(|key| map.insert(key, Some("")));
        assert_eq!(map.len(), 100_000);
        assert!(map.allocated() < 24 * map.len(), "{}", map.allocated());
        // Also once most of them are gone.
        let gone = keys.iter().enumerate().filter(|(n, _)| n % 100 != 0);
        gone.for_each(|(_, key)| map.forget(key));
        assert_eq!(map.len(), 1000);
        assert!(map.allocated() < 50 * map.len(), "{}", map.allocated());
    }

    #[test]
    fn the_last_of_equal_keys_counts() {
        let map: StateMap = [("b", "1"), ("a", "2"), ("b", "3")].into_iter().collect();
        let entries: Vec<_> = map.iter().collect();
        assert_eq!(entries, [("a", Some("2")), ("b", Some("3"))]);
    }
}
