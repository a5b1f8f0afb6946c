//! Look-ups that the operator granted, for filters and mappers. `None` if no database is granted or
//! the answer is unknown. Always `None` outside wasm.

pub use crate::bindings::lockgate::plugin::lookup::{Network, Place, Software, UserAgent};

/// Where an IP address is.
pub fn place_of(ip: &str) -> Option<Place> {
    #[cfg(target_family = "wasm")]
    return crate::bindings::lockgate::plugin::lookup::place_of(ip);
    #[cfg(not(target_family = "wasm"))]
    {
        let _ = ip;
        None
    }
}

/// The network that an IP address belongs to.
pub fn network_of(ip: &str) -> Option<Network> {
    #[cfg(target_family = "wasm")]
    return crate::bindings::lockgate::plugin::lookup::network_of(ip);
    #[cfg(not(target_family = "wasm"))]
    {
        let _ = ip;
        None
    }
}

/// The parts of a `User-Agent` header.
pub fn user_agent_of(text: &str) -> Option<UserAgent> {
    #[cfg(target_family = "wasm")]
    return crate::bindings::lockgate::plugin::lookup::user_agent_of(text);
    #[cfg(not(target_family = "wasm"))]
    {
        let _ = text;
        None
    }
}
