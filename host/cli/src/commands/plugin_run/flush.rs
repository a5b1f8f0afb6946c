//! Runs the plugin over one batch.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use lockgate_config::PluginLimits;
use lockgate_engine::{
    BatchError, DocumentIndex, Documents, Encoding, EntryIndex, Fates, OutgoingRequest, StageRun,
    Step,
};
use lockgate_model::contract::{BatchContext, CallError};
use lockgate_model::request::RequestRules;
use lockgate_model::{Block, FeedKind, Millis, Slice};
use lockgate_service::{BoundSink, BoundStage};
use serde_json::{Value, json};

use super::batch::Batch;
use super::{Drops, Plugin, Problems};
use crate::failure::Failure;
use crate::{print, setup};
use lockgate_coverage::Coverage;

/// Attempts with the same batch if the plugin asks for a retry.
const ATTEMPTS: u32 = 5;

/// Runs the plugin over a batch, and prints the results or adds them to the coverage.
pub(super) fn flush(
    plugin: &Plugin,
    batch: &mut Batch<'_>,
    problems: &mut Problems,
    drops: &mut Drops,
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
    let documents = || Documents::new(batch_context(number, now), events.clone());
    let mut out = Vec::new();
    match plugin {
        Plugin::Stage(stage) => {
            let bound = [BoundStage {
                stage: stage.clone(),
                lookups: batch.lookups.clone(),
                meter: None,
            }];
            let passed = with_retries(|| {
                let states = vec![batch.state.continued()];
                let mut run = StageRun::new(documents(), states, cpu_budget(), None);
                step(|| run.step(&bound))?;
                Ok(run.into_output())
            })?;
            batch.state = passed.states.into_iter().next().unwrap_or_default();
            let (documents, fates) = (&passed.documents, &passed.fates);
            for entry in (0..documents.entries()).map(EntryIndex::new) {
                if let Some((_, reason)) = fates.death(entry) {
                    problems.add(format!("line {}: {reason}", lines[entry.get()]));
                } else if let Some(reason) = fates.drop_reason(entry) {
                    drops.add(&reason, lines[entry.get()]);
                }
            }
            let open = fates.open(documents);
            match coverage {
                Some(coverage) => collect_coverage(coverage, &events, documents, fates, &open),
                None => open
                    .iter()
                    .for_each(|&document| line(&mut out, documents.payload(document))),
            }
        }
        Plugin::Sink(sink) => {
            let (label, types) = (sink.label().into(), Arc::new(sink.setup().types.clone()));
            let mut run = StageRun::new(documents(), vec![], cpu_budget(), Some((label, types)));
            // Without stages, the run cannot stop.
            run.step::<BoundStage>(&[]);
            let passed = run.into_output();
            for entry in (0..passed.documents.entries()).map(EntryIndex::new) {
                if let Some(reason) = passed.fates.drop_reason(entry) {
                    drops.add(&reason, lines[entry.get()]);
                }
            }
            let open = passed.fates.open(&passed.documents);
            let documents = Arc::new(passed.documents);
            let bound = BoundSink {
                sink: sink.clone(),
                rules: Arc::new(RequestRules::default()),
                meter: None,
            };
            let most = sink
                .setup()
                .max_documents
                .map_or(usize::MAX, |most| most as usize);
            let bytes = sink
                .setup()
                .max_bytes
                .map_or(usize::MAX, |most| most as usize);
            let made = with_retries(|| {
                let mut encoding =
                    Encoding::new(documents.clone(), &open, most, bytes, cpu_budget());
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

/// Adds the result of each event to the coverage.
fn collect_coverage(
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

fn batch_context(number: u64, now: Millis) -> BatchContext {
    BatchContext {
        id: format!("run/stdin/{number}").into(),
        pipeline: "run".into(),
        source: "stdin".into(),
        read_at: now,
    }
}

/// CPU time for one batch, as a pipeline has by default.
fn cpu_budget() -> Duration {
    PluginLimits::default().batch_time
}

/// Repeats a step until it is done.
fn step(mut next: impl FnMut() -> Step) -> Result<(), BatchError> {
    loop {
        match next() {
            Step::More => {}
            Step::Done => return Ok(()),
            Step::Failed(error) => return Err(error),
        }
    }
}

/// Retries like a pipeline, but only a few times.
fn with_retries<T>(mut attempt: impl FnMut() -> Result<T, BatchError>) -> Result<T, Failure> {
    for left in (0..ATTEMPTS).rev() {
        let error = match attempt() {
            Ok(result) => return Ok(result),
            Err(BatchError::Component { error, .. }) => error,
            Err(BatchError::CpuBudget { budget, .. }) => {
                return Err(Failure::failed(format!(
                    "The plugin used more than {} s of CPU time for a batch.",
                    budget.as_secs()
                ))
                .hint(
                    "a pipeline would hold the batch: raise `limits.batch-time` there; here, lower \
                     `--batch`",
                ));
            }
            Err(BatchError::TooMuch { made, .. }) => {
                return Err(Failure::failed(format!(
                    "The plugin made too much of one batch: {made}."
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
                "The plugin asked for a retry {ATTEMPTS} times: {message}."
            )));
        }
        print::problem(&format!("the plugin asked for a retry: {message}"));
        let wait = after.unwrap_or(Duration::from_millis(100));
        std::thread::sleep(wait.min(Duration::from_secs(5)));
    }
    Err(Failure::failed("The plugin was not called."))
}
