//! The cost of the ECS mapper per event, natively and as a component, by event type: `cargo bench
//! -p lockgate-runtime --bench ecs`.
//!
//! The component runs as in the host: a fresh, configured instance for each batch of 500 events,
//! epochs on, no look-ups granted. Copying data and checking every document counts, too. The events
//! come from the simulator or from a file: `… --bench ecs -- events.ndjson`. Figures are CPU time
//! of the thread, the best of several rounds. Native code and component alternate, so that noise
//! affects both.

mod support;

use std::collections::BTreeMap;
use std::hint::black_box;

use ecs::Config;
use ecs::lookup::Granted;
use lockgate_plugin::json;
use lockgate_runtime::Stage;
use lockgate_sim::generate::{Generator, GeneratorOptions};
use rustix::time::{ClockId, clock_gettime};
use serde_json::json;
use support::{EVENTS, event, stage, transform};

/// Events to generate.
const GENERATED: u64 = 10_000;

/// How often each batch is mapped, natively and as a component.
const ROUNDS: usize = 7;

type Native = ecs::mapper::Mapping<Granted>;

/// Microseconds per event.
struct Cost {
    native: f64,
    wasm: f64,
}

fn main() {
    let file = std::env::args()
        .skip(1)
        .find(|argument| !argument.starts_with('-'));
    let (events, source): (Vec<String>, _) = match &file {
        Some(file) => (
            std::fs::read_to_string(file)
                .expect("a file of events")
                .lines()
                .map(str::to_owned)
                .collect(),
            file.as_str(),
        ),
        None => (
            Generator::new(GeneratorOptions::default())
                .json_lines(GENERATED)
                .collect(),
            "the simulator's",
        ),
    };
    let native = Config::default().mapping(Granted);
    let stage = stage("ecs", json!({}), false);
    let configuring = best(|| _ = black_box(Config::default().mapping(Granted)));

    let mut types: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for event in &events {
        let name = json::find(event, "event")
            .ok()
            .flatten()
            .and_then(json::text)
            .unwrap_or_default();
        types.entry(name.into_owned()).or_default().push(event);
    }
    let bytes =
        |events: &[&str]| events.iter().map(|event| event.len()).sum::<usize>() / events.len();
    let mut rows: Vec<_> = types
        .iter()
        .map(|(name, events)| {
            // Full batches, as in a busy pipeline.
            let batch: Vec<&str> = events.iter().copied().cycle().take(EVENTS).collect();
            (
                events.len(),
                bytes(events),
                measure(&native, &stage, &batch),
                name.as_str(),
            )
        })
        .collect();
    let time = |(count, _, cost, _): &(usize, usize, Cost, &str)| *count as f64 * cost.wasm;
    let total: f64 = rows.iter().map(time).sum();
    rows.sort_by(|a, b| time(b).total_cmp(&time(a)));

    println!("{} events, {source}; µs an event\n", events.len());
    println!(
        "{:>7} {:>7} {:>7} {:>7} {:>7} {:>7}",
        "share", "events", "bytes", "native", "wasm", "ratio"
    );
    for row in &rows {
        let (count, bytes, Cost { native, wasm }, name) = row;
        let share = 100.0 * time(row) / total;
        println!(
            "{share:>6.1}% {count:>7} {bytes:>7} {native:>7.2} {wasm:>7.2} {:>7.2} {name}",
            wasm / native
        );
    }
    // In their original order, with types mixed.
    let events: Vec<&str> = events.iter().map(String::as_str).collect();
    let costs: Vec<Cost> = events
        .chunks_exact(EVENTS)
        .map(|batch| measure(&native, &stage, batch))
        .collect();
    let mean = |of: fn(&Cost) -> f64| costs.iter().map(of).sum::<f64>() / costs.len() as f64;
    let (native, wasm) = (mean(|cost| cost.native), mean(|cost| cost.wasm));
    println!(
        "{:>6.1}% {:>7} {:>7} {native:>7.2} {wasm:>7.2} {:>7.2} all",
        100.0,
        events.len(),
        bytes(&events),
        wasm / native
    );
    let alone = [event(events[0])];
    let instance = best(|| _ = black_box(transform(&stage, &alone)));
    println!(
        "\nconfiguring: {configuring:.1} µs natively; an instance for one event: {instance:.0} µs"
    );
}

fn measure(native: &Native, stage: &Stage, batch: &[&str]) -> Cost {
    let views: Vec<_> = batch.iter().map(|payload| event(payload)).collect();
    let mut cost = Cost {
        native: f64::INFINITY,
        wasm: f64::INFINITY,
    };
    for _ in 0..ROUNDS {
        let begun = cpu_micros();
        for payload in batch {
            black_box(native.map(black_box(payload)));
        }
        let between = cpu_micros();
        black_box(transform(stage, black_box(&views)));
        cost.native = cost.native.min((between - begun) / batch.len() as f64);
        cost.wasm = cost.wasm.min((cpu_micros() - between) / batch.len() as f64);
    }
    cost
}

fn best(mut work: impl FnMut()) -> f64 {
    let mut once = || {
        let begun = cpu_micros();
        work();
        cpu_micros() - begun
    };
    (0..100).map(|_| once()).fold(f64::INFINITY, f64::min)
}

/// CPU time of this thread, in microseconds.
fn cpu_micros() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 * 1e6 + time.tv_nsec as f64 / 1e3
}
