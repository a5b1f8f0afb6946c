//! Runs a program with a time limit, and shortens its error output to a line.

use std::io::Read;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// How often a running program is polled.
const POLL: Duration = Duration::from_millis(50);
/// For the rest of the output after the program ended: a grandchild may hold the pipe open.
const DRAIN: Duration = Duration::from_secs(2);

/// Beyond this many bytes, a complaint is cut down to its first and its last part.
const LINE: usize = 160;

/// Runs `command` for at most `limit` and returns what it wrote to stdout; on failure, why, as part
/// of a sentence.
pub(crate) fn capture(command: &mut Command, limit: Duration) -> Result<String, String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let spawned = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = spawned.map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => format!("`{name}` is not installed"),
        _ => format!("`{name}` could not be started: {error}"),
    })?;
    let stdout = drain(child.stdout.take());
    let stderr = drain(child.stderr.take());
    let started = Instant::now();
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if started.elapsed() >= limit => {
                // Both may fail only because the program ended in this moment.
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!(
                    "`{name}` was stopped after {} s without a result",
                    limit.as_secs()
                ));
            }
            Ok(None) => thread::sleep(POLL),
            Err(error) => return Err(format!("`{name}` could not be waited for: {error}")),
        }
    };
    let stdout = stdout.recv_timeout(DRAIN).unwrap_or_default();
    if status.success() {
        return Ok(stdout);
    }
    let stderr = stderr.recv_timeout(DRAIN).unwrap_or_default();
    Err(complaint(&stderr).unwrap_or_else(|| format!("`{name}` ended with {status}")))
}

fn drain(pipe: Option<impl Read + Send + 'static>) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            // Output before an error is still worth showing.
            let _ = pipe.read_to_end(&mut bytes);
        }
        // The receiver is gone if the program was stopped.
        let _ = sender.send(String::from_utf8_lossy(&bytes).into_owned());
    });
    receiver
}

/// The first line marked as an error and, if there is a chain of causes, the last of them.
fn complaint(stderr: &str) -> Option<String> {
    let lines: Vec<&str> = stderr
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    let first = lines
        .iter()
        .find(|line| line.starts_with("error"))
        .or(lines.last())?;
    let causes = lines
        .iter()
        .position(|line| *line == "Caused by:")
        .map_or(&[][..], |at| &lines[at + 1..]);
    // Numbered in a chain: `6: Connection refused`.
    let unnumbered = |cause: &'_ str| {
        cause
            .split_once(": ")
            .filter(|(n, _)| n.parse::<u8>().is_ok())
            .map_or(cause, |(_, text)| text)
            .to_owned()
    };
    let text = first.trim_start_matches("error: ").trim_end_matches('.');
    Some(match (causes.last(), text.split_once(": ")) {
        (Some(last), _) => format!("{text} ({})", unnumbered(last)),
        // The same chain on one line, with every step between.
        (None, Some((outcome, steps))) if text.len() > LINE => {
            format!("{outcome} ({})", steps.rsplit(": ").next().unwrap_or(steps))
        }
        (None, _) => text.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn a_program_gives_its_output_or_one_line_of_complaint() {
        let long = Duration::from_secs(60);
        assert_eq!(
            capture(&mut sh("echo yes; echo no >&2"), long),
            Ok("yes\n".into())
        );
        assert_eq!(
            capture(
                &mut sh("echo hint >&2; echo 'error: unknown target.' >&2; exit 100"),
                long
            ),
            { Err("unknown target".into()) }
        );
        assert_eq!(
            capture(&mut sh("exit 3"), long),
            Err("`sh` ended with exit status: 3".into())
        );
        assert_eq!(
            capture(&mut Command::new("no-such-program-here"), long),
            Err("`no-such-program-here` is not installed".into())
        );
    }

    #[test]
    fn the_last_cause_of_a_chain_is_reported() {
        let stderr = "info: rolling back\nerror: component download failed\n\nCaused by:\n    0: partial file\n    1: Connection refused (os error 111)\n";
        let expected = Some("component download failed (Connection refused (os error 111))");
        assert_eq!(complaint(stderr).as_deref(), expected);
        let url =
            "http://127.0.0.1:9/dist/2026-04-16/rust-std-1.95.0-wasm32-unknown-unknown.tar.xz";
        let line = format!(
            "error: component download failed: could not download file from '{url}' to '/x/y.partial': Connection refused (os error 111)"
        );
        assert_eq!(complaint(&line).as_deref(), expected);
    }

    #[test]
    fn a_program_that_hangs_is_stopped() {
        let limit = Duration::from_secs(1);
        let mut command = Command::new("sleep");
        assert_eq!(
            capture(command.arg("600"), limit),
            Err("`sleep` was stopped after 1 s without a result".into())
        );
    }
}
