//! Runs components: loads and compiles them, and gives each call its limits and the host's
//! services.
//!
//! - [`Engine`] exists once: compiler settings, the thread that counts time, the [`Scheduler`] with
//!   its threads, and the memory that all instances share.
//! - [`Code`] is a compiled plugin, from a child process or from a cache.
//! - [`Component`] is code of one [`Kind`], linked; [`Stage`] and [`Sink`] are components with an
//!   operator's configuration in one pipeline.
//! - [`Stage::filter`], [`Stage::transform`], [`Sink::encode`] and [`Sink::classify`] are one
//!   synchronous call each, without a retry. They run as jobs of a pipeline's [`Queue`]. A call
//!   works on its own instance, which never survives a trap, and by default not its call.
//!
//! No other crate knows wasmtime. Components have no access to networks, files, clocks or secrets.

mod address_space;
mod budget;
mod clock;
mod compiled;
mod compiler;
mod component;
mod configured;
mod contract;
mod engine;
mod host;
mod idle;
mod instance;
mod interface;
mod json;
mod lack;
mod limits;
mod log;
mod memory;
mod meter;
pub mod metrics;
mod scheduler;
mod services;
mod setup;
mod sink;
mod slots;
mod stage;
mod ticker;
mod time_member;

pub use budget::Room;
pub use compiled::{Code, CodeCache, DigestsInMemory, KeptCode, TrustedDigests};
pub use compiler::{ChildCompiler, ChildError, CompileLimits, Compiler, compile_in_child};
pub use component::{Component, LoadError};
pub use configured::{ComponentOptions, ConfigureError};
pub use engine::{Engine, EngineError, EngineOptions};
pub use host::{PluginIdentity, StageIdentity};
pub use interface::{CONTRACT_VERSION, Kind};
pub use json::{DocumentError, check_object, put_on_one_line};
pub use limits::{Limits, REASONS_MAX, RESPONSE_MAX, RESPONSE_MAX_DEFAULT};
pub use memory::{BatchMemoryBudget, MemoryShare, Reserved};
pub use scheduler::{Queue, Ran, Scheduler, SchedulerError};
pub use setup::ConfigIssue;
pub use sink::Sink;
pub use stage::{CallContext, Stage};
