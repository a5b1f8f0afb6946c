//! `lockgate store`: the store as a whole.

mod backup;
mod repair;
mod verify;

use clap::Subcommand;
use lockgate_observe::Masks;
use lockgate_store::Integrity;

use crate::failure::Failure;

#[derive(Debug, Subcommand)]
pub(crate) enum Store {
    /// Read everything in the store and compute every checksum again, whether or not a
    /// host runs. Exits with status 1 if anything is damaged.
    Verify(verify::Verify),
    /// Write a consistent copy of the store to a new file and verify the copy, whether or
    /// not a host runs.
    Backup(backup::Backup),
    /// Read the events of damaged and missing blocks from Teleport again, or give them up as dead
    /// letters, so that pipelines go on behind them. The host must not run.
    ///
    /// A block is restored only if the result has the block's old checksum. If neither the block
    /// nor a commit has a checksum left, Teleport must have exactly as many events of its days as
    /// are missing. If the row or the filter of a block is damaged, but not its events, it is
    /// corrected without Teleport. Of session recordings, only those that the block or its filter
    /// names are read again, at most 16; Teleport writes an event for each.
    Repair(repair::Repair),
}

pub(crate) fn run(command: &Store, masks: &Masks) -> Result<(), Failure> {
    match command {
        Store::Verify(command) => verify::run(command),
        Store::Backup(command) => backup::run(command),
        Store::Repair(command) => repair::run(command, masks),
    }
}

const BACKUP_HINT: &str = "restore a backup: `lockgate store repair` repairs only blocks and \
                           their filters";

/// If the integrity is not perfect: what is damaged, as a failure with this hint.
fn problems(what: &str, integrity: &Integrity, hint: &str) -> Result<(), Failure> {
    let mut lines: Vec<&str> = integrity.problems.iter().map(String::as_str).collect();
    lines.dedup();
    if lines.is_empty() {
        return Ok(());
    }
    let places: String = lines.iter().map(|line| format!("\n  {line}")).collect();
    Err(Failure::failed(format!("{what} is damaged:{places}")).hint(hint))
}

/// `3 blocks with 1200 events, 7 commits and 0 operations on dead letters`
fn checked(integrity: &Integrity) -> String {
    let count = |number: u64, noun: &str| match number {
        1 => format!("1 {noun}"),
        _ => format!("{number} {noun}s"),
    };
    let without_filter = match integrity.without_filter {
        0 => String::new(),
        number => format!(
            "; {} without a filter, which the host adds when it is idle",
            count(number, "block")
        ),
    };
    format!(
        "{} with {}, {}, and {} on dead letters{without_filter}",
        count(integrity.blocks, "block"),
        count(integrity.events, "event"),
        count(integrity.commits, "commit"),
        count(integrity.letter_operations, "operation"),
    )
}
