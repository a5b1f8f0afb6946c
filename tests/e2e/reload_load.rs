//! Reloads, one after the other, of a host that delivers all the time.

use std::fs;
use std::path::Path;
use std::time::Duration;

use lockgate_store::Inspector;
use lockgate_tests::components::component;
use lockgate_tests::receiver::LocalReceiver;
use lockgate_tests::{
    Auth, Moments, Running, Signal, books, configuration, kill_once_it_delivers, kills, lockgate,
    reload, start_and_finish, started, status, until,
};

/// Reloads in the test run. `LOCKGATE_RELOADS=100 cargo test --workspace --test e2e reload_load`
/// does more.
const RELOADS: u64 = 12;

/// What is delivered while one reload takes place, about.
const EVENTS_PER_RELOAD: u64 = 500;

#[track_caller]
fn reloads() -> u64 {
    match std::env::var("LOCKGATE_RELOADS") {
        Ok(reloads) => reloads.parse().expect("LOCKGATE_RELOADS is a number"),
        Err(_) => RELOADS,
    }
}

/// Every second file is broken, each time in another way. One pipeline changes with every reload,
/// one keeps counts in its state and changes, too, and one stays as it is.
#[test]
fn reloads_under_load_lose_nothing_double_nothing_and_fail_no_request() {
    let reloads = reloads();
    let events = reloads * EVENTS_PER_RELOAD;
    let dir = tempfile::tempdir().unwrap();
    let auth = Auth::start(dir.path(), &["--events", &events.to_string()]);
    let receiver = LocalReceiver::start(dir.path());
    let pipeline = |name: &str, stage: &str, batch: u64| {
        let endpoint = receiver.endpoint(name);
        format!(
            "[pipelines.{name}]\nbatch = {{ events = {batch} }}\n{stage}\n\
             [pipelines.{name}.sink]\nplugin = \"builtin:fluentd\"\n\
             rate = {{ events = \"600/s\" }}\n{endpoint}\n"
        )
    };
    let counter = format!(
        "[plugins.counter]\nsource = \"file:{}\"\nstate = \"1 MiB\"\n",
        component("counter").display()
    );
    let write = |nth: u64| {
        let filter = format!(
            "stage = [{{ plugin = \"builtin:filter\", with = {{ skip = [\"none.{nth}\"] }} }}]"
        );
        let pipelines = [
            counter.clone(),
            pipeline("filtered", &filter, 20),
            pipeline(
                "counted",
                "stage = [{ plugin = \"counter\" }]",
                20 + nth % 7,
            ),
            pipeline("steady", "", 20),
        ];
        configuration(dir.path(), &auth, &pipelines.concat())
    };
    let config = write(0);
    let host = started(&config);
    let shown = || format!("{}\n{}", status(&config), host.stderr());
    until("all pipelines deliver", shown, || {
        let status = status(&config);
        ["filtered", "counted", "steady"].map(|name| books(&status, name).delivered > 0)
            == [true; 3]
    });
    for nth in 1..=reloads {
        write(nth);
        if nth % 2 == 1 {
            spoil(&config, nth);
            reload(&config).exits_with(1);
        } else {
            let answer = reload(&config).exits_with(0).stdout;
            let changed = "pipelines: 2 changed (counted, filtered), 1 unchanged";
            assert!(answer.contains(changed), "{answer}");
        }
    }
    write(0);
    until("everything is delivered", shown, || {
        let status = status(&config);
        ["filtered", "counted", "steady"].map(|name| books(&status, name).delivered == events)
            == [true; 3]
    });
    let stderr = host.stop().exits_with(0).stderr;
    assert!(!stderr.contains("held: "), "no request failed:\n{stderr}");
    assert_eq!(stderr.matches("reloaded: ").count() as u64, reloads / 2);
    let totals = receiver.stop();
    assert_eq!((totals.documents, totals.refused), (3 * events, 0));
    for (path, of_path) in &totals.by_path {
        assert_eq!(of_path.documents, events, "{path}");
    }
    let state = Inspector::open(dir.path().join("store"))
        .unwrap()
        .state("counted")
        .unwrap();
    let counts = state["counter"].values();
    let counted: u64 = counts.map(|count| count.parse::<u64>().unwrap()).sum();
    assert_eq!(counted, events, "each event is counted once");
    println!("{reloads} reloads, {events} events for each of 3 pipelines: none lost, none twice");
}

/// The pipeline changes, another one comes and goes, and the process is gone before its answer is.
#[test]
fn a_kill_in_a_reload_loses_nothing() {
    const EVENTS: u64 = 4000;
    let dir = tempfile::tempdir().unwrap();
    let auth = Auth::start(dir.path(), &["--events", &EVENTS.to_string()]);
    let receiver = LocalReceiver::start(dir.path());
    let pipeline = |name: &str, nth: u64| {
        let endpoint = receiver.endpoint(name);
        format!(
            "[pipelines.{name}]\nbatch = {{ events = {} }}\n[pipelines.{name}.sink]\n\
             plugin = \"builtin:fluentd\"\nrate = {{ events = \"600/s\" }}\n{endpoint}\n",
            20 + nth
        )
    };
    let write = |nth: u64| {
        let more = match nth % 2 {
            0 => String::new(),
            _ => pipeline("more", nth),
        };
        configuration(dir.path(), &auth, &(pipeline("main", nth) + &more))
    };
    let config = write(1);
    kill_once_it_delivers(&config);
    let mut moments = Moments::new(9);
    for nth in 2..2 + kills(5) {
        let host = started(&config);
        write(nth);
        host.signal(Signal::HUP);
        moments.sleep(Duration::from_millis(400));
        host.kill();
    }
    let config = write(1);
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace("600/s", "60000/s")).unwrap();
    start_and_finish(&config);
    let seen = status(&config);
    for name in ["main", "more"] {
        let books = books(&seen, name);
        assert_eq!((books.read, books.delivered), (EVENTS, EVENTS), "{seen}");
    }
    let mut audit = lockgate();
    audit.args(["audit", "--config"]).arg(&config);
    Running::start("audit", &mut audit).ended().exits_with(0);
    // Of the batches that were in flight, some arrived twice.
    for (path, of_path) in &receiver.stop().by_path {
        assert!(of_path.documents >= EVENTS, "{path}: {of_path:?}");
    }
}

/// The store's directory stays readable, so that `lockgate reload` finds the host.
fn spoil(config: &Path, nth: u64) {
    let text = fs::read_to_string(config).unwrap();
    let broken = match nth / 2 % 4 {
        0 => text.replacen("builtin:fluentd", "builtin:none", 1),
        1 => text.replacen("/ca.crt", "/none.crt", 1),
        2 => text.replacen("with = { skip", "with = { skipp", 1),
        _ => text + "\n[pipelines.more]\nfrom = [\"none/audit\"]\n",
    };
    fs::write(config, broken).unwrap();
}
