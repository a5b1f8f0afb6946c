//! Runs components: loads and compiles them, gives each call its limits and the host's services,
//! and finds the one event that a component cannot take.
//!
//! - [`Engine`] is made once: compiler settings, the thread that counts time, the [`Scheduler`] with
//!   its threads, the memory all instances share.
//! - [`Code`] is a compiled plugin, from a child process or from a cache.
//! - [`Component`] is code of one [`Kind`], linked; [`Stage`] is a component with an
//!   operator's configuration in one pipeline.
//! - [`Stage::filter`], [`Stage::transform`], [`Stage::encode`] and [`Stage::classify`] are
//!   synchronous: they run as jobs of a pipeline's [`Queue`]. A call works on an instance of its
//!   own; none survives a trap, and by default none survives its batch.
//! - The `*_isolated` forms end with an answer for each event, or with [`Postponed`]: the same
//!   batch again, later.
//!
//! No other crate knows wasmtime, and no network, file, clock or secret is within a component's
//! reach.

mod bindings;
mod budget;
mod calls;
mod clock;
mod compiled;
mod compiler;
mod component;
mod engine;
mod error;
mod host;
mod instance;
mod interface;
mod isolate;
mod json;
mod limits;
mod log;
mod memory;
mod metrics;
mod scheduler;
mod services;
mod setup;
mod slots;
mod stage;

pub use calls::{Context, Encoded, Mapped, Verdict};
pub use compiled::{Code, CodeCache, CodeDigests, DigestsInMemory, KeptCode};
pub use compiler::{ChildCompiler, ChildError, CompileLimits, Compiler, compile_in_child};
pub use component::{Component, LoadError};
pub use engine::{Engine, EngineError, EngineOptions};
pub use error::CallError;
pub use interface::{CONTRACT_VERSION, Kind};
pub use isolate::{DEAD_IN_A_ROW_MAX, Isolated, Postponed};
pub use json::{Fault, check_object};
pub use limits::Limits;
pub use memory::{MemoryBudget, MemoryShare, Reserved};
pub use metrics::Measure;
pub use scheduler::{Queue, Ran, Scheduler, SchedulerError};
pub use setup::{
    BatchWish, ConfigIssue, Inspect, Needs, REASONS_MAX, RESPONSE_MAX, RESPONSE_MAX_DEFAULT, Setup,
};
pub use stage::{ConfigureError, Stage, StageOptions};
