use std::collections::BTreeMap;
use std::sync::Arc;

use crate::agent::{self, Agent};
use crate::database::Database;
use crate::network::Network;
use crate::place::Place;

/// What can be looked up at one moment. Clones share everything; the default is nothing at all.
#[derive(Clone, Debug, Default)]
pub struct Lookups {
    pub(crate) places: Option<Arc<Database<Place>>>,
    pub(crate) networks: Option<Arc<Database<Network>>>,
    pub(crate) agents: bool,
}

/// The operator grants nothing that could answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotGranted;

impl Lookups {
    /// Where an address is. `None`: not known, or the text is no address; names are never resolved.
    pub fn place_of(&self, ip: &str) -> Result<Option<Arc<Place>>, NotGranted> {
        self.places
            .as_ref()
            .map(|places| places.find(ip))
            .ok_or(NotGranted)
    }

    /// Whose network an address belongs to. `None`: not known, or the text is no address.
    pub fn network_of(&self, ip: &str) -> Result<Option<Arc<Network>>, NotGranted> {
        self.networks
            .as_ref()
            .map(|networks| networks.find(ip))
            .ok_or(NotGranted)
    }

    /// User agents are granted.
    pub fn knows_user_agents(&self) -> bool {
        self.agents
    }

    /// What a user agent is. `None`: the text is longer than [`TEXT_MAX`](crate::TEXT_MAX).
    pub fn user_agent(&self, text: &str) -> Result<Option<Arc<Agent>>, NotGranted> {
        if self.agents {
            Ok(agent::find(text))
        } else {
            Err(NotGranted)
        }
    }

    /// SHA-256 of each granted database, and of the patterns for user agents, by the key of the
    /// configuration.
    pub fn digests(&self) -> BTreeMap<&'static str, &str> {
        let places = self
            .places
            .as_deref()
            .map(|database| ("city", database.digest()));
        let networks = self
            .networks
            .as_deref()
            .map(|database| ("asn", database.digest()));
        let agents = self.agents.then(|| ("user-agents", agent::digest()));
        [places, networks, agents].into_iter().flatten().collect()
    }
}
