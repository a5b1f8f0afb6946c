//! Append and scan, in bytes of uncompressed payload: `cargo bench -p lockgate-store`.

use divan::Bencher;
use divan::counter::BytesCount;
use lockgate_model::{Append, BlockBuilder, BlockParts, CursorUpdate, FeedKind, Head};
use lockgate_store::{Ledger, Options, Retention, Store};

const STREAM: &str = "teleport/audit";
const BLOCKS: u64 = 64;

fn main() {
    divan::main();
}

/// One full block of events like Teleport's, about 930 bytes each.
fn block(seed: u64) -> BlockParts {
    let mut dice = seed;
    let mut word = || {
        dice = dice
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        dice >> 16
    };
    let mut builder = BlockBuilder::new();
    while !builder.is_full() {
        let (a, b, c) = (word(), word(), word());
        let uid = format!("{a:012x}-{b:012x}");
        let payload = format!(
            concat!(
                r#"{{"access_requests":["{a:x}"],"addr.remote":"10.{n1}.{n2}.{n3}:{port}","cert_type":"user","cluster_name":"example.teleport.sh","#,
                r#""code":"T2000I","ei":{n1},"event":"session.start","initial_command":["kubectl","get","pods","-n","ns-{n2}"],"#,
                r#""login":"ubuntu","namespace":"default","proto":"ssh","server_addr":"[::]:3022","server_hostname":"node-{n3}.{n2}.internal","#,
                r#""server_id":"{b:012x}-{c:012x}","server_labels":{{"env":"prod","region":"eu-central-1","team":"payments","hostname":"node-{n3}"}},"#,
                r#""server_version":"17.4.2","session_recording":"node","sid":"{c:012x}-{a:012x}","size":"{n1}:{n2}","time":"2026-01-05T08:{n4:02}:11.{n3}Z","#,
                r#""uid":"{uid}","user":"user-{n1}@example.com","user_agent":"Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0","#,
                r#""user_kind":1,"user_traits":{{"groups":["platform","search","sre"],"logins":["root","ubuntu","ec2-user"],"db_users":["app","ro-{n2}"]}},"private_key_policy":"none"}}"#
            ),
            a = a,
            b = b,
            c = c,
            uid = uid,
            n1 = a % 256,
            n2 = b % 256,
            n3 = c % 256,
            n4 = a % 60,
            port = 1024 + c % 60_000,
        );
        let time = 1_767_600_000_000 + (c % 100_000) as i64;
        let head = Head {
            key: &uid,
            event_type: "session.start",
            code: "T2000I",
            time,
            index: (a % 256) as i64,
            session: "",
        };
        builder.push(head, &payload);
    }
    builder.take()
}

fn bytes(parts: &BlockParts) -> u64 {
    parts.payloads.bytes.len() as u64
}

fn open(directory: &tempfile::TempDir) -> Store {
    let options = Options::new(directory.path());
    Store::open(Options {
        retention: Retention::default(),
        tail_bytes: 1,
        ..options
    })
    .expect("a store")
}

fn append(parts: BlockParts) -> Append {
    Append {
        source: "teleport".into(),
        feed: FeedKind::Audit,
        read_at: 0,
        events: parts,
        cursors: vec![CursorUpdate {
            key: "start".to_owned(),
            value: Some("1".to_owned()),
        }],
        gaps: Vec::new(),
        duplicates: 0,
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime")
}

/// Blocks appended by several readers at once, durable when counted.
#[divan::bench(args = [1, 4], sample_count = 10, sample_size = 1)]
fn append_mb_per_s(bencher: Bencher, readers: u64) {
    let (runtime, directory) = (runtime(), tempfile::tempdir().expect("a directory"));
    let store = open(&directory);
    let parts: Vec<BlockParts> = (0..BLOCKS).map(block).collect();
    let events: usize = parts.iter().map(|parts| parts.times.len()).sum();
    let total: u64 = parts.iter().map(bytes).sum();
    assert!(
        (900..960).contains(&(total as usize / events)),
        "{} bytes an event",
        total as usize / events
    );
    bencher
        .counter(BytesCount::new(total))
        .with_inputs(|| parts.clone())
        .bench_values(|mut parts| {
            runtime.block_on(async {
                while !parts.is_empty() {
                    let group = parts.split_off(parts.len().saturating_sub(readers as usize));
                    let tasks = group.into_iter().map(|parts| {
                        let store = store.clone();
                        async move { store.append(append(parts)).await.expect("room") }
                    });
                    let local = tokio::task::LocalSet::new();
                    let tasks: Vec<_> = tasks.map(|task| local.spawn_local(task)).collect();
                    local.await;
                    for task in tasks {
                        task.await.expect("no panic");
                    }
                }
            });
        });
}

/// Every block from disk: checksum, decompression, columns.
#[divan::bench(sample_count = 10, sample_size = 1)]
fn scan_mb_per_s(bencher: Bencher) {
    let (runtime, directory) = (runtime(), tempfile::tempdir().expect("a directory"));
    let store = open(&directory);
    let mut total = 0;
    for seed in 0..BLOCKS {
        let parts = block(seed);
        total += bytes(&parts);
        runtime.block_on(store.append(append(parts))).expect("room");
    }
    bencher
        .counter(BytesCount::new(total))
        .bench(|| scan(&store, total));
}

fn scan(store: &Store, total: u64) {
    let (mut seq, mut seen) = (1, 0);
    while let Some(block) = store.block_at(STREAM, seq).expect("a sound store") {
        seen += bytes(block.parts());
        seq = block.range().end;
    }
    assert_eq!(seen, total);
}

/// Types and times only, as filters on lists and books by day read them.
#[divan::bench(sample_count = 10, sample_size = 1)]
fn scan_heads_mb_per_s(bencher: Bencher) {
    let (runtime, directory) = (runtime(), tempfile::tempdir().expect("a directory"));
    let store = open(&directory);
    let parts = block(1);
    for _ in 0..BLOCKS {
        runtime
            .block_on(store.append(append(parts.clone())))
            .expect("room");
    }
    bencher
        .counter(BytesCount::new(bytes(&parts) * BLOCKS))
        .bench(|| {
            let mut seq = 1;
            while let Some((first_seq, heads)) =
                store.reads().heads_at(STREAM, seq).expect("a sound store")
            {
                seq = first_seq + heads.len() as u64;
            }
            seq
        });
}
