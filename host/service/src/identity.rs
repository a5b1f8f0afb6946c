//! Identities, which decide whether a reload changes a pipeline or a source.

use std::collections::BTreeSet;
use std::path::Path;

use lockgate_config::{Config, Pipeline, Source};
use lockgate_model::FeedKind;
use lockgate_registry::resolve;

/// All that the operator wrote of a pipeline, and the content of its components. Equal ones need no
/// new pipeline. The content of its credentials is no part of it: a pipeline picks up renewed ones
/// by itself.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct PipelineIdentity {
    config: Pipeline,
    /// `None` for a file that cannot be read.
    components: Vec<Option<String>>,
}

impl PipelineIdentity {
    /// Blocks while files are read. `base`: where relative paths of plugins begin.
    pub(crate) fn of(pipeline: &Pipeline, base: &Path) -> PipelineIdentity {
        let sink = &pipeline.sink;
        let stages = pipeline.stages.iter().map(|stage| &stage.plugin);
        let components = stages.chain([&sink.plugin]).map(|plugin| {
            let artifact = resolve(&plugin.source.to_string(), base).ok()?;
            Some(artifact.digest.to_string())
        });
        PipelineIdentity {
            config: pipeline.unplaced(),
            components: components.collect(),
        }
    }

    /// Digests of its components.
    pub(crate) fn components(&self) -> impl Iterator<Item = &str> {
        self.components.iter().flatten().map(String::as_str)
    }
}

/// All that decides how a source is read. Its identity file is not part of it: a reader picks up a
/// renewed one by itself.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SourceIdentity {
    config: Source,
    /// Some pipeline reads its session recordings.
    pub(crate) sessions: bool,
}

impl SourceIdentity {
    pub(crate) fn of(source: &Source, config: &Config) -> SourceIdentity {
        let mut inputs = config.pipelines.iter().flat_map(|pipeline| &pipeline.from);
        let sessions =
            inputs.any(|input| input.source == source.name && input.feed == FeedKind::Sessions);
        SourceIdentity {
            config: source.unplaced(),
            sessions,
        }
    }
}

/// The changes that a reload makes to the pipelines or the sources, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Difference {
    pub(crate) added: BTreeSet<String>,
    pub(crate) changed: BTreeSet<String>,
    pub(crate) removed: BTreeSet<String>,
    pub(crate) unchanged: usize,
}

impl Difference {
    /// `None` for `before`: it does not run, whatever its configuration.
    pub(crate) fn between<I: PartialEq>(
        before: &std::collections::BTreeMap<String, Option<I>>,
        after: &std::collections::BTreeMap<String, I>,
    ) -> Difference {
        let mut difference = Difference::default();
        for (name, identity) in after {
            match before.get(name) {
                None => _ = difference.added.insert(name.clone()),
                Some(Some(same)) if same == identity => difference.unchanged += 1,
                Some(_) => _ = difference.changed.insert(name.clone()),
            }
        }
        let removed = before.keys().filter(|name| !after.contains_key(*name));
        difference.removed = removed.cloned().collect();
        difference
    }

    /// Those that have to be built.
    pub(crate) fn to_build(&self) -> impl Iterator<Item = &String> {
        self.added.iter().chain(&self.changed)
    }

    /// `1 added (a), 2 changed (b, c), 4 unchanged`.
    pub(crate) fn describe(&self) -> String {
        let named = |names: &BTreeSet<String>, what: &str| {
            let list: Vec<&str> = names.iter().map(String::as_str).collect();
            (!list.is_empty()).then(|| format!("{} {what} ({})", list.len(), list.join(", ")))
        };
        let parts = [
            named(&self.added, "added"),
            named(&self.changed, "changed"),
            named(&self.removed, "removed"),
            (self.unchanged > 0).then(|| format!("{} unchanged", self.unchanged)),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        parts.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn only_what_differs_or_does_not_run_is_new() {
        let named = |list: &[(&str, u32)]| -> BTreeMap<String, u32> {
            list.iter()
                .map(|&(name, id)| (name.to_owned(), id))
                .collect()
        };
        let mut before: BTreeMap<String, Option<u32>> =
            named(&[("same", 1), ("other", 1), ("gone", 1)])
                .into_iter()
                .map(|(name, id)| (name, Some(id)))
                .collect();
        before.insert("failed".to_owned(), None);
        let after = named(&[("same", 1), ("other", 2), ("failed", 1), ("late", 1)]);
        let difference = Difference::between(&before, &after);
        assert_eq!(
            difference.describe(),
            "1 added (late), 2 changed (failed, other), 1 removed (gone), 1 unchanged"
        );
        assert_eq!(
            difference.to_build().collect::<Vec<_>>(),
            ["late", "failed", "other"]
        );
    }
}
