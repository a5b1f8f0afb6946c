//! Runs components: loads and compiles them, and gives each call its limits and the host's services.
//!
//! - [`Engine`] is made once: compiler settings, the thread that counts time, the [`Scheduler`] with
//!   its threads, the memory all instances share.
//! - [`Code`] is a compiled plugin, from a child process or from a cache.
//! - [`Component`] is code of one [`Kind`], linked; [`Stage`] and [`Sink`] are components with an
//!   operator's configuration in one pipeline.
//! - [`Stage::filter`], [`Stage::transform`], [`Sink::encode`] and [`Sink::classify`] are one call
//!   each, synchronous, without a second try: they run as jobs of a pipeline's [`Queue`]. A call
//!   works on an instance of its own; none survives a trap, and by default none survives its call.
//!
//! No other crate knows wasmtime, and no network, file, clock or secret is within a component's
//! reach.

mod budget;
mod clock;
mod compiled;
mod compiler;
mod component;
mod configured;
mod contract;
mod engine;
mod host;
mod instance;
mod interface;
mod json;
mod limits;
mod log;
mod memory;
pub mod metrics;
mod scheduler;
mod services;
mod setup;
mod sink;
mod slots;
mod stage;
mod time_member;

pub use compiled::{Code, CodeCache, CodeDigests, DigestsInMemory, KeptCode};
pub use compiler::{ChildCompiler, ChildError, CompileLimits, Compiler, compile_in_child};
pub use component::{Component, LoadError};
pub use configured::{ConfigureError, StageOptions};
pub use engine::{Engine, EngineError, EngineOptions};
pub use interface::{CONTRACT_VERSION, Kind};
pub use json::{Fault, check_object, put_on_one_line};
pub use limits::Limits;
pub use memory::{MemoryBudget, MemoryShare, Reserved};
pub use scheduler::{Queue, Ran, Scheduler, SchedulerError};
pub use setup::{ConfigIssue, REASONS_MAX, RESPONSE_MAX, RESPONSE_MAX_DEFAULT};
pub use sink::Sink;
pub use stage::{CallContext, Stage};
