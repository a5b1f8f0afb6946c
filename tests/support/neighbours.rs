//! Five pipelines whose components or receivers misbehave: that loop, burn CPU, trap, hang or
//! compile slowly. Tests and a benchmark start them.

use std::path::Path;

use lockgate_sim::receiver::{Fault, Rule};

use crate::components::{component, hostile_plugins};
use crate::receiver::LocalReceiver;
use crate::wasm::slow_to_compile;

/// Names of the pipelines that [`neighbours`] makes.
pub const NEIGHBOURS: [&str; 5] = ["loops", "burns", "traps", "hangs", "compiles"];

/// A component that never ends, one that takes most of a second for each call, one that traps on
/// every event, a receiver that never answers, and a component that takes minutes to compile. The
/// configuration, with its `[plugins]`; files go to `dir`.
///
/// `healthy`: the pipeline that has these neighbours. It stands last: the order of the
/// configuration is not the order in which components are compiled.
pub fn neighbours(dir: &Path, receiver: &LocalReceiver, healthy: &str) -> String {
    let slow = dir.join("slow.wasm");
    std::fs::write(&slow, slow_to_compile()).expect("it can be written");
    receiver.control.set_rules(vec![Rule {
        path: "/hangs".into(),
        ..Rule::new(Fault::Hang)
    }]);
    let mut text = hostile_plugins();
    text += &format!(
        "[plugins.loops]\nsource = \"file:{}\"\nlimits = {{ time = \"1s\" }}\n\n\
         [plugins.compiles]\nsource = \"file:{}\"\n\n\
         [limits]\ncompile = {{ time = \"1h\" }}\n\n",
        component("hostile_filter").display(),
        slow.display(),
    );
    for (name, stage) in NEIGHBOURS.into_iter().zip([
        "plugin = \"loops\"\nwith = { mode = \"loop\" }",
        "plugin = \"hostile-filter\"\nwith = { mode = \"burn\", rounds = 1_000_000_000 }",
        "plugin = \"hostile-filter\"\nwith = { mode = \"trap\" }",
        "plugin = \"builtin:filter\"\nwith = { skip = [\"no.such.event\"] }",
        "plugin = \"compiles\"",
    ]) {
        text += &format!("[[pipelines.{name}.stage]]\n{stage}\n\n");
        text += &pipeline(name, receiver);
        if name == "hangs" {
            // The others use all the CPU time there is until its first request has failed.
            text += "timeout = \"2s\"\n\n";
        }
    }
    text += healthy;
    text
}

/// A pipeline of its own path, without a stage.
pub fn pipeline(name: &str, receiver: &LocalReceiver) -> String {
    format!(
        "[pipelines.{name}.sink]\nplugin = \"builtin:fluentd\"\n{}\n\n",
        receiver.endpoint(name)
    )
}
