//! Components of a pipeline that differ from those that last finished events. If one of
//! them fails, its condition says so, and how to go back.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::build::BuiltPipeline;

/// Digests are shown up to here.
const DIGEST_SHOWN: usize = "sha256:".len() + 12;

/// Hints for conditions of components that were replaced, by their labels. Empty once the
/// pipeline has finished something with them.
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
            let was = digest_of(
                last["stages"].as_array().into_iter().flatten(),
                &plugin.name,
            );
            let is = now["stages"][index]["digest"].as_str();
            let hint = hint(&plugin.source.to_string(), was, is);
            replaced.extend(hint.map(|hint| (built.stage.label().to_owned(), hint)));
        }
        let sink = &pipeline.config.sink.plugin;
        let was = digest_of([&last["sink"]], &sink.name);
        let is = now["sink"]["digest"].as_str();
        let hint = hint(&sink.source.to_string(), was, is);
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

/// The digest that a plugin had. If the pipeline used it several times, that was the same.
fn digest_of<'a>(described: impl IntoIterator<Item = &'a Value>, name: &str) -> Option<&'a str> {
    let mut described = described.into_iter();
    let component = described.find(|component| component["plugin"] == name)?;
    component["digest"].as_str()
}

fn hint(source: &str, was: Option<&str>, is: Option<&str>) -> Option<String> {
    let (was, is) = (was?, is?);
    let shown = |digest: &str| digest.get(..DIGEST_SHOWN).unwrap_or(digest).to_owned();
    let back = match source.starts_with("builtin:") {
        true => "run the version of Lockgate that you had before".to_owned(),
        false => format!("put the earlier content of `{source}` back and run `lockgate reload`"),
    };
    (was != is).then(|| {
        format!(
            "`{source}` was replaced: {} last finished events here, and it is {} now; to go back, \
             {back}",
            shown(was),
            shown(is)
        )
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_component_with_another_digest_says_how_to_go_back() {
        let described = json!([
            { "plugin": "other", "digest": "sha256:000000000000000000" },
            { "plugin": "noise", "digest": "sha256:0123456789abcdef00" },
        ]);
        let was = digest_of(described.as_array().unwrap(), "noise");
        let check = |source, is: &str| hint(source, was, Some(is));
        assert_eq!(check("file:noise.wasm", "sha256:0123456789abcdef00"), None);
        assert_eq!(hint("file:noise.wasm", None, Some("sha256:1")), None);
        assert_eq!(
            check("file:noise.wasm", "sha256:fedcba9876543210ff").unwrap(),
            "`file:noise.wasm` was replaced: sha256:0123456789ab last finished events here, and \
             it is sha256:fedcba987654 now; to go back, put the earlier content of \
             `file:noise.wasm` back and run `lockgate reload`"
        );
        let builtin = check("builtin:noise", "sha256:fedcba9876543210ff").unwrap();
        assert!(builtin.ends_with("run the version of Lockgate that you had before"));
    }
}
