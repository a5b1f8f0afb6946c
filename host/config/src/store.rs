//! `[store]`: where events are kept and for how long.

use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use crate::defaults::{RETAIN_AGE, RETAIN_BYTES};
use crate::issues::Issue;
use crate::quantity::{Bounds, Bytes};
use crate::reading::Reading;
use crate::table::Table;

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Store {
    /// `path`: a directory. Relative to the directory of the configuration.
    pub path: PathBuf,
    /// The span of `path`'s value in the TOML text.
    pub path_span: Range<usize>,
    /// `retain`, overridden by `retain.audit`. Per stream.
    pub audit: Retention,
    /// `retain`, overridden by `retain.sessions`. Per stream.
    pub sessions: Retention,
}

/// How long the events of a stream are kept: until the first of the two limits is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// `age`. Default 7 days.
    pub age: Duration,
    /// `bytes`. Default 8 GiB.
    pub bytes: u64,
}

impl Default for Retention {
    fn default() -> Retention {
        Retention {
            age: RETAIN_AGE.default,
            bytes: RETAIN_BYTES.default.0,
        }
    }
}

pub(crate) fn read(r: &mut Reading<'_>, root: &mut Table<'_>) -> Store {
    let Some(value) = root.optional("store") else {
        r.issue(Issue::new(
            0..0,
            "`[store]` is missing.",
            "",
            "add `[store]` with `path = \"/var/lib/lockgate\"`, a directory that only Lockgate \
             uses",
        ));
        return Store::default();
    };
    let Some(mut table) = value.table(r) else {
        return Store::default();
    };
    let path_span = table.span_of("path").unwrap_or_default();
    let path = table
        .required("path", "path = \"/var/lib/lockgate\"")
        .and_then(|value| value.path(r))
        .unwrap_or_default();
    let mut store = Store {
        path,
        path_span,
        ..Store::default()
    };
    if let Some(mut retain) = table.optional("retain").and_then(|value| value.table(r)) {
        let all = retention(r, &mut retain, Retention::default());
        store.audit = stream_retention(r, &mut retain, "audit", all);
        store.sessions = stream_retention(r, &mut retain, "sessions", all);
        retain.finish(r);
    }
    table.finish(r);
    store
}

fn retention(r: &mut Reading<'_>, table: &mut Table<'_>, default: Retention) -> Retention {
    let age = table.quantity(
        r,
        "age",
        Bounds {
            default: default.age,
            ..RETAIN_AGE
        },
    );
    let bytes = table.quantity(
        r,
        "bytes",
        Bounds {
            default: Bytes(default.bytes),
            ..RETAIN_BYTES
        },
    );
    Retention {
        age,
        bytes: bytes.0,
    }
}

fn stream_retention(
    r: &mut Reading<'_>,
    retain: &mut Table<'_>,
    feed: &'static str,
    default: Retention,
) -> Retention {
    let Some(mut table) = retain.optional(feed).and_then(|value| value.table(r)) else {
        return default;
    };
    let own = retention(r, &mut table, default);
    table.finish(r);
    own
}
