//! The quickstart, as its README describes it.

use std::path::Path;
use std::process::{Command, Stdio};

use lockgate_tests::{Auth, Ended, ReceiverProcess, Running, books, lockgate, root, status};

/// A copy of examples/quickstart, with the ports that its simulators were given and without the
/// admin listener, whose port other tests may use.
fn copy(to: &Path, auth: &Auth, receiver: &ReceiverProcess) {
    let text = std::fs::read_to_string(root().join("examples/quickstart/lockgate.toml"))
        .expect("the example's configuration");
    for address in ["127.0.0.1:3025", "127.0.0.1:8888"] {
        assert!(
            text.contains(address),
            "the configuration names the default address {address}"
        );
    }
    let text = text
        .replace("127.0.0.1:3025", &auth.addr)
        .replace("127.0.0.1:8888", &receiver.addr)
        .replace("[store]", "[admin]\nlisten = \"\"\n\n[store]");
    std::fs::write(to.join("lockgate.toml"), text).expect("the copy can be written");
}

/// Runs the commands of the README, in its order.
#[test]
fn the_quickstart_works_as_its_readme_says() {
    let dir = tempfile::tempdir().unwrap();
    let capture = dir.path().join("captured.ndjson");
    let auth = Auth::start(dir.path(), &["--events", "3000"]);
    let receiver = ReceiverProcess::start(dir.path(), &["--capture", capture.to_str().unwrap()]);
    copy(dir.path(), &auth, &receiver);
    let run = |arguments: &[&str]| -> Ended {
        Running::start(
            "lockgate",
            lockgate().args(arguments).current_dir(dir.path()),
        )
        .ended()
        .exits_with(0)
    };

    assert_eq!(
        run(&["check"]).stdout,
        "lockgate.toml: no problems, 1 pipeline.\n"
    );
    run(&["start", "--exit-on-last-event"]);
    assert!(run(&["status"]).stdout.contains("siem"));

    let books = books(&status(&dir.path().join("lockgate.toml")), "siem");
    assert!(books.read > 3000, "recordings were read too: {books:?}");
    assert!(books.dropped > 0 && books.delivered > 1000, "{books:?}");
    assert_eq!((books.dead, books.waiting), (0, 0));
    let totals = receiver.stop();
    assert_eq!(
        (totals.documents, totals.distinct),
        (books.delivered, books.delivered),
        "it prints how many it saw"
    );
    assert!(
        totals.by_path.contains_key("/test.log"),
        "{:?}",
        totals.by_path
    );
    assert!(
        totals
            .by_path
            .keys()
            .any(|path| path.starts_with("/session.") && path.ends_with(".log")),
        "{:?}",
        totals.by_path
    );
    let captured = std::fs::read_to_string(&capture).unwrap();
    assert_eq!(
        captured.lines().count() as u64,
        books.delivered,
        "one a line"
    );

    // One stage alone, over what was captured.
    for arguments in [
        &[
            "builtin:filter",
            "--with",
            r#"{"where":{"server_labels.env":["prod"]}}"#,
        ][..],
        &["builtin:redact", "--with", r#"{"hash":["user"]}"#],
        &["builtin:fluentd"],
    ] {
        let printed = piped(&captured, arguments);
        assert!(
            arguments[0] == "builtin:filter" || !printed.is_empty(),
            "{arguments:?} prints its results"
        );
        assert!(
            printed.lines().all(|line| line.starts_with('{')),
            "{arguments:?}: {printed}"
        );
    }

    let broken = dir.path().join("broken.toml");
    let text = std::fs::read_to_string(dir.path().join("lockgate.toml")).unwrap();
    std::fs::write(
        &broken,
        text.replace(r#"skip = ["session.data", "resize"]"#, r#"skip = "print""#),
    )
    .unwrap();
    let ended = Running::start("check", lockgate().arg("check").arg(&broken))
        .ended()
        .exits_with(2);
    assert!(
        ended.stderr.contains("│ skip = \"print\"\n"),
        "it points at the line:\n{}",
        ended.stderr
    );
}

#[test]
fn every_command_in_the_readme_is_accepted() {
    let text = std::fs::read_to_string(root().join("examples/quickstart/README.md"))
        .expect("the example's README");
    let commands: Vec<&str> = text
        .lines()
        .map(str::trim)
        .filter_map(|line| line.split("| ").find(|part| part.starts_with("lockgate ")))
        .collect();
    assert!(commands.len() >= 8, "{commands:?}");
    for command in commands {
        let arguments = Command::new("sh")
            .args(["-c", &format!("printf '%s\\n' {command}")])
            .output()
            .expect("sh runs")
            .stdout;
        let arguments = String::from_utf8(arguments).expect("arguments are text");
        // The help is printed only if everything before it is understood.
        let ended = Running::start(
            command,
            lockgate().args(arguments.lines().skip(1)).arg("--help"),
        )
        .ended();
        ended.exits_with(0);
    }
}

fn piped(input: &str, arguments: &[&str]) -> String {
    let (file, path) = tempfile::NamedTempFile::new().unwrap().into_parts();
    drop(file);
    let head: String = input
        .lines()
        .take(5)
        .map(|line| format!("{line}\n"))
        .collect();
    std::fs::write(&path, head).unwrap();
    let input = std::fs::File::open(&path).unwrap();
    let output = lockgate()
        .args(["plugin", "run"])
        .args(arguments)
        .stdin(Stdio::from(input))
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}
