//! Processes, their output, and how they end.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// How long to wait for what must happen. Generous, for loaded machines.
const PATIENCE: Duration = Duration::from_secs(300);

/// Waits until `holds`, or fails the test with `what` was awaited and what `shown` returns.
#[track_caller]
pub fn until(what: &str, shown: impl Fn() -> String, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    // To ask takes CPU time from what is waited for: most questions start a process.
    let mut pause = Duration::from_millis(50);
    while !holds() {
        assert!(
            Instant::now() < deadline,
            "waited in vain until {what}\n{}",
            shown()
        );
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(400));
    }
}

/// A running process, and what it has printed so far. Killed when dropped.
pub struct Running {
    child: Child,
    name: String,
    output: Arc<Output>,
    readers: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Output {
    /// (standard output, standard error)
    text: Mutex<(String, String)>,
    grown: Condvar,
}

/// How a process ended.
#[derive(Debug)]
pub struct Ended {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Ended {
    /// Fails the test, with everything that was printed, unless the exit status is `code`.
    #[track_caller]
    pub fn exits_with(self, code: i32) -> Ended {
        assert_eq!(
            self.status.code(),
            Some(code),
            "stdout:\n{}\nstderr:\n{}",
            self.stdout,
            self.stderr
        );
        self
    }
}

impl Running {
    pub fn start(name: &str, command: &mut Command) -> Running {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{name} cannot be started: {error}"));
        let output = Arc::new(Output::default());
        let readers = vec![
            follow(
                child.stdout.take().expect("piped"),
                output.clone(),
                |text| &mut text.0,
            ),
            follow(
                child.stderr.take().expect("piped"),
                output.clone(),
                |text| &mut text.1,
            ),
        ];
        Running {
            child,
            name: name.to_owned(),
            output,
            readers,
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for a line with `text` on either stream. Returns the first.
    #[track_caller]
    pub fn line_with(&self, text: &str) -> String {
        self.line_with_all(&[text])
    }

    /// Waits for a line with all of `texts` on either stream. Returns the first.
    #[track_caller]
    pub fn line_with_all(&self, texts: &[&str]) -> String {
        let deadline = Instant::now() + PATIENCE;
        let mut printed = self.output.text.lock().unwrap();
        loop {
            if let Some(line) = printed
                .0
                .lines()
                .chain(printed.1.lines())
                .find(|line| texts.iter().all(|text| line.contains(text)))
            {
                return line.to_owned();
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(
                !left.is_zero(),
                "{} printed no line with {texts:?}:\n{}\n{}",
                self.name,
                printed.0,
                printed.1
            );
            printed = self
                .output
                .grown
                .wait_timeout(printed, left.min(Duration::from_millis(200)))
                .unwrap()
                .0;
        }
    }

    /// Resident memory now, in bytes.
    pub fn memory(&self) -> u64 {
        self.kilobytes("VmRSS:") * 1024
    }

    /// The peak of its resident memory, in bytes.
    pub fn most_memory(&self) -> u64 {
        self.kilobytes("VmHWM:") * 1024
    }

    /// Bytes of its address space.
    pub fn address_space(&self) -> u64 {
        self.kilobytes("VmSize:") * 1024
    }

    /// A line of `/proc/PID/status`.
    #[track_caller]
    fn kilobytes(&self, name: &str) -> u64 {
        let file = format!("/proc/{}/status", self.pid());
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok())
            .unwrap_or_else(|| panic!("{} has ended:\n{}", self.name, self.stderr()))
    }

    pub fn stderr(&self) -> String {
        self.output.text.lock().unwrap().1.clone()
    }

    /// Waits until it exits by itself.
    #[track_caller]
    pub fn ended(mut self) -> Ended {
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("a child can be waited for") {
                break status;
            }
            assert!(
                Instant::now() < deadline,
                "{} has not ended:\n{}",
                self.name,
                self.stderr()
            );
            std::thread::sleep(Duration::from_millis(10));
        };
        for reader in self.readers.drain(..) {
            reader.join().expect("a reader ends with its stream");
        }
        let text = self.output.text.lock().unwrap();
        Ended {
            status,
            stdout: text.0.clone(),
            stderr: text.1.clone(),
        }
    }

    /// Sends SIGTERM, and waits until it exits.
    #[track_caller]
    pub fn stop(self) -> Ended {
        self.signal(Signal::TERM);
        self.ended()
    }

    /// Sends SIGKILL, and waits until it is gone.
    #[track_caller]
    pub fn kill(self) -> Ended {
        self.signal(Signal::KILL);
        self.ended()
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.pid() as i32).expect("a child has a pid");
        // It may have exited already.
        let _ = kill_process(pid, signal);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

fn follow(
    stream: impl Read + Send + 'static,
    output: Arc<Output>,
    part: fn(&mut (String, String)) -> &mut String,
) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let mut lines = BufReader::new(stream);
        let mut line = Vec::new();
        while lines
            .read_until(b'\n', &mut line)
            .is_ok_and(|bytes| bytes > 0)
        {
            part(&mut output.text.lock().unwrap()).push_str(&String::from_utf8_lossy(&line));
            output.grown.notify_all();
            line.clear();
        }
    })
}
