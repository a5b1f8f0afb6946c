//! A plugin that fails after a change: the condition says what changed, and how to go back.

use std::fs;
use std::path::{Path, PathBuf};

use lockgate_tests::components::{component, hostile_plugins};
use lockgate_tests::{Auth, Running, books, reload, started, status, until};

use crate::reload::Fixture;

/// The operator sees which content worked, and how to go back to it.
#[test]
fn a_plugin_that_fails_after_its_file_was_replaced_says_how_to_go_back() {
    let endless = Endless::new();
    let file = endless.0.dir.path().join("noise.wasm");
    let mut content = fs::read(component("hostile_filter")).unwrap();
    fs::write(&file, &content).unwrap();
    let plugin = format!("[plugins.noise]\nsource = \"file:{}\"\n", file.display());
    let write = |mode| endless.write(&plugin, "noise", mode);
    let config = write("keep");
    let host = started(&config);
    until_it_delivers(&host, &config);
    host.stop().exits_with(0);

    // Another content, which does not work: it has a section of the name `note`.
    content.extend(*b"\0\x05\x04note");
    fs::write(&file, &content).unwrap();
    write("trap");
    let host = started(&config);
    let source = format!("file:{}", file.display());
    until_it_traps(&host, &config, |message| {
        message.contains(&format!("`{source}` was replaced: sha256:"))
            && message.contains(&format!(
                "to go back, put the earlier content of `{source}` back and run `lockgate reload`"
            ))
    });
    // As it says.
    content.truncate(content.len() - 7);
    fs::write(&file, &content).unwrap();
    write("keep");
    reload(&config).exits_with(0);
    until_it_delivers(&host, &config);
    host.stop().exits_with(0);
}

/// The component is the same, but configured in another way: the operator sees what to restore.
#[test]
fn a_plugin_that_fails_after_its_configuration_changed_says_what_changed() {
    let endless = Endless::new();
    let write = |mode| endless.write(&hostile_plugins(), "hostile-filter", mode);
    let config = write("keep");
    let host = started(&config);
    until_it_delivers(&host, &config);
    write("trap");
    reload(&config).exits_with(0);
    until_it_traps(&host, &config, |message| {
        message.ends_with(
            "in its `with`, `mode` changed since it last finished events here; to go back, \
             restore the earlier `with` and run `lockgate reload`",
        )
    });
    // As it says.
    write("keep");
    reload(&config).exits_with(0);
    until_it_delivers(&host, &config);
    host.stop().exits_with(0);
}

/// There are always more events to come.
struct Endless(Fixture);

impl Endless {
    fn new() -> Endless {
        let mut fixture = Fixture::new();
        let endless = ["--events", "1000000", "--rate", "500"];
        fixture.auth = Auth::start(&fixture.dir.path().join("endless"), &endless);
        Endless(fixture)
    }

    /// A pipeline with the hostile filter by this name, in this mode.
    fn write(&self, plugins: &str, name: &str, mode: &str) -> PathBuf {
        let stage = format!("stage = [{{ plugin = \"{name}\", with = {{ mode = \"{mode}\" }} }}]");
        let pipeline = self.0.pipeline("main", &stage);
        self.0.write(&format!("{plugins}\n{pipeline}"))
    }
}

#[track_caller]
fn until_it_delivers(host: &Running, config: &Path) {
    let delivered = || books(&status(config), "main").delivered;
    let shown = || format!("{}\n{}", message(config), host.stderr());
    let before = delivered();
    until("it delivers", shown, || {
        delivered() > before && message(config).is_empty()
    });
}

/// Until the condition is that the filter traps, and its message is as expected.
#[track_caller]
fn until_it_traps(host: &Running, config: &Path, expected: impl Fn(&str) -> bool) {
    let shown = || format!("{}\n{}", message(config), host.stderr());
    until("the condition says what changed", shown, || {
        let message = message(config);
        message.contains("it trapped") && expected(&message)
    });
}

/// Of the first condition of the pipeline; empty if there is none.
fn message(config: &Path) -> String {
    let conditions = &status(config)["pipelines"]["main"]["state"]["conditions"];
    conditions[0]["message"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}
