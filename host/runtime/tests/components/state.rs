//! State of components.

use std::collections::BTreeMap;

use lockgate_model::contract::{CallError, Mapped};
use lockgate_model::{EventView, StateMap, StateOverlay};
use lockgate_runtime::{ComponentOptions, PluginIdentity, Stage};
use serde_json::{Value, json};

use crate::support::{COUNTER, ENGINE, context, events, filter, logged, mapper, options};

fn counter(state: bool, config: Value) -> Stage {
    counter_of("counter", state, config)
}

/// `plugin`: how the operator named it.
fn counter_of(plugin: &str, state: bool, config: Value) -> Stage {
    let options = ComponentOptions {
        state,
        plugin: PluginIdentity {
            name: plugin.into(),
            version: Some("0.1.0"),
        },
        ..options("counter", config)
    };
    Stage::configure(&ENGINE, &COUNTER, options).unwrap()
}

/// Events of these users.
fn of_users(users: &[&'static str]) -> Vec<EventView<'static>> {
    let payload = |user: &str| match user {
        "alice" => r#"{"user":"alice"}"#,
        _ => r#"{"user":"bob"}"#,
    };
    let of = |(event, user): (EventView<'static>, &&str)| EventView {
        payload: payload(user),
        ..event
    };
    events().into_iter().zip(users).map(of).collect()
}

fn counts(mapped: Vec<Mapped>) -> Vec<u64> {
    let count = |mapped| match mapped {
        Mapped::Emit(documents) => {
            let document: Value = serde_json::from_str(&documents[0].payload).unwrap();
            document["count"].as_u64().unwrap()
        }
        other => panic!("{other:?}"),
    };
    mapped.into_iter().map(count).collect()
}

#[test]
fn a_call_sees_the_state_that_an_earlier_one_wrote() {
    let stage = counter(true, json!({}));
    assert!(stage.uses_state());
    let mut state = StateOverlay::new(StateMap::default(), 1000);
    let mut call = |users: &[&'static str]| {
        let called = stage.transform(&context(), &of_users(users), &mut state, false);
        counts(called.result.unwrap())
    };
    assert_eq!(call(&["alice", "bob", "alice"]), [1, 1, 2]);
    assert_eq!(call(&["alice", "bob"]), [3, 2]);
    let writes: BTreeMap<&str, &str> = state
        .writes()
        .iter()
        .map(|(key, value)| (key, value.unwrap()))
        .collect();
    assert_eq!(
        writes,
        BTreeMap::from([("count/alice", "3"), ("count/bob", "2")])
    );
}

#[test]
fn a_failed_call_does_not_change_the_state() {
    let mut state = StateOverlay::new(StateMap::default(), 1000);
    state.put("count/alice", "7").unwrap();
    let before = state.clone();
    let stage = counter(true, json!({ "trap-on": "k0" }));
    let called = stage.transform(&context(), &of_users(&["alice"]), &mut state, false);
    assert!(matches!(called.result, Err(CallError::Trap { .. })));
    assert_eq!(state, before);

    let mut small = StateOverlay::new(StateMap::default(), 80);
    let stage = counter(true, json!({}));
    let (called, lines) = logged(|| {
        let events = of_users(&["alice", "bob"]);
        [false, true].map(|fresh| stage.transform(&context(), &events, &mut small, fresh))
    });
    assert_eq!(lines.len(), 1, "{lines:#?}");
    assert!(
        lines[0].starts_with("WARN")
            && lines[0].contains(
                "its state is full: 1 key counts 76 of the 80 bytes that `state` in \
                 `[plugins.counter]` grants, 64 of them for the key itself"
            ),
        "{}",
        lines[0]
    );
    let [called, _] = called;
    assert_eq!(
        called.result,
        Err(CallError::Hold(
            "the counts cannot be kept: StateError::QuotaExceeded".into()
        ))
    );
    assert!(small.writes().is_empty());
}

#[test]
fn without_a_grant_the_log_explains_once_how_to_grant_it() {
    let stage = counter(false, json!({}));
    assert!(!stage.uses_state(), "nothing makes its pipeline serial");
    let mut state = StateOverlay::new(StateMap::default(), 1000);
    let (results, lines) = logged(|| {
        [false, false].map(|fresh| {
            stage
                .transform(&context(), &of_users(&["alice"]), &mut state, fresh)
                .result
        })
    });
    let refused = "the counts cannot be kept: StateError::NotGranted";
    assert_eq!(results[0], Err(CallError::Hold(refused.into())));
    assert_eq!(results[1], results[0]);
    assert_eq!(lines.len(), 1, "{lines:#?}");
    assert!(
        lines[0].starts_with("INFO")
            && lines[0].contains(r#"`state = "1 MiB"` in `[plugins.counter]` grants it"#),
        "{}",
        lines[0]
    );
}

/// The log advised a table `[plugins.builtin:counter]`, which is not TOML.
#[test]
fn a_grant_to_a_component_without_a_table_needs_one() {
    for source in ["builtin:counter", "file:my plugins/counter.wasm"] {
        let stage = counter_of(source, false, json!({}));
        let mut state = StateOverlay::new(StateMap::default(), 1000);
        let (_, lines) =
            logged(|| stage.transform(&context(), &of_users(&["alice"]), &mut state, false));
        assert_eq!(lines.len(), 1, "{lines:#?}");
        let way_out = format!(
            "declare the component as `[plugins.NAME]` with `source = \"{source}\"` and \
             `state = \"1 MiB\"`, and write `plugin = \"NAME\"` in the stage"
        );
        assert!(lines[0].contains(&way_out), "{}", lines[0]);
    }
}

#[test]
fn a_grant_to_a_component_without_state_changes_nothing() {
    let granted = |component: &Stage| {
        let options = ComponentOptions {
            state: true,
            ..options("x", json!({}))
        };
        Stage::configure(&ENGINE, component.component(), options).unwrap()
    };
    assert!(!granted(&filter(json!({}))).uses_state());
    assert!(!granted(&mapper(json!({}))).uses_state());
}
