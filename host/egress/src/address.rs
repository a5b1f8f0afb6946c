//! Addresses that nothing is sent to by mistake: those of the link, where clouds serve credentials
//! to whoever asks.

use std::error::Error;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use std::vec::IntoIter;

use hyper_util::client::legacy::connect::dns::Name;
use thiserror::Error;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tower_service::Service;

/// Of an endpoint, at the same time.
const LOOKUPS_MAX: usize = 2;
/// Less than the time for connecting, so that this is the error that is reported. A name server
/// that is down costs 5 s before the system asks the next.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(9);

type BoxError = Box<dyn Error + Send + Sync>;

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

/// Looks up names for one endpoint, and leaves out such addresses. They can be written in a URL,
/// but no name may lead to them: whoever answers for a name is not who configured the sink.
///
/// A look-up takes a thread until the name servers answer or the system gives up, even if nobody
/// waits for it any more. An endpoint therefore has only a few at a time: the host reads its store
/// on threads of the same pool.
#[derive(Clone, Debug)]
pub struct Resolver {
    lookups: Arc<Semaphore>,
}

impl Default for Resolver {
    fn default() -> Resolver {
        let lookups = Arc::new(Semaphore::new(LOOKUPS_MAX));
        Resolver { lookups }
    }
}

impl Resolver {
    async fn look_up(self, name: Name) -> Result<Vec<SocketAddr>, BoxError> {
        let lookup = self.lookups.acquire_owned().await?;
        let found = spawn_blocking(move || {
            let _lookup = lookup;
            let found = (name.as_str(), 0).to_socket_addrs()?;
            io::Result::Ok(found.collect())
        });
        Ok(found.await??)
    }
}

impl Service<Name> for Resolver {
    type Response = IntoIter<SocketAddr>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let found = timeout(LOOKUP_TIMEOUT, self.clone().look_up(name));
        Box::pin(async move {
            let found = found.await.map_err(|_| {
                let seconds = LOOKUP_TIMEOUT.as_secs();
                io::Error::other(format!(
                    "its host name could not be resolved within {seconds} s"
                ))
            })?;
            Ok(allowed(found?)?.into_iter())
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

    /// Look-ups that hung took all threads on which the host reads its store.
    #[tokio::test(start_paused = true)]
    async fn a_look_up_waits_for_those_that_hang_and_gives_up_in_its_own_words() {
        let mut resolver = Resolver::default();
        let lookups = resolver.lookups.clone();
        let hanging = lookups.acquire_many_owned(LOOKUPS_MAX as u32).await;
        let name = || -> Name { "127.0.0.1".parse().unwrap() };
        let error = resolver.call(name()).await.expect_err("it waits");
        assert_eq!(
            error.to_string(),
            "its host name could not be resolved within 9 s"
        );
        drop(hanging);
        let mut found = resolver.call(name()).await.expect("it is an address");
        assert!(found.all(|address| address.ip() == Ipv4Addr::LOCALHOST));
    }

    /// As a name server could answer at any time, whatever it answered to `check`.
    #[tokio::test]
    async fn a_name_with_a_link_local_address_is_refused_when_it_is_looked_up() {
        // An address as a name: what the system's resolver takes without asking anybody.
        let name: Name = "169.254.169.254".parse().unwrap();
        let error = Resolver::default()
            .call(name)
            .await
            .expect_err("it is refused");
        let expected = LinkAddress("169.254.169.254".parse().unwrap());
        assert_eq!(error.downcast_ref(), Some(&expected));
    }
}
