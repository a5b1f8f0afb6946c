use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// Long enough for a loaded machine; a test that reaches it has failed.
const PATIENCE: Duration = Duration::from_secs(300);

/// Waits until `holds`. `shown`: what a failure shows.
#[track_caller]
pub fn until(what: &str, shown: impl Fn() -> String, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(
            Instant::now() < deadline,
            "{what}: it does not happen\n{}",
            shown()
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A process that was started, with what it has printed so far. Ended for real when dropped.
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
    /// Fails the test, with all that was printed, where the exit status is another.
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

    /// The first line of either stream that holds `text`, waited for.
    #[track_caller]
    pub fn line_with(&self, text: &str) -> String {
        self.line_with_all(&[text])
    }

    /// The first line of either stream that holds all of `texts`, waited for.
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

    /// Bytes of memory that it holds now.
    pub fn memory(&self) -> u64 {
        self.kilobytes("VmRSS:") * 1024
    }

    /// The most bytes of memory that it has held.
    pub fn most_memory(&self) -> u64 {
        self.kilobytes("VmHWM:") * 1024
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

    /// Waits for its own end.
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

    /// SIGTERM, and its end.
    #[track_caller]
    pub fn stop(self) -> Ended {
        self.signal(Signal::TERM);
        self.ended()
    }

    /// SIGKILL: it can do nothing about it.
    #[track_caller]
    pub fn kill(self) -> Ended {
        self.signal(Signal::KILL);
        self.ended()
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.pid() as i32).expect("a child has a pid");
        // It may have ended by itself: its status tells.
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
