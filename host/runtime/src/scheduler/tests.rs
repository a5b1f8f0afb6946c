//! Tests of the scheduler with real threads.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::sync_channel;

use super::*;
use crate::limits::QUICK_CALLS;

fn quick(scheduler: &Scheduler) -> Queue {
    scheduler.queue("quick")
}

/// Uses CPU time of its thread until `time` is over.
fn burn(time: Duration) {
    let began = clock::thread_time();
    while clock::thread_time() - began < time {
        std::hint::spin_loop();
    }
}

fn result<T>(ran: Result<Ran<T>, SchedulerError>) -> T {
    ran.unwrap_or_else(|error| panic!("{error}")).result
}

#[tokio::test]
async fn a_panic_is_an_error_and_the_thread_survives() {
    let queue = quick(&Scheduler::new(1).unwrap());
    let panicked = queue.run(|| -> u32 { panic!("as {}", "intended") }).await;
    assert_eq!(
        panicked,
        Err(SchedulerError::Panicked("as intended".into()))
    );
    assert_eq!(result(queue.run(|| 7).await), 7);
}

#[tokio::test]
async fn jobs_of_a_quick_queue_run_beside_each_other() {
    let queue = quick(&Scheduler::new(2).unwrap());
    result(queue.run(|| ()).await);
    let (here, there) = sync_channel(0);
    let sends = queue.run(move || here.send(5));
    let receives = queue.run(move || there.recv());
    assert_eq!(
        (result(sends.await), result(receives.await)),
        (Ok(()), Ok(5))
    );
}

#[tokio::test]
async fn a_job_whose_future_is_dropped_is_not_run() {
    static RAN: AtomicBool = AtomicBool::new(false);
    let queue = quick(&Scheduler::new(1).unwrap());
    let (release, held) = sync_channel::<()>(0);
    let first = queue.run(move || held.recv());
    drop(queue.run(|| RAN.store(true, Ordering::SeqCst)));
    drop(release);
    result(first.await).unwrap_err();
    result(queue.run(|| ()).await);
    assert!(!RAN.load(Ordering::SeqCst));
}

#[tokio::test]
async fn a_job_runs_although_its_queue_was_dropped() {
    let scheduler = Scheduler::new(1).unwrap();
    let waiting = quick(&scheduler).run(|| 3);
    drop(scheduler);
    assert_eq!(result(waiting.await), 3);
}

#[tokio::test]
async fn the_cpu_time_of_a_job_is_reported_and_waiting_does_not_count() {
    let queue = quick(&Scheduler::new(1).unwrap());
    let busy = queue.run(|| burn(Duration::from_millis(80))).await.unwrap();
    assert!(busy.cpu >= Duration::from_millis(80), "{:?}", busy.cpu);
    assert!(queue.is_slow());
    let sleeps = || thread::sleep(Duration::from_millis(80));
    let asleep = queue.run(sleeps).await.unwrap();
    assert!(asleep.cpu < Duration::from_millis(40), "{:?}", asleep.cpu);
}

#[tokio::test]
async fn after_a_time_out_calls_run_one_at_a_time_until_they_are_quick() {
    static BEGUN: AtomicUsize = AtomicUsize::new(0);
    let scheduler = Scheduler::new(2).unwrap();
    let (queue, other) = (quick(&scheduler), quick(&scheduler));
    for queue in [&queue, &other] {
        result(queue.run(|| ()).await);
    }
    assert!(!queue.is_slow());
    result(queue.run(note_time_out).await);
    assert!(queue.is_slow(), "even if the limit was short");
    let (release, held) = sync_channel::<()>(0);
    let held = Arc::new(Mutex::new(held));
    let jobs: Vec<_> = (0..QUICK_CALLS)
        .map(|_| {
            let held = held.clone();
            queue.run(move || {
                BEGUN.fetch_add(1, Ordering::SeqCst);
                held.lock().unwrap().recv()
            })
        })
        .collect();
    for number in 0..100 {
        assert_eq!(result(other.run(move || number).await), number);
    }
    assert!(BEGUN.load(Ordering::SeqCst) <= 1);
    drop(release);
    for job in jobs {
        result(job.await).unwrap_err();
    }
    assert!(!queue.is_slow());
}

/// Loading and configuring is quick, and once made the first batches of a looping component take
/// all threads.
#[tokio::test]
async fn the_first_batches_of_a_prepared_pipeline_run_one_at_a_time() {
    static RUNNING: AtomicUsize = AtomicUsize::new(0);
    let scheduler = Scheduler::new(2).unwrap();
    let healthy = quick(&scheduler);
    result(healthy.run(|| ()).await);
    let burner = scheduler.queue("burner");
    for _ in 0..10 {
        result(burner.prepare(|| ()).await);
    }
    let (release, held) = sync_channel::<()>(0);
    let held = Arc::new(Mutex::new(held));
    let first: Vec<_> = (0..8)
        .map(|_| {
            let held = held.clone();
            burner.run(move || {
                RUNNING.fetch_add(1, Ordering::SeqCst);
                held.lock().unwrap().recv()
            })
        })
        .collect();
    for number in 0..100 {
        assert_eq!(result(healthy.run(move || number).await), number);
    }
    assert!(RUNNING.load(Ordering::SeqCst) <= 1);
    drop(release);
    for job in first {
        result(job.await).unwrap_err();
    }
}

/// A component that never returned in time once stopped all pipelines.
#[tokio::test]
async fn a_pipeline_that_uses_its_whole_limit_leaves_a_thread_to_others() {
    let scheduler = Scheduler::new(2).unwrap();
    let healthy = quick(&scheduler);
    result(healthy.run(|| ()).await);
    let burner = scheduler.queue("burner");
    // It is no longer new, and runs on the threads that all share.
    result(burner.run(note_time_out).await);
    let (release, held) = sync_channel::<()>(0);
    let held = Arc::new(Mutex::new(held));
    // Eight batches in flight, whose calls do not end before the test releases them.
    let stuck: Vec<_> = (0..8)
        .map(|_| {
            let held = held.clone();
            burner.run(move || held.lock().unwrap().recv())
        })
        .collect();
    for number in 0..100 {
        assert_eq!(result(healthy.run(move || number).await), number);
    }
    drop(release);
    for job in stuck {
        result(job.await).unwrap_err();
    }
}

/// A pipeline that started once waited for the slow calls of all others, call by call.
#[tokio::test]
async fn a_new_pipeline_runs_while_a_slow_call_of_another_does() {
    let scheduler = Scheduler::new(2).unwrap();
    let burner = scheduler.queue("burner");
    result(burner.run(note_time_out).await);
    let (running, runs) = sync_channel::<()>(1);
    let (release, held) = sync_channel::<()>(0);
    let stuck = burner.run(move || {
        running.send(()).unwrap();
        held.recv()
    });
    runs.recv().unwrap();
    let new = scheduler.queue("new");
    assert_eq!(result(new.prepare(|| 1).await), 1);
    assert_eq!(result(new.run(|| 2).await), 2);
    assert_eq!(result(new.run(|| 3).await), 3);
    drop(release);
    result(stuck.await).unwrap_err();
}

/// No thread misses a job in a mix of quick and slow queues.
#[tokio::test]
async fn every_job_of_many_queues_is_run() {
    let scheduler = Scheduler::new(3).unwrap();
    let queues: Vec<_> = (0..7).map(|_| quick(&scheduler)).collect();
    let jobs: Vec<_> = (0..3000usize)
        .map(|number| {
            queues[number % 7].run(move || {
                // Some queues become slow from time to time.
                if number % 97 == 0 {
                    note_time_out();
                }
                number
            })
        })
        .collect();
    for (number, job) in jobs.into_iter().enumerate() {
        if number % 11 == 0 {
            drop(job);
        } else {
            assert_eq!(result(job.await), number);
        }
    }
}

#[tokio::test]
async fn a_call_that_turns_out_to_be_slow_gives_its_place_to_others() {
    let scheduler = Scheduler::new(1).unwrap();
    let (proven, other) = (quick(&scheduler), quick(&scheduler));
    for queue in [&proven, &other] {
        result(queue.run(|| ()).await);
    }
    for _ in 0..3 {
        let (release, held) = sync_channel::<()>(0);
        let slow = proven.run(move || {
            hand_over_slow_call();
            let _ = held.recv();
        });
        for _ in 0..100 {
            assert_eq!(result(other.run(|| 7).await), 7);
        }
        assert!(proven.is_slow());
        drop(release);
        result(slow.await);
        // It becomes quick again.
        for _ in 0..QUICK_CALLS {
            result(proven.run(|| ()).await);
        }
        assert!(!proven.is_slow());
    }
}

#[tokio::test]
async fn the_first_call_of_a_new_queue_gives_its_place_to_those_of_others() {
    let scheduler = Scheduler::new(1).unwrap();
    let mut held_up = Vec::new();
    for _ in 0..5 {
        let (release, held) = sync_channel::<()>(0);
        let burning = scheduler.queue("burning");
        let slow = burning.run(move || {
            hand_over_slow_call();
            let _ = held.recv();
        });
        held_up.push((burning, slow, release));
    }
    assert_eq!(result(quick(&scheduler).run(|| 7).await), 7);
    for (_, slow, release) in held_up {
        drop(release);
        result(slow.await);
    }
}
