//! How fast a healthy pipeline is beside bad neighbours, as a share of how fast it is alone:
//! `cargo bench --workspace --bench neighbours`. The share must be at least 0.4 on two threads,
//! beside each kind of neighbour and beside all of them, and its first event must be delivered
//! before the component that takes minutes to compile is compiled.

#![allow(clippy::disallowed_methods, reason = "measures real processes")]

use std::time::{Duration, Instant};

use lockgate_tests::neighbours::{Neighbour, neighbours, pipeline};
use lockgate_tests::receiver::LocalReceiver;
use lockgate_tests::{Auth, configuration, started, status};

const EVENTS: u64 = 200_000;

/// The least share that is acceptable.
const LEAST: f64 = 0.4;

fn main() {
    println!(
        "{:<12} {:>10} {:>8} {:>10}",
        "beside", "events/s", "share", "first, s"
    );
    let alone = measure("nobody", &[], None);
    let mut least = f64::INFINITY;
    for neighbour in Neighbour::ALL {
        let name = format!("{neighbour:?}").to_lowercase();
        least = least.min(measure(&name, &[neighbour], Some(alone)));
    }
    least = least.min(measure("all", &Neighbour::ALL, Some(alone)));
    // Machines are noisy: the rate alone may have changed meanwhile.
    let again = measure("nobody", &[], Some(alone));
    let share = least / alone.max(again);
    println!("least share: {share:.2}, at least {LEAST} on two threads");
    assert!(share >= LEAST);
}

/// Events a second, from the first that arrives to the last.
fn measure(name: &str, beside: &[Neighbour], alone: Option<f64>) -> f64 {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let auth = Auth::start(dir.path(), &["--events", &EVENTS.to_string()]);
    let receiver = LocalReceiver::start(dir.path());
    let healthy = pipeline("healthy", &receiver);
    let config = neighbours(dir.path(), &receiver, beside, &healthy);
    let config = configuration(dir.path(), &auth, &config);
    let begin = Instant::now();
    let host = started(&config);
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
    if beside.contains(&Neighbour::Compiles) {
        let state = &status(&config)["host"]["pipelines"]["compiles"]["state"];
        assert_eq!(state, "compiling", "the first event did not wait for it");
    }
    let ended = wait_for(EVENTS);
    drop(host);
    let rate = (EVENTS - first) as f64 / (ended - began).as_secs_f64();
    let share = alone.map_or(1.0, |alone| rate / alone);
    let until_first = (began - begin).as_secs_f64();
    println!("{name:<12} {rate:>10.0} {share:>8.2} {until_first:>10.2}");
    rate
}
