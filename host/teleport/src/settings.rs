//! The settings of a source.

use std::path::PathBuf;
use std::sync::Arc;

use lockgate_model::{Millis, OutboundProxy};

use crate::connect::Route;
use crate::{Clock, Credentials, LockSettings, SourceLimits, SystemClock};

/// The settings of a source.
#[derive(Clone)]
pub struct SourceSettings {
    /// Name of the source, such as `teleport`: the first half of its streams' names.
    pub source: Arc<str>,
    /// `host:port` of Teleport's Auth Service, or of its proxy.
    pub address: String,
    /// How the Auth Service is reached; `None`: by what answers at the address.
    pub route: Option<Route>,
    /// Whether a proxy needs a connection upgrade; `None`: a test connection tells.
    pub upgrade: Option<bool>,
    /// `host:port` of the proxy's SSH tunnel; `None`: as the proxy says.
    pub tunnel: Option<String>,
    /// Through which addresses are reached that it serves.
    pub outbound: Option<OutboundProxy>,
    /// PEM of the only authorities that may sign the proxy's certificate; `None`: those that this
    /// machine trusts.
    pub proxy_ca: Option<PathBuf>,
    pub credentials: Credentials,
    /// Event types to read; empty for all.
    pub types: Vec<String>,
    /// Events before this time are not read. `None`: as stored, or the time of the first start.
    pub start_time: Option<Millis>,
    /// Whether session recordings are wanted.
    pub sessions: bool,
    /// Keep the events that Teleport writes about the downloads of this source.
    pub keep_own_access: bool,
    /// Users with too many failed logins are locked. `None`: nobody is.
    pub locks: Option<LockSettings>,
    /// End when everything that was in the log at the start has been read.
    pub exit_on_last_event: bool,
    pub limits: SourceLimits,
    pub clock: Arc<dyn Clock>,
}

impl SourceSettings {
    pub fn new(source: &str, address: &str, credentials: Credentials) -> SourceSettings {
        SourceSettings {
            source: source.into(),
            address: address.to_owned(),
            route: None,
            upgrade: None,
            tunnel: None,
            outbound: None,
            proxy_ca: None,
            credentials,
            types: Vec::new(),
            start_time: None,
            sessions: false,
            keep_own_access: false,
            locks: None,
            exit_on_last_event: false,
            limits: SourceLimits::default(),
            clock: Arc::new(SystemClock),
        }
    }
}
