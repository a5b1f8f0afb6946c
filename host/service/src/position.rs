//! Where a source goes on, as the store or the files of Teleport's Event Handler say. Nothing is
//! opened for writing.

use std::collections::BTreeMap;

use lockgate_config::{Config, Issue, Issues, Source};
use lockgate_model::sentence;
use lockgate_teleport::HandlerPosition;

use crate::clock::now;
use crate::identity::SourceIdentity;
use crate::reader::Reader;
use crate::takeover::{TakeoverError, handler_position, stored_cursors};

/// Where a source goes on.
#[derive(Debug)]
pub(crate) enum Position {
    /// Nothing was read.
    New,
    /// The cursors in the store.
    Stored(BTreeMap<String, String>),
    /// The Event Handler's, which the next start takes over.
    Handler(Box<HandlerPosition>),
}

impl Position {
    /// Not while this process has the store open.
    pub(crate) fn of(source: &Source, config: &Config) -> Result<Position, TakeoverError> {
        let stored = stored_cursors(&config.store.path, &source.name);
        if !stored.is_empty() {
            return Ok(Position::Stored(stored));
        }
        let handler = config.event_handler.as_ref();
        let Some(handler) = handler.filter(|handler| !handler.dry_run) else {
            return Ok(Position::New);
        };
        let position = handler_position(&handler.state)?;
        Ok(position.map_or(Position::New, |position| {
            Position::Handler(Box::new(position))
        }))
    }

    /// The cursors that reading would go on from.
    pub(crate) fn cursors(&self) -> BTreeMap<String, String> {
        match self {
            Position::New => BTreeMap::new(),
            Position::Stored(cursors) => cursors.clone(),
            Position::Handler(position) => {
                let cursors = position.cursors(now()).into_iter();
                cursors
                    .filter_map(|cursor| Some((cursor.key, cursor.value?)))
                    .collect()
            }
        }
    }

    /// Why the source would not start, as a sentence with the way out.
    pub(crate) fn refused(&self, source: &Source, config: &Config) -> Option<String> {
        let sessions = SourceIdentity::of(source, config).sessions;
        let reader = Reader::new(source, sessions);
        reader.check_resume(self.cursors()).err()
    }
}

/// Reports why `start` could not go on from the position of a source.
pub fn check_position(source: &Source, config: &Config, issues: &mut Issues) {
    let span = || source.start_time_span.clone();
    match Position::of(source, config) {
        Ok(position) => {
            if let Some(message) = position.refused(source, config) {
                issues.push(Issue::new(span(), sentence(&message), "", ""));
            }
        }
        Err(error) => {
            let hint = error.hint().unwrap_or_default();
            issues.push(Issue::new(span(), sentence(&error.to_string()), "", hint));
        }
    }
}
