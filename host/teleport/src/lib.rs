//! Teleport as a source: identity files, connections to Auth, the audit log and session recordings.
//!
//! The only crate with a gRPC client. [`run`] reads a cluster and passes blocks of events, together
//! with their cursors, to an [`Intake`]. It retries every failure and shows it in [`ReaderStatus`].

mod blocking;
mod clock;
pub mod connect;
mod gaps;
pub mod identity;
mod intake;
pub mod json;
mod limits;
mod locks;
pub mod proto;
mod read;
mod run;
mod settings;
mod source;
mod start;
mod status;
mod takeover;
mod time;
mod waiting;

pub use clock::{Clock, SystemClock};
pub use identity::{Credentials, LoadError};
pub use intake::{Closed, Intake, Resume};
pub use limits::{SourceLimits, Sweep};
pub use locks::{LockFigures, LockSettings};
pub use read::polling_begins_at;
pub use run::{CLUSTER, Ended, SourceError, check, read_recordings, run};
pub use settings::SourceSettings;
pub use start::START as START_CURSOR;
pub use status::{FailureKind, Phase, ReaderKind, ReaderStatus, SourceFailure};
pub use takeover::{HandlerChunk, HandlerPosition, handler_began_at};
pub use time::{of_rfc3339, rfc3339};
