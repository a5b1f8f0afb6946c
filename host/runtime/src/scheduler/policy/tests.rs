//! Tests of the order of calls, in simulated time.

mod memory;

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use proptest::prelude::*;

use super::*;
use crate::limits::{SLOW_CALL, TICK, begun_calls_max};

const MS: Duration = Duration::from_millis(1);

const BATCH: JobKind = JobKind {
    purpose: Purpose::Batch,
    stage: StageId(1),
};

const PREPARATION: JobKind = JobKind {
    purpose: Purpose::Preparation,
    ..BATCH
};

/// A pipeline that always has a batch ready.
#[derive(Clone, Copy, Debug)]
struct Load {
    /// CPU time of a call.
    call: Duration,
    /// If not 0: each call with this number or a multiple of it takes `other` instead.
    every: u32,
    other: Duration,
    /// Batches in flight: calls that may wait or run at the same time.
    in_flight: usize,
    /// Time from the end of a call to the next one of its batch.
    pause: Duration,
    /// If not 0: CPU time that it takes to prepare the component, before all calls.
    preparation: Duration,
}

impl Load {
    fn new(call: Duration, in_flight: usize) -> Load {
        Load {
            call,
            every: 0,
            other: Duration::ZERO,
            in_flight,
            pause: Duration::ZERO,
            preparation: Duration::ZERO,
        }
    }

    fn call(&self, number: u32) -> Duration {
        match number.checked_rem(self.every) {
            Some(0) => self.other,
            _ => self.call,
        }
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Served {
    is_prepared: bool,
    began: u32,
    calls: u32,
    cpu: Duration,
    /// The longest time between the ends of two of its calls.
    gap: Duration,
    last_end: Duration,
}

/// A call that has begun.
struct Simulated {
    begun: BegunCall,
    kind: JobKind,
    load: usize,
    length: Duration,
    done: Duration,
    /// What it does next, while it runs.
    step: Duration,
}

impl Simulated {
    /// Until its next tick, or its end.
    fn next_step(&mut self) -> Duration {
        self.step = TICK.min(self.length - self.done);
        self.step
    }
}

fn returns(cpu: Duration) -> Finished {
    Finished {
        cpu,
        last_slice: cpu,
        timed_out: false,
        refused: false,
    }
}

fn begins(policy: &mut Policy) -> BegunCall {
    match policy.take() {
        Some(Next::Begins(begun)) => begun,
        other => panic!("{other:?}"),
    }
}

/// Runs the next call, which takes this long, in one slice.
fn call(policy: &mut Policy, job: JobKind, cpu: Duration) -> QueueId {
    let begun = begins(policy);
    let id = begun.queue;
    policy.finish(begun, job, &returns(cpu));
    id
}

/// A queue that has shown that it is quick.
fn quick(policy: &mut Policy) -> QueueId {
    let id = policy.add();
    policy.submit(id);
    assert_eq!(call(policy, BATCH, MS), id);
    id
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// A running call has done its step.
    Step(CallId),
    /// The next call of this load.
    IsSubmitted(usize),
}

/// Runs the loads on simulated threads, checks every step, and returns the service that each load
/// got.
fn simulate(threads: usize, loads: &[Load], time: Duration) -> Vec<Served> {
    let mut policy = Policy::new(threads);
    let ids: Vec<_> = loads.iter().map(|_| policy.add()).collect();
    let mut served = vec![Served::default(); loads.len()];
    for ((&id, load), served) in ids.iter().zip(loads).zip(&mut served) {
        served.is_prepared = load.preparation.is_zero();
        let jobs = if served.is_prepared {
            load.in_flight
        } else {
            1
        };
        (0..jobs).for_each(|_| policy.submit(id));
    }
    let mut events = BinaryHeap::new();
    let mut calls: BTreeMap<CallId, Simulated> = BTreeMap::new();
    let mut now = Duration::ZERO;
    for number in 0u64.. {
        while let Some(next) = policy.take() {
            let id = match next {
                Next::Resumes(id) => id,
                Next::Begins(begun) => {
                    let id = begun.id;
                    let load = ids.iter().position(|&id| id == begun.queue).unwrap();
                    let (kind, length) = match served[load].is_prepared {
                        false => (PREPARATION, loads[load].preparation),
                        true => (BATCH, loads[load].call(served[load].began)),
                    };
                    let simulated = Simulated {
                        load,
                        kind,
                        length,
                        done: Duration::ZERO,
                        step: Duration::ZERO,
                        begun,
                    };
                    served[load].began += u32::from(kind == BATCH);
                    calls.insert(id, simulated);
                    id
                }
            };
            let step = calls.get_mut(&id).unwrap().next_step();
            events.push(Reverse((now + step, number, Event::Step(id))));
        }
        check(&policy, &calls);
        let Some(Reverse((at, _, event))) = events.pop() else {
            break;
        };
        now = at;
        if now > time {
            break;
        }
        match event {
            Event::IsSubmitted(load) => policy.submit(ids[load]),
            Event::Step(id) => {
                let call = calls.get_mut(&id).unwrap();
                let step = call.step;
                call.done += step;
                served[call.load].cpu += step;
                if call.done < call.length {
                    match policy.end_slice(&mut call.begun, call.kind, step) {
                        SliceEnd::GoOn => {
                            events.push(Reverse((now + call.next_step(), number, event)));
                        }
                        SliceEnd::Pause => policy.pause(&call.begun),
                        SliceEnd::Postpone => {
                            let call = calls.remove(&id).unwrap();
                            served[call.load].began -= u32::from(call.kind == BATCH);
                            let ended = Finished {
                                last_slice: Duration::ZERO,
                                ..returns(call.done)
                            };
                            policy.finish(call.begun, call.kind, &ended);
                            policy.submit(ids[call.load]);
                        }
                        SliceEnd::Abandon => panic!("no queue is removed"),
                    }
                    continue;
                }
                let call = calls.remove(&id).unwrap();
                let served = &mut served[call.load];
                let finished = Finished {
                    last_slice: step,
                    ..returns(call.length)
                };
                policy.finish(call.begun, call.kind, &finished);
                if !served.is_prepared {
                    served.is_prepared = true;
                    (0..loads[call.load].in_flight).for_each(|_| policy.submit(ids[call.load]));
                    continue;
                }
                served.calls += 1;
                served.gap = served.gap.max(now - served.last_end);
                served.last_end = now;
                let next = now + loads[call.load].pause;
                events.push(Reverse((next, number, Event::IsSubmitted(call.load))));
            }
        }
    }
    served
}

fn check(policy: &Policy, calls: &BTreeMap<CallId, Simulated>) {
    let counted = |kind| {
        let calls = calls.values().filter(|call| call.begun.counted == kind);
        calls.count()
    };
    assert_eq!(policy.begun_new, counted(Counted::New));
    assert!(policy.begun_new <= NEW_CALLS_MAX);
    for (level, of_level) in policy.levels.iter().enumerate() {
        assert_eq!(of_level.begun, counted(Counted::On(level)));
        let most = match level {
            0 => QUICK_CALLS_MAX,
            _ => LEVEL_CALLS_MAX + policy.threads,
        };
        assert!(of_level.begun <= most);
    }
    assert!(calls.len() <= begun_calls_max(policy.threads));
    let queues = || policy.queues.values();
    let running: usize = queues().map(|queue| queue.running).sum();
    assert_eq!(policy.running, running);
    assert!(running <= policy.threads, "as many calls as threads");
    assert_eq!(queues().map(Queue::begun).sum::<usize>(), calls.len());
    assert!(queues().all(|queue| queue.begun() <= policy.threads));
    // No thread is idle while a call could run.
    let could_run = queues().any(|queue| policy.can_run(queue));
    assert!(running == policy.threads || !could_run, "{policy:?}");
}

/// A pipeline whose batches pass through several calls, one after another.
fn short(call: Duration, in_flight: usize) -> Load {
    Load {
        pause: 2 * MS,
        ..Load::new(call, in_flight)
    }
}

/// What a pipeline gets beside these others, as a share of what it gets alone.
fn share(threads: usize, load: Load, others: &[Load]) -> f64 {
    let time = 2000 * MS;
    let loads: Vec<Load> = [load].into_iter().chain(others.iter().copied()).collect();
    let alone = simulate(threads, &loads[..1], time)[0].calls;
    let beside = simulate(threads, &loads, time)[0].calls;
    f64::from(beside) / f64::from(alone)
}

/// A pipeline that needs less than its share of the threads gets it, whatever the others do. One
/// component with calls of 37 ms once took three quarters of its rate. Six with calls of 4.5 ms
/// took two thirds, when only longer calls were limited to fewer threads.
#[test]
fn the_length_of_their_calls_does_not_help_others() {
    for threads in [2, 3, 8] {
        for call in [MS / 2, MS, 9 * MS / 2, 6 * MS, 37 * MS, 51 * MS, 1000 * MS] {
            for pipelines in [1, 6, 20] {
                let others = vec![Load::new(call, 8); pipelines];
                // About a thirtieth of a thread, and one batch or several in flight.
                for load in [short(MS / 12, 1), short(MS / 50, 4)] {
                    let share = share(threads, load, &others);
                    assert!(
                        share > 0.7,
                        "{share} beside {pipelines} of {call:?}, {threads} threads"
                    );
                }
            }
        }
    }
}

/// A pipeline was once quick again after eight quick calls.
#[test]
fn short_calls_now_and_then_do_not_hide_long_ones() {
    for other in [6 * MS, 45 * MS, 51 * MS, 1000 * MS] {
        for every in [2, 3, 9, 10, 20] {
            let alternates = Load {
                every,
                other,
                ..Load::new(MS, 8)
            };
            for pipelines in [1, 6] {
                let share = share(2, short(MS / 8, 1), &vec![alternates; pipelines]);
                assert!(
                    share > 0.7,
                    "{share} beside {pipelines} with every {every}th call of {other:?}"
                );
            }
        }
    }
}

/// Whatever the lengths of its calls: 1 ms or a second.
#[test]
fn busy_pipelines_share_the_threads_equally() {
    let loads = [1, 4, 20, 45, 60, 1000].map(|ms| Load::new(ms * MS, 8));
    let time = 10_000 * MS;
    let part = time * 2 / 6;
    for served in simulate(2, &loads, time) {
        let off = served.cpu.abs_diff(part);
        assert!(off < 100 * MS, "{served:?}, and not {part:?}");
    }
}

#[test]
fn calls_run_on_all_threads_if_there_are_enough() {
    let time = 10_000 * MS;
    for loads in [
        vec![Load::new(20 * MS, 8)],
        vec![Load::new(20 * MS, 8), short(MS / 2, 1)],
    ] {
        let served = simulate(4, &loads, time);
        let cpu: Duration = served.iter().map(|served| served.cpu).sum();
        assert!(cpu > 4 * time - 100 * MS, "{served:?}");
    }
}

/// Pauses cost time.
#[test]
fn a_call_pauses_only_for_others_that_are_behind() {
    let mut policy = Policy::new(1);
    let (first, second) = (policy.add(), policy.add());
    policy.submit(first);
    policy.submit(first);
    let mut begun = begins(&mut policy);
    assert_eq!(
        policy.end_slice(&mut begun, BATCH, 40 * MS),
        SliceEnd::GoOn,
        "nobody else waits"
    );
    policy.submit(second);
    assert_eq!(
        policy.end_slice(&mut begun, BATCH, MS),
        SliceEnd::Pause,
        "the other has a head start"
    );
    policy.pause(&begun);
    let mut other = begins(&mut policy);
    assert_eq!(other.queue, second);
    assert_eq!(
        policy.end_slice(&mut other, BATCH, HEAD_START),
        SliceEnd::GoOn,
        "it is still behind"
    );
    assert_eq!(
        policy.end_slice(&mut other, BATCH, SLICE),
        SliceEnd::GoOn,
        "not far enough ahead"
    );
    assert_eq!(
        policy.end_slice(&mut other, BATCH, 2 * SLICE),
        SliceEnd::Pause
    );
    policy.pause(&other);
    assert!(matches!(policy.take(), Some(Next::Resumes(id)) if id == begun.id));
    policy.finish(begun, BATCH, &returns(MS));
    policy.remove(second);
    assert_eq!(begins(&mut policy).queue, first);
}

#[test]
fn preparation_does_not_make_a_pipeline_slow() {
    let mut policy = Policy::new(2);
    let id = policy.add();
    policy.submit(id);
    let mut begun = begins(&mut policy);
    let end = policy.end_slice(&mut begun, PREPARATION, 999 * MS);
    assert_eq!(end, SliceEnd::GoOn);
    assert!(begun.is_slow, "its memory counts as that of a slow call");
    policy.finish(begun, PREPARATION, &returns(1000 * MS));
    assert!(!policy.is_slow(id));
    assert!(policy.levels.iter().all(|level| level.begun == 0));
}

/// Those that could not move up once counted as first calls, which left no place for any other.
#[test]
fn pipelines_that_take_long_to_configure_keep_no_other_from_starting() {
    let spins = Load {
        preparation: 60_000 * MS,
        ..Load::new(MS, 1)
    };
    for others in [40, 99] {
        let mut loads = vec![spins; others];
        loads.push(Load {
            preparation: 20 * MS,
            ..short(MS, 2)
        });
        let healthy = *simulate(2, &loads, 20_000 * MS).last().unwrap();
        // At the start, each of the others has its first turn.
        assert!(
            healthy.calls > 50 && healthy.gap < 10_000 * MS,
            "beside {others}: {healthy:?}"
        );
    }
}

/// Those that were postponed have their turns.
#[test]
fn all_pipelines_start_however_long_they_take_to_configure() {
    let load = Load {
        preparation: 1000 * MS,
        pause: 1000 * MS,
        ..Load::new(MS, 1)
    };
    // Those that are postponed use about as much time in vain.
    let time = 2 * 20_000 * MS;
    for (nth, served) in simulate(2, &vec![load; 30], time).into_iter().enumerate() {
        assert!(served.calls > 0, "{nth}: {served:?}");
    }
}

#[test]
fn a_time_out_or_a_slow_call_is_forgotten_after_some_quick_calls() {
    for (cpu, timed_out) in [(51 * MS, false), (MS, true)] {
        let mut policy = Policy::new(2);
        let id = policy.add();
        let mut call = |cpu, timed_out| {
            policy.submit(id);
            let begun = begins(&mut policy);
            let mut finished = returns(cpu);
            finished.timed_out = timed_out;
            policy.finish(begun, BATCH, &finished);
            policy.is_slow(id)
        };
        assert!(!call(50 * MS, false));
        assert!(call(cpu, timed_out));
        let slow: Vec<bool> = (0..4).map(|_| call(MS, false)).collect();
        assert_eq!(slow, [true, false, false, false]);
        assert!(call(cpu, timed_out));
        assert!(call(MS, false));
        assert!(call(cpu, timed_out), "the count starts again");
        assert!(call(MS, false));
    }
}

/// A slow component that took much memory once counted as quick again after it had been refused
/// some, and got the memory of quick ones.
#[test]
fn a_call_that_was_refused_memory_does_not_make_a_pipeline_quick() {
    let mut policy = Policy::new(2);
    let id = policy.add();
    policy.submit(id);
    call(&mut policy, BATCH, 51 * MS);
    for _ in 0..10 {
        policy.submit(id);
        let begun = begins(&mut policy);
        let refused = Finished {
            refused: true,
            ..returns(MS)
        };
        policy.finish(begun, BATCH, &refused);
        assert!(policy.is_slow(id));
    }
}

/// A batch in which a mapper is slow has calls of a filter and of a sink, too: with several in
/// flight, three of them in a row once made the pipeline quick.
#[test]
fn the_quick_calls_of_other_stages_do_not_make_a_pipeline_quick() {
    let mut policy = Policy::new(2);
    let id = policy.add();
    let sink = JobKind {
        stage: StageId(2),
        ..BATCH
    };
    for (job, cpu) in [
        (BATCH, 51 * MS),
        (sink, MS),
        (sink, MS),
        (sink, MS),
        (sink, MS),
    ] {
        policy.submit(id);
        call(&mut policy, job, cpu);
        assert!(policy.is_slow(id));
    }
    for is_slow in [true, false] {
        policy.submit(id);
        call(&mut policy, BATCH, MS);
        assert_eq!(policy.is_slow(id), is_slow);
    }
}

/// Loading and configuring once counted as quick calls, so that the first batches of a looping
/// component took all threads.
#[test]
fn a_new_pipeline_runs_one_call_at_a_time_until_its_first_call_returned() {
    let mut policy = Policy::new(4);
    let id = policy.add();
    policy.submit(id);
    assert_eq!(call(&mut policy, PREPARATION, MS), id);
    (0..3).for_each(|_| policy.submit(id));
    let begun = begins(&mut policy);
    assert!(policy.take().is_none(), "one at a time");
    policy.finish(begun, BATCH, &returns(MS));
    assert!(!policy.is_slow(id));
    let _first = begins(&mut policy);
    let _second = begins(&mut policy);
}

#[test]
fn a_slow_pipeline_begins_one_call_at_a_time() {
    let mut policy = Policy::new(4);
    let id = policy.add();
    policy.submit(id);
    call(&mut policy, BATCH, 51 * MS);
    (0..3).for_each(|_| policy.submit(id));
    let begun = begins(&mut policy);
    assert!(begun.is_slow);
    assert!(policy.take().is_none());
    policy.pause(&begun);
    assert!(matches!(policy.take(), Some(Next::Resumes(_))));
    assert!(policy.take().is_none());
}

/// Each keeps its memory and a thread until it returns.
#[test]
fn few_slow_calls_have_begun_at_a_time() {
    let burner = Load::new(200 * MS, 8);
    let loads = vec![burner; 8 * LEVEL_CALLS_MAX];
    let served = simulate(2, &loads, 30_000 * MS);
    for served in served {
        assert!(served.calls >= 2, "they take turns: {served:?}");
    }
    // Others do not suffer from that.
    let share = share(2, short(MS / 50, 2), &loads);
    assert!(share > 0.5, "{share}");
}

/// New calls that turned out to be slow once took all places, until one of them ended.
#[test]
fn calls_that_turn_out_to_be_slow_keep_no_other_from_beginning() {
    let mut loads = vec![short(MS, 2)];
    loads.extend(vec![Load::new(60_000 * MS, 8); 256]);
    // Each twelfth call is slow.
    let now_and_then = Load {
        every: 12,
        other: 60_000 * MS,
        ..short(MS, 2)
    };
    loads.extend(vec![now_and_then; 128]);
    let quick = simulate(2, &loads, 20_000 * MS)[0];
    // At the start, each of the others has its first turn.
    assert!(quick.gap < 5000 * MS && quick.calls > 100, "{quick:?}");
}

/// It once got nothing beside 32 that are always slow.
#[test]
fn a_pipeline_that_is_slow_now_and_then_gets_its_part_beside_many_that_always_are() {
    let time = 30_000 * MS;
    let now_and_then = Load {
        every: 12,
        other: 60 * MS,
        ..short(MS, 2)
    };
    for call in [100 * MS, 900 * MS, 60_000 * MS] {
        for pipelines in [1, 10, 40] {
            let mut loads = vec![now_and_then];
            loads.extend(vec![Load::new(call, 8); pipelines]);
            let served = simulate(2, &loads, time)[0];
            let part = (2 * time / (1 + pipelines as u32)).min(time / 4);
            assert!(
                served.cpu > part / 3,
                "{served:?}, and not {part:?}, beside {pipelines} of {call:?}"
            );
        }
    }
}

/// There are only so many instances. Four hundred pipelines once used them up.
#[test]
fn the_calls_that_have_begun_are_limited() {
    let loads = vec![Load::new(10 * MS, 8); 400];
    let served = simulate(8, &loads, 1500 * MS);
    assert!(served.iter().all(|served| served.calls > 0), "{served:?}");
}

#[test]
fn idle_time_is_not_saved_up() {
    let mut policy = Policy::new(1);
    let (busy, idle) = (policy.add(), policy.add());
    let call = |policy: &mut Policy| call(policy, BATCH, 10 * MS);
    for _ in 0..1000 {
        policy.submit(busy);
        assert_eq!(call(&mut policy), busy);
    }
    for _ in 0..10 {
        policy.submit(idle);
        policy.submit(busy);
    }
    let order: Vec<_> = (0..10).map(|_| call(&mut policy)).collect();
    let of_idle = order.iter().filter(|&&id| id == idle).count();
    assert!((5..=6).contains(&of_idle), "they take turns: {order:?}");
}

#[test]
fn a_pipeline_starts_at_once_beside_others() {
    let burner = Load::new(1000 * MS, 8);
    for threads in [1, 2, 8] {
        let loads = [burner, burner, burner, burner, short(MS, 1)];
        let served = simulate(threads, &loads, 1000 * MS);
        assert!(served[4].gap < 15 * MS, "{served:?}");
    }
}

#[test]
fn a_removed_queue_leaves_no_calls() {
    let mut policy = Policy::new(3);
    let (first, second) = (quick(&mut policy), quick(&mut policy));
    for id in [first, second] {
        policy.submit(id);
        policy.submit(id);
    }
    let mut begun: Vec<BegunCall> = (0..3).map(|_| begins(&mut policy)).collect();
    policy.pause(&begun[0]);
    policy.remove(first);
    policy.remove(second);
    // What has begun goes on, to stop at the end of its slice.
    assert!(matches!(policy.take(), Some(Next::Resumes(_))));
    for call in &mut begun {
        assert_eq!(policy.end_slice(call, BATCH, MS), SliceEnd::Abandon);
    }
    assert!(policy.take().is_none());
    for call in begun {
        policy.finish(call, BATCH, &returns(MS));
    }
    assert!(policy.take().is_none());
    assert!(policy.queues.is_empty());
    assert_eq!((policy.running, policy.levels[0].begun), (0, 0));
}

/// One with calls of any length, all of them or only some.
fn any_load() -> impl Strategy<Value = Load> {
    (1u32..100, 6u32..1000, 0u32..20, 1usize..10, 0u32..50).prop_map(
        |(call, other, every, in_flight, pause)| Load {
            every,
            other: other * MS,
            pause: pause * MS,
            ..Load::new(call * MS, in_flight)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_pipeline_with_short_calls_keeps_most_of_its_rate(
        threads in 2usize..9,
        others in proptest::collection::vec(any_load(), 1..12),
    ) {
        let share = share(threads, short(MS / 8, 1), &others);
        prop_assert!(share > 0.5, "{share}");
    }

    #[test]
    fn every_pipeline_gets_its_part(
        threads in 1usize..9,
        calls in proptest::collection::vec(1u32..2000, 1..12),
    ) {
        let loads: Vec<_> = calls.iter().map(|&call| Load::new(call * MS, 16)).collect();
        let time = 20_000 * MS;
        let served = simulate(threads, &loads, time);
        // A slow pipeline runs on one thread at a time, so it may not use all of its share.
        let part = (time * threads as u32 / loads.len() as u32).min(time);
        // The others may run on all threads before they are known to be slow, a slow call may wait
        // until one of another pipeline has ended, and at the end its own turn may be due.
        let longest = calls.iter().copied().max().unwrap() * MS;
        let before = SLOW_CALL * (threads as u32 + 1) + longest * 2;
        for served in &served {
            prop_assert!(served.cpu + before > part, "{served:?}, and not {part:?}");
        }
    }
}
