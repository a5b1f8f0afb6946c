//! Collects events from lines of JSON.

use lockgate_lookup::Lookups;
use lockgate_model::{BlockBuilder, BlockParts, FeedRef, Head, StateMap, StateOverlay, key_of};
use lockgate_runtime::{check_object, put_on_one_line};
use serde::Deserialize;

use super::Problems;
use crate::args::PluginRun;

/// Quota of the plugin's state, in bytes. The state lasts as long as the command.
const STATE_MAX: usize = 64 << 20;

/// The fields of an event that the host passes in addition to the payload.
#[derive(Deserialize)]
struct Fields {
    #[serde(default)]
    event: String,
    #[serde(default)]
    code: String,
    #[serde(default)]
    time: String,
    #[serde(default)]
    ei: i64,
    #[serde(default)]
    uid: String,
    #[serde(default)]
    sid: String,
}

/// The events of the next call, and the state that outlives it.
pub(super) struct Batch<'a> {
    pub(super) command: &'a PluginRun,
    pub(super) lookups: Lookups,
    pub(super) state: StateOverlay,
    builder: BlockBuilder,
    /// Line numbers of the events.
    lines: Vec<u64>,
    number: u64,
}

impl Batch<'_> {
    pub(super) fn new(command: &PluginRun, lookups: Lookups) -> Batch<'_> {
        Batch {
            command,
            lookups,
            state: StateOverlay::new(StateMap::default(), STATE_MAX),
            builder: BlockBuilder::new(),
            lines: Vec::new(),
            number: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.builder.len()
    }

    pub(super) fn push(&mut self, text: &str, line: u64, problems: &mut Problems) {
        if let Err(fault) = check_object(text) {
            let hint = if matches!(text, "{" | "[") {
                "; write each event on one line, as `jq -c .` does"
            } else {
                ""
            };
            return problems.add(format!("line {line} is not an event: {fault}{hint}"));
        }
        let fields: Fields = match serde_json::from_str(text) {
            Ok(fields) => fields,
            Err(error) => {
                return problems.add(format!("line {line} is not a Teleport event: {error}"));
            }
        };
        let feed = self
            .command
            .session
            .as_deref()
            .map_or(FeedRef::Audit, FeedRef::Session);
        let key = key_of(feed, &fields.uid, text.as_bytes());
        let session = self.command.session.as_deref().unwrap_or(&fields.sid);
        let time = fields
            .time
            .parse::<jiff::Timestamp>()
            .map_or(0, |time| time.as_millisecond());
        let head = Head {
            key: &key,
            event_type: &fields.event,
            code: &fields.code,
            time,
            index: fields.ei,
            session,
        };
        let mut text = text.to_owned();
        put_on_one_line(&mut text);
        self.builder.push(head, &text);
        self.lines.push(line);
    }

    /// Returns the events, their line numbers, and the number of the batch from 1.
    pub(super) fn take(&mut self) -> (BlockParts, Vec<u64>, u64) {
        self.number += 1;
        (
            self.builder.take(),
            std::mem::take(&mut self.lines),
            self.number,
        )
    }
}
