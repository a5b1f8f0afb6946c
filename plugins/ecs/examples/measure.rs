//! Measures nanoseconds per event by event type, natively and without look-ups: `cargo run
//! --release --example measure < events.ndjson`.

#![allow(clippy::disallowed_methods, reason = "it measures time")]

use std::collections::BTreeMap;
use std::hint::black_box;
use std::io::Read as _;
use std::time::{Duration, Instant};

use ecs::Config;
use ecs::lookup::Granted;
use lockgate_plugin::json;

/// How often each event is mapped. The first round is a warm-up and does not count.
const ROUNDS: u32 = 6;

fn main() -> std::io::Result<()> {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text)?;
    let start = Instant::now();
    let mapping = Config::default().mapping(Granted);
    println!("configured in {:?}", start.elapsed());

    let mut by_type: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for line in text.lines() {
        let name = json::find(line, "event")
            .ok()
            .flatten()
            .and_then(json::text)
            .unwrap_or_default();
        by_type.entry(name.into_owned()).or_default().push(line);
    }
    let (mut total, mut events, mut bytes) = (Duration::ZERO, 0, 0);
    for (name, lines) in &by_type {
        let mut spent = Duration::ZERO;
        for round in 0..ROUNDS {
            let start = Instant::now();
            for line in lines {
                black_box(mapping.map(black_box(line)));
            }
            spent += if round > 0 {
                start.elapsed()
            } else {
                Duration::ZERO
            };
        }
        let size: usize = lines.iter().map(|line| line.len()).sum();
        let each = spent.as_nanos() / u128::from(ROUNDS - 1) / lines.len() as u128;
        println!(
            "{each:>7} ns  {:>6} B  {:>7} x  {name}",
            size / lines.len(),
            lines.len()
        );
        (total, events, bytes) = (total + spent, events + lines.len(), bytes + size);
    }
    let each = total.as_nanos() / u128::from(ROUNDS - 1) / events.max(1) as u128;
    println!(
        "{each:>7} ns  {:>6} B  {events:>7} x  all",
        bytes / events.max(1)
    );
    Ok(())
}
