use std::io::{BufRead, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use lockgate_lookup::{Databases, Grant, Lookups};
use lockgate_model::{
    Block, BlockBuilder, BlockParts, DocumentView, EventView, FeedKind, FeedRef, Head, Millis,
    key_of,
};
use lockgate_runtime::{
    Code, Component, ConfigureError, Context, Engine, EngineOptions, Isolated, Kind, Limits,
    Mapped, Postponed, Stage, StageOptions, Verdict, check_object,
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::args::PluginRun;
use crate::coverage::Coverage;
use crate::failure::Failure;
use crate::{print, setup};

/// A plugin that says `retryable` gets the same batch again, so often.
const ATTEMPTS: u32 = 5;

/// The fields of an event that the host passes beside the payload.
#[derive(Deserialize)]
struct Fields {
    #[serde(default)]
    event: String,
    #[serde(default)]
    code: String,
    #[serde(default)]
    time: String,
    #[serde(default)]
    ei: i64,
    #[serde(default)]
    uid: String,
    #[serde(default)]
    sid: String,
}

/// Events in, results out: kept events of a filter, documents of a mapper, requests of a sink, one
/// JSON value a line. With `--coverage` a report on the documents instead.
pub(crate) fn run(command: &PluginRun) -> Result<(), Failure> {
    let lookups = lookups(command)?;
    let stage = stage(command)?;
    let mut lines = std::io::stdin().lock();
    let mut batch = Batch::new(command, lookups);
    let mut problems = Problems::default();
    let mut coverage = covered(command, &stage)?;
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
        // A byte order mark is what some editors begin a file with.
        match std::str::from_utf8(&line).map(|text| text.trim_start_matches('\u{feff}').trim()) {
            Ok("") => continue,
            Ok(text) => batch.push(text, number, &mut problems),
            Err(error) => problems.add(format!("line {number} is not UTF-8: {error}")),
        }
        if batch.len() >= command.batch as usize {
            flush(&stage, &mut batch, &mut problems, coverage.as_mut())?;
        }
    }
    flush(&stage, &mut batch, &mut problems, coverage.as_mut())?;
    if let Some(coverage) = coverage {
        report(command, coverage, &problems)?;
    }
    match problems.count {
        0 => Ok(()),
        1 => Err(Failure::failed("1 event has no result.")),
        count => Err(Failure::failed(format!("{count} events have no result."))),
    }
}

/// Events without a result. Each is told where it occurs.
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

/// User agents are always there; places and networks where they are given.
fn lookups(command: &PluginRun) -> Result<Lookups, Failure> {
    let grant = Grant {
        city: command.lookup_city.clone(),
        asn: command.lookup_asn.clone(),
        user_agents: true,
    };
    Databases::open(&grant)
        .map(|databases| databases.lookups())
        .map_err(|errors| {
            let told = errors
                .iter()
                .map(|error| format!("error: `--lookup-{}`: {error}", error.which));
            Failure::report(told.collect::<Vec<_>>().join("\n"))
        })
}

/// Where documents are counted instead of printed.
fn covered(command: &PluginRun, stage: &Stage) -> Result<Option<Coverage>, Failure> {
    let other = match stage.kind() {
        _ if !command.coverage => return Ok(None),
        Kind::Mapper => return Ok(Some(Coverage::default())),
        Kind::Filter => "filter",
        Kind::HttpSink => "sink",
    };
    let told = format!(
        "`{}` is a {other}, and `--coverage` looks at the documents of a mapper.",
        command.component
    );
    Err(Failure::usage(told)
        .hint("name a mapper, such as `builtin:ecs`, or leave out `--coverage`"))
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

fn stage(command: &PluginRun) -> Result<Stage, Failure> {
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
    let component = super::tokio_runtime()?
        .block_on(Code::compile(&engine, &artifact.name, &artifact.bytes))
        .and_then(|code| Component::new(&engine, &artifact.name, code, &limits))
        .map_err(Failure::usage)?;
    let options = StageOptions {
        pipeline: "run".into(),
        label: command.component.as_str().into(),
        plugin: command.component.as_str().into(),
        config,
        limits,
        reuse: false,
    };
    Stage::configure(&engine, &component, options).map_err(|error| match error {
        ConfigureError::Issues(issues) => {
            let told = issues.iter().map(|issue| {
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
            Failure::report(told.collect::<Vec<_>>().join("\n"))
        }
        other => Failure::usage(other),
    })
}

struct Batch<'a> {
    command: &'a PluginRun,
    lookups: Lookups,
    builder: BlockBuilder,
    /// Line numbers of the events.
    lines: Vec<u64>,
    number: u64,
}

impl Batch<'_> {
    fn new(command: &PluginRun, lookups: Lookups) -> Batch<'_> {
        Batch {
            command,
            lookups,
            builder: BlockBuilder::new(),
            lines: Vec::new(),
            number: 0,
        }
    }

    fn len(&self) -> usize {
        self.builder.len()
    }

    fn push(&mut self, text: &str, line: u64, problems: &mut Problems) {
        if let Err(fault) = check_object(text) {
            let hint = if matches!(text, "{" | "[") {
                "; each line is one event, as `jq -c .` writes them"
            } else {
                ""
            };
            return problems.add(format!("line {line} is no event: {fault}{hint}"));
        }
        let fields: Fields = match serde_json::from_str(text) {
            Ok(fields) => fields,
            Err(error) => {
                return problems.add(format!("line {line} is no event of Teleport's: {error}"));
            }
        };
        let feed = self
            .command
            .session
            .as_deref()
            .map_or(FeedRef::Audit, FeedRef::Session);
        let key = key_of(feed, &fields.uid, text.as_bytes());
        let session = self.command.session.as_deref().unwrap_or(&fields.sid);
        let time = fields
            .time
            .parse::<jiff::Timestamp>()
            .map_or(0, |time| time.as_millisecond());
        let head = Head {
            key: &key,
            event_type: &fields.event,
            code: &fields.code,
            time,
            index: fields.ei,
            session,
        };
        self.builder.push(head, text);
        self.lines.push(line);
    }

    fn take(&mut self) -> (BlockParts, Vec<u64>, u64) {
        self.number += 1;
        (
            self.builder.take(),
            std::mem::take(&mut self.lines),
            self.number,
        )
    }
}

fn flush(
    stage: &Stage,
    batch: &mut Batch<'_>,
    problems: &mut Problems,
    mut coverage: Option<&mut Coverage>,
) -> Result<(), Failure> {
    if batch.len() == 0 {
        return Ok(());
    }
    let feed = if batch.command.session.is_some() {
        FeedKind::Sessions
    } else {
        FeedKind::Audit
    };
    let (parts, lines, number) = batch.take();
    let now = setup::now();
    let block = Arc::new(Block::new("stdin".into(), feed, 1, now, parts));
    let context = context(number, now, batch.lookups.clone());
    let events: Vec<EventView<'_>> = (0..block.len()).map(|row| block.view(row)).collect();
    let mut out = Vec::new();
    let mut emit = |text: &str| {
        out.extend_from_slice(text.as_bytes());
        out.push(b'\n');
    };
    match stage.kind() {
        Kind::Filter => {
            // The host applies type lists before any call, here as in a pipeline.
            let wanted: Vec<usize> = (0..events.len())
                .filter(|&row| {
                    stage
                        .setup()
                        .wants(events[row].event_type, events[row].feed)
                })
                .collect();
            let views: Vec<_> = wanted.iter().map(|&row| events[row]).collect();
            for (row, verdict) in wanted
                .into_iter()
                .zip(again(|| stage.filter_isolated(&context, &views))?)
            {
                match verdict {
                    Isolated::Result(Verdict::Keep) => emit(events[row].payload),
                    Isolated::Result(Verdict::Drop(_)) => {}
                    Isolated::Dead(reason) => {
                        problems.add(format!("line {}: {reason}", lines[row]))
                    }
                }
            }
        }
        Kind::Mapper => {
            let (wanted, passed): (Vec<usize>, Vec<usize>) = (0..events.len()).partition(|&row| {
                stage
                    .setup()
                    .wants(events[row].event_type, events[row].feed)
            });
            let views: Vec<_> = wanted.iter().map(|&row| events[row]).collect();
            let results = wanted
                .into_iter()
                .zip(again(|| stage.transform_isolated(&context, &views))?);
            if let Some(coverage) = &mut coverage {
                passed
                    .into_iter()
                    .for_each(|row| coverage.dropped(events[row].event_type));
            }
            for (row, mapped) in results {
                let event = &events[row];
                match (mapped, &mut coverage) {
                    (Isolated::Result(Mapped::Emit(texts)), Some(coverage))
                        if !texts.is_empty() =>
                    {
                        coverage.mapped(event.event_type, event.payload, &texts);
                    }
                    (Isolated::Result(Mapped::Emit(_) | Mapped::Drop(_)), Some(coverage)) => {
                        coverage.dropped(event.event_type)
                    }
                    (Isolated::Result(Mapped::Emit(texts)), None) => {
                        texts.iter().for_each(|text| emit(text))
                    }
                    (Isolated::Result(Mapped::Drop(_)), None) => {}
                    (
                        Isolated::Result(Mapped::Reject(reason)) | Isolated::Dead(reason),
                        coverage,
                    ) => {
                        if let Some(coverage) = coverage {
                            coverage.failed(event.event_type);
                        }
                        problems.add(format!("line {}: {reason}", lines[row]));
                    }
                }
            }
        }
        Kind::HttpSink => {
            let wanted: Vec<usize> = (0..events.len())
                .filter(|&row| {
                    stage
                        .setup()
                        .wants(events[row].event_type, events[row].feed)
                })
                .collect();
            let documents: Vec<DocumentView<'_>> = wanted
                .iter()
                .map(|&row| events[row])
                .map(
                    |EventView {
                         key,
                         event_type,
                         time,
                         feed,
                         payload,
                         ..
                     }| DocumentView {
                        key,
                        event_type,
                        time,
                        feed,
                        payload,
                    },
                )
                .collect();
            let encoded = again(|| stage.encode_isolated(&context, &documents, &[]))?;
            for request in encoded.requests {
                let pairs = |pairs: &[(String, String)]| {
                    pairs
                        .iter()
                        .map(|(name, value)| json!([name, value]))
                        .collect::<Vec<_>>()
                };
                let request = json!({
                    "method": request.method().as_str(),
                    "path-suffix": request.path_suffix(),
                    "query": pairs(request.query()),
                    "headers": pairs(request.headers()),
                    "carries": request.carries(),
                    "body": String::from_utf8_lossy(request.body()),
                });
                emit(&request.to_string());
            }
            for (index, reason) in encoded.rejected {
                problems.add(format!("line {}: {reason}", lines[wanted[index as usize]]));
            }
        }
    }
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(&out).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(Failure::failed(
            format!("Standard output cannot be written: {error}."),
        )),
        _ => Ok(()),
    }
}

fn context(number: u64, now: Millis, lookups: Lookups) -> Context {
    Context {
        batch: format!("run/stdin/{number}"),
        pipeline: "run".into(),
        source: "stdin".into(),
        read_at: now,
        lookups,
    }
}

/// As a pipeline does, but not for ever.
fn again<T>(mut call: impl FnMut() -> Result<T, Postponed>) -> Result<T, Failure> {
    let mut attempt = 1;
    loop {
        match call() {
            Ok(result) => return Ok(result),
            Err(Postponed { message, .. }) if attempt == ATTEMPTS => {
                return Err(Failure::failed(format!(
                    "The plugin asked for the same batch again {ATTEMPTS} times: {message}."
                )));
            }
            Err(Postponed { message, after }) => {
                print::problem(&format!(
                    "the plugin asks for the same batch again: {message}"
                ));
                std::thread::sleep(
                    after
                        .unwrap_or(Duration::from_millis(100))
                        .min(Duration::from_secs(5)),
                );
                attempt += 1;
            }
        }
    }
}
