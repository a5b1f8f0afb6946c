use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use wasmtime::ResourceLimiter;

use super::*;

use crate::limits::OVERTAKEN_MAX;
use crate::meter::{LimitHit, Meter};

fn is_ready<T>(future: Pin<&mut impl Future<Output = T>>) -> bool {
    poll(future).is_some()
}

/// Its result, if it is there.
fn poll<T>(future: Pin<&mut impl Future<Output = T>>) -> Option<T> {
    match future.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => Some(result),
        Poll::Pending => None,
    }
}

/// The call of an instance that `Meter::new` made.
fn holder(bytes: usize) -> Holder {
    Holder {
        pipeline: "p".into(),
        stage: "stage 1 (x)".into(),
        bytes,
    }
}

/// What kept the instance from growing, or its call from being slow.
fn shortage(meter: &mut Meter) -> Shortage {
    match meter.take_limit() {
        Some(LimitHit::Shared(shortage)) => shortage,
        other => panic!("{other:?}"),
    }
}

#[test]
fn slow_calls_leave_half_of_the_total_to_others_but_one() {
    let memory = InstanceMemory::new(100);
    let meter = || Meter::new(memory.clone(), 90);
    let (mut small, mut first, mut second) = (meter(), meter(), meter());
    for meter in [&mut small, &mut first, &mut second] {
        meter.enter_slow().unwrap();
    }
    assert!(small.memory_growing(0, 5, None).unwrap());
    assert!(second.memory_growing(0, 30, None).unwrap());
    // More than what is left of the half: one may, whichever began first.
    assert!(first.memory_growing(0, 46, None).unwrap());
    assert!(!second.memory_growing(30, 46, None).unwrap());
    let expected = Shortage {
        holder: Box::new(holder(30)),
        needs: 46,
        of: SharedMemory::SlowCalls,
        taken: 5,
        limit: 50,
        kept: 0,
        is_slow: true,
        exempt: Some(holder(46)),
    };
    let shortage_of_half = shortage(&mut second);
    assert_eq!(shortage_of_half, expected);
    assert!(
        shortage_of_half
            .to_string()
            .ends_with("only one may have more, which is that of `p`, stage 1 (x), with 1 MiB now"),
        "{shortage_of_half}"
    );
    let mut quick = meter();
    assert!(quick.memory_growing(0, 15, None).unwrap());
    drop(quick);
    drop(first);
    // Now it may have all.
    assert!(second.memory_growing(30, 90, None).unwrap());
    // Once its call has ended, what its instance keeps is not memory of a slow call.
    second.end();
    let mut third = meter();
    third.enter_slow().unwrap();
    assert!(!third.memory_growing(0, 10, None).unwrap());
    let expected = Shortage {
        holder: Box::new(holder(0)),
        needs: 10,
        of: SharedMemory::All,
        taken: 95,
        limit: 100,
        kept: 0,
        is_slow: true,
        exempt: None,
    };
    assert_eq!(shortage(&mut third), expected);
}

/// Three slow components of 128 MiB left a quick one that needs 20 MiB a twentieth of its rate.
#[test]
fn slow_calls_leave_memory_to_a_quick_one_that_is_not_small() {
    let memory = InstanceMemory::new(512 * MIB);
    let meter = |pipeline: &str| {
        let (pipeline, stage) = (pipeline.into(), "x".into());
        Meter::of(pipeline, stage, memory.clone(), 512 * MIB)
    };
    let mut slow = ["a", "b", "c"].map(meter);
    let granted = slow.each_mut().map(|meter| {
        meter.enter_slow().unwrap();
        meter.memory_growing(0, 128 * MIB, None).unwrap()
    });
    assert_eq!(granted, [true, true, false]);
    let mut quick = meter("quick");
    assert!(quick.memory_growing(0, 60 * MIB, None).unwrap());
    drop(quick);
    // It has its turn when one of the others has ended, and at once where there is room for both.
    drop(slow);
    let mut slow = ["a", "b"].map(meter);
    for (meter, bytes) in slow.iter_mut().zip([100 * MIB, 200 * MIB]) {
        meter.enter_slow().unwrap();
        assert!(meter.memory_growing(0, bytes, None).unwrap());
    }
}

/// Ten filters once took their memory before their calls were slow, and kept it all while they
/// burned their time limits.
#[test]
fn memory_from_before_a_call_was_slow_counts_as_well() {
    let memory = InstanceMemory::new(100);
    let mut meters: Vec<Meter> = (0..4).map(|_| Meter::new(memory.clone(), 90)).collect();
    for meter in &mut meters {
        assert!(meter.memory_growing(0, 24, None).unwrap());
    }
    let entered: Vec<bool> = meters
        .iter_mut()
        .map(|meter| meter.enter_slow().is_ok())
        .collect();
    // The third might exceed the half, if it left something to quick calls.
    assert_eq!(entered, [true, true, false, false]);
    let expected = Shortage {
        holder: Box::new(holder(24)),
        needs: 24,
        of: SharedMemory::All,
        taken: 72,
        limit: 100,
        kept: 12,
        is_slow: true,
        exempt: None,
    };
    assert_eq!(shortage(&mut meters[3]), expected);
    meters.pop();
    let mut quick = Meter::new(memory.clone(), 90);
    assert!(quick.memory_growing(0, 28, None).unwrap());
    drop((quick, meters));
    assert_eq!(memory.used(), 0);
    let mut again = Meter::new(memory, 50);
    again.enter_slow().unwrap();
    assert!(
        again.memory_growing(0, 50, None).unwrap(),
        "nothing is left over"
    );
}

#[test]
fn a_call_that_waits_for_memory_is_woken_when_there_is_enough() {
    let memory = InstanceMemory::new(100);
    let (mut first, mut second) = (
        Meter::new(memory.clone(), 90),
        Meter::new(memory.clone(), 90),
    );
    assert!(first.memory_growing(0, 60, None).unwrap());
    assert!(second.memory_growing(0, 30, None).unwrap());
    let needs = |bytes| {
        let mut meter = Meter::new(memory.clone(), 90);
        assert!(!meter.memory_growing(0, bytes, None).unwrap());
        memory.room_for(shortage(&mut meter))
    };
    let (mut large, mut small) = (pin!(needs(80)), pin!(needs(20)));
    assert!(!is_ready(large.as_mut()) && !is_ready(small.as_mut()));
    drop(second);
    assert!(!is_ready(large.as_mut()), "there is room for 40");
    assert!(
        is_ready(small.as_mut()),
        "it does not wait for the large one"
    );
    drop(first);
    assert!(is_ready(large.as_mut()));
    let shortage = Shortage {
        holder: Box::new(holder(0)),
        needs: 80,
        of: SharedMemory::All,
        taken: 50,
        limit: 100,
        kept: 0,
        is_slow: false,
        exempt: None,
    };
    assert!(
        is_ready(pin!(memory.room_for(shortage))),
        "it is free already"
    );
}

#[test]
fn what_quick_calls_wait_for_is_not_given_to_slow_ones() {
    let memory = InstanceMemory::new(100);
    let mut full = Meter::new(memory.clone(), 100);
    assert!(full.memory_growing(0, 100, None).unwrap());
    let room = |of, needs| {
        memory.room_for(Shortage {
            holder: Box::new(holder(0)),
            needs,
            of,
            taken: 0,
            limit: 0,
            kept: 0,
            is_slow: of == SharedMemory::SlowCalls,
            exempt: None,
        })
    };
    let mut slow = [40, 50, 60].map(|needs| Box::pin(room(SharedMemory::SlowCalls, needs)));
    let mut quick = pin!(room(SharedMemory::All, 30));
    let mut woken = || slow.each_mut().map(|slow| is_ready(slow.as_mut()));
    assert_eq!(woken(), [false, false, false]);
    assert!(!is_ready(quick.as_mut()));
    drop(full);
    assert!(is_ready(quick.as_mut()), "it comes first");
    // 30 are spoken for; 40 fit into the half. One may exceed it, but not the total.
    assert_eq!(woken(), [true, false, false]);
}

#[test]
fn a_call_that_no_longer_waits_takes_no_room() {
    let memory = InstanceMemory::new(100);
    let mut full = Meter::new(memory.clone(), 100);
    assert!(full.memory_growing(0, 100, None).unwrap());
    let shortage = Shortage {
        holder: Box::new(holder(0)),
        needs: 80,
        of: SharedMemory::All,
        taken: 100,
        limit: 100,
        kept: 0,
        is_slow: false,
        exempt: None,
    };
    {
        let mut gone = pin!(memory.room_for(shortage.clone()));
        assert!(!is_ready(gone.as_mut()));
    }
    let mut waits = pin!(memory.room_for(shortage));
    assert!(!is_ready(waits.as_mut()));
    drop(full);
    assert!(is_ready(waits.as_mut()));
}

/// A pipeline with eight batches in flight once had eight turns for each of its neighbour's.
#[tokio::test(start_paused = true)]
async fn stages_take_turns_however_many_of_their_calls_wait() {
    let memory = InstanceMemory::new(100 * MIB);
    let mut full = Some(Meter::of(
        "p0".into(),
        "x".into(),
        memory.clone(),
        100 * MIB,
    ));
    assert!(
        full.as_mut()
            .unwrap()
            .memory_growing(0, 90 * MIB, None)
            .unwrap()
    );
    let pipelines = ["many", "many", "many", "many", "one"];
    let mut waiting: Vec<_> = pipelines
        .iter()
        .map(|&pipeline| {
            let shortage = Shortage {
                holder: Box::new(Holder {
                    pipeline: pipeline.into(),
                    stage: "x".into(),
                    bytes: 0,
                }),
                needs: 80 * MIB,
                of: SharedMemory::All,
                taken: 90 * MIB,
                limit: 100 * MIB,
                kept: 0,
                is_slow: false,
                exempt: None,
            };
            let memory = memory.clone();
            (
                pipeline,
                Box::pin(async move { memory.room_for(shortage).await }),
            )
        })
        .collect();
    let mut woken = Vec::new();
    while !waiting.is_empty() {
        let mut rooms = Vec::new();
        waiting.retain_mut(|(pipeline, room)| match poll(room.as_mut()) {
            Some(room) => {
                woken.push(*pipeline);
                rooms.push(room);
                false
            }
            None => true,
        });
        assert!(rooms.len() == usize::from(full.is_none()), "{woken:?}");
        full = None;
    }
    assert_eq!(woken, ["many", "one", "many", "many", "many"]);
}

/// Calls that pause keep their memory: eight components that took 128 MiB each, and then some time,
/// once left none to a sink that needed 2 MiB.
#[test]
fn instances_that_need_little_find_memory_whatever_others_have_taken() {
    const MIB: usize = 1 << 20;
    for size in [128, 60, 17, 16, 5, 4] {
        let memory = InstanceMemory::new(512 * MIB);
        let mut others: Vec<_> = (0..128)
            .map(|_| Meter::new(memory.clone(), 128 * MIB))
            .collect();
        for held in 0..size {
            for meter in &mut others {
                let _ = meter.memory_growing(held * MIB, (held + 1) * MIB, None);
            }
        }
        assert!(memory.used() >= 384 * MIB, "{size}: {}", memory.used());
        let mut small = Meter::new(memory.clone(), 128 * MIB);
        assert!(small.memory_growing(0, 2 * MIB, None).unwrap(), "{size}");
    }
}

/// A pipeline whose stages both take much when they are configured never started once one of them
/// had been refused: what was promised to it was kept from the other, and all components are
/// configured again.
#[tokio::test(start_paused = true)]
async fn what_is_promised_to_a_pipeline_serves_all_of_its_stages() {
    let memory = InstanceMemory::new(256 * MIB);
    let configure = |stage: &str| {
        let mut meter = Meter::of("p".into(), stage.into(), memory.clone(), 256 * MIB);
        match meter.memory_growing(0, 112 * MIB, None).unwrap() {
            true => Ok(()),
            false => Err(shortage(&mut meter)),
        }
    };
    for refused in ["first", "second"] {
        let mut other = Meter::of("q".into(), "x".into(), memory.clone(), 256 * MIB);
        assert!(other.memory_growing(0, 112 * MIB, None).unwrap());
        let mut room = Box::pin(memory.room_for(configure(refused).unwrap_err()));
        assert!(!is_ready(room.as_mut()));
        drop(other);
        let room = poll(room.as_mut()).expect("there is room");
        assert_eq!(configure("first"), Ok(()), "{refused}");
        assert_eq!(configure("second"), Ok(()), "{refused}");
        let mut other = Meter::of("q".into(), "x".into(), memory.clone(), 256 * MIB);
        assert!(!other.memory_growing(0, 150 * MIB, None).unwrap());
        drop(room);
    }
}

/// They once used up what was kept for small ones, and kept it for as long as their time limit.
#[test]
fn small_slow_calls_leave_memory_to_small_quick_ones() {
    let memory = InstanceMemory::new(512 * MIB);
    let meter = || Meter::new(memory.clone(), 512 * MIB);
    for sizes in [&[(2, 18)][..], &[(4, 16)], &[(2, 18), (4, 8), (15, 5)]] {
        let mut slow = Vec::new();
        for &(size, calls) in sizes {
            for _ in 0..calls {
                let mut meter = meter();
                assert!(meter.memory_growing(0, size * MIB, None).unwrap());
                meter.enter_slow().unwrap();
                slow.push(meter);
            }
        }
        let mut large: Vec<_> = (0..8).map(|_| meter()).collect();
        for held in 0..128 {
            for meter in &mut large {
                let _ = meter.memory_growing(held * MIB, (held + 1) * MIB, None);
            }
        }
        let mut quick: Vec<_> = (0..8).map(|_| meter()).collect();
        for meter in &mut quick {
            assert!(meter.memory_growing(0, 2 * MIB, None).unwrap(), "{sizes:?}");
        }
        drop((large, quick));
        for meter in &mut slow {
            meter.end();
        }
        drop(slow);
        assert_eq!(memory.used(), 0);
    }
    let mut all = meter();
    assert!(all.memory_growing(0, 512 * MIB, None).unwrap());
}

/// It waited until the large one, whose turn may be far off, had its memory.
#[tokio::test(start_paused = true)]
async fn a_call_that_needs_little_is_woken_whatever_was_promised() {
    let memory = InstanceMemory::new(64 * MIB);
    let mut first = Meter::new(memory.clone(), 64 * MIB);
    let mut second = Meter::new(memory.clone(), 64 * MIB);
    assert!(first.memory_growing(0, 60 * MIB, None).unwrap());
    assert!(second.memory_growing(0, 2 * MIB, None).unwrap());
    let room = |pipeline: &str, needs| {
        memory.room_for(Shortage {
            holder: Box::new(Holder {
                pipeline: pipeline.into(),
                stage: "x".into(),
                bytes: 0,
            }),
            needs,
            of: SharedMemory::All,
            taken: 0,
            limit: 0,
            kept: 0,
            is_slow: false,
            exempt: None,
        })
    };
    let mut large = pin!(room("large", 62 * MIB));
    assert!(!is_ready(large.as_mut()));
    drop(first);
    let promised = poll(large.as_mut());
    assert!(promised.is_some());
    let mut others: Vec<_> = (0..31)
        .map(|_| Meter::new(memory.clone(), 64 * MIB))
        .collect();
    for meter in &mut others {
        assert!(meter.memory_growing(0, 2 * MIB, None).unwrap());
    }
    let mut small = pin!(room("small", 2 * MIB));
    assert!(!is_ready(small.as_mut()));
    others.pop();
    assert!(is_ready(small.as_mut()));
}

/// It once waited until no other instance was in use.
#[test]
fn an_instance_may_need_nearly_all_of_the_memory() {
    const MIB: usize = 1 << 20;
    for (total, needs) in [(512, 512), (512, 400), (96, 80), (64, 60)] {
        let memory = InstanceMemory::new(total * MIB);
        let mut large = Meter::new(memory.clone(), total * MIB);
        let mut small = Meter::new(memory.clone(), total * MIB);
        let rest = (total - needs).min(total / 8) * MIB;
        assert!(small.memory_growing(0, rest, None).unwrap());
        assert!(large.memory_growing(0, needs * MIB, None).unwrap());
    }
}

/// What small ones have counts as kept for them. It once had to be free as well.
#[test]
fn an_instance_that_leaves_enough_to_small_ones_gets_its_memory() {
    const MIB: usize = 1 << 20;
    let memory = InstanceMemory::new(64 * MIB);
    let mut small: Vec<_> = (0..8)
        .map(|_| Meter::new(memory.clone(), 64 * MIB))
        .collect();
    for meter in &mut small {
        assert!(meter.memory_growing(0, 4 * MIB / 3, None).unwrap());
    }
    let mut large = Meter::new(memory.clone(), 64 * MIB);
    assert!(large.memory_growing(0, 40 * MIB, None).unwrap());
    assert!(!large.memory_growing(40 * MIB, 50 * MIB, None).unwrap());
    assert!(small[0].memory_growing(4 * MIB / 3, 2 * MIB, None).unwrap());
    drop(small);
    assert!(large.memory_growing(40 * MIB, 50 * MIB, None).unwrap());
}

#[test]
fn a_shortage_says_what_is_kept_for_others() {
    const MIB: usize = 1 << 20;
    let memory = InstanceMemory::new(512 * MIB);
    let mut first = Meter::new(memory.clone(), 512 * MIB);
    assert!(first.memory_growing(0, 300 * MIB, None).unwrap());
    let mut second = Meter::new(memory.clone(), 128 * MIB);
    assert!(!second.memory_growing(0, 100 * MIB, None).unwrap());
    let found = shortage(&mut second).to_string();
    assert_eq!(
        found,
        "it needs 100 MiB of memory, and other components have 300 MiB of the 512 MiB that \
         `memory` in `[limits]` allows, of which 128 MiB are kept for those that need less"
    );
}

const MIB: usize = 1 << 20;

/// A component whose calls grow step by step, and that has one batch after the other.
struct Large {
    pipeline: Arc<str>,
    memory: Arc<InstanceMemory>,
    wants: usize,
    step: usize,
    is_slow: bool,
    /// Turns that a call keeps its memory for, once it has all of it, and after it was refused.
    works: u32,
    ends: u32,
    /// Since it was woken, until its call has ended.
    room: Option<Room>,
    state: LargeState,
    finished: u32,
    /// Refused in a row.
    refused: u32,
    refused_most: u32,
}

enum LargeState {
    Begins,
    Calls(Meter, u32),
    Ends(Meter, u32),
    Waits(Pin<Box<dyn Future<Output = Room>>>),
}

impl Large {
    fn turn(&mut self) {
        self.state = match std::mem::replace(&mut self.state, LargeState::Begins) {
            LargeState::Begins => {
                let (pipeline, memory) = (self.pipeline.clone(), self.memory.clone());
                let mut meter = Meter::of(pipeline, "x".into(), memory, self.memory.total());
                match self.is_slow.then(|| meter.enter_slow()) {
                    Some(Err(_)) => LargeState::Ends(meter, self.ends),
                    _ => LargeState::Calls(meter, self.works),
                }
            }
            LargeState::Calls(mut meter, left) => {
                let held = meter.held();
                if held < self.wants {
                    let to = self.wants.min(held + self.step);
                    match meter.memory_growing(held, to, None).unwrap() {
                        true => LargeState::Calls(meter, left),
                        false => LargeState::Ends(meter, self.ends),
                    }
                } else if left > 0 {
                    LargeState::Calls(meter, left - 1)
                } else {
                    meter.end();
                    drop(meter);
                    self.room = None;
                    self.finished += 1;
                    self.refused = 0;
                    LargeState::Begins
                }
            }
            LargeState::Ends(meter, left) if left > 0 => LargeState::Ends(meter, left - 1),
            LargeState::Ends(mut meter, _) => {
                let shortage = shortage(&mut meter);
                meter.end();
                drop(meter);
                self.room = None;
                self.refused += 1;
                self.refused_most = self.refused_most.max(self.refused);
                let memory = self.memory.clone();
                LargeState::Waits(Box::pin(async move { memory.room_for(shortage).await }))
            }
            LargeState::Waits(mut room) => match poll(Pin::new(&mut room.as_mut())) {
                Some(room) => {
                    self.room = Some(room);
                    LargeState::Begins
                }
                None => LargeState::Waits(room),
            },
        };
    }
}

/// What they wait for is the size at which they were refused, and not what they need in the end.
#[tokio::test(start_paused = true)]
async fn two_large_components_do_not_wake_each_other_for_ever() {
    let mut seed = 1_u64;
    let mut roll = |below: u64| {
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % below
    };
    for case in 0..500 {
        let memory = InstanceMemory::new(256 * MIB);
        let mut both: Vec<Large> = (0..2)
            .map(|nth| Large {
                pipeline: nth.to_string().into(),
                memory: memory.clone(),
                wants: (130 + roll(126) as usize) * MIB,
                step: (1 + roll(128) as usize) * MIB,
                is_slow: roll(2) == 0,
                works: roll(4) as u32,
                ends: roll(4) as u32,
                room: None,
                state: LargeState::Begins,
                finished: 0,
                refused: 0,
                refused_most: 0,
            })
            .collect();
        // By turns, or as it happens.
        let by_turns = case % 2 == 0;
        for turn in 0..4000 {
            tokio::time::advance(Duration::from_millis(1)).await;
            let which = if by_turns { turn % 2 } else { roll(2) };
            both[which as usize].turn();
        }
        for large in &both {
            let about = format!(
                "case {case}: wants {} MiB by {}, slow {}: {} finished, refused {} in a row",
                large.wants / MIB,
                large.step / MIB,
                large.is_slow,
                large.finished,
                large.refused_most,
            );
            assert!(large.finished >= 3, "{about}");
        }
    }
}

/// It found room only if several of them happened to end at once.
#[tokio::test(start_paused = true)]
async fn a_large_component_has_its_turns_next_to_many_smaller_ones() {
    let mut seed = 7_u64;
    let mut roll = |below: u64| {
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % below
    };
    for (is_slow, others) in [(true, 60), (false, 60), (true, 30), (false, 100)] {
        let memory = InstanceMemory::new(512 * MIB);
        let component = |nth: usize, wants, works| Large {
            pipeline: nth.to_string().into(),
            memory: memory.clone(),
            wants: wants * MIB,
            step: wants * MIB,
            is_slow,
            works,
            ends: 0,
            room: None,
            state: LargeState::Begins,
            finished: 0,
            refused: 0,
            refused_most: 0,
        };
        let mut all = vec![component(0, 290, 20)];
        all.extend((1..=12).map(|nth| component(nth, others, 10 + nth as u32)));
        for _ in 0..40_000 {
            tokio::time::advance(Duration::from_millis(1)).await;
            all[roll(13) as usize].turn();
        }
        let finished: Vec<u32> = all.iter().map(|large| large.finished).collect();
        let rest: u32 = finished[1..].iter().sum();
        assert!(
            finished[0] >= rest / 50 && finished[1..].iter().all(|&calls| calls >= rest / 50),
            "slow {is_slow}, {others} MiB: {finished:?}"
        );
    }
}

#[test]
fn a_claim_ends_with_the_call_that_had_it() {
    let memory = InstanceMemory::new(512 * MIB);
    let meter = |pipeline: &str| {
        let (pipeline, stage) = (pipeline.into(), "x".into());
        Meter::of(pipeline, stage, memory.clone(), 512 * MIB)
    };
    let mut first = meter("first");
    assert!(first.memory_growing(0, 100 * MIB, None).unwrap());
    let mut large = meter("large");
    assert!(!large.memory_growing(0, 430 * MIB, None).unwrap());
    let mut room = Box::pin(memory.room_for(shortage(&mut large)));
    assert!(!is_ready(room.as_mut()));
    for _ in 0..OVERTAKEN_MAX {
        assert!(meter("next").memory_growing(0, 60 * MIB, None).unwrap());
    }
    let mut next = meter("next");
    assert!(!next.memory_growing(0, 60 * MIB, None).unwrap());
    assert!(next.memory_growing(0, 16 * MIB, None).unwrap(), "kept");
    drop(room);
    assert!(next.memory_growing(16 * MIB, 60 * MIB, None).unwrap());
}
