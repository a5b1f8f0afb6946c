//! `lockgate assets`: writes the files for the systems behind sinks, and for monitoring, and prints
//! the reference of the configuration.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::args::Assets;
use crate::failure::Failure;
use crate::print;

/// The files of `assets/elasticsearch`, in the order of their use.
const ELASTICSEARCH: [(&str, &str); 7] = [
    (
        "README.md",
        include_str!("../../../../assets/elasticsearch/README.md"),
    ),
    (
        "ilm-policy.json",
        include_str!("../../../../assets/elasticsearch/ilm-policy.json"),
    ),
    (
        "component-mappings.json",
        include_str!("../../../../assets/elasticsearch/component-mappings.json"),
    ),
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

/// The files of `assets/prometheus`.
const PROMETHEUS: [(&str, &str); 3] = [
    (
        "README.md",
        include_str!("../../../../assets/prometheus/README.md"),
    ),
    (
        "alerts.yml",
        include_str!("../../../../assets/prometheus/alerts.yml"),
    ),
    (
        "alerts_test.yml",
        include_str!("../../../../assets/prometheus/alerts_test.yml"),
    ),
];

/// The files of `assets/grafana`.
const GRAFANA: [(&str, &str); 2] = [
    (
        "README.md",
        include_str!("../../../../assets/grafana/README.md"),
    ),
    (
        "dashboard.json",
        include_str!("../../../../assets/grafana/dashboard.json"),
    ),
];

pub(crate) fn run(command: &Assets) -> Result<(), Failure> {
    let (files, target): (&[(&str, &str)], _) = match command {
        Assets::Elasticsearch(target) => (&ELASTICSEARCH, target),
        Assets::Prometheus(target) => (&PROMETHEUS, target),
        Assets::Grafana(target) => (&GRAFANA, target),
        Assets::Reference => return print::data(lockgate_config::REFERENCE),
    };
    let mut text = write(&target.out, files, target.force)?;
    text += &format!(
        "`{}` explains how to install them, step by step.\n",
        target.out.join("README.md").display()
    );
    print::data(&text)
}

/// Writes the files that are missing or differ, and returns a line for each file. If a file with
/// different content would be lost, nothing is written.
fn write(directory: &Path, files: &[(&str, &str)], force: bool) -> Result<String, Failure> {
    let mut pending = vec![];
    let mut different: Vec<PathBuf> = vec![];
    let mut report = String::new();
    for (name, text) in files {
        let path = directory.join(name);
        match fs::read(&path) {
            Ok(found) if found == text.as_bytes() => {
                report += &format!("unchanged {}\n", path.display())
            }
            Ok(_) => {
                pending.push((path.clone(), *text));
                different.push(path);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => pending.push((path, *text)),
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                let file = directory.ancestors().find(|path| path.is_file());
                return Err(Failure::usage(format!(
                    "`--out {}`: `{}` is a file, not a directory.",
                    directory.display(),
                    file.unwrap_or(directory).display()
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
    if !different.is_empty() && !force {
        let names: Vec<String> = different
            .iter()
            .map(|path| format!("`{}`", path.display()))
            .collect();
        let (exist, them) = if different.len() == 1 {
            ("already exists", "it")
        } else {
            ("already exist", "them")
        };
        return Err(Failure::usage(format!(
            "{} {exist} with different content. Nothing was written.",
            names.join(", ")
        ))
        .hint(format!(
            "use `--force` to overwrite {them}, or choose another directory with `--out`"
        )));
    }
    fs::create_dir_all(directory).map_err(|error| {
        Failure::usage(format!(
            "`--out {}`: the directory cannot be created: {error}.",
            directory.display()
        ))
    })?;
    for (path, text) in pending {
        fs::write(&path, text).map_err(|error| {
            Failure::failed(format!("`{}` cannot be written: {error}.", path.display()))
        })?;
        let done = if different.contains(&path) {
            "replaced"
        } else {
            "wrote"
        };
        report += &format!("{done:<9} {}\n", path.display());
    }
    Ok(report)
}
