use std::collections::{BTreeMap, HashMap};

use lockgate_model::contract::MappedDocument;
use lockgate_model::{
    Batch, Day, DayTally, DeadLetter, DocumentView, EventView, Fate, Outcome, Outcomes, ReasonIndex,
};

/// One batch on its way through a pipeline: its events, the documents made of them, and what has
/// become of each.
///
/// An entry of the ledger is an event; a mapper makes zero or more documents of it. The entry is
/// final when all its documents are.
#[derive(Debug)]
pub(crate) struct Work {
    batch: Batch,
    /// Where each entry stands: slice of the batch, row of its block.
    places: Vec<(u32, u32)>,
    documents: Vec<Document>,
    entries: Vec<Entry>,
    reasons: Reasons,
}

/// Without a mapper a document is its event; then nothing is stored but the entry.
#[derive(Debug)]
struct Document {
    entry: u32,
    key: Option<Box<str>>,
    mapped: Option<MappedDocument>,
    open: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    /// Documents without a fate.
    open: u32,
    delivered: bool,
    dropped: Option<ReasonIndex>,
    /// (cause, reason)
    dead: Option<(ReasonIndex, ReasonIndex)>,
}

/// Texts that many entries share, by index.
#[derive(Debug, Default)]
struct Reasons {
    texts: Vec<String>,
    known: HashMap<String, ReasonIndex>,
}

/// What a commit needs to know of a finished batch.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) outcomes: Outcomes,
    pub(crate) reasons: Vec<String>,
    pub(crate) days: Vec<DayTally>,
    pub(crate) dead: Vec<DeadLetter>,
}

impl Work {
    /// Every event becomes a document of its own; those that are no JSON become dead letters at
    /// once.
    pub(crate) fn new(batch: Batch) -> Work {
        let places: Vec<_> = batch
            .slices
            .iter()
            .enumerate()
            .flat_map(|(slice, rows)| rows.rows.clone().map(move |row| (slice as u32, row as u32)))
            .collect();
        let documents = (0..places.len() as u32)
            .map(|entry| Document {
                entry,
                key: None,
                mapped: None,
                open: true,
            })
            .collect();
        let entries = vec![
            Entry {
                open: 1,
                ..Entry::default()
            };
            places.len()
        ];
        let mut work = Work {
            batch,
            places,
            documents,
            entries,
            reasons: Reasons::default(),
        };
        for document in 0..work.documents.len() as u32 {
            let (block, row) = work.place(document);
            if block.raw(row).is_some() {
                work.settle(
                    document,
                    "unreadable",
                    Fate::Dead("the event could not be turned into JSON".into()),
                );
            }
        }
        work
    }

    /// Documents without a fate, in order.
    pub(crate) fn open(&self) -> Vec<u32> {
        let mut open: Vec<u32> = (0..self.documents.len() as u32)
            .filter(|&document| self.documents[document as usize].open)
            .collect();
        if self.documents.len() > self.entries.len() {
            // Documents that a mapper added stand at the end; they belong with their event.
            open.sort_by_key(|&document| self.documents[document as usize].entry);
        }
        open
    }

    pub(crate) fn event(&self, document: u32) -> EventView<'_> {
        let (block, row) = self.place(document);
        let document = &self.documents[document as usize];
        let mut view = block.view(row);
        view.key = document.key.as_deref().unwrap_or(view.key);
        if let Some(mapped) = &document.mapped {
            view.payload = &mapped.payload;
        }
        view
    }

    pub(crate) fn document(&self, document: u32) -> DocumentView<'_> {
        let mapped = &self.documents[document as usize].mapped;
        DocumentView {
            event: self.event(document),
            attributes: mapped.as_ref().map_or(&[], |mapped| &mapped.attributes[..]),
        }
    }

    /// Session of the event a document was made of; empty where there is none.
    pub(crate) fn session(&self, document: u32) -> &str {
        let (block, row) = self.place(document);
        block.session(row)
    }

    /// A mapper made these texts of a document. None: dropped, with the reason `empty`.
    pub(crate) fn replace(&mut self, document: u32, texts: Vec<MappedDocument>, stage: &str) {
        if texts.is_empty() {
            return self.settle(document, stage, Fate::Dropped("empty".into()));
        }
        let entry = self.documents[document as usize].entry;
        let key = self.event(document).key.to_owned();
        let several = texts.len() > 1;
        for (ordinal, text) in texts.into_iter().enumerate() {
            if ordinal == 0 {
                let first = &mut self.documents[document as usize];
                first.mapped = Some(text);
                if several {
                    first.key = Some(format!("{key}#0").into());
                }
            } else {
                let key = Some(format!("{key}#{ordinal}").into());
                self.documents.push(Document {
                    entry,
                    key,
                    mapped: Some(text),
                    open: true,
                });
                self.entries[entry as usize].open += 1;
            }
        }
    }

    /// A document is final. `cause`: what decided, such as `stage 1 (builtin:filter)`; kept with
    /// dead letters.
    pub(crate) fn settle(&mut self, document: u32, cause: &str, fate: Fate) {
        let document = &mut self.documents[document as usize];
        if !std::mem::replace(&mut document.open, false) {
            return;
        }
        let entry = &mut self.entries[document.entry as usize];
        entry.open -= 1;
        match fate {
            Fate::Delivered => entry.delivered = true,
            Fate::Dropped(reason) => {
                let reason = self.reasons.index(&reason);
                entry.dropped.get_or_insert(reason);
            }
            Fate::Dead(reason) => {
                let (cause, reason) = (self.reasons.index(cause), self.reasons.index(&reason));
                entry.dead.get_or_insert((cause, reason));
            }
        }
    }

    /// Outcomes of all entries. Every document must be final.
    pub(crate) fn finish(self) -> Finished {
        let mut outcomes = Outcomes::default();
        let mut days: BTreeMap<Day, DayTally> = BTreeMap::new();
        let mut dead = Vec::new();
        let range = self.batch.range();
        for ((block, row), (seq, entry)) in self.batch.rows().zip(range.zip(&self.entries)) {
            debug_assert_eq!(
                entry.open, 0,
                "an entry is final when all its documents are"
            );
            let event = block.view(row);
            let day = Day::of(event.time);
            let tally = days.entry(day).or_insert(DayTally {
                day,
                delivered: 0,
                dropped: 0,
                dead: 0,
            });
            if let Some((cause, reason)) = entry.dead {
                outcomes.push(Outcome::Dead(reason));
                tally.dead += 1;
                dead.push(DeadLetter {
                    seq,
                    key: event.key.to_owned(),
                    event_type: event.event_type.to_owned(),
                    time: event.time,
                    cause: self.reasons.texts[cause as usize].clone(),
                    reason: self.reasons.texts[reason as usize].clone(),
                    payload: block.raw(row).unwrap_or(event.payload.as_bytes()).to_vec(),
                });
            } else if entry.delivered {
                outcomes.push(Outcome::Delivered);
                tally.delivered += 1;
            } else {
                outcomes.push(Outcome::Dropped(entry.dropped.unwrap_or(0)));
                tally.dropped += 1;
            }
        }
        Finished {
            outcomes,
            reasons: self.reasons.texts,
            days: days.into_values().collect(),
            dead,
        }
    }

    fn place(&self, document: u32) -> (&lockgate_model::Block, usize) {
        let (slice, row) = self.places[self.documents[document as usize].entry as usize];
        (&self.batch.slices[slice as usize].block, row as usize)
    }
}

impl Reasons {
    /// Reasons come from plugins too (`reject`): past 60,000 different ones in a batch the rest
    /// share the last.
    fn index(&mut self, text: &str) -> ReasonIndex {
        if let Some(&index) = self.known.get(text) {
            return index;
        }
        let index = self.texts.len().min(60_000);
        if index == self.texts.len() {
            self.texts.push(text.to_owned());
            self.known.insert(text.to_owned(), index as ReasonIndex);
        }
        index as ReasonIndex
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use lockgate_model::{Block, BlockBuilder, FeedKind, Head, Slice};

    use super::*;

    fn work() -> Work {
        let mut builder = BlockBuilder::new();
        for key in ["a", "b", "c"] {
            builder.push(
                Head {
                    key,
                    event_type: "t",
                    code: "",
                    time: 0,
                    index: 0,
                    session: "",
                },
                "{}",
            );
        }
        builder.push_raw(
            Head {
                key: "d",
                event_type: "t",
                code: "",
                time: 86_400_000,
                index: 0,
                session: "",
            },
            b"\xff",
        );
        let block = Arc::new(Block::new(
            "teleport/audit".into(),
            FeedKind::Audit,
            5,
            0,
            builder.take(),
        ));
        Work::new(Batch {
            slices: vec![Slice { rows: 0..4, block }],
        })
    }

    #[test]
    fn an_entry_is_final_when_all_its_documents_are() {
        let mut work = work();
        assert_eq!(
            work.open(),
            [0, 1, 2],
            "the unreadable event is a dead letter already"
        );
        let mapped = |payload: &str| MappedDocument {
            payload: payload.into(),
            attributes: vec![],
        };
        work.replace(
            0,
            vec![mapped(r#"{"x":1}"#), mapped(r#"{"x":2}"#)],
            "stage 1",
        );
        work.replace(1, vec![], "stage 1");
        assert_eq!(work.open(), [0, 4, 2], "in the order of the events");
        assert_eq!((work.event(0).key, work.event(4).key), ("a#0", "a#1"));
        assert_eq!(work.document(4).event.payload, r#"{"x":2}"#);
        work.settle(0, "sink", Fate::Delivered);
        work.settle(4, "sink", Fate::Dead("refused".into()));
        work.settle(2, "sink", Fate::Delivered);

        let finished = work.finish();
        let reason = |text: &str| {
            finished
                .reasons
                .iter()
                .position(|reason| reason == text)
                .unwrap() as ReasonIndex
        };
        assert_eq!(
            finished.outcomes.iter().collect::<Vec<_>>(),
            [
                Outcome::Dead(reason("refused")),
                Outcome::Dropped(reason("empty")),
                Outcome::Delivered,
                Outcome::Dead(reason("the event could not be turned into JSON")),
            ]
        );
        assert_eq!(
            finished
                .dead
                .iter()
                .map(|letter| (letter.seq, letter.cause.as_str()))
                .collect::<Vec<_>>(),
            [(5, "sink"), (8, "unreadable")]
        );
        assert_eq!(finished.dead[1].payload, b"\xff");
        assert_eq!(finished.days.len(), 2);
    }
}
