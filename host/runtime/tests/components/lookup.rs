//! Look-ups of components.

use lockgate_lookup::{Databases, Grant, Lookups};
use lockgate_model::StateOverlay;
use lockgate_model::contract::Mapped;
use lockgate_runtime::{CallContext, ComponentOptions, Limits, Stage};
use lockgate_tests::mmdb;
use serde_json::{Value, json};

use crate::support::{ENGINE, MAPPER, context, events, filter, logged, mapper, options};

const NOTHING: &str = "None None None None";

fn documents(stage: &Stage, lookups: &Lookups) -> Vec<Value> {
    let context = CallContext {
        lookups: lookups.clone(),
        ..context()
    };
    let mapped = stage
        .transform(&context, &events(), &mut StateOverlay::not_granted(), false)
        .result
        .unwrap();
    let text = |mapped| {
        if let Mapped::Emit(documents) = mapped {
            documents[0].payload.clone()
        } else {
            panic!("{mapped:?}")
        }
    };
    mapped
        .into_iter()
        .map(|mapped| serde_json::from_str(&text(mapped)).unwrap())
        .collect()
}

/// The stage's CPU time is less than half of the time that compiling the patterns for user agents
/// takes.
#[test]
fn a_component_looks_up_what_is_granted_for_the_batch() {
    let dir = tempfile::tempdir().unwrap();
    let city = dir.path().join("city.mmdb");
    mmdb(
        &city,
        "GeoLite2-City",
        &[(
            "192.0.2.0/24",
            json!({ "city": { "names": { "en": "Linz" } } }),
        )],
    );
    let lookups = Databases::open(&Grant {
        city: Some(city),
        asn: None,
        user_agents: true,
    })
    .unwrap()
    .lookups();
    assert!(
        !lockgate_lookup::is_ready(),
        "no other test here asks for a user agent"
    );

    let limits = Limits::default();
    let with = json!({ "mode": "look-up" });
    let reused = ComponentOptions {
        reuse: true,
        limits,
        ..options("hostile_mapper", with.clone())
    };
    let (answers, lines) = logged(|| {
        let stage = Stage::configure(&ENGINE, &MAPPER, reused).unwrap();
        [
            documents(&stage, &lookups),
            documents(&stage, &Lookups::default()),
            documents(&stage, &lookups),
        ]
    });
    let granted =
        json!({ "configured": NOTHING, "now": "Some('Linz') None Some('Go-http-client') None" });
    assert_eq!(answers[0], vec![granted.clone(); 8]);
    assert_eq!(
        answers[1],
        vec![json!({ "configured": NOTHING, "now": NOTHING }); 8],
        "nothing stays with an instance that is kept"
    );
    assert_eq!(answers[2], vec![granted; 8]);

    let count = |text: &str| lines.iter().filter(|line| line.contains(text)).count();
    for said in [
        "INFO",
        "it looks up networks, which are not granted, so every answer is `none`; `asn = \"GeoLite2-ASN.mmdb\"` in `[lookup]`, or `--lookup-asn`,",
        "a user agent longer than 4096 bytes is not looked up",
    ] {
        assert!(count(said) >= 1, "{said}: {lines:#?}");
    }
    assert_eq!(
        (count("it looks up networks"), count("longer than 4096")),
        (1, 1),
        "each is said once"
    );
}

#[test]
fn components_that_use_look_ups_are_recognised() {
    let looks_up = [mapper(json!({})).looks_up(), filter(json!({})).looks_up()];
    assert_eq!(looks_up, [true, false]);
}
