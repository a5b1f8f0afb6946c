//! `lockgate status`, and the books that it shows.

use std::path::Path;

use serde_json::Value;

use crate::lockgate;
use crate::process::Running;

/// The four figures and their sum, as `lockgate status` shows them for one pipeline.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Books {
    pub read: u64,
    pub delivered: u64,
    pub dropped: u64,
    pub dead: u64,
    pub waiting: u64,
}

/// The output of `lockgate status --json`.
#[track_caller]
pub fn status(config: &Path) -> Value {
    let ended = Running::start(
        "status",
        lockgate()
            .args(["status", "--json", "--config"])
            .arg(config),
    )
    .ended()
    .exits_with(0);
    serde_json::from_str(&ended.stdout).expect("status is JSON")
}

/// Books of a pipeline, over all its streams. Zeros before the host has made it known. They must
/// balance.
#[track_caller]
pub fn books(status: &Value, pipeline: &str) -> Books {
    let Some(row) = status["pipelines"].get(pipeline) else {
        return Books::default();
    };
    let figure = |name: &str| {
        row[name]
            .as_u64()
            .unwrap_or_else(|| panic!("no `{name}` in {status}"))
    };
    let books = Books {
        read: figure("read"),
        delivered: figure("delivered"),
        dropped: figure("dropped"),
        dead: figure("dead"),
        waiting: figure("waiting"),
    };
    assert_eq!(row["balanced"], true, "{row}");
    assert_eq!(
        books.read,
        books.delivered + books.dropped + books.dead + books.waiting,
        "{row}"
    );
    books
}
