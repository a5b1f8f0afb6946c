//! The cost of a look-up: `cargo bench -p lockgate-lookup`. `known` look-ups are in the cache. The
//! test database has one network per /24 of a /8. MaxMind's are larger, but a look-up takes one
//! step per bit of the prefix there, too.

use divan::{Bencher, black_box};
use lockgate_lookup::{Databases, Grant, Lookups};
use lockgate_tests::mmdb;
use serde_json::json;

const CHROME: &str = "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/121.0.0.0 Safari/537.36";

fn main() {
    divan::main();
}

fn address(number: u32) -> String {
    std::net::Ipv4Addr::from_bits(20 << 24 | (number % (1 << 24))).to_string()
}

fn lookups() -> Lookups {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("city.mmdb");
    let networks: Vec<String> = (0..65_536)
        .map(|number| format!("{}/24", address(number << 8)))
        .collect();
    let place = json!({
        "continent": { "names": { "en": "Europe", "de": "Europa" } },
        "country": { "iso_code": "AT", "names": { "en": "Austria", "de": "Österreich" } },
        "subdivisions": [{ "iso_code": "4", "names": { "en": "Upper Austria" } }],
        "city": { "names": { "en": "Linz" } },
        "location": { "latitude": 48.3, "longitude": 14.3, "time_zone": "Europe/Vienna" },
    });
    let networks: Vec<_> = networks
        .iter()
        .map(|network| (network.as_str(), &place))
        .collect();
    mmdb(&file, "GeoLite2-City", &networks);
    Databases::open(&Grant {
        city: Some(file),
        asn: None,
        user_agents: true,
    })
    .unwrap()
    .lookups()
}

#[divan::bench]
fn place_known(bencher: Bencher) {
    let lookups = lookups();
    bencher.bench(|| lookups.place_of(black_box("20.1.2.3")));
}

#[divan::bench]
fn place_new(bencher: Bencher) {
    let lookups = lookups();
    let mut number = 0_u32;
    bencher
        .with_inputs(|| {
            number = number.wrapping_add(40_503);
            address(number)
        })
        .bench_local_refs(|ip| lookups.place_of(ip));
}

#[divan::bench]
fn user_agent_known(bencher: Bencher) {
    let lookups = lookups();
    bencher.bench(|| lookups.user_agent(black_box(CHROME)));
}

#[divan::bench]
fn user_agent_new(bencher: Bencher) {
    let lookups = lookups();
    let mut number = 0_u32;
    bencher
        .with_inputs(|| {
            number += 1;
            format!("{CHROME} {number}")
        })
        .bench_local_refs(|text| lookups.user_agent(text));
}

/// Compiling the patterns, once in a process.
#[divan::bench(sample_count = 1, sample_size = 1)]
fn prepare() {
    lockgate_lookup::prepare();
}
