//! Documents become final, and entries are committed.

use std::sync::Arc;

use lockgate_model::{
    Batch, BatchRecord, Commit, Entries, Fate, RequestRecord, StateMap, StateWrite, ranges,
};

use crate::Uptime;
use crate::batches::Phase;
use crate::brake::Engaged;
use crate::delivery::History;
use crate::documents::Documents;
use crate::index::{BatchId, DocumentIndex, EntryIndex};
use crate::io::Action;
use crate::limits::{BRAKE_BACKOFF, SHRINKS_TO_ONE_OF};
use crate::pipeline::Pipeline;
use crate::settings::StageSettings;

impl Pipeline {
    /// The sink rejected documents, when it encoded them or by a response. They are encoded again
    /// later if the brake holds.
    pub(crate) fn reject(
        &mut self,
        now: Uptime,
        batch: BatchId,
        rejected: Vec<(DocumentIndex, String)>,
    ) {
        let mut braked: Option<(Vec<DocumentIndex>, Engaged, String)> = None;
        let cause = self.settings.sink.label.to_string();
        for (document, reason) in rejected {
            if let Err(engaged) = self.dead_letter(now, batch, document, &cause, &reason) {
                let (documents, ..) = braked.get_or_insert((Vec::new(), engaged, reason));
                documents.push(document);
            }
        }
        if let Some((documents, engaged, reason)) = braked {
            let hold = self.braked(now, cause, engaged, &reason, BRAKE_BACKOFF);
            self.encode_later(batch, documents, History::default(), hold);
        }
    }

    /// Makes a document a dead letter, unless the brake holds.
    pub(crate) fn dead_letter(
        &mut self,
        now: Uptime,
        id: BatchId,
        document: DocumentIndex,
        cause: &str,
        reason: &str,
    ) -> Result<(), Engaged> {
        let Some(batch) = self.batches.get_mut(&id) else {
            return Ok(());
        };
        let Phase::Delivering { documents, fates } = &mut batch.phase else {
            return Ok(());
        };
        let entry = documents.entry(document);
        // Several documents of one event are one dead letter.
        if fates.death(entry).is_none() {
            let bytes = self.dead_bytes + payload_len(documents, entry);
            if documents.seq(entry) >= self.released[batch.stream.get()] {
                self.brake.check(cause, bytes, &self.settings.brake)?;
            }
            self.brake.died(cause);
            self.dead_bytes = bytes;
        }
        fates.settle(documents, document, cause, Fate::Dead(reason.to_owned()));
        self.restart_stall_timer(now);
        Ok(())
    }

    pub(crate) fn delivered(&mut self, now: Uptime, id: BatchId, delivered: &[DocumentIndex]) {
        let label = self.settings.sink.label.clone();
        let Some(batch) = self.batches.get_mut(&id) else {
            return;
        };
        if let Phase::Delivering { documents, fates } = &mut batch.phase {
            let passed = delivered
                .iter()
                .filter(|&&document| fates.settle(documents, document, &label, Fate::Delivered))
                .count();
            self.brake.passed(&label, passed as u32);
        }
        if !delivered.is_empty() {
            self.restart_stall_timer(now);
        }
    }

    /// Commits finished batches, and the final entries of batches that are held up, which a restart
    /// would send again. Shrinks the other parked ones.
    pub(crate) fn commit_or_shrink(&mut self, actions: &mut Vec<Action>) {
        // State of a batch builds on that of the batch before, and commits with it as a whole.
        let in_order = self.settings.uses_state();
        let ids: Vec<BatchId> = self.batches.keys().copied().collect();
        for id in ids {
            if self.is_finished_batch(id) {
                self.commit_batch(id, actions);
            } else if !in_order && self.is_held_up(id) {
                self.commit_entries(id, actions);
            } else {
                self.shrink(id, actions);
            }
            if in_order {
                break;
            }
        }
    }

    fn is_finished_batch(&self, id: BatchId) -> bool {
        self.batches.get(&id).is_some_and(|batch| {
            let Phase::Delivering { fates, .. } = &batch.phase else {
                return false;
            };
            let requests = self.requests.of_batch(id).requests;
            batch.encodings == 0 && requests == 0 && batch.commits == 0 && fates.all_final()
        })
    }

    /// Some of its documents are final, and none of the others is being worked on.
    fn is_held_up(&self, id: BatchId) -> bool {
        self.batches.get(&id).is_some_and(|batch| {
            let Phase::Delivering { fates, .. } = &batch.phase else {
                return false;
            };
            let is_idle = batch.running_encodings == 0 && self.requests.of_batch(id).under_way == 0;
            let endpoint = self.settings.streams[batch.stream.get()].endpoint;
            fates.has_uncommitted()
                && batch.commits == 0
                && is_idle
                && (self.is_draining()
                    || self.endpoints[endpoint.get()].open_reason().is_some()
                    || self.is_parked(id, batch))
        })
    }

    /// Lets go of what a batch no longer needs, if few of its documents are left and may wait
    /// for long.
    fn shrink(&mut self, id: BatchId, actions: &mut Vec<Action>) {
        let Some(batch) = self.batches.get(&id) else {
            return;
        };
        let Phase::Delivering { documents, fates } = &batch.phase else {
            return;
        };
        let is_little = fates.open_documents() * SHRINKS_TO_ONE_OF <= documents.rows_in_memory();
        let has_commits = batch.commits > 0 || fates.has_uncommitted();
        let may_shrink = !batch.is_shrunk && !batch.is_redrive;
        if !is_little || has_commits || !may_shrink || !self.is_parked(id, batch) {
            return;
        }
        let Some(batch) = self.batches.get_mut(&id) else {
            return;
        };
        let Phase::Delivering { documents, fates } = &mut batch.phase else {
            return;
        };
        // Work that has just ended may still have them.
        let Some(documents) = Arc::get_mut(documents) else {
            return;
        };
        documents.shrink(|document| fates.is_open(document));
        batch.is_shrunk = true;
        batch.events = Batch::default();
        actions.push(Action::BatchShrunk {
            stream: batch.stream,
            first: batch.first,
            bytes: documents.payload_bytes(),
        });
    }

    fn commit_batch(&mut self, id: BatchId, actions: &mut Vec<Action>) {
        self.commit_entries(id, actions);
        if let Some(batch) = self.batches.get_mut(&id) {
            batch.phase = Phase::Committing;
        }
    }

    fn commit_entries(&mut self, id: BatchId, actions: &mut Vec<Action>) {
        let Some(batch) = self.batches.get_mut(&id) else {
            return;
        };
        let Phase::Delivering { documents, fates } = &mut batch.phase else {
            return;
        };
        for finished in fates.take_final(documents, batch.is_redrive) {
            let carried = |record: &&RequestRecord| record.carried_any(&finished.entries);
            let requests = batch.records.iter().filter(carried).cloned().collect();
            let commit = Commit {
                pipeline: self.settings.pipeline.clone(),
                stream: self.settings.streams[batch.stream.get()].name.clone(),
                epoch: self.settings.epoch,
                generation: batch.generation,
                entries: finished.entries,
                outcomes: finished.outcomes,
                reasons: finished.reasons,
                days: finished.days,
                batch: BatchRecord {
                    id: batch.context.id.to_string(),
                    at: 0,
                    requests,
                },
                dead: finished.dead,
                state: state_writes(&self.settings.stages, std::mem::take(&mut batch.state)),
                brake: self.brake.text(),
            };
            batch.commits += 1;
            actions.push(Action::Commit {
                batch: id,
                commit: Box::new(commit),
            });
        }
        // A request that was split is part of what happened to each of its entries.
        let open = fates.open(documents).into_iter();
        let open = open.map(|document| documents.seq(documents.entry(document)));
        let open = Entries::Redriven(ranges(open).into_iter().flatten().collect());
        batch.records.retain(|record| record.carried_any(&open));
    }

    pub(crate) fn committed(
        &mut self,
        now: Uptime,
        id: BatchId,
        entries: Entries,
        dead_bytes: u64,
        actions: &mut Vec<Action>,
    ) {
        self.dead_bytes = dead_bytes;
        let Some(batch) = self.batches.get_mut(&id) else {
            return;
        };
        batch.commits -= 1;
        if let Entries::Range(range) = entries {
            self.streams[batch.stream.get()].finished.finish(range);
        }
        if batch.commits == 0 && matches!(batch.phase, Phase::Committing) {
            actions.push(Action::BatchEnded {
                stream: batch.stream,
                first: batch.first,
                is_redrive: batch.is_redrive,
            });
            self.batches.remove(&id);
        }
        self.restart_stall_timer(now);
    }
}

/// Bytes of the event that an entry stands for.
pub(crate) fn payload_len(documents: &Documents, entry: EntryIndex) -> u64 {
    let payload = documents.original(entry).payload.len();
    documents.raw(entry).map_or(payload, <[u8]>::len) as u64
}

fn state_writes(stages: &[StageSettings], changes: Vec<StateMap>) -> Vec<StateWrite> {
    let mut writes = Vec::new();
    for (stage, changes) in stages.iter().zip(&changes) {
        writes.extend(changes.iter().map(|(key, value)| StateWrite {
            owner: stage.state_owner.clone(),
            key: key.to_owned(),
            value: value.map(str::to_owned),
        }));
    }
    writes
}
