//! `lockgate explain`: what became of one event.

mod query;
mod replay;
mod report;
mod text;

use std::sync::Arc;

use clap::Args;
use lockgate_config::Config;
use lockgate_observe::Masks;
use lockgate_store::{FoundEntry, Inspector};

use crate::failure::Failure;
use crate::place::{Place, not_opened};
use crate::{print, setup};
use query::Question;
use replay::Replayer;
use report::{Entry, Explanation, Surroundings};

/// Entries that are explained in full. More than one have the same id only if an agent chose it.
const EXPLAINED_MAX: usize = 10;

#[derive(Debug, Args)]
pub(crate) struct Explain {
    /// The event's id: its `uid`, or the id of a document made of it. Or an entry, such as
    /// `teleport/audit/1234`, also if retention has removed its event.
    #[arg(
        value_name = "EVENT_ID",
        required_unless_present = "session",
        conflicts_with = "session"
    )]
    event: Option<String>,

    /// List the events of this session instead, of the audit log and of the recording.
    #[arg(long, value_name = "ID")]
    session: Option<String>,

    /// Explain the event of the session with this index (`ei`).
    #[arg(long, value_name = "N", requires = "session")]
    index: Option<i64>,

    /// How many events of the session to list at most: 1 to 10000.
    #[arg(
        long,
        default_value_t = 50,
        value_name = "N",
        value_parser = clap::value_parser!(u16).range(1..=10_000)
    )]
    limit: u16,

    #[command(flatten)]
    place: Place,

    /// Also print the event, and the documents that each stage makes of it now.
    #[arg(long)]
    documents: bool,

    /// Print one JSON object instead of text.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(command: &Explain, masks: &Masks) -> Result<(), Failure> {
    let directory = command.place.directory()?;
    let config = command.configuration(masks);
    let inspector = Arc::new(Inspector::open(&directory).map_err(not_opened)?);
    let question = Question::new(
        command.event.as_deref(),
        command.session.as_deref(),
        command.index,
    );
    let max = if question.is_list() {
        command.limit.into()
    } else {
        EXPLAINED_MAX
    };
    let search = question.search(&inspector, max)?;
    let surroundings = Surroundings::new(&inspector, &directory, config.as_ref())?;
    let mut report = Explanation::new(&question, &search, &surroundings);
    let replayer = match &config {
        Some(config) if !question.is_list() && !search.found.is_empty() => Some(Replayer::new(
            &command.place.config,
            config,
            masks,
            &inspector,
        )?),
        _ => None,
    };
    for found in &search.found {
        let entry = command.entry(found, &inspector, &surroundings, replayer.as_ref())?;
        report.found.push(entry);
    }
    if report.found.is_empty() {
        report.removed = question.removed(&inspector, &surroundings)?;
    }
    if command.json {
        let json = serde_json::to_string(&report).map_err(Failure::failed)?;
        print::data(&format!("{json}\n"))?;
    } else if question.is_list() && !report.found.is_empty() {
        print::data(&text::list(&report))?;
    } else {
        print::data(&text::report(&report, &surroundings))?;
    }
    if report.is_found() {
        Ok(())
    } else {
        Err(question.not_found())
    }
}

impl Explain {
    /// `None`, after saying why, if the stages cannot be shown.
    fn configuration(&self, masks: &Masks) -> Option<Config> {
        if self.place.store.is_some() {
            return None;
        }
        match setup::load(&self.place.config, masks) {
            Ok(config) => Some(config),
            Err(failure) => {
                print::problem(&format!(
                    "{failure}\nThe stages are not shown, because this configuration cannot be used.\n"
                ));
                None
            }
        }
    }

    fn entry(
        &self,
        found: &FoundEntry,
        inspector: &Inspector,
        surroundings: &Surroundings<'_>,
        replayer: Option<&Replayer>,
    ) -> Result<Entry, Failure> {
        let mut entry = Entry::new(found, inspector, surroundings)?;
        if self.documents {
            entry.show_payload(found);
        }
        if let Some(replayer) = replayer {
            for pipeline in &mut entry.pipelines {
                replayer.replay(found, pipeline, inspector, self.documents)?;
            }
        }
        Ok(entry)
    }
}
