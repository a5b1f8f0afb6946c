//! Key-value state of a stage during a batch.

use std::collections::BTreeMap;
use std::sync::Arc;

use thiserror::Error;

/// Longest key of a stage's state, in bytes.
pub const STATE_KEY_MAX: usize = 1024;

/// Longest value of a stage's state, in bytes.
pub const STATE_VALUE_MAX: usize = 64 * 1024;

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
/// `NAME#2` where the pipeline uses the plugin for the second time.
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
    durable: Arc<BTreeMap<String, String>>,
    writes: BTreeMap<String, Option<String>>,
    /// Bytes of keys and values, writes included.
    bytes: usize,
    /// Most bytes. `None`: state is not granted.
    quota: Option<usize>,
}

impl StateOverlay {
    /// The state of a stage that has not been granted any.
    pub fn not_granted() -> StateOverlay {
        StateOverlay::default()
    }

    pub fn new(durable: Arc<BTreeMap<String, String>>, quota: usize) -> StateOverlay {
        let bytes = durable
            .iter()
            .map(|(key, value)| key.len() + value.len())
            .sum();
        StateOverlay {
            durable,
            writes: BTreeMap::new(),
            bytes,
            quota: Some(quota),
        }
    }

    pub fn is_granted(&self) -> bool {
        self.quota.is_some()
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
        let bytes = self.bytes - self.size(key) + key.len() + value.len();
        if bytes > quota {
            return Err(StateError::QuotaExceeded);
        }
        self.bytes = bytes;
        self.writes.insert(key.to_owned(), Some(value.to_owned()));
        Ok(())
    }

    pub fn remove(&mut self, key: &str) -> Result<(), StateError> {
        self.quota.ok_or(StateError::NotGranted)?;
        if self.value(key).is_some() {
            self.bytes -= self.size(key);
            if self.durable.contains_key(key) {
                self.writes.insert(key.to_owned(), None);
            } else {
                // Nothing durable is to be removed. Without an entry, keys that come and go inside
                // a batch take no memory.
                self.writes.remove(key);
            }
        }
        Ok(())
    }

    /// The state for the next batch, which sees these writes but does not commit them.
    pub fn continued(&self) -> StateOverlay {
        StateOverlay {
            durable: self.clone().into_durable(),
            writes: BTreeMap::new(),
            bytes: self.bytes,
            quota: self.quota,
        }
    }

    /// The changes of the batch. `None` removes the key.
    pub fn writes(&self) -> &BTreeMap<String, Option<String>> {
        &self.writes
    }

    /// The durable state after the writes have been committed.
    pub fn into_durable(mut self) -> Arc<BTreeMap<String, String>> {
        if !self.writes.is_empty() {
            let durable = Arc::make_mut(&mut self.durable);
            for (key, value) in self.writes {
                match value {
                    Some(value) => _ = durable.insert(key, value),
                    None => _ = durable.remove(&key),
                }
            }
        }
        self.durable
    }

    fn value(&self, key: &str) -> Option<&str> {
        match self.writes.get(key) {
            Some(value) => value.as_deref(),
            None => self.durable.get(key).map(String::as_str),
        }
    }

    fn size(&self, key: &str) -> usize {
        self.value(key).map_or(0, |value| key.len() + value.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn overlay(quota: usize) -> StateOverlay {
        StateOverlay::new(Arc::new(BTreeMap::from([("a".into(), "1".into())])), quota)
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
        let mut state = overlay(100);
        state.put("b", "22").unwrap();
        state.remove("a").unwrap();
        assert_eq!((state.get("a"), state.get("b")), (Ok(None), Ok(Some("22"))));
        let durable = state.into_durable();
        assert_eq!(*durable, BTreeMap::from([("b".into(), "22".into())]));
    }

    #[test]
    fn the_quota_counts_keys_and_values_and_removal_frees_it() {
        let mut state = overlay(6);
        assert_eq!(state.put("b", "1234"), Err(StateError::QuotaExceeded));
        state.put("b", "123").unwrap();
        state.put("b", "124").unwrap();
        assert_eq!(state.put("c", ""), Err(StateError::QuotaExceeded));
        state.remove("a").unwrap();
        state.put("c", "1").unwrap();
        let long = "x".repeat(STATE_VALUE_MAX + 1);
        assert_eq!(state.put("b", &long), Err(StateError::TooLarge));
    }

    #[test]
    fn keys_that_come_and_go_leave_nothing_behind() {
        let mut state = overlay(100);
        for n in 0..1000 {
            let key = format!("key {n}");
            state.put(&key, "").unwrap();
            state.remove(&key).unwrap();
        }
        state.remove("a").unwrap();
        assert_eq!(*state.writes(), BTreeMap::from([("a".into(), None)]));
    }

    #[test]
    fn without_a_grant_every_call_is_refused() {
        let mut state = StateOverlay::not_granted();
        assert_eq!(state.get("a"), Err(StateError::NotGranted));
        assert_eq!(state.put("a", "1"), Err(StateError::NotGranted));
        assert_eq!(state.remove("a"), Err(StateError::NotGranted));
    }
}
