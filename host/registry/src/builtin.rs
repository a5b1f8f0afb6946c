//! The components that the binary contains.

use crate::digest::Digest;
use crate::resolve::ResolveError;

mod embedded {
    use super::Builtin;

    include!(concat!(env!("OUT_DIR"), "/builtins.rs"));
}

/// A component that is embedded in this binary.
#[derive(Clone, Copy)]
pub struct Builtin {
    /// The name after `builtin:`.
    pub name: &'static str,
    /// Version of the plugin's own package.
    pub version: &'static str,
    /// The component.
    pub bytes: &'static [u8],
    /// Its README, which describes its `with` table.
    pub readme: &'static str,
}

impl Builtin {
    pub fn digest(&self) -> Digest {
        Digest::of(self.bytes)
    }
}

/// All built-in components, by name. Empty in a binary that was built without plugins.
pub fn builtins() -> &'static [Builtin] {
    &embedded::BUILTINS
}

/// The built-in component of this name.
///
/// # Errors
/// [`ResolveError::UnknownBuiltin`], or [`ResolveError::NoBuiltins`] in a binary that was built
/// without plugins.
pub fn builtin(name: &str) -> Result<&'static Builtin, ResolveError> {
    select(name, builtins(), embedded::BUILT)
}

fn select<'a>(name: &str, all: &'a [Builtin], built: bool) -> Result<&'a Builtin, ResolveError> {
    if !built {
        return Err(ResolveError::NoBuiltins {
            name: name.to_owned(),
        });
    }
    all.iter()
        .find(|builtin| builtin.name == name)
        .ok_or_else(|| {
            let known: Vec<_> = all.iter().map(|builtin| builtin.name).collect();
            ResolveError::UnknownBuiltin {
                name: name.to_owned(),
                nearest: nearest(name, &known),
                known: known.join("`, `"),
            }
        })
}

/// The name that was probably meant.
fn nearest(name: &str, known: &[&'static str]) -> Option<&'static str> {
    let distance = |candidate: &&str| strsim::damerau_levenshtein(&name.to_lowercase(), candidate);
    // If more than a third of the letters differ, it is another word, not a typo.
    known
        .iter()
        .copied()
        .min_by_key(distance)
        .filter(|best| distance(best) <= best.len().div_ceil(3))
}

/// A built-in component whose name is `word`.
pub(crate) fn named(word: &str) -> Option<&'static str> {
    builtins()
        .iter()
        .map(|builtin| builtin.name)
        .find(|name| *name == word)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Builtin; 3] = [
        Builtin {
            name: "filter",
            version: "0.1.0",
            bytes: b"f",
            readme: "",
        },
        Builtin {
            name: "fluentd",
            version: "0.1.0",
            bytes: b"d",
            readme: "",
        },
        Builtin {
            name: "redact",
            version: "0.1.0",
            bytes: b"r",
            readme: "",
        },
    ];

    #[test]
    fn a_typo_in_the_name_gets_a_suggestion() {
        let message = |name| {
            select(name, &ALL, true)
                .map(|found| found.name)
                .map_err(|error| (error.to_string(), error.hint()))
        };
        assert_eq!(message("fluentd"), Ok("fluentd"));
        let hint = |text: &str| Some(text.to_owned());
        assert_eq!(
            message("fluend"),
            Err((
                "Unknown built-in plugin `fluend`. The built-in plugins are `filter`, `fluentd`, `redact`.".into(),
                hint("did you mean `builtin:fluentd`?")
            ))
        );
        assert_eq!(
            message("splunk"),
            Err(("Unknown built-in plugin `splunk`. The built-in plugins are `filter`, `fluentd`, `redact`.".into(), None))
        );
        assert!(
            message("Filter")
                .is_err_and(|(_, hint)| hint == Some("did you mean `builtin:filter`?".into()))
        );
    }

    #[test]
    fn a_binary_without_plugins_says_so() {
        let error = select("filter", &[], false)
            .map(|found| found.name)
            .expect_err("nothing is embedded");
        assert_eq!(
            error.to_string(),
            "`builtin:filter` is not available: this binary was built without plugins."
        );
        assert_eq!(
            error.hint().as_deref(),
            Some("build Lockgate again without `LOCKGATE_SKIP_PLUGINS` in the environment")
        );
    }

    /// Every test build embeds the plugins, unless they are left out on request.
    #[test]
    fn the_plugins_are_embedded_as_components() {
        let names: Vec<_> = builtins().iter().map(|builtin| builtin.name).collect();
        let expected: &[&str] = if embedded::BUILT {
            &[
                "cef",
                "datadog",
                "ecs",
                "elasticsearch",
                "filter",
                "fluentd",
                "http",
                "logstash",
                "loki",
                "otlp",
                "redact",
                "runreveal",
                "slack",
                "splunk",
            ]
        } else {
            &[]
        };
        assert_eq!(names, expected);
        for builtin in builtins() {
            let title = format!("# `builtin:{}`", builtin.name);
            assert!(builtin.readme.starts_with(&title), "{}", builtin.name);
            assert!(
                builtin.bytes.starts_with(b"\0asm\x0d\0\x01\0"),
                "{} is a component",
                builtin.name
            );
            assert!(
                builtin.version.split('.').count() == 3,
                "{} has version {}",
                builtin.name,
                builtin.version
            );
        }
    }
}
