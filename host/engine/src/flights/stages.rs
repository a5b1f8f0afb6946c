//! A batch passes the stages: all batches at once, or one after the other where they keep state.

use std::sync::Arc;

use lockgate_model::{Batch, Slice, StateOverlay, StateWrite};

use crate::Uptime;
use crate::delivery::Lineage;
use crate::documents::Documents;
use crate::flights::{Flight, Hold, Phase, payload_len};
use crate::index::{EntryIndex, FlightId};
use crate::io::Action;
use crate::passage::{Passage, Passed, Stop};
use crate::pipeline::Pipeline;

impl Pipeline {
    pub(crate) fn add_flight(&mut self, flight: Flight) {
        let id = FlightId(self.new_id());
        self.flights.insert(id, flight);
    }

    /// Sends queued batches through the stages: all of them, or one at a time where state of one
    /// builds on that of the one before.
    pub(crate) fn pass_queued(&mut self, actions: &mut Vec<Action>) {
        let one_by_one = self.settings.uses_state();
        loop {
            let mut flights = self.flights.iter();
            let passes = |flight: &Flight| matches!(flight.phase, Phase::Passing | Phase::Held);
            if one_by_one && self.flights.values().any(passes) {
                return;
            }
            let queued = flights.find(|(_, flight)| matches!(flight.phase, Phase::Queued));
            match queued.map(|(&id, _)| id) {
                Some(id) => self.pass(id, actions),
                None => return,
            }
        }
    }

    /// A held batch has its turn again.
    pub(crate) fn pass_again(&mut self, id: FlightId, actions: &mut Vec<Action>) {
        if self
            .flights
            .get(&id)
            .is_some_and(|flight| matches!(flight.phase, Phase::Held))
        {
            self.pass(id, actions);
        }
    }

    /// Sends a batch through the stages, from the first.
    pub(crate) fn pass(&mut self, id: FlightId, actions: &mut Vec<Action>) {
        let Some(flight) = self.flights.get_mut(&id) else {
            return;
        };
        flight.phase = Phase::Passing;
        let documents = Documents::new(flight.info.clone(), flight.batch.clone());
        // Writes of the batch before are its own: they commit with it.
        let states = self.states.iter().map(StateOverlay::continued).collect();
        let sink = (
            self.settings.sink.label.clone(),
            self.settings.sink.types.clone(),
        );
        let passage = Passage::new(documents, states, self.settings.cpu_budget, Some(sink));
        let generation = flight.generation;
        actions.push(Action::Pass {
            flight: id,
            generation,
            passage: Box::new(passage),
        });
    }

    pub(crate) fn passed(
        &mut self,
        now: Uptime,
        id: FlightId,
        result: Result<Passed, Stop>,
        actions: &mut Vec<Action>,
    ) {
        let stop = match result {
            Ok(passed) => match self.count_deaths(now, id, &passed) {
                Ok(()) => return self.begin_delivery(id, passed, actions),
                Err(hold) => return self.hold_flight(now, id, hold),
            },
            Err(stop) => stop,
        };
        if let Stop::TooManyDocuments { .. } = stop
            && self.halve(id, actions)
        {
            return;
        }
        let held = self.flights.get(&id).map_or(0, |flight| flight.held);
        let hold = self.hold_for(now, stop, held);
        self.hold_flight(now, id, hold);
    }

    /// The stages' dead letters, as the brake sees them. Nothing is counted where it engages.
    pub(crate) fn count_deaths(
        &mut self,
        now: Uptime,
        id: FlightId,
        passed: &Passed,
    ) -> Result<(), Hold> {
        let Some(flight) = self.flights.get(&id) else {
            return Ok(());
        };
        let Passed {
            documents, fates, ..
        } = passed;
        let mut brake = self.brake.clone();
        let mut dead_bytes = self.dead_bytes;
        let released = self.released[flight.stream.get()];
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
            let Some((cause, _)) = fates.death(entry) else {
                passed_in_a_row += 1;
                continue;
            };
            count_passed(&mut brake, &mut passed_in_a_row);
            dead_bytes += payload_len(documents, entry);
            if documents.seq(entry) >= released
                && let Err(engaged) = brake.check(cause, dead_bytes, &self.settings.brake)
            {
                let (cause, held) = (cause.to_owned(), flight.held);
                return Err(self.braked(now, cause, engaged, held));
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
        id: FlightId,
        passed: Passed,
        actions: &mut Vec<Action>,
    ) {
        let Passed {
            documents,
            fates,
            states,
        } = passed;
        let open = fates.open(&documents);
        let Some(flight) = self.flights.get_mut(&id) else {
            return;
        };
        flight.state = state_writes(&states);
        flight.hold = None;
        flight.held = 0;
        flight.phase = Phase::Delivering {
            documents: Arc::new(documents),
            fates,
        };
        self.states = states;
        if !open.is_empty() {
            self.encode(id, open, Lineage::default(), actions);
        }
    }

    /// Replaces a batch by its halves, one after the other. Not a redrive: its events belong
    /// together in the ledger.
    pub(crate) fn halve(&mut self, id: FlightId, actions: &mut Vec<Action>) -> bool {
        let Some(flight) = self
            .flights
            .get_mut(&id)
            .filter(|flight| !flight.is_redrive)
        else {
            return false;
        };
        let (first, second) = split(&flight.batch);
        let (stream, generation) = (flight.stream, flight.generation);
        flight.batch = first;
        self.put_back(stream, second, generation);
        self.pass(id, actions);
        true
    }
}

fn state_writes(states: &[StateOverlay]) -> Vec<StateWrite> {
    let of_stage = |(stage, state): (usize, &StateOverlay)| {
        let writes = state.writes().iter();
        writes
            .map(|(key, value)| StateWrite {
                stage: stage as u32,
                key: key.clone(),
                value: value.clone(),
            })
            .collect::<Vec<_>>()
    };
    states.iter().enumerate().flat_map(of_stage).collect()
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
