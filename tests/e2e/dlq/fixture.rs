//! A store with dead letters, for commands that no host answers.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use lockgate_model::{
    Append, BatchRecord, BlockBuilder, Commit, CursorUpdate, Day, DayTally, DeadLetter, Entries,
    FeedKind, Generation, Head, Outcome, Outcomes,
};
use lockgate_store::{Ledger, Options, Retention, Store};
use lockgate_tests::{Books, Ended, Running, books, lockgate};
use serde_json::Value;
use tempfile::TempDir;

/// 2026-01-05.
pub(crate) const DAY: i64 = 1_767_571_200_000;
pub(crate) const AUDIT: &str = "teleport/audit";

/// A store on which no host runs, with ten events that two pipelines are done with. The pipeline
/// `other` was configured, too, and never ran. Dead letters:
///
/// | pipeline | entry | type | since |
/// |---|---|---|---|
/// | `siem` | 3 | `user.login` | 2026-01-05T00:01:00Z |
/// | `siem` | 4 | `session.start` | 2026-01-05T00:01:00Z |
/// | `siem` | 9, not JSON | `user.login` | 2026-01-05T00:01:00Z |
/// | `archive` | 4 | `session.start` | 2026-01-05T00:02:00Z |
pub(crate) struct Fixture {
    pub(crate) dir: TempDir,
    pub(crate) runtime: tokio::runtime::Runtime,
}

impl Fixture {
    pub(crate) fn new() -> Fixture {
        let fixture = Fixture {
            dir: tempfile::tempdir().unwrap(),
            runtime: tokio::runtime::Runtime::new().unwrap(),
        };
        fixture.runtime.block_on(async {
            let store = open(&fixture.store());
            append(&store, 1..=10, DAY).await;
            let refused = "the receiver answered 400: bad \u{1b}[31mfield\n`user`";
            finish(&store, "siem", &[3, 4, 9], refused, DAY + 60_000).await;
            finish(&store, "archive", &[4], "too large", DAY + 120_000).await;
            let reads = |name: &str| (name.to_owned(), vec![AUDIT.to_owned()]);
            let configured = ["archive", "other", "siem"].map(reads).into();
            store.keep_only(&configured).await.unwrap();
            store.close().await.unwrap();
        });
        fixture
    }

    pub(crate) fn store(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    pub(crate) fn dlq(&self, arguments: &[&str]) -> Ended {
        let (command, rest) = arguments.split_first().unwrap();
        Running::start(
            "dlq",
            lockgate()
                .args(["dlq", command, "--store"])
                .arg(self.store())
                .args(rest)
                .current_dir(self.dir.path()),
        )
        .ended()
    }

    /// The addresses that `list` prints.
    pub(crate) fn listed(&self, filter: &[&str]) -> Vec<String> {
        let arguments = [&["list", "--json"], filter].concat();
        let ended = self.dlq(&arguments).exits_with(0);
        let report: Value = serde_json::from_str(&ended.stdout).unwrap();
        let rows = report["dead_letters"].as_array().unwrap();
        rows.iter()
            .map(|row| row["address"].as_str().unwrap().to_owned())
            .collect()
    }

    pub(crate) fn books(&self, pipeline: &str) -> Books {
        books(&self.status(), pipeline)
    }

    pub(crate) fn lag(&self, pipeline: &str) -> Value {
        self.status()["pipelines"][pipeline]["lag_seconds"].clone()
    }

    pub(crate) fn status(&self) -> Value {
        let ended = Running::start(
            "status",
            lockgate()
                .args(["status", "--json", "--store"])
                .arg(self.store()),
        )
        .ended()
        .exits_with(0);
        serde_json::from_str(&ended.stdout).unwrap()
    }
}

/// Without retention: the events are old.
pub(crate) fn open(path: &Path) -> Store {
    let retention = Retention::default();
    Store::open(Options {
        retention,
        ..Options::new(path)
    })
    .unwrap()
}

pub(crate) async fn append(store: &Store, events: RangeInclusive<usize>, read_at: i64) {
    let mut builder = BlockBuilder::new();
    for nth in events {
        let (key, text) = (
            format!("k{nth}"),
            format!(r#"{{"uid":"k{nth}","ei":{nth}.50}}"#),
        );
        let head = Head {
            key: &key,
            event_type: ["session.start", "user.login"][nth % 2],
            code: "T1000I",
            time: DAY + nth as i64,
            index: nth as i64,
            session: "",
        };
        match nth {
            9 => builder.push_raw(head, b"\xffnot JSON"),
            _ => builder.push(head, &text),
        }
    }
    let append = Append {
        source: "teleport".into(),
        feed: FeedKind::Audit,
        read_at,
        events: builder.take(),
        cursors: vec![CursorUpdate {
            key: "start".to_owned(),
            value: Some("2026-01-01T00:00:00Z".to_owned()),
        }],
        gaps: Vec::new(),
        duplicates: 0,
    };
    store.append(append).await.unwrap();
}

/// The pipeline's outcomes: these entries dead, the others delivered.
async fn finish(store: &Store, pipeline: &str, dead: &[u64], reason: &str, at: i64) {
    let generation = Generation {
        pipeline: pipeline.into(),
        description: "{}".to_owned(),
    };
    let streams = [AUDIT.to_owned()];
    store.register(generation, &streams, DAY).await.unwrap();
    let block = Ledger::block_at(store, AUDIT, 1).await.unwrap().unwrap();
    let mut outcomes = Outcomes::default();
    for seq in 1..=10 {
        outcomes.push(if dead.contains(&seq) {
            Outcome::Dead(0)
        } else {
            Outcome::Delivered
        });
    }
    let letter = |seq: &u64| {
        let (row, cause) = (*seq as usize - 1, "sink (builtin:fluentd)".to_owned());
        DeadLetter::new(&block, row, cause, reason.to_owned())
    };
    let commit = Commit {
        pipeline: pipeline.into(),
        stream: AUDIT.into(),
        epoch: 1,
        generation: 1,
        entries: Entries::Range(1..11),
        outcomes,
        reasons: vec![reason.to_owned()],
        days: vec![DayTally {
            day: Day::of(DAY),
            delivered: 10 - dead.len() as u64,
            dropped: 0,
            dead: dead.len() as u64,
        }],
        batch: BatchRecord {
            id: "b1".to_owned(),
            at,
            requests: Vec::new(),
        },
        dead: dead.iter().map(letter).collect(),
        state: Vec::new(),
        brake: String::new(),
    };
    store.commit(commit).await.unwrap();
}
