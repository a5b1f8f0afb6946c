//! Small key-value state of one stage, for filters and mappers. Writes become durable together with
//! the batch, and a pipeline that uses them processes one batch at a time. The operator grants it.
//! Outside wasm it is not granted.

pub use crate::bindings::lockgate::plugin::state::StateError;

/// The value of a key.
pub fn get(key: &str) -> Result<Option<String>, StateError> {
    #[cfg(target_family = "wasm")]
    return crate::bindings::lockgate::plugin::state::get(key);
    #[cfg(not(target_family = "wasm"))]
    not_granted(key)
}

/// Sets a key.
pub fn put(key: &str, value: &str) -> Result<(), StateError> {
    #[cfg(target_family = "wasm")]
    return crate::bindings::lockgate::plugin::state::put(key, value);
    #[cfg(not(target_family = "wasm"))]
    not_granted((key, value))
}

/// Removes a key.
pub fn remove(key: &str) -> Result<(), StateError> {
    #[cfg(target_family = "wasm")]
    return crate::bindings::lockgate::plugin::state::remove(key);
    #[cfg(not(target_family = "wasm"))]
    not_granted(key)
}

#[cfg(not(target_family = "wasm"))]
fn not_granted<A, T>(_: A) -> Result<T, StateError> {
    Err(StateError::NotGranted)
}
