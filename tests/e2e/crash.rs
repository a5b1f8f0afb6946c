//! Hosts that are killed.

use std::time::Duration;

use lockgate_tests::receiver::LocalReceiver;
use lockgate_tests::{
    Auth, Books, Moments, ReceiverProcess, books, configuration, kill_again_and_again, kills,
    quickstart, start_and_finish, started, status, until,
};

/// Kills in the test run. `LOCKGATE_KILLS=50 cargo test --workspace --test e2e crash` does more.
const KILLS: u64 = 5;

/// Events of a batch, by default.
const BATCH: u64 = 500;

/// What may arrive twice after a kill: all batches in flight, by default.
const IN_FLIGHT: u64 = 8 * BATCH;

#[test]
fn kill_9_at_random_points_loses_nothing_and_repeats_only_what_was_in_flight() {
    let kills = kills(KILLS);
    let events = 20_000 + kills * 4000;
    let dir = tempfile::tempdir().unwrap();
    let auth = Auth::start(dir.path(), &["--events", &events.to_string()]);
    let receiver = ReceiverProcess::start(dir.path(), &["--latency", "20ms"]);
    let config = quickstart(dir.path(), &auth, &receiver, "");
    let mut moments = Moments::new(0x9e37_79b9_7f4a_7c15);
    kill_again_and_again(&config, kills, &mut moments, Duration::from_millis(400));
    start_and_finish(&config);
    let totals = receiver.stop();
    assert_eq!(totals.distinct, events, "no event is lost");
    let repeated = totals.documents - totals.distinct;
    assert!(
        repeated <= (kills + 1) * IN_FLIGHT,
        "{repeated} repeated after {} kills",
        kills + 1
    );
}

/// One batch hangs while all others, before and after it, are delivered. What a kill then costs is
/// that one batch, not those after it.
#[test]
fn after_a_kill_only_the_batch_that_hung_is_sent_again() {
    let events = 10_000;
    let dir = tempfile::tempdir().unwrap();
    let auth = Auth::start(dir.path(), &["--events", &events.to_string()]);
    let receiver = LocalReceiver::start(dir.path());
    let sink = receiver.endpoint("events.log");
    // Full batches only, so that what waits in the end is the one that hangs.
    let batch = format!("batch = {{ events = {BATCH}, bytes = \"64 MiB\", age = \"1h\" }}");
    let pipeline = format!(
        "[pipelines.main]\n{batch}\n\n[pipelines.main.sink]\nplugin = \"builtin:fluentd\"\n{sink}\n"
    );
    let config = configuration(dir.path(), &auth, &pipeline);

    receiver.control.hang_next(1);
    let host = started(&config);
    let shown = || format!("{}\n{}", status(&config), host.stderr());
    until(
        "one batch hangs and all others are delivered",
        shown,
        || {
            let books = books(&status(&config), "main");
            books.read == events && books.waiting == BATCH && receiver.control.holding() == 1
        },
    );
    let before = receiver.control.totals();
    assert_eq!(
        (before.documents, before.distinct),
        (events - BATCH, events - BATCH)
    );
    host.kill();
    receiver.control.release();

    start_and_finish(&config);
    let after = receiver.stop();
    assert_eq!(after.distinct, events, "no event is lost");
    assert!(
        after.documents - after.distinct <= BATCH,
        "{} repeated",
        after.documents - after.distinct
    );
    // Once by the request that hung, if it went on before its connection was found closed, and once
    // by the second start.
    let (sent, requests) = (
        after.documents - before.documents,
        after.requests - before.requests,
    );
    assert!(
        matches!(requests, 1 | 2) && sent == requests * BATCH,
        "{sent} events in {requests} requests after the kill"
    );
    let books = books(&status(&config), "main");
    assert_eq!(
        books,
        Books {
            read: events,
            delivered: events,
            ..Books::default()
        }
    );
}
