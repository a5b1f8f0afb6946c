//! Dead letters of the ledger in memory.

use std::sync::Arc;

use lockgate_model::{DeadLetter, Millis, Redrive, Seq};

use super::core::{MemoryCore, Pipeline};
use super::epoch::{Epoch, Letter};
use crate::limits::LETTERS_PER_OPERATION;
use crate::{KeptLetter, LedgerError, LetterCounts, LetterId, LetterQuery, check_seqs};

impl MemoryCore {
    /// See [`DeadLetters::dead_letters`](crate::DeadLetters::dead_letters).
    pub fn dead_letters(&self, query: &LetterQuery) -> Vec<KeptLetter> {
        let epochs = self.pipelines.iter().flat_map(|(name, pipeline)| {
            let epochs = pipeline.epochs.iter();
            epochs.map(move |(stream, epoch)| (name, pipeline, stream, epoch))
        });
        let mut found: Vec<KeptLetter> = epochs
            .flat_map(|(name, pipeline, stream, epoch)| {
                let letters = epoch.letters.values().filter(|letter| !letter.waits);
                letters.map(move |letter| self.kept(name, pipeline, stream, letter))
            })
            .filter(|kept| query.matches(kept))
            .collect();
        found.sort_by_key(|kept| std::cmp::Reverse(kept.id));
        found.truncate(query.limit);
        found
    }

    /// See [`DeadLetters::dead_letter`](crate::DeadLetters::dead_letter).
    pub fn dead_letter(&self, pipeline: &str, stream: &str, seq: Seq) -> Option<KeptLetter> {
        let (name, pipeline) = self.pipelines.get_key_value(pipeline)?;
        let (stream, epoch) = pipeline.epochs.get_key_value(stream)?;
        let letter = epoch.letters.get(&seq).filter(|letter| !letter.waits)?;
        Some(self.kept(name, pipeline, stream, letter))
    }

    /// See [`DeadLetters::retry`](crate::DeadLetters::retry).
    pub fn retry(&mut self, pipeline: &str, stream: &str, seqs: &[Seq]) -> Result<(), LedgerError> {
        let epoch = self.dead(pipeline, stream, seqs)?;
        if !epoch.active {
            return Err(LedgerError::NotRead {
                pipeline: pipeline.to_owned(),
                stream: stream.to_owned(),
            });
        }
        epoch.retry(seqs);
        Ok(())
    }

    /// See [`DeadLetters::drop_letters`](crate::DeadLetters::drop_letters).
    pub fn drop_letters(
        &mut self,
        pipeline: &str,
        stream: &str,
        seqs: &[Seq],
    ) -> Result<(), LedgerError> {
        self.dead(pipeline, stream, seqs)?.drop_letters(seqs);
        Ok(())
    }

    /// See [`DeadLetters::expire_letters`](crate::DeadLetters::expire_letters).
    pub fn expire_letters(&mut self, pipeline: &str, before: Millis) -> Result<u64, LedgerError> {
        let Some(found) = self.pipelines.get_mut(pipeline) else {
            return Err(LedgerError::Unknown(format!("pipeline `{pipeline}`")));
        };
        let epochs = found.epochs.values_mut();
        Ok(epochs
            .map(|epoch| epoch.expire_letters(before, LETTERS_PER_OPERATION))
            .sum())
    }

    /// See [`DeadLetters::letter_counts`](crate::DeadLetters::letter_counts).
    pub fn letter_counts(&self, pipeline: &str) -> Result<LetterCounts, LedgerError> {
        let Some(found) = self.pipelines.get(pipeline) else {
            return Err(LedgerError::Unknown(format!("pipeline `{pipeline}`")));
        };
        let mut counts = LetterCounts::default();
        for own in found.epochs.values().map(Epoch::letter_counts) {
            counts.retried += own.retried;
            counts.dropped += own.dropped;
            counts.expired += own.expired;
        }
        Ok(counts)
    }

    /// See [`Ledger::dead_bytes`](crate::Ledger::dead_bytes).
    pub fn dead_bytes(&self, pipeline: &str) -> u64 {
        self.pipelines.get(pipeline).map_or(0, Pipeline::dead_bytes)
    }

    /// See [`Ledger::redrive`](crate::Ledger::redrive).
    pub fn redrive(
        &self,
        pipeline: &str,
        stream: &str,
        events: usize,
        bytes: usize,
    ) -> Option<Redrive> {
        let (name, pipeline) = self.pipelines.get_key_value(pipeline)?;
        let (stream, epoch) = pipeline.epochs.get_key_value(stream)?;
        let mut size = 0;
        let letters: Vec<DeadLetter> = epoch
            .waiting_letters()
            .take_while(|letter| {
                let first = size == 0;
                size += letter.letter.payload.len().max(1);
                first || size <= bytes
            })
            .take(events.max(1))
            .map(|letter| letter.letter.clone())
            .collect();
        let feed = self.streams.get(stream)?.feed;
        (!letters.is_empty()).then(|| Redrive {
            pipeline: name.clone(),
            stream: stream.clone(),
            epoch: pipeline.epoch,
            batch: DeadLetter::batch(stream, feed, &letters),
        })
    }

    fn dead(
        &mut self,
        pipeline: &str,
        stream: &str,
        seqs: &[Seq],
    ) -> Result<&mut Epoch, LedgerError> {
        check_seqs(seqs)?;
        let Some(found) = self.pipelines.get_mut(pipeline) else {
            return Err(LedgerError::Unknown(format!("pipeline `{pipeline}`")));
        };
        let Some(epoch) = found.epochs.get_mut(stream) else {
            return Err(LedgerError::Unknown(format!(
                "stream `{stream}` of the pipeline `{pipeline}`"
            )));
        };
        epoch.check_dead(seqs)?;
        Ok(epoch)
    }

    fn kept(
        &self,
        name: &str,
        pipeline: &Pipeline,
        stream: &Arc<str>,
        letter: &Letter,
    ) -> KeptLetter {
        KeptLetter {
            id: LetterId(letter.id),
            pipeline: name.to_owned(),
            stream: stream.to_string(),
            feed: self.streams[stream].feed,
            epoch: pipeline.epoch,
            generation: letter.generation,
            at: letter.at,
            letter: letter.letter.clone(),
        }
    }
}
