//! The index template of `lockgate assets elasticsearch`.

use std::collections::HashSet;
use std::sync::LazyLock;

use serde_json::Value;

const MAPPINGS: &str = include_str!("../../../assets/elasticsearch/component-mappings.json");

/// Whether the index template declares this field or a parent of it.
pub(super) fn is_declared(field: &str) -> bool {
    static FIELDS: LazyLock<HashSet<String>> = LazyLock::new(|| {
        let mappings: Value = serde_json::from_str(MAPPINGS).unwrap_or_default();
        let properties = mappings
            .pointer("/template/mappings/properties")
            .and_then(Value::as_object);
        properties
            .into_iter()
            .flatten()
            .map(|(name, _)| name.clone())
            .collect()
    });
    let ends = field
        .match_indices('.')
        .map(|(end, _)| end)
        .chain([field.len()]);
    ends.map(|end| &field[..end])
        .any(|name| FIELDS.contains(name))
}
