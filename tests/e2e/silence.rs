//! A Teleport that takes searches and does not answer them, although it answers everything else.

use lockgate_sim::auth::{AuthOptions, Backend, Faults};
use lockgate_sim::generate::GeneratorOptions;
use lockgate_tests::receiver::LocalReceiver;
use lockgate_tests::{
    LocalAuth, Running, admin_address, get, listen_on_any_port, lockgate, start, status, until,
};

/// It was shown as caught up, with nothing behind, until the search timed out after three minutes.
#[test]
fn a_search_without_an_answer_is_shown_and_nothing_says_that_all_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let options = AuthOptions {
        events: GeneratorOptions {
            events: 100,
            ..GeneratorOptions::default()
        },
        backend: Backend::Search,
        ..AuthOptions::default()
    };
    let auth = LocalAuth::start(dir, options);
    let receiver = LocalReceiver::start(dir);
    let config = dir.join("lockgate.toml");
    let text = format!(
        "[store]\npath = \"{}/store\"\n[sources.main]\naddr = \"{}\"\nidentity = \"{}\"\n\
         start-time = \"2026-01-01T00:00:00Z\"\n[pipelines.main.sink]\n\
         plugin = \"builtin:fluentd\"\n{}\n",
        dir.display(),
        auth.addr,
        auth.dir.join("identity").display(),
        receiver.endpoint("events")
    );
    std::fs::write(&config, text).unwrap();
    listen_on_any_port(&config);
    let host = start(&config, &[]);
    let admin = admin_address(&host);
    let shown = || format!("{}\n{}", status(&config), host.stderr());
    let source = || status(&config)["host"]["sources"]["main"].clone();
    let is_well = || {
        let seen = status(&config);
        let source = &seen["host"]["sources"]["main"];
        source["state"] == "caught up, reading by polling"
            && source["unknown_since"].is_null()
            && seen["pipelines"]["main"]["lag_known"] == true
            && seen["ready"] == true
    };
    until("everything is read", shown, is_well);

    auth.set_faults(Faults {
        silent_searches: true,
        ..Faults::default()
    });
    until("it is not known what waits", shown, || {
        source()["unknown_since"].is_i64()
    });
    let unknown = status(&config);
    let state = unknown["host"]["sources"]["main"]["state"].as_str();
    assert!(
        state.is_some_and(|state| !state.contains("caught up")),
        "{unknown}"
    );
    until("the silence is a condition", shown, || {
        let conditions = source()["conditions"].to_string();
        conditions.contains("Teleport has not answered the search from ")
    });
    let seen = status(&config);
    assert_eq!(seen["ready"], false, "{seen}");
    assert_eq!(seen["host"]["sources"]["main"]["state"], "not reading");
    assert_eq!(seen["pipelines"]["main"]["lag_known"], false, "{seen}");
    let ready = get(&admin, "/readyz");
    let reason = r#""source":"main","kind":"reading""#;
    assert!(
        ready.starts_with("HTTP/1.1 503") && ready.contains(reason),
        "{ready}"
    );
    let mut command = lockgate();
    command.args(["status", "--config"]).arg(&config);
    let table = Running::start("status", &mut command).ended().stdout;
    for text in [
        "lag unknown since",
        "Teleport has not answered the search from",
    ] {
        assert!(table.contains(text), "{table}");
    }

    auth.set_faults(Faults::default());
    until("everything is read again", shown, is_well);
    assert!(get(&admin, "/readyz").starts_with("HTTP/1.1 200"));
    host.stop().exits_with(0);
}
