//! The order of sessions: no document is sent while an earlier one of its session is unfinished,
//! and the receiver gets none before an earlier one.
//!
//! There are three exceptions, and each is recorded for the documents that it concerns:
//!
//! - Documents of one request go out together. If the receiver takes a part of it, an earlier
//!   document that it did not take comes after a later one that it did.
//! - An entry was given up, and its process ended before that was durable. It is tried again,
//!   after those that followed it.
//! - A dead letter that is sent back comes after whatever was sent meanwhile, and passes the stages
//!   while others are sent.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use lockgate_model::{FeedKind, Seq};

use crate::plugins;
use crate::receiver::Reaction;
use crate::simulation::{Carried, PIPELINE, Simulation};
use lockgate_ledger::memory::Recorded;

/// The place of a document in its stream: its sequence, and its number among those of its entry.
type Place = (Seq, usize);

#[derive(Default)]
pub struct SessionOrder {
    /// Entries without a durable outcome, by stream and session.
    waiting: HashMap<(usize, String), BTreeSet<Seq>>,
    /// Entries that this engine was given.
    given: BTreeSet<(usize, Seq)>,
    /// Documents that this engine must have given up, because a later one of their session was
    /// sent. Their entries must not be delivered.
    given_up: BTreeMap<(usize, Seq), BTreeSet<String>>,
    /// Entries that were given up by an engine that ended before that was durable.
    forgotten: BTreeSet<(usize, Seq)>,
    /// Places that the receiver has, by stream and session.
    taken: HashMap<(usize, String), BTreeSet<Place>>,
    /// Two documents of a request: the receiver left the first and took the second.
    parted: BTreeSet<(usize, Place, Place)>,
}

impl Simulation {
    /// An event was read.
    pub fn order_read(&mut self, stream: usize, session: &str, seq: Seq) {
        let waiting = &mut self.order.waiting;
        let waiting = waiting.entry((stream, session.to_owned())).or_default();
        waiting.insert(seq);
    }

    /// The engine is given a batch with these entries.
    pub fn order_give(&mut self, stream: usize, seqs: impl Iterator<Item = Seq>) {
        self.order.given.extend(seqs.map(|seq| (stream, seq)));
    }

    /// A dead letter is sent back.
    pub fn order_redrive(&mut self, stream: usize, seq: Seq) {
        let session = self.session(stream, seq);
        self.order.given.remove(&(stream, seq));
        self.order_read(stream, &session, seq);
    }

    /// These entries have a durable outcome.
    pub fn order_commit(&mut self, stream: usize, seqs: impl Iterator<Item = Seq>) {
        for seq in seqs {
            let session = self.session(stream, seq);
            if let Some(waiting) = self.order.waiting.get_mut(&(stream, session)) {
                waiting.remove(&seq);
            }
            if let Some(keys) = self.order.given_up.remove(&(stream, seq)) {
                let outcomes = self.core.outcomes(PIPELINE, &self.stream(stream), seq);
                assert_ne!(
                    outcomes.last(),
                    Some(&Recorded::Delivered),
                    "a later document of the session was sent before {keys:?} was delivered"
                );
            }
        }
    }

    /// The engine was stopped. What it had given up is durable if all of its entry was final.
    pub fn order_stop(&mut self) {
        if !self.scenario.with_state {
            for (&(stream, seq), given_up) in &self.order.given_up {
                let is_open = |key: &String| {
                    !given_up.contains(key) && !self.acknowledged.contains(&(stream, key.clone()))
                };
                assert!(
                    self.documents_of(stream, seq).iter().any(is_open),
                    "{given_up:?} were given up, and a stop forgets it"
                );
            }
        }
        self.order_forget();
    }

    /// The engine ended.
    pub fn order_forget(&mut self) {
        let given_up = std::mem::take(&mut self.order.given_up);
        self.order.forgotten.extend(given_up.into_keys());
        self.order.given.clear();
    }

    /// A request goes out.
    pub fn order_send(&mut self, carried: &[Carried]) {
        for (at, (stream, key, seq)) in carried.iter().enumerate() {
            let session = self.session(*stream, *seq);
            let is_kept = |given_up: &BTreeSet<String>| given_up.contains(key);
            assert!(
                !self
                    .order
                    .given_up
                    .get(&(*stream, *seq))
                    .is_some_and(is_kept),
                "{key} is sent again after a later document of its session"
            );
            if self.scenario.feeds[*stream] != FeedKind::Sessions || session.is_empty() {
                continue;
            }
            let earlier = self.order.waiting.get(&(*stream, session));
            let earlier: Vec<Seq> = earlier
                .map(|waiting| waiting.range(..=seq).copied().collect())
                .unwrap_or_default();
            for before in earlier {
                self.check_finished(*stream, before, &carried[..at], (key, *seq));
            }
        }
    }

    /// An earlier entry of the session is finished, or what is open of it is in the same request.
    fn check_finished(
        &mut self,
        stream: usize,
        before: Seq,
        same_request: &[Carried],
        (key, seq): (&str, Seq),
    ) {
        if [before, seq]
            .iter()
            .any(|&seq| self.redriven.contains(&(stream, seq)))
        {
            return;
        }
        let is_given = self.order.given.contains(&(stream, before));
        assert!(is_given, "{key} is sent before {before} was read");
        for earlier in self.documents_of(stream, before) {
            if before == seq && ordinal(&earlier) >= ordinal(key) {
                continue;
            }
            let known = (stream, earlier.clone());
            let is_before = |(_, other, _): &Carried| *other == earlier;
            if same_request.iter().any(is_before) || self.acknowledged.contains(&known) {
                continue;
            }
            assert!(
                !self.in_flight.contains(&known),
                "{key} is sent while {earlier} is, which is earlier in its session"
            );
            let endpoint = self.endpoint_of(stream);
            let is_given_up = self
                .answers_seen
                .may_be_given_up(self.now, endpoint, stream, before, &earlier);
            assert!(
                is_given_up,
                "{key} is sent while {earlier} is unfinished, which is earlier in its session"
            );
            let given_up = self.order.given_up.entry((stream, before)).or_default();
            given_up.insert(earlier);
        }
    }

    /// The receiver has taken some of a request.
    pub fn order_take(&mut self, carried: &[Carried], reaction: &Reaction) {
        let place = |(_, key, seq): &Carried| (*seq, ordinal(key));
        for (at, document) in carried.iter().enumerate() {
            let (stream, key, seq) = document;
            let session = self.session(*stream, *seq);
            if self.scenario.feeds[*stream] != FeedKind::Sessions || session.is_empty() {
                continue;
            }
            if !reaction.took.contains(&at) {
                let took = reaction.took.iter().map(|&at| place(&carried[at]));
                let later = took.filter(|&other| other > place(document));
                let parted = later.map(|later| (*stream, place(document), later));
                self.order.parted.extend(parted);
                continue;
            }
            let taken = self.order.taken.entry((*stream, session)).or_default();
            if !taken.insert(place(document)) {
                continue;
            }
            let entry = (*stream, *seq);
            if self.redriven.contains(&entry) || self.order.forgotten.contains(&entry) {
                continue;
            }
            for &later in taken.range(place(document)..).skip(1) {
                assert!(
                    self.order
                        .parted
                        .contains(&(*stream, place(document), later)),
                    "{key} arrives after document {} of {}, which is later in its session",
                    later.1,
                    later.0
                );
            }
        }
    }

    /// The keys of the documents that the stages make of an entry.
    pub fn documents_of(&self, stream: usize, seq: Seq) -> Vec<String> {
        let block = self.core.block_at(&self.stream(stream), seq);
        let block = block.expect("nothing is removed");
        let row = (seq - block.first_seq) as usize;
        let event = block.view(row);
        match event.event_type {
            _ if block.raw(row).is_some() => Vec::new(),
            plugins::THREE => (0..3).map(|n| format!("{}#{n}", event.key)).collect(),
            other if plugins::is_mapped(other) => vec![event.key.to_owned()],
            _ => Vec::new(),
        }
    }

    fn session(&self, stream: usize, seq: Seq) -> String {
        let block = self.core.block_at(&self.stream(stream), seq);
        let block = block.expect("nothing is removed");
        let event = block.view((seq - block.first_seq) as usize);
        event.session.unwrap_or_default().to_owned()
    }
}

/// The number of a document among those of its entry.
fn ordinal(key: &str) -> usize {
    key.split_once('#')
        .map_or(0, |(_, number)| number.parse().expect("a number"))
}
