#![doc = include_str!("../README.md")]

pub mod document;
mod enrich;
mod indexed;
mod keys;
pub mod kinds;
pub mod lookup;
mod machine;
pub mod mapper;
pub mod mapping;
mod parse;
pub mod row;
pub mod rules;
mod value;
mod write;

use lockgate_plugin::{Access, Batch, ConfigIssue, Event, Mapper, Outcome, StageSetup};
use serde::Deserialize;

use crate::lookup::Granted;
use crate::mapper::Mapping;
use crate::rules::Rules;

/// The operator's `with` table.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Config {
    pub compat: Compat,
    /// `false`: corrects obvious mistakes of Elastic's integration.
    pub quirks: bool,
    /// Adds the event's text to the document as `event.original`.
    pub preserve_original: bool,
}

/// The version of Elastic's integration to follow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum Compat {
    #[serde(rename = "0.1.0")]
    First,
    #[default]
    #[serde(rename = "1.6")]
    Later,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            compat: Compat::default(),
            quirks: true,
            preserve_original: false,
        }
    }
}

/// The configured mapper.
#[derive(Debug)]
pub struct Ecs {
    mapping: Mapping<Granted>,
}

impl Config {
    /// The mapping with custom look-ups.
    pub fn mapping<L: lookup::Lookup>(&self, lookup: L) -> Mapping<L> {
        let rules = Rules::new(self.compat == Compat::Later, !self.quirks);
        Mapping {
            rules,
            preserve_original: self.preserve_original,
            lookup,
        }
    }
}

impl Mapper for Ecs {
    type Config = Config;

    fn configure(config: Config) -> Result<(Ecs, StageSetup), Vec<ConfigIssue>> {
        Ok((
            Ecs {
                mapping: config.mapping(Granted),
            },
            StageSetup::new(Access::Payload),
        ))
    }

    fn map(&self, _: &Batch, event: Event) -> Outcome {
        Outcome::document(self.mapping.map(&event.payload))
    }
}

lockgate_plugin::mapper!(Ecs);

#[cfg(test)]
mod tests {
    use lockgate_plugin::test;

    use super::*;

    #[test]
    fn an_event_is_one_document() {
        let (ecs, setup) = test::configure::<Ecs>("{}").unwrap();
        assert_eq!(setup.subscription.access, Access::Payload);
        let event =
            test::event(r#"{"event":"lock.created","code":"TLK00I","user":"bob","later":[1]}"#);
        let Outcome::Emit(documents) = ecs.map(&test::batch(), event) else {
            panic!("no document")
        };
        let document: serde_json::Value = serde_json::from_str(&documents[0].payload).unwrap();
        assert_eq!(documents.len(), 1);
        assert_eq!(document["user"]["name"], "bob");
        assert_eq!(
            document["teleport"]["audit"]["later"],
            serde_json::json!([1])
        );
        assert!(document["event"].get("original").is_none());
    }

    #[test]
    fn the_original_is_added_on_request() {
        let payload = r#"{"event":"exec","code":"T3002I","x":"\u00e9"}"#;
        for compat in ["0.1.0", "1.6"] {
            let with = format!(r#"{{"compat":"{compat}","preserve-original":true}}"#);
            let (ecs, _) = test::configure::<Ecs>(&with).unwrap();
            let Outcome::Emit(documents) = ecs.map(&test::batch(), test::event(payload)) else {
                panic!("no document")
            };
            let document: serde_json::Value = serde_json::from_str(&documents[0].payload).unwrap();
            assert_eq!(document["event"]["original"], payload);
            assert_eq!(
                document["tags"],
                serde_json::json!(["preserve_original_event"])
            );
        }
    }

    #[test]
    fn mistakes_name_their_key() {
        for (with, path) in [
            (r#"{"compat":"1.5"}"#, "compat"),
            (r#"{"quirks":"no"}"#, "quirks"),
            (r#"{"preserve":true}"#, "preserve"),
            // The spelling of an earlier version.
            (
                r#"{"preserve_original":true}"#,
                "did you mean `preserve-original`?",
            ),
        ] {
            let issues = test::issues::<Ecs>(with);
            assert!(issues.len() == 1 && issues[0].contains(path), "{issues:?}");
        }
        assert_eq!(
            test::issues::<Ecs>(r#"{"compat":"1.5","quirks":"no","preserve":true}"#).len(),
            3
        );
    }
}
