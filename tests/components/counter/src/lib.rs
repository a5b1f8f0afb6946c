//! A mapper that numbers the events of each user, across batches: it keeps its counts in state.
//!
//! `{"key":"…","user":"alice","count":3}` for the third event of alice.

use lockgate_plugin::{
    Access, Batch, ConfigIssue, Event, Failure, Mapper, Outcome, StageSetup, json, state,
};
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    /// Traps on a batch that holds the event with this key, after its counts were written.
    #[serde(default)]
    trap_on: Option<String>,
}

pub struct Counter {
    config: Config,
}

impl Mapper for Counter {
    type Config = Config;

    fn configure(config: Config) -> Result<(Counter, StageSetup), Vec<ConfigIssue>> {
        Ok((Counter { config }, StageSetup::new(Access::Payload)))
    }

    /// State can fail, so that the batch is mapped as a whole.
    fn map(&self, _: &Batch, _: Event) -> Outcome {
        unreachable!("`transform` maps")
    }

    fn transform(&self, _: &Batch, events: Vec<Event>) -> Result<Vec<Outcome>, Failure> {
        let outcomes = events
            .iter()
            .map(number)
            .collect::<Result<_, state::StateError>>()
            .map_err(|error| Failure::hold(format!("the counts cannot be kept: {error:?}")))?;
        if let Some(key) = &self.config.trap_on
            && events.iter().any(|event| event.key == *key)
        {
            panic!("hostile component: trap on {key}");
        }
        Ok(outcomes)
    }
}

fn number(event: &Event) -> Result<Outcome, state::StateError> {
    let user = json::find(&event.payload, "user")
        .ok()
        .flatten()
        .and_then(json::text)
        .unwrap_or_default();
    let name = format!("count/{user}");
    let before: u64 = state::get(&name)?
        .and_then(|count| count.parse().ok())
        .unwrap_or(0);
    let count = before + 1;
    state::put(&name, &count.to_string())?;
    let mut document = String::from("{\"key\":");
    json::write_text(&mut document, &event.key);
    document.push_str(",\"user\":");
    json::write_text(&mut document, &user);
    document.push_str(&format!(",\"count\":{count}}}"));
    Ok(Outcome::document(document))
}

lockgate_plugin::mapper!(Counter);
