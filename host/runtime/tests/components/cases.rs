//! The cases of `tests/cases/contract`; see the README.md there.

use std::path::Path;

use lockgate_model::contract::{CallError, Mapped, MappedDocument, Verdict};
use lockgate_runtime::{Component, ConfigureError, Sink, Stage};
use lockgate_tests::components::cases;
use serde::Deserialize;
use serde_json::Value;

use crate::support::{
    ENGINE, FILTER, KEYS, MAPPER, SINK, call_filter, call_mapper, documents, encode, events,
    options,
};

/// `plugin.toml`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Plugin {
    component: String,
    with: Value,
}

/// `expected.toml`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Expected {
    /// How the message begins if the event with the key `k3` is in the call.
    call: Option<String>,
    /// How the message of `configure` begins.
    configure: Option<String>,
}

#[test]
fn each_component_that_breaks_the_contract_is_contained() {
    for case in cases("contract") {
        let name = case.display();
        let (plugin, expected): (Plugin, Expected) = (
            read(&case.join("plugin.toml")),
            read(&case.join("expected.toml")),
        );
        match (&expected.call, &expected.configure) {
            (Some(message), None) => {
                let fault = fault_of_the_fourth(&plugin);
                let fault = fault.unwrap_or_else(|what| panic!("{name}: {what}"));
                assert!(fault.may_be_one_event(), "{name}: {fault}");
                check_message(&case, &fault.to_string(), message);
            }
            (None, Some(message)) => {
                let Err(error) = configured(&plugin) else {
                    panic!("{name}: it can be configured");
                };
                let is_its_own = matches!(
                    &error,
                    ConfigureError::Call(
                        CallError::Trap { .. }
                            | CallError::Timeout { .. }
                            | CallError::Memory { .. }
                            | CallError::Output { .. }
                    )
                );
                assert!(is_its_own, "{name}: {error}");
                check_message(&case, &error.to_string(), message);
            }
            _ => panic!("{name}: `expected.toml` has either `call` or `configure`"),
        }
    }
}

/// It begins as expected, is short, and has nothing in it that a terminal would act on.
fn check_message(case: &Path, message: &str, expected: &str) {
    let name = case.display();
    assert!(message.starts_with(expected), "{name}: {message}");
    assert!(
        !message.chars().any(char::is_control) && message.len() <= 1100,
        "{name}: {message}"
    );
}

enum Configured {
    Filter(Stage),
    Mapper(Stage),
    Sink(Sink),
}

fn configured(plugin: &Plugin) -> Result<Configured, ConfigureError> {
    let (name, with) = (plugin.component.as_str(), plugin.with.clone());
    let stage = |component: &Component| {
        let options = options(component.name(), with.clone());
        Stage::configure(&ENGINE, component, options)
    };
    match name {
        "hostile_filter" => stage(&FILTER).map(Configured::Filter),
        "hostile_mapper" => stage(&MAPPER).map(Configured::Mapper),
        "hostile_sink" => {
            let sink = Sink::configure(&ENGINE, &SINK, options(name, with));
            sink.map(Configured::Sink)
        }
        _ => panic!("no component is called `{name}`"),
    }
}

/// Why a call fails with event 3 alone. An error says what is wrong if the call with all events
/// succeeds, or the one without it fails.
fn fault_of_the_fourth(plugin: &Plugin) -> Result<CallError, String> {
    let configured = configured(plugin).map_err(|error| error.to_string())?;
    // Calls it with the events at these places. True if all results are those of a good event.
    let call = |places: &[usize]| -> Result<bool, CallError> {
        let events: Vec<_> = places.iter().map(|&place| events()[place]).collect();
        match &configured {
            Configured::Filter(stage) => {
                let verdicts = call_filter(stage, &events)?;
                Ok(verdicts == vec![Verdict::Keep; places.len()])
            }
            Configured::Mapper(stage) => {
                let mapped = call_mapper(stage, &events)?;
                let same = Mapped::Emit(vec![MappedDocument {
                    payload: events[0].payload.to_owned(),
                    attributes: vec![],
                }]);
                Ok(mapped == vec![same; places.len()])
            }
            Configured::Sink(sink) => {
                let all = documents();
                let documents: Vec<_> = places.iter().map(|&place| all[place]).collect();
                let encoded = encode(sink, &documents)?;
                let carried = encoded
                    .requests
                    .iter()
                    .flat_map(|request| request.carries());
                let mut carried: Vec<u32> = carried.copied().collect();
                carried.sort_unstable();
                let is_complete = carried == (0..places.len() as u32).collect::<Vec<_>>();
                Ok(is_complete && encoded.rejected.is_empty())
            }
        }
    };
    let all: Vec<usize> = (0..KEYS.len()).collect();
    let others: Vec<usize> = (0..KEYS.len()).filter(|&place| place != 3).collect();
    if call(&all).is_ok() {
        return Err("the batch with event 3 passes".to_owned());
    }
    match call(&others) {
        Ok(true) => {}
        Ok(false) => return Err("not all of the others pass".to_owned()),
        Err(error) => return Err(format!("the batch without event 3 fails: {error}")),
    }
    match call(&[3]) {
        Ok(_) => Err("event 3 passes by itself".to_owned()),
        Err(error) => Ok(error),
    }
}

fn read<T: for<'de> Deserialize<'de>>(file: &Path) -> T {
    let text =
        std::fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    toml::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}
