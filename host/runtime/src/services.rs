//! What the host provides to components. Each service is implemented here, once, for all worlds.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use lockgate_lookup::{Agent, Network, Place, Software, TEXT_MAX};
use wasmtime::Result;

use crate::bindings::filter::lockgate::plugin::{log, lookup, metrics, state, types};
use crate::host::Host;
use crate::log::StageLog;
use crate::metrics::Metrics;

/// What all instances of a stage share.
#[derive(Debug, Default)]
pub(crate) struct Services {
    pub(crate) metrics: Metrics,
    pub(crate) log: Arc<StageLog>,
    refusals: AtomicU8,
}

/// Something a component asked for in vain. Logged once for each stage.
#[derive(Clone, Copy)]
enum Refusal {
    Place = 1,
    Network = 2,
    Agent = 4,
    AgentText = 8,
    State = 16,
    Metric = 32,
}

impl Host {
    fn is_first(&self, refusal: Refusal) -> bool {
        let bit = refusal as u8;
        self.services.refusals.fetch_or(bit, Ordering::Relaxed) & bit == 0
    }

    fn refuse(&self, refusal: Refusal, text: &str) {
        if self.is_first(refusal) {
            let identity = &self.identity;
            tracing::warn!(pipeline = %identity.pipeline, stage = %identity.stage, plugin = %identity.plugin, "{text} (said once)");
        }
    }

    /// Less than a warning: many want the documents without.
    fn not_granted(&self, refusal: Refusal, what: &str, way: &str) {
        if self.is_first(refusal) {
            let identity = &self.identity;
            tracing::info!(
                pipeline = %identity.pipeline, stage = %identity.stage, plugin = %identity.plugin,
                "it looks up {what}, but none are granted, so that every answer is `none`; {way} grants them (said once)"
            );
        }
    }

    fn no_state(&self) -> state::StateError {
        self.refuse(Refusal::State, "it wants to keep state, which is not granted to this stage: every answer is `unavailable`");
        state::StateError::Unavailable("not granted".into())
    }

    fn measure(&self, name: &str, value: f64) {
        if !self.services.metrics.add(name, value) {
            let name = crate::log::line(name);
            self.refuse(Refusal::Metric, &format!("the metric `{name}` is refused: names are `[a-z][a-z0-9_]*`, at most 64 a stage"));
        }
    }
}

impl types::Host for Host {}

impl log::Host for Host {
    fn emit(&mut self, level: log::Level, message: String, fields: Vec<log::Pair>) -> Result<()> {
        let level = match level {
            log::Level::Trace => tracing::Level::TRACE,
            log::Level::Debug => tracing::Level::DEBUG,
            log::Level::Info => tracing::Level::INFO,
            log::Level::Warn => tracing::Level::WARN,
            log::Level::Error => tracing::Level::ERROR,
        };
        let fields = fields
            .iter()
            .map(|field| (field.name.as_str(), field.value.as_str()));
        self.lines
            .emit(&self.identity, &self.batch, level, &message, fields);
        Ok(())
    }
}

impl metrics::Host for Host {
    fn add(&mut self, name: String, value: u32) -> Result<()> {
        self.measure(&name, value.into());
        Ok(())
    }

    fn observe(&mut self, name: String, value: f64) -> Result<()> {
        self.measure(&name, value);
        Ok(())
    }
}

impl lookup::Host for Host {
    fn place_of(&mut self, ip: String) -> Result<Option<lookup::Place>> {
        let Ok(place) = self.lookups.place_of(&ip) else {
            self.not_granted(
                Refusal::Place,
                "places",
                "`city = \"GeoLite2-City.mmdb\"` in `[lookup]`, or `--lookup-city`,",
            );
            return Ok(None);
        };
        Ok(place.map(|place| {
            let Place {
                continent_name,
                country_iso_code,
                country_name,
                region_iso_code,
                region_name,
                city_name,
                latitude,
                longitude,
            } = Arc::unwrap_or_clone(place);
            lookup::Place {
                continent_name,
                country_iso_code,
                country_name,
                region_iso_code,
                region_name,
                city_name,
                latitude,
                longitude,
            }
        }))
    }

    fn network_of(&mut self, ip: String) -> Result<Option<lookup::Network>> {
        let Ok(network) = self.lookups.network_of(&ip) else {
            self.not_granted(
                Refusal::Network,
                "networks",
                "`asn = \"GeoLite2-ASN.mmdb\"` in `[lookup]`, or `--lookup-asn`,",
            );
            return Ok(None);
        };
        Ok(network.map(|network| {
            let Network {
                number,
                organization,
            } = Arc::unwrap_or_clone(network);
            lookup::Network {
                number,
                organization,
            }
        }))
    }

    fn user_agent(&mut self, text: String) -> Result<Option<lookup::Agent>> {
        if self.lookups.knows_user_agents() && !lockgate_lookup::is_ready() {
            self.on_the_house(lockgate_lookup::prepare);
        }
        let Ok(agent) = self.lookups.user_agent(&text) else {
            self.not_granted(
                Refusal::Agent,
                "user agents",
                "`user-agents = true` in `[lookup]`",
            );
            return Ok(None);
        };
        if agent.is_none() {
            self.refuse(Refusal::AgentText, &format!("a user agent longer than {TEXT_MAX} bytes is not looked up: the answer is `none`"));
        }
        Ok(agent.map(|agent| {
            let Agent {
                software,
                os,
                device,
            } = Arc::unwrap_or_clone(agent);
            let software_of = |Software { name, version }| lookup::AgentSoftware { name, version };
            lookup::Agent {
                software: software_of(software),
                os: os.map(software_of),
                device,
            }
        }))
    }
}

impl state::Host for Host {
    fn get(&mut self, _key: String) -> Result<Result<Option<String>, state::StateError>> {
        Ok(Err(self.no_state()))
    }

    fn put(&mut self, _key: String, _value: String) -> Result<Result<(), state::StateError>> {
        Ok(Err(self.no_state()))
    }

    fn remove(&mut self, _key: String) -> Result<Result<(), state::StateError>> {
        Ok(Err(self.no_state()))
    }
}
