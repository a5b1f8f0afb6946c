//! The host's services for components, for all worlds and all versions of the contract.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use lockgate_lookup::{Agent, Network, Place, TEXT_MAX};
use lockgate_model::STATE_ENTRY_BYTES;

use crate::clock;
use crate::host::InstanceHost;
use crate::log::StageLog;
use crate::metrics::{MetricError, Metrics, Refusals};

/// The state that all instances of a stage share.
#[derive(Debug, Default)]
pub(crate) struct Services {
    pub(crate) metrics: Metrics,
    pub(crate) refusals: Refusals,
    pub(crate) log: Arc<StageLog>,
    /// The operator granted state. It is available in calls, but not in `configure`.
    state_is_granted: bool,
    warned: AtomicU8,
}

impl Services {
    pub(crate) fn new(state_is_granted: bool) -> Services {
        Services {
            state_is_granted,
            ..Services::default()
        }
    }
}

/// A refused request of a component. Logged once per stage.
#[derive(Clone, Copy)]
enum Warning {
    Place = 1,
    Network = 2,
    Agent = 4,
    AgentText = 8,
    State = 16,
    Quota = 32,
}

impl InstanceHost {
    fn is_first(&self, warning: Warning) -> bool {
        let bit = warning as u8;
        self.services.warned.fetch_or(bit, Ordering::Relaxed) & bit == 0
    }

    fn refuse(&self, warning: Warning, text: &str) {
        if self.is_first(warning) {
            self.identity.warn(&format!("{text} (logged once)"));
        }
    }

    /// Logged as info, because many operators do not want look-ups.
    fn not_granted(&self, warning: Warning, what: &str, setting: &str) {
        if self.is_first(warning) {
            let identity = &self.identity;
            tracing::info!(
                pipeline = %identity.pipeline, stage = %identity.stage, plugin = %identity.plugin,
                "it looks up {what}, which are not granted, so every answer is `none`; {setting} grants them (logged once)"
            );
        }
    }

    pub(crate) fn state_is_not_granted(&self) {
        if !self.services.state_is_granted && self.is_first(Warning::State) {
            let identity = &self.identity;
            let grant = match identity.plugin.declared() {
                Some(name) => format!("`state = \"1 MiB\"` in `[plugins.{name}]` grants it"),
                None => format!(
                    "to grant it, declare the component as `[plugins.NAME]` with `source = \"{}\"` \
                     and `state = \"1 MiB\"`, and write `plugin = \"NAME\"` in the stage",
                    identity.plugin.name
                ),
            };
            tracing::info!(
                pipeline = %identity.pipeline, stage = %identity.stage, plugin = %identity.plugin,
                "it keeps state, which is not granted, so every answer is `not-granted`; {grant} (logged once)"
            );
        }
    }

    pub(crate) fn state_is_full(&self) {
        let (size, quota) = (self.state.size(), self.state.quota().unwrap_or_default());
        let name = self.identity.plugin.declared();
        let table = name.map_or_else(String::new, |name| format!(" in `[plugins.{name}]`"));
        let keys = match size.keys {
            1 => "1 key counts".to_owned(),
            keys => format!("{keys} keys count"),
        };
        self.refuse(
            Warning::Quota,
            &format!(
                "its state is full: {keys} {} of the {quota} bytes that `state`{table} grants, \
                 {STATE_ENTRY_BYTES} of them for the key itself; what \
                 would grow it is answered `quota-exceeded`, until the plugin removes keys or you \
                 raise `state`",
                size.counted()
            ),
        );
    }

    /// Whether lines of this level are needed. Errors always are, because the last one explains a
    /// trap.
    pub(crate) fn keeps_lines(&self, level: tracing::Level) -> bool {
        level == tracing::Level::ERROR || (!self.lines.muted && crate::log::is_enabled(level))
    }

    pub(crate) fn log<'a>(
        &mut self,
        level: tracing::Level,
        message: &str,
        fields: impl Iterator<Item = (&'a str, &'a str)>,
    ) {
        self.lines.emit(level, message, fields);
    }

    pub(crate) fn count(&mut self, name: &str, value: u32) {
        let counted = self.metrics.add(&self.services.metrics, name, value);
        self.measured(name, counted);
    }

    pub(crate) fn record(&mut self, name: &str, value: f64) {
        let observed = self.metrics.observe(&self.services.metrics, name, value);
        self.measured(name, observed);
    }

    pub(crate) fn measured(&self, name: &str, result: Result<(), MetricError>) {
        if let Err(error) = result
            && let Some(line) = self.services.refusals.line(name, error)
        {
            self.identity.warn(&line);
        }
    }

    pub(crate) fn place(&self, ip: &str) -> Option<Place> {
        let Ok(place) = self.lookups.place_of(ip) else {
            self.not_granted(
                Warning::Place,
                "places",
                "`city = \"GeoLite2-City.mmdb\"` in `[lookup]`, or `--lookup-city`,",
            );
            return None;
        };
        place.map(Arc::unwrap_or_clone)
    }

    pub(crate) fn network(&self, ip: &str) -> Option<Network> {
        let Ok(network) = self.lookups.network_of(ip) else {
            self.not_granted(
                Warning::Network,
                "networks",
                "`asn = \"GeoLite2-ASN.mmdb\"` in `[lookup]`, or `--lookup-asn`,",
            );
            return None;
        };
        network.map(Arc::unwrap_or_clone)
    }

    pub(crate) fn user_agent(&mut self, text: &str) -> Option<Agent> {
        if self.lookups.knows_user_agents() && !lockgate_lookup::is_ready() {
            clock::uncounted(lockgate_lookup::prepare);
        }
        let Ok(agent) = self.lookups.user_agent(text) else {
            self.not_granted(
                Warning::Agent,
                "user agents",
                "`user-agents = true` in `[lookup]`",
            );
            return None;
        };
        if agent.is_none() {
            self.refuse(
                Warning::AgentText,
                &format!("a user agent longer than {TEXT_MAX} bytes is not looked up: the answer is `none`"),
            );
        }
        agent.map(Arc::unwrap_or_clone)
    }
}
