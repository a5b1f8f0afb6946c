//! The ALPN protocols of TLS routing (Teleport `api/client/proxy` and `lib/srv/alpnproxy`).

use super::SERVER_NAME;

/// Before the hexadecimal name of the cluster.
const AUTH: &str = "teleport-auth@";
/// ALPN protocols are at most 255 bytes long: the length of a cluster's name, in bytes, whose
/// routing entry fits.
pub(super) const CLUSTER_MAX: usize = (255 - AUTH.len() - 1 - SERVER_NAME.len()) / 2;

/// The protocol that makes a proxy pass a connection on to the Auth Service of a cluster.
pub fn routing_entry(cluster: &str) -> String {
    let digits: String = cluster.bytes().map(|byte| format!("{byte:02x}")).collect();
    format!("{AUTH}{digits}.{SERVER_NAME}")
}

/// The cluster of a routing entry, as a proxy reads it. `None`: it is not one.
pub fn routed_cluster(protocol: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(protocol).ok()?;
    let digits = text.strip_prefix(AUTH)?;
    let digits = digits.strip_suffix(SERVER_NAME)?.strip_suffix('.')?;
    let (pairs, []) = digits.as_bytes().as_chunks::<2>() else {
        return None;
    };
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let bytes = pairs
        .iter()
        .map(|&[high, low]| Some((digit(high)? << 4 | digit(low)?) as u8))
        .collect::<Option<Vec<u8>>>()?;
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_entry_is_the_hexadecimal_name_of_the_cluster() {
        assert_eq!(
            routing_entry("ab"),
            "teleport-auth@6162.teleport.cluster.local"
        );
        // Proxies ignore case.
        let upper = b"teleport-auth@6A.teleport.cluster.local";
        assert_eq!(routed_cluster(upper).as_deref(), Some("j"));
        for other in [
            &b"h2"[..],
            b"teleport-auth@",
            b"teleport-auth@616.teleport.cluster.local",
            b"teleport-auth@zz.teleport.cluster.local",
            b"teleport-auth@ff.teleport.cluster.local",
            b"teleport-auth@6162teleport.cluster.local",
        ] {
            assert_eq!(routed_cluster(other), None);
        }
        assert_eq!(routing_entry(&"a".repeat(CLUSTER_MAX)).len(), 255);
    }

    proptest! {
        #[test]
        fn a_proxy_reads_the_cluster_that_was_written(cluster: String) {
            let entry = routing_entry(&cluster);
            prop_assert_eq!(routed_cluster(entry.as_bytes()), Some(cluster));
        }
    }
}
