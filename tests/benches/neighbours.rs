//! How fast a healthy pipeline is beside bad neighbours, as a share of how fast it is alone:
//! `cargo bench --workspace --bench neighbours`. The share must be at least 0.4 on two threads,
//! beside each kind of neighbour and beside all of them, and its first event must be delivered
//! before the component that takes minutes to compile is compiled.

#![allow(clippy::disallowed_methods, reason = "measures real processes")]

use std::time::{Duration, Instant};

use lockgate_tests::neighbours::{Neighbour, neighbours, pipeline};
use lockgate_tests::receiver::LocalReceiver;
use lockgate_tests::{Auth, configuration, started, status};

const EVENTS: u64 = 500_000;

/// The least share that is acceptable.
const LEAST: f64 = 0.4;

fn main() {
    println!(
        "{:<12} {:>10} {:>8} {:>12}",
        "beside", "events/s", "share", "first event"
    );
    let mut alone = measure(&[]);
    alone.print("nobody", None);
    let mut least = f64::INFINITY;
    let each = Neighbour::ALL.map(|neighbour| vec![neighbour]);
    for beside in each.into_iter().chain([Neighbour::ALL.to_vec()]) {
        let name = match beside[..] {
            [neighbour] => format!("{neighbour:?}").to_lowercase(),
            _ => "all of them".to_owned(),
        };
        let measured = measure(&beside);
        // Other programs use the machine as well: compare with what it gives before and after.
        let again = measure(&[]);
        let share = measured.rate * 2.0 / (alone.rate + again.rate);
        measured.print(&name, Some(share));
        again.print("nobody", None);
        least = least.min(share);
        alone = again;
    }
    println!("least share: {least:.2}, at least {LEAST} on two threads");
    assert!(least >= LEAST);
}

struct Measured {
    /// Events a second, from the first that arrives to the last.
    rate: f64,
    /// Seconds from the start of the host.
    first: f64,
}

impl Measured {
    fn print(&self, name: &str, share: Option<f64>) {
        let share = share.map(|share| format!("{share:.2}")).unwrap_or_default();
        println!(
            "{name:<12} {:>10.0} {share:>8} {:>10.2} s",
            self.rate, self.first
        );
    }
}

fn measure(beside: &[Neighbour]) -> Measured {
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
    Measured {
        rate: (EVENTS - first) as f64 / (ended - began).as_secs_f64(),
        first: (began - begin).as_secs_f64(),
    }
}
