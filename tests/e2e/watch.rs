//! `lockgate status --watch`.

use std::path::Path;
use std::process::Command;

use lockgate_tests::{
    Auth, ReceiverProcess, Running, Signal, lockgate, quickstart, started, until,
};
use rustix::process::{Pid, kill_process};

/// The program of util-linux that gives a command a terminal; if there is none, the test is
/// skipped.
fn has_script() -> bool {
    let found = Command::new("script").arg("--version").output().is_ok();
    if !found {
        eprintln!("skipped: `script` is not installed, which gives a command a terminal");
    }
    found
}

/// On a terminal of its own.
fn watch(config: &Path) -> Running {
    let program = lockgate().get_program().to_owned();
    let line = format!(
        "stty rows 20 cols 100; exec {} status --watch --config {}",
        program.display(),
        config.display()
    );
    let mut script = Command::new("script");
    script
        .args(["-qfec", &line, "/dev/null"])
        .env("TERM", "xterm");
    Running::start("status --watch", &mut script)
}

/// The command that runs on the terminal.
fn child(of: &Running) -> Option<Pid> {
    let pid = of.pid();
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    Pid::from_raw(children.split_whitespace().next()?.parse().ok()?)
}

#[test]
fn the_screen_follows_the_host_and_the_terminal_is_given_back() {
    if !has_script() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let auth = Auth::start(dir.path(), &["--events", "100"]);
    let receiver = ReceiverProcess::start(dir.path(), &[]);
    let config = quickstart(dir.path(), &auth, &receiver, "");
    for signal in [Signal::INT, Signal::TERM] {
        let host = started(&config);
        let screen = watch(&config);
        screen.line_with("ready: everything works");
        // It lasts while the host ends, and shows that.
        host.stop().exits_with(0);
        screen.line_with("not running; the figures are those of the store");
        let shown = || "the command has not begun".to_owned();
        let mut pid = None;
        until("the command runs", shown, || {
            pid = child(&screen);
            pid.is_some()
        });
        kill_process(pid.unwrap(), signal).unwrap();
        let ended = screen.ended().exits_with(0);
        let (enters, leaves) = ("\x1b[?1049h", "\x1b[?1049l");
        assert!(ended.stdout.starts_with(enters), "{:?}", ended.stdout);
        assert!(
            ended.stdout.trim_end().ends_with(leaves),
            "{:?}",
            ended.stdout
        );
        assert!(ended.stdout.contains("\x1b[?25h"), "the cursor is back");
    }
}

#[test]
fn without_a_terminal_it_says_what_to_use() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = lockgate();
    command
        .args(["status", "--watch", "--store"])
        .arg(dir.path());
    let ended = Running::start("status", &mut command).ended().exits_with(2);
    assert!(ended.stdout.is_empty(), "{}", ended.stdout);
    for text in ["needs a terminal", "hint: use `lockgate status`", "--json"] {
        assert!(ended.stderr.contains(text), "{}", ended.stderr);
    }
}
