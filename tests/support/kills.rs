//! Kills a host again and again.

use std::path::Path;
use std::time::Duration;

use crate::host::started;
use crate::process::until;
use crate::status::{books, status};

/// How often a test kills the host: `LOCKGATE_KILLS`, else `default`.
#[track_caller]
pub fn kills(default: u64) -> u64 {
    match std::env::var("LOCKGATE_KILLS") {
        Ok(kills) => kills.parse().expect("LOCKGATE_KILLS is a number"),
        Err(_) => default,
    }
}

/// Random points in time, the same ones in each run.
pub struct Moments(u64);

impl Moments {
    pub fn new(seed: u64) -> Moments {
        Moments(seed)
    }

    /// Nothing is awaited: that the time is random is the point.
    pub fn sleep(&mut self, below: Duration) {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let below = u64::try_from(below.as_millis()).unwrap_or(u64::MAX).max(1);
        std::thread::sleep(Duration::from_millis((self.0 >> 33) % below));
    }
}

/// Starts the host and kills it once the pipeline `main` has delivered something. Its components
/// have then been compiled, so that later starts are quick.
#[track_caller]
pub fn kill_once_it_delivers(config: &Path) {
    let host = started(config);
    until(
        "something is delivered",
        || host.stderr(),
        || books(&status(config), "main").delivered > 0,
    );
    host.kill();
}

/// The same, and then kills it `kills` times, each at a random moment within `within` of its start.
#[track_caller]
pub fn kill_again_and_again(config: &Path, kills: u64, moments: &mut Moments, within: Duration) {
    kill_once_it_delivers(config);
    for _ in 0..kills {
        let host = started(config);
        moments.sleep(within);
        host.kill();
    }
}
