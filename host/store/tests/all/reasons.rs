//! Reasons are texts of components: what is kept of them does not grow with their number.

use lockgate_model::{Outcome, Reasons};
use lockgate_store::Ledger;
use rusqlite::Connection;

use crate::common::*;

/// Different reasons, each of more bytes than are kept of one.
const DIFFERENT: u64 = 60_000;

/// Entries of a commit.
const BATCH: u64 = 512;

/// They once took 52 MB, outside retention. Each commit keeps 65 reasons of 200 bytes, until it is
/// folded; each day keeps 33 for ever.
#[tokio::test]
async fn sixty_thousand_different_reasons_cost_few_bytes() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    register(&store, "siem", &[AUDIT]).await;
    let mut next = 1;
    while next <= DIFFERENT {
        append(&store, BATCH).await;
        let range = next..next + BATCH;
        let mut reasons = Reasons::default();
        let indexes: Vec<_> = range
            .clone()
            .map(|seq| reasons.index(&reason(seq)))
            .collect();
        let mut commit = commit_of(&store, "siem", range, |seq| {
            Outcome::Dropped(indexes[(seq - next) as usize])
        });
        let last = indexes.iter().max().copied().unwrap_or(0);
        commit.reasons = (0..=last)
            .map(|index| reasons.text(index).into_owned())
            .collect();
        commit.batch.at = DAY;
        store.commit(commit).await.unwrap();
        next += BATCH;
    }
    store.reads().verify_chain("siem").unwrap();
    assert_eq!(store.reads().books("siem").unwrap()[0].1.dropped, next - 1);
    drop(store);

    let database = Connection::open(directory.path().join("store.db")).unwrap();
    let bytes_of = |table: &str| -> u64 {
        let columns = columns(&database, table);
        let sizes: Vec<String> = columns
            .iter()
            .map(|column| format!("coalesce(length(CAST(\"{column}\" AS BLOB)), 0)"))
            .collect();
        let sql = format!(
            "SELECT coalesce(sum({}), 0) FROM {table}",
            sizes.join(" + ")
        );
        database.query_row(&sql, [], |row| row.get(0)).unwrap()
    };
    let sql = "SELECT count(DISTINCT day) FROM tallies";
    let days: u64 = database.query_row(sql, [], |row| row.get(0)).unwrap();
    let (tallies, commits) = (bytes_of("tallies"), bytes_of("commits"));
    assert!(
        tallies <= days * 33 * 300,
        "tallies of {days} days, which stay for ever: {tallies} bytes"
    );
    let batches = (next - 1) / BATCH;
    assert!(
        commits < batches * 16 * 1024,
        "{batches} commits: {commits} bytes"
    );
}

fn reason(seq: u64) -> String {
    format!("{seq:06}: {}", "x".repeat(1000))
}

fn columns(database: &Connection, table: &str) -> Vec<String> {
    let mut statement = database
        .prepare("SELECT name FROM pragma_table_info(?1)")
        .unwrap();
    let names = statement.query_map([table], |row| row.get(0)).unwrap();
    names.map(Result::unwrap).collect()
}
