//! The names that operators choose, which appear in logs, in the store and in metrics.

use crate::defaults::NAME_CHARS;
use crate::issues::Issue;
use crate::reading::Reading;
use crate::value::Value;

/// `noun`: what is named, such as "pipeline".
pub(crate) fn check(r: &mut Reading<'_>, noun: &str, value: &Value<'_>) {
    let name = &value.name;
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if name.is_empty() || name.chars().count() > NAME_CHARS || !name.chars().all(good) {
        let message = format!("`{name}` is not a valid name for a {noun}.");
        let hint = format!("use 1 to {NAME_CHARS} of the characters a to z, 0 to 9 and `-`");
        r.issue(Issue::new(
            value.key_span.clone(),
            message,
            "not a valid name",
            hint,
        ));
    }
}
