//! The imports of components, over the host's services.

use lockgate_lookup::{Agent, Network, Place, Software};
use lockgate_model::StateError;
use wasmtime::Result;
use wasmtime::component::{HasSelf, Linker};

use super::bindings::filter::lockgate::plugin::{log, lookup, metrics, state, types};
use crate::host::InstanceHost;
use crate::interface::Kind;

/// All that a component of this kind may import, whether it does or not. What the operator did not
/// grant says so when it is called.
pub(crate) fn linker(engine: &wasmtime::Engine, kind: Kind) -> Result<Linker<InstanceHost>> {
    let mut linker = Linker::new(engine);
    log::add_to_linker::<_, HasSelf<InstanceHost>>(&mut linker, |host| host)?;
    metrics::add_to_linker::<_, HasSelf<InstanceHost>>(&mut linker, |host| host)?;
    if kind != Kind::HttpSink {
        lookup::add_to_linker::<_, HasSelf<InstanceHost>>(&mut linker, |host| host)?;
        state::add_to_linker::<_, HasSelf<InstanceHost>>(&mut linker, |host| host)?;
    }
    Ok(linker)
}

impl types::Host for InstanceHost {}

impl log::Host for InstanceHost {
    fn enabled(&mut self, level: log::Level) -> Result<bool> {
        Ok(self.keeps_lines(of_level(level)))
    }

    fn emit(&mut self, level: log::Level, message: String, fields: Vec<log::Pair>) -> Result<()> {
        let fields = fields
            .iter()
            .map(|field| (field.name.as_str(), field.value.as_str()));
        self.log(of_level(level), &message, fields);
        Ok(())
    }
}

impl metrics::Host for InstanceHost {
    fn add(&mut self, name: String, value: u32) -> Result<()> {
        self.count(&name, value);
        Ok(())
    }

    fn observe(&mut self, name: String, value: f64) -> Result<()> {
        self.record(&name, value);
        Ok(())
    }
}

impl lookup::Host for InstanceHost {
    fn place_of(&mut self, ip: String) -> Result<Option<lookup::Place>> {
        Ok(self.place(&ip).map(|place| {
            let Place {
                continent_name,
                country_iso_code,
                country_name,
                region_iso_code,
                region_name,
                city_name,
                latitude,
                longitude,
            } = place;
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
        Ok(self.network(&ip).map(|network| {
            let Network {
                number,
                organization,
            } = network;
            lookup::Network {
                number,
                organization,
            }
        }))
    }

    fn user_agent_of(&mut self, text: String) -> Result<Option<lookup::UserAgent>> {
        let software = |Software { name, version }| lookup::Software { name, version };
        Ok(self.user_agent(&text).map(|agent| {
            let Agent {
                software: of_agent,
                os,
                device,
            } = agent;
            lookup::UserAgent {
                software: software(of_agent),
                os: os.map(software),
                device,
            }
        }))
    }
}

impl state::Host for InstanceHost {
    fn get(&mut self, key: String) -> Result<Result<Option<String>, state::StateError>> {
        let value = self.state.get(&key).map(|value| value.map(str::to_owned));
        Ok(value.map_err(|error| self.refused_state(error)))
    }

    fn put(&mut self, key: String, value: String) -> Result<Result<(), state::StateError>> {
        let put = self.state.put(&key, &value);
        Ok(put.map_err(|error| self.refused_state(error)))
    }

    fn remove(&mut self, key: String) -> Result<Result<(), state::StateError>> {
        let removed = self.state.remove(&key);
        Ok(removed.map_err(|error| self.refused_state(error)))
    }
}

impl InstanceHost {
    fn refused_state(&self, error: StateError) -> state::StateError {
        match error {
            StateError::NotGranted => {
                self.state_is_not_granted();
                state::StateError::NotGranted
            }
            StateError::QuotaExceeded => {
                self.state_is_full();
                state::StateError::QuotaExceeded
            }
            StateError::TooLarge => state::StateError::TooLarge,
        }
    }
}

fn of_level(level: log::Level) -> tracing::Level {
    match level {
        log::Level::Trace => tracing::Level::TRACE,
        log::Level::Debug => tracing::Level::DEBUG,
        log::Level::Info => tracing::Level::INFO,
        log::Level::Warn => tracing::Level::WARN,
        log::Level::Error => tracing::Level::ERROR,
    }
}
