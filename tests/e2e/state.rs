//! State of a component, kept with the batches that changed it.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use lockgate_sim::receiver::{Fault, Rule};
use lockgate_store::Inspector;
use lockgate_tests::components::component;
use lockgate_tests::receiver::LocalReceiver;
use lockgate_tests::{
    Auth, Moments, ReceiverProcess, books, configuration, endpoint, kill_again_and_again,
    kill_once_it_delivers, kills, start, start_and_finish, started, status, until,
};

const EVENTS: u64 = 6000;

/// Kills in the test run. `LOCKGATE_KILLS=50 cargo test --workspace --test e2e state` does more.
const KILLS: u64 = 4;

/// A counter that numbers the events of each user counts each event once, whatever a kill
/// interrupts: its state is durable together with the outcomes.
#[test]
fn counts_survive_kills_and_count_each_event_once() {
    let kills = kills(KILLS);
    let dir = tempfile::tempdir().unwrap();
    let auth = Auth::start(dir.path(), &["--events", &EVENTS.to_string()]);
    let receiver = ReceiverProcess::start(dir.path(), &["--latency", "10ms"]);
    let pipelines = format!(
        "[plugins.counter]\nsource = \"file:{}\"\nstate = \"1 MiB\"\n\n\
         [pipelines.main]\nbatch = {{ events = 50 }}\n\
         [[pipelines.main.stage]]\nplugin = \"counter\"\n\n\
         [pipelines.main.sink]\nplugin = \"builtin:fluentd\"\n{}\n",
        component("counter").display(),
        endpoint(&receiver.addr, &receiver.dir, "main")
    );
    let config = configuration(dir.path(), &auth, &pipelines);
    let mut moments = Moments::new(0x2545_f491_4f6c_dd1d);
    kill_again_and_again(&config, kills, &mut moments, Duration::from_millis(700));
    start_and_finish(&config);
    let shown = status(&config);
    assert_eq!(books(&shown, "main").delivered, EVENTS);
    let counts = |dir: &Path| {
        let state = Inspector::open(dir.join("store")).unwrap().state("main");
        state.unwrap()["counter"].clone()
    };
    let counted = counts(dir.path());

    // Nothing interrupts another host.
    let calm = tempfile::tempdir().unwrap();
    start_and_finish(&configuration(calm.path(), &auth, &pipelines));
    let expected = counts(calm.path());
    let sum = expected.values().map(|count| count.parse::<u64>().unwrap());
    assert_eq!(sum.sum::<u64>(), EVENTS);
    assert!(expected.len() > 1, "each user has a count: {expected:?}");
    assert_eq!(counted, expected);
}

/// A filter is put before the counter, which goes on counting; another plugin in its place begins
/// anew, and the log says what is kept of the first.
#[test]
fn state_stays_with_its_plugin_when_stages_change() {
    let dir = tempfile::tempdir().unwrap();
    let auth = Auth::start(dir.path(), &["--events", &EVENTS.to_string()]);
    let receiver = LocalReceiver::start(dir.path());
    let configured = |stages: &[&str]| {
        let mut pipelines = "[pipelines.main]\nbatch = { events = 50 }\n".to_owned();
        for plugin in stages {
            writeln!(pipelines, "[[pipelines.main.stage]]\nplugin = \"{plugin}\"").unwrap();
        }
        for plugin in stages.iter().filter(|plugin| !plugin.contains(':')) {
            let file = component("counter");
            let source = format!("source = \"file:{}\"", file.display());
            writeln!(pipelines, "[plugins.{plugin}]\n{source}\nstate = \"1 MiB\"").unwrap();
        }
        let endpoint = receiver.endpoint("main");
        let sink = format!("[pipelines.main.sink]\nplugin = \"builtin:fluentd\"\n{endpoint}\n");
        configuration(dir.path(), &auth, &(pipelines + &sink))
    };
    let counted = |plugin: &str| -> u64 {
        let state = Inspector::open(dir.path().join("store"))
            .unwrap()
            .state("main")
            .unwrap();
        let counts = state
            .get(plugin)
            .into_iter()
            .flat_map(|counts| counts.values());
        counts
            .map(|count| count.parse::<u64>().expect("a number"))
            .sum()
    };

    // State is committed in the order of the events: the first event of that number holds it up.
    let hang_at = |count: u64| {
        receiver.control.set_rules(vec![Rule {
            body: format!("\"count\":{count}}}"),
            ..Rule::new(Fault::Hang)
        }]);
    };

    hang_at(60);
    let config = configured(&["counter"]);
    kill_once_it_delivers(&config);
    let alone = counted("counter");
    assert!(alone > 0 && alone < EVENTS, "{alone}");

    hang_at(150);
    let config = configured(&["builtin:filter", "counter"]);
    let host = started(&config);
    until(
        "more is delivered",
        || host.stderr(),
        || books(&status(&config), "main").delivered > alone,
    );
    let ended = host.kill();
    assert!(
        !ended.stderr.contains("keeping the state"),
        "{}",
        ended.stderr
    );
    let behind_a_filter = counted("counter");
    assert_eq!(behind_a_filter, books(&status(&config), "main").delivered);
    assert!(behind_a_filter < EVENTS);

    receiver.recover();
    let config = configured(&["builtin:filter", "tally"]);
    let ended = start_and_finish(&config);
    assert_eq!(books(&status(&config), "main").delivered, EVENTS);
    assert_eq!(counted("tally"), EVENTS - behind_a_filter);
    assert_eq!(counted("counter"), behind_a_filter);
    let kept: Vec<&str> = ended
        .stderr
        .lines()
        .filter(|line| line.contains("the state of `counter` is kept"))
        .collect();
    assert_eq!(kept.len(), 1, "{}", ended.stderr);
    for figure in ["pipeline=main", "keys=", "bytes="] {
        assert!(kept[0].contains(figure), "{}", kept[0]);
    }
}

/// Without the grant the component holds its pipeline rather than lose its counts.
#[test]
fn state_that_is_not_granted_holds_the_pipeline() {
    let dir = tempfile::tempdir().unwrap();
    let auth = Auth::start(dir.path(), &["--events", "100"]);
    let receiver = ReceiverProcess::start(dir.path(), &[]);
    let pipelines = format!(
        "[plugins.counter]\nsource = \"file:{}\"\n\n\
         [[pipelines.main.stage]]\nplugin = \"counter\"\n\n\
         [pipelines.main.sink]\nplugin = \"builtin:fluentd\"\n{}\n",
        component("counter").display(),
        endpoint(&receiver.addr, &receiver.dir, "main")
    );
    let config = configuration(dir.path(), &auth, &pipelines);
    let host = start(&config, &[]);
    host.line_with_all(&["held: ", "the counts cannot be kept", "pipeline=main"]);
    host.line_with("state = \"1 MiB\"");
    let ended = host.stop().exits_with(0);
    assert_eq!(
        books(&status(&config), "main").waiting,
        100,
        "{}",
        ended.stderr
    );
    assert_eq!(receiver.stop().documents, 0);
}
