//! Tests of the memory that pipelines share for their batches.

use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use super::*;

fn poll<F: Future>(future: Pin<&mut F>) -> Option<F::Output> {
    match future.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}

fn now(share: &MemoryShare, bytes: usize) -> Option<Reserved> {
    poll(pin!(share.acquire(bytes)))
}

#[test]
fn a_request_waits_until_there_is_room_and_memory_is_given_back() {
    let budget = BatchMemoryBudget::new(100);
    let share = budget.share();
    let first = now(&share, 60).expect("all of it is free");
    let second = now(&share, 40).expect("and the rest");
    let mut third = pin!(share.acquire(30));
    assert!(poll(third.as_mut()).is_none());
    drop(second);
    let third = poll(third).expect("40 are free");
    assert_eq!((budget.used(), share.used(), third.bytes()), (90, 90, 30));
    drop((first, third));
    assert_eq!(budget.used(), 0);
}

#[test]
fn requests_of_one_pipeline_are_granted_in_order() {
    let share = BatchMemoryBudget::new(100).share();
    let held = now(&share, 90).expect("free");
    let mut large = pin!(share.acquire(50));
    let mut small = pin!(share.acquire(5));
    assert!(poll(large.as_mut()).is_none());
    assert!(poll(small.as_mut()).is_none(), "it would fit");
    drop(held);
    assert!(poll(large).is_some() && poll(small).is_some());
}

#[test]
fn a_huge_request_of_one_pipeline_keeps_no_other_from_its_own() {
    let budget = BatchMemoryBudget::new(100);
    let (greedy, modest) = (budget.share(), budget.share());
    let held = now(&greedy, 70).expect("its own 25 and 45 of the common half");
    let mut huge = pin!(greedy.acquire(1000));
    assert!(poll(huge.as_mut()).is_none());
    let small: Vec<_> = (0..5).map(|_| now(&modest, 5).expect("its own")).collect();
    assert!(now(&modest, 10).is_none(), "5 are left in common");
    drop(held);
    assert!(poll(huge).is_some(), "it holds nothing else");
    assert_eq!(
        budget.used(),
        25,
        "memory of a request that was given up is released"
    );
    drop(small);
}

#[test]
fn a_request_that_was_given_up_lets_the_next_one_through() {
    let share = BatchMemoryBudget::new(100).share();
    let _held = now(&share, 90).expect("free");
    let mut small = {
        let mut large = Box::pin(share.acquire(50));
        assert!(poll(large.as_mut()).is_none());
        let mut small = Box::pin(share.acquire(5));
        assert!(poll(small.as_mut()).is_none());
        small
    };
    assert!(poll(small.as_mut()).is_some());
}

#[test]
fn a_batch_that_grows_takes_what_it_needs_and_others_wait_the_longer() {
    let budget = BatchMemoryBudget::new(100);
    let (share, other) = (budget.share(), budget.share());
    let mut batch = now(&share, 10).expect("free");
    batch.resize(120);
    assert_eq!(budget.used(), 120);
    let own = now(&other, 25).expect("its own part");
    assert!(now(&other, 1).is_none());
    batch.resize(10);
    assert!(now(&other, 1).is_some());
    drop((batch, own));
    assert_eq!(budget.used(), 0);
}

#[test]
fn a_share_that_ended_leaves_its_part_to_the_others() {
    let budget = BatchMemoryBudget::new(100);
    let (first, second) = (budget.share(), budget.share());
    let _held = now(&first, 75).expect("free");
    let mut more = pin!(first.acquire(25));
    assert!(poll(more.as_mut()).is_none());
    drop(second);
    assert!(poll(more).is_some());
}
