//! Polling a server that lies about time: simulated days with wrong clocks, late events, ties,
//! restarts and a log that grows meanwhile. `LOCKGATE_SEEDS=0..1000` tries that many of them.

use std::time::Duration;

use lockgate_backoff::Random;
use lockgate_model::{FeedKind, Millis};
use lockgate_teleport::{SourceLimits, Sweep};

use crate::fake::{Fake, Planned, Script, event, growing};
use crate::fixture::{DAY, Fixture, NOW, SimulatedClock};
use crate::intake::MemoryIntake;

const MINUTE: Millis = 60_000;
const HOUR: Millis = 3_600_000;
/// How long events happen.
const SPAN: Millis = 6 * HOUR;
const THREADS: u64 = 2;

/// Random choices, by seed.
struct Dice(Random);

impl Dice {
    /// At least `from`, less than `to`.
    fn between(&mut self, from: Millis, to: Millis) -> Millis {
        from + (self.0.next_u64() % (to - from) as u64) as Millis
    }

    fn one_in(&mut self, count: Millis) -> bool {
        self.between(0, count) == 0
    }
}

/// Events with equal times, late ones, and now and then one with a time far in the future.
fn plan(dice: &mut Dice) -> Vec<Planned> {
    let skew = match dice.between(0, 3) {
        0 => 0,
        _ => dice.between(-HOUR, HOUR),
    };
    let mut plan: Vec<Planned> = Vec::new();
    let mut at = NOW;
    for nth in 0..dice.between(30, 90) {
        if !dice.one_in(4) {
            at += dice.between(0, SPAN / 30);
        }
        let late = match dice.between(0, 6) {
            0 => dice.between(MINUTE, 6 * HOUR),
            _ => dice.between(0, 5_000),
        };
        let ahead = match dice.one_in(60) {
            // Further than any clock here is wrong: our clock must not confirm it.
            true => dice.between(6 * DAY, 20 * DAY),
            false => skew,
        };
        plan.push(Planned {
            visible: at + late,
            event: event(&format!("e{nth}"), "user.login", at + ahead, 0, &[]),
        });
    }
    plan
}

/// What happens to the machine, and when: the clock is wrong from then on, or it is restarted.
fn accidents(dice: &mut Dice) -> Vec<(Millis, Option<Millis>)> {
    let mut accidents: Vec<_> = (0..dice.between(0, 6))
        .map(|_| {
            let at = NOW + dice.between(0, SPAN + 2 * HOUR);
            let wrong_by = match dice.between(0, 3) {
                0 => None,
                1 => Some(dice.between(-5 * DAY, 5 * DAY)),
                _ => Some(0),
            };
            (at, wrong_by)
        })
        .collect();
    accidents.sort_unstable();
    accidents
}

async fn run(seed: u64) {
    let mut dice = Dice(Random::seeded(seed));
    let plan = plan(&mut dice);
    let clock = SimulatedClock::new();
    let expected: Vec<String> = plan
        .iter()
        .map(|planned| planned.event.id.clone())
        .collect();
    let last = plan.iter().map(|planned| planned.visible).max();
    let last = last.expect("there are events");
    let mut fixture = Fixture::new();
    let script = Script {
        search: growing(clock.clone(), plan, 200),
        ..Script::default()
    };
    let fake = Fake::start(&fixture.authority, script).await;
    fixture.settings.address = fake.address.to_string();
    fixture.settings.clock = clock.clone();
    fixture.settings.exit_on_last_event = false;
    fixture.settings.start_time = Some(NOW - 2 * HOUR);
    let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
    fixture.settings.limits = SourceLimits {
        poll: minutes(15),
        newest: minutes(30),
        reread: minutes(16),
        page: 7,
        sweeps: [(60, 30), (24 * 60, 120)]
            .map(|(span, every)| Sweep {
                span: minutes(span),
                every: minutes(every),
            })
            .into(),
        slice: dice.between(5, 40) as usize,
        hashes: dice.between(20, 200) as usize,
        ..SourceLimits::default()
    };
    let intake = MemoryIntake::new();
    let mut running = fixture.start(intake.resume(), &intake);
    for (at, wrong_by) in accidents(&mut dice) {
        clock.reaches(at).await;
        if let Some(wrong_by) = wrong_by {
            clock.set_wrong_by(wrong_by);
        }
        if wrong_by.is_none() || dice.one_in(2) {
            running.stop().await;
            running = fixture.start(intake.resume(), &intake);
        }
    }
    clock.reaches(last + 5 * HOUR).await;
    running.stop().await;
    println!("seed {seed}: {} requests", fake.script().searches.len());
    intake.assert_each_once(FeedKind::Audit, expected);
}

#[test]
fn every_event_is_read_once_whatever_the_clocks_say() {
    #[allow(
        clippy::disallowed_methods,
        reason = "how long to test is not a setting of the program"
    )]
    let seeds = std::env::var("LOCKGATE_SEEDS").unwrap_or_else(|_| "0..20".into());
    let (first, end) = seeds.split_once("..").expect("a range such as 0..100");
    let [first, end] = [first, end].map(|seed| seed.parse::<u64>().expect("a number"));
    std::thread::scope(|threads| {
        for thread in 0..THREADS {
            threads.spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .expect("a runtime");
                for seed in (first + thread..end).step_by(THREADS as usize) {
                    runtime.block_on(run(seed));
                }
            });
        }
    });
}
