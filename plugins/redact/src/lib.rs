//! `builtin:redact`: removes, hashes or truncates fields, and leaves everything else unchanged,
//! byte for byte. See its README.

mod redaction;

use std::collections::BTreeMap;

use lockgate_plugin::{Access, Batch, ConfigIssue, Event, Mapper, Outcome, StageSetup, config};
use serde::Deserialize;

pub use redaction::{Action, Redaction};

/// The operator's `with` table.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Config {
    pub remove: Vec<String>,
    pub hash: Vec<String>,
    /// Characters to keep, by path.
    pub truncate: BTreeMap<String, usize>,
    pub salt: String,
}

/// The configured mapper.
#[derive(Debug)]
pub struct Redact {
    redaction: Redaction,
}

impl Mapper for Redact {
    type Config = Config;

    fn configure(config: Config) -> Result<(Redact, StageSetup), Vec<ConfigIssue>> {
        let issues = problems(&config);
        if !issues.is_empty() {
            return Err(issues);
        }
        let remove = config.remove.into_iter().map(|path| (path, Action::Remove));
        let hash = config.hash.into_iter().map(|path| (path, Action::Hash));
        let truncate = config
            .truncate
            .into_iter()
            .map(|(path, characters)| (path, Action::Truncate(characters)));
        let redaction = Redaction {
            rules: remove.chain(hash).chain(truncate).collect(),
            salt: config.salt,
        };
        Ok((Redact { redaction }, StageSetup::new(Access::Payload)))
    }

    fn map(&self, _: &Batch, event: Event) -> Outcome {
        match self.redaction.apply(&event.payload) {
            Ok(None) => Outcome::document(event.payload),
            Ok(Some(redacted)) => Outcome::document(redacted),
            // An event that cannot be parsed cannot be redacted, so it must not pass.
            Err(malformed) => Outcome::Reject(malformed.to_string()),
        }
    }
}

fn problems(config: &Config) -> Vec<ConfigIssue> {
    let mut issues = vec![];
    let mut seen: BTreeMap<&str, String> = BTreeMap::new();
    let listed = |name: &'static str, list: &'_ [String]| -> Vec<String> {
        (0..list.len())
            .map(|index| format!("{name}[{index}]"))
            .collect()
    };
    let places = listed("remove", &config.remove)
        .into_iter()
        .zip(&config.remove);
    let places = places.chain(listed("hash", &config.hash).into_iter().zip(&config.hash));
    let places = places.chain(
        config
            .truncate
            .keys()
            .map(|path| (config::join("truncate", path), path)),
    );
    for (place, path) in places {
        if path.is_empty() {
            issues.push(ConfigIssue::new(&place, "The path of a field is empty."));
        } else if let Some(first) = seen.get(path.as_str()) {
            issues.push(ConfigIssue::new(
                &place,
                format!("`{path}` is already listed in `{first}`."),
            ));
        } else {
            seen.insert(path, place);
        }
    }
    if seen.is_empty() && issues.is_empty() {
        issues.push(
            ConfigIssue::new("", "No field is listed, so nothing would be redacted.")
                .help("remove = [\"user\"]"),
        );
    }
    if !config.salt.is_empty() && config.hash.is_empty() {
        issues.push(ConfigIssue::new(
            "salt",
            "`salt` has no meaning without `hash`.",
        ));
    }
    issues
}

lockgate_plugin::mapper!(Redact);

#[cfg(test)]
mod tests {
    use lockgate_plugin::test;

    use super::*;

    #[test]
    fn a_redacted_event_is_one_document() {
        let (redact, setup) = test::configure::<Redact>(r#"{"remove":["a"]}"#).unwrap();
        assert_eq!(setup.subscription.access, Access::Payload);
        let map = |payload| redact.map(&test::batch(), test::event(payload));
        assert_eq!(map(r#"{"a":1,"b":2}"#), Outcome::document(r#"{"b":2}"#));
        assert_eq!(map(r#"{"b":2}"#), Outcome::document(r#"{"b":2}"#));
        assert_eq!(
            map(r#"{"b":"#),
            Outcome::Reject("this is not valid JSON at byte 5".into())
        );
    }

    #[test]
    fn mistakes_are_all_reported() {
        assert_eq!(
            test::issues::<Redact>("{}"),
            [r#": No field is listed, so nothing would be redacted. (remove = ["user"])"#]
        );
        assert_eq!(
            test::issues::<Redact>(
                r#"{"remove":["a","b",""],"hash":["a"],"truncate":{"b.c":1,"b":2}}"#
            ),
            [
                "remove[2]: The path of a field is empty.",
                "hash[0]: `a` is already listed in `remove[0]`.",
                "truncate.b: `b` is already listed in `remove[1]`.",
            ]
        );
        assert_eq!(
            test::issues::<Redact>(r#"{"remove":["a"],"salt":"s"}"#),
            ["salt: `salt` has no meaning without `hash`."]
        );
        assert_eq!(
            test::issues::<Redact>(r#"{"hash":"user","truncate":{"a":-1}}"#),
            [
                r#"hash: `hash` must be a list, not the string `user`. (write `hash = ["user"]`)"#,
                "truncate.a: `truncate.a` must be a whole number that is not negative, not `-1`.",
            ]
        );
    }
}
