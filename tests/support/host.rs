//! `lockgate start`.

use std::path::Path;
use std::process::Command;

use rustix::process::{Pid, Resource, Rlimit, prlimit};

use crate::lockgate;
use crate::process::{Ended, Running};

/// `lockgate start` with these further arguments.
pub fn start(config: &Path, arguments: &[&str]) -> Running {
    let mut command = lockgate();
    command.args(["start", "--config"]).arg(config);
    Running::start("start", command.args(arguments))
}

/// `lockgate start`, once it has a store of which `status` can be asked.
#[track_caller]
pub fn started(config: &Path) -> Running {
    let host = start(config, &[]);
    host.line_with("started");
    host
}

/// `lockgate start`, which delivers everything that there is to read and then exits.
#[track_caller]
pub fn start_and_finish(config: &Path) -> Ended {
    start(config, &["--exit-on-last-event"])
        .ended()
        .exits_with(0)
}

/// `lockgate reload`, until it has its answer.
#[track_caller]
pub fn reload(config: &Path) -> Ended {
    let mut command = lockgate();
    command.args(["reload", "--config"]).arg(config);
    Running::start("reload", &mut command).ended()
}

/// `lockgate start` on a disk that is too full: a limit on the size of files, in 512 bytes, makes
/// writes fail below SQLite.
pub fn start_with_a_full_disk(config: &Path, blocks: u32, arguments: &[&str]) -> Running {
    let mut command = on_a_full_disk(config, blocks);
    Running::start("start with a full disk", command.args(arguments))
}

/// The command for that.
pub fn on_a_full_disk(config: &Path, blocks: u32) -> Command {
    let limited = format!("ulimit -S -f {blocks}; exec \"$0\" \"$@\"");
    let mut shell = Command::new("sh");
    shell
        .args(["-c", &limited])
        .arg(lockgate().get_program())
        .args(["start", "--config"])
        .arg(config);
    shell
}

/// There is room on that disk again.
pub fn empty_disk(host: &Running) {
    let pid = Pid::from_raw(host.pid() as i32).expect("a child has a pid");
    let none = Rlimit {
        current: None,
        maximum: None,
    };
    prlimit(Some(pid), Resource::Fsize, none).expect("its limit can be raised");
}

/// `lockgate start` with so many bytes of address space: too few to set any aside for instances, so
/// each instance takes 4 GiB.
pub fn start_with_address_space(config: &Path, bytes: u64) -> Running {
    let limited = format!("ulimit -S -v {}; exec \"$0\" \"$@\"", bytes >> 10);
    let mut shell = Command::new("sh");
    shell
        .args(["-c", &limited])
        .arg(lockgate().get_program())
        .args(["start", "--config"])
        .arg(config);
    Running::start("start with little address space", &mut shell)
}

/// `lockgate start` that may open so many files, and cannot raise that limit.
pub fn start_with_open_files(config: &Path, files: usize) -> Running {
    let limited = format!("ulimit -n {files}; exec \"$0\" \"$@\"");
    let mut shell = Command::new("sh");
    shell
        .args(["-c", &limited])
        .arg(lockgate().get_program())
        .args(["start", "--config"])
        .arg(config);
    Running::start("start with few open files", &mut shell)
}

/// Changes that.
pub fn limit_address_space(host: &Running, bytes: u64) {
    let pid = Pid::from_raw(host.pid() as i32).expect("a child has a pid");
    let limit = Rlimit {
        current: Some(bytes),
        maximum: None,
    };
    prlimit(Some(pid), Resource::As, limit).expect("its limit can be changed");
}
