//! What an operator can see of a running host: its log, and what the process costs.
//!
//! A leaf: nothing here knows a pipeline. Everything that is written goes to standard error, one
//! line an event, with known secrets masked and control characters escaped.

mod filter;
mod line;
mod log;
pub mod process;
mod throttle;

pub use lockgate_model::{LINE_MAX, Masks, escape};
pub use log::{Format, LogError, init_logging};
pub use throttle::Throttle;
