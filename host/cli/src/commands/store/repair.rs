//! `lockgate store repair`.

use clap::Args;
use lockgate_config::{Config, Source};
use lockgate_model::FeedKind;
use lockgate_observe::Masks;
use lockgate_store::{DamagedBlock, Ledger, OpenError, Options, Retention, Store};
use tokio::runtime::Runtime;

use super::Place;
use crate::failure::Failure;
use crate::{commands, print, setup};

#[derive(Debug, Args)]
pub(crate) struct Repair {
    /// Make dead letters of the events that cannot be read again, in every pipeline that has not
    /// finished them. They are on the books, with the reason, and their events are lost to these
    /// pipelines. With `--store` that is all of them: nothing says where to read them.
    #[arg(long)]
    write_off: bool,

    #[command(flatten)]
    place: Place,
}

/// Holds the store itself, because a running pipeline has its progress in memory.
pub(super) fn run(command: &Repair, masks: &Masks) -> Result<(), Failure> {
    let config = match command.place.store {
        Some(_) => None,
        None => Some(setup::load(&command.place.config, masks)?),
    };
    // Only what the configuration says may remove events, and not here.
    let retention = Retention {
        age: None,
        bytes: None,
    };
    let store = Store::open(Options {
        retention,
        ..Options::new(command.place.directory()?)
    });
    let store = store.map_err(|error| match error {
        OpenError::Held { .. } => Failure::failed(error).hint("stop the host first"),
        error => Failure::failed(error),
    })?;
    let repair = Repairing {
        runtime: commands::tokio_runtime()?,
        store,
        config,
    };
    let integrity = repair.store.reads().integrity().map_err(Failure::failed)?;
    if integrity.damaged.is_empty() {
        print::problem("No block is damaged.");
    }
    let mut left = 0;
    for block in &integrity.damaged {
        let place = format!(
            "Entries {} to {} of `{}`",
            block.entries.start,
            block.entries.end - 1,
            block.stream
        );
        match repair.restore(block) {
            Ok(()) => print::data(&format!("{place}: restored from Teleport.\n"))?,
            Err(why) if command.write_off => {
                print::problem(&format!("{place} are not restored: {why}."));
                let letters = repair.write_off(block)?;
                print::data(&format!("{place}: {letters}.\n"))?;
            }
            Err(why) => {
                left += 1;
                print::problem(&format!("{place} are not restored: {why}."));
            }
        }
    }
    let Repairing { runtime, store, .. } = repair;
    runtime.block_on(store.close()).map_err(Failure::failed)?;
    match left {
        0 => Ok(()),
        _ => Err(Failure::failed(format!(
            "{left} of {} damaged blocks are as they were.",
            integrity.damaged.len()
        ))
        .hint(
            "restore a backup; or use `--write-off`, which makes dead letters of their events: \
             these are lost to the pipelines that have not finished them",
        )),
    }
}

struct Repairing {
    runtime: Runtime,
    store: Store,
    config: Option<Config>,
}

impl Repairing {
    /// Reads the events of a block again. The error: why it is not restored.
    fn restore(&self, block: &DamagedBlock) -> Result<(), String> {
        let source = self.source(&block.stream)?;
        let (from, to) = block.times;
        let (stream, first) = (&block.stream, block.entries.start);
        self.runtime.block_on(async {
            let events = lockgate_service::read_again(source, from, to).await;
            let events =
                events.map_err(|error| format!("Teleport's audit log cannot be read: {error}"))?;
            let restored = self.store.restore(stream, first, events).await;
            restored.map_err(|error| error.to_string())
        })
    }

    fn source(&self, stream: &str) -> Result<&Source, String> {
        let Some(config) = &self.config else {
            return Err("without a configuration file, nothing says where to read them".to_owned());
        };
        let source = match stream.rsplit_once('/') {
            Some((source, feed)) if feed == FeedKind::Audit.name() => source,
            _ => return Err("session recordings are not read again".to_owned()),
        };
        let mut sources = config.sources.iter();
        let found = sources.find(|other| other.name == source);
        found.ok_or_else(|| format!("the configuration has no source `{source}`"))
    }

    /// Answers what became of the entries.
    fn write_off(&self, block: &DamagedBlock) -> Result<String, Failure> {
        let (stream, first) = (&block.stream, block.entries.start);
        let written_off = self.store.write_off(stream, first, setup::now());
        let count = self
            .runtime
            .block_on(written_off)
            .map_err(Failure::failed)?;
        Ok(match count {
            0 => "no pipeline needs it any more".to_owned(),
            1 => "1 dead letter".to_owned(),
            _ => format!("{count} dead letters"),
        })
    }
}
