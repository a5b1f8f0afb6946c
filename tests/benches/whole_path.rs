//! The whole path, as a user runs it: `cargo bench --workspace --bench whole_path`.
//!
//! Each row is `lockgate demo`: a simulated cluster and a receiver as processes of their own, gRPC
//! and HTTPS over loopback, a durable store. CPU time and memory are of the host process alone.
//! Machines are noisy: compare rows of one run.

use std::process::Command;

use lockgate_tests::lockgate;
use serde_json::Value;

const EVENTS: &str = "300000";

fn main() {
    println!(
        "{:<28} {:>10} {:>14} {:>10}",
        "", "events/s", "CPU µs/event", "RSS MB"
    );
    for (name, arguments) in [
        ("receiver answers at once", &[][..]),
        ("receiver waits 25 ms", &["--latency", "25ms"]),
        // A mapper between filter and sink: every payload goes in, a document comes out.
        ("filter, ecs, encode", &["--ecs"]),
    ] {
        for _ in 0..3 {
            let report = demo(
                lockgate()
                    .args(["demo", "--json", "--events", EVENTS])
                    .args(arguments),
            );
            let figure = |name: &str| report[name].as_f64().unwrap_or(f64::NAN);
            println!(
                "{name:<28} {:>10.0} {:>14.1} {:>10.0}",
                figure("events_per_second"),
                figure("cpu_us_per_event"),
                figure("rss_mb")
            );
        }
    }
}

fn demo(command: &mut Command) -> Value {
    let output = command.output().expect("the demo runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).expect("one JSON object")
}
