//! What the host provides to components. Each service is implemented here, once, for all worlds.

use std::sync::atomic::{AtomicU8, Ordering};

use wasmtime::Result;

use crate::bindings::filter::lockgate::plugin::{log, lookup, metrics, state, types};
use crate::host::Host;
use crate::metrics::Metrics;

/// What all instances of a stage share.
#[derive(Debug, Default)]
pub(crate) struct Services {
    pub(crate) metrics: Metrics,
    refusals: AtomicU8,
}

/// Something a component asked for in vain. Logged once for each stage.
#[derive(Clone, Copy)]
enum Refusal {
    Lookup = 1,
    State = 2,
    Metric = 4,
}

impl Host {
    fn refuse(&self, refusal: Refusal, text: &str) {
        let bit = refusal as u8;
        if self.services.refusals.fetch_or(bit, Ordering::Relaxed) & bit == 0 {
            let identity = &self.identity;
            tracing::warn!(pipeline = %identity.pipeline, stage = %identity.stage, plugin = %identity.plugin, "{text} (said once)");
        }
    }

    fn no_lookup(&self) {
        self.refuse(Refusal::Lookup, "it looks something up, but no database is granted to this stage: every answer is `none`");
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
        let fields = fields.iter().map(|field| (field.name.as_str(), field.value.as_str()));
        self.lines.emit(&self.identity, &self.batch, level, &message, fields);
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
    fn place_of(&mut self, _ip: String) -> Result<Option<lookup::Place>> {
        self.no_lookup();
        Ok(None)
    }

    fn network_of(&mut self, _ip: String) -> Result<Option<lookup::Network>> {
        self.no_lookup();
        Ok(None)
    }

    fn user_agent(&mut self, _text: String) -> Result<Option<lookup::Agent>> {
        self.no_lookup();
        Ok(None)
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
