//! The look-ups of a batch: a snapshot of all granted databases.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::agent::{self, Agent};
use crate::database::Database;
use crate::network::Network;
use crate::place::Place;

/// A snapshot of everything that can be looked up. Clones share it; the default is empty.
#[derive(Clone, Debug, Default)]
pub struct Lookups {
    pub(crate) places: Option<Arc<Database<Place>>>,
    pub(crate) networks: Option<Arc<Database<Network>>>,
    pub(crate) agents: bool,
}

/// The operator has not granted this look-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotGranted;

impl Lookups {
    /// Where an address is. `None`: unknown, or not an address; host names are never resolved.
    pub fn place_of(&self, ip: &str) -> Result<Option<Arc<Place>>, NotGranted> {
        self.places
            .as_ref()
            .map(|places| places.find(ip))
            .ok_or(NotGranted)
    }

    /// The network that an address belongs to. `None`: unknown, or not an address.
    pub fn network_of(&self, ip: &str) -> Result<Option<Arc<Network>>, NotGranted> {
        self.networks
            .as_ref()
            .map(|networks| networks.find(ip))
            .ok_or(NotGranted)
    }

    /// Whether user agents are granted.
    pub fn knows_user_agents(&self) -> bool {
        self.agents
    }

    /// The parts of a user agent. `None`: the text is longer than [`TEXT_MAX`](crate::TEXT_MAX).
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
