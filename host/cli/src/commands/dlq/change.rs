//! `retry` and `drop`: the same selection, two fates.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufRead, IsTerminal};

use clap::Args;
use lockgate_ledger::limits::LETTERS_PER_OPERATION;
use lockgate_model::Seq;
use lockgate_store::Inspector;

use super::address::Address;
use super::fate::not_a_letter;
use super::holder::{Action, Holder};
use super::letters;
use super::select::{self, Filter, Found};
use crate::failure::{Failure, FailureKind};
use crate::place::Place;
use crate::{print, setup};

#[derive(Debug, Args)]
pub(crate) struct Selection {
    /// As `lockgate dlq list` prints them, such as `siem/teleport/audit/1234`.
    #[arg(value_name = "DEAD_LETTER")]
    addresses: Vec<Address>,

    /// All of them.
    #[arg(long)]
    all: bool,

    #[command(flatten)]
    filter: Filter,

    #[command(flatten)]
    place: Place,
}

#[derive(Debug, Args)]
pub(crate) struct Retry {
    #[command(flatten)]
    selection: Selection,
}

#[derive(Debug, Args)]
pub(crate) struct Drop {
    #[command(flatten)]
    selection: Selection,

    /// Do not ask. Required if standard input is not a terminal.
    #[arg(long)]
    yes: bool,
}

pub(crate) fn retry(command: &Retry) -> Result<(), Failure> {
    let selected = command.selection.read()?;
    let changed = selected.change(Action::Retry, &command.selection.place)?;
    let when = match (changed.by_host, changed.count) {
        (true, 1) => "is being sent again",
        (true, _) => "are being sent again",
        (false, _) => "will be sent again by the next `lockgate start`",
    };
    changed.report(when)?;
    selected.found.end()
}

pub(crate) fn drop(command: &Drop) -> Result<(), Failure> {
    let selected = command.selection.read()?;
    if selected.count > 0 && !command.yes && !confirmed(selected.count)? {
        return print::data("Nothing was dropped.\n");
    }
    let changed = selected.change(Action::Drop, &command.selection.place)?;
    changed.report("dropped")?;
    selected.found.end()
}

fn confirmed(count: u64) -> Result<bool, Failure> {
    if !io::stdin().is_terminal() {
        return Err(Failure::usage(format!(
            "This would drop {} for good. Nothing was dropped.",
            letters(count)
        ))
        .hint("use `--yes` if you mean it; `lockgate dlq export` keeps a copy"));
    }
    print::problem(&format!("Drop {} for good? [y/N]", letters(count)));
    let mut answer = String::new();
    io::stdin()
        .lock()
        .read_line(&mut answer)
        .map_err(|error| Failure::failed(format!("The answer cannot be read: {error}.")))?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// The letters that were chosen, by pipeline and stream.
struct Selected {
    groups: BTreeMap<(String, String), BTreeSet<Seq>>,
    count: u64,
    /// Chosen by a filter.
    found: Found,
}

impl Selection {
    fn read(&self) -> Result<Selected, Failure> {
        let ways = [
            !self.addresses.is_empty(),
            self.all,
            !self.filter.is_empty(),
        ];
        match ways.iter().filter(|way| **way).count() {
            0 => {
                return Err(Failure::usage("Which dead letters?").hint(
                    "name them, choose them by a filter such as `--pipeline`, or use `--all`",
                ));
            }
            1 => {}
            _ => {
                return Err(Failure::usage(
                    "Names, filters and `--all` cannot be used together.",
                ));
            }
        }
        let inspector = self.place.inspector()?;
        self.place.check_pipeline(&self.filter, &inspector)?;
        let mut selected = Selected {
            groups: BTreeMap::new(),
            count: 0,
            found: Found::default(),
        };
        if self.addresses.is_empty() {
            self.by_filter(&inspector, &mut selected)?;
        }
        for address in &self.addresses {
            let found = inspector.dead_letter(&address.pipeline, &address.stream, address.seq);
            if found.map_err(Failure::failed)?.is_none() {
                return Err(not_a_letter(&inspector, address));
            }
            selected.add(address.clone());
        }
        Ok(selected)
    }

    fn by_filter(&self, inspector: &Inspector, selected: &mut Selected) -> Result<(), Failure> {
        // Those of an earlier pass over the stream are history: nothing can be done about them.
        let pipelines = inspector.pipelines().map_err(Failure::failed)?;
        let epochs: BTreeMap<_, _> = pipelines
            .iter()
            .map(|pipeline| (pipeline.name.as_str(), pipeline.epoch))
            .collect();
        let query = self.filter.query(setup::now());
        let found = select::each(inspector, query, usize::MAX, |kept| {
            if epochs.get(kept.pipeline.as_str()) == Some(&kept.epoch) {
                selected.add(Address::of(&kept));
            }
            Ok(())
        })?;
        selected.found = found;
        Ok(())
    }
}

impl Selected {
    fn add(&mut self, address: Address) {
        let group = (address.pipeline, address.stream);
        let added = self.groups.entry(group).or_default().insert(address.seq);
        self.count += u64::from(added);
    }

    /// Goes on with the next pipeline or stream if one is refused.
    fn change(&self, action: Action, place: &Place) -> Result<Changed, Failure> {
        let mut changed = Changed::default();
        if self.count == 0 {
            print::problem("No dead letter matches.");
            return Ok(changed);
        }
        let holder = Holder::find(&place.directory()?)?;
        changed.by_host = holder.is_host();
        for ((pipeline, stream), seqs) in &self.groups {
            if action == Action::Retry
                && !changed.by_host
                && let Some(refusal) = place.would_not_run(pipeline)?
            {
                changed.refuse(refusal);
                continue;
            }
            let seqs: Vec<Seq> = seqs.iter().copied().collect();
            for chunk in seqs.chunks(LETTERS_PER_OPERATION) {
                let done = holder.change(action, pipeline, stream, chunk);
                let done = done.map_err(|failure| match changed.count {
                    0 => failure,
                    done => failure.hint(format!(
                        "{} of {} had been changed before this; the command can be run again",
                        done,
                        letters(self.count)
                    )),
                })?;
                if let Err(refusal) = done {
                    changed.refuse(refusal);
                    break;
                }
                changed.count += chunk.len() as u64;
            }
        }
        holder.close()?;
        Ok(changed)
    }
}

/// The fate of the letters that were chosen.
#[derive(Default)]
struct Changed {
    count: u64,
    /// A running host did it.
    by_host: bool,
    /// Why others were not changed: a sentence each.
    refusals: Vec<String>,
}

impl Changed {
    fn refuse(&mut self, why: String) {
        if !self.refusals.contains(&why) {
            self.refusals.push(why);
        }
    }

    fn report(&self, done: &str) -> Result<(), Failure> {
        if self.count > 0 {
            print::data(&format!("{} {done}.\n", letters(self.count)))?;
        }
        if self.refusals.is_empty() {
            Ok(())
        } else {
            Err(Failure::several(FailureKind::Failed, &self.refusals))
        }
    }
}
