//! What an outage costs, in virtual time.

use std::time::Duration;

use lockgate_engine::{BACKOFF_MAX, Uptime};
use lockgate_model::FeedKind;
use lockgate_model::contract::Inspect;

use crate::plugins::Grouping;
use crate::random::Random;
use crate::receiver::Mood;
use crate::world::{Plan, World};

const OUTAGE: Uptime = Duration::from_secs(45);

/// What the documents take when no receiver was ever in trouble, with a wide margin.
const TO_DRAIN: Duration = Duration::from_secs(10);

/// Requests used to wait out a time of their own each, up to a minute after the receiver was back.
#[test]
fn whatever_waits_goes_out_with_the_first_probe_after_an_outage() {
    for (seed, trouble) in [Mood::Busy, Mood::Down, Mood::Throttling, Mood::Unauthorized]
        .into_iter()
        .cycle()
        .take(40)
        .enumerate()
    {
        let plan = Plan {
            feeds: vec![FeedKind::Audit],
            grouping: Grouping::All,
            inspect: Inspect::Failures,
            with_state: false,
            batch_events: 5,
            in_flight: 4,
            moods: vec![[(Duration::ZERO, trouble), (OUTAGE, Mood::Well)].into()],
            odd: 0.0,
            crashes: 0.0,
            redrives: 0.0,
            releases: 0.0,
            scarce_memory: false,
        };
        let mut world = World::new(plan, Random::new(seed as u64));
        for _ in 0..40 {
            world.append(5, 0.0);
        }
        while world.now < OUTAGE {
            assert!(world.step(), "a probe is always due");
        }
        // An event that cannot be read is a dead letter all the same.
        assert_eq!(world.delivered(), 0, "nothing is accepted meanwhile");
        while world.delivered() == 0 {
            assert!(world.step(), "a probe is always due");
        }
        let recovered = world.now;
        assert!(recovered < OUTAGE + BACKOFF_MAX + TO_DRAIN);
        while world.waiting() > 0 {
            assert!(world.step(), "what is accepted is answered");
        }
        let drained_after = world.now - recovered;
        assert!(
            drained_after < TO_DRAIN,
            "{trouble:?}, seed {seed}: drained after {drained_after:?}"
        );
    }
}
