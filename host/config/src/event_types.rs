//! The event types that this version knows, to find misspellings. Teleport may have newer ones.

use std::ops::Range;

use crate::issues::Issue;
use crate::table::nearest;

/// One in a line, sorted.
const KNOWN: &str = include_str!("event_types.txt");

/// A warning if no known event type has this name. `shown`: as the operator wrote it.
pub(crate) fn check(name: &str, shown: &str, span: Range<usize>) -> Option<Issue> {
    let known: Vec<&str> = KNOWN.lines().collect();
    if known.binary_search(&name).is_ok() {
        return None;
    }
    let hint = match nearest(name, &known) {
        Some(near) => format!(
            "did you mean `{near}`? If Teleport has an event type of this name, this warning can \
             be ignored"
        ),
        None => "if Teleport has an event type of this name, this warning can be ignored".into(),
    };
    let message = format!("Unknown event type `{shown}`: it may never occur.");
    Some(Issue::warning(span, message, "unknown", hint))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::issues::Severity;

    #[test]
    fn a_misspelling_gets_the_closest_known_type() {
        for (name, near) in [
            ("user.login", None),
            ("user.logn", Some("`user.login`")),
            ("session-start", Some("`session.start`")),
            ("spaceship.landed", Some("if Teleport has")),
        ] {
            let warning = check(name, name, 0..1);
            assert_eq!(warning.is_some(), near.is_some(), "{name}");
            if let Some(warning) = warning {
                let near = near.expect("it is some");
                assert!(
                    warning.severity == Severity::Warning && warning.hint.contains(near),
                    "{warning:?}"
                );
            }
        }
    }

    #[test]
    fn the_list_is_sorted_and_has_the_types_that_the_plugins_are_tested_with() {
        let known: Vec<&str> = KNOWN.lines().collect();
        assert!(known.is_sorted(), "sort it by bytes: `LC_ALL=C sort -u`");
        let known: BTreeSet<&str> = known.into_iter().collect();
        let events = include_str!("../../../plugins/ecs/tests/golden/events.ndjson");
        for line in events.lines() {
            let (_, rest) = line.split_once("\"event\":\"").expect("an event type");
            let (name, _) = rest.split_once('"').expect("an event type");
            assert!(known.contains(name) || name == "unknown", "{name}");
        }
    }
}
