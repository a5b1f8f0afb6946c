//! Detects the world of a component by the names of its exports and imports.

use crate::component::LoadError;

/// The version of `lockgate:plugin` that this host supports.
pub const CONTRACT_VERSION: &str = "0.1.0-draft";

/// The world of `lockgate:plugin` that a component implements, which is its role in a pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Keeps or drops events.
    Filter,
    /// Makes documents of events.
    Mapper,
    /// Makes HTTP requests of documents.
    HttpSink,
}

impl Kind {
    /// The world's name: `filter`, `mapper`, `http-sink`.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Filter => "filter",
            Kind::Mapper => "mapper",
            Kind::HttpSink => "http-sink",
        }
    }

    /// The interface that only this kind exports.
    fn export(self) -> &'static str {
        match self {
            Kind::Filter => "filtering",
            Kind::Mapper => "mapping",
            Kind::HttpSink => "http-encoding",
        }
    }

    /// `types` and `events` have no functions.
    fn imports(self) -> &'static [&'static str] {
        match self {
            Kind::Filter | Kind::Mapper => {
                &["types", "events", "log", "metrics", "lookup", "state"]
            }
            Kind::HttpSink => &["types", "log", "metrics"],
        }
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// The world of a component, and what it imports.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Interface {
    pub(crate) kind: Kind,
    /// WASI interfaces that the component imports.
    pub(crate) wasi: Vec<String>,
    /// It imports `lookup`.
    pub(crate) looks_up: bool,
    /// It imports `state`.
    pub(crate) keeps_state: bool,
}

/// Detects the world. Unknown exports are ignored, because the tools of some languages add their
/// own.
pub(crate) fn detect(imports: &[String], exports: &[String]) -> Result<Interface, LoadError> {
    for name in exports.iter().chain(imports) {
        if let Some((_, version)) = ours(name).filter(|(_, version)| !is_compatible(version)) {
            let version = if version.is_empty() { "none" } else { version };
            return Err(LoadError::Version {
                theirs: version.to_owned(),
            });
        }
    }
    let exported = |interface: &str| {
        exports
            .iter()
            .any(|name| ours(name).is_some_and(|(own, _)| own == interface))
    };
    let kinds: Vec<Kind> = [Kind::Filter, Kind::Mapper, Kind::HttpSink]
        .into_iter()
        .filter(|kind| exported(kind.export()))
        .collect();
    let kind = match kinds[..] {
        [kind] => kind,
        [] => {
            return Err(LoadError::NoWorld {
                exports: list(exports),
            });
        }
        _ => {
            return Err(LoadError::SeveralWorlds {
                kinds: kinds
                    .iter()
                    .map(|kind| format!("`{kind}`"))
                    .collect::<Vec<_>>()
                    .join(", "),
            });
        }
    };
    let (wasi, others): (Vec<_>, Vec<_>) =
        imports.iter().partition(|name| name.starts_with("wasi:"));
    let unknown: Vec<String> = others
        .into_iter()
        .filter(|name| !ours(name).is_some_and(|(own, _)| kind.imports().contains(&own)))
        .cloned()
        .collect();
    if !unknown.is_empty() {
        return Err(LoadError::Imports {
            kind,
            imports: list(&unknown),
        });
    }
    let imported = |interface: &str| {
        imports
            .iter()
            .any(|name| ours(name).is_some_and(|(own, _)| own == interface))
    };
    Ok(Interface {
        kind,
        wasi: wasi.into_iter().cloned().collect(),
        looks_up: imported("lookup"),
        keeps_state: imported("state"),
    })
}

pub(crate) fn list(names: &[String]) -> String {
    if names.is_empty() {
        "nothing".into()
    } else {
        names
            .iter()
            .map(|name| format!("`{name}`"))
            .collect::<Vec<_>>()
            .join(", ")
    }
}

/// Interface and version, if the name is of the package `lockgate:plugin`.
fn ours(name: &str) -> Option<(&str, &str)> {
    let rest = name.strip_prefix("lockgate:plugin/")?;
    Some(rest.split_once('@').unwrap_or((rest, "")))
}

/// Matches versions like wasmtime: a pre-release only itself, 0.x.y any 0.x.
fn is_compatible(version: &str) -> bool {
    let line = |version: &str| -> Option<String> {
        let mut parts = version.split('.');
        let (major, minor) = (parts.next()?, parts.next()?);
        (!version.contains('-')).then(|| {
            if major == "0" {
                format!("0.{minor}")
            } else {
                major.to_owned()
            }
        })
    };
    version == CONTRACT_VERSION
        || (line(version).is_some() && line(version) == line(CONTRACT_VERSION))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_decide_the_world_of_a_component() {
        let check = |imports: &[&str], exports: &[&str]| {
            let full = |names: &[&str]| -> Vec<String> {
                names
                    .iter()
                    .map(|name| {
                        if name.contains(':') {
                            name.to_string()
                        } else {
                            format!("lockgate:plugin/{name}@{CONTRACT_VERSION}")
                        }
                    })
                    .collect()
            };
            match detect(&full(imports), &full(exports)) {
                Ok(Interface {
                    kind,
                    wasi,
                    looks_up,
                    keeps_state,
                }) => format!(
                    "{kind}, wasi {}{}{}",
                    wasi.len(),
                    if looks_up { ", looks up" } else { "" },
                    if keeps_state { ", keeps state" } else { "" }
                ),
                Err(error) => error.to_string(),
            }
        };
        for (imports, exports, expected) in [
            (
                &["types", "events", "log", "state"][..],
                &["filtering", "other:thing/init"][..],
                "filter, wasi 0, keeps state",
            ),
            (
                &["types", "wasi:io/streams@0.2.9"],
                &["mapping"],
                "mapper, wasi 1",
            ),
            (
                &["lookup", "types"],
                &["mapping"],
                "mapper, wasi 0, looks up",
            ),
            (&[], &["http-encoding"], "http-sink, wasi 0"),
            (
                &["log", "state"],
                &["http-encoding"],
                "it imports interfaces that the world `http-sink` does not have: `lockgate:plugin/state@0.1.0-draft`",
            ),
            (
                &["other:thing/net@1.0.0"],
                &["filtering"],
                "it imports interfaces that the world `filter` does not have: `other:thing/net@1.0.0`",
            ),
            (
                &[],
                &["mapping", "filtering"],
                "it exports several worlds of `lockgate:plugin` (`filter`, `mapper`); a component may implement only one",
            ),
            (
                &[],
                &["wasi:cli/run@0.2.0"],
                "it exports none of the worlds `filter`, `mapper` and `http-sink` of `lockgate:plugin`; its exports: `wasi:cli/run@0.2.0`",
            ),
            (
                &[],
                &["lockgate:plugin/filtering@0.2.0"],
                "it was built for version 0.2.0 of `lockgate:plugin`, this host supports 0.1.0-draft; build it against the host's `wit/plugin.wit`",
            ),
            (
                &["lockgate:plugin/log"],
                &["filtering"],
                "it was built for version none of `lockgate:plugin`, this host supports 0.1.0-draft; build it against the host's `wit/plugin.wit`",
            ),
        ] {
            assert_eq!(check(imports, exports), expected);
        }
    }
}
