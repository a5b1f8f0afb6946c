use std::path::Path;
use std::time::{Duration, Instant};

use crate::lockgate;
use crate::process::{PATIENCE, Running};
use crate::status::{books, status};

/// How often a test kills the host: `LOCKGATE_KILLS`, or what suits the test run.
#[track_caller]
pub fn kills(default: u64) -> u64 {
    match std::env::var("LOCKGATE_KILLS") {
        Ok(kills) => kills.parse().expect("LOCKGATE_KILLS is a number"),
        Err(_) => default,
    }
}

/// `lockgate start` with these further arguments.
pub fn start(config: &Path, arguments: &[&str]) -> Running {
    let mut command = lockgate();
    command.args(["start", "--config"]).arg(config);
    Running::start("start", command.args(arguments))
}

/// Random points in time, the same ones in each run.
pub struct Moments(u64);

impl Moments {
    pub fn new(seed: u64) -> Moments {
        Moments(seed)
    }

    /// The point of a kill is what is random here; nothing is awaited.
    pub fn sleep(&mut self, below: Duration) {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let below = u64::try_from(below.as_millis()).unwrap_or(u64::MAX).max(1);
        std::thread::sleep(Duration::from_millis((self.0 >> 33) % below));
    }
}

/// Starts the host and kills it once the pipeline `main` has delivered something. From then on its
/// components are compiled: a start takes a moment only.
#[track_caller]
pub fn kill_once_it_delivers(config: &Path) {
    let host = start(config, &[]);
    host.line_with("started");
    let deadline = Instant::now() + PATIENCE;
    while books(&status(config), "main").delivered == 0 {
        assert!(
            Instant::now() < deadline,
            "nothing is delivered:\n{}",
            host.stderr()
        );
    }
    host.kill();
}

/// The same, and then so many times at a random moment of the first `within` after a start.
#[track_caller]
pub fn kill_again_and_again(config: &Path, kills: u64, moments: &mut Moments, within: Duration) {
    kill_once_it_delivers(config);
    for _ in 0..kills {
        let host = start(config, &[]);
        host.line_with("started");
        moments.sleep(within);
        host.kill();
    }
}
