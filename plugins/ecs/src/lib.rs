#![doc = include_str!("../README.md")]

pub mod document;
mod enrich;
pub mod kinds;
pub mod lookup;
mod machine;
pub mod mapper;
pub mod mapping;
mod parse;
pub mod row;
pub mod rules;
mod value;
mod write;

use lockgate_plugin::{BatchContext, ConfigIssue, Event, Mapper, Needs, Outcome, Setup};
use serde::Deserialize;

use crate::lookup::Granted;
use crate::mapper::Mapping;
use crate::rules::Rules;

/// The operator's `with` table.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case", default)]
pub struct Config {
    pub compat: Compat,
    /// `false`: without the original's plain mistakes.
    pub quirks: bool,
    /// The event's text goes with the document, as `event.original`.
    pub preserve_original: bool,
}

/// Which version of Elastic's integration to be like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum Compat {
    #[serde(rename = "0.1.0")]
    First,
    #[default]
    #[serde(rename = "1.6")]
    Later,
}

impl Default for Config {
    fn default() -> Config {
        Config { compat: Compat::default(), quirks: true, preserve_original: false }
    }
}

/// The configured mapper.
#[derive(Debug)]
pub struct Ecs {
    mapping: Mapping<Granted>,
}

impl Config {
    /// The mapping, with look-ups of your own.
    pub fn mapping<L: lookup::Lookup>(&self, lookup: L) -> Mapping<L> {
        let rules = Rules::new(self.compat == Compat::Later, !self.quirks);
        Mapping { rules, preserve_original: self.preserve_original, lookup }
    }
}

impl Mapper for Ecs {
    type Config = Config;

    fn configure(config: Config) -> Result<(Ecs, Setup), Vec<ConfigIssue>> {
        Ok((Ecs { mapping: config.mapping(Granted) }, Setup::new(Needs::Payloads)))
    }

    fn map(&self, _: &BatchContext, event: Event) -> Outcome {
        Outcome::Emit(vec![self.mapping.map(&event.payload)])
    }
}

lockgate_plugin::mapper!(Ecs);
