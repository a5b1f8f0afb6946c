//! The engine under random schedules: a ledger in memory, receivers with random faults, crashes
//! between any two actions, restarts and redrives. A schedule is a function of its seed.
//!
//! ```sh
//! LOCKGATE_SCHEDULES=1000000 cargo test --release -p lockgate-engine --test simulation -- --nocapture
//! LOCKGATE_FIRST_SEED=10000 cargo test -p lockgate-engine --test simulation   # other schedules
//! LOCKGATE_SEED=4711 cargo test -p lockgate-engine --test simulation      # one schedule again
//! ```

#![allow(
    clippy::disallowed_methods,
    reason = "seeds and the number of schedules come from the environment"
)]

mod answers_seen;
mod brake;
mod checks;
mod operator;
mod order;
mod outage;
mod plugins;
mod random;
mod readiness;
mod receiver;
mod sending;
mod simulation;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use lockgate_engine::Uptime;
use lockgate_model::FeedKind;
use lockgate_model::contract::Inspect;

use crate::plugins::Grouping;
use crate::random::Random;
use crate::receiver::Behaviour;
use crate::simulation::{Scenario, Simulation};

/// Schedules of an ordinary test run.
const SCHEDULES: u64 = 10_000;

/// After how many a long run says that it goes on.
const PROGRESS: u64 = 50_000;

/// Steps until everything must be final once the receivers are healthy.
const STEPS_MAX: u64 = 200_000;

#[test]
fn nothing_is_lost_doubled_or_overtaken_in_any_schedule() {
    let number = |name: &str| {
        let value = std::env::var(name).ok()?;
        let number: Result<u64, _> = value.parse();
        Some(number.unwrap_or_else(|error| panic!("{name} is a number, not `{value}`: {error}")))
    };
    if let Some(seed) = number("LOCKGATE_SEED") {
        return run(seed);
    }
    let schedules = number("LOCKGATE_SCHEDULES").unwrap_or(SCHEDULES);
    let first = number("LOCKGATE_FIRST_SEED").unwrap_or(0);
    let threads = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    let done = AtomicU64::new(0);
    let run_one = |seed| {
        run(seed);
        let done = done.fetch_add(1, Ordering::Relaxed) + 1;
        if done.is_multiple_of(PROGRESS) {
            println!("{done} schedules kept every rule");
        }
    };
    let run_one = &run_one;
    let failed: Vec<u64> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|thread| {
                scope.spawn(move || {
                    let mut seeds = (first + thread..first + schedules).step_by(threads as usize);
                    seeds.find(|&seed| catch_unwind(AssertUnwindSafe(|| run_one(seed))).is_err())
                })
            })
            .collect();
        workers
            .into_iter()
            .filter_map(|worker| worker.join().expect("it does not panic"))
            .collect()
    });
    assert!(
        failed.is_empty(),
        "run these seeds again with LOCKGATE_SEED: {failed:?}"
    );
    println!("{schedules} schedules from seed {first} kept every rule");
}

fn run(seed: u64) {
    let mut random = Random::new(seed);
    let scenario = scenario(&mut random);
    let mut simulation = Simulation::new(scenario, random);
    let faults_end = Duration::from_secs(60);
    // Events come while receivers change their behaviours and the process is killed.
    while simulation.now < faults_end {
        if simulation.random.chance(0.03) {
            let count = 1 + simulation.random.below(8);
            simulation.append(count, simulation.scenario.bad_share);
        }
        if simulation.random.chance(simulation.scenario.crashes) {
            simulation.crash();
            simulation.take_redrives();
        } else if simulation.random.chance(simulation.scenario.crashes) {
            simulation.restart();
            simulation.take_redrives();
        } else if simulation.random.chance(simulation.scenario.crashes) {
            simulation.reload();
            simulation.take_redrives();
        }
        if simulation.random.chance(simulation.scenario.releases) {
            simulation.release();
        }
        if simulation.random.chance(simulation.scenario.redrives) {
            simulation.redrive();
        }
        if !simulation.step() {
            simulation.now += Duration::from_millis(500);
        }
        if simulation.random.chance(0.002) {
            // The machine was suspended.
            simulation.now += Duration::from_secs(simulation.random.below(40));
        }
    }
    // From here on the receivers are healthy; good events keep coming, as evidence against bad
    // ones.
    let mut steps = 0;
    while simulation.waiting() > 0 {
        steps += 1;
        assert!(
            steps < STEPS_MAX,
            "{} entries never become final: {:#?}",
            simulation.waiting(),
            simulation
                .engine()
                .map(|engine| engine.conditions().collect::<Vec<_>>())
        );
        if steps % 200 == 0 && steps < 20_000 {
            simulation.append(3, 0.0);
        }
        // The operator looks in now and then, and releases what asks for it.
        if steps % 997 == 0 && simulation.asks_for_operator() {
            simulation.release();
        }
        if !simulation.step() {
            simulation.now += Duration::from_secs(1);
            simulation.append(1, 0.0);
        }
    }
    simulation.check_has_no_conditions();
    simulation.check_end();
}

fn scenario(random: &mut Random) -> Scenario {
    let feeds = random.pick(&[
        &[FeedKind::Audit][..],
        &[FeedKind::Sessions][..],
        &[FeedKind::Audit, FeedKind::Sessions][..],
    ]);
    let endpoints = if feeds.len() > 1 && random.chance(0.5) {
        2
    } else {
        1
    };
    let behaviours = (0..endpoints).map(|_| behaviours(random)).collect();
    let ordered = feeds.contains(&FeedKind::Sessions);
    Scenario {
        feeds: feeds.to_vec(),
        grouping: if ordered && random.chance(0.5) {
            Grouping::Session
        } else {
            random.pick(&[Grouping::All, Grouping::Three])
        },
        inspect: random.pick(&[Inspect::Never, Inspect::Failures, Inspect::Always]),
        with_state: random.chance(0.3),
        batch_events: 1 + random.below(20) as usize,
        in_flight: 1 + random.below(4) as usize,
        behaviours,
        bad_share: random.pick(&[0.0, 0.01, 0.05, 0.5]),
        crashes: random.pick(&[0.0, 0.002, 0.02]),
        redrives: random.pick(&[0.0, 0.0, 0.01]),
        releases: random.pick(&[0.0, 0.0, 0.0, 0.002]),
        scarce_memory: random.chance(0.3),
        plugin_faults: random.pick(&[0.0, 0.0, 0.01]),
    }
}

/// Random faults for 50 s or more, then a healthy receiver.
fn behaviours(random: &mut Random) -> BTreeMap<Uptime, Behaviour> {
    let mut behaviours = BTreeMap::new();
    let mut at = Uptime::ZERO;
    while at < Duration::from_secs(50) {
        let behaviour = match random.below(15) {
            0 => Behaviour::Down,
            1 => Behaviour::Busy,
            2 => Behaviour::Throttling,
            3 => Behaviour::Unauthorized,
            4 => Behaviour::HalfBusy,
            5 => Behaviour::Small(20 + random.below(200) as usize),
            6 => Behaviour::RefusesAtRandom(random.pick(&[0.05, 0.5, 0.7, 0.9, 1.0])),
            7 => Behaviour::LosesAnswers,
            8 => Behaviour::TakesParts,
            9 => Behaviour::SlowAbove(random.below(12) as usize),
            _ => Behaviour::Healthy,
        };
        behaviours.insert(at, behaviour);
        at += Duration::from_millis(500 + random.below(15_000));
    }
    behaviours.insert(Duration::from_secs(55), Behaviour::Healthy);
    behaviours
}
