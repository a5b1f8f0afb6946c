//! Teleport as a source: identity files, connections to Auth, the audit log and session recordings.
//!
//! The only crate that knows gRPC. [`run`] reads a cluster for as long as it is let, and gives
//! blocks of events, together with the cursors that say they were read, to an [`Intake`]. It never
//! gives up on a cluster: what fails is tried again, and shows in [`SourceStatus`].

mod clock;
pub mod connect;
mod context;
pub mod identity;
mod intake;
pub mod json;
mod limits;
pub mod proto;
mod read;
mod run;
mod settings;
mod status;

pub use clock::{Clock, SystemClock};
pub use identity::{Credentials, LoadError};
pub use intake::{Closed, Intake, Resume};
pub use limits::Limits;
pub use run::{Ended, SourceError, run};
pub use settings::Settings;
pub use status::{Phase, ReaderKind, SourceStatus};
