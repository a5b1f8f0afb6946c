//! Tests of the order of calls, in simulated time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use proptest::prelude::*;

use super::*;

const MS: Duration = Duration::from_millis(1);

/// A pipeline that always has a batch ready.
#[derive(Clone, Copy, Debug)]
struct Load {
    /// CPU time of each call.
    call: Duration,
    /// Batches in flight: calls that may wait or run at the same time.
    in_flight: usize,
}

#[derive(Clone, Copy, Debug, Default)]
struct Served {
    calls: u32,
    cpu: Duration,
    /// The longest time between the ends of two of its calls.
    gap: Duration,
    last_end: Duration,
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
    let mut ends = BinaryHeap::new();
    let mut turns = BTreeMap::new();
    let mut now = Duration::ZERO;
    for number in 0u64.. {
        while let Some(class) = policy.next_class() {
            let turn = policy.take(class).expect("it was the next");
            let load = ids.iter().position(|&id| id == turn.queue).unwrap();
            let key = number * 1000 + turns.len() as u64;
            ends.push(Reverse((now + loads[load].call, key)));
            turns.insert(key, (turn, load));
        }
        check(&policy, &turns, loads, &ids);
        let Some(Reverse((end, key))) = ends.pop() else {
            break;
        };
        now = end;
        if now > time {
            break;
        }
        let (turn, load) = turns.remove(&key).unwrap();
        let served = &mut served[load];
        served.calls += 1;
        served.cpu += loads[load].call;
        served.gap = served.gap.max(now - served.last_end);
        served.last_end = now;
        policy.finish(turn, Purpose::Batch, loads[load].call, false);
        policy.submit(ids[load]);
    }
    served
}

fn check(policy: &Policy, turns: &BTreeMap<u64, (Turn, usize)>, loads: &[Load], ids: &[QueueId]) {
    let slow = |turn: &Turn| turn.class == Class::Slow;
    let running_slow = turns.values().filter(|(turn, _)| slow(turn)).count();
    assert!(turns.len() <= policy.threads, "as many calls as threads");
    assert!(running_slow <= policy.slow_threads());
    for &id in ids {
        let own = |turn: &&Turn| turn.queue == id && slow(turn);
        let running = turns.values().map(|(turn, _)| turn).filter(own).count();
        assert!(running <= 1, "a slow pipeline runs one call at a time");
    }
    // No thread is idle while a quick pipeline waits.
    let idle = policy.threads - turns.len();
    let quick_waits = policy
        .queues
        .values()
        .any(|queue| queue.waiting > 0 && queue.class() == Class::Quick);
    assert!(idle == 0 || !quick_waits, "{loads:?}");
}

#[test]
fn a_quick_pipeline_keeps_a_thread_beside_three_that_use_their_whole_limit() {
    let burner = Load {
        call: 1000 * MS,
        in_flight: 8,
    };
    let quick = Load {
        call: 2 * MS,
        in_flight: 8,
    };
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

#[test]
fn a_new_pipeline_is_slow_until_its_first_call_returned() {
    let mut policy = Policy::new(4);
    let id = policy.add();
    (0..3).for_each(|_| policy.submit(id));
    let turn = policy.take(Class::Slow).expect("the first call");
    assert_eq!(policy.next_class(), None, "one at a time");
    policy.finish(turn, Purpose::Batch, MS, false);
    assert!(!policy.is_slow(id));
    let _first = policy.take(Class::Quick).expect("quick now");
    let _second = policy.take(Class::Quick).expect("and two at a time");
}

#[test]
fn only_a_batch_shows_that_a_pipeline_is_quick() {
    let mut policy = Policy::new(4);
    let id = policy.add();
    let call = |policy: &mut Policy, purpose, cpu| {
        policy.submit(id);
        let class = policy.next_class().unwrap();
        let turn = policy.take(class).unwrap();
        policy.finish(turn, purpose, cpu, false);
    };
    (0..10).for_each(|_| call(&mut policy, Purpose::Preparation, MS));
    (0..3).for_each(|_| policy.submit(id));
    let first = policy.take(Class::Slow).expect("the first batch");
    assert_eq!(policy.next_class(), None, "alone");
    policy.finish(first, Purpose::Batch, MS, false);
    assert_eq!(policy.next_class(), Some(Class::Quick));

    call(&mut policy, Purpose::Preparation, 51 * MS);
    assert!(policy.is_slow(id), "a slow preparation counts");
    (0..10).for_each(|_| call(&mut policy, Purpose::Preparation, MS));
    assert!(policy.is_slow(id), "quick ones do not");
}

#[test]
fn a_time_out_or_a_slow_call_is_forgotten_after_eight_quick_calls() {
    for (cpu, timed_out) in [(51 * MS, false), (MS, true)] {
        let mut policy = Policy::new(2);
        let id = policy.add();
        let mut call = |cpu, timed_out| {
            policy.submit(id);
            let class = policy.next_class().unwrap();
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
    let (busy, idle) = (policy.add(), policy.add());
    let call = |policy: &mut Policy| {
        let class = policy.next_class().unwrap();
        let turn = policy.take(class).unwrap();
        let id = turn.queue;
        policy.finish(turn, Purpose::Batch, 10 * MS, false);
        id
    };
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
fn a_removed_queue_leaves_no_calls() {
    let mut policy = Policy::new(1);
    let id = policy.add();
    policy.submit(id);
    policy.submit(id);
    let turn = policy.take(Class::Slow).unwrap();
    policy.remove(id);
    assert_eq!(policy.next_class(), None);
    policy.finish(turn, Purpose::Batch, MS, false);
    assert_eq!((policy.running, policy.running_slow), (0, 0));
}

fn load() -> impl Strategy<Value = Load> {
    (20u32..1000, 1usize..10).prop_map(|(call, in_flight)| Load {
        call: call * MS,
        in_flight,
    })
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

    #[test]
    fn slow_pipelines_share_equally(
        calls in proptest::collection::vec(51u32..2000, 2..8),
    ) {
        let loads: Vec<_> = calls.iter().map(|&call| Load { call: call * MS, in_flight: 4 }).collect();
        let longest = loads.iter().map(|load| load.call).max().unwrap();
        let served = simulate(2, &loads, 100 * longest);
        let most = served.iter().map(|served| served.cpu).max().unwrap();
        let least = served.iter().map(|served| served.cpu).min().unwrap();
        prop_assert!(most - least <= 3 * longest, "{served:?}");
    }
}
