//! `lockgate demo`: a host between a simulated Teleport cluster and a simulated receiver.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use lockgate_config::ProcessEnvironment;
use lockgate_model::Books;
use lockgate_observe::{Format, Masks, process};
use lockgate_service::{Board, Host, ShutdownTrigger};
use lockgate_store::{Ledger, Store};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::Instant;

use crate::args::Demo;
use crate::failure::Failure;
use crate::signals::Signals;
use crate::{print, setup};

/// The configuration that the demo runs. With `--keep`, people read it, too.
const CONFIG: &str = include_str!("demo.toml");

/// In the source tree; an installed binary lacks it.
const QUICKSTART: &str = "examples/quickstart";

const SINK: &str = "[pipelines.siem.sink]\n";

/// Replaces [`SINK`] with `--ecs`: these documents have `@timestamp` and need no `time` in
/// Fluentd's format.
const ECS: &str = "[[pipelines.siem.stage]]\nplugin = \"builtin:ecs\"\n\n[pipelines.siem.sink]\nwith   = { time = \"keep\" }\n";

/// How long a simulator may take to start, and to print its totals.
const SIMULATOR_TIMEOUT: Duration = Duration::from_secs(30);

/// The output of `--json`. `cpu_us_per_event` and `rss_mb` are those of the host process alone; the
/// simulators are separate processes.
#[derive(Serialize)]
struct DemoReport {
    read: u64,
    delivered: u64,
    dropped: u64,
    dead: u64,
    waiting: u64,
    seconds: f64,
    events_per_second: f64,
    /// `null` if no event was read.
    cpu_us_per_event: Option<f64>,
    /// Resident memory at the end.
    rss_mb: f64,
    /// Documents that the receiver accepted, and the number of distinct ids.
    receiver_documents: u64,
    receiver_distinct: u64,
}

#[derive(Deserialize)]
struct Totals {
    documents: u64,
    distinct: u64,
}

/// Runs the host in this process, and two simulators as child processes on loopback sockets.
pub(crate) fn run(command: Demo, masks: &Masks) -> Result<(), Failure> {
    let scratch = match &command.keep {
        Some(_) => None,
        None => Some(tempfile::tempdir().map_err(|error| {
            Failure::failed(format!("Creating a temporary directory failed: {error}."))
        })?),
    };
    let dir = match (&command.keep, &scratch) {
        (Some(keep), _) => new_directory(keep)?,
        (None, Some(scratch)) => scratch.path().to_owned(),
        (None, None) => return Err(Failure::failed("The demo has no directory.")),
    };
    super::tokio_runtime()?.block_on(demo(&command, &dir, masks))
}

fn new_directory(dir: &Path) -> Result<PathBuf, Failure> {
    std::fs::create_dir(dir).map_err(|error| {
        Failure::usage(format!(
            "`--keep {}`: the directory cannot be created: {error}.",
            dir.display()
        ))
        .hint("choose a directory that does not exist yet")
    })?;
    dir.canonicalize().map_err(Failure::failed)
}

async fn demo(command: &Demo, dir: &Path, masks: &Masks) -> Result<(), Failure> {
    if !command.json {
        print::problem(&format!(
            "Delivering {} events from a simulated Teleport cluster to a simulated receiver.",
            grouped(command.events)
        ));
    }
    let mut signals = Signals::new()?;
    let (events, seed) = (command.events.to_string(), command.seed.to_string());
    let auth_dir = dir.join("auth");
    let mut auth =
        Simulator::start("auth", &auth_dir, &["--events", &events, "--seed", &seed]).await?;
    let receiver_dir = dir.join("receiver");
    let samples = dir.join("samples.ndjson");
    let latency = format!("{}ms", command.latency.as_millis());
    let capture = samples.display().to_string();
    let mut receiver = Simulator::start(
        "receiver",
        &receiver_dir,
        &[
            "--latency",
            &latency,
            "--capture",
            &capture,
            "--capture-max",
            "3",
        ],
    )
    .await?;

    let file = dir.join("lockgate.toml");
    let text = CONFIG
        .replace(SINK, if command.ecs { ECS } else { SINK })
        .replace("@AUTH@", &auth.address)
        // The receiver's certificate is for this name.
        .replace(
            "@RECEIVER@",
            &receiver.address.replace("127.0.0.1", "localhost"),
        );
    std::fs::write(&file, text).map_err(|error| {
        Failure::failed(format!("`{}` cannot be written: {error}.", file.display()))
    })?;
    let config = setup::load(&file, masks)?;

    let store = Store::open(setup::store_options(&config)).map_err(Failure::failed)?;
    let load = {
        let (file, masks) = (file.clone(), masks.clone());
        Arc::new(move || setup::load_with(&file, &masks, &ProcessEnvironment))
    };
    let plan = setup::plan(&file, &config, masks, &store, load, true, Format::Text)?;
    let (begun, cpu_before) = (Instant::now(), process::cpu_micros().unwrap_or(0));
    let (_stopper, stop) = ShutdownTrigger::new();
    let host = Host::new(setup::now());
    let listeners = host.listen(&config.store.path, config.admin.listen).await;
    let progress = (!command.json).then(|| {
        tokio::spawn(show_progress(
            host.board().clone(),
            store.clone(),
            command.events,
        ))
    });
    // Returning drops the simulators, which ends them.
    let ran = tokio::select! {
        ran = host.run(plan, &store, stop) => ran,
        signal = signals.next() => return Err(Failure::failed(format!("The demo was stopped by {signal}."))),
        _ = auth.child.wait() => return Err(Failure::failed("`lockgate sim auth` ended unexpectedly.")),
        _ = receiver.child.wait() => return Err(Failure::failed("`lockgate sim receiver` ended unexpectedly.")),
    };
    let seconds = begun.elapsed().as_secs_f64();
    let cpu = process::cpu_micros()
        .unwrap_or(0)
        .saturating_sub(cpu_before);
    let rss = process::rss_bytes().unwrap_or(0);
    if let Some(progress) = progress {
        progress.abort();
        let _ = progress.await;
    }
    listeners.close().await;
    ran.map_err(Failure::failed)?;

    let mut books = Books::default();
    for (_, stream) in store.reads().books("siem").map_err(Failure::failed)? {
        books += stream;
    }
    store.close().await.map_err(Failure::failed)?;
    let totals = receiver.totals().await?;
    auth.stop();
    let report = DemoReport {
        read: books.read,
        delivered: books.delivered,
        dropped: books.dropped,
        dead: books.dead,
        waiting: books.waiting,
        seconds,
        events_per_second: books.read as f64 / seconds,
        cpu_us_per_event: (books.read > 0).then(|| cpu as f64 / books.read as f64),
        rss_mb: rss as f64 / 1e6,
        receiver_documents: totals.documents,
        receiver_distinct: totals.distinct,
    };
    if command.json {
        print::data(&format!(
            "{}\n",
            serde_json::to_string(&report).map_err(Failure::failed)?
        ))?;
    } else {
        print::progress(
            &progress_line(
                books.read,
                books.delivered + books.dropped + books.dead,
                command.events,
                begun.elapsed(),
            ),
            true,
        );
        print::data(&summary(&report, &samples, command.keep.as_deref())?)?;
    }
    if !books.balance() || books.waiting > 0 || totals.distinct != books.delivered {
        return Err(Failure::failed(
            "The counts do not add up, or the receiver got other ids than were delivered. Please report this as a bug.",
        ));
    }
    Ok(())
}

/// A child process that runs `lockgate sim`. Dropping it ends the process.
struct Simulator {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    address: String,
}

impl Simulator {
    async fn start(
        kind: &'static str,
        dir: &Path,
        arguments: &[&str],
    ) -> Result<Simulator, Failure> {
        let failed = |what: String| Failure::failed(format!("`lockgate sim {kind}` {what}."));
        let program =
            std::env::current_exe().map_err(|error| failed(format!("cannot be found: {error}")))?;
        let mut child = Command::new(program)
            .args([
                "--log",
                "warn",
                "sim",
                kind,
                "--listen",
                "127.0.0.1:0",
                "--out",
            ])
            .arg(dir)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| failed(format!("cannot be started: {error}")))?;
        let stdout = child
            .stdout
            .take()
            .ok_or_else(|| failed("has no output".into()))?;
        let mut lines = BufReader::new(stdout).lines();
        let first = tokio::time::timeout(SIMULATOR_TIMEOUT, lines.next_line()).await;
        let Ok(Ok(Some(line))) = first else {
            return Err(failed("did not start".into()));
        };
        let address = line
            .rsplit("listening on ")
            .next()
            .unwrap_or_default()
            .trim()
            .to_owned();
        Ok(Simulator {
            child,
            lines,
            address,
        })
    }

    fn stop(&mut self) {
        if let Some(pid) = self.child.id().and_then(|pid| Pid::from_raw(pid as i32)) {
            // Fails if the process has already ended.
            let _ = kill_process(pid, Signal::TERM);
        }
    }

    /// Stops a receiver and reads its counts.
    async fn totals(&mut self) -> Result<Totals, Failure> {
        self.stop();
        let line = tokio::time::timeout(SIMULATOR_TIMEOUT, self.lines.next_line()).await;
        let Ok(Ok(Some(line))) = line else {
            return Err(Failure::failed(
                "`lockgate sim receiver` printed no totals.",
            ));
        };
        serde_json::from_str(&line).map_err(|error| {
            Failure::failed(format!(
                "`lockgate sim receiver` printed no totals: {error}."
            ))
        })
    }
}

async fn show_progress(board: Board, store: Store, events: u64) {
    let begun = Instant::now();
    let every = if print::to_terminal() {
        Duration::from_millis(100)
    } else {
        Duration::from_secs(1)
    };
    let head = store.head("teleport/audit");
    let mut ticks = tokio::time::interval(every);
    ticks.tick().await;
    loop {
        ticks.tick().await;
        let read = *head.borrow() - 1;
        let finished = board.pipeline("siem", |state| state.finished);
        print::progress(
            &progress_line(read, finished, events, begun.elapsed()),
            false,
        );
    }
}

fn progress_line(read: u64, finished: u64, events: u64, elapsed: Duration) -> String {
    let cells = 24;
    let full = (finished * cells)
        .checked_div(events)
        .unwrap_or(cells)
        .min(cells);
    let bar: String = (0..cells)
        .map(|cell| if cell < full { '█' } else { '░' })
        .collect();
    let rate = finished as f64 / elapsed.as_secs_f64().max(0.001);
    format!(
        "{bar} {} read, {} delivered or dropped, {} events/s",
        grouped(read),
        grouped(finished),
        grouped(rate as u64)
    )
}

fn summary(report: &DemoReport, samples: &Path, kept: Option<&Path>) -> Result<String, Failure> {
    let samples = std::fs::read_to_string(samples).map_err(|error| {
        Failure::failed(format!("The captured documents cannot be read: {error}."))
    })?;
    let program = std::env::args().next().unwrap_or_else(|| "lockgate".into());
    let next = next_commands(kept, Path::new(QUICKSTART).is_dir());
    let cpu = report.cpu_us_per_event.map_or(String::new(), |micros| {
        format!("{micros:.1} µs of CPU time per event, ")
    });
    Ok(format!(
        "\nThree of the documents that arrived:\n{samples}\n\
         {} read = {} delivered + {} dropped + {} dead + {} waiting\n\
         The receiver counted {} distinct ids in {} documents.\n\
         {:.1} s, {} events/s; this process alone: {cpu}{:.0} MB resident.\n\n\
         Try next (`lockgate` is {program}):\n{next}",
        grouped(report.read),
        grouped(report.delivered),
        grouped(report.dropped),
        grouped(report.dead),
        grouped(report.waiting),
        grouped(report.receiver_distinct),
        grouped(report.receiver_documents),
        report.seconds,
        grouped(report.events_per_second as u64),
        report.rss_mb,
    ))
}

/// A line for each command that a user may want to run next, all of which work from here.
fn next_commands(kept: Option<&Path>, has_examples: bool) -> String {
    let dir = kept.unwrap_or(Path::new("demo")).display();
    let config = format!("--config {dir}/lockgate.toml");
    let mut lines = match kept {
        Some(_) => vec![
            (
                format!("lockgate status {config}"),
                "the same counts, from the store",
            ),
            (
                format!(
                    "lockgate plugin run builtin:filter --with \
                     '{{\"where\":{{\"user\":[\"alice\"]}}}}' < {dir}/samples.ndjson"
                ),
                "",
            ),
        ],
        None => vec![(
            format!("lockgate demo --keep {dir}"),
            "the same, keeping its files in the directory `demo`",
        )],
    };
    let more = match has_examples {
        true => [
            (format!("cd {QUICKSTART}"), ""),
            (
                "lockgate sim auth --out auth".to_owned(),
                "a cluster to read from",
            ),
            (
                "lockgate sim receiver --out receiver --capture got.ndjson".to_owned(),
                "a receiver to deliver to",
            ),
            (
                "lockgate start --config lockgate.toml".to_owned(),
                "the pipeline between them",
            ),
        ],
        false => [
            (
                format!("lockgate check {config}"),
                "its configuration, to begin yours with",
            ),
            (
                "lockgate sim auth --help".to_owned(),
                "a cluster to read from",
            ),
            (
                "lockgate sim receiver --help".to_owned(),
                "a receiver to deliver to",
            ),
            (
                "lockgate start --help".to_owned(),
                "your pipeline between them",
            ),
        ],
    };
    lines.extend(more);
    let mut text = String::new();
    for (command, what) in lines {
        text += format!("  {command:57} {what}").trim_end();
        text.push('\n');
    }
    text
}

/// Formats `1234567` as `1,234,567`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::grouped;

    #[test]
    fn large_numbers_have_commas() {
        assert_eq!(
            [0, 999, 1000, 20_000, 1_234_567].map(grouped),
            ["0", "999", "1,000", "20,000", "1,234,567"]
        );
    }
}
