//! Addresses that nothing is sent to by mistake: those of the link, where clouds serve credentials
//! to whoever asks.

use std::error::Error;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::vec::IntoIter;

use hyper_util::client::legacy::connect::dns::Name;
use thiserror::Error;
use tower_service::Service;

/// Metadata services outside of the link-local networks.
const METADATA: [IpAddr; 2] = [
    // Alibaba Cloud.
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    // AWS, over IPv6.
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
];
/// The network of IPv4 addresses that are translated (RFC 6052, 2.1), without its address.
const TRANSLATED: [u16; 6] = [0x64, 0xff9b, 0, 0, 0, 0];

/// Whether this address is link-local, or that of a cloud's metadata service.
pub fn is_of_link(address: IpAddr) -> bool {
    let address = match address {
        IpAddr::V6(address) => written_as_v6(address).map_or(IpAddr::V6(address), IpAddr::V4),
        address => address,
    };
    let is_link_local = match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    is_link_local || METADATA.contains(&address)
}

/// The IPv4 address in an IPv6 address.
fn written_as_v6(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let segments = address.segments();
    let is_translated = segments.starts_with(&TRANSLATED);
    let last = u32::from(segments[6]) << 16 | u32::from(segments[7]);
    let translated = is_translated.then(|| Ipv4Addr::from_bits(last));
    address.to_ipv4_mapped().or(translated)
}

/// A name has such an address only.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error(
    "its host has the address {0}, which is link-local or of a cloud's metadata service, so nothing \
     is sent there"
)]
pub struct LinkAddress(pub IpAddr);

/// Looks names up, and leaves out such addresses. They can be written in a URL, but no name may
/// lead to them: whoever answers for a name is not who configured the sink.
#[derive(Clone, Copy, Debug)]
pub struct Resolver;

impl Service<Name> for Resolver {
    type Response = IntoIter<SocketAddr>;
    type Error = Box<dyn Error + Send + Sync>;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            Ok(allowed(found.collect())?.into_iter())
        })
    }
}

fn allowed(found: Vec<SocketAddr>) -> Result<Vec<SocketAddr>, LinkAddress> {
    let (refused, allowed): (Vec<_>, Vec<_>) = found
        .into_iter()
        .partition(|address| is_of_link(address.ip()));
    match refused.first() {
        Some(address) if allowed.is_empty() => Err(LinkAddress(address.ip())),
        _ => Ok(allowed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_the_link_and_of_metadata_services_are_recognised() {
        for (address, expected) in [
            ("169.254.169.254", true),
            ("169.254.0.1", true),
            ("100.100.100.200", true),
            ("fe80::1", true),
            ("febf::1", true),
            ("fd00:ec2::254", true),
            ("::ffff:169.254.169.254", true),
            ("64:ff9b::a9fe:a9fe", true),
            ("::ffff:6464:64c8", true),
            ("169.253.1.1", false),
            ("100.100.100.201", false),
            ("10.0.0.1", false),
            ("127.0.0.1", false),
            ("::1", false),
            ("fec0::1", false),
            ("fd00:ec2::253", false),
            ("64:ff9b::a00:1", false),
        ] {
            assert_eq!(is_of_link(address.parse().unwrap()), expected, "{address}");
        }
    }

    #[test]
    fn a_name_leads_only_to_its_other_addresses() {
        let address = |text: &str| SocketAddr::new(text.parse().unwrap(), 0);
        let (metadata, link, other) = (
            address("169.254.169.254"),
            address("fe80::1"),
            address("10.0.0.1"),
        );
        assert_eq!(allowed(vec![metadata, other, link]), Ok(vec![other]));
        assert_eq!(
            allowed(vec![metadata, link]),
            Err(LinkAddress(metadata.ip()))
        );
        assert_eq!(allowed(vec![]), Ok(vec![]));
    }

    /// As a name server could answer at any time, whatever it answered to `check`.
    #[tokio::test]
    async fn a_name_with_a_link_local_address_is_refused_when_it_is_looked_up() {
        // An address as a name: what the system's resolver takes without asking anybody.
        let name: Name = "169.254.169.254".parse().unwrap();
        let error = Resolver.call(name).await.expect_err("it is refused");
        let expected = LinkAddress("169.254.169.254".parse().unwrap());
        assert_eq!(error.downcast_ref(), Some(&expected));
    }
}
