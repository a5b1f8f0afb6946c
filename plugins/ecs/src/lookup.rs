//! The look-ups that the mapper uses. In the component, the host answers from the operator's
//! grants; tests have their own.

use lockgate_plugin::lookup::{self, Network, Place, UserAgent};

/// Look-ups return `None` if they are not granted or the answer is unknown.
pub trait Lookup {
    fn place_of(&self, ip: &str) -> Option<Place>;
    fn network_of(&self, ip: &str) -> Option<Network>;
    fn user_agent_of(&self, text: &str) -> Option<UserAgent>;
}

/// The look-ups that the operator granted, by the host.
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
