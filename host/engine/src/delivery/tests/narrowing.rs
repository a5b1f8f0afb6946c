//! How many requests it takes to find a document that is at fault, and how many a receiver gets
//! that takes none.

use crate::Uptime;
use crate::testing::{TestPipeline, TestSettings};

/// A way of a receiver not to take a request.
#[derive(Clone, Copy, Debug)]
enum Refusal {
    Status(u16),
    TimeOut,
}

const REFUSALS: [Refusal; 5] = [
    Refusal::Status(400),
    Refusal::Status(413),
    Refusal::Status(422),
    Refusal::Status(500),
    Refusal::TimeOut,
];

fn refuse(pipeline: &mut TestPipeline, keys: &str, refusal: Refusal) {
    match refusal {
        Refusal::Status(status) => pipeline.answer(keys, status),
        Refusal::TimeOut => pipeline.time_out(keys),
    }
}

fn with_batches_of(documents: usize, batches_in_flight: usize) -> TestPipeline {
    TestPipeline::new(TestSettings {
        batch_events: documents,
        documents_in_request: documents,
        batches_in_flight,
        requests_in_flight: 8,
        ..TestSettings::default()
    })
}

/// The requests of ten minutes to a receiver that takes none: in the first ten seconds, and in all.
fn requests_to_failing(refusal: Refusal, documents: usize, batches: usize) -> (usize, usize) {
    let mut pipeline = with_batches_of(documents, batches);
    pipeline.read_keys((0..documents * batches).map(|number| number.to_string()));
    let start = pipeline.now;
    let (mut at_first, mut all) = (0, 0);
    while pipeline.now < start + Uptime::from_secs(600) {
        match pipeline.sent().first().cloned() {
            Some(keys) => {
                at_first += usize::from(pipeline.now < start + Uptime::from_secs(10));
                all += 1;
                refuse(&mut pipeline, &keys, refusal);
            }
            None => pipeline.wait(),
        }
    }
    assert!(pipeline.commits.is_empty(), "nothing is dead-lettered");
    (at_first, all)
}

#[test]
fn a_receiver_that_takes_nothing_gets_few_requests_whatever_the_size_of_the_batches() {
    for refusal in REFUSALS {
        for (documents, batches) in [(1, 1), (8, 1), (500, 1), (500, 8), (5000, 1), (2000, 4)] {
            let (at_first, all) = requests_to_failing(refusal, documents, batches);
            let of = format!("{refusal:?}, {batches} x {documents}: {at_first}, {all}");
            assert!(at_first <= 60, "in ten seconds of {of}");
            assert!(all <= 150, "in ten minutes of {of}");
        }
    }
}

/// The requests, and the seconds, until all documents but this one are accepted.
fn requests_to_find(refusal: Refusal, bad: usize, documents: usize) -> (usize, u64) {
    let mut pipeline = with_batches_of(documents, 1);
    pipeline.read_keys((0..documents).map(|number| format!("<{number}>")));
    let (start, bad) = (pipeline.now, format!("<{bad}>"));
    let (mut requests, mut accepted) = (0, 0);
    while accepted < documents - 1 {
        let Some(keys) = pipeline.sent().first().cloned() else {
            pipeline.wait();
            continue;
        };
        requests += 1;
        if keys.contains(&bad) {
            refuse(&mut pipeline, &keys, refusal);
        } else {
            accepted += keys.split(' ').count();
            pipeline.answer(&keys, 200);
        }
    }
    (requests, (pipeline.now - start).as_secs())
}

#[test]
fn one_document_at_fault_is_found_in_few_requests() {
    for refusal in REFUSALS {
        for documents in [2usize, 3, 8, 100, 500, 5000] {
            for bad in [0, documents / 2, documents - 1] {
                let (requests, seconds) = requests_to_find(refusal, bad, documents);
                let of = format!("{refusal:?}, {bad} of {documents}: {requests}, {seconds} s");
                let levels = documents.next_power_of_two().ilog2() as usize;
                let (most, longest) = match refusal {
                    Refusal::Status(400..500) => (2 * levels + 2, 0),
                    // It may be an outage, which the first five requests rule out.
                    _ => (2 * levels + 8, 90),
                };
                assert!(requests <= most, "{of}");
                assert!(seconds <= longest, "{of}");
            }
        }
    }
}

/// The receiver has accepted a half, so the others need not wait; then it goes down.
#[test]
fn an_outage_in_the_middle_of_a_search_gets_few_requests() {
    for refusal in REFUSALS {
        let mut pipeline = with_batches_of(4096, 1);
        pipeline.read_keys((0..4096).map(|number| format!("<{number}>")));
        let mut requests = 0;
        let mut has_accepted = false;
        let mut end = Uptime::MAX;
        while pipeline.now < end {
            let Some(keys) = pipeline.sent().first().cloned() else {
                pipeline.wait();
                continue;
            };
            if !has_accepted && !keys.contains("<0>") {
                has_accepted = true;
                end = pipeline.now + Uptime::from_secs(60);
                pipeline.answer(&keys, 200);
            } else {
                requests += usize::from(has_accepted);
                refuse(&mut pipeline, &keys, refusal);
            }
        }
        assert!(requests <= 60, "{refusal:?}: {requests}");
    }
}
