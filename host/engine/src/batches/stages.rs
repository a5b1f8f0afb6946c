//! A batch passes the stages: all batches at once, or one after the other if they keep state.

use std::sync::Arc;

use lockgate_model::{Batch, Slice, StateOverlay};

use crate::Uptime;
use crate::batches::{BatchInFlight, Hold, Phase, payload_len};
use crate::delivery::History;
use crate::documents::Documents;
use crate::index::{BatchId, EntryIndex};
use crate::io::Action;
use crate::pipeline::{Pipeline, WorkId};
use crate::stage_run::{BatchError, StageOutput, StageRun};

impl Pipeline {
    pub(crate) fn add_batch(&mut self, batch: BatchInFlight) {
        let id = BatchId(self.new_id());
        self.batches.insert(id, batch);
    }

    /// Sends queued batches through the stages: all of them, or one at a time if state of one
    /// builds on that of the one before.
    pub(crate) fn run_queued(&mut self, actions: &mut Vec<Action>) {
        let one_by_one = self.settings.uses_state();
        loop {
            let mut batches = self.batches.iter();
            let passes =
                |batch: &BatchInFlight| matches!(batch.phase, Phase::InStages { .. } | Phase::Held);
            if one_by_one && self.batches.values().any(passes) {
                return;
            }
            let queued = batches.find(|(_, batch)| matches!(batch.phase, Phase::Queued));
            match queued.map(|(&id, _)| id) {
                Some(id) => self.run_stages(id, actions),
                None => return,
            }
        }
    }

    /// A held batch has its turn again.
    pub(crate) fn run_again(&mut self, id: BatchId, actions: &mut Vec<Action>) {
        if self
            .batches
            .get(&id)
            .is_some_and(|batch| matches!(batch.phase, Phase::Held))
        {
            self.run_stages(id, actions);
        }
    }

    /// Sends a batch through the stages, from the first.
    pub(crate) fn run_stages(&mut self, id: BatchId, actions: &mut Vec<Action>) {
        let Some(batch) = self.batches.get_mut(&id) else {
            return;
        };
        batch.phase = Phase::InStages { at_work: None };
        let documents = Documents::new(batch.context.clone(), batch.events.clone());
        // Writes of the batch before are its own: they commit with it.
        let states = self.states.iter().map(StateOverlay::continued).collect();
        let sink = (
            self.settings.sink.label.clone(),
            self.settings.sink.types.clone(),
        );
        let run = StageRun::new(documents, states, self.settings.cpu_budget, Some(sink));
        let generation = batch.generation;
        actions.push(Action::RunStages {
            batch: id,
            generation,
            run: Box::new(run),
        });
    }

    pub(crate) fn stages_ran(
        &mut self,
        now: Uptime,
        id: BatchId,
        result: Result<StageOutput, BatchError>,
        actions: &mut Vec<Action>,
    ) {
        let error = match result {
            Ok(passed) => match self.count_deaths(now, id, &passed) {
                Ok(()) => return self.begin_delivery(id, passed, actions),
                Err(hold) => return self.hold_batch(now, id, hold),
            },
            Err(error) => error,
        };
        if let BatchError::TooMuch { .. } = error
            && self.halve(id, actions)
        {
            return;
        }
        let holds_in_a_row = self
            .batches
            .get(&id)
            .map_or(0, |batch| batch.holds_in_a_row);
        let hold = self.hold_for(now, error, holds_in_a_row);
        self.hold_batch(now, id, hold);
    }

    /// The stages' dead letters, as the brake sees them. Nothing is counted if it engages.
    pub(crate) fn count_deaths(
        &mut self,
        now: Uptime,
        id: BatchId,
        passed: &StageOutput,
    ) -> Result<(), Hold> {
        let Some(batch) = self.batches.get(&id) else {
            return Ok(());
        };
        let StageOutput {
            documents, fates, ..
        } = passed;
        let mut brake = self.brake.clone();
        let mut dead_bytes = self.dead_bytes;
        let released = self.released[batch.stream.get()];
        let mut passed_in_a_row = 0;
        let labels: Vec<Arc<str>> = self
            .settings
            .stages
            .iter()
            .map(|stage| stage.label.clone())
            .collect();
        let count_passed = |brake: &mut crate::brake::Brake, entries: &mut u32| {
            labels
                .iter()
                .for_each(|label| brake.passed(label, *entries));
            *entries = 0;
        };
        for entry in (0..documents.entries()).map(EntryIndex::new) {
            let Some((cause, reason)) = fates.death(entry) else {
                passed_in_a_row += 1;
                continue;
            };
            count_passed(&mut brake, &mut passed_in_a_row);
            dead_bytes += payload_len(documents, entry);
            if documents.seq(entry) >= released
                && let Err(engaged) = brake.check(cause, dead_bytes, &self.settings.brake)
            {
                let (cause, holds_in_a_row) = (cause.to_owned(), batch.holds_in_a_row);
                return Err(self.braked(now, cause, engaged, reason, holds_in_a_row));
            }
            brake.died(cause);
        }
        count_passed(&mut brake, &mut passed_in_a_row);
        self.brake = brake;
        self.dead_bytes = dead_bytes;
        Ok(())
    }

    pub(crate) fn begin_delivery(
        &mut self,
        id: BatchId,
        passed: StageOutput,
        actions: &mut Vec<Action>,
    ) {
        let StageOutput {
            documents,
            fates,
            states,
        } = passed;
        let open = fates.open(&documents);
        let Some(batch) = self.batches.get_mut(&id) else {
            return;
        };
        self.holds.remove(WorkId::Batch(id));
        batch.state = states.iter().map(|state| state.writes().clone()).collect();
        batch.holds_in_a_row = 0;
        batch.phase = Phase::Delivering {
            documents: Arc::new(documents),
            fates,
        };
        self.states = states;
        if !open.is_empty() {
            self.encode(id, open, History::default(), actions);
        }
    }

    /// Replaces a batch by its halves, one after the other, unless it is a single event. Of a
    /// redrive it keeps the first: the ledger has the other events still, and they are in the next
    /// redrive.
    pub(crate) fn halve(&mut self, id: BatchId, actions: &mut Vec<Action>) -> bool {
        let has_halves = |batch: &&mut BatchInFlight| batch.events.len() > 1;
        let Some(batch) = self.batches.get_mut(&id).filter(has_halves) else {
            return false;
        };
        let (first, second) = split(&batch.events);
        if batch.is_redrive {
            batch.events = first;
            self.run_stages(id, actions);
            return true;
        }
        let (stream, generation) = (batch.stream, batch.generation);
        let halves = [&first, &second].map(|half| (half.range().start, half.payload_bytes()));
        actions.push(Action::BatchHalved { stream, halves });
        batch.events = first;
        self.put_back(stream, second, generation);
        self.run_stages(id, actions);
        true
    }
}

fn split(batch: &Batch) -> (Batch, Batch) {
    let mut left = batch.len() / 2;
    let (mut first, mut second) = (Batch::default(), Batch::default());
    for Slice { block, rows } in &batch.slices {
        let middle = rows.start + left.min(rows.len());
        left -= middle - rows.start;
        for (half, rows) in [
            (&mut first, rows.start..middle),
            (&mut second, middle..rows.end),
        ] {
            if !rows.is_empty() {
                half.slices.push(Slice {
                    block: block.clone(),
                    rows,
                });
            }
        }
    }
    (first, second)
}
