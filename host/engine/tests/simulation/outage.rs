//! The cost of an outage, in virtual time.

use std::time::Duration;

use lockgate_engine::{BACKOFF_MAX, Uptime};
use lockgate_model::FeedKind;
use lockgate_model::contract::Inspect;

use crate::plugins::Grouping;
use crate::random::Random;
use crate::receiver::Behaviour;
use crate::simulation::{Scenario, Simulation};

const OUTAGE: Uptime = Duration::from_secs(45);

/// The time that the documents take without a fault, with a wide margin.
const TO_DRAIN: Duration = Duration::from_secs(10);

/// Requests used to wait out a time of their own each, up to a minute after the receiver was back.
#[test]
fn whatever_waits_goes_out_with_the_first_probe_after_an_outage() {
    for (seed, fault) in [
        Behaviour::Busy,
        Behaviour::Down,
        Behaviour::Throttling,
        Behaviour::Unauthorized,
    ]
    .into_iter()
    .cycle()
    .take(40)
    .enumerate()
    {
        let scenario = Scenario {
            feeds: vec![FeedKind::Audit],
            grouping: Grouping::All,
            inspect: Inspect::Failures,
            with_state: false,
            batch_events: 5,
            in_flight: 4,
            behaviours: vec![[(Duration::ZERO, fault), (OUTAGE, Behaviour::Healthy)].into()],
            bad_share: 0.0,
            crashes: 0.0,
            redrives: 0.0,
            releases: 0.0,
            scarce_memory: false,
            plugin_faults: 0.0,
        };
        let mut simulation = Simulation::new(scenario, Random::new(seed as u64));
        for _ in 0..40 {
            simulation.append(5, 0.0);
        }
        while simulation.now < OUTAGE {
            assert!(simulation.step(), "a probe is always due");
        }
        // An event that cannot be read is a dead letter all the same.
        assert_eq!(simulation.delivered(), 0, "nothing is accepted meanwhile");
        while simulation.delivered() == 0 {
            assert!(simulation.step(), "a probe is always due");
        }
        let recovered = simulation.now;
        assert!(recovered < OUTAGE + BACKOFF_MAX + TO_DRAIN);
        while simulation.waiting() > 0 {
            assert!(simulation.step(), "what is accepted is answered");
        }
        let drained_after = simulation.now - recovered;
        assert!(
            drained_after < TO_DRAIN,
            "{fault:?}, seed {seed}: drained after {drained_after:?}"
        );
    }
}
