//! Assertions that hold at any time, and in the end.

use std::collections::BTreeSet;
use std::time::Duration;

use lockgate_engine::{RequestId, SendFailure};
use lockgate_ledger::memory::Recorded;
use lockgate_model::contract::Inspect;
use lockgate_model::request::Response;
use lockgate_model::{Books, Generation};

use crate::plugins;
use crate::receiver::Behaviour;
use crate::simulation::{Carried, PIPELINE, Simulation};

impl Simulation {
    /// The engine hears that documents were taken: it must not send them again.
    fn acknowledge(&mut self, request: RequestId, response: &Response) {
        if !(200..300).contains(&response.status) {
            return;
        }
        let text = std::str::from_utf8(&response.body).unwrap_or("");
        let again: BTreeSet<usize> = text
            .strip_prefix("again ")
            .unwrap_or("")
            .split_whitespace()
            .filter_map(|place| place.parse().ok())
            .collect();
        for (place, (stream, key, _)) in self.out[&request].iter().enumerate() {
            if !again.contains(&place) {
                self.acknowledged.insert((*stream, key.clone()));
                self.brake.passed += 1;
            }
        }
    }

    pub fn is_inspected(&self, response: &Response) -> bool {
        match self.scenario.inspect {
            Inspect::Never => false,
            Inspect::Failures => !(200..300).contains(&response.status),
            Inspect::Always => true,
        }
    }

    /// The engine draws its conclusions from an answer.
    pub fn judge(&mut self, request: RequestId, answer: Result<&Response, &SendFailure>) {
        let carried = &self.out[&request];
        for (stream, key, _) in carried {
            self.in_flight.remove(&(*stream, key.clone()));
        }
        let endpoint = self.endpoint_of(carried[0].0);
        self.answers_seen
            .observe(self.now, endpoint, carried, answer);
        self.sending.judged(request);
        let is_accepted = answer.is_ok_and(|response| (200..300).contains(&response.status));
        let may_be_given_up = |(stream, key, seq): &Carried| {
            let (seen, now) = (&self.answers_seen, self.now);
            seen.may_be_given_up(now, endpoint, *stream, *seq, key)
        };
        if is_accepted || self.out[&request].iter().any(may_be_given_up) {
            self.progressed();
        }
        if let Ok(response) = answer {
            self.acknowledge(request, response);
            if is_accepted {
                self.sending.accepted(endpoint);
            } else if let Some(wait) = response.retry_after {
                let until = self.now + Duration::from_millis(wait);
                self.sending.wait(endpoint, until);
            }
        }
    }

    /// No acknowledged document waits for the next start, which would send it again. A batch that
    /// changes state commits as a whole.
    pub fn check_acknowledged(&self) {
        if self.scenario.with_state {
            return;
        }
        for index in 0..self.scenario.feeds.len() {
            let name = self.stream(index);
            for seq in 1..self.core.next(&name) {
                let outcomes = self.core.outcomes(PIPELINE, &name, seq);
                if !matches!(outcomes.last(), None | Some(Recorded::Retried)) {
                    continue;
                }
                let block = self.core.block_at(&name, seq).expect("nothing is removed");
                let event = block.view((seq - block.first_seq) as usize);
                let is_known = |key: String| self.acknowledged.contains(&(index, key));
                let is_delivered = if event.event_type == plugins::THREE {
                    (0..3).all(|ordinal| is_known(format!("{}#{ordinal}", event.key)))
                } else {
                    is_known(event.key.to_owned())
                };
                assert!(!is_delivered, "{} is delivered, and waits", event.key);
            }
        }
    }

    /// read = delivered + dropped + dead + waiting, by recount.
    pub fn check_books(&self) {
        for (stream, books) in self.core.books(PIPELINE) {
            assert!(books.balance(), "{stream}: {books:?}");
        }
    }

    pub fn waiting(&self) -> u64 {
        self.books().map(|books| books.waiting).sum()
    }

    pub fn delivered(&self) -> u64 {
        self.books().map(|books| books.delivered).sum()
    }

    pub fn books(&self) -> impl Iterator<Item = Books> {
        let books = self.core.books(PIPELINE).into_iter();
        books.map(|(_, books)| books)
    }

    /// Assertions that hold when everything is final.
    pub fn check_end(&self) {
        self.check_books();
        let mut dead_good = 0;
        for index in 0..self.scenario.feeds.len() {
            let name = self.stream(index);
            for seq in 1..self.core.next(&name) {
                let block = self.core.block_at(&name, seq).expect("nothing is removed");
                let row = (seq - block.first_seq) as usize;
                let event = block.view(row);
                let recorded = self.core.outcomes(PIPELINE, &name, seq);
                let last = recorded.last().expect("it is final");
                let taken = |key: &str| self.ever_taken.contains(&(index, key.to_owned()));
                match last {
                    Recorded::Delivered if event.event_type == plugins::THREE => {
                        for ordinal in 0..3 {
                            let key = format!("{}#{ordinal}", event.key);
                            assert!(taken(&key), "{key} is delivered, and nobody has it");
                        }
                    }
                    Recorded::Delivered => {
                        assert!(
                            taken(event.key),
                            "{} is delivered, and nobody has it",
                            event.key
                        );
                    }
                    Recorded::Dropped(reason) => {
                        assert_eq!(event.event_type, plugins::DROPPED, "{reason}");
                    }
                    Recorded::Dead(reason) => {
                        let may_die = plugins::may_die(event.event_type);
                        let was_released = reason.contains("it was released");
                        if !may_die && !was_released && block.raw(row).is_none() {
                            dead_good += 1;
                            assert!(self.refuses_at_random(), "{}: {reason}", event.key);
                        }
                    }
                    Recorded::Retried => panic!("{} waits", event.key),
                    Recorded::Expired => panic!("{}: nothing here expires letters", event.key),
                }
            }
        }
        // The brake: 16 in a row or 1 % of 1,000, for each time the operator released it.
        assert!(
            dead_good <= 16 * (1 + self.crashes + self.releases),
            "{dead_good} good events are dead"
        );
        if self.scenario.with_state {
            let generation = Generation {
                pipeline: PIPELINE.into(),
                description: "{}".into(),
            };
            let streams: Vec<String> = (0..self.scenario.feeds.len())
                .map(|index| self.stream(index))
                .collect();
            let mut core = self.core.clone();
            let registration = core
                .register(generation, &streams)
                .expect("it can register");
            let count = registration
                .state
                .get("mapper")
                .and_then(|state| state.get("count"));
            let count: u64 = count.map_or(0, |count| count.parse().expect("a number"));
            assert_eq!(count, self.mapped, "state counts each event once");
        }
    }

    pub fn refuses_at_random(&self) -> bool {
        let at_random = |behaviour: &Behaviour| matches!(behaviour, Behaviour::RefusesAtRandom(_));
        self.receivers
            .iter()
            .any(|receiver| receiver.has_behaviours(at_random))
    }
}
