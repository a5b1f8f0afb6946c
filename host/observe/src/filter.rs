//! The filter of the log, from the operator's text.

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::{ParseError, Targets};

/// The prefix of our crates' targets.
const OURS: &str = "lockgate";

/// The target of plugins' log lines, which are written for the operator.
const PLUGINS: &str = "plugin";

/// The target of records that stand for what a command must not keep to itself: problems of the
/// configuration, and why it failed. They are logged whatever the filter is.
pub const PROBLEMS: &str = "lockgate::problem";

/// Parses `debug`, or directives such as `info,lockgate_teleport=debug`.
///
/// An empty filter means `info`. A level without a target applies to our own crates and plugins.
/// Libraries log only warnings unless they are named: at `debug`, an HTTP client logs the addresses
/// it connects to.
pub fn parse(text: &str) -> Result<Targets, ParseError> {
    let given: Targets = if text.trim().is_empty() { "info" } else { text }.parse()?;
    let level = given.default_level().unwrap_or(LevelFilter::OFF);
    Ok(Targets::new()
        .with_default(level.min(LevelFilter::WARN))
        .with_target(OURS, level)
        .with_target(PLUGINS, level)
        .with_targets(given)
        .with_target(PROBLEMS, LevelFilter::WARN))
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn a_bare_level_applies_to_our_crates_and_plugins() {
        for (text, target, most) in [
            ("", "plugin", Some(Level::INFO)),
            ("debug", "plugin", Some(Level::DEBUG)),
            ("debug,plugin=warn", "plugin", Some(Level::WARN)),
            ("", "lockgate_egress::client", Some(Level::INFO)),
            ("", "hyper::client", Some(Level::WARN)),
            ("debug", "lockgate_egress", Some(Level::DEBUG)),
            ("debug", "hyper::client", Some(Level::WARN)),
            ("trace,hyper=debug", "hyper::client", Some(Level::DEBUG)),
            ("error", "hyper::client", Some(Level::ERROR)),
            (
                "info,lockgate_teleport=trace",
                "lockgate_teleport::bulk",
                Some(Level::TRACE),
            ),
            (
                "info,lockgate_teleport=trace",
                "lockgate_store",
                Some(Level::INFO),
            ),
            ("off", "lockgate_store", None),
            ("off", PROBLEMS, Some(Level::WARN)),
            ("lockgate_store=info", "lockgate_egress", None),
        ] {
            let filter = parse(text).unwrap();
            let levels = [
                Level::TRACE,
                Level::DEBUG,
                Level::INFO,
                Level::WARN,
                Level::ERROR,
            ];
            let passed = levels
                .into_iter()
                .find(|level| filter.would_enable(target, level));
            assert_eq!(passed, most, "{text:?} for {target}");
        }
        assert!(parse("info,lockgate=loud").is_err());
    }
}
