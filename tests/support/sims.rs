//! The simulators as processes, and configurations for them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use lockgate_sim::generate::{Generator, GeneratorOptions};
use serde_json::Value;

use crate::process::Running;
use crate::{Ended, lockgate};

/// `lockgate sim auth`, listening on a free port of loopback.
pub struct Auth {
    pub process: Running,
    pub addr: String,
    pub dir: PathBuf,
}

impl Auth {
    pub fn start(dir: &Path, arguments: &[&str]) -> Auth {
        let dir = dir.join("auth");
        let process = Running::start(
            "sim auth",
            lockgate()
                .args(["sim", "auth", "--listen", "127.0.0.1:0", "--out"])
                .arg(&dir)
                .args(arguments),
        );
        let addr = address(&process);
        Auth { process, addr, dir }
    }
}

/// `lockgate sim receiver`, listening on a port of loopback.
pub struct ReceiverProcess {
    pub process: Running,
    pub addr: String,
    pub dir: PathBuf,
}

/// The receiver's counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Totals {
    pub documents: u64,
    pub distinct: u64,
    pub requests: u64,
    /// Documents by the path of their requests.
    pub by_path: BTreeMap<String, u64>,
}

impl ReceiverProcess {
    pub fn start(dir: &Path, arguments: &[&str]) -> ReceiverProcess {
        ReceiverProcess::listening(dir, "127.0.0.1:0", arguments)
    }

    pub fn listening(dir: &Path, listen: &str, arguments: &[&str]) -> ReceiverProcess {
        let dir = dir.join("receiver");
        let process = Running::start(
            "sim receiver",
            lockgate()
                .args(["sim", "receiver", "--listen", listen, "--out"])
                .arg(&dir)
                .args(arguments),
        );
        let addr = address(&process);
        ReceiverProcess { process, addr, dir }
    }

    /// Stops it, and returns the totals that it prints.
    #[track_caller]
    pub fn stop(self) -> Totals {
        let Ended { stdout, .. } = self.process.stop().exits_with(0);
        let line = stdout
            .lines()
            .last()
            .expect("the receiver prints its totals");
        let totals: Value = serde_json::from_str(line).expect("totals are JSON");
        let figure = |name: &str| {
            totals[name]
                .as_u64()
                .unwrap_or_else(|| panic!("no `{name}` in {line}"))
        };
        let by_path = totals["by_path"].as_object().expect("paths").iter();
        let by_path = by_path
            .map(|(path, totals)| {
                (
                    path.clone(),
                    totals["documents"].as_u64().expect("a figure"),
                )
            })
            .collect();
        Totals {
            documents: figure("documents"),
            distinct: figure("distinct"),
            requests: figure("requests"),
            by_path,
        }
    }
}

/// A configuration for both simulators: one pipeline, no filter. `more` is put at the end.
pub fn quickstart(dir: &Path, auth: &Auth, receiver: &ReceiverProcess, more: &str) -> PathBuf {
    let sink = format!(
        "[pipelines.main.sink]\nplugin = \"builtin:fluentd\"\n{}\n{more}",
        endpoint(&receiver.addr, &receiver.dir, "events.log")
    );
    configuration(dir, auth, &sink)
}

/// A configuration with the simulated cluster as its source and a store in `dir`; `pipelines` is
/// TOML.
pub fn configuration(dir: &Path, auth: &Auth, pipelines: &str) -> PathBuf {
    let config = dir.join("lockgate.toml");
    let text = format!(
        r#"
[teleport]
addr = "{}"
identity = "{}/identity"
start-time = "2026-01-01T00:00:00Z"

[store]
path = "{}/store"

[admin]
listen = ""

{pipelines}
"#,
        auth.addr,
        auth.dir.display(),
        dir.display(),
    );
    std::fs::write(&config, text).expect("the configuration can be written");
    config
}

/// `url` and `tls` of a sink that sends to a simulated receiver at `addr`, which keeps its
/// certificates in `dir`.
pub fn endpoint(addr: &str, dir: &Path, path: &str) -> String {
    let (addr, dir) = (addr.replace("127.0.0.1", "localhost"), dir.display());
    format!(
        r#"url = "https://{addr}/{path}"
tls = {{ ca = "{dir}/ca.crt", cert = "{dir}/client.crt", key = "{dir}/client.key" }}"#
    )
}

/// The `uid` of an event of a simulated log of so many, by its position. Documents of the built-in
/// sink hold a copy.
pub fn uid(events: u64, position: u64) -> String {
    let options = GeneratorOptions {
        events,
        ..GeneratorOptions::default()
    };
    Generator::new(options).uid(position)
}

fn address(process: &Running) -> String {
    let line = process.line_with("listening on ");
    let (_, address) = line.split_once("listening on ").expect("as waited for");
    address
        .split_whitespace()
        .next()
        .expect("an address follows")
        .to_owned()
}
