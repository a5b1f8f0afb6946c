//! Folds the oldest commits and operations of a chain into its tallies and an anchor, once their
//! events are gone: the store does not grow with its age.

use std::collections::BTreeSet;

use super::{Fault, Writer};
use crate::anchors::{self, Anchor};
use crate::error::ReadError;
use crate::links::{self, Link, Links};
use crate::schema::Checksum;
use crate::tallies::{self, Columns, Counts};

/// The state of folding.
pub struct Folding {
    /// Blocks that were removed since nothing was left to fold.
    pub removed_blocks: usize,
    /// Passes whose oldest links are not what was written: they are kept as they are.
    damaged: BTreeSet<i64>,
}

impl Default for Folding {
    fn default() -> Folding {
        Folding {
            // The links that an earlier run left are looked at once.
            removed_blocks: 1,
            damaged: BTreeSet::new(),
        }
    }
}

impl Writer {
    /// Whether so many blocks were removed that links may be due.
    pub fn is_fold_due(&self, blocks: usize) -> bool {
        self.folding.removed_blocks >= blocks
    }

    /// Folds one run of links, if there is one that is due. False if there is none.
    pub fn fold(&mut self) -> Result<bool, Fault> {
        for index in 0..self.epochs.len() {
            if self.fold_epoch(index)? {
                return Ok(true);
            }
        }
        self.folding.removed_blocks = 0;
        Ok(false)
    }

    fn fold_epoch(&mut self, index: usize) -> Result<bool, Fault> {
        let epoch = &self.epochs[index].row;
        if self.folding.damaged.contains(&epoch.id) {
            return Ok(false);
        }
        let stream = &self.streams[self.epochs[index].stream].row;
        let (anchor, checksum) = anchors::newest(&self.connection, epoch)?
            .unwrap_or_else(|| (Anchor::of_nothing(epoch), [0; 32]));
        let mut due = Vec::new();
        let mut links = Links::after(
            &self.connection,
            epoch.id,
            anchor.last_commit,
            anchor.last_operation,
        )?;
        while due.len() < self.options.fold_links {
            match links.next(&self.connection)? {
                Some(Link::Commit(row)) if row.range.end > stream.oldest => return Ok(false),
                Some(link) => due.push(link),
                None => return Ok(false),
            }
        }
        match self.folded(index, anchor, &due) {
            Ok((anchor, counts, changes)) => {
                self.write_fold(index, anchor, checksum, &counts, &changes)?;
                Ok(true)
            }
            Err(what) => {
                let epoch = &self.epochs[index].row;
                tracing::error!(
                    pipeline = %epoch.pipeline, stream = %epoch.progress.stream, %what,
                    "the oldest commits are not what was written, so they are kept and not folded: \
                     the store grows. `lockgate audit` shows what else is damaged"
                );
                self.folding.damaged.insert(epoch.id);
                Ok(false)
            }
        }
    }

    /// The anchor after these links, which are verified: what is removed can never be verified
    /// again. `Err`: what is not as it was written.
    fn folded<'a>(
        &self,
        index: usize,
        mut anchor: Anchor,
        due: &'a [Link],
    ) -> Result<(Anchor, Counts, Vec<&'a Link>), String> {
        let epoch = &self.epochs[index].row;
        let stream = &self.streams[self.epochs[index].stream].row;
        let mut counts = Counts::default();
        let mut with_letters = Vec::new();
        for link in due {
            let generation = (epoch.pipeline.clone(), link.generation());
            let generation = self.generations.get(&generation);
            let generation = generation.ok_or("a generation is gone")?;
            let hash = link.hash(
                &anchor.hash,
                &epoch.pipeline,
                &stream.name,
                epoch.epoch,
                generation,
            );
            let place = match link {
                Link::Commit(row) => {
                    format!(
                        "the commit for entries {}..{}",
                        row.range.start, row.range.end
                    )
                }
                Link::Operation(row) => format!("the operation {} on dead letters", row.id),
            };
            if hash != *link.stored_hash() {
                return Err(format!("{place}: its hash differs"));
            }
            anchor.hash = hash;
            anchor.links += 1;
            match link {
                Link::Commit(row) => {
                    anchor.commits += 1;
                    anchor.last_commit = row.id;
                    links::finish(&mut anchor.progress, &row.range, stream.next)
                        .map_err(|what| format!("{place}: {what}"))?;
                    if !row.dead.is_empty() {
                        with_letters.push(link);
                    }
                }
                Link::Operation(row) => {
                    anchor.last_operation = row.id;
                    with_letters.push(link);
                }
            }
            link.tally(&mut counts)
                .map_err(|what| format!("{place}: {what}"))?;
        }
        Ok((anchor, counts, with_letters))
    }

    fn write_fold(
        &mut self,
        index: usize,
        mut anchor: Anchor,
        previous: Checksum,
        counts: &Counts,
        with_letters: &[&Link],
    ) -> Result<(), Fault> {
        // Counts of this transaction stand in memory: without them, a reason may lack its row.
        self.write_tallies()?;
        let epoch_id = self.epochs[index].row.id;
        let connection = &self.connection;
        for link in with_letters {
            let changes = link.letters().map_err(ReadError::Damaged)?;
            anchors::fold_letters(connection, epoch_id, &changes, &mut anchor.letters)?;
        }
        tallies::add(connection, epoch_id, counts, Columns::Folded)?;
        anchor.tallies = tallies::folded_digest(&tallies::sound_rows(connection, epoch_id)?);
        anchor.at = (self.clock)();
        anchor.insert(connection, epoch_id, &previous)?;
        for (sql, last) in [
            (
                "DELETE FROM commits WHERE epoch_id = ?1 AND id <= ?2",
                anchor.last_commit,
            ),
            (
                "DELETE FROM letter_operations WHERE epoch_id = ?1 AND id <= ?2",
                anchor.last_operation,
            ),
        ] {
            connection.prepare_cached(sql)?.execute((epoch_id, last))?;
        }
        Ok(())
    }
}
