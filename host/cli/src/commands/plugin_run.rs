//! `lockgate plugin run`.

mod batch;
mod flush;

use std::collections::BTreeMap;
use std::io::BufRead;
use std::path::Path;

use lockgate_coverage::Coverage;
use lockgate_lookup::{Databases, Grant, Lookups};
use lockgate_model::contract::StageKind;
use lockgate_registry::ResolveError;
use lockgate_runtime::metrics::Metric;
use lockgate_runtime::{
    Code, Component, ComponentOptions, ConfigureError, Engine, EngineOptions, Kind, Limits, Sink,
    Stage, StageIdentity,
};
use serde_json::Value;

use crate::args::PluginRun;
use crate::failure::{Failure, FailureKind};
use crate::{print, setup};
use batch::Batch;
use flush::flush;

/// The configured plugin.
enum Plugin {
    Stage(Stage),
    Sink(Sink),
}

/// Reads events and prints results: the kept events of a filter, the documents of a mapper, or the
/// requests of a sink, one JSON value per line. With `--coverage`, prints a report on the documents
/// instead.
pub(crate) fn run(command: &PluginRun) -> Result<(), Failure> {
    let lookups = lookups(command)?;
    let plugin = configured(command)?;
    let mut lines = std::io::stdin().lock();
    let mut batch = Batch::new(command, lookups);
    let mut problems = Problems::default();
    let mut drops = Drops::default();
    if let Plugin::Stage(stage) = &plugin
        && stage.uses_state()
    {
        print::problem(
            "The plugin keeps state until this command ends. A pipeline grants it none without \
             `state` in `[plugins.NAME]`.",
        );
    }
    let mut coverage = coverage_for(command, &plugin)?;
    let mut number = 0;
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = lines
            .read_until(b'\n', &mut line)
            .map_err(|error| Failure::failed(format!("Standard input cannot be read: {error}.")))?;
        number += 1;
        if read == 0 {
            break;
        }
        // Some editors begin a file with a byte order mark.
        match std::str::from_utf8(&line).map(|text| text.trim_start_matches('\u{feff}').trim()) {
            Ok("") => continue,
            Ok(text) => batch.push(text, number, &mut problems),
            Err(error) => problems.add(format!("line {number} is not UTF-8: {error}")),
        }
        if batch.len() >= command.batch as usize {
            let coverage = coverage.as_mut();
            flush(&plugin, &mut batch, &mut problems, &mut drops, coverage)?;
        }
    }
    let last = coverage.as_mut();
    flush(&plugin, &mut batch, &mut problems, &mut drops, last)?;
    drops.lines().for_each(|line| print::problem(&line));
    let metrics = match &plugin {
        Plugin::Stage(stage) => stage.metrics(),
        Plugin::Sink(sink) => sink.metrics(),
    };
    for (name, metric) in metrics {
        print::problem(&metric_line(&name, &metric));
    }
    if let Some(coverage) = coverage {
        report(command, coverage, &problems)?;
    }
    match problems.count {
        0 => Ok(()),
        1 => Err(Failure::failed("1 event failed.")),
        count => Err(Failure::failed(format!("{count} events failed."))),
    }
}

/// Counts failed events, and prints each problem when it occurs.
#[derive(Default)]
struct Problems {
    count: u64,
}

impl Problems {
    fn add(&mut self, text: String) {
        self.count += 1;
        print::problem(&text);
    }
}

/// Events that the plugin dropped, by reason: how many, and the line of the first.
#[derive(Default)]
struct Drops(BTreeMap<String, (u64, u64)>);

impl Drops {
    fn add(&mut self, reason: &str, line: u64) {
        match self.0.get_mut(reason) {
            Some((count, _)) => *count += 1,
            None => {
                self.0.insert(reason.to_owned(), (1, line));
            }
        }
    }

    fn lines(&self) -> impl Iterator<Item = String> {
        self.0.iter().map(|(reason, (count, line))| {
            let why = match reason.as_str() {
                "" => " (without a reason)".to_owned(),
                _ => format!(": {reason}"),
            };
            match count {
                1 => format!("1 event dropped, on line {line}{why}"),
                _ => format!("{count} events dropped, the first on line {line}{why}"),
            }
        })
    }
}

/// A metric of the plugin, as it is printed.
fn metric_line(name: &str, metric: &Metric) -> String {
    let (count, sum) = match metric {
        Metric::Counter(count) => return format!("metric {name}: {count}"),
        Metric::Histogram(histogram) => (histogram.count, histogram.sum),
    };
    let plural = if count == 1 { "" } else { "s" };
    let is_short = sum == 0.0 || (1e-6..=1e15).contains(&sum.abs());
    let sum = if is_short {
        format!("{sum}")
    } else {
        format!("{sum:e}")
    };
    format!("metric {name}: {count} observation{plural}, sum {sum}")
}

/// The look-ups: user agents always; places and networks if their databases are given.
fn lookups(command: &PluginRun) -> Result<Lookups, Failure> {
    let grant = Grant {
        city: command.lookup_city.clone(),
        asn: command.lookup_asn.clone(),
        user_agents: true,
    };
    Databases::open(&grant)
        .map(|databases| databases.lookups())
        .map_err(|errors| {
            let messages = errors
                .iter()
                .map(|error| format!("`--lookup-{}`: {error}", error.database));
            Failure::several(FailureKind::Usage, &messages.collect::<Vec<_>>())
        })
}

/// The coverage to collect, if `--coverage` is set.
fn coverage_for(command: &PluginRun, plugin: &Plugin) -> Result<Option<Coverage>, Failure> {
    let other = match plugin {
        _ if !command.coverage => return Ok(None),
        Plugin::Stage(stage) if stage.kind() == StageKind::Mapper => {
            return Ok(Some(Coverage::default()));
        }
        Plugin::Stage(_) => "filter",
        Plugin::Sink(_) => "sink",
    };
    let message = format!(
        "`{}` is a {other}, but `--coverage` needs the documents of a mapper.",
        command.component
    );
    Err(Failure::usage(message)
        .hint("use a mapper, such as `builtin:ecs`, or leave out `--coverage`"))
}

fn report(command: &PluginRun, coverage: Coverage, problems: &Problems) -> Result<(), Failure> {
    let report = coverage.report(&command.component, problems.count);
    if command.json {
        return print::data(&format!(
            "{}\n",
            serde_json::to_string(&report).map_err(Failure::failed)?
        ));
    }
    print::data(&report.text())
}

fn configured(command: &PluginRun) -> Result<Plugin, Failure> {
    let config: Value = serde_json::from_str(&command.with).map_err(|error| {
        Failure::usage(format!("`--with` is not JSON: {error}."))
            .hint(r#"such as `--with '{"skip":["print"]}'`"#)
    })?;
    if !config.is_object() {
        return Err(Failure::usage("`--with` is not a JSON object.")
            .hint(r#"such as `--with '{"skip":["print"]}'`"#));
    }
    let artifact =
        lockgate_registry::resolve(&command.component, Path::new("")).map_err(|error| {
            let failure = Failure::usage(&error);
            match error.hint() {
                // It is about paths in a configuration file.
                Some(_) if matches!(error, ResolveError::Missing { .. }) => failure,
                Some(hint) => failure.hint(hint),
                None => failure,
            }
        })?;
    let limits = Limits {
        time: command.limit_time,
        memory: usize::try_from(command.limit_memory).unwrap_or(usize::MAX),
        ..Limits::default()
    };
    let engine = Engine::new(EngineOptions {
        compiler: setup::compiler(lockgate_config::CompileLimits::default())?,
        memory_total: EngineOptions::default().memory_total.max(limits.memory),
        ..EngineOptions::default()
    })
    .map_err(Failure::failed)?;
    let identity = StageIdentity {
        pipeline: "run".into(),
        stage: command.component.as_str().into(),
        plugin: command.component.as_str().into(),
    };
    let component = super::tokio_runtime()?
        .block_on(Code::compile(&engine, &artifact.name, artifact.bytes))
        .and_then(|code| Component::new(&engine, &artifact.name, code, &limits, identity.clone()))
        .map_err(Failure::usage)?;
    let options = ComponentOptions {
        pipeline: identity.pipeline,
        label: identity.stage,
        plugin: identity.plugin,
        config,
        limits,
        reuse: false,
        state: true,
    };
    let configured = if component.kind() == Kind::HttpSink {
        Sink::configure(&engine, &component, options).map(Plugin::Sink)
    } else {
        Stage::configure(&engine, &component, options).map(Plugin::Stage)
    };
    configured.map_err(|error| match error {
        ConfigureError::Issues(issues) => {
            let message = issues.iter().map(|issue| {
                let place = if issue.path.is_empty() {
                    "`--with`".to_owned()
                } else {
                    format!("`{}` in `--with`", issue.path)
                };
                let help = issue
                    .help
                    .as_ref()
                    .map_or_else(String::new, |help| format!("\nhint: {help}"));
                format!("error: {place}: {}{help}", issue.message)
            });
            Failure::report(message.collect::<Vec<_>>().join("\n"))
        }
        other => Failure::usage(other),
    })
}

#[cfg(test)]
mod tests {
    use lockgate_runtime::metrics::{Histogram, Metric};

    use super::{Drops, metric_line};

    #[test]
    fn metrics_are_printed_on_short_lines() {
        assert_eq!(metric_line("hits", &Metric::Counter(1)), "metric hits: 1");
        for (count, sum, expected) in [
            (1, 72.0, "metric m: 1 observation, sum 72"),
            (2, 0.5, "metric m: 2 observations, sum 0.5"),
            (2, 0.0, "metric m: 2 observations, sum 0"),
            (2, 1e15, "metric m: 2 observations, sum 1000000000000000"),
            (1, 1e308, "metric m: 1 observation, sum 1e308"),
            (1, -1e308, "metric m: 1 observation, sum -1e308"),
            (1, 5e-324, "metric m: 1 observation, sum 5e-324"),
        ] {
            let histogram = Histogram {
                count,
                sum,
                ..Histogram::default()
            };
            assert_eq!(metric_line("m", &Metric::Histogram(histogram)), expected);
        }
    }

    #[test]
    fn drops_are_counted_by_reason() {
        let mut drops = Drops::default();
        for (reason, line) in [("noise", 2), ("", 5), ("noise", 7)] {
            drops.add(reason, line);
        }
        let lines: Vec<_> = drops.lines().collect();
        assert_eq!(
            lines,
            [
                "1 event dropped, on line 5 (without a reason)",
                "2 events dropped, the first on line 2: noise",
            ]
        );
    }
}
