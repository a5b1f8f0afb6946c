//! The running program: readers fill the ledger, and each pipeline is an engine whose actions are
//! carried out here with component threads, HTTP clients and the ledger. It decides nothing about
//! delivery; [`lockgate_engine`] does.

mod admin_listener;
mod blocking;
mod build;
mod client;
mod clock;
mod code;
mod collect;
mod components;
mod condition_log;
mod credentials;
mod damage;
mod descriptors;
mod doctor;
mod driver;
mod expiry;
mod generation;
mod host;
mod identity;
mod lag;
mod limits;
mod metrics;
mod operator;
mod plugins;
mod position;
mod read_again;
mod reader;
mod reload;
mod replaced;
mod replay;
mod settings;
mod shutdown;
mod source;
mod starting;
mod status;
mod stopped;
mod store_log;
mod supervisor;
mod takeover;
mod unconfigured;
mod worker;

pub use build::{
    BuiltPipeline, PipelineBuilder, Progress, Unbuilt, check_endpoint, open_databases,
};
pub use doctor::{Finding, FindingState, Subject, diagnose};
pub use host::{Host, HostError, HostEvent, HostOptions, LoadConfig, Observer};
pub use lag::{Lag, lag};
pub use limits::READ_AGAIN_MAX;
pub use lockgate_teleport::HandlerPosition;
pub use operator::{Listeners, RunningHost, readiness, running_host};
pub use plugins::{BoundSink, BoundStage, CallMeter};
pub use position::check_position;
pub use read_again::{RecordingsAgain, read_again};
pub use reader::{check_credentials, check_source};
pub use reload::ReloadOutcome;
pub use replay::{ReplayedDocument, ReplayedResult, ReplayedStage};
pub use settings::retention;
pub use shutdown::{Shutdown, ShutdownTrigger};
pub use status::{
    AskedBy, Board, ConditionStatus, ConditionStatusKind, ConfigurationStatus, HostStatus,
    ListenerStatus, LockStatus, PipelineState, PipelineStatus, Problem, ReaderFigures,
    RefusedConfiguration, SourceStatus, StoreLogStatus, StoreStatus,
};
pub use takeover::{
    HandlerStart, TakeoverError, begin_where_the_handler_began, describe as describe_position,
    handler_position, handler_start, sends_recordings, stored_cursors, take_over,
};
