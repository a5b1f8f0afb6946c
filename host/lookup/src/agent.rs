//! User agents, by the patterns of ua-parser/uap-core, which Elasticsearch's `user_agent` processor
//! also uses.

use std::sync::{Arc, LazyLock, OnceLock};

use quick_cache::sync::Cache;
use sha2::{Digest, Sha256};
use ua_parser::{Extractor, Regexes};

/// Upstream's data; its README.md names the version.
const PATTERNS: &str = include_str!("../uap-core/regexes.json");

/// Longest user agent that is looked up, in bytes.
pub const TEXT_MAX: usize = 4096;

/// Cached answers. A cluster has a few hundred different user agents.
const CACHED: usize = 2048;

/// The software and device of a user agent. `software.name` and `device` are `Other` if no pattern
/// matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agent {
    pub software: Software,
    /// `None` if no pattern matches.
    pub os: Option<Software>,
    pub device: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Software {
    pub name: String,
    /// Up to four parts, joined with dots.
    pub version: Option<String>,
}

struct Agents {
    extractor: Option<Extractor<'static>>,
    answers: Cache<String, Arc<Agent>>,
}

static AGENTS: OnceLock<Agents> = OnceLock::new();

/// Whether the patterns are compiled.
pub fn is_ready() -> bool {
    AGENTS.get().is_some()
}

/// Compiles the patterns, once per process: about 0.2 s of CPU time and 30 MB.
pub fn prepare() {
    agents();
}

/// SHA-256 of the patterns, in hexadecimal.
pub(crate) fn digest() -> &'static str {
    static DIGEST: LazyLock<String> = LazyLock::new(|| {
        Sha256::digest(PATTERNS)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    });
    &DIGEST
}

/// `None` if the text is longer than [`TEXT_MAX`].
pub(crate) fn find(text: &str) -> Option<Arc<Agent>> {
    if text.len() > TEXT_MAX {
        return None;
    }
    let agents = agents();
    if let Some(known) = agents.answers.get(text) {
        return Some(known);
    }
    let answer = Arc::new(read(agents.extractor.as_ref()?, text));
    agents.answers.insert(text.to_owned(), answer.clone());
    Some(answer)
}

fn agents() -> &'static Agents {
    AGENTS.get_or_init(|| {
        let patterns =
            serde_json::from_str::<Regexes<'static>>(PATTERNS).map_err(|error| error.to_string());
        let extractor = patterns
            .and_then(|patterns| Extractor::try_from(patterns).map_err(|error| error.to_string()));
        // A test compiles the patterns, so users never see this.
        let extractor = extractor
            .inspect_err(|error| {
                tracing::error!("compiling the patterns for user agents failed: {error}")
            })
            .ok();
        Agents {
            extractor,
            answers: Cache::new(CACHED),
        }
    })
}

fn read(extractor: &Extractor<'static>, text: &str) -> Agent {
    const OTHER: &str = "Other";
    let software = extractor.ua.extract(text).map_or(
        Software {
            name: OTHER.into(),
            version: None,
        },
        |found| Software {
            version: version([found.major, found.minor, found.patch, found.patch_minor]),
            name: found.family.into_owned(),
        },
    );
    let os = extractor.os.extract(text).map(|found| Software {
        version: version([
            found.major.as_deref(),
            found.minor.as_deref(),
            found.patch.as_deref(),
            found.patch_minor.as_deref(),
        ]),
        name: found.os.into_owned(),
    });
    let device = extractor
        .dev
        .extract(text)
        .map_or_else(|| OTHER.into(), |found| found.device.into_owned());
    Agent {
        software,
        os,
        device,
    }
}

/// The parts before the first missing one.
fn version(parts: [Option<&str>; 4]) -> Option<String> {
    let known: Vec<&str> = parts
        .into_iter()
        .map_while(|part| part.filter(|part| !part.is_empty()))
        .collect();
    (!known.is_empty()).then(|| known.join("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Expected values: ua-parser/uap-core, and for the first three also the tests of Elastic's
    /// Teleport integration.
    #[test]
    fn user_agents_are_classified_as_by_elasticsearch() {
        let chrome = "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/121.0.0.0 Safari/537.36";
        for (text, software, os, device) in [
            ("tsh/15.0.2 grpc-go/1.60.1", "Other", None, "Other"),
            ("Go-http-client/1.1", "Go-http-client 1.1", None, "Other"),
            (chrome, "Chrome 121.0.0.0", Some("Mac OS X 10.15.7"), "Mac"),
            (
                "kubectl/v1.29.0 (linux/amd64) kubernetes/3f7a50f",
                "Other",
                Some("Linux"),
                "Other",
            ),
            ("", "Other", None, "Other"),
        ] {
            let agent = find(text).unwrap();
            let full = |software: &Software| match &software.version {
                Some(version) => format!("{} {version}", software.name),
                None => software.name.clone(),
            };
            assert_eq!(
                (
                    full(&agent.software).as_str(),
                    agent.os.as_ref().map(full).as_deref(),
                    &*agent.device
                ),
                (software, os, device)
            );
            assert!(
                Arc::ptr_eq(&agent, &find(text).unwrap()),
                "the second answer comes from the cache"
            );
        }
        assert!(is_ready());
        assert_eq!(find(&"x".repeat(TEXT_MAX + 1)), None);
        assert_eq!(digest().len(), 64);
    }
}
