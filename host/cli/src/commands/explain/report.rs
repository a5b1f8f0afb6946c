//! The answer, as `--json` prints it.

use std::collections::BTreeMap;
use std::path::Path;

use lockgate_config::Config;
use lockgate_model::{Fate, FeedKind};
use lockgate_service::{ConditionStatus, HostStatus};
use lockgate_store::{
    Change, Coverage, EntryHistory, EntryState, FoundEntry, HistoryStep, Inspector, Search,
};
use serde::Serialize;
use serde_json::Value;

use super::query::Question;
use crate::commands::dlq::rfc3339;
use crate::failure::Failure;
use crate::setup;

#[derive(Debug, Serialize)]
pub(super) struct Explanation {
    pub(super) asked: Question,
    pub(super) found: Vec<Entry>,
    /// More match than were asked for.
    pub(super) more: bool,
    /// The entry that was asked for, if retention has removed its event.
    pub(super) removed: Option<Removed>,
    /// Blocks that could not be searched, and why.
    pub(super) unreadable: Vec<String>,
    pub(super) searched: Searched,
    /// The events that the store covers.
    pub(super) streams: Vec<StreamCoverage>,
    pub(super) host_running: bool,
}

#[derive(Debug, Serialize)]
pub(super) struct Searched {
    pub(super) blocks: u64,
    pub(super) blocks_read: u64,
    /// Written by an earlier release, and read one by one.
    pub(super) blocks_without_filter: u64,
}

#[derive(Debug, Serialize)]
pub(super) struct StreamCoverage {
    pub(super) stream: String,
    pub(super) oldest_seq: u64,
    pub(super) next_seq: u64,
    /// Events that retention has removed.
    pub(super) removed: u64,
    /// The earliest and the latest time of the events kept.
    pub(super) from: Option<String>,
    pub(super) to: Option<String>,
    /// When the oldest and the newest of them were read.
    pub(super) read_from: Option<String>,
    pub(super) read_to: Option<String>,
    /// The event types that the source reads; absent if it reads all, or if no configuration
    /// says so.
    pub(super) types: Option<Vec<String>>,
}

/// An entry whose event is kept.
#[derive(Debug, Serialize)]
pub(super) struct Entry {
    pub(super) stream: String,
    pub(super) seq: u64,
    /// Its first sequence and the one after its last. Absent: a dead letter has the event, and
    /// retention has removed it from the log.
    pub(super) block: Option<(u64, u64)>,
    pub(super) key: String,
    #[serde(rename = "type")]
    pub(super) event_type: String,
    pub(super) code: String,
    pub(super) time: String,
    pub(super) index: i64,
    pub(super) session: String,
    pub(super) read_at: String,
    pub(super) bytes: usize,
    /// The event could not be turned into JSON.
    pub(super) raw: bool,
    /// With `--documents`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) payload: Option<String>,
    pub(super) pipelines: Vec<PipelineHistory>,
}

#[derive(Debug, Serialize)]
pub(super) struct Removed {
    pub(super) stream: String,
    pub(super) seq: u64,
    pub(super) pipelines: Vec<PipelineHistory>,
}

#[derive(Debug, Serialize)]
pub(super) struct PipelineHistory {
    pub(super) pipeline: String,
    /// `delivered`, `dropped`, `dead`, `waiting`, `waiting again` (it was a dead letter),
    /// `before the pipeline` (retention had removed it when the pipeline began), `never ran`, or
    /// `final` (only the daily tallies say how).
    pub(super) outcome: &'static str,
    /// Why it was dropped or is dead.
    pub(super) reason: Option<String>,
    /// When it got this outcome.
    pub(super) at: Option<String>,
    /// When the record of its outcome was folded into the daily tallies, if it is `final`.
    pub(super) folded_at: Option<String>,
    /// Waiting entries before it.
    pub(super) ahead: Option<u64>,
    /// The configuration has this pipeline. Absent without a configuration.
    pub(super) configured: Option<bool>,
    /// The pipeline was configured to read the stream when it last ran.
    pub(super) reads_stream: bool,
    /// Of a waiting entry, if a host runs: what keeps the pipeline from delivering.
    pub(super) conditions: Vec<ConditionStatus>,
    pub(super) dead_letter: Option<Letter>,
    pub(super) history: Vec<Step>,
    /// The results of the stages as they are now. Absent if they were not run.
    pub(super) replay: Option<Replay>,
    /// Why they were not run.
    pub(super) not_replayed: Option<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct Letter {
    /// As `lockgate dlq` takes it.
    pub(super) address: String,
    pub(super) at: String,
    pub(super) cause: String,
    pub(super) reason: String,
    pub(super) waits_again: bool,
}

#[derive(Debug, Serialize)]
pub(super) struct Step {
    pub(super) at: String,
    /// `delivered`, `dropped`, `dead`, `removed by retention`, `given up`, `retried`,
    /// `dead letter dropped`, `dead letter expired`.
    pub(super) change: &'static str,
    pub(super) reason: Option<String>,
    pub(super) generation: u32,
    /// The digests and tables of that generation.
    pub(super) description: Value,
    pub(super) batch: String,
    pub(super) requests: Vec<Request>,
}

#[derive(Debug, Serialize)]
pub(super) struct Request {
    pub(super) method: String,
    pub(super) endpoint: String,
    pub(super) path: String,
    /// Of the last answer; 0 if there was none.
    pub(super) status: u16,
    pub(super) answer: String,
    pub(super) documents: u32,
    pub(super) bytes: u64,
    pub(super) attempts: u32,
    /// False in commits of releases that did not note which request carried which entry: it is one
    /// of its batch.
    pub(super) is_known_to_carry_it: bool,
}

#[derive(Debug, Serialize)]
pub(super) struct Replay {
    /// The components, their tables and databases are those of the generation that processed it.
    /// Absent if none has.
    pub(super) same_generation: Option<bool>,
    pub(super) stages: Vec<ReplayStage>,
}

#[derive(Debug, Serialize)]
pub(super) struct ReplayStage {
    pub(super) label: String,
    pub(super) digest: String,
    /// The digest of the stage at this place when the event was processed, if it is another.
    pub(super) digest_then: Option<String>,
    /// The plugin's table is different from then.
    pub(super) with_differs: bool,
    /// `passed`, `dropped`, `dead`, `failed`.
    pub(super) result: &'static str,
    pub(super) reason: Option<String>,
    pub(super) documents: Vec<ReplayDocument>,
    /// The result depends on the pipeline's state, which is that of now.
    pub(super) uses_state: bool,
}

#[derive(Debug, Serialize)]
pub(super) struct ReplayDocument {
    pub(super) key: String,
    pub(super) bytes: usize,
    /// Other than what the stage got.
    pub(super) changed: bool,
    /// With `--documents`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) payload: Option<String>,
}

/// The facts that an answer needs besides the entry.
pub(super) struct Surroundings<'a> {
    pub(super) coverage: Vec<Coverage>,
    pub(super) host: Option<HostStatus>,
    pub(super) config: Option<&'a Config>,
}

impl<'a> Surroundings<'a> {
    pub(super) fn new(
        inspector: &Inspector,
        directory: &Path,
        config: Option<&'a Config>,
    ) -> Result<Surroundings<'a>, Failure> {
        Ok(Surroundings {
            coverage: inspector.coverage().map_err(Failure::failed)?,
            host: lockgate_service::running_host(directory, setup::now()).map(|host| host.status),
            config,
        })
    }

    /// The types of a stream's source, if not all are read.
    fn types(&self, stream: &str) -> Option<Vec<String>> {
        let (source, feed) = stream.rsplit_once('/')?;
        let source = self
            .config?
            .sources
            .iter()
            .find(|other| other.name == source)?;
        let is_narrowed = feed == FeedKind::Audit.name() && !source.types.is_empty();
        is_narrowed.then(|| source.types.clone())
    }

    /// Pipelines that are configured to read a stream and never did.
    fn never_ran(&self, stream: &str, known: &[EntryHistory]) -> Vec<PipelineHistory> {
        let pipelines = self.config.into_iter().flat_map(|config| &config.pipelines);
        let reads = |pipeline: &&lockgate_config::Pipeline| {
            let mut inputs = pipeline.from.iter();
            inputs.any(|input| format!("{}/{}", input.source, input.feed.name()) == stream)
        };
        pipelines
            .filter(reads)
            .filter(|pipeline| known.iter().all(|known| known.pipeline != pipeline.name))
            .map(|pipeline| PipelineHistory {
                configured: Some(true),
                conditions: self.conditions(&pipeline.name),
                ..PipelineHistory::empty(&pipeline.name, "never ran")
            })
            .collect()
    }

    fn conditions(&self, pipeline: &str) -> Vec<ConditionStatus> {
        let host = self.host.as_ref();
        let state = host.and_then(|host| host.pipelines.get(pipeline));
        state.map_or_else(Vec::new, |state| state.conditions.clone())
    }
}

impl Explanation {
    pub(super) fn new(
        question: &Question,
        search: &Search,
        surroundings: &Surroundings<'_>,
    ) -> Explanation {
        let streams = surroundings.coverage.iter().map(|covered| StreamCoverage {
            stream: covered.stream.clone(),
            oldest_seq: covered.entries.start,
            next_seq: covered.entries.end,
            removed: covered.removed,
            from: covered.times.map(|(from, _)| rfc3339(from)),
            to: covered.times.map(|(_, to)| rfc3339(to)),
            read_from: covered.read_at.map(|(from, _)| rfc3339(from)),
            read_to: covered.read_at.map(|(_, to)| rfc3339(to)),
            types: surroundings.types(&covered.stream),
        });
        Explanation {
            asked: question.clone(),
            found: Vec::new(),
            more: search.more,
            removed: None,
            unreadable: search.unreadable.clone(),
            searched: Searched {
                blocks: search.blocks,
                blocks_read: search.read,
                blocks_without_filter: search.without_filter,
            },
            streams: streams.collect(),
            host_running: surroundings.host.is_some(),
        }
    }

    pub(super) fn is_found(&self) -> bool {
        !self.found.is_empty() || self.removed.is_some()
    }
}

impl Entry {
    pub(super) fn new(
        found: &FoundEntry,
        inspector: &Inspector,
        surroundings: &Surroundings<'_>,
    ) -> Result<Entry, Failure> {
        let history = inspector.history(&found.stream, found.seq);
        let history = history.map_err(Failure::failed)?;
        let never_ran = surroundings.never_ran(&found.stream, &history);
        let pipelines = history
            .iter()
            .map(|history| PipelineHistory::new(history, &found.stream, found.seq, surroundings));
        Ok(Entry {
            stream: found.stream.clone(),
            seq: found.seq,
            block: found.block.as_ref().map(|block| (block.start, block.end)),
            key: found.key.clone(),
            event_type: found.event_type.clone(),
            code: found.code.clone(),
            time: rfc3339(found.time),
            index: found.index,
            session: found.session.clone(),
            read_at: rfc3339(found.read_at),
            bytes: found.payload.len(),
            raw: found.raw,
            payload: None,
            pipelines: pipelines.chain(never_ran).collect(),
        })
    }

    pub(super) fn show_payload(&mut self, found: &FoundEntry) {
        self.payload = Some(String::from_utf8_lossy(&found.payload).into_owned());
    }
}

impl PipelineHistory {
    fn empty(pipeline: &str, outcome: &'static str) -> PipelineHistory {
        PipelineHistory {
            pipeline: pipeline.to_owned(),
            outcome,
            reason: None,
            at: None,
            folded_at: None,
            ahead: None,
            configured: None,
            reads_stream: true,
            conditions: Vec::new(),
            dead_letter: None,
            history: Vec::new(),
            replay: None,
            not_replayed: None,
        }
    }

    pub(super) fn new(
        history: &EntryHistory,
        stream: &str,
        seq: u64,
        surroundings: &Surroundings<'_>,
    ) -> PipelineHistory {
        let name = &history.pipeline;
        let (outcome, reason, ahead) = match &history.state {
            EntryState::BeforeBegin => ("before the pipeline", None, None),
            EntryState::Waiting { ahead } => ("waiting", None, Some(*ahead)),
            EntryState::WaitingAgain { ahead } => ("waiting again", None, Some(*ahead)),
            EntryState::Final(fate) => {
                let (outcome, reason) = of_fate(fate);
                (outcome, reason, None)
            }
            EntryState::Folded { .. } => ("final", None, None),
        };
        let folded_at = match history.state {
            EntryState::Folded { at } => Some(rfc3339(at)),
            _ => None,
        };
        // An expired dead letter died before that.
        let became = history
            .steps
            .iter()
            .rev()
            .find(|step| step.change != Change::LetterExpired);
        let died = || match (&history.state, &history.letter) {
            (EntryState::Final(Fate::Dead(_)), Some(kept)) => Some(kept.at),
            _ => None,
        };
        let waits = ahead.is_some();
        PipelineHistory {
            reason,
            at: became.map(|step| step.at).or_else(died).map(rfc3339),
            folded_at,
            ahead,
            configured: surroundings.config.map(|config| {
                let mut pipelines = config.pipelines.iter();
                pipelines.any(|pipeline| pipeline.name == *name)
            }),
            reads_stream: history.active,
            conditions: if waits {
                surroundings.conditions(name)
            } else {
                Vec::new()
            },
            dead_letter: history.letter.as_ref().map(|kept| Letter {
                address: format!("{name}/{stream}/{seq}"),
                at: rfc3339(kept.at),
                cause: kept.letter.cause.clone(),
                reason: kept.letter.reason.clone(),
                waits_again: matches!(history.state, EntryState::WaitingAgain { .. }),
            }),
            history: history.steps.iter().map(step).collect(),
            ..PipelineHistory::empty(name, outcome)
        }
    }
}

fn of_fate(fate: &Fate) -> (&'static str, Option<String>) {
    match fate {
        Fate::Delivered => ("delivered", None),
        Fate::Dropped(reason) => ("dropped", Some(reason.clone())),
        // An expired dead letter whose commit was folded has none.
        Fate::Dead(reason) => (
            "dead",
            Some(reason.clone()).filter(|reason| !reason.is_empty()),
        ),
    }
}

fn step(step: &HistoryStep) -> Step {
    let (change, reason) = match &step.change {
        Change::Outcome(fate) => of_fate(fate),
        Change::RemovedByRetention => ("removed by retention", None),
        Change::GivenUp => ("given up", None),
        Change::Retried => ("retried", None),
        Change::LetterDropped(reason) => ("dead letter dropped", Some(reason.clone())),
        Change::LetterExpired => ("dead letter expired", None),
    };
    let requests = step.requests.iter().map(|request| Request {
        method: request.method.clone(),
        endpoint: request.endpoint.clone(),
        path: request.path.clone(),
        status: request.status,
        answer: request.excerpt.clone(),
        documents: request.documents,
        bytes: request.bytes,
        attempts: request.attempts,
        is_known_to_carry_it: !request.entries.is_empty(),
    });
    Step {
        at: rfc3339(step.at),
        change,
        reason,
        generation: step.generation,
        description: serde_json::from_str(&step.description).unwrap_or_default(),
        batch: step.batch.clone(),
        requests: requests.collect(),
    }
}

/// Outcomes by pipeline, for a line of a list.
pub(super) fn outcomes(entry: &Entry) -> BTreeMap<&str, &'static str> {
    let pipelines = entry.pipelines.iter();
    pipelines
        .map(|pipeline| (pipeline.pipeline.as_str(), pipeline.outcome))
        .collect()
}
