//! The log, the metrics, and the memory and CPU time of this process.
//!
//! Log lines go to standard error, one per event, with known secrets masked and control characters
//! escaped.

mod filter;
mod line;
mod log;
pub mod metrics;
pub mod process;

pub use filter::PROBLEMS;
pub use lockgate_model::{LINE_MAX, Masks, escape};
pub use log::{Format, LogError, init_logging};
