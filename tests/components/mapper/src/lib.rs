//! A mapper that misbehaves as its `mode` says; see README.md.

use lockgate_plugin::{
    Access, Batch, ConfigIssue, Event, Failure, Mapped, Mapper, Outcome, StageSetup, lookup,
};
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Config {
    #[serde(default)]
    mode: Mode,
    /// Key of the event that sets it off; absent: every event does.
    #[serde(default)]
    on: Option<String>,
    /// Of a huge result.
    #[serde(default = "gibibyte")]
    bytes: usize,
    /// Of `many`.
    #[serde(default = "hundred_thousand")]
    documents: usize,
}

fn hundred_thousand() -> usize {
    100_000
}

fn gibibyte() -> usize {
    1 << 30
}

#[derive(Clone, Copy, Default, Deserialize, PartialEq)]
#[serde(rename_all = "kebab-case")]
enum Mode {
    #[default]
    Same,
    Two,
    None,
    Drop,
    Reject,
    RejectHuge,
    Trap,
    Loop,
    Memory,
    TooFew,
    TooMany,
    BadReason,
    Huge,
    Many,
    NotJson,
    Truncated,
    Empty,
    List,
    Scalar,
    TwoObjects,
    LoneSurrogate,
    DuplicateKeys,
    Deep,
    ControlCharacter,
    Pretty,
    Attributes,
    ManyAttributes,
    BigAttributes,
    NotUtf8,
    Fail,
    FailRetry,
    FailHold,
    LookUp,
}

struct Hostile {
    mode: Mode,
    on: Option<String>,
    bytes: usize,
    documents: usize,
    /// What look-ups said while it was configured.
    configured: String,
}

impl Mapper for Hostile {
    type Config = Config;

    fn configure(config: Config) -> Result<(Hostile, StageSetup), Vec<ConfigIssue>> {
        let configured = if config.mode == Mode::LookUp {
            look_up()
        } else {
            String::new()
        };
        let hostile = Hostile {
            mode: config.mode,
            on: config.on,
            bytes: config.bytes,
            documents: config.documents,
            configured,
        };
        Ok((
            hostile,
            StageSetup::new(Access::Payload).reasons(["on purpose"]),
        ))
    }

    fn map(&self, _: &Batch, event: Event) -> Outcome {
        if self.on.as_ref().is_some_and(|key| *key != event.key) {
            return Outcome::document(event.payload);
        }
        let one = |text: &str| Outcome::document(text);
        match self.mode {
            Mode::Two => Outcome::Emit(vec![
                Mapped::new(event.payload.clone()),
                Mapped::new(event.payload),
            ]),
            Mode::None => Outcome::Emit(vec![]),
            Mode::Drop => Outcome::Drop(0),
            Mode::BadReason => Outcome::Drop(4_000_000_000),
            Mode::Reject => Outcome::Reject("cannot be mapped\u{1b}[31m\nforged: line".into()),
            Mode::RejectHuge => Outcome::Reject("x".repeat(1 << 20)),
            Mode::Trap => panic!("hostile component: trap on {}", event.key),
            #[allow(clippy::empty_loop)]
            Mode::Loop => loop {
                std::hint::black_box(());
            },
            Mode::Memory => {
                let mut taken = vec![];
                loop {
                    taken.push(std::hint::black_box(vec![1u8; 1 << 20]));
                }
            }
            Mode::Huge => Outcome::document(format!(r#"{{"a":"{}"}}"#, "x".repeat(self.bytes))),
            Mode::Many => Outcome::Emit(vec![Mapped::new("{}"); self.documents]),
            Mode::NotJson => one("not json"),
            Mode::Truncated => one(r#"{"a":1"#),
            Mode::Empty => one(""),
            Mode::List => one("[{}]"),
            Mode::Scalar => one("1"),
            Mode::TwoObjects => one("{}\n{}"),
            Mode::LoneSurrogate => one(r#"{"a":"\ud83d"}"#),
            Mode::DuplicateKeys => one(r#"{"a":1,"\u0061":2}"#),
            Mode::Deep => {
                Outcome::document(format!("{}1{}", r#"{"a":"#.repeat(200), "}".repeat(200)))
            }
            Mode::ControlCharacter => one("{\"a\":\"\n\"}"),
            Mode::Pretty => one("{\r\n  \"a\": \"b\\nc\"\n}\n"),
            Mode::Attributes => Outcome::Emit(vec![
                Mapped::new(event.payload).attribute("tenant", event.key),
            ]),
            Mode::ManyAttributes => {
                let mapped = Mapped::new(event.payload);
                let attribute = |mapped: Mapped, n| mapped.attribute(format!("n{n}"), "");
                Outcome::Emit(vec![(0..65).fold(mapped, attribute)])
            }
            Mode::BigAttributes => Outcome::Emit(vec![
                Mapped::new(event.payload).attribute("big", "x".repeat(5000)),
            ]),
            // What `Debug` writes of ASCII is JSON.
            Mode::LookUp => Outcome::document(format!(
                r#"{{"configured":{:?},"now":{:?}}}"#,
                self.configured,
                look_up()
            )),
            // A component is not held to what Rust promises of its strings.
            Mode::NotUtf8 => Outcome::document(unsafe {
                String::from_utf8_unchecked(b"{\"a\":\"\xff\"}".to_vec())
            }),
            Mode::Same
            | Mode::TooFew
            | Mode::TooMany
            | Mode::Fail
            | Mode::FailRetry
            | Mode::FailHold => Outcome::document(event.payload),
        }
    }

    fn transform(&self, batch: &Batch, events: Vec<Event>) -> Result<Vec<Outcome>, Failure> {
        let set_off = self
            .on
            .as_ref()
            .is_none_or(|key| events.iter().any(|event| event.key == *key));
        let mut outcomes: Vec<_> = events
            .into_iter()
            .map(|event| self.map(batch, event))
            .collect();
        match self.mode {
            Mode::TooFew if set_off => {
                outcomes.pop();
            }
            Mode::TooMany if set_off => outcomes.push(Outcome::Emit(vec![])),
            Mode::Fail if set_off => return Err(Failure::isolate("this batch cannot be mapped")),
            Mode::FailRetry if set_off => {
                return Err(Failure::retry_after("not yet", 10));
            }
            Mode::FailHold if set_off => return Err(Failure::hold("its licence has expired")),
            _ => {}
        }
        Ok(outcomes)
    }
}

/// A place, a network and two user agents, as far as they are granted.
fn look_up() -> String {
    let place = lookup::place_of("192.0.2.7").and_then(|place| place.city_name);
    let network = lookup::network_of("192.0.2.7").and_then(|network| network.number);
    let agent = lookup::user_agent_of("Go-http-client/1.1").map(|agent| agent.software.name);
    let long = lookup::user_agent_of(&"x".repeat(5000)).map(|agent| agent.device);
    format!("{place:?} {network:?} {agent:?} {long:?}").replace('"', "'")
}

lockgate_plugin::mapper!(Hostile);
