//! Runs components: loads and compiles them, gives each call its limits and the host's services,
//! and finds the one event that a component cannot take.
//!
//! - [`Engine`] is made once: compiler settings, the thread that counts time, the pool of threads,
//!   the memory all instances share.
//! - [`Component`] is a compiled plugin of one [`Kind`]; [`Stage`] is a component with an
//!   operator's configuration in one pipeline.
//! - [`Stage::filter`], [`Stage::transform`], [`Stage::encode`] and [`Stage::classify`] are
//!   synchronous: they run on a [`Pool`] thread. A call works on an instance of its own; none
//!   survives a trap, and by default none survives its batch.
//! - The `*_isolated` forms end with an answer for each event, or with [`Postponed`]: the same
//!   batch again, later.
//!
//! No other crate knows wasmtime, and no network, file, clock or secret is within a component's
//! reach.

mod bindings;
mod budget;
mod calls;
mod compiled;
mod component;
mod cpu;
mod engine;
mod error;
mod host;
mod instance;
mod interface;
mod isolate;
mod json;
mod limits;
mod log;
mod metrics;
mod pool;
mod services;
mod setup;
mod slots;
mod stage;

pub use calls::{Context, Encoded, Mapped, Verdict};
pub use compiled::CodeCache;
pub use component::{Component, LoadError};
pub use engine::{Engine, EngineError, EngineOptions};
pub use error::CallError;
pub use interface::{CONTRACT_VERSION, Kind};
pub use isolate::{DEAD_IN_A_ROW_MAX, Isolated, Postponed};
pub use json::{Fault, check_object};
pub use limits::Limits;
pub use metrics::Measure;
pub use pool::{Pool, PoolError};
pub use setup::{
    BatchWish, ConfigIssue, Inspect, Needs, REASONS_MAX, RESPONSE_MAX, RESPONSE_MAX_DEFAULT, Setup,
};
pub use stage::{ConfigureError, Stage, StageOptions};
