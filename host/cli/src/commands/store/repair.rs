//! `lockgate store repair`.

use std::collections::BTreeMap;

use clap::Args;
use lockgate_config::{Config, Source};
use lockgate_model::{Block, FeedKind, Millis, Seq};
use lockgate_observe::Masks;
use lockgate_service::RecordingsAgain;
use lockgate_store::{DamagedBlock, Ledger, OpenError, Options, Retention, Store};
use tokio::runtime::Runtime;

use crate::failure::Failure;
use crate::place::Place;
use crate::{commands, print, setup};

/// Teleport writes an event for each recording that is opened.
const RECORDINGS_TRIED: usize = 16;

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
    let mut repair = Repairing {
        runtime: commands::tokio_runtime()?,
        store,
        config,
        unreadable: BTreeMap::new(),
        recordings: BTreeMap::new(),
        earliest: 0,
    };
    let integrity = repair.store.reads().integrity().map_err(Failure::failed)?;
    let times = integrity.damaged.iter().map(|block| block.times.0);
    repair.earliest = times.min().unwrap_or_default();
    for (stream, first) in &integrity.damaged_filters {
        let what = match repair.mend(stream, *first)? {
            true => "was made again from its events",
            false => "is as it was, because its events cannot be read",
        };
        let line = format!("The filter of the block from entry {first} of `{stream}` {what}.\n");
        print::data(&line)?;
    }
    if integrity.damaged.is_empty() && integrity.damaged_filters.is_empty() {
        print::problem("No block is damaged or missing.");
    }
    let mut left = 0;
    for block in &integrity.damaged {
        let place = format!(
            "Entries {} to {} of `{}`",
            block.entries.start,
            block.entries.end - 1,
            block.stream
        );
        if repair.mend(&block.stream, block.entries.start)? {
            let what = "their events are as they were, and the row of their block was corrected";
            print::data(&format!("{place}: {what}.\n"))?;
            continue;
        }
        match repair.restore(block, &place) {
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
    // Of other things than blocks: those need a backup.
    let integrity = repair.store.reads().integrity().map_err(Failure::failed)?;
    let others = match left == 0 && !command.write_off {
        true => super::problems("The store", &integrity, super::BACKUP_HINT),
        false => Ok(()),
    };
    let Repairing { runtime, store, .. } = repair;
    runtime.block_on(store.close()).map_err(Failure::failed)?;
    match left {
        0 => others,
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
    /// Sources that could not be read, and why: they are not tried for each block.
    unreadable: BTreeMap<String, String>,
    /// By source.
    recordings: BTreeMap<String, RecordingsAgain>,
    /// No event of a damaged block is earlier.
    earliest: Millis,
}

impl Repairing {
    /// Corrects what is damaged of a block besides its events. False if that is not enough.
    fn mend(&self, stream: &str, first: Seq) -> Result<bool, Failure> {
        let mended = self.runtime.block_on(self.store.mend(stream, first));
        mended.map_err(Failure::failed)
    }

    /// Reads the events of a block again. The error: why it is not restored.
    fn restore(&mut self, block: &DamagedBlock, place: &str) -> Result<(), String> {
        let (source, feed) = self.source(&block.stream)?;
        let source = source.clone();
        if let Some(why) = self.unreadable.get(&source.name) {
            return Err(why.clone());
        }
        print::problem(&format!(
            "{place}: reading them from Teleport again, for at most {} minutes; no host can use \
             the store meanwhile.",
            lockgate_service::READ_AGAIN_MAX.as_secs() / 60
        ));
        if feed == FeedKind::Sessions {
            return self.restore_recording(&source, block);
        }
        let (from, to) = block.times;
        let events = lockgate_service::read_again(&source, from, to);
        let events = self.runtime.block_on(events);
        let events = events.map_err(|error| self.log_is_unreadable(&source, &error))?;
        self.put_back(block, events)
    }

    /// A block has events of one recording. What is left of it may say of which.
    fn restore_recording(&mut self, source: &Source, block: &DamagedBlock) -> Result<(), String> {
        let sessions = self.store.reads().damaged_sessions(block);
        let sessions = sessions.map_err(|error| error.to_string())?;
        let named = sessions.named.clone().unwrap_or_default();
        let mut why = None;
        if !named.is_empty() {
            match self.put_back_recordings(source, block, &named) {
                Ok(()) => return Ok(()),
                Err(error) => why = Some(error),
            }
        }
        let (runtime, recordings) = self.recordings(source);
        let recorded = runtime.block_on(recordings.announced_since(block.times.0));
        let recorded = recorded.map_err(|error| self.log_is_unreadable(source, &error))?;
        let others = recorded.into_iter();
        let others = others.filter(|sid| sessions.may_have(sid) && !named.contains(sid));
        let others: Vec<String> = others.collect();
        if others.len() > RECORDINGS_TRIED {
            return Err(why.unwrap_or_else(|| {
                format!(
                    "nothing says to which of {} recordings they belong, and at most \
                     {RECORDINGS_TRIED} are tried",
                    others.len()
                )
            }));
        }
        for sid in others {
            match self.put_back_recordings(source, block, &[sid]) {
                Ok(()) => return Ok(()),
                Err(error) => why = why.or(Some(error)),
            }
        }
        let none = "Teleport has announced no recording that they can belong to";
        Err(why.unwrap_or_else(|| none.to_owned()))
    }

    /// The recordings of a source.
    fn recordings(&mut self, source: &Source) -> (&Runtime, &mut RecordingsAgain) {
        let recordings = self.recordings.entry(source.name.clone());
        let recordings = recordings.or_insert_with(|| RecordingsAgain::new(source, self.earliest));
        (&self.runtime, recordings)
    }

    fn put_back_recordings(
        &mut self,
        source: &Source,
        block: &DamagedBlock,
        sessions: &[String],
    ) -> Result<(), String> {
        let (runtime, recordings) = self.recordings(source);
        let events = runtime.block_on(recordings.events(sessions, block.times))?;
        self.put_back(block, events)
    }

    fn put_back(&self, block: &DamagedBlock, events: Block) -> Result<(), String> {
        let (stream, first) = (&block.stream, block.entries.start);
        let restored = self.store.restore(stream, first, events);
        let restored = self.runtime.block_on(restored);
        restored.map_err(|error| error.to_string())
    }

    /// It is not tried again for the next block.
    fn log_is_unreadable(&mut self, source: &Source, error: &str) -> String {
        let why = format!("Teleport's audit log cannot be read: {error}");
        self.unreadable.insert(source.name.clone(), why.clone());
        why
    }

    fn source(&self, stream: &str) -> Result<(&Source, FeedKind), String> {
        let Some(config) = &self.config else {
            return Err("without a configuration file, nothing says where to read them".to_owned());
        };
        let (source, feed) = stream.rsplit_once('/').unwrap_or((stream, ""));
        let feed = match feed == FeedKind::Sessions.name() {
            true => FeedKind::Sessions,
            false => FeedKind::Audit,
        };
        let mut sources = config.sources.iter();
        let found = sources.find(|other| other.name == source);
        let found = found.map(|source| (source, feed));
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
