//! How fast a healthy pipeline is beside five bad neighbours, as a share of how fast it is alone:
//! `cargo bench --workspace --bench neighbours`. The share must be at least 0.4 on two threads.

#![allow(clippy::disallowed_methods, reason = "measures real processes")]

use std::time::{Duration, Instant};

use lockgate_tests::neighbours::{neighbours, pipeline};
use lockgate_tests::receiver::LocalReceiver;
use lockgate_tests::{Auth, configuration, start};

const EVENTS: u64 = 200_000;

/// The least share that is acceptable.
const LEAST: f64 = 0.4;

fn main() {
    let alone = rate(false);
    println!("alone:                 {alone:>8.0} events/s");
    let beside = rate(true);
    println!("beside five neighbours:{beside:>8.0} events/s");
    let share = beside / alone;
    println!("share: {share:.2}, at least {LEAST} on two threads");
    assert!(share >= LEAST);
}

/// Events a second from the first that arrives to the last.
fn rate(with_neighbours: bool) -> f64 {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let auth = Auth::start(dir.path(), &["--events", &EVENTS.to_string()]);
    let receiver = LocalReceiver::start(dir.path());
    let mut pipelines = pipeline("healthy", &receiver);
    if with_neighbours {
        pipelines = neighbours(dir.path(), &receiver, &pipelines);
    }
    let config = configuration(dir.path(), &auth, &pipelines);
    let host = start(&config, &[]);
    let arrived = || {
        let totals = receiver.control.totals();
        totals
            .by_path
            .get("/healthy")
            .map_or(0, |path| path.documents)
    };
    let wait_for = |number| {
        while arrived() < number {
            std::thread::sleep(Duration::from_millis(5));
        }
        Instant::now()
    };
    let (began, first) = (wait_for(1), arrived());
    let ended = wait_for(EVENTS);
    drop(host);
    (EVENTS - first) as f64 / (ended - began).as_secs_f64()
}
