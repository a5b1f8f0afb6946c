//! Key-value state of a stage during a batch.

mod map;

use std::collections::BTreeMap;

use thiserror::Error;

pub use map::StateMap;

/// Longest key of a stage's state, in bytes.
pub const STATE_KEY_MAX: usize = 1024;

/// Longest value of a stage's state, in bytes.
pub const STATE_VALUE_MAX: usize = 64 * 1024;

/// Bytes that each key counts against the quota, besides its own and those of its value. In memory
/// an entry takes less, but it exists several times while a batch changes it, and in the store.
pub const STATE_ENTRY_BYTES: usize = 64;

/// Why a component's state call failed.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum StateError {
    #[error("the operator has not granted state to this stage")]
    NotGranted,
    #[error("the stage's state would exceed its quota")]
    QuotaExceeded,
    #[error("a key is limited to {STATE_KEY_MAX} bytes and a value to {STATE_VALUE_MAX}")]
    TooLarge,
}

/// Whose state each stage of a pipeline keeps, from the names of its stages' plugins: `NAME`, and
/// `NAME#2` if the pipeline uses the plugin for the second time.
///
/// So state stays with its plugin when stages are added, removed or moved. No plugin's name has a
/// `#`.
pub fn state_owners<'a>(plugins: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let mut uses: BTreeMap<&str, u32> = BTreeMap::new();
    let owner = |name| {
        let nth = uses.entry(name).or_default();
        *nth += 1;
        match nth {
            1 => name.to_owned(),
            nth => format!("{name}#{nth}"),
        }
    };
    plugins.into_iter().map(owner).collect()
}

/// A stage's key-value state during one batch: the durable state, and the batch's writes.
///
/// Clones are cheap and independent: a call works on a clone, which replaces the original only if
/// the call succeeds. The writes are committed with the batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StateOverlay {
    durable: StateMap,
    writes: StateMap,
    /// What all of it counts against the quota, writes included.
    size: StateSize,
    /// Most bytes. `None`: state is not granted.
    quota: Option<usize>,
}

/// The bytes that state counts against its quota.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StateSize {
    pub keys: usize,
    /// Of keys and values.
    pub text_bytes: usize,
}

impl StateSize {
    /// Its own bytes and [`STATE_ENTRY_BYTES`] for each key.
    pub fn counted(self) -> usize {
        self.text_bytes + self.keys * STATE_ENTRY_BYTES
    }

    fn add(&mut self, key: &str, value: &str) {
        self.keys += 1;
        self.text_bytes += key.len() + value.len();
    }

    fn subtract(&mut self, key: &str, value: &str) {
        self.keys -= 1;
        self.text_bytes -= key.len() + value.len();
    }
}

impl<'a> FromIterator<(&'a str, &'a str)> for StateSize {
    fn from_iter<I: IntoIterator<Item = (&'a str, &'a str)>>(entries: I) -> StateSize {
        let mut size = StateSize::default();
        for (key, value) in entries {
            size.add(key, value);
        }
        size
    }
}

impl StateOverlay {
    /// The state of a stage that has not been granted any.
    pub fn not_granted() -> StateOverlay {
        StateOverlay::default()
    }

    /// `quota`: bytes, see [`StateSize::counted`]. If the durable state has more already, it can
    /// be read and removed, but not grow.
    pub fn new(durable: StateMap, quota: usize) -> StateOverlay {
        let entries = durable.iter();
        let size = entries
            .filter_map(|(key, value)| Some((key, value?)))
            .collect();
        StateOverlay {
            durable,
            writes: StateMap::default(),
            size,
            quota: Some(quota),
        }
    }

    pub fn is_granted(&self) -> bool {
        self.quota.is_some()
    }

    /// Bytes. `None`: state is not granted.
    pub fn quota(&self) -> Option<usize> {
        self.quota
    }

    pub fn size(&self) -> StateSize {
        self.size
    }

    pub fn get(&self, key: &str) -> Result<Option<&str>, StateError> {
        self.quota.ok_or(StateError::NotGranted)?;
        Ok(self.value(key))
    }

    pub fn put(&mut self, key: &str, value: &str) -> Result<(), StateError> {
        let quota = self.quota.ok_or(StateError::NotGranted)?;
        if key.len() > STATE_KEY_MAX || value.len() > STATE_VALUE_MAX {
            return Err(StateError::TooLarge);
        }
        let mut size = self.size;
        if let Some(before) = self.value(key) {
            size.subtract(key, before);
        }
        size.add(key, value);
        // State that is over its quota may become smaller.
        if size.counted() > quota && size.counted() > self.size.counted() {
            return Err(StateError::QuotaExceeded);
        }
        self.size = size;
        self.writes.insert(key, Some(value));
        Ok(())
    }

    pub fn remove(&mut self, key: &str) -> Result<(), StateError> {
        self.quota.ok_or(StateError::NotGranted)?;
        let Some(before) = self.value(key) else {
            return Ok(());
        };
        let mut size = self.size;
        size.subtract(key, before);
        self.size = size;
        if self.durable.get(key).is_some() {
            self.writes.insert(key, None);
        } else {
            // Nothing durable is to be removed. Without an entry, keys that come and go inside a
            // batch take no memory.
            self.writes.forget(key);
        }
        Ok(())
    }

    /// The state for the next batch, which sees these writes but does not commit them.
    pub fn continued(&self) -> StateOverlay {
        StateOverlay {
            durable: self.with_writes(),
            writes: StateMap::default(),
            size: self.size,
            quota: self.quota,
        }
    }

    /// The changes of the batch. `None` removes the key.
    pub fn writes(&self) -> &StateMap {
        &self.writes
    }

    /// The durable state after the writes have been committed.
    pub fn with_writes(&self) -> StateMap {
        self.durable.with(&self.writes)
    }

    fn value(&self, key: &str) -> Option<&str> {
        let written = self.writes.get(key);
        written.unwrap_or_else(|| self.durable.get(key).flatten())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn overlay(quota: usize) -> StateOverlay {
        StateOverlay::new([("a", "1")].into_iter().collect(), quota)
    }

    #[test]
    fn each_use_of_a_plugin_has_state_of_its_own() {
        let owners = state_owners(["counter", "builtin:filter", "counter", "other", "counter"]);
        let expected = [
            "counter",
            "builtin:filter",
            "counter#2",
            "other",
            "counter#3",
        ];
        assert_eq!(owners, expected);
    }

    #[test]
    fn writes_are_visible_at_once_and_become_durable_together() {
        let mut state = overlay(1000);
        state.put("b", "22").unwrap();
        state.remove("a").unwrap();
        assert_eq!((state.get("a"), state.get("b")), (Ok(None), Ok(Some("22"))));
        assert_eq!(state.with_writes(), [("b", "22")].into_iter().collect());
    }

    #[test]
    fn the_quota_counts_keys_and_values_and_entries_and_removal_frees_it() {
        let mut state = overlay(6 + 2 * STATE_ENTRY_BYTES);
        assert_eq!(state.put("b", "1234"), Err(StateError::QuotaExceeded));
        state.put("b", "123").unwrap();
        state.put("b", "124").unwrap();
        assert_eq!(state.put("c", ""), Err(StateError::QuotaExceeded));
        state.remove("a").unwrap();
        state.put("c", "1").unwrap();
        let long = "x".repeat(STATE_VALUE_MAX + 1);
        assert_eq!(state.put("b", &long), Err(StateError::TooLarge));
        let size = StateSize {
            keys: 2,
            text_bytes: 6,
        };
        assert_eq!((state.size(), state.continued().size()), (size, size));
    }

    /// As after an update from a version that did not count entries, or a smaller grant.
    #[test]
    fn state_over_its_quota_can_be_read_and_made_smaller_but_does_not_grow() {
        let durable = [("a", "12"), ("b", "12"), ("c", "12")];
        let mut state = StateOverlay::new(durable.into_iter().collect(), STATE_ENTRY_BYTES + 10);
        assert_eq!(state.get("b"), Ok(Some("12")));
        assert_eq!(state.put("d", ""), Err(StateError::QuotaExceeded));
        assert_eq!(state.put("b", "123"), Err(StateError::QuotaExceeded));
        state.put("b", "34").unwrap();
        state.put("b", "5").unwrap();
        state.remove("a").unwrap();
        assert_eq!(state.put("a", ""), Err(StateError::QuotaExceeded));
        state.remove("c").unwrap();
        state.put("b", "123").unwrap();
        assert_eq!(state.with_writes(), [("b", "123")].into_iter().collect());
    }

    #[test]
    fn keys_that_come_and_go_leave_nothing_behind() {
        let mut state = overlay(1000);
        for n in 0..1000 {
            let key = format!("key {n}");
            state.put(&key, "").unwrap();
            state.remove(&key).unwrap();
        }
        state.remove("a").unwrap();
        let writes: Vec<_> = state.writes().iter().collect();
        assert_eq!(writes, [("a", None)]);
    }

    #[test]
    fn without_a_grant_every_call_is_refused() {
        let mut state = StateOverlay::not_granted();
        assert_eq!(state.get("a"), Err(StateError::NotGranted));
        assert_eq!(state.put("a", "1"), Err(StateError::NotGranted));
        assert_eq!(state.remove("a"), Err(StateError::NotGranted));
    }
}
