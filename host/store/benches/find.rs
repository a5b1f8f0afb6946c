//! How long it takes to find one event, and what that costs:
//! `LOCKGATE_EVENTS=10000000 cargo bench -p lockgate-store --bench find`. Without the variable it
//! makes a million events. Ten million need 2 GB of disk in the directory for temporary files.

#![allow(
    clippy::disallowed_methods,
    reason = "a measurement reads the clock and its settings"
)]

use std::time::{Duration, Instant};

use lockgate_model::{Append, BlockBuilder, BlockParts, CursorUpdate, FeedKind, Head};
use lockgate_store::{EntryQuery, Inspector, Ledger, Options, Retention, Store, filter};
use rusqlite::Connection;

/// Events in a block.
const BLOCK: u64 = 512;
/// Ids that are looked for.
const SEARCHES: u64 = 20;

fn main() {
    let events: u64 =
        std::env::var("LOCKGATE_EVENTS").map_or(1_000_000, |text| text.parse().expect("a number"));
    let directory = tempfile::tempdir().expect("a directory");
    let store = Store::open(Options {
        retention: Retention::default(),
        tail_bytes: 1,
        ..Options::new(directory.path())
    });
    let store = store.expect("a store");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    let (mut appending, mut filtering) = (Duration::ZERO, Duration::ZERO);
    for number in 0..events / BLOCK {
        let parts = block(number);
        let began = Instant::now();
        let filter = filter::of_parts(&parts);
        filtering += began.elapsed();
        assert!(!filter.is_empty());
        let append = Append {
            source: "teleport".into(),
            feed: FeedKind::Audit,
            read_at: number as i64,
            events: parts,
            cursors: vec![CursorUpdate {
                key: "start".to_owned(),
                value: Some("1".to_owned()),
            }],
            gaps: Vec::new(),
            duplicates: 0,
        };
        let began = Instant::now();
        runtime.block_on(store.append(append)).expect("room");
        appending += began.elapsed();
    }
    runtime.block_on(store.close()).expect("it closes");
    let writing = insert_filters(events / BLOCK);
    let ratio = |part: Duration| 100.0 * part.as_secs_f64() / appending.as_secs_f64();
    println!("events                 {events}");
    println!("append, all of it      {:.1} s", appending.as_secs_f64());
    println!(
        "  making the filters   {:.2} s, {:.2} %",
        filtering.as_secs_f64(),
        ratio(filtering)
    );
    println!(
        "  writing them alone   {:.2} s, {:.2} %",
        writing.as_secs_f64(),
        ratio(writing)
    );
    sizes(&directory.path().join("store.db"), events);
    let began = Instant::now();
    let inspector = Inspector::open(directory.path()).expect("a store");
    println!("opening the store      {:.0} ms", millis(began.elapsed()));
    let (mut hits, mut misses) = (Vec::new(), Vec::new());
    for nth in 0..SEARCHES {
        let number = nth * (events / BLOCK) / SEARCHES;
        hits.push(search(&inspector, &id(number, 7), 1));
        misses.push(search(&inspector, &format!("no-such-id-{nth}"), 0));
    }
    for (what, mut times) in [("an id that is there", hits), ("an id that is not", misses)] {
        times.sort();
        let middle = millis(times[times.len() / 2]);
        let worst = times.last().map_or(0.0, |&worst| millis(worst));
        println!("{what:22} {middle:.0} ms, at worst {worst:.0} ms");
    }
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

fn search(inspector: &Inspector, id: &str, expected: usize) -> Duration {
    let began = Instant::now();
    let query = EntryQuery::Id(id.to_owned());
    let search = inspector.find(&query, 10).expect("a sound store");
    assert_eq!(search.found.len(), expected, "{id}");
    began.elapsed()
}

/// Rows as large as the filters of so many blocks, in a database of their own, synchronised for
/// every tenth.
fn insert_filters(blocks: u64) -> Duration {
    let directory = tempfile::tempdir().expect("a directory");
    let database = Connection::open(directory.path().join("filters.db")).expect("a database");
    database
        .execute_batch(
            "PRAGMA page_size = 16384; PRAGMA journal_mode = wal; PRAGMA synchronous = normal;
             CREATE TABLE f (stream_id INTEGER, first_seq INTEGER, filter BLOB, checksum BLOB,
             PRIMARY KEY (stream_id, first_seq)) STRICT, WITHOUT ROWID; BEGIN;",
        )
        .expect("a table");
    let began = Instant::now();
    for number in 0..blocks {
        let mut statement = database
            .prepare_cached("INSERT INTO f VALUES (1, ?1, randomblob(1100), randomblob(16))")
            .expect("a statement");
        statement.execute([number]).expect("a row");
        if number % 10 == 9 {
            database.execute_batch("COMMIT; BEGIN").expect("a commit");
        }
    }
    database.execute_batch("COMMIT").expect("a commit");
    began.elapsed()
}

fn sizes(database: &std::path::Path, events: u64) {
    let database = Connection::open(database).expect("a database");
    let sum = |sql: &str| -> f64 {
        database
            .query_row(sql, [], |row| row.get(0))
            .expect("a figure")
    };
    let filters = sum("SELECT 1.0 * sum(length(filter) + length(checksum) + 8) FROM block_filters");
    let blocks = sum("SELECT 1.0 * sum(bytes) FROM blocks");
    let events = events as f64;
    println!(
        "filters                {:.2} bytes an event",
        filters / events
    );
    println!(
        "blocks                 {:.2} bytes an event",
        blocks / events
    );
}

fn id(block: u64, row: u64) -> String {
    let mix = |seed: u64| {
        let mixed = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed ^ mixed >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9)
    };
    let number = block * BLOCK + row;
    let (high, low) = (mix(number + 1), mix(number ^ 0x5555_5555));
    format!(
        "{:08x}-{:04x}-4{:03x}-a{:03x}-{:012x}",
        high >> 32,
        high >> 16 & 0xffff,
        high & 0xfff,
        low >> 52,
        low & 0xffff_ffff_ffff
    )
}

/// Events as Teleport's, each third of them of one of the sessions of the block.
fn block(number: u64) -> BlockParts {
    let mut builder = BlockBuilder::new();
    for row in 0..BLOCK {
        let uid = id(number, row);
        let session = match row % 3 {
            0 => id(number, 10_000 + row / 12),
            _ => String::new(),
        };
        let payload = format!(
            r#"{{"addr.remote":"10.{n}.{m}.7:{port}","cluster_name":"example.teleport.sh","code":"T2000I","ei":{n},"event":"session.start","login":"ubuntu","namespace":"default","server_hostname":"node-{m}.internal","server_labels":{{"env":"prod","region":"eu-central-1"}},"sid":"{session}","time":"2026-01-05T08:{s:02}:11.{n}Z","uid":"{uid}","user":"user-{n}@example.com","user_kind":1}}"#,
            n = row % 256,
            m = number % 256,
            s = row % 60,
            port = 1024 + (number * 31 + row * 17) % 60_000,
        );
        let head = Head {
            key: &uid,
            event_type: "session.start",
            code: "T2000I",
            time: 1_767_600_000_000 + (number * BLOCK + row) as i64,
            index: row as i64,
            session: &session,
        };
        builder.push(head, &payload);
    }
    builder.take()
}
