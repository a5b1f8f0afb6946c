//! Figures for a monitoring system, in Prometheus' text format: [`Exposition`] writes them,
//! [`Registry`] keeps what plugins count while their stages come and go.

mod exposition;
mod recorder;
mod registry;

pub use exposition::{Exposition, Histogram, Value};
pub use recorder::{Kind, Metric, Recorder};
pub use registry::{PluginMetric, PluginMetrics, PluginPlace, Registry};
