//! Reader, consumer, delivery, commit: wires the other crates together and owns no format.

mod assemble;
mod backoff;
mod batcher;
mod chain;
mod clock;
mod consumer;
mod delivery;
mod generation;
mod host;
pub mod isolate;
mod progress;
mod reader;
mod status;
mod stop;
mod work;

pub use assemble::{Assembly, Workshop};
pub use host::{HostError, Plan, read_status, run};
pub use reader::Reader;
pub use status::{Board, HostStatus, PipelineState, Problem, SourceState};
pub use stop::{Stop, Stopper};
