//! Look-ups from a table, for tests.
#![allow(dead_code)]

use std::io::Write;
use std::net::IpAddr;
use std::path::PathBuf;

use ecs::lookup::Lookup;
use lockgate_plugin::lookup::{Network, Place, Software, UserAgent};
use serde_json::Value;

/// Rows of `network`, `geo` and `as`, and a few user agents.
pub struct Table {
    pub rows: Vec<Value>,
}

impl Table {
    pub fn of(json: &str) -> Table {
        Table {
            rows: serde_json::from_str(json).unwrap(),
        }
    }

    fn row(&self, ip: &str) -> Option<&Value> {
        let ip = bits(ip.parse().ok()?);
        self.rows.iter().find(|row| {
            let (network, length) = row["network"].as_str().unwrap().split_once('/').unwrap();
            let network: IpAddr = network.parse().unwrap();
            let length: u32 =
                length.parse::<u32>().unwrap() + if network.is_ipv4() { 96 } else { 0 };
            (ip ^ bits(network)) >> (128 - length) == 0
        })
    }
}

impl Lookup for Table {
    fn place_of(&self, ip: &str) -> Option<Place> {
        let geo = self.row(ip)?.get("geo")?;
        let text = |name: &str| geo[name].as_str().map(str::to_owned);
        Some(Place {
            continent_name: text("continent_name"),
            country_iso_code: text("country_iso_code"),
            country_name: text("country_name"),
            region_iso_code: text("region_iso_code"),
            region_name: text("region_name"),
            city_name: text("city_name"),
            latitude: geo["location"]["lat"].as_f64(),
            longitude: geo["location"]["lon"].as_f64(),
        })
    }

    fn network_of(&self, ip: &str) -> Option<Network> {
        let network = self.row(ip)?.get("as")?;
        let number = network["number"]
            .as_u64()
            .map(|number| u32::try_from(number).unwrap());
        Some(Network {
            number,
            organization: network["organization"]["name"].as_str().map(str::to_owned),
        })
    }

    /// The results of the patterns of uap-core.
    fn user_agent_of(&self, text: &str) -> Option<UserAgent> {
        let software = |name: &str, version: Option<&str>| Software {
            name: name.into(),
            version: version.map(str::to_owned),
        };
        let other = |software| {
            Some(UserAgent {
                software,
                os: None,
                device: "Other".into(),
            })
        };
        if text.starts_with("tsh/") {
            other(software("Other", None))
        } else if let Some(version) = text.strip_prefix("Go-http-client/") {
            other(software("Go-http-client", Some(version)))
        } else if text.contains("Mac OS X 10_15_7") && text.contains("Chrome/121.0.0.0") {
            Some(UserAgent {
                software: software("Chrome", Some("121.0.0.0")),
                os: Some(software("Mac OS X", Some("10.15.7"))),
                device: "Mac".into(),
            })
        } else {
            None
        }
    }
}

fn bits(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u128::from(ip.to_ipv6_mapped()),
        IpAddr::V6(ip) => u128::from(ip),
    }
}

/// The directory with material of other projects: next to the checkout, or set by
/// `LOCKGATE_SHARED`. If it is missing, the output of the test run names the skipped test.
#[allow(clippy::disallowed_methods, reason = "a test's own environment")]
pub fn shared() -> Option<PathBuf> {
    let sibling = || {
        PathBuf::from(env!("CARGO_MANIFEST_DIR"))
            .ancestors()
            .nth(3)
            .map(|parent| parent.join("shared"))
    };
    let found = std::env::var_os("LOCKGATE_SHARED")
        .map(PathBuf::from)
        .or_else(sibling)
        .filter(|directory| directory.join("data/ecs-golden").is_dir());
    if found.is_none() {
        let test = std::thread::current();
        // Written directly to the stream, because the output of `println!` is shown only for
        // failing tests.
        let _ = writeln!(
            std::io::stderr(),
            "test {} was skipped: `data/ecs-golden` is neither in `../shared` nor in the directory `LOCKGATE_SHARED`",
            test.name().unwrap_or_default()
        );
    }
    found
}

/// The differences of two documents, as lines of `path: expected -> found`.
pub fn differences(path: &str, expected: &Value, found: &Value, out: &mut Vec<String>) {
    match (expected, found) {
        (Value::Object(expected), Value::Object(found)) => {
            for key in expected
                .keys()
                .chain(found.keys().filter(|key| !expected.contains_key(*key)))
            {
                let at = |object: &serde_json::Map<String, Value>| {
                    object.get(key).cloned().unwrap_or(Value::Null)
                };
                differences(&format!("{path}.{key}"), &at(expected), &at(found), out);
            }
        }
        _ if expected == found => {}
        _ => out.push(format!("{path}: {expected} -> {found}")),
    }
}
