//! State of a component, kept with the batches that changed it.

use std::time::Duration;

use lockgate_store::Inspector;
use lockgate_tests::components::component;
use lockgate_tests::{
    Auth, Moments, ReceiverProcess, books, configuration, endpoint, kill_again_and_again, kills,
    start, start_and_finish, status,
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
    let inspector = Inspector::open(dir.path().join("store")).unwrap();
    let state = inspector.state("main").unwrap();
    let counted: u64 = state[&0]
        .values()
        .map(|count| count.parse::<u64>().expect("a number"))
        .sum();
    assert_eq!(counted, EVENTS, "{} users", state[&0].len());
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
