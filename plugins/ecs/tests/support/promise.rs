//! Guarantees that hold for the document of any event. The property tests, the corpus test and the
//! fuzz target check them.

use std::collections::BTreeSet;

use ecs::lookup::Lookup;
use ecs::mapper::Mapping;
use ecs::{Compat, Config};
use lockgate_plugin::json;
use lockgate_plugin::lookup::{Network, Place, Software, UserAgent};
use serde_json::Value;

/// Keys whose value may be lost: rows delete them (G113, G279) or replace them by a parsed value.
pub const MAY_GO: [&str; 11] = [
    "action",
    "data",
    "operation",
    "os_type",
    "status",
    "success",
    "user_kind",
    "version",
    "session_start",
    "session_stop",
    "time",
];

/// Sources that their rows delete even if only a part could be parsed: addresses, and fields that
/// collide.
pub const MAY_COLLIDE: [&str; 19] = [
    "addr",
    "addr.local",
    "addr.remote",
    "server_addr",
    "desktop_addr",
    "cluster_name",
    "uri",
    "db_uri",
    "database",
    "body",
    "user",
    "aws_region",
    "aws_service",
    "aws_host",
    "db_aws_region",
    "db_gcp_instance_id",
    "instance_id",
    "account_id",
    "region",
];

/// Look-ups that know every address and every user agent.
#[derive(Clone, Copy, Debug)]
pub struct Oracle;

/// Every configuration there is.
pub fn mappings() -> Vec<Mapping<Oracle>> {
    let all = (0..8).map(|bits: u8| {
        let [first, quirks, preserve_original] = [1, 2, 4].map(|bit| bits & bit != 0);
        Config {
            compat: if first { Compat::First } else { Compat::Later },
            quirks,
            preserve_original,
        }
    });
    all.map(|config| config.mapping(Oracle)).collect()
}

/// Maps a payload and checks the document. `Err` names the broken guarantee.
pub fn check(payload: &str, mapping: &Mapping<Oracle>) -> Result<(), String> {
    let text = mapping.map(payload);
    let says = |holds: bool, what: &str| {
        if holds {
            Ok(())
        } else {
            Err(format!("{what}\n  event: {payload}\n  document: {text}"))
        }
    };
    says(text.starts_with('{'), "the document is not an object")?;
    // The host passes only JSON with unique keys.
    let Ok(event) = serde_json::from_str::<Value>(payload) else {
        return Ok(());
    };
    if !keys_are_unique(payload) {
        return Ok(());
    }

    let Ok(document) = serde_json::from_str::<Value>(&text) else {
        return says(false, "the document is not JSON");
    };
    says(keys_are_unique(&text), "a key occurs twice")?;
    let failed = document["event"]["kind"] == "pipeline_error";
    says(
        failed || document["event"]["kind"] == "event",
        "`event.kind` is neither",
    )?;
    says(
        failed || event.is_object(),
        "an event that is not an object was mapped",
    )?;
    says(
        document["ecs"]["version"] == "8.11.0",
        "`ecs.version` is missing",
    )?;
    says(
        failed == document["error"]["message"].is_array(),
        "`error.message` contradicts `event.kind`",
    )?;
    says(failed || !holds_empty(&document), "an empty value remained")?;
    let original = document["event"]["original"].as_str();
    says(
        original.is_none_or(|original| original == payload),
        "`event.original` differs from the event",
    )?;
    says(
        original.is_some() || !mapping.preserve_original,
        "`event.original` is missing",
    )?;

    let mut without_original = document.clone();
    if let Some(event) = without_original["event"].as_object_mut() {
        event.remove("original");
    }
    let rest = without_original.to_string();
    for (key, value) in event.as_object().into_iter().flatten() {
        if MAY_GO.contains(&key.as_str()) || MAY_COLLIDE.contains(&key.as_str()) {
            continue;
        }
        let mut found = vec![];
        marks(value, &mut found);
        for mark in found {
            says(rest.contains(mark), &format!("`{mark}` of `{key}` is lost"))?;
        }
    }
    Ok(())
}

/// The marks in a value, `v` and ten digits, by which values are found in the document.
fn marks<'v>(value: &'v Value, out: &mut Vec<&'v str>) {
    match value {
        Value::String(text)
            if text.len() == 11
                && text.starts_with('v')
                && text[1..].bytes().all(|byte| byte.is_ascii_digit()) =>
        {
            out.push(text)
        }
        Value::Array(list) => list.iter().for_each(|value| marks(value, out)),
        Value::Object(map) => map.values().for_each(|value| marks(value, out)),
        _ => {}
    }
}

fn holds_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty() || list.iter().any(holds_empty),
        Value::Object(map) => map.is_empty() || map.values().any(holds_empty),
        _ => false,
    }
}

/// Whether all keys are unique, in a text that `serde_json` accepts.
fn keys_are_unique(written: &str) -> bool {
    let written = written.trim();
    match written.as_bytes().first() {
        Some(b'{') => {
            let mut keys = BTreeSet::new();
            json::fields(written)
                .flatten()
                .all(|field| keys.insert(field.key()) && keys_are_unique(field.value))
        }
        Some(b'[') => json::elements(written)
            .flatten()
            .all(|element| keys_are_unique(element.value)),
        _ => true,
    }
}

// === impl Oracle ===

impl Lookup for Oracle {
    fn place_of(&self, ip: &str) -> Option<Place> {
        let name = |name: &str| Some(format!("{name} of {ip}"));
        Some(Place {
            continent_name: Some("Europe".into()),
            country_iso_code: Some("DE".into()),
            country_name: Some("Germany".into()),
            region_iso_code: None,
            region_name: name("region"),
            city_name: name("city"),
            latitude: Some(51.5),
            longitude: Some(f64::NAN),
        })
    }

    fn network_of(&self, ip: &str) -> Option<Network> {
        Some(Network {
            number: Some(64_512),
            organization: Some(ip.to_owned()),
        })
    }

    fn user_agent_of(&self, text: &str) -> Option<UserAgent> {
        let software = Software {
            name: text.to_owned(),
            version: Some("1".into()),
        };
        Some(UserAgent {
            software,
            os: Some(Software {
                name: text.to_owned(),
                version: None,
            }),
            device: text.to_owned(),
        })
    }
}
