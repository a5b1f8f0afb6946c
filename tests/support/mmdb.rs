//! Databases in MaxMind's format.

use std::net::{IpAddr, Ipv6Addr};
use std::path::Path;

use maxminddb_writer::Database;
use maxminddb_writer::metadata::IpVersion;
use maxminddb_writer::paths::IpAddrWithMask;
use serde::Serialize;

/// Writes a database in MaxMind's format, as `geoipupdate` does: under another name first.
/// `networks`: `192.0.2.0/24` and what is known of it. `kind`: such as `GeoLite2-City`.
pub fn mmdb(file: &Path, kind: &str, networks: &[(&str, impl Serialize)]) {
    let new = file.with_extension("new");
    std::fs::write(&new, mmdb_bytes(kind, networks)).expect("the database is written");
    std::fs::rename(new, file).expect("the database gets its name");
}

/// The same, as bytes.
pub fn mmdb_bytes(kind: &str, networks: &[(&str, impl Serialize)]) -> Vec<u8> {
    let mut database = Database::default();
    database.metadata.ip_version = IpVersion::V6;
    database.metadata.database_type = kind.into();
    database.metadata.languages = vec!["en".into()];
    database.metadata.binary_format_major_version = 2;
    database.metadata.build_epoch = 1_767_225_600;
    database.metadata.description = [("en".to_owned(), "made for a test".to_owned())].into();
    for (network, known) in networks {
        let (ip, bits) = network.split_once('/').expect("a network");
        let bits: u8 = bits.parse().expect("a prefix length");
        // IPv4 stands at `::/96`.
        let (ip, bits) = match ip.parse().expect("an address") {
            IpAddr::V4(ip) => (Ipv6Addr::from_bits(ip.to_bits().into()), 96 + bits),
            IpAddr::V6(ip) => (ip, bits),
        };
        let data = database.insert_value(known).expect("a value");
        database.insert_node(IpAddrWithMask::new(ip.into(), bits), data);
    }
    database.write_to(Vec::new()).expect("a database")
}
