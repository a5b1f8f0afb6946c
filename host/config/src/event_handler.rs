//! Recognises the configuration of Teleport's Event Handler, which Lockgate does not read.

use toml::de::DeValue;

use crate::issues::Issue;
use crate::reading::Reading;
use crate::table::Table;

/// Whether the text is the Event Handler's, reported as an issue: it has `storage` or
/// `forward.fluentd`, which Lockgate does not have.
pub(crate) fn recognise(r: &mut Reading<'_>, root: &Table<'_>) -> bool {
    let is_its_own = |name: &str, node: &DeValue<'_>| match name {
        "storage" => matches!(node, DeValue::String(_)),
        "forward" => matches!(node, DeValue::Table(table) if table.contains_key("fluentd")),
        _ => false,
    };
    let values = root.named();
    let Some(value) = values
        .iter()
        .find(|value| is_its_own(&value.name, value.node()))
    else {
        return false;
    };
    let hint = "write its `storage` as `[store] path`, and its `[forward.fluentd]` as \
                `[pipelines.NAME.sink]` with `plugin = \"builtin:fluentd\"`";
    r.issue(Issue::new(
        value.key_span.clone(),
        "This is a configuration of Teleport's Event Handler.",
        "not a key of Lockgate's",
        hint,
    ));
    true
}
