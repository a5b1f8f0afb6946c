//! The contract's versions: one directory for each that this host speaks. A directory holds the
//! bindings of its version, what its components import, and how its records become the plain data
//! of `lockgate_model::contract`; everything behind that is written once, in the rest of this
//! crate. An older version stays here beside the current one.

pub(crate) mod draft;

use lockgate_model::contract::CallError;

/// A component broke the contract. Foreign text in `text` is escaped.
pub(crate) fn broken(text: impl AsRef<str>) -> CallError {
    CallError::Contract(crate::log::line(text.as_ref()))
}
