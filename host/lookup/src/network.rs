//! The network of an address.

use maxminddb::geoip2;

/// The network that an address belongs to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Network {
    /// Number of the autonomous system.
    pub number: Option<u32>,
    pub organization: Option<String>,
}

impl Network {
    /// `None` if nothing is known.
    pub(crate) fn of(asn: &geoip2::Asn<'_>) -> Option<Network> {
        let organization = asn
            .autonomous_system_organization
            .filter(|name| !name.is_empty())
            .map(str::to_owned);
        let network = Network {
            number: asn.autonomous_system_number,
            organization,
        };
        (network != Network::default()).then_some(network)
    }
}
