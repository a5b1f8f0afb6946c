//! `lockgate audit`: after kills, while a host runs, and against an earlier report.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use lockgate_tests::{
    Auth, Ended, Moments, ReceiverProcess, Running, books, kill_again_and_again, kills, lockgate,
    quickstart, start_and_finish, started, status, until,
};
use serde_json::Value;

/// Kills in the test run. `LOCKGATE_KILLS=50 cargo test --workspace --test e2e audit` does more.
const KILLS: u64 = 3;

fn audit(config: &Path, arguments: &[&str]) -> Ended {
    let mut command = lockgate();
    command.arg("audit").arg("-c").arg(config).args(arguments);
    Running::start("audit", &mut command).ended()
}

fn json(ended: &Ended) -> Value {
    serde_json::from_str(&ended.stdout).unwrap()
}

#[test]
fn an_audit_holds_after_kills_and_counts_what_status_counts() {
    let kills = kills(KILLS);
    let events = 4000 + kills * 2000;
    let dir = tempfile::tempdir().unwrap();
    let auth = Auth::start(dir.path(), &["--events", &events.to_string()]);
    let receiver = ReceiverProcess::start(dir.path(), &["--latency", "20ms"]);
    let config = quickstart(dir.path(), &auth, &receiver, "");
    let mut moments = Moments::new(0x00a0_d170);
    kill_again_and_again(&config, kills, &mut moments, Duration::from_millis(300));
    audit(&config, &[]).exits_with(0);
    start_and_finish(&config);

    let found = json(&audit(&config, &["--json"]).exits_with(0));
    assert_eq!(found["holds"], true, "{found}");
    let days = found["chains"][0]["days"].as_array().unwrap();
    let sum = |name: &str| {
        days.iter()
            .map(|day| day[name].as_u64().unwrap())
            .sum::<u64>()
    };
    let name = found["chains"][0]["pipeline"].as_str().unwrap();
    let counted = books(&status(&config), name);
    assert_eq!((sum("read"), sum("delivered")), (events, counted.delivered));
    assert!(
        days.iter()
            .all(|day| day["counted_from"] == "events" && day["balanced"] == true)
    );

    // One day of it, as text.
    let day = days[0]["day"].as_str().unwrap();
    let shown = audit(&config, &["--day", day]).exits_with(0).stdout;
    let rows = shown.lines().filter(|line| line.contains(" = ")).count();
    assert!(
        shown.contains(day) && rows == 2,
        "its heading and one day:\n{shown}"
    );
    assert!(shown.ends_with("the audit holds\n"), "{shown}");
    audit(&config, &["--day", "5 January"]).exits_with(2);
    let unknown = audit(&config, &["--pipeline", "nobody"]).exits_with(1);
    assert!(unknown.stderr.contains("`nobody`"), "{}", unknown.stderr);
}

#[test]
fn a_report_agrees_with_the_running_store_and_with_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let auth = Auth::start(dir.path(), &["--events", "200000", "--rate", "200"]);
    let receiver = ReceiverProcess::start(dir.path(), &[]);
    let config = quickstart(dir.path(), &auth, &receiver, "");
    let host = started(&config);
    let delivered = || {
        let status = status(&config);
        let pipelines = status["pipelines"].as_object().unwrap();
        let mut delivered = pipelines
            .values()
            .map(|row| row["delivered"].as_u64().unwrap());
        delivered.next().unwrap_or(0)
    };
    until(
        "events are delivered",
        || host.stderr(),
        || delivered() > 300,
    );
    let report = dir.path().join("report.json");
    let report = report.to_str().unwrap();
    // On a disk that is too full, nothing is left that is in the way of the next attempt.
    let mut shell = Command::new("sh");
    let limited = "trap '' XFSZ; ulimit -S -f 0; exec \"$0\" \"$@\"";
    shell.args(["-c", limited]).arg(lockgate().get_program());
    shell.args(["audit", "--export", report, "--config"]);
    let failed = Running::start("audit", shell.arg(&config)).ended();
    let failed = failed.exits_with(1).stderr;
    assert!(failed.contains("File too large"), "{failed}");
    let written = audit(&config, &["--export", report]).exits_with(0);
    assert!(
        written.stderr.contains("SHA-256 digest "),
        "{}",
        written.stderr
    );
    let again = audit(&config, &["--export", report]).exits_with(1);
    assert!(
        again.stderr.contains("never overwritten"),
        "{}",
        again.stderr
    );

    // The host goes on meanwhile.
    let before = delivered();
    until(
        "more events are delivered",
        || host.stderr(),
        || delivered() > before + 100,
    );
    let agrees = audit(&config, &["--verify", report]).exits_with(0);
    assert!(
        agrees.stdout.contains("the store agrees with the report"),
        "{}",
        agrees.stdout
    );
    host.stop().exits_with(0);
    audit(&config, &["--verify", report]).exits_with(0);

    let text = fs::read_to_string(report).unwrap();
    let changed = dir.path().join("changed.json");
    fs::write(&changed, text.replacen("\"waiting\":0", "\"waiting\":1", 1)).unwrap();
    let refused = audit(&config, &["--verify", changed.to_str().unwrap()]).exits_with(1);
    assert!(
        refused.stderr.contains("it was changed: its digest is"),
        "{}",
        refused.stderr
    );

    // A new store that read the same events.
    fs::remove_dir_all(dir.path().join("store")).unwrap();
    let host = started(&config);
    until(
        "events are delivered",
        || host.stderr(),
        || delivered() > 300,
    );
    let another = audit(&config, &["--verify", report]).exits_with(1);
    assert!(
        another.stderr.contains("it is of another store"),
        "{}",
        another.stderr
    );
    host.stop().exits_with(0);
}
