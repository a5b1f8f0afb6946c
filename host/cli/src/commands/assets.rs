use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use serde_json::Value;

use crate::args::AssetsElasticsearch;
use crate::failure::Failure;
use crate::print;

const MAPPINGS: &str = include_str!("../../../../assets/elasticsearch/component-mappings.json");

/// The files of `assets/elasticsearch`, in the order in which they are used.
const ELASTICSEARCH: [(&str, &str); 7] = [
    (
        "README.md",
        include_str!("../../../../assets/elasticsearch/README.md"),
    ),
    (
        "ilm-policy.json",
        include_str!("../../../../assets/elasticsearch/ilm-policy.json"),
    ),
    ("component-mappings.json", MAPPINGS),
    (
        "component-settings.json",
        include_str!("../../../../assets/elasticsearch/component-settings.json"),
    ),
    (
        "index-template.json",
        include_str!("../../../../assets/elasticsearch/index-template.json"),
    ),
    (
        "dashboard.ndjson",
        include_str!("../../../../assets/elasticsearch/dashboard.ndjson"),
    ),
    (
        "logstash.conf",
        include_str!("../../../../assets/elasticsearch/logstash.conf"),
    ),
];

pub(crate) fn elasticsearch(command: &AssetsElasticsearch) -> Result<(), Failure> {
    let mut text = write(&command.out, &ELASTICSEARCH, command.force)?;
    text += &format!(
        "`{}` says how to install them, step by step.\n",
        command.out.join("README.md").display()
    );
    print::data(&text)
}

/// The index template declares this field, or one that it is a part of.
pub(crate) fn is_declared(field: &str) -> bool {
    static FIELDS: LazyLock<HashSet<String>> = LazyLock::new(|| {
        let mappings: Value = serde_json::from_str(MAPPINGS).unwrap_or_default();
        let properties = mappings
            .pointer("/template/mappings/properties")
            .and_then(Value::as_object);
        properties
            .into_iter()
            .flatten()
            .map(|(name, _)| name.clone())
            .collect()
    });
    let ends = field
        .match_indices('.')
        .map(|(end, _)| end)
        .chain([field.len()]);
    ends.map(|end| &field[..end])
        .any(|name| FIELDS.contains(name))
}

/// Writes what is missing or differs, and says of each file what was done. Nothing is written where
/// a file of another text would be lost.
fn write(folder: &Path, files: &[(&str, &str)], force: bool) -> Result<String, Failure> {
    let mut missing = vec![];
    let mut others: Vec<PathBuf> = vec![];
    let mut told = String::new();
    for (name, text) in files {
        let path = folder.join(name);
        match fs::read(&path) {
            Ok(found) if found == text.as_bytes() => {
                told += &format!("unchanged {}\n", path.display())
            }
            Ok(_) => {
                missing.push((path.clone(), *text));
                others.push(path);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => missing.push((path, *text)),
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                return Err(Failure::usage(format!(
                    "`--out {}`: a file is in the way, and no folder.",
                    folder.display()
                )));
            }
            Err(error) => {
                return Err(Failure::failed(format!(
                    "`{}` cannot be read: {error}.",
                    path.display()
                )));
            }
        }
    }
    if !others.is_empty() && !force {
        let names: Vec<String> = others
            .iter()
            .map(|path| format!("`{}`", path.display()))
            .collect();
        let (have, them) = if others.len() == 1 {
            ("has", "it")
        } else {
            ("have", "them")
        };
        return Err(Failure::usage(format!(
            "{} {have} another text than what would be written. Nothing was written.",
            names.join(", ")
        ))
        .hint(format!(
            "`--force` overwrites {them}; another `--out` leaves {them} alone"
        )));
    }
    fs::create_dir_all(folder).map_err(|error| {
        Failure::usage(format!(
            "`--out {}`: the folder cannot be made: {error}.",
            folder.display()
        ))
    })?;
    for (path, text) in missing {
        fs::write(&path, text).map_err(|error| {
            Failure::failed(format!("`{}` cannot be written: {error}.", path.display()))
        })?;
        let done = if others.contains(&path) {
            "replaced"
        } else {
            "wrote"
        };
        told += &format!("{done:<9} {}\n", path.display());
    }
    Ok(told)
}
