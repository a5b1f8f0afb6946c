//! Tests of the order of calls, in simulated time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use proptest::prelude::*;

use super::*;

const MS: Duration = Duration::from_millis(1);

/// A pipeline that always has a batch ready.
#[derive(Clone, Copy, Debug)]
struct Load {
    /// CPU time of each call …
    call: Duration,
    /// … but for every so many, if not 0, …
    every: u32,
    /// … which take this long.
    other: Duration,
    /// Batches in flight: calls that may wait or run at the same time.
    in_flight: usize,
    /// Time from the end of a call to the next one of its batch.
    pause: Duration,
}

impl Load {
    fn new(call: Duration, in_flight: usize) -> Load {
        Load {
            call,
            every: 0,
            other: Duration::ZERO,
            in_flight,
            pause: Duration::ZERO,
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
    began: u32,
    calls: u32,
    cpu: Duration,
    /// The longest time between the ends of two of its calls.
    gap: Duration,
    last_end: Duration,
}

fn next_class(policy: &Policy) -> Option<Class> {
    policy.next_classes().next()
}

/// Runs the next call, which takes this long.
fn call(policy: &mut Policy, purpose: Purpose, cpu: Duration) -> QueueId {
    let class = next_class(policy).expect("a call waits");
    let turn = policy.take(class).expect("it was the next");
    let id = turn.queue;
    policy.finish(turn, purpose, cpu, false);
    id
}

/// A queue that has shown that it is quick.
fn quick(policy: &mut Policy) -> QueueId {
    let id = policy.add();
    policy.submit(id);
    assert_eq!(call(policy, Purpose::Batch, MS), id);
    id
}

/// What happens to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    IsSlow,
    Returns(Duration),
    /// The next one of this load.
    IsSubmitted(usize),
}

/// Runs the loads on simulated threads, checks every step, and returns the service that each load
/// got.
fn simulate(threads: usize, loads: &[Load], time: Duration) -> Vec<Served> {
    let mut policy = Policy::new(threads);
    let ids: Vec<_> = loads.iter().map(|_| policy.add()).collect();
    for (&id, load) in ids.iter().zip(loads) {
        (0..load.in_flight).for_each(|_| policy.submit(id));
    }
    let mut served = vec![Served::default(); loads.len()];
    let mut steps = BinaryHeap::new();
    let mut turns = BTreeMap::new();
    let mut now = Duration::ZERO;
    for number in 0u64.. {
        while let Some(class) = next_class(&policy) {
            let turn = policy.take(class).expect("it was the next");
            let load = ids.iter().position(|&id| id == turn.queue).unwrap();
            let key = number * 1000 + turns.len() as u64;
            let call = loads[load].call(served[load].began);
            served[load].began += 1;
            if call > SLOW_CALL {
                steps.push(Reverse((now + SLOW_CALL, key, Event::IsSlow)));
            }
            steps.push(Reverse((now + call, key, Event::Returns(call))));
            turns.insert(key, (turn, load));
        }
        check(&policy, &turns, loads, &ids);
        let Some(Reverse((at, key, event))) = steps.pop() else {
            break;
        };
        now = at;
        if now > time {
            break;
        }
        match event {
            Event::IsSlow => {
                let (turn, _) = turns.get_mut(&key).unwrap();
                if policy.may_hand_over(turn) {
                    policy.hand_over(turn, Purpose::Batch);
                }
            }
            Event::Returns(call) => {
                let (turn, load) = turns.remove(&key).unwrap();
                let served = &mut served[load];
                served.calls += 1;
                served.cpu += call;
                served.gap = served.gap.max(now - served.last_end);
                served.last_end = now;
                policy.finish(turn, Purpose::Batch, call, false);
                let pause = loads[load].pause;
                if pause.is_zero() {
                    policy.submit(ids[load]);
                } else {
                    steps.push(Reverse((now + pause, key, Event::IsSubmitted(load))));
                }
            }
            Event::IsSubmitted(load) => policy.submit(ids[load]),
        }
    }
    served
}

fn check(policy: &Policy, turns: &BTreeMap<u64, (Turn, usize)>, loads: &[Load], ids: &[QueueId]) {
    let running = |class| {
        let has_place = |turn: &Turn| turn.class == class && !turn.handed_over;
        turns.values().filter(|(turn, _)| has_place(turn)).count()
    };
    let quick = running(Class::Quick);
    assert!(quick <= policy.threads, "as many calls as threads");
    assert!(running(Class::Slow) <= policy.slow_threads());
    assert!(running(Class::New) <= 1, "one call of all new pipelines");
    // Where some calls of a pipeline are quick, several may turn out to be slow at once.
    let always_slow = loads.iter().zip(ids).filter(|(load, _)| load.every == 0);
    for (_, &id) in always_slow {
        let own =
            |turn: &&Turn| turn.queue == id && (turn.handed_over || turn.class != Class::Quick);
        let running = turns.values().map(|(turn, _)| turn).filter(own).count();
        assert!(
            running <= 1,
            "a slow or new pipeline runs one call at a time"
        );
    }
    let long = |(turn, _): &&(Turn, usize)| turn.long && !turn.handed_over;
    assert_eq!(turns.values().filter(long).count(), policy.running_long);
    // No thread is idle while a quick pipeline waits, unless it has long calls.
    let idle = policy.threads - quick;
    let waits = |class| {
        let mut queues = policy.queues.values();
        queues.any(|queue| {
            queue.waiting > 0
                && queue.class() == class
                && (!queue.has_long_calls() || policy.running_long < policy.long_threads())
        })
    };
    assert!(idle == 0 || !waits(Class::Quick), "{loads:?}");
    // Nor are those of slow and of new pipelines.
    let slow_waits = policy
        .queues
        .values()
        .any(|queue| queue.waiting > 0 && queue.class() == Class::Slow && queue.running == 0);
    assert!(
        running(Class::Slow) == policy.slow_threads() || !slow_waits,
        "{loads:?}"
    );
    assert!(running(Class::New) == 1 || !waits(Class::New), "{loads:?}");
}

#[test]
fn a_quick_pipeline_keeps_a_thread_beside_three_that_use_their_whole_limit() {
    let burner = Load::new(1000 * MS, 8);
    let quick = Load::new(2 * MS, 8);
    let time = 60_000 * MS;
    for threads in [2, 3, 8] {
        let served = simulate(threads, &[burner, burner, burner, quick], time);
        assert!(
            served[3].cpu >= time - 4000 * MS,
            "{threads} threads: {served:?}"
        );
        // The others share the rest, and all get some of it.
        for burner in &served[..3] {
            assert!(burner.calls >= 18, "{threads} threads: {served:?}");
        }
    }
}

/// What a pipeline with short calls gets beside these others, as a share of what it gets alone. A
/// batch of it passes through several calls, one after another.
fn share_of_short_calls(threads: usize, others: &[Load]) -> f64 {
    let short = Load {
        pause: 2 * MS,
        ..Load::new(MS / 2, 2)
    };
    let time = 2000 * MS;
    let loads: Vec<Load> = [short].into_iter().chain(others.iter().copied()).collect();
    let alone = simulate(threads, &loads[..1], time)[0].calls;
    let beside = simulate(threads, &loads, time)[0].calls;
    f64::from(beside) / f64::from(alone)
}

/// One filter of 37 ms once took three quarters of a healthy pipeline's rate, and six took more.
#[test]
fn calls_just_below_the_limit_of_slow_ones_leave_a_thread_to_short_calls() {
    for threads in [2, 3, 8] {
        for call in [6 * MS, 15 * MS, 37 * MS, 49 * MS, 51 * MS] {
            for pipelines in [1, 6, 20] {
                let share = share_of_short_calls(threads, &vec![Load::new(call, 8); pipelines]);
                assert!(
                    share > 0.8,
                    "{share} beside {pipelines} of {call:?}, {threads} threads"
                );
            }
        }
    }
}

/// Eight quick calls once made up for a slow one.
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
                let share = share_of_short_calls(2, &vec![alternates; pipelines]);
                assert!(
                    share > 0.5,
                    "{share} beside {pipelines} with every {every}th call of {other:?}"
                );
            }
        }
    }
}

#[test]
fn long_calls_run_on_all_threads_while_nobody_has_short_ones() {
    let time = 10_000 * MS;
    let long = Load::new(20 * MS, 8);
    for loads in [vec![long], vec![long; 3]] {
        let served = simulate(4, &loads, time);
        let cpu: Duration = served.iter().map(|served| served.cpu).sum();
        assert!(cpu > 4 * time - 500 * MS, "{served:?}");
    }
    // A pipeline with a batch now and then does not take half of the threads from them.
    let rare = Load {
        pause: 1000 * MS,
        ..Load::new(MS, 1)
    };
    let served = simulate(4, &[rare, long], time);
    assert!(served[1].cpu > time * 18 / 5, "{served:?}");
}

#[test]
fn a_pipeline_has_long_calls_until_its_short_ones_took_eight_times_as_long() {
    let mut policy = Policy::new(2);
    let id = quick(&mut policy);
    let mut has_long_calls = |cpu| {
        policy.submit(id);
        call(&mut policy, Purpose::Batch, cpu);
        policy.queues[&id].has_long_calls()
    };
    assert!(!has_long_calls(5 * MS));
    assert!(has_long_calls(6 * MS));
    (0..47).for_each(|_| assert!(has_long_calls(MS)));
    assert!(!has_long_calls(MS));
    // What a slow call takes beyond 50 ms keeps nobody waiting.
    assert!(has_long_calls(10_000 * MS));
    (0..399).for_each(|_| assert!(has_long_calls(MS)));
    assert!(!has_long_calls(MS));
}

#[test]
fn a_new_pipeline_runs_one_call_at_a_time_until_its_first_call_returned() {
    let mut policy = Policy::new(4);
    let id = policy.add();
    (0..3).for_each(|_| policy.submit(id));
    let turn = policy.take(Class::New).expect("the first call");
    assert_eq!(next_class(&policy), None, "one at a time");
    policy.finish(turn, Purpose::Batch, MS, false);
    assert!(!policy.is_slow(id));
    let _first = policy.take(Class::Quick).expect("quick now");
    let _second = policy.take(Class::Quick).expect("and two at a time");
}

#[test]
fn only_a_batch_shows_that_a_pipeline_is_quick() {
    let mut policy = Policy::new(4);
    let id = policy.add();
    let prepare = |policy: &mut Policy, cpu| {
        policy.submit(id);
        call(policy, Purpose::Preparation, cpu);
    };
    (0..10).for_each(|_| prepare(&mut policy, MS));
    // Nor does one that takes long make it slow.
    prepare(&mut policy, 10_000 * MS);
    (0..3).for_each(|_| policy.submit(id));
    let first = policy.take(Class::New).expect("the first batch");
    assert_eq!(next_class(&policy), None, "alone");
    policy.finish(first, Purpose::Batch, MS, false);
    assert_eq!(next_class(&policy), Some(Class::Quick));
}

#[test]
fn a_new_pipeline_that_is_slow_to_prepare_runs_one_call_at_a_time() {
    let mut policy = Policy::new(4);
    let id = policy.add();
    (0..2).for_each(|_| policy.submit(id));
    let mut turn = policy.take(Class::New).expect("the first call");
    policy.hand_over(&mut turn, Purpose::Preparation);
    assert_eq!(next_class(&policy), None, "its next call waits");
    policy.finish(turn, Purpose::Preparation, 1000 * MS, false);
    assert_eq!(next_class(&policy), Some(Class::New));
}

#[test]
fn a_time_out_or_a_slow_call_is_forgotten_after_eight_quick_calls() {
    for (cpu, timed_out) in [(51 * MS, false), (MS, true)] {
        let mut policy = Policy::new(2);
        let id = policy.add();
        let mut call = |cpu, timed_out| {
            policy.submit(id);
            let class = next_class(&policy).unwrap();
            let turn = policy.take(class).unwrap();
            policy.finish(turn, Purpose::Batch, cpu, timed_out);
            policy.is_slow(id)
        };
        assert!(!call(50 * MS, false));
        assert!(call(cpu, timed_out));
        let slow: Vec<bool> = (0..9).map(|_| call(MS, false)).collect();
        assert_eq!(slow, [[true; 7].as_slice(), &[false; 2]].concat());
        assert!(call(cpu, timed_out));
        (0..7).for_each(|_| assert!(call(MS, false)));
        assert!(call(cpu, timed_out), "the count starts again");
        assert!(call(MS, false));
    }
}

#[test]
fn idle_time_is_not_saved_up() {
    let mut policy = Policy::new(1);
    let (busy, idle) = (quick(&mut policy), quick(&mut policy));
    let call = |policy: &mut Policy| call(policy, Purpose::Batch, 10 * MS);
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
    assert_eq!(of_idle, 5, "they take turns: {order:?}");
}

#[test]
fn a_new_pipeline_does_not_wait_for_the_slow_calls_of_others() {
    let mut policy = Policy::new(2);
    let slow: Vec<_> = (0..6).map(|_| policy.add()).collect();
    for &id in &slow {
        policy.submit(id);
        call(&mut policy, Purpose::Batch, 10_000 * MS);
    }
    for &id in &slow {
        (0..8).for_each(|_| policy.submit(id));
    }
    let _slow = policy.take(Class::Slow).expect("a slow call");
    let healthy = policy.add();
    policy.submit(healthy);
    (0..4).for_each(|_| {
        assert_eq!(call(&mut policy, Purpose::Preparation, MS), healthy);
        policy.submit(healthy);
    });
    assert_eq!(call(&mut policy, Purpose::Batch, MS), healthy);
    policy.submit(healthy);
    assert_eq!(next_class(&policy), Some(Class::Quick));
}

#[test]
fn a_new_pipeline_starts_while_the_first_batches_of_others_run() {
    let mut policy = Policy::new(2);
    for _ in 0..6 {
        let looping = policy.add();
        policy.submit(looping);
    }
    let healthy = policy.add();
    let mut looping = Vec::new();
    // Its preparations and its first batch.
    for purpose in [Purpose::Preparation, Purpose::Preparation, Purpose::Batch] {
        policy.submit(healthy);
        let turn = loop {
            let mut turn = policy.take(Class::New).expect("it does not wait");
            if turn.queue == healthy {
                break turn;
            }
            assert!(policy.take(Class::New).is_none(), "one at a time");
            policy.hand_over(&mut turn, Purpose::Batch);
            looping.push(turn);
        };
        policy.finish(turn, purpose, MS, false);
    }
    assert_eq!(
        looping.len(),
        6,
        "each handed over its place, and none has returned"
    );
    policy.submit(healthy);
    assert_eq!(next_class(&policy), Some(Class::Quick));
}

#[test]
fn a_pipeline_that_is_no_longer_new_takes_turns_with_the_others() {
    let mut policy = Policy::new(1);
    let busy = quick(&mut policy);
    let new = policy.add();
    policy.submit(new);
    let turn = policy.take(Class::New).unwrap();
    for _ in 0..1000 {
        policy.submit(busy);
        assert_eq!(call(&mut policy, Purpose::Batch, 10 * MS), busy);
    }
    policy.submit(busy);
    policy.finish(turn, Purpose::Batch, MS, false);
    (0..10).for_each(|_| policy.submit(new));
    (0..10).for_each(|_| policy.submit(busy));
    let order: Vec<_> = (0..10)
        .map(|_| call(&mut policy, Purpose::Batch, 10 * MS))
        .collect();
    let of_new = order.iter().filter(|&&id| id == new).count();
    assert_eq!(of_new, 5, "{order:?}");
}

#[test]
fn a_removed_queue_leaves_no_calls() {
    let mut policy = Policy::new(1);
    let known = quick(&mut policy);
    let new = policy.add();
    for id in [known, new] {
        policy.submit(id);
        policy.submit(id);
    }
    let turns = [Class::Quick, Class::New].map(|class| policy.take(class).unwrap());
    policy.remove(known);
    policy.remove(new);
    assert_eq!(next_class(&policy), None);
    for turn in turns {
        policy.finish(turn, Purpose::Batch, MS, false);
    }
    assert_eq!((policy.running_quick, policy.running_slow), (0, 0));
    assert!(!policy.running_new);
}

fn load() -> impl Strategy<Value = Load> {
    (20u32..1000, 1usize..10).prop_map(|(call, in_flight)| Load::new(call * MS, in_flight))
}

/// One with long or slow calls, all of them or only some.
fn any_load() -> impl Strategy<Value = Load> {
    let (call, other) = (1u32..100, 6u32..1000);
    (call, other, 0u32..20, 1usize..10, 0u32..50).prop_map(
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
    fn every_queue_gets_its_turn(
        threads in 2usize..9,
        loads in proptest::collection::vec(load(), 1..12),
    ) {
        let longest = loads.iter().map(|load| load.call).max().unwrap();
        let served = simulate(threads, &loads, 30 * longest);
        // Until a pipeline's next call, each other pipeline gets as much CPU time as the pipeline's
        // last call took, and may exceed that by one call.
        let longest_wait = 2 * (loads.len() as u32 + 1) * longest;
        for (load, served) in loads.iter().zip(&served) {
            prop_assert!(served.calls > 0, "{load:?} {served:?}");
            prop_assert!(served.gap <= longest_wait, "{load:?} {served:?} {longest:?}");
        }
    }

    /// Whatever the others do.
    #[test]
    fn a_pipeline_with_short_calls_keeps_most_of_its_rate(
        threads in 2usize..9,
        others in proptest::collection::vec(any_load(), 1..12),
    ) {
        let share = share_of_short_calls(threads, &others);
        prop_assert!(share > 0.5, "{share}");
    }

    #[test]
    fn slow_pipelines_share_equally(
        calls in proptest::collection::vec(51u32..2000, 2..8),
    ) {
        let loads: Vec<_> = calls.iter().map(|&call| Load::new(call * MS, 4)).collect();
        let longest = loads.iter().map(|load| load.call).max().unwrap();
        let served = simulate(2, &loads, 1000 * longest);
        let most = served.iter().map(|served| served.cpu).max().unwrap();
        let least = served.iter().map(|served| served.cpu).min().unwrap();
        // While the first calls of some run one after the other, the others go on.
        let first_calls = loads.len() as u32 * longest;
        prop_assert!(most - least <= first_calls + 3 * longest, "{served:?}");
    }
}
