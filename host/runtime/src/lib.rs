//! Runs components: loads and compiles them, and gives each call its limits and the host's services.
//!
//! - [`Engine`] is made once: compiler settings, the thread that counts time, the pool of threads,
//!   the memory all instances share.
//! - [`Component`] is a compiled plugin of one [`Kind`]; [`Stage`] and [`Sink`] are components with
//!   an operator's configuration in one pipeline.
//! - [`Stage::filter`], [`Stage::transform`], [`Sink::encode`] and [`Sink::classify`] are one call
//!   each, synchronous, without a second try: they run on a [`Pool`] thread. A call works on an
//!   instance of its own; none survives a trap, and by default none survives its call.
//!
//! No other crate knows wasmtime, and no network, file, clock or secret is within a component's
//! reach.

mod budget;
mod compiled;
mod component;
mod configured;
mod contract;
mod cpu;
mod engine;
mod host;
mod instance;
mod interface;
mod json;
mod limits;
mod log;
pub mod metrics;
mod pool;
mod services;
mod setup;
mod sink;
mod slots;
mod stage;
mod time_member;

pub use compiled::CodeCache;
pub use component::{Component, LoadError};
pub use configured::{ConfigureError, StageOptions};
pub use engine::{Engine, EngineError, EngineOptions};
pub use interface::{CONTRACT_VERSION, Kind};
pub use json::{Fault, check_object, put_on_one_line};
pub use limits::Limits;
pub use pool::{Pool, PoolError};
pub use setup::{ConfigIssue, REASONS_MAX, RESPONSE_MAX, RESPONSE_MAX_DEFAULT};
pub use sink::Sink;
pub use stage::{CallContext, Stage};
