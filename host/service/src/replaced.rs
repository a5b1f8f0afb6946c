//! Components of a pipeline that differ from those that last finished events, or that are
//! configured in another way. If one of them fails, its condition says so, and how to go back.

use std::collections::{BTreeMap, BTreeSet};

use lockgate_model::escape;
use serde_json::Value;

use crate::build::BuiltPipeline;

/// Digests are shown up to here.
const DIGEST_SHOWN: usize = "sha256:".len() + 12;

/// Most bytes of a key in a message.
const KEY_SHOWN: usize = 60;

/// What to add to conditions of components that were replaced or configured in another way, by
/// their labels. Empty once the pipeline has finished something with them.
#[derive(Debug, Default)]
pub(crate) struct ReplacedComponents(BTreeMap<String, String>);

impl ReplacedComponents {
    /// `last`: the description of the generation that last finished events.
    pub(crate) fn of(pipeline: &BuiltPipeline, last: Option<&str>) -> ReplacedComponents {
        let last: Value = last
            .and_then(|last| serde_json::from_str(last).ok())
            .unwrap_or_default();
        let now = &pipeline.description.components;
        let mut replaced = BTreeMap::new();
        let stages = pipeline.config.stages.iter().map(|stage| &stage.plugin);
        for (index, (plugin, built)) in stages.zip(&pipeline.stages).enumerate() {
            let last = last["stages"].as_array();
            let was = described(last.into_iter().flatten(), now["stages"].as_array(), index);
            let hint = hint(&plugin.source.to_string(), was, &now["stages"][index]);
            replaced.extend(hint.map(|hint| (built.stage.label().to_owned(), hint)));
        }
        let sink = &pipeline.config.sink.plugin;
        let was = Some(&last["sink"]).filter(|was| was["plugin"] == *sink.name);
        let hint = hint(&sink.source.to_string(), was, &now["sink"]);
        replaced.extend(hint.map(|hint| (pipeline.sink.sink.label().to_owned(), hint)));
        ReplacedComponents(replaced)
    }

    /// Something was finished: how the component works is no longer a question of its version.
    pub(crate) fn finished(&mut self) {
        self.0.clear();
    }

    /// A condition's message, and if the component was replaced, how to go back.
    pub(crate) fn explain(&self, label: &str, message: &str) -> String {
        match self.0.get(label) {
            Some(hint) => format!("{message}; {hint}"),
            None => message.to_owned(),
        }
    }
}

/// The earlier description of the stage at `index`: where the pipeline uses its plugin several
/// times, its first, second, ... use.
fn described<'a>(
    last: impl Iterator<Item = &'a Value>,
    now: Option<&Vec<Value>>,
    index: usize,
) -> Option<&'a Value> {
    let now = now?;
    let plugin = &now.get(index)?["plugin"];
    let of_plugin = |stage: &&Value| stage["plugin"] == *plugin;
    let use_number = now[..index].iter().filter(of_plugin).count();
    last.filter(of_plugin).nth(use_number)
}

/// `was` and `is`: descriptions of the component when it last finished events, and now.
fn hint(source: &str, was: Option<&Value>, is: &Value) -> Option<String> {
    let was = was?;
    let digests = was["digest"].as_str().zip(is["digest"].as_str());
    let replaced = digests.filter(|(was, is)| was != is).map(|(was, is)| {
        let shown = |digest: &str| digest.get(..DIGEST_SHOWN).unwrap_or(digest).to_owned();
        let back = match source.starts_with("builtin:") {
            true => "run the version of Lockgate that you had before".to_owned(),
            false => {
                format!("put the earlier content of `{source}` back and run `lockgate reload`")
            }
        };
        format!(
            "`{source}` was replaced: {} last finished events here, and it is {} now; to go back, \
             {back}",
            shown(was),
            shown(is)
        )
    });
    let keys = changed_keys(&was["with"], &is["with"]);
    let changed = (!keys.is_empty()).then(|| {
        format!(
            "in its `with`, {} changed since it last finished events here; to go back, restore the \
             earlier `with` and run `lockgate reload`",
            keys.join(", ")
        )
    });
    let hints: Vec<String> = replaced.into_iter().chain(changed).collect();
    (!hints.is_empty()).then(|| hints.join("; "))
}

/// The keys whose values differ, without the values: they may be secrets.
fn changed_keys(was: &Value, is: &Value) -> Vec<String> {
    let (Some(was), Some(is)) = (was.as_object(), is.as_object()) else {
        return Vec::new();
    };
    let keys: BTreeSet<&String> = was.keys().chain(is.keys()).collect();
    let differs = |key: &&String| was.get(key.as_str()) != is.get(key.as_str());
    let name = |key: &String| format!("`{}`", escape(key, KEY_SHOWN));
    keys.into_iter().filter(differs).map(name).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_component_with_another_digest_says_how_to_go_back() {
        let described =
            |digest: &str| json!({ "plugin": "noise", "digest": digest, "with": { "a": 1 } });
        let was = described("sha256:0123456789abcdef00");
        let is = described("sha256:fedcba9876543210ff");
        assert_eq!(hint("file:noise.wasm", Some(&was), &was), None);
        assert_eq!(hint("file:noise.wasm", None, &is), None);
        assert_eq!(
            hint("file:noise.wasm", Some(&was), &is).unwrap(),
            "`file:noise.wasm` was replaced: sha256:0123456789ab last finished events here, and \
             it is sha256:fedcba987654 now; to go back, put the earlier content of \
             `file:noise.wasm` back and run `lockgate reload`"
        );
        let builtin = hint("builtin:noise", Some(&was), &is).unwrap();
        assert!(builtin.ends_with("run the version of Lockgate that you had before"));
    }

    #[test]
    fn a_component_with_another_configuration_names_the_keys_that_changed() {
        let described =
            |with: Value| json!({ "plugin": "noise", "digest": "sha256:1", "with": with });
        let was = described(json!({ "skip": ["a"], "keep": true, "gone": "secret" }));
        let is = described(json!({ "skip": ["b"], "keep": true, "new": {} }));
        assert_eq!(
            hint("file:noise.wasm", Some(&was), &is).unwrap(),
            "in its `with`, `gone`, `new`, `skip` changed since it last finished events here; to \
             go back, restore the earlier `with` and run `lockgate reload`"
        );
        assert_eq!(hint("file:noise.wasm", Some(&was), &was), None);
    }

    #[test]
    fn each_use_of_a_plugin_is_compared_with_its_own() {
        let stage = |plugin, key| json!({ "plugin": plugin, "with": { "key": key } });
        let last = [stage("noise", 1), stage("other", 2), stage("noise", 3)];
        let now = vec![stage("noise", 1), stage("noise", 3), stage("new", 4)];
        let described = |index| described(last.iter(), Some(&now), index);
        let all = [described(0), described(1), described(2)];
        assert_eq!(all, [Some(&last[0]), Some(&last[2]), None]);
    }
}
