//! The question on the command line.

use lockgate_model::Seq;
use lockgate_store::{EntryQuery, Inspector, Search};
use serde::Serialize;

use super::report::{PipelineHistory, Removed, Surroundings};
use crate::failure::Failure;

/// The question that a command asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Question {
    Id(String),
    Session { id: String, index: Option<i64> },
    Entry { stream: String, seq: Seq },
}

impl Question {
    pub(super) fn new(event: Option<&str>, session: Option<&str>, index: Option<i64>) -> Question {
        let event = event.unwrap_or("").trim();
        match session {
            Some(id) => Question::Session {
                id: id.to_owned(),
                index,
            },
            None => entry(event).unwrap_or_else(|| Question::Id(event.to_owned())),
        }
    }

    /// The answer is a list.
    pub(super) fn is_list(&self) -> bool {
        matches!(self, Question::Session { index: None, .. })
    }

    pub(super) fn search(&self, inspector: &Inspector, max: usize) -> Result<Search, Failure> {
        let find = |query: &EntryQuery| inspector.find(query, max).map_err(Failure::failed);
        match self {
            Question::Session { id, index } => find(&EntryQuery::Session {
                id: id.clone(),
                index: *index,
            }),
            Question::Entry { stream, seq } => find(&EntryQuery::Entry {
                stream: stream.clone(),
                seq: *seq,
            }),
            Question::Id(id) => {
                let search = find(&EntryQuery::Id(id.clone()))?;
                // Several documents of one event have its id and a number.
                match id.rsplit_once('#') {
                    Some((event, _)) if search.found.is_empty() => {
                        find(&EntryQuery::Id(event.to_owned()))
                    }
                    _ => Ok(search),
                }
            }
        }
    }

    /// The history of an entry whose event retention has removed.
    pub(super) fn removed(
        &self,
        inspector: &Inspector,
        surroundings: &Surroundings<'_>,
    ) -> Result<Option<Removed>, Failure> {
        let Question::Entry { stream, seq } = self else {
            return Ok(None);
        };
        let covered = surroundings.coverage.iter();
        let Some(covered) = covered.clone().find(|covered| covered.stream == *stream) else {
            return Ok(None);
        };
        if *seq == 0 || *seq >= covered.entries.start {
            return Ok(None);
        }
        let history = inspector.history(stream, *seq).map_err(Failure::failed)?;
        Ok(Some(Removed {
            stream: stream.clone(),
            seq: *seq,
            pipelines: history
                .iter()
                .map(|history| PipelineHistory::new(history, stream, *seq, surroundings))
                .collect(),
        }))
    }

    pub(super) fn not_found(&self) -> Failure {
        match self {
            Question::Id(id) => {
                Failure::failed(format!("No event with the id `{id}` is in the store.")).hint(
                    format!("if it is the id of a session, use `lockgate explain --session {id}`"),
                )
            }
            Question::Session { id, index: None } => {
                Failure::failed(format!("No event of the session `{id}` is in the store."))
            }
            Question::Session {
                id,
                index: Some(index),
            } => Failure::failed(format!(
                "No event with the index {index} of the session `{id}` is in the store."
            ))
            .hint(format!(
                "`lockgate explain --session {id}` lists the events of the session"
            )),
            Question::Entry { stream, seq } => {
                Failure::failed(format!("There is no entry {seq} in the stream `{stream}`."))
            }
        }
    }
}

/// `teleport/audit/1234`, or the name of a dead letter, `siem/teleport/audit/1234`.
fn entry(text: &str) -> Option<Question> {
    let (stream, seq) = text.rsplit_once('/')?;
    let seq = seq.parse().ok()?;
    let (source, feed) = stream.rsplit_once('/')?;
    let source = source.rsplit('/').next()?;
    let is_stream = matches!(feed, "audit" | "sessions") && !source.is_empty();
    is_stream.then(|| Question::Entry {
        stream: format!("{source}/{feed}"),
        seq,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_anything_but_an_entry() {
        for (text, stream) in [
            ("teleport/audit/7", Some("teleport/audit")),
            ("siem/teleport/sessions/7", Some("teleport/sessions")),
            ("5d0f-11", None),
            ("5d0f-11/7", None),
            ("/audit/7", None),
            ("teleport/audit/-7", None),
            ("teleport/logs/7", None),
        ] {
            let expected = stream.map_or_else(
                || Question::Id(text.to_owned()),
                |stream| Question::Entry {
                    stream: stream.to_owned(),
                    seq: 7,
                },
            );
            assert_eq!(Question::new(Some(text), None, None), expected, "{text}");
        }
    }
}
