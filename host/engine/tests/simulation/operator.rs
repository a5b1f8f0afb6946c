//! Crashes, restarts and operator actions.

use lockgate_engine::{Input, Pipeline, StreamIndex};
use lockgate_ledger::LetterQuery;

use crate::brake::BrakeCounts;
use crate::plugins::{Grouping, ModelSink};
use crate::sending::Sending;
use crate::simulation::{PIPELINE, Simulation, Work};

impl Simulation {
    /// The process is killed. A commit that is on its way may be durable or not.
    pub fn crash(&mut self) {
        self.crashes += 1;
        self.memory.waiting.clear();
        for pending in std::mem::take(&mut self.pending) {
            if let Work::Commit { commit, .. } = pending.work
                && self.random.chance(0.5)
            {
                self.commit(*commit);
            }
        }
        self.engine = None;
        self.order_forget();
        self.forget();
        self.check_books();
        self.start();
    }

    /// The pipeline is stopped and started again with another configuration.
    pub fn reload(&mut self) {
        self.stop();
        self.configurations += 1;
        self.scenario.batch_events = 1 + self.random.below(20) as usize;
        self.scenario.in_flight = 1 + self.random.below(4) as usize;
        let groupings = [Grouping::All, Grouping::Three, Grouping::Session];
        self.scenario.grouping = self.random.pick(&groupings);
        self.sink = ModelSink::new(self.scenario.grouping, self.scenario.inspect);
        self.start();
    }

    /// The host is stopped and started again.
    pub fn restart(&mut self) {
        self.stop();
        self.start();
    }

    pub fn stop(&mut self) {
        self.give(Input::Drain);
        for _ in 0..10_000 {
            if self.drained {
                break;
            }
            assert!(self.step(), "a drain ends");
        }
        assert!(self.drained, "a drain ends");
        self.check_acknowledged();
        self.order_stop();
        self.pending.clear();
        self.engine = None;
        self.forget();
    }

    pub fn forget(&mut self) {
        self.alarm = None;
        self.acknowledged.clear();
        self.out.clear();
        self.brake.starts += 1;
        self.in_flight.clear();
        self.sending = Sending::default();
    }

    /// The operator sends some dead letters back.
    pub fn redrive(&mut self) {
        let query = LetterQuery {
            limit: 20,
            ..LetterQuery::default()
        };
        let letters = self.core.dead_letters(&query);
        if letters.is_empty() {
            return;
        }
        let letter = &letters[self.random.below(letters.len() as u64) as usize];
        let (stream, seq) = (letter.stream.clone(), letter.letter.seq);
        let index = (0..self.scenario.feeds.len()).find(|&index| self.stream(index) == stream);
        let index = index.expect("a stream");
        // One redrive of a stream at a time.
        if self.core.redrive(PIPELINE, &stream, 1, 1).is_some() {
            return;
        }
        if self.waiting() == 0 {
            self.progressed();
        }
        self.core
            .retry(PIPELINE, &stream, &[seq])
            .expect("it is a dead letter");
        self.redriven.insert((index, seq));
        self.order_redrive(index, seq);
        // Earlier answers do not count against the new attempt.
        let key = &letter.letter.key;
        self.answers_seen.forget(index, key);
        self.acknowledged
            .retain(|(_, known)| known.split('#').next() != Some(key));
        self.check_books();
        self.take_redrive(index);
    }

    pub fn take_redrives(&mut self) {
        (0..self.scenario.feeds.len()).for_each(|index| self.take_redrive(index));
    }

    pub fn take_redrive(&mut self, index: usize) {
        let name = self.stream(index);
        if let Some(redrive) = self.core.redrive(PIPELINE, &name, 100, 100_000) {
            let stream = StreamIndex::new(index);
            let (batch, generation) = (redrive.batch, self.generation);
            for seq in batch.seqs() {
                self.given.insert((index, seq), generation);
            }
            self.order_give(index, batch.seqs());
            self.brake.passed += batch.len() as u64;
            self.give(Input::Redrive {
                stream,
                batch,
                generation,
            });
        }
    }

    /// A condition names the command that releases what waits.
    pub fn asks_for_operator(&self) -> bool {
        let mut conditions = self.engine.iter().flat_map(Pipeline::conditions);
        conditions.any(|condition| condition.message.contains("lockgate dlq release"))
    }

    pub fn release(&mut self) {
        self.releases += 1;
        for index in 0..self.scenario.feeds.len() {
            self.answers_seen.released[index] = self.core.next(&self.stream(index));
        }
        self.sending.released();
        self.brake = BrakeCounts::default();
        self.give(Input::Release);
    }

    /// A database was replaced: batches from now on belong to another configuration.
    pub fn replace_database(&mut self) {
        self.configurations += 1;
        let streams: Vec<String> = (0..self.scenario.feeds.len())
            .map(|index| self.stream(index))
            .collect();
        self.register(&streams);
    }
}
