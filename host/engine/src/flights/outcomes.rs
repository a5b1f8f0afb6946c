//! Documents become final, and a batch whose documents all are is committed.

use lockgate_model::{BatchRecord, Commit, Entries, Fate};

use crate::Uptime;
use crate::brake::Engaged;
use crate::delivery::Lineage;
use crate::documents::Documents;
use crate::flights::Phase;
use crate::index::{DocumentIndex, EntryIndex, FlightId};
use crate::io::Action;
use crate::pipeline::Pipeline;

impl Pipeline {
    /// The sink rejected documents, when it encoded them or by a response. They are encoded again
    /// later where the brake holds.
    pub(crate) fn reject(
        &mut self,
        now: Uptime,
        flight: FlightId,
        rejected: Vec<(DocumentIndex, String)>,
    ) {
        let mut braked: Option<(Vec<DocumentIndex>, Engaged)> = None;
        let cause = self.settings.sink.label.to_string();
        for (document, reason) in rejected {
            if let Err(engaged) = self.dead_letter(now, flight, document, &cause, &reason) {
                braked.get_or_insert((Vec::new(), engaged)).0.push(document);
            }
        }
        if let Some((documents, engaged)) = braked {
            let hold = self.braked(now, cause, engaged, 6);
            self.encode_later(flight, documents, Lineage::default(), hold);
        }
    }

    /// Makes a document a dead letter, unless the brake holds.
    pub(crate) fn dead_letter(
        &mut self,
        now: Uptime,
        id: FlightId,
        document: DocumentIndex,
        cause: &str,
        reason: &str,
    ) -> Result<(), Engaged> {
        let Some(flight) = self.flights.get_mut(&id) else {
            return Ok(());
        };
        let Phase::Delivering { documents, fates } = &mut flight.phase else {
            return Ok(());
        };
        let entry = documents.entry(document);
        // Several documents of one event are one dead letter.
        if fates.death(entry).is_none() {
            let bytes = self.dead_bytes + payload_len(documents, entry);
            if documents.seq(entry) >= self.released[flight.stream.get()] {
                self.brake.check(cause, bytes, &self.settings.brake)?;
            }
            self.brake.died(cause);
            self.dead_bytes = bytes;
        }
        fates.settle(documents, document, cause, Fate::Dead(reason.to_owned()));
        self.something_became_final(now);
        Ok(())
    }

    pub(crate) fn delivered(&mut self, now: Uptime, id: FlightId, delivered: &[DocumentIndex]) {
        let label = self.settings.sink.label.clone();
        let Some(flight) = self.flights.get_mut(&id) else {
            return;
        };
        if let Phase::Delivering { documents, fates } = &mut flight.phase {
            for &document in delivered {
                fates.settle(documents, document, &label, Fate::Delivered);
            }
        }
        self.brake.passed(&label, delivered.len() as u32);
        if !delivered.is_empty() {
            self.something_became_final(now);
        }
    }

    pub(crate) fn commit_finished(&mut self, actions: &mut Vec<Action>) {
        // State of a batch builds on that of the batch before.
        let in_order = self.settings.uses_state();
        for (&id, flight) in &mut self.flights {
            let Phase::Delivering { fates, .. } = &flight.phase else {
                if in_order {
                    break;
                }
                continue;
            };
            if flight.encodings > 0 || flight.requests > 0 || !fates.all_final() {
                if in_order {
                    break;
                }
                continue;
            }
            let phase = std::mem::replace(&mut flight.phase, Phase::Committing);
            let Phase::Delivering { documents, fates } = phase else {
                continue;
            };
            let finished = fates.finish(&documents);
            let entries = if flight.is_redrive {
                Entries::Redriven(flight.batch.seqs().collect())
            } else {
                Entries::Range(flight.batch.range())
            };
            let commit = Commit {
                pipeline: self.settings.pipeline.clone(),
                stream: self.settings.streams[flight.stream.get()].name.clone(),
                epoch: self.settings.epoch,
                generation: flight.generation,
                entries,
                outcomes: finished.outcomes,
                reasons: finished.reasons,
                days: finished.days,
                batch: BatchRecord {
                    id: flight.info.id.to_string(),
                    at: 0,
                    requests: std::mem::take(&mut flight.records),
                },
                dead: finished.dead,
                state: std::mem::take(&mut flight.state),
                brake: self.brake.text(),
            };
            actions.push(Action::Commit {
                flight: id,
                commit: Box::new(commit),
            });
            if in_order {
                break;
            }
        }
    }

    pub(crate) fn committed(&mut self, now: Uptime, id: FlightId, dead_bytes: u64) {
        let Some(flight) = self.flights.remove(&id) else {
            return;
        };
        if !flight.is_redrive {
            self.streams[flight.stream.get()]
                .progress
                .finish(flight.batch.range());
        }
        self.dead_bytes = dead_bytes;
        self.something_became_final(now);
    }
}

/// Bytes of the event that an entry stands for.
pub(crate) fn payload_len(documents: &Documents, entry: EntryIndex) -> u64 {
    let payload = documents.original(entry).payload.len();
    documents.raw(entry).map_or(payload, <[u8]>::len) as u64
}
