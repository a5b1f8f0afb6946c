//! `lockgate dlq`: dead letters, whether or not a host runs.

mod address;
mod change;
mod export;
mod fate;
mod holder;
mod list;
mod release;
mod select;
mod show;

use std::collections::BTreeSet;

use clap::Subcommand;
use jiff::Timestamp;
use lockgate_model::Millis;
use lockgate_store::Inspector;

use crate::failure::Failure;
use crate::place::Place;
use crate::setup;
use select::Filter;

#[derive(Debug, Subcommand)]
pub(crate) enum Dlq {
    /// List dead letters, newest first.
    List(list::List),
    /// Show one dead letter: its event, and why it was not delivered.
    Show(show::Show),
    /// Write dead letters with their original events as JSON, one per line, newest first.
    Export(export::Export),
    /// Send dead letters through their pipeline again.
    Retry(change::Retry),
    /// Remove dead letters for good. They count as dropped from then on.
    Drop(change::Drop),
    /// Let a pipeline dead-letter the documents that it holds back.
    ///
    /// The brake starts counting again, and documents that wait until the receiver accepts another
    /// may be dead-lettered without that. Without a running host, there is nothing to release.
    Release(release::Release),
}

pub(crate) fn run(command: &Dlq) -> Result<(), Failure> {
    match command {
        Dlq::List(command) => list::run(command),
        Dlq::Show(command) => show::run(command),
        Dlq::Export(command) => export::run(command),
        Dlq::Retry(command) => change::retry(command),
        Dlq::Drop(command) => change::drop(command),
        Dlq::Release(command) => release::run(command),
    }
}

impl Place {
    /// The names of the pipelines in the configuration file, if there are any and `pipeline` is not
    /// among them.
    fn others(&self, pipeline: &str) -> Result<Option<BTreeSet<String>>, Failure> {
        if self.store.is_some() {
            return Ok(None);
        }
        let names = setup::pipeline_names(&self.config)?;
        Ok(names.filter(|names| !names.contains(pipeline)))
    }

    /// Why letters of this pipeline would not be sent again by a host that starts with the
    /// configuration file. `None`: they would be, or there is no file.
    fn would_not_run(&self, pipeline: &str) -> Result<Option<String>, Failure> {
        let file = self.config.display();
        Ok(self.others(pipeline)?.map(|_| {
            format!(
                "`{file}` has no pipeline `{pipeline}`, so they would never be sent: configure it \
                 and start the host first, or use `lockgate dlq export`."
            )
        }))
    }

    /// The failure of a command that names a pipeline which the configuration file does not have.
    fn missing(&self, pipeline: &str) -> Result<Option<Failure>, Failure> {
        let file = self.config.display();
        Ok(self.others(pipeline)?.map(|others| {
            let failure = Failure::failed(format!("`{file}` has no pipeline `{pipeline}`."));
            with_names(failure, "its", &others)
        }))
    }

    /// Refuses a filter by a pipeline that exists nowhere: a mistyped name would read as if there
    /// was no dead letter.
    fn check_pipeline(&self, filter: &Filter, inspector: &Inspector) -> Result<(), Failure> {
        let Some(name) = filter.pipeline() else {
            return Ok(());
        };
        let pipelines = inspector.pipelines().map_err(Failure::failed)?;
        let mut names: BTreeSet<String> = pipelines.into_iter().map(|found| found.name).collect();
        names.extend(inspector.not_begun().map_err(Failure::failed)?);
        if names.contains(name) {
            return Ok(());
        }
        let nowhere = match &self.store {
            Some(_) => format!("The store has no pipeline `{name}`."),
            None => match self.others(name)? {
                Some(configured) => {
                    names.extend(configured);
                    let file = self.config.display();
                    format!("Neither the store nor `{file}` has a pipeline `{name}`.")
                }
                None => return Ok(()),
            },
        };
        Err(with_names(Failure::failed(nowhere), "the", &names))
    }
}

/// Lists in a hint what there is. `whose`: the word before `pipelines`.
fn with_names(failure: Failure, whose: &str, names: &BTreeSet<String>) -> Failure {
    let names: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
    match names.as_slice() {
        [] => failure,
        [one] => failure.hint(format!("{whose} only pipeline is {one}")),
        [rest @ .., last] => failure.hint(format!(
            "{whose} pipelines are {} and {last}",
            rest.join(", ")
        )),
    }
}

/// RFC 3339, with milliseconds.
pub(crate) fn rfc3339(at: Millis) -> String {
    match Timestamp::from_millisecond(at) {
        Ok(time) => format!("{time:.3}"),
        // A year that RFC 3339 cannot write.
        Err(_) => format!("{at} ms"),
    }
}

/// `1 dead letter`, `2 dead letters`.
fn letters(count: u64) -> String {
    format!("{count} dead letter{}", if count == 1 { "" } else { "s" })
}
