//! How fast a healthy pipeline is beside bad neighbours, as a share of how fast it is alone:
//! `cargo bench --workspace --bench neighbours`. The share must be at least 0.4 on two threads,
//! beside each kind of neighbour and beside all of them, and its first event must be delivered
//! before the component that takes minutes to compile is compiled. Beside twenty that are always
//! busy, it must be at least twice an equal part of the threads. With arguments such as `6x37`, it
//! is measured only beside so many components that take so many milliseconds for each call.

#![allow(clippy::disallowed_methods, reason = "measures real processes")]

use std::time::{Duration, Instant};

use lockgate_tests::neighbours::{Neighbour, neighbours, pipeline};
use lockgate_tests::receiver::LocalReceiver;
use lockgate_tests::{
    Auth, admin_address, configuration, get, listen_on_any_port, started, status,
};

const EVENTS: u64 = 500_000;

/// The least share that is acceptable …
const LEAST: f64 = 0.4;

/// … beside so many that are always busy.
fn least_beside(others: u32) -> f64 {
    const THREADS: f64 = 2.0;
    let equal_part = THREADS / f64::from(others + 1);
    LEAST.min(2.0 * equal_part)
}

/// Components that count: how many, for how many milliseconds, and in one of how many batches.
/// Calls of more than 50 ms are slow.
const COUNTING: [(u32, u64, u32); 13] = [
    (1, 5, 1),
    (1, 15, 1),
    (1, 37, 1),
    (1, 45, 1),
    (6, 1, 1),
    (6, 4, 1),
    (6, 5, 1),
    (6, 15, 1),
    (6, 37, 1),
    (6, 45, 1),
    (20, 20, 1),
    (6, 45, 5),
    (6, 60, 5),
];

fn main() {
    let chosen: Vec<(u32, u64, u32)> = std::env::args()
        .filter_map(|argument| {
            let (pipelines, ms) = argument.split_once('x')?;
            Some((pipelines.parse().ok()?, ms.parse().ok()?, 1))
        })
        .collect();
    let rounds = rounds_per_ms();
    let counts = |(pipelines, ms, one_in)| {
        let counts = Neighbour::Counts {
            pipelines,
            rounds: ms * rounds,
            one_in,
        };
        let name = match one_in {
            1 => format!("{pipelines} of {ms} ms"),
            _ => format!("{pipelines} of {ms} ms, 1 in {one_in}"),
        };
        (name, vec![counts])
    };
    let situations: Vec<(String, Vec<Neighbour>)> = if chosen.is_empty() {
        let each = Neighbour::ALL.map(|kind| (format!("{kind:?}").to_lowercase(), vec![kind]));
        let all = ("all of them".to_owned(), Neighbour::ALL.to_vec());
        each.into_iter()
            .chain([all])
            .chain(COUNTING.map(counts))
            .collect()
    } else {
        chosen.into_iter().map(counts).collect()
    };
    println!(
        "{:<20} {:>10} {:>8} {:>12}",
        "beside", "events/s", "share", "first event"
    );
    let mut alone = measure(&[]);
    alone.print("nobody", None);
    let mut too_little = Vec::new();
    for (name, beside) in situations {
        let measured = measure(&beside);
        // Other programs use the machine as well: compare with what it gives before and after.
        let again = measure(&[]);
        let share = measured.rate * 2.0 / (alone.rate + again.rate);
        measured.print(&name, Some(share));
        again.print("nobody", None);
        let least = match beside[..] {
            [Neighbour::Counts { pipelines, .. }] => least_beside(pipelines),
            _ => LEAST,
        };
        if share < least {
            too_little.push(format!("{share:.2} beside {name}, at least {least:.2}"));
        }
        alone = again;
    }
    assert!(too_little.is_empty(), "{too_little:#?}");
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
            "{name:<20} {:>10.0} {share:>8} {:>10.2} s",
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

/// Rounds that a counting component makes in a millisecond on this machine.
fn rounds_per_ms() -> u64 {
    const ROUNDS: u64 = 100_000_000;
    let dir = tempfile::tempdir().expect("a temporary directory");
    let auth = Auth::start(dir.path(), &["--events", "5000"]);
    let receiver = LocalReceiver::start(dir.path());
    let counts = Neighbour::Counts {
        pipelines: 1,
        rounds: ROUNDS,
        one_in: 1,
    };
    let config = neighbours(dir.path(), &receiver, &[counts], "");
    let config = configuration(dir.path(), &auth, &config);
    listen_on_any_port(&config);
    let host = started(&config);
    let address = admin_address(&host);
    // Of the calls of the filter.
    let figure = |name: &str| {
        let metrics = get(&address, "/metrics");
        let line = |line: &&str| line.starts_with(name) && line.contains("hostile-filter");
        let value = metrics.lines().find(line)?.rsplit_once(' ')?.1;
        value.parse::<f64>().ok()
    };
    loop {
        std::thread::sleep(Duration::from_millis(100));
        let calls = figure("lockgate_stage_call_cpu_seconds_count").unwrap_or_default();
        let seconds = figure("lockgate_stage_call_cpu_seconds_sum").unwrap_or_default();
        if calls >= 5.0 {
            return (ROUNDS as f64 * calls / seconds / 1000.0) as u64;
        }
    }
}
