//! Both readers and a server that lies about time: simulated days with wrong clocks, late events,
//! ties, restarts, limits, cut connections, a part of the log that cannot be read, and a log that
//! grows meanwhile. `LOCKGATE_SEEDS=0..1000` tries that many of them.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lockgate_backoff::Random;
use lockgate_model::{Day, FeedKind, Millis};
use lockgate_teleport::{SourceLimits, Sweep};
use tonic::Status;

use crate::fake::{Chunk, Fake, Planned, Script, Search, event, growing, time_of};
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

/// A part of the log that the server cannot read, until some time.
#[derive(Clone, Copy)]
struct Fault {
    from: Millis,
    to: Millis,
    until: Millis,
}

fn fault(dice: &mut Dice) -> Option<Fault> {
    if dice.one_in(2) {
        return None;
    }
    let from = NOW + dice.between(-HOUR, SPAN);
    let until = match dice.one_in(2) {
        true => Millis::MAX,
        false => from + dice.between(0, SPAN),
    };
    Some(Fault {
        from,
        to: from + dice.between(0, 2 * HOUR),
        until,
    })
}

/// A server that has a fault, limits how much it is asked for, and cuts connections.
fn failing(
    clock: Arc<SimulatedClock>,
    fault: Option<Fault>,
    mut dice: Dice,
    mut answers: Search,
) -> Search {
    let (is_limited, is_cut) = (dice.one_in(3), dice.one_in(3));
    Box::new(move |request, events, calls| {
        let time = |time: Option<prost_types::Timestamp>| {
            let time = time.unwrap_or_default();
            time.seconds * 1000 + i64::from(time.nanos) / 1_000_000
        };
        let (begin, end) = (time(request.start_date), time(request.end_date));
        let is_hit =
            |fault: Fault| clock.time() < fault.until && begin <= fault.to && end >= fault.from;
        let answer = answers(request, events, calls);
        if is_limited && dice.one_in(6) {
            return Err(Status::resource_exhausted("rate limit exceeded"));
        }
        if is_cut && dice.one_in(200) {
            return Err(Status::unavailable("the connection is closing"));
        }
        if fault.is_some_and(is_hit) {
            return Err(Status::unknown("the partition cannot be read"));
        }
        answer
    })
}

async fn run(seed: u64) {
    let mut dice = Dice(Random::seeded(seed));
    let plan = plan(&mut dice);
    let clock = SimulatedClock::new();
    let expected: Vec<(String, Millis)> = plan
        .iter()
        .map(|planned| (planned.event.id.clone(), time_of(&planned.event)))
        .collect();
    let fault = fault(&mut dice);
    let last = plan.iter().map(|planned| planned.visible).max();
    let last = last.expect("there are events");
    let mut fixture = Fixture::new();
    let script = Script {
        search: failing(
            clock.clone(),
            fault,
            Dice(Random::seeded(seed + 1_000_000)),
            growing(clock.clone(), plan, 200),
        ),
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
    // What can be read again was read again.
    let lasting = fault.filter(|fault| fault.until == Millis::MAX);
    let part = lasting.map_or(0..=0, |fault| fault.from..=fault.to);
    let in_gaps = intake.assert_each_once_or_in_a_gap(&expected, part);
    println!(
        "seed {seed}: {} events, {in_gaps} of them in {} gaps, {} requests",
        expected.len(),
        intake.gaps().len(),
        fake.script().searches.len()
    );
}

/// A bulk export of some days, whose chunks come late, are cut, or cannot be read.
async fn export(seed: u64) {
    let mut dice = Dice(Random::seeded(seed));
    let mut fixture = Fixture::new();
    let mut script = Script {
        chunks: Some(BTreeMap::new()),
        is_flaky: dice.one_in(2),
        ..Script::default()
    };
    fixture.settings.start_time = Some(NOW - 4 * DAY);
    fixture.settings.exit_on_last_event = false;
    fixture.settings.limits.newest = Duration::from_millis(5);
    let mut expected: Vec<(String, Millis)> = Vec::new();
    let mut add = |script: &mut Script, dice: &mut Dice, day: Millis, name: String| {
        let mut chunk = Chunk::default();
        for nth in 0..dice.between(1, 20) {
            let id = format!("{name}-{nth}");
            let time = (NOW - day * DAY).div_euclid(DAY) * DAY + dice.between(0, 12 * HOUR);
            let event = event(&id, "user.login", time, 0, &[]);
            script.events.push(event.clone());
            chunk.events.push(event);
            expected.push((id, time));
        }
        let date = Day::of(NOW - day * DAY).to_string();
        let chunks = script.chunks.get_or_insert_default();
        chunks.entry(date).or_default().insert(name, chunk);
    };
    for day in 0..4 {
        for nth in 0..dice.between(0, 4) {
            add(&mut script, &mut dice, day, format!("d{day}c{nth}"));
        }
    }
    add(&mut script, &mut dice, 0, "today".to_owned());
    // One of them cannot be read to its end.
    let (mut broken, is_lasting) = (None, dice.one_in(2));
    if dice.one_in(2) {
        let chunks = script.chunks.iter_mut().flat_map(BTreeMap::values_mut);
        let mut chunks: Vec<_> = chunks.flat_map(BTreeMap::iter_mut).collect();
        let nth = dice.between(0, chunks.len() as Millis) as usize;
        let (name, chunk) = &mut chunks[nth];
        let after = dice.between(0, chunk.events.len() as Millis) as usize;
        let status = match dice.between(0, 3) {
            0 => Status::unknown("the object is damaged"),
            1 => Status::not_found("chunk not found"),
            _ => Status::unavailable("the stream broke"),
        };
        chunk.breaks_after = Some((after, status));
        let rest = chunk.events[after..].iter().map(|event| event.id.clone());
        broken = Some((name.clone(), rest.collect::<Vec<_>>()));
    }
    let fake = Fake::start(&fixture.authority, script).await;
    fixture.settings.address = fake.address.to_string();
    let intake = MemoryIntake::new();
    let mut running = fixture.start(intake.resume(), &intake);
    let mut wrong_by = 0;
    for nth in 0..dice.between(0, 5) {
        let at_least = intake.contents().events.len().min(1);
        intake
            .holds(|contents| contents.events.len() >= at_least)
            .await;
        let jump = match dice.one_in(3) {
            true => -wrong_by,
            false => dice.between(-5 * DAY, 5 * DAY) - wrong_by,
        };
        wrong_by += jump;
        fixture.clock.advance(jump);
        // A chunk that comes late.
        add(&mut fake.script(), &mut dice, nth % 2, format!("late{nth}"));
        if dice.one_in(2) {
            running.stop().await;
            running = fixture.start(intake.resume(), &intake);
        }
    }
    fixture.clock.advance(-wrong_by);
    let rest = match &broken {
        Some((name, _)) if !is_lasting => {
            let mut script = fake.script();
            let chunks = script.chunks.iter_mut().flat_map(BTreeMap::values_mut);
            chunks
                .flatten()
                .filter(|(found, _)| *found == name)
                .for_each(|(_, chunk)| {
                    chunk.breaks_after = None;
                });
            Vec::new()
        }
        Some((_, rest)) => rest.clone(),
        None => Vec::new(),
    };
    let wanted = expected.len() - rest.len();
    intake
        .holds(|contents| contents.events.len() >= wanted)
        .await;
    let is_told = |contents: &crate::intake::Contents| {
        let open = contents.gaps.values().filter(|gap| gap.is_open()).count();
        open == usize::from(!rest.is_empty())
    };
    intake.holds(is_told).await;
    running.stop().await;
    let read = expected
        .iter()
        .map(|(id, _)| id)
        .filter(|id| !rest.contains(id));
    intake.assert_each_once(FeedKind::Audit, read.cloned());
    println!(
        "seed {seed} of the export: {} events, {} of them in a gap",
        expected.len(),
        rest.len()
    );
}

#[test]
fn every_event_is_polled_once_or_in_a_gap_whatever_the_clocks_and_the_server_say() {
    for_each_seed(run);
}

#[test]
fn every_event_is_exported_once_or_in_a_gap_whatever_the_clocks_and_the_server_say() {
    for_each_seed(export);
}

/// The clock is days behind, and the log cannot be read from the last event on: reading waits there
/// for hours, while events become visible late.
#[tokio::test]
async fn late_events_are_found_even_if_nothing_shows_that_the_log_goes_on() {
    run(38).await;
}

/// The position is pulled back by a clock that is set back, to long before a gap.
#[tokio::test]
async fn late_events_before_a_gap_are_found_although_the_clock_was_set_back() {
    run(330).await;
}

fn for_each_seed<F: Future<Output = ()>>(run: impl Fn(u64) -> F + Copy + Send + Sync) {
    #[allow(
        clippy::disallowed_methods,
        reason = "how long to test is not a setting of the program"
    )]
    let seeds = std::env::var("LOCKGATE_SEEDS").unwrap_or_else(|_| "0..20".into());
    let (first, end) = seeds.split_once("..").expect("a range such as 0..100");
    let [first, end] = [first, end].map(|seed| seed.parse::<u64>().expect("a number"));
    let failed = Mutex::new(Vec::new());
    std::thread::scope(|threads| {
        for thread in 0..THREADS {
            let failed = &failed;
            threads.spawn(move || {
                for seed in (first + thread..end).step_by(THREADS as usize) {
                    let runtime = tokio::runtime::Builder::new_current_thread()
                        .enable_all()
                        .build()
                        .expect("a runtime");
                    let run = AssertUnwindSafe(|| runtime.block_on(run(seed)));
                    if catch_unwind(run).is_err() {
                        failed.lock().expect("no panic").push(seed);
                    }
                }
            });
        }
    });
    let mut failed = failed.into_inner().expect("no panic");
    failed.sort_unstable();
    assert!(failed.is_empty(), "seeds {failed:?} failed");
}
