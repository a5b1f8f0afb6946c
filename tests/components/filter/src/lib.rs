//! A filter that misbehaves as its `mode` says; see README.md.

use lockgate_plugin::{
    Access, Batch, ConfigIssue, Event, Failure, Filter, StageSetup, Verdict,
    log::{self, Level},
    metrics,
};
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Config {
    #[serde(default)]
    mode: Mode,
    /// Key of the event that sets it off; absent: every event does.
    #[serde(default)]
    on: Option<String>,
    /// Of `burn` and `burn-trap`: how long each call takes.
    #[serde(default)]
    rounds: u64,
    /// Of `burn`: only one batch in so many takes that long.
    #[serde(default)]
    one_in: u64,
    /// Of `hoard`: how much memory each call takes before it loops.
    #[serde(default)]
    bytes: usize,
}

#[derive(Clone, Copy, Default, Deserialize, PartialEq)]
#[serde(rename_all = "kebab-case")]
enum Mode {
    #[default]
    Keep,
    Drop,
    Trap,
    SilentTrap,
    Loop,
    Memory,
    Hoard,
    Stack,
    TooFew,
    TooMany,
    BadReason,
    HugeFailure,
    LogFlood,
    LogHuge,
    MetricFlood,
    Measure,
    Report,
    Burn,
    /// Burns, and then traps on more than one event.
    BurnTrap,
    Fail,
    FailRetry,
    FailHold,
    ConfigureRefuse,
    ConfigureRefuseEmpty,
    ConfigureTrap,
    ConfigureLoop,
    ConfigureMemory,
    SetupHuge,
}

struct Hostile {
    mode: Mode,
    on: Option<String>,
    rounds: u64,
    one_in: u64,
    bytes: usize,
}

impl Filter for Hostile {
    type Config = Config;

    fn configure(config: Config) -> Result<(Hostile, StageSetup), Vec<ConfigIssue>> {
        let mut setup = StageSetup::new(Access::Payload).reasons(["on purpose"]);
        match config.mode {
            Mode::ConfigureRefuse => {
                return Err(vec![
                    ConfigIssue::new("mode", "This mode refuses its configuration.")
                        .help("mode = \"keep\""),
                    ConfigIssue::new("", "The table as a whole is wrong\u{1b}[31m."),
                    ConfigIssue::new("no.such[3].key", "This key is not there."),
                ]);
            }
            Mode::ConfigureRefuseEmpty => return Err(vec![]),
            Mode::ConfigureTrap => panic!("no configuration pleases me"),
            Mode::ConfigureLoop => spin(),
            Mode::ConfigureMemory => devour(),
            Mode::SetupHuge => {
                setup = setup
                    .only((0..100_000).map(|n| format!("type.{n}")))
                    .reasons((0..1000).map(|n| format!("{n}").repeat(1000)));
            }
            _ => {}
        }
        Ok((
            Hostile {
                mode: config.mode,
                on: config.on,
                rounds: config.rounds,
                one_in: config.one_in.max(1),
                bytes: config.bytes,
            },
            setup,
        ))
    }

    fn verdict(&self, _: &Batch, event: &Event) -> Verdict {
        if self.on.as_ref().is_some_and(|key| *key != event.key) {
            return Verdict::Keep;
        }
        match self.mode {
            Mode::Drop => return Verdict::Drop(0),
            Mode::BadReason => return Verdict::Drop(4_000_000_000),
            Mode::Trap => panic!(
                "hostile component: trap on {}\u{1b}[31m\nforged: line",
                event.key
            ),
            Mode::SilentTrap => silent_trap(),
            Mode::Loop => spin(),
            Mode::Memory => devour(),
            Mode::Hoard => {
                log::info("hoards", &[]);
                metrics::add("hoards", 1);
                hoard(self.bytes);
            }
            Mode::Stack => {
                deep(1);
            }
            Mode::LogFlood => (0..10_000).for_each(|n| {
                log::info(
                    &format!("line {n}\r\nforged: line\u{1b}[2J\u{202e}"),
                    &[("n\n", "\0")],
                )
            }),
            Mode::LogHuge => {
                let huge = "a\u{7f}".repeat(1 << 20);
                let fields = vec![("name", huge.as_str()); 4];
                (0..8).for_each(|_| log::error(&huge, &fields));
            }
            Mode::MetricFlood => {
                (0..10_000).for_each(|n| metrics::add(&format!("made up\n{n}"), u32::MAX))
            }
            Mode::Measure => {
                metrics::add("seen", 1);
                metrics::observe("bytes", event.payload.len() as f64);
            }
            Mode::Report => report(),
            _ => {}
        }
        Verdict::Keep
    }

    fn filter(&self, batch: &Batch, events: &[Event]) -> Result<Vec<Verdict>, Failure> {
        // Each call may be the first of its instance, so it cannot count them.
        let sum = |sum: u64, byte| sum.wrapping_mul(31).wrapping_add(u64::from(byte));
        let burns = matches!(self.mode, Mode::Burn | Mode::BurnTrap);
        if burns && batch.id.bytes().fold(0, sum) % self.one_in == 0 {
            (0..self.rounds).for_each(|round| _ = std::hint::black_box(round));
        }
        if self.mode == Mode::BurnTrap && events.len() > 1 {
            silent_trap();
        }
        let set_off = self
            .on
            .as_ref()
            .is_none_or(|key| events.iter().any(|event| event.key == *key));
        let mut verdicts: Vec<_> = events
            .iter()
            .map(|event| self.verdict(batch, event))
            .collect();
        match self.mode {
            Mode::TooFew if set_off => {
                verdicts.pop();
            }
            Mode::TooMany if set_off => verdicts.push(Verdict::Keep),
            Mode::HugeFailure if set_off => return Err(Failure::isolate("x".repeat(32 << 20))),
            Mode::Fail if set_off => return Err(Failure::isolate("this batch cannot be filtered")),
            Mode::FailRetry if set_off => {
                return Err(Failure::retry_after("not yet", 10));
            }
            Mode::FailHold if set_off => return Err(Failure::hold("its licence has expired")),
            _ => {}
        }
        Ok(verdicts)
    }
}

#[allow(clippy::empty_loop)]
fn spin() -> ! {
    loop {
        std::hint::black_box(());
    }
}

/// Logs what it can know of the host's settings.
fn report() {
    let levels = [
        Level::Trace,
        Level::Debug,
        Level::Info,
        Level::Warn,
        Level::Error,
    ];
    let enabled = levels.map(|level| u8::from(log::enabled(level)).to_string());
    let zero = std::hint::black_box(0.0_f32);
    let nan = format!("{:x}", (zero / zero).to_bits());
    log::warn("settings", &[("enabled", &enabled.concat()), ("nan", &nan)]);
}

/// Takes all memory there is, and traps when there is no more.
fn devour() -> ! {
    let mut taken = vec![];
    loop {
        taken.push(std::hint::black_box(vec![1u8; 1 << 20]));
    }
}

/// Takes memory at once, in less time than a call needs to be slow, and never ends.
fn hoard(bytes: usize) -> ! {
    #[cfg(target_arch = "wasm32")]
    if core::arch::wasm32::memory_grow(0, bytes.div_ceil(1 << 16)) == usize::MAX {
        panic!("no memory");
    }
    std::hint::black_box(bytes);
    spin()
}

fn silent_trap() -> ! {
    #[cfg(target_arch = "wasm32")]
    core::arch::wasm32::unreachable();
    #[cfg(not(target_arch = "wasm32"))]
    std::process::abort()
}

/// Ends at the end of the stack.
#[allow(unconditional_recursion)]
fn deep(depth: u64) -> u64 {
    let pad = std::hint::black_box([depth; 64]);
    deep(depth + 1) + pad[7]
}

lockgate_plugin::filter!(Hostile);
