use std::io::{BufRead, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use lockgate_engine::{
    DocumentIndex, Documents, Encoding, EntryIndex, Fates, OutgoingRequest, StageRun, Step, Stop,
};
use lockgate_lookup::{Databases, Grant, Lookups};
use lockgate_model::contract::{BatchInfo, CallError};
use lockgate_model::request::RequestRules;
use lockgate_model::{
    Block, BlockBuilder, BlockParts, FeedKind, FeedRef, Head, Millis, Slice, StateOverlay, key_of,
};
use lockgate_runtime::{
    Code, Component, ConfigureError, Engine, EngineOptions, Kind, Limits, Sink, Stage,
    StageOptions, check_object, put_on_one_line,
};
use lockgate_service::{BoundSink, BoundStage};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::args::PluginRun;
use crate::coverage::Coverage;
use crate::failure::Failure;
use crate::{print, setup};

/// A plugin that says `retryable` gets the same batch again, so often.
const ATTEMPTS: u32 = 5;

/// CPU time for one batch.
const CPU_BUDGET: Duration = Duration::from_secs(60);

/// Bytes of state for a plugin that keeps some, for as long as the command runs.
const STATE_MAX: usize = 64 << 20;

/// The plugin, as its world wants it.
enum Configured {
    Stage(Stage),
    Sink(Sink),
}

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
    let plugin = configured(command)?;
    let mut lines = std::io::stdin().lock();
    let mut batch = Batch::new(command, lookups);
    let mut problems = Problems::default();
    let mut coverage = covered(command, &plugin)?;
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
            flush(&plugin, &mut batch, &mut problems, coverage.as_mut())?;
        }
    }
    flush(&plugin, &mut batch, &mut problems, coverage.as_mut())?;
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
                .map(|error| format!("error: `--lookup-{}`: {error}", error.database));
            Failure::report(told.collect::<Vec<_>>().join("\n"))
        })
}

/// Where documents are counted instead of printed.
fn covered(command: &PluginRun, plugin: &Configured) -> Result<Option<Coverage>, Failure> {
    let other = match plugin {
        _ if !command.coverage => return Ok(None),
        Configured::Stage(stage) if stage.kind() == Kind::Mapper => {
            return Ok(Some(Coverage::default()));
        }
        Configured::Stage(_) => "filter",
        Configured::Sink(_) => "sink",
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

fn configured(command: &PluginRun) -> Result<Configured, Failure> {
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
        state: true,
    };
    let configured = if component.kind() == Kind::HttpSink {
        Sink::configure(&engine, &component, options).map(Configured::Sink)
    } else {
        Stage::configure(&engine, &component, options).map(Configured::Stage)
    };
    configured.map_err(|error| match error {
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
    state: StateOverlay,
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
            state: StateOverlay::new(Arc::default(), STATE_MAX),
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
        let mut text = text.to_owned();
        put_on_one_line(&mut text);
        self.builder.push(head, &text);
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
    plugin: &Configured,
    batch: &mut Batch<'_>,
    problems: &mut Problems,
    coverage: Option<&mut Coverage>,
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
    let rows = 0..block.len();
    let events = lockgate_model::Batch {
        slices: vec![Slice { block, rows }],
    };
    let documents = || Documents::new(batch_info(number, now), events.clone());
    let mut out = Vec::new();
    match plugin {
        Configured::Stage(stage) => {
            let bound = [BoundStage {
                stage: stage.clone(),
                lookups: batch.lookups.clone(),
            }];
            let passed = again(|| {
                let states = vec![batch.state.continued()];
                let mut run = StageRun::new(documents(), states, CPU_BUDGET, None);
                step(|| run.step(&bound))?;
                Ok(run.into_output())
            })?;
            batch.state = passed.states.into_iter().next().unwrap_or_default();
            let (documents, fates) = (&passed.documents, &passed.fates);
            for entry in (0..documents.entries()).map(EntryIndex::new) {
                if let Some((_, reason)) = fates.death(entry) {
                    problems.add(format!("line {}: {reason}", lines[entry.get()]));
                }
            }
            let open = fates.open(documents);
            match coverage {
                Some(coverage) => cover(coverage, &events, documents, fates, &open),
                None => open
                    .iter()
                    .for_each(|&document| line(&mut out, documents.payload(document))),
            }
        }
        Configured::Sink(sink) => {
            let (label, types) = (sink.label().into(), Arc::new(sink.setup().types.clone()));
            let mut run = StageRun::new(documents(), vec![], CPU_BUDGET, Some((label, types)));
            // No stage can stop it.
            run.step::<BoundStage>(&[]);
            let passed = run.into_output();
            let open = passed.fates.open(&passed.documents);
            let documents = Arc::new(passed.documents);
            let bound = BoundSink {
                sink: sink.clone(),
                rules: Arc::new(RequestRules::default()),
            };
            let most = sink
                .setup()
                .max_documents
                .map_or(usize::MAX, |most| most as usize);
            let bytes = sink
                .setup()
                .max_bytes
                .map_or(usize::MAX, |most| most as usize);
            let made = again(|| {
                let mut encoding = Encoding::new(documents.clone(), &open, most, bytes, CPU_BUDGET);
                step(|| encoding.step(&bound))?;
                Ok(encoding.into_output())
            })?;
            for outgoing in made.requests {
                line(&mut out, &request(&outgoing, &documents).to_string());
            }
            for (document, reason) in made.rejected {
                let entry = documents.entry(document);
                problems.add(format!("line {}: {reason}", lines[entry.get()]));
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

fn line(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(text.as_bytes());
    out.push(b'\n');
}

/// What a mapper made of each event, for the report.
fn cover(
    coverage: &mut Coverage,
    events: &lockgate_model::Batch,
    documents: &Documents,
    fates: &Fates,
    open: &[DocumentIndex],
) {
    for (row, event) in events.views().enumerate() {
        let entry = EntryIndex::new(row);
        let made = open
            .iter()
            .filter(|&&document| documents.entry(document) == entry);
        let texts: Vec<String> = made
            .map(|&document| documents.payload(document).to_owned())
            .collect();
        if fates.death(entry).is_some() {
            coverage.failed(event.event_type);
        } else if texts.is_empty() {
            coverage.dropped(event.event_type);
        } else {
            coverage.mapped(event.event_type, event.payload, &texts);
        }
    }
}

fn request(outgoing: &OutgoingRequest, documents: &Documents) -> Value {
    let pairs = |pairs: &[(String, String)]| {
        pairs
            .iter()
            .map(|(name, value)| json!([name, value]))
            .collect::<Vec<_>>()
    };
    let carries = outgoing.documents.iter().map(|document| document.get());
    json!({
        "method": outgoing.request.method().as_str(),
        "path-suffix": outgoing.request.path_suffix(),
        "query": pairs(outgoing.request.query()),
        "headers": pairs(outgoing.request.headers()),
        "tag": outgoing.request.tag(),
        "carries": carries.collect::<Vec<_>>(),
        "body": String::from_utf8_lossy(&outgoing.body(documents)),
    })
}

fn batch_info(number: u64, now: Millis) -> BatchInfo {
    BatchInfo {
        id: format!("run/stdin/{number}").into(),
        pipeline: "run".into(),
        source: "stdin".into(),
        read_at: now,
    }
}

/// Steps until done.
fn step(mut next: impl FnMut() -> Step) -> Result<(), Stop> {
    loop {
        match next() {
            Step::More => {}
            Step::Done => return Ok(()),
            Step::Stopped(stop) => return Err(stop),
        }
    }
}

/// As a pipeline does, but not for ever.
fn again<T>(mut attempt: impl FnMut() -> Result<T, Stop>) -> Result<T, Failure> {
    for left in (0..ATTEMPTS).rev() {
        let error = match attempt() {
            Ok(result) => return Ok(result),
            Err(Stop::Component { error, .. }) => error,
            Err(Stop::CpuBudget { budget, .. }) => {
                return Err(Failure::failed(format!(
                    "The plugin used more than {} ms of CPU time for a batch.",
                    budget.as_millis()
                )));
            }
            Err(Stop::TooManyDocuments { documents, .. }) => {
                return Err(Failure::failed(format!(
                    "The plugin made {documents} documents of a batch, more than the host keeps."
                ))
                .hint("a smaller `--batch` may help"));
            }
        };
        let CallError::Retry { message, after } = error else {
            return Err(Failure::failed(format!(
                "The plugin cannot process a batch: {error}."
            )));
        };
        if left == 0 {
            return Err(Failure::failed(format!(
                "The plugin asked for the same batch again {ATTEMPTS} times: {message}."
            )));
        }
        print::problem(&format!(
            "the plugin asks for the same batch again: {message}"
        ));
        let wait = after.unwrap_or(Duration::from_millis(100));
        std::thread::sleep(wait.min(Duration::from_secs(5)));
    }
    Err(Failure::failed("The plugin was not called."))
}
