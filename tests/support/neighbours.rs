//! Pipelines whose components or receivers misbehave: that loop, burn CPU, trap, hang, compile
//! slowly or hoard memory. Tests and a benchmark start them.

use std::path::Path;

use lockgate_sim::receiver::{Fault, Rule};

use crate::components::{component, hostile_plugins};
use crate::receiver::LocalReceiver;
use crate::wasm::slow_to_compile;

/// A way to misbehave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Neighbour {
    /// A component that never ends.
    Loops,
    /// One that takes most of a second for each call.
    Burns,
    /// One that takes most of a second for each call, and then traps on more than one event.
    BurnsAndTraps,
    /// One that traps on every event.
    Traps,
    /// A receiver that never answers.
    Hangs,
    /// A component that takes minutes to compile.
    Compiles,
    /// Ten components that take 125 MB each as soon as they are called, and never end.
    Hoards,
    /// Several pipelines, each with a component that counts to `rounds` for every so many batches.
    Counts {
        pipelines: u32,
        rounds: u64,
        one_in: u32,
    },
}

impl Neighbour {
    pub const ALL: [Neighbour; 7] = [
        Neighbour::Loops,
        Neighbour::Burns,
        Neighbour::BurnsAndTraps,
        Neighbour::Traps,
        Neighbour::Hangs,
        Neighbour::Compiles,
        Neighbour::Hoards,
    ];

    /// The names of its pipelines.
    pub fn pipelines(self) -> Vec<String> {
        let name = match self {
            Neighbour::Loops => "loops",
            Neighbour::Burns => "burns",
            Neighbour::BurnsAndTraps => "burns-and-traps",
            Neighbour::Traps => "traps",
            Neighbour::Hangs => "hangs",
            Neighbour::Compiles => "compiles",
            Neighbour::Hoards => return (1..=10).map(|n| format!("hoards-{n}")).collect(),
            Neighbour::Counts { pipelines, .. } => {
                return (1..=pipelines).map(|n| format!("counts-{n}")).collect();
            }
        };
        vec![name.to_owned()]
    }

    fn stage(self) -> String {
        let stage = match self {
            Neighbour::Loops => "plugin = \"short\"\nwith = { mode = \"loop\" }",
            Neighbour::Burns => {
                "plugin = \"hostile-filter\"\nwith = { mode = \"burn\", rounds = 1_000_000_000 }"
            }
            Neighbour::BurnsAndTraps => {
                "plugin = \"hostile-filter\"\n\
                 with = { mode = \"burn-trap\", rounds = 700_000_000 }"
            }
            Neighbour::Traps => "plugin = \"hostile-filter\"\nwith = { mode = \"trap\" }",
            Neighbour::Hangs => {
                "plugin = \"builtin:filter\"\nwith = { skip = [\"no.such.event\"] }"
            }
            Neighbour::Compiles => "plugin = \"compiles\"",
            Neighbour::Hoards => {
                "plugin = \"short\"\nwith = { mode = \"hoard\", bytes = 125_000_000 }"
            }
            Neighbour::Counts { rounds, one_in, .. } => {
                return format!(
                    "plugin = \"hostile-filter\"\n\
                     with = {{ mode = \"burn\", rounds = {rounds}, one-in = {one_in} }}"
                );
            }
        };
        stage.to_owned()
    }
}

/// A configuration with these neighbours, and with its `[plugins]`; files go to `dir`.
///
/// `healthy`: the pipeline that has them. It stands last: the order of the configuration is not the
/// order in which components are compiled.
pub fn neighbours(
    dir: &Path,
    receiver: &LocalReceiver,
    neighbours: &[Neighbour],
    healthy: &str,
) -> String {
    receiver.control.set_rules(vec![Rule {
        path: "/hangs".into(),
        ..Rule::new(Fault::Hang)
    }]);
    let mut text = hostile_plugins();
    text += &format!(
        "[plugins.short]\nsource = \"file:{}\"\nlimits = {{ time = \"1s\" }}\n\n\
         [limits]\ncompile = {{ time = \"1h\" }}\n\n",
        component("hostile_filter").display(),
    );
    if neighbours.contains(&Neighbour::Compiles) {
        let slow = dir.join("slow.wasm");
        std::fs::write(&slow, slow_to_compile()).expect("it can be written");
        text += &format!(
            "[plugins.compiles]\nsource = \"file:{}\"\n\n",
            slow.display()
        );
    }
    for neighbour in neighbours {
        for name in neighbour.pipelines() {
            text += &format!("[[pipelines.{name}.stage]]\n{}\n\n", neighbour.stage());
            text += &pipeline(&name, receiver);
            if *neighbour == Neighbour::Hangs {
                // The others use all the CPU time there is until its first request has failed.
                text += "timeout = \"2s\"\n\n";
            }
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
