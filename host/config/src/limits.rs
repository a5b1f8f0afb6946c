//! `[limits]`: what all pipelines share.

use std::time::Duration;

use crate::defaults::{COMPILE_MEMORY, COMPILE_TIME, MEMORY};
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
