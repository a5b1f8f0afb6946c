use std::path::{Path, PathBuf};

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
        let process =
            Running::start("sim auth", lockgate().args(["sim", "auth", "--listen", "127.0.0.1:0", "--out"]).arg(&dir).args(arguments));
        let addr = address(&process);
        Auth { process, addr, dir }
    }
}

/// `lockgate sim receiver`, listening on a port of loopback.
pub struct Receiver {
    pub process: Running,
    pub addr: String,
    pub dir: PathBuf,
}

/// What the receiver counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Totals {
    pub documents: u64,
    pub distinct: u64,
    pub requests: u64,
}

impl Receiver {
    pub fn start(dir: &Path, arguments: &[&str]) -> Receiver {
        Receiver::listening(dir, "127.0.0.1:0", arguments)
    }

    pub fn listening(dir: &Path, listen: &str, arguments: &[&str]) -> Receiver {
        let dir = dir.join("receiver");
        let process =
            Running::start("sim receiver", lockgate().args(["sim", "receiver", "--listen", listen, "--out"]).arg(&dir).args(arguments));
        let addr = address(&process);
        Receiver { process, addr, dir }
    }

    /// Stops it; it prints what it counted.
    #[track_caller]
    pub fn stop(self) -> Totals {
        let Ended { stdout, .. } = self.process.stop().exits_with(0);
        let line = stdout.lines().last().expect("the receiver prints its totals");
        let totals: Value = serde_json::from_str(line).expect("totals are JSON");
        let figure = |name: &str| totals[name].as_u64().unwrap_or_else(|| panic!("no `{name}` in {line}"));
        Totals { documents: figure("documents"), distinct: figure("distinct"), requests: figure("requests") }
    }
}

/// A configuration for both simulators: one pipeline, no filter. `more` is put at the end.
pub fn quickstart(dir: &Path, auth: &Auth, receiver: &Receiver, more: &str) -> PathBuf {
    let config = dir.join("lockgate.toml");
    let (auth_dir, receiver_dir) = (auth.dir.display(), receiver.dir.display());
    let text = format!(
        r#"
[teleport]
addr = "{}"
identity = "{auth_dir}/identity"
start-time = "2026-01-01T00:00:00Z"

[store]
path = "{}/store"

[pipelines.main.sink]
plugin = "builtin:fluentd"
url = "https://{}/events.log"
tls = {{ ca = "{receiver_dir}/ca.crt", cert = "{receiver_dir}/client.crt", key = "{receiver_dir}/client.key" }}
{more}
"#,
        auth.addr,
        dir.display(),
        receiver.addr.replace("127.0.0.1", "localhost"),
    );
    std::fs::write(&config, text).expect("the configuration can be written");
    config
}

fn address(process: &Running) -> String {
    let line = process.line_with("listening on ");
    let (_, address) = line.split_once("listening on ").expect("as waited for");
    address.split_whitespace().next().expect("an address follows").to_owned()
}
