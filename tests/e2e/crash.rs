use std::time::Duration;

use lockgate_tests::{Auth, Receiver, Running, lockgate, quickstart};

/// Kills in the test run. `LOCKGATE_KILLS=50 cargo test -p lockgate-tests --test e2e crash` does more.
const KILLS: u64 = 5;

/// Default batches in flight and events in each: what may arrive twice after a kill.
const IN_FLIGHT: u64 = 8 * 500;

#[test]
fn kill_9_at_random_points_loses_nothing_and_repeats_only_what_was_in_flight() {
    let kills = std::env::var("LOCKGATE_KILLS").ok().map_or(KILLS, |kills| kills.parse().expect("LOCKGATE_KILLS is a number"));
    let events = 20_000 + kills * 4000;
    let dir = tempfile::tempdir().unwrap();
    let auth = Auth::start(dir.path(), &["--events", &events.to_string()]);
    let receiver = Receiver::start(dir.path(), &["--latency", "20ms"]);
    let config = quickstart(dir.path(), &auth, &receiver, "");
    let start = |arguments: &[&str]| Running::start("start", lockgate().args(["start", "--config"]).arg(&config).args(arguments));
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..kills {
        let host = start(&[]);
        host.line_with("started");
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // The point of the kill is what is random here; nothing is awaited.
        std::thread::sleep(Duration::from_millis((random >> 33) % 400));
        host.kill();
    }
    start(&["--exit-on-last-event"]).ended().exits_with(0);
    let totals = receiver.stop();
    assert_eq!(totals.distinct, events, "no event is lost");
    let repeated = totals.documents - totals.distinct;
    assert!(repeated <= kills * IN_FLIGHT, "{repeated} repeated after {kills} kills");
}
