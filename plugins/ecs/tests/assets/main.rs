//! Checks the files of `lockgate assets elasticsearch` against the mapper's output: the index
//! template accepts every document, and the dashboard uses existing fields.

mod dashboard;
mod documents;
mod logstash;
mod outputs;
mod panels;
mod shapes;
#[path = "../support/mod.rs"]
mod support;
mod template;

use std::fs;
use std::path::Path;

use serde_json::Value;

/// A file of `assets/elasticsearch`.
fn asset(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../assets/elasticsearch")
        .join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn json(name: &str) -> Value {
    serde_json::from_str(&asset(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}
