//! Look-ups in what the operator granted, for filters and mappers. `None` where no database is
//! granted, or it does not know the answer. Off wasm always `None`.

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

/// Which network an IP address belongs to.
pub fn network_of(ip: &str) -> Option<Network> {
    #[cfg(target_family = "wasm")]
    return crate::bindings::lockgate::plugin::lookup::network_of(ip);
    #[cfg(not(target_family = "wasm"))]
    {
        let _ = ip;
        None
    }
}

/// What a `User-Agent` header says.
pub fn user_agent_of(text: &str) -> Option<UserAgent> {
    #[cfg(target_family = "wasm")]
    return crate::bindings::lockgate::plugin::lookup::user_agent_of(text);
    #[cfg(not(target_family = "wasm"))]
    {
        let _ = text;
        None
    }
}
