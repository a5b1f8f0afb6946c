use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use lockgate_model::Books;
use lockgate_observe::{Masks, process};
use lockgate_pipeline::{Board, Stopper};
use lockgate_store::Store;
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use crate::args::Demo;
use crate::failure::Failure;
use crate::signals::Signals;
use crate::{print, setup};

/// The configuration that the demo runs, to be read by people too.
const CONFIG: &str = include_str!("demo.toml");

const SINK: &str = "[pipelines.siem.sink]\n";

/// What `--ecs` puts in its place: these documents have `@timestamp`, and need no `time` that suits
/// Fluentd.
const ECS: &str = "[[pipelines.siem.stage]]\nplugin = \"builtin:ecs\"\n\n[pipelines.siem.sink]\nwith   = { time = \"keep\" }\n";

/// How long a child has to say where it listens, or to print its totals.
const CHILD_PATIENCE: Duration = Duration::from_secs(30);

/// What `--json` prints. `cpu_us_per_event` and `rss_mb` are of the host process alone; the
/// simulators are processes of their own.
#[derive(Serialize)]
struct Report {
    read: u64,
    delivered: u64,
    dropped: u64,
    dead: u64,
    waiting: u64,
    seconds: f64,
    events_per_second: f64,
    cpu_us_per_event: f64,
    /// Resident memory at the end.
    rss_mb: f64,
    /// Documents the receiver took, and how many different ids they had.
    receiver_documents: u64,
    receiver_distinct: u64,
}

#[derive(Deserialize)]
struct Totals {
    documents: u64,
    distinct: u64,
}

/// The whole main job on an embedded default: two simulators as child processes over loopback
/// sockets, this process as the host.
pub(crate) fn run(command: Demo, masks: &Masks) -> Result<(), Failure> {
    let scratch = match &command.keep {
        Some(_) => None,
        None => Some(tempfile::tempdir().map_err(|error| {
            Failure::failed(format!("No temporary folder can be made: {error}."))
        })?),
    };
    let folder = match (&command.keep, &scratch) {
        (Some(keep), _) => new_folder(keep)?,
        (None, Some(scratch)) => scratch.path().to_owned(),
        (None, None) => return Err(Failure::failed("the demo has no folder")),
    };
    super::tokio_runtime()?.block_on(demo(&command, &folder, masks))
}

fn new_folder(folder: &Path) -> Result<PathBuf, Failure> {
    std::fs::create_dir(folder).map_err(|error| {
        Failure::usage(format!(
            "`--keep {}`: the folder cannot be made: {error}.",
            folder.display()
        ))
        .hint("name a folder that does not exist yet")
    })?;
    folder.canonicalize().map_err(Failure::failed)
}

async fn demo(command: &Demo, folder: &Path, masks: &Masks) -> Result<(), Failure> {
    if !command.json {
        print::problem(&format!(
            "{} events wait in a simulated Teleport cluster; a simulated receiver listens.",
            grouped(command.events)
        ));
    }
    let mut signals = Signals::new()?;
    let (events, seed) = (command.events.to_string(), command.seed.to_string());
    let auth_folder = folder.join("auth");
    let mut auth = Simulator::start(
        "auth",
        &auth_folder,
        &["--events", &events, "--seed", &seed],
    )
    .await?;
    let receiver_folder = folder.join("receiver");
    let samples = folder.join("samples.ndjson");
    let latency = format!("{}ms", command.latency.as_millis());
    let capture = samples.display().to_string();
    let mut receiver = Simulator::start(
        "receiver",
        &receiver_folder,
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

    let file = folder.join("lockgate.toml");
    let text = CONFIG
        .replace(SINK, if command.ecs { ECS } else { SINK })
        .replace("@AUTH@", &auth.address)
        // The receiver's certificate is for a name.
        .replace(
            "@RECEIVER@",
            &receiver.address.replace("127.0.0.1", "localhost"),
        );
    std::fs::write(&file, text).map_err(|error| {
        Failure::failed(format!("`{}` cannot be written: {error}.", file.display()))
    })?;
    let config = setup::load(&file, masks)?;

    let store = Store::open(setup::store_options(&config)).map_err(Failure::failed)?;
    let plan = tokio::select! {
        plan = setup::plan(&file, &config, masks, true) => plan?,
        signal = signals.next() => return Err(Failure::failed(format!("{signal}: the demo was stopped."))),
    };
    let (begun, cpu_before) = (Instant::now(), process::cpu_micros().unwrap_or(0));
    let (_stopper, stop) = Stopper::new();
    let progress = (!command.json).then(|| {
        tokio::spawn(show_progress(
            plan.board.clone(),
            store.clone(),
            command.events,
        ))
    });
    // Returning ends the simulators.
    let ran = tokio::select! {
        ran = lockgate_pipeline::run(plan, &store, stop) => ran,
        signal = signals.next() => return Err(Failure::failed(format!("{signal}: the demo was stopped."))),
        _ = auth.child.wait() => return Err(Failure::failed("`lockgate sim auth` ended.")),
        _ = receiver.child.wait() => return Err(Failure::failed("`lockgate sim receiver` ended.")),
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
    ran.map_err(Failure::failed)?;

    let mut books = Books::default();
    for (_, stream) in store.books("siem").map_err(Failure::failed)? {
        books += stream;
    }
    store.close().await.map_err(Failure::failed)?;
    let totals = receiver.totals().await?;
    auth.stop();
    let report = Report {
        read: books.read,
        delivered: books.delivered,
        dropped: books.dropped,
        dead: books.dead,
        waiting: books.waiting,
        seconds,
        events_per_second: books.read as f64 / seconds,
        cpu_us_per_event: cpu as f64 / books.read.max(1) as f64,
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
        print::data(&told(&report, &samples, command.keep.as_deref())?)?;
    }
    if !books.balance() || books.waiting > 0 || totals.distinct != books.delivered {
        return Err(Failure::failed(
            "the books do not balance, or the receiver saw other ids than were delivered. Please report this as a bug.",
        ));
    }
    Ok(())
}

/// A child that runs `lockgate sim`. Ended when dropped.
struct Simulator {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    address: String,
}

impl Simulator {
    async fn start(
        kind: &'static str,
        folder: &Path,
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
            .arg(folder)
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
        let first = tokio::time::timeout(CHILD_PATIENCE, lines.next_line()).await;
        let Ok(Ok(Some(line))) = first else {
            return Err(failed("did not say where it listens".into()));
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
            // It may have ended by itself.
            let _ = kill_process(pid, Signal::TERM);
        }
    }

    /// Stops a receiver and reads what it counted.
    async fn totals(&mut self) -> Result<Totals, Failure> {
        self.stop();
        let line = tokio::time::timeout(CHILD_PATIENCE, self.lines.next_line()).await;
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

fn told(report: &Report, samples: &Path, kept: Option<&Path>) -> Result<String, Failure> {
    let samples = std::fs::read_to_string(samples).map_err(|error| {
        Failure::failed(format!("The captured documents cannot be read: {error}."))
    })?;
    let program = std::env::args().next().unwrap_or_else(|| "lockgate".into());
    let again = match kept {
        Some(folder) => format!(
            "  lockgate status --config {0}/lockgate.toml                  the same books, from the store\n  \
             lockgate plugin run builtin:filter --with '{{\"where\":{{\"user\":[\"alice\"]}}}}' < {0}/samples.ndjson\n",
            folder.display()
        ),
        None => "  lockgate demo --keep demo                                 the same, and leaves its files in the folder `demo`\n".into(),
    };
    Ok(format!(
        "\nThree of the documents that arrived:\n{samples}\n\
         {} read = {} delivered + {} dropped + {} dead + {} waiting\n\
         The receiver counted {} distinct ids in {} documents.\n\
         {:.1} s, {} events/s; this process alone: {:.1} µs CPU an event, {:.0} MB resident.\n\n\
         What to try next (`lockgate` is {program}):\n{again}  \
         lockgate sim auth --out auth                              a cluster to read from, for as long as you like\n  \
         lockgate sim receiver --out receiver --capture got.ndjson a receiver to deliver to\n  \
         lockgate start --config examples/quickstart/lockgate.toml the pipeline between them\n",
        grouped(report.read),
        grouped(report.delivered),
        grouped(report.dropped),
        grouped(report.dead),
        grouped(report.waiting),
        grouped(report.receiver_distinct),
        grouped(report.receiver_documents),
        report.seconds,
        grouped(report.events_per_second as u64),
        report.cpu_us_per_event,
        report.rss_mb,
    ))
}

/// `1234567` is `1,234,567`.
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
