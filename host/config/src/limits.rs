//! `[limits]`: what all pipelines share.

use std::time::Duration;

use lockgate_model::show_size;

use crate::defaults::{COMPILE_MEMORY, COMPILE_TIME, MEMORY};
use crate::issues::Issue;
use crate::pipeline::Pipeline;
use crate::plugin::Declared;
use crate::reading::Reading;
use crate::table::Table;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostLimits {
    /// `memory`: bytes that all instances of components may have together, and that all batches in
    /// flight may have together. Default 512 MiB.
    pub memory: u64,
    pub compile: CompileLimits,
}

/// `compile`: what compiling one component may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompileLimits {
    /// `memory`: bytes. Default 2 GiB.
    pub memory: u64,
    /// `time`: CPU time. Default 180 s.
    pub time: Duration,
}

impl Default for HostLimits {
    fn default() -> HostLimits {
        HostLimits {
            memory: MEMORY.default.0,
            compile: CompileLimits::default(),
        }
    }
}

impl Default for CompileLimits {
    fn default() -> CompileLimits {
        CompileLimits {
            memory: COMPILE_MEMORY.default.0,
            time: COMPILE_TIME.default,
        }
    }
}

pub(crate) fn read(r: &mut Reading<'_>, root: &mut Table<'_>) -> HostLimits {
    let Some(mut table) = root.optional("limits").and_then(|value| value.table(r)) else {
        return HostLimits::default();
    };
    let memory = table.quantity(r, "memory", MEMORY).0;
    let mut compile = CompileLimits::default();
    if let Some(mut table) = table.optional("compile").and_then(|value| value.table(r)) {
        compile = CompileLimits {
            memory: table.quantity(r, "memory", COMPILE_MEMORY).0,
            time: table.quantity(r, "time", COMPILE_TIME),
        };
        table.finish(r);
    }
    table.finish(r);
    HostLimits { memory, compile }
}

/// The state of stages is held in memory, outside `memory`: all of it together may be half as
/// large.
pub(crate) fn check_state(
    r: &mut Reading<'_>,
    limits: HostLimits,
    declared: &Declared,
    pipelines: &[Pipeline],
) {
    let stages = || pipelines.iter().flat_map(|pipeline| &pipeline.stages);
    let granted: u64 = stages().filter_map(|stage| stage.plugin.state).sum();
    let most = limits.memory / 2;
    // The most state first: its key is the one to change.
    let largest = declared.state.iter().max_by_key(|(name, _)| {
        let stages = stages().filter(|stage| stage.plugin.name == *name);
        stages.filter_map(|stage| stage.plugin.state).sum::<u64>()
    });
    let Some((name, span)) = largest.filter(|_| granted > most) else {
        return;
    };
    let message = format!(
        "`plugins.{name}.state`: the stages of all pipelines may keep {} of state together, which \
         is more than half of `memory` in `[limits]`, {}.",
        show_size(granted),
        show_size(most),
    );
    let hint = format!(
        "choose a smaller `state`, or set `memory = \"{}\"` or more in `[limits]`",
        show_size(granted * 2)
    );
    r.issue(Issue::new(span.clone(), message, "too much", hint));
}
