//! The engine under random schedules: a ledger in memory, receivers that are often not well,
//! crashes between any two actions, restarts and redrives. A schedule is a function of its seed.
//!
//! ```sh
//! LOCKGATE_SCHEDULES=1000000 cargo test --release -p lockgate-engine --test simulation
//! LOCKGATE_SEED=4711 cargo test -p lockgate-engine --test simulation      # one schedule again
//! ```

#![allow(
    clippy::disallowed_methods,
    reason = "seeds and the number of schedules come from the environment"
)]

mod evidence;
mod outage;
mod plugins;
mod random;
mod receiver;
mod world;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use lockgate_engine::Uptime;
use lockgate_model::FeedKind;
use lockgate_model::contract::Inspect;

use crate::plugins::Grouping;
use crate::random::Random;
use crate::receiver::Mood;
use crate::world::{Plan, World};

/// Schedules of an ordinary test run.
const SCHEDULES: u64 = 10_000;

/// Steps until everything must be final once the receivers are well.
const STEPS_MAX: u64 = 200_000;

#[test]
fn nothing_is_lost_doubled_or_overtaken_in_any_schedule() {
    let number = |name: &str| {
        std::env::var(name)
            .ok()
            .and_then(|value| value.parse::<u64>().ok())
    };
    if let Some(seed) = number("LOCKGATE_SEED") {
        return run(seed);
    }
    let schedules = number("LOCKGATE_SCHEDULES").unwrap_or(SCHEDULES);
    let first = number("LOCKGATE_FIRST_SEED").unwrap_or(0);
    let threads = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    let failed: Vec<u64> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|thread| {
                scope.spawn(move || {
                    let mut seeds = (first + thread..first + schedules).step_by(threads as usize);
                    seeds.find(|&seed| catch_unwind(AssertUnwindSafe(|| run(seed))).is_err())
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
    let plan = plan(&mut random);
    let mut world = World::new(plan, random);
    let trouble_ends = Duration::from_secs(60);
    // Events come while receivers change their moods and the process is killed.
    while world.now < trouble_ends {
        if world.random.chance(0.03) {
            let count = 1 + world.random.below(8);
            world.append(count, world.plan.odd);
        }
        if world.random.chance(world.plan.crashes) {
            world.crash();
            world.take_redrives();
        } else if world.random.chance(world.plan.crashes) {
            world.restart();
            world.take_redrives();
        } else if world.random.chance(world.plan.crashes) {
            world.reload();
            world.take_redrives();
        }
        if world.random.chance(world.plan.releases) {
            world.release();
        }
        if world.random.chance(world.plan.redrives) {
            world.redrive();
        }
        if !world.step() {
            world.now += Duration::from_millis(500);
        }
        if world.random.chance(0.002) {
            // The machine was suspended.
            world.now += Duration::from_secs(world.random.below(40));
        }
    }
    // From here on the receivers are well; good events keep coming, as evidence against bad ones.
    let mut steps = 0;
    while world.waiting() > 0 {
        steps += 1;
        assert!(
            steps < STEPS_MAX,
            "{} entries never become final: {:#?}",
            world.waiting(),
            world
                .engine()
                .map(|engine| engine.conditions().collect::<Vec<_>>())
        );
        if steps % 200 == 0 && steps < 20_000 {
            world.append(3, 0.0);
        }
        // The operator looks in now and then, and releases what asks for it.
        if steps % 997 == 0 && world.asks_for_operator() {
            world.release();
        }
        if !world.step() {
            world.now += Duration::from_secs(1);
            world.append(1, 0.0);
        }
    }
    world.check_end();
}

fn plan(random: &mut Random) -> Plan {
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
    let moods = (0..endpoints).map(|_| moods(random)).collect();
    let ordered = feeds.contains(&FeedKind::Sessions);
    Plan {
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
        moods,
        odd: random.pick(&[0.0, 0.01, 0.05, 0.5]),
        crashes: random.pick(&[0.0, 0.002, 0.02]),
        redrives: random.pick(&[0.0, 0.0, 0.01]),
        releases: random.pick(&[0.0, 0.0, 0.0, 0.002]),
        scarce_memory: random.chance(0.3),
    }
}

/// From trouble to trouble, and well in the end.
fn moods(random: &mut Random) -> BTreeMap<Uptime, Mood> {
    let mut moods = BTreeMap::new();
    let mut at = Uptime::ZERO;
    while at < Duration::from_secs(50) {
        let mood = match random.below(14) {
            0 => Mood::Down,
            1 => Mood::Busy,
            2 => Mood::Throttling,
            3 => Mood::Unauthorized,
            4 => Mood::HalfBusy,
            5 => Mood::Small(20 + random.below(200) as usize),
            6 => Mood::RefusesAtRandom(random.pick(&[0.05, 0.5, 0.7, 0.9, 1.0])),
            7 => Mood::LosesAnswers,
            8 => Mood::TakesParts,
            _ => Mood::Well,
        };
        moods.insert(at, mood);
        at += Duration::from_millis(500 + random.below(15_000));
    }
    moods.insert(Duration::from_secs(55), Mood::Well);
    moods
}
