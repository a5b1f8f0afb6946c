//! Memory of a host with 30 pipelines whose receivers never answer, while it reads a million
//! events: `cargo bench --workspace --bench hung_receivers`. It must stay flat and below 400 MB.

#![allow(clippy::disallowed_methods, reason = "measures real processes")]

use std::time::{Duration, Instant};

use lockgate_sim::receiver::Fault;
use lockgate_tests::receiver::LocalReceiver;
use lockgate_tests::{Auth, books, configuration, started, status};

const PIPELINES: usize = 30;
const EVENTS: u64 = 1_000_000;

/// Bytes.
const MOST: u64 = 400_000_000;

/// Between two lines of output.
const INTERVAL: Duration = Duration::from_secs(10);

/// Lines after everything has been read: time-outs and probes of several minutes.
const LINES_AFTER: usize = 24;

fn main() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let auth = Auth::start(dir.path(), &["--events", &EVENTS.to_string()]);
    let receiver = LocalReceiver::start(dir.path());
    receiver.always(Fault::Hang);
    let pipelines: String = (1..=PIPELINES)
        .map(|number| {
            format!(
                "[pipelines.hangs-{number}.sink]\nplugin = \"builtin:fluentd\"\n{}\n\n",
                receiver.endpoint(&format!("hangs-{number}"))
            )
        })
        .collect();
    let config = configuration(dir.path(), &auth, &pipelines);
    let host = started(&config);
    let began = Instant::now();
    println!("{:>6} {:>10} {:>8}", "s", "read", "RSS MB");
    let mut after = 0;
    while after < LINES_AFTER {
        std::thread::sleep(INTERVAL);
        let read = books(&status(&config), "hangs-1").read;
        let memory = host.memory() / 1_000_000;
        println!("{:>6} {read:>10} {memory:>8}", began.elapsed().as_secs());
        after += usize::from(read == EVENTS);
    }
    let most = host.most_memory();
    println!("most: {} MB of {} MB", most / 1_000_000, MOST / 1_000_000);
    assert!(most <= MOST);
}
