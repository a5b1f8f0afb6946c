//! What the mapper asks for. The component asks the host, which answers from what the operator
//! granted; a test answers itself.

use lockgate_plugin::lookup::{self, Network, Place, UserAgent};

/// `None` where nothing is granted, or it does not know.
pub trait Lookup {
    fn place_of(&self, ip: &str) -> Option<Place>;
    fn network_of(&self, ip: &str) -> Option<Network>;
    fn user_agent_of(&self, text: &str) -> Option<UserAgent>;
}

/// The host.
#[derive(Clone, Copy, Debug)]
pub struct Granted;

impl Lookup for Granted {
    fn place_of(&self, ip: &str) -> Option<Place> {
        lookup::place_of(ip)
    }

    fn network_of(&self, ip: &str) -> Option<Network> {
        lookup::network_of(ip)
    }

    fn user_agent_of(&self, text: &str) -> Option<UserAgent> {
        lookup::user_agent_of(text)
    }
}
