//! Tests of calls that need much memory, in simulated time: the policy together with the memory
//! that all instances share.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use wasmtime::ResourceLimiter;

use lockgate_model::contract::Shortage;

use super::*;
use crate::budget::{InstanceMemory, Room};
use crate::idle::IdleInstances;
use crate::meter::{LimitHit, Meter};

const MIB: usize = 1 << 20;
const SECOND: Duration = Duration::from_secs(1);

/// A pipeline that always has batches ready.
#[derive(Clone, Copy, Debug)]
struct Load {
    /// CPU time of a call.
    call: Duration,
    /// What a call takes at its beginning, in MiB.
    memory: usize,
    /// 0 once there are no more batches.
    in_flight: usize,
    /// Its instances are kept from one call to the next.
    reuse: bool,
    /// All of them take the same time and memory. Its calls are of each by turns.
    stages: u32,
}

/// Time from the end of a call to the next one of its batch.
const PAUSE: Duration = Duration::from_millis(2);

const QUICK: Load = Load {
    call: MS,
    memory: 100,
    in_flight: 1,
    reuse: false,
    stages: 1,
};

const HOG: Load = Load {
    call: Duration::from_secs(4),
    memory: 290,
    in_flight: 4,
    reuse: false,
    stages: 1,
};

/// It fits beside the others.
const BURNER: Load = Load {
    call: Duration::from_secs(4),
    memory: 1,
    in_flight: 4,
    reuse: false,
    stages: 1,
};

#[derive(Clone, Copy, Debug, Default)]
struct Served {
    calls: u32,
    refused: u32,
    cpu: Duration,
}

struct Call {
    begun: BegunCall,
    load: usize,
    stage: u32,
    done: Duration,
    /// What it does next, while it runs.
    step: Duration,
    meter: Meter,
    is_slow: bool,
    shortage: Option<Shortage>,
    /// Until it has been made.
    room: Option<Room>,
}

impl Call {
    /// Remembers what kept it from growing, or from being slow.
    fn note(&mut self) {
        if let Some(LimitHit::Shared(shortage)) = self.meter.take_limit() {
            self.shortage = Some(shortage);
        }
    }

    fn turns_slow(&mut self) {
        if !self.is_slow && (self.begun.is_slow || self.done >= SLOW_CALL) {
            self.is_slow = true;
            let _ = self.meter.enter_slow();
            self.note();
        }
    }
}

type Wait = Pin<Box<dyn Future<Output = Room>>>;

struct Simulation {
    memory: Arc<InstanceMemory>,
    policy: Policy,
    loads: Vec<Load>,
    queues: Vec<QueueId>,
    idle: Vec<IdleInstances<Meter>>,
    /// For each load the calls that wait for a thread, by their stages.
    jobs: Vec<VecDeque<(u32, Option<Room>)>>,
    calls: BTreeMap<CallId, Call>,
    /// The calls that wait for memory, by their loads and stages.
    waiting: Vec<(usize, u32, Wait)>,
    /// For each load the stage of its next batch.
    next_stages: Vec<u32>,
    served: Vec<Served>,
    events: BinaryHeap<Reverse<(Duration, u64, Event)>>,
    now: Duration,
    number: u64,
}

impl Simulation {
    /// `memory`: of all instances, in MiB.
    fn new(threads: usize, memory: usize, loads: &[Load]) -> Simulation {
        let memory = InstanceMemory::new(memory * MIB);
        let mut policy = Policy::new(threads);
        let mut simulation = Simulation {
            queues: loads.iter().map(|_| policy.add()).collect(),
            idle: (loads.iter())
                .map(|_| IdleInstances::new(memory.clone()))
                .collect(),
            jobs: loads.iter().map(|_| VecDeque::new()).collect(),
            served: vec![Served::default(); loads.len()],
            next_stages: vec![0; loads.len()],
            loads: loads.to_vec(),
            memory,
            policy,
            calls: BTreeMap::new(),
            waiting: Vec::new(),
            events: BinaryHeap::new(),
            now: Duration::ZERO,
            number: 0,
        };
        for (nth, load) in loads.iter().enumerate() {
            (0..load.in_flight).for_each(|_| simulation.submit_next(nth));
        }
        simulation
    }

    async fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            while let Some(next) = self.policy.take() {
                match next {
                    Next::Begins(begun) => self.begin(begun),
                    Next::Resumes(id) => self.go_on(id),
                }
            }
            // Calls that wait for memory may wait for a time.
            let latest = end.min(self.now + 100 * MS);
            let next = self.events.peek().map(|Reverse((at, ..))| *at);
            let at = next.map_or(latest, |next| next.min(latest));
            let event = (next == Some(at)).then(|| self.events.pop()).flatten();
            tokio::time::advance(at - self.now).await;
            self.now = at;
            match event.map(|Reverse((.., event))| event) {
                Some(Event::IsSubmitted(load)) if self.loads[load].in_flight == 0 => {}
                Some(Event::IsSubmitted(load)) => self.submit_next(load),
                Some(Event::Step(id)) => self.step(id),
                None if self.now == end => break,
                None => {}
            }
            self.wake();
        }
    }

    fn submit_next(&mut self, load: usize) {
        let stage = self.next_stages[load];
        self.next_stages[load] = (stage + 1) % self.loads[load].stages;
        self.submit(load, stage, None);
    }

    fn submit(&mut self, load: usize, stage: u32, room: Option<Room>) {
        self.jobs[load].push_back((stage, room));
        self.policy.submit(self.queues[load]);
    }

    fn schedule(&mut self, after: Duration, event: Event) {
        self.number += 1;
        (self.events).push(Reverse((self.now + after, self.number, event)));
    }

    fn begin(&mut self, begun: BegunCall) {
        let load = (self.queues.iter()).position(|&id| id == begun.queue);
        let load = load.expect("it is of a load");
        let (stage, room) = self.jobs[load].pop_front().expect("it was submitted");
        let (idle, shortage) = match self.idle[load].take() {
            Ok(idle) => (idle, None),
            Err(shortage) => (None, Some(shortage)),
        };
        let meter = idle.unwrap_or_else(|| {
            let pipeline = load.to_string().into();
            let stage = stage.to_string().into();
            Meter::of(pipeline, stage, self.memory.clone(), usize::MAX)
        });
        let id = begun.id;
        let mut call = Call {
            begun,
            load,
            stage,
            done: Duration::ZERO,
            step: Duration::ZERO,
            meter,
            is_slow: false,
            shortage,
            room,
        };
        call.meter.begin();
        if call.shortage.is_none() {
            call.turns_slow();
        }
        let (held, wants) = (call.meter.held(), self.loads[load].memory * MIB);
        if call.shortage.is_none() && held < wants {
            let _ = call.meter.memory_growing(held, wants, None);
            call.note();
        }
        self.calls.insert(id, call);
        self.next_step(id);
    }

    fn next_step(&mut self, id: CallId) {
        let call = self.calls.get_mut(&id).expect("it has begun");
        call.step = TICK.min(self.loads[call.load].call - call.done);
        let step = call.step;
        self.schedule(step, Event::Step(id));
    }

    fn step(&mut self, id: CallId) {
        let call = self.calls.get_mut(&id).expect("it has begun");
        let step = call.step;
        call.done += step;
        self.served[call.load].cpu += step;
        let ends = call.done >= self.loads[call.load].call || call.shortage.is_some();
        if ends {
            self.end(id, step, false);
            return;
        }
        match self.policy.end_slice(&mut call.begun, BATCH, step) {
            SliceEnd::GoOn => self.go_on(id),
            SliceEnd::Pause => self.policy.pause(&call.begun),
            SliceEnd::Postpone => self.end(id, Duration::ZERO, true),
            SliceEnd::Abandon => panic!("no queue is removed"),
        }
    }

    fn go_on(&mut self, id: CallId) {
        let call = self.calls.get_mut(&id).expect("it has begun");
        call.turns_slow();
        match call.shortage {
            Some(_) => self.end(id, Duration::ZERO, false),
            None => self.next_step(id),
        }
    }

    fn end(&mut self, id: CallId, last_slice: Duration, is_postponed: bool) {
        let Call {
            begun,
            load,
            stage,
            done,
            mut meter,
            shortage,
            room,
            ..
        } = self.calls.remove(&id).expect("it has begun");
        meter.end();
        let finished = Finished {
            last_slice,
            refused: shortage.is_some(),
            ..returns(done)
        };
        let keeps = self.loads[load].reuse && shortage.is_none() && !is_postponed;
        match keeps {
            true => {
                let holder = meter.holder().clone();
                self.idle[load].put(meter, holder, self.policy.threads);
            }
            false => drop(meter),
        }
        self.policy.finish(begun, BATCH, &finished);
        drop(room);
        if let Some(shortage) = shortage {
            self.served[load].refused += 1;
            let memory = self.memory.clone();
            let room = Box::pin(async move { memory.room_for(shortage).await });
            self.waiting.push((load, stage, room));
        } else if is_postponed {
            self.submit(load, stage, None);
        } else {
            self.served[load].calls += 1;
            self.schedule(PAUSE, Event::IsSubmitted(load));
        }
    }

    /// Submits the calls that need not wait any longer.
    fn wake(&mut self) {
        let mut found = Vec::new();
        self.waiting.retain_mut(|(load, stage, room)| {
            match room.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(room) => {
                    found.push((*load, *stage, room));
                    false
                }
                Poll::Pending => true,
            }
        });
        for (load, stage, room) in found {
            self.submit(load, stage, Some(room));
        }
    }
}

/// What each load gets beside the others, as a share of what it gets alone.
async fn shares(memory: usize, loads: &[Load], time: Duration) -> Vec<f64> {
    let mut together = Simulation::new(2, memory, loads);
    together.run(time).await;
    let mut shares = Vec::new();
    for (load, beside) in loads.iter().zip(&together.served) {
        let mut alone = Simulation::new(2, memory, &[*load]);
        alone.run(time / 4).await;
        let alone = alone.served[0].calls * 4;
        shares.push(f64::from(beside.calls) / f64::from(alone));
    }
    shares
}

/// They took turns call by call, so the quick one had a call of a millisecond for each of seconds:
/// a hundredth of its rate.
#[tokio::test(start_paused = true)]
async fn quick_calls_get_half_of_the_time_beside_slow_ones_that_do_not_fit() {
    for (memory, quick, hog) in [(512, 100, 290), (256, 70, 128), (512, 300, 250)] {
        for (seconds, hogs) in [(1, 1), (4, 1), (2, 3)] {
            let quick = Load {
                memory: quick,
                ..QUICK
            };
            let hog = Load {
                call: seconds * SECOND,
                memory: hog,
                ..HOG
            };
            let mut loads = vec![quick];
            loads.extend(vec![hog; hogs]);
            let shares = shares(memory, &loads, 48 * SECOND).await;
            let all: f64 = shares[1..].iter().sum();
            assert!(
                shares[0] > 0.4 && all > 0.4,
                "{quick:?} beside {hogs} of {hog:?}: {shares:.2?}"
            );
        }
    }
}

/// While the slow call waited for a thread, what was promised to it was kept from the quick one.
#[tokio::test(start_paused = true)]
async fn quick_calls_get_half_of_the_time_beside_slow_ones_that_wait_for_threads() {
    for loads in [
        vec![QUICK, HOG, BURNER, BURNER, BURNER],
        vec![QUICK, HOG, BURNER, HOG, BURNER, HOG, BURNER],
    ] {
        let shares = shares(512, &loads, 160 * SECOND).await;
        assert!(shares[0] > 0.4, "{shares:.2?}");
        assert!(
            shares[1..].iter().all(|&share| share > 0.05),
            "{shares:.2?}"
        );
    }
}

/// A call that was promised its memory was refused for the claim of the next one.
#[tokio::test(start_paused = true)]
async fn slow_calls_that_need_much_take_turns_beside_a_quick_one() {
    let loads = [QUICK, HOG, HOG, HOG];
    let shares = shares(512, &loads, 200 * SECOND).await;
    let hogs = &shares[1..];
    assert!(hogs.iter().all(|&share| share > 0.12), "{shares:.2?}");
}

/// What quick calls keep from each other is not time that slow ones owe them.
#[tokio::test(start_paused = true)]
async fn slow_calls_get_half_of_the_time_beside_many_quick_ones() {
    for quick in [100, 200] {
        let quick = Load {
            memory: quick,
            ..QUICK
        };
        let loads = [quick, quick, quick, quick, HOG];
        let shares = shares(512, &loads, 40 * SECOND).await;
        assert!(shares[4] > 0.35, "{shares:.2?}");
    }
}

/// What was reserved for it is not kept from others once it no longer uses it.
#[tokio::test(start_paused = true)]
async fn slow_calls_do_not_wait_for_a_quick_pipeline_that_has_become_idle() {
    let mut simulation = Simulation::new(2, 512, &[QUICK, HOG]);
    simulation.run(20 * SECOND).await;
    let before = simulation.served.clone();
    assert!(before[0].calls > 100 && before[1].calls > 0, "{before:?}");
    simulation.loads[0].in_flight = 0;
    simulation.run(42 * SECOND).await;
    let calls = simulation.served[1].calls - before[1].calls;
    assert!(calls >= 9, "{:?}", simulation.served);
}

/// Memory is not kept for quick calls if there is enough for all.
#[tokio::test(start_paused = true)]
async fn slow_calls_that_fit_beside_quick_ones_do_not_wait() {
    let fits = Load { memory: 120, ..HOG };
    let shares = shares(512, &[QUICK, HOG, fits], 80 * SECOND).await;
    assert!(shares[0] > 0.4 && shares[2] > 0.7, "{shares:.2?}");
}

/// An instance that is idle may be used again at any time, and never leaves its memory.
#[tokio::test(start_paused = true)]
async fn slow_calls_get_half_of_the_time_beside_a_quick_one_that_keeps_its_instances() {
    for in_flight in [1, 4] {
        let keeps = Load {
            reuse: true,
            in_flight,
            ..QUICK
        };
        let hog = Load {
            call: SECOND,
            memory: 430,
            ..HOG
        };
        let shares = shares(512, &[keeps, hog], 40 * SECOND).await;
        assert!(shares[0] > 0.4 && shares[1] > 0.4, "{shares:.2?}");
    }
}

/// Calls of up to 50 ms are quick, too. One of 45 ms for each of a millisecond left the pipeline a
/// fiftieth of its rate.
#[tokio::test(start_paused = true)]
async fn quick_calls_that_do_not_fit_together_share_the_time_equally() {
    for ms in [5, 45] {
        for (others, least) in [(1, 0.4), (3, 0.2)] {
            let other = Load {
                call: ms * MS,
                ..HOG
            };
            let mut loads = vec![QUICK];
            loads.extend(vec![other; others]);
            let shares = shares(512, &loads, 8 * SECOND).await;
            assert!(
                shares.iter().all(|&share| share > least),
                "{others} of {ms} ms: {shares:.2?}"
            );
        }
    }
}

/// Each of its stages had a turn for each of its neighbour's: with twelve of 33 ms, these left it a
/// sixth of its rate. And memory was reserved for a pipeline because its own calls, with several
/// batches in flight, had kept each other waiting.
#[tokio::test(start_paused = true)]
async fn quick_calls_get_half_of_the_time_beside_a_pipeline_with_many_stages() {
    for stages in [1, 12] {
        let many = Load {
            call: 33 * MS,
            in_flight: 12,
            stages,
            ..QUICK
        };
        let quick = Load {
            in_flight: 4,
            ..QUICK
        };
        let shares = shares(256, &[quick, many], 8 * SECOND).await;
        assert!(
            shares.iter().all(|&share| share > 0.4),
            "{stages} stages: {shares:.2?}"
        );
    }
}
