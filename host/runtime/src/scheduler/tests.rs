//! Tests of the scheduler with real threads.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::sync_channel;

use super::*;
use crate::limits::{SHORTER_CALLS, SLICE, SLOW_CALL};

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
    let jobs: Vec<_> = (0..SHORTER_CALLS)
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

/// Uses CPU time, slice by slice, until it is released.
fn burn_slices(released: &AtomicBool) {
    while !released.load(Ordering::SeqCst) {
        burn(SLICE);
        end_slice();
    }
}

/// Calls that never end still leave threads to a pipeline with short ones.
#[tokio::test]
async fn calls_pause_for_those_of_others() {
    let released = Arc::new(AtomicBool::new(false));
    for threads in [1, 2] {
        released.store(false, Ordering::SeqCst);
        let scheduler = Scheduler::new(threads).unwrap();
        let burning: Vec<_> = (0..5)
            .map(|_| {
                let queue = scheduler.queue("burning");
                let jobs = [(); 3].map(|()| {
                    let released = released.clone();
                    queue.run(move || burn_slices(&released))
                });
                (queue, jobs)
            })
            .collect();
        let quick = quick(&scheduler);
        for number in 0..100 {
            assert_eq!(result(quick.run(move || number).await), number);
        }
        released.store(true, Ordering::SeqCst);
        for (_, jobs) in burning {
            for job in jobs {
                result(job.await);
            }
        }
    }
}

/// Threads that were started by others were once lower still.
#[tokio::test]
async fn all_threads_have_the_same_priority() {
    let scheduler = Scheduler::new(1).unwrap();
    let released = Arc::new(AtomicBool::new(false));
    let (started, starts) = sync_channel(5);
    let jobs: Vec<_> = (0..5)
        .map(|_| {
            let (released, started) = (released.clone(), started.clone());
            scheduler.queue("burning").run(move || {
                started.send(()).unwrap();
                burn_slices(&released);
                getpriority_process(None).unwrap()
            })
        })
        .collect();
    // All have begun, so each has a thread of its own.
    (0..5).for_each(|_| starts.recv().unwrap());
    released.store(true, Ordering::SeqCst);
    let own = getpriority_process(None).unwrap();
    for job in jobs {
        assert_eq!(result(job.await), (own + COMPONENT_NICE).min(19));
    }
}

/// They once went on, and took their share of the threads from others.
#[tokio::test]
async fn calls_stop_when_their_pipeline_ends() {
    let scheduler = Scheduler::new(1).unwrap();
    let (started, starts) = sync_channel(5);
    let (stopped, stops) = sync_channel(5);
    let burning: Vec<_> = (0..5)
        .map(|_| {
            let (started, stopped) = (started.clone(), stopped.clone());
            scheduler.queue("burning").run(move || {
                started.send(()).unwrap();
                while end_slice() == AfterSlice::GoesOn {
                    burn(SLICE);
                }
                stopped.send(()).unwrap();
            })
        })
        .collect();
    (0..5).for_each(|_| starts.recv().unwrap());
    drop(burning);
    drop(scheduler);
    (0..5).for_each(|_| stops.recv().unwrap());
}

/// A component that never returned in time once stopped all pipelines.
#[tokio::test]
async fn a_pipeline_that_uses_its_whole_limit_leaves_a_thread_to_others() {
    let scheduler = Scheduler::new(2).unwrap();
    let healthy = quick(&scheduler);
    result(healthy.run(|| ()).await);
    let burner = scheduler.queue("burner");
    // Now it is slow, and runs one call at a time.
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
async fn a_call_that_turns_out_to_be_slow_makes_its_pipeline_slow_at_once() {
    let scheduler = Scheduler::new(2).unwrap();
    let queue = quick(&scheduler);
    let (noted, is_noted) = sync_channel(0);
    let (release, held) = sync_channel::<()>(0);
    let slow = queue.run(move || {
        assert!(!runs_slow_call());
        burn(SLOW_CALL);
        assert_eq!(end_slice(), AfterSlice::GoesOn);
        assert!(runs_slow_call());
        noted.send(()).unwrap();
        let _ = held.recv();
    });
    is_noted.recv().unwrap();
    assert!(queue.is_slow());
    drop(release);
    result(slow.await);
}

/// Compressing once had threads of its own, and took the time of all components.
#[tokio::test]
async fn work_of_the_host_counts_as_cpu_time_of_its_pipeline() {
    let scheduler = Scheduler::new(1).unwrap();
    let (busy, other) = (quick(&scheduler), quick(&scheduler));
    let steps = Arc::new(Mutex::new(0));
    let (counted, is_counted) = (steps.clone(), sync_channel(0));
    let (begins, begun) = is_counted;
    let step = move || {
        let mut steps = counted.lock().unwrap();
        *steps += 1;
        if *steps == 1 {
            begins.send(()).unwrap();
        }
        drop(steps);
        burn(Duration::from_millis(1));
        *counted.lock().unwrap() < 400
    };
    let working = busy.clone();
    let work = tokio::spawn(async move { working.work(step).await });
    tokio::task::yield_now().await;
    begun.recv().unwrap();
    // Each of these needs a turn, although the work of the other goes on.
    for number in 0..20 {
        assert_eq!(result(other.run(move || number).await), number);
    }
    assert!(
        *steps.lock().unwrap() < 400,
        "they did not wait for all of it"
    );
    work.await.unwrap().unwrap();
    assert_eq!(*steps.lock().unwrap(), 400);
    assert!(!busy.is_slow(), "it says nothing about the calls");
}

/// It is what is left to do of a batch.
#[tokio::test]
async fn work_of_the_host_goes_before_the_calls_of_the_same_pipeline_that_wait() {
    let scheduler = Scheduler::new(1).unwrap();
    let queue = scheduler.queue("p");
    let (release, held) = sync_channel::<()>(0);
    let first = queue.run(move || held.recv());
    let order = Arc::new(Mutex::new(Vec::new()));
    let note = |what: &'static str| {
        let order = order.clone();
        move || order.lock().unwrap().push(what)
    };
    let second = queue.run(note("call"));
    let work = {
        let (queue, note) = (queue.clone(), note("work"));
        tokio::spawn(async move {
            let work = queue.work(move || {
                note();
                false
            });
            work.await
        })
    };
    tokio::task::yield_now().await;
    release.send(()).unwrap();
    result(first.await).unwrap();
    result(second.await);
    work.await.unwrap().unwrap();
    assert_eq!(*order.lock().unwrap(), ["work", "call"]);
}
