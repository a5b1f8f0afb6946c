//! The lines of one event of every type in Teleport's list, which `ecs` has for its own documents:
//! `golden.cef`. After an intended change, run `LOCKGATE_BLESS=1 cargo test -p lockgate-cef --test
//! golden`, and review the difference.

use std::fs;
use std::path::Path;

use cef::Cef;
use lockgate_plugin::{Mapper, Outcome, json, test};

#[test]
#[allow(clippy::disallowed_methods, reason = "the lines are written on demand")]
fn each_type_of_event_has_its_line() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let events = tests.join("../../ecs/tests/golden/events.ndjson");
    let (cef, _) = test::configure::<Cef>("{}").unwrap();
    let mut found = String::new();
    for event in fs::read_to_string(events).unwrap().lines() {
        let Outcome::Emit(documents) = cef.map(&test::batch(), test::event(event)) else {
            panic!("{event}");
        };
        let line = json::find(&documents[0].payload, "cef").unwrap().unwrap();
        found += &json::text(line).unwrap();
        found.push('\n');
    }
    let golden = tests.join("golden.cef");
    if std::env::var_os("LOCKGATE_BLESS").is_some() {
        fs::write(&golden, &found).unwrap();
    }
    let expected = fs::read_to_string(golden).unwrap();
    for (number, (found, expected)) in (1..).zip(found.lines().zip(expected.lines())) {
        assert_eq!(found, expected, "line {number}");
    }
    assert_eq!(found.lines().count(), expected.lines().count());
}
