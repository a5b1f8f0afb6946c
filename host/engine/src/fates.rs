//! The fates of a batch's documents and entries, until they are committed.

use std::borrow::Cow;
use std::collections::BTreeMap;

use lockgate_model::{
    Day, DayTally, DeadLetter, Entries, Fate, Outcome, Outcomes, ReasonIndex, Reasons, Seq, escape,
};

use crate::documents::Documents;
use crate::index::{DocumentIndex, EntryIndex};
use crate::limits::LETTER_REASON_MAX;

/// The fates of the documents of a batch. An entry is final when all its documents are.
#[derive(Clone, Debug)]
pub struct Fates {
    open: Vec<bool>,
    entries: Vec<Entry>,
    open_documents: usize,
    /// Entries that are final and not taken to be committed.
    uncommitted: usize,
    reasons: Reasons,
}

#[derive(Clone, Debug, Default)]
struct Entry {
    /// Documents that are not final.
    open: u32,
    is_taken: bool,
    delivered: bool,
    dropped: Option<ReasonIndex>,
    dead: Option<Box<Death>>,
}

/// Why an entry became a dead letter: its first document that did.
#[derive(Clone, Debug)]
struct Death {
    cause: String,
    reason: String,
    index: ReasonIndex,
}

/// The outcomes of entries in a commit.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) entries: Entries,
    pub(crate) outcomes: Outcomes,
    pub(crate) reasons: Vec<String>,
    pub(crate) days: Vec<DayTally>,
    pub(crate) dead: Vec<DeadLetter>,
}

impl Fates {
    /// Every event is a document of its own, and open.
    pub(crate) fn new(entries: usize) -> Fates {
        Fates {
            open: vec![true; entries],
            entries: vec![
                Entry {
                    open: 1,
                    ..Entry::default()
                };
                entries
            ],
            open_documents: entries,
            uncommitted: 0,
            reasons: Reasons::default(),
        }
    }

    /// A mapper added documents of this entry at the end.
    pub(crate) fn add(&mut self, entry: EntryIndex, documents: usize) {
        self.open.extend(std::iter::repeat_n(true, documents));
        self.open_documents += documents;
        self.entries[entry.get()].open += documents as u32;
    }

    pub fn all_final(&self) -> bool {
        self.open_documents == 0
    }

    pub(crate) fn open_documents(&self) -> usize {
        self.open_documents
    }

    pub(crate) fn is_open(&self, document: DocumentIndex) -> bool {
        self.open[document.get()]
    }

    /// Open documents, in the order of their events.
    pub fn open(&self, documents: &Documents) -> Vec<DocumentIndex> {
        let mut open: Vec<_> = (0..self.open.len())
            .filter(|&document| self.open[document])
            .map(DocumentIndex::new)
            .collect();
        if self.open.len() > self.entries.len() {
            // Documents that a mapper added are at the end; they belong with their event.
            open.sort_by_key(|&document| documents.entry(document));
        }
        open
    }

    /// Why an entry is dropped. `None` if it is not, or a document of it is not.
    pub fn drop_reason(&self, entry: EntryIndex) -> Option<Cow<'_, str>> {
        let entry = &self.entries[entry.get()];
        let reason = entry.dropped?;
        let is_dropped = entry.open == 0 && !entry.delivered && entry.dead.is_none();
        is_dropped.then(|| self.reasons.text(reason))
    }

    /// Why an entry is a dead letter: (cause, reason).
    pub fn death(&self, entry: EntryIndex) -> Option<(&str, &str)> {
        let death = self.entries[entry.get()].dead.as_deref()?;
        Some((&death.cause, &death.reason))
    }

    /// A document becomes final. `cause`: what decided, such as `stage 1 (builtin:filter)`. True
    /// when this makes its entry final, and the entry does not become a dead letter.
    pub(crate) fn settle(
        &mut self,
        documents: &Documents,
        document: DocumentIndex,
        cause: &str,
        fate: Fate,
    ) -> bool {
        if !std::mem::replace(&mut self.open[document.get()], false) {
            return false;
        }
        self.open_documents -= 1;
        let entry = &mut self.entries[documents.entry(document).get()];
        entry.open -= 1;
        self.uncommitted += usize::from(entry.open == 0);
        match fate {
            Fate::Delivered => entry.delivered = true,
            Fate::Dropped(reason) => {
                let reason = self.reasons.index(&reason);
                entry.dropped.get_or_insert(reason);
            }
            Fate::Dead(reason) => {
                if entry.dead.is_none() {
                    let index = self.reasons.index(&reason);
                    let reason = escape(&reason, LETTER_REASON_MAX).into_owned();
                    entry.dead = Some(Box::new(Death {
                        cause: cause.to_owned(),
                        reason,
                        index,
                    }));
                }
            }
        }
        entry.open == 0 && entry.dead.is_none()
    }

    /// Some entries are final and have not been taken to be committed.
    pub(crate) fn has_uncommitted(&self) -> bool {
        self.uncommitted > 0
    }

    /// Outcomes of the entries that are final, each entry once: a commit for each run of
    /// neighbours, or a single one for a redrive.
    pub(crate) fn take_final(&mut self, documents: &Documents, is_redrive: bool) -> Vec<Finished> {
        self.uncommitted = 0;
        let mut taken = Vec::new();
        for (index, entry) in self.entries.iter_mut().enumerate() {
            if entry.open == 0 && !entry.is_taken {
                entry.is_taken = true;
                taken.push(EntryIndex::new(index));
            }
        }
        let seq = |entry: &EntryIndex| documents.seq(*entry);
        if is_redrive {
            let entries = Entries::Redriven(taken.iter().map(seq).collect());
            return vec![self.finished(documents, entries, &taken)];
        }
        let are_neighbours = |left: &EntryIndex, right: &EntryIndex| seq(left) + 1 == seq(right);
        taken
            .chunk_by(are_neighbours)
            .map(|run| {
                let first = seq(&run[0]);
                let entries = Entries::Range(first..first + run.len() as Seq);
                self.finished(documents, entries, run)
            })
            .collect()
    }

    fn finished(&self, documents: &Documents, entries: Entries, taken: &[EntryIndex]) -> Finished {
        let mut reasons = Vec::new();
        let mut known = BTreeMap::new();
        let mut reason = |index: ReasonIndex| {
            *known.entry(index).or_insert_with(|| {
                reasons.push(self.reasons.text(index).into_owned());
                (reasons.len() - 1) as ReasonIndex
            })
        };
        let mut outcomes = Outcomes::default();
        let mut days: BTreeMap<Day, DayTally> = BTreeMap::new();
        let mut dead = Vec::new();
        for &index in taken {
            let entry = &self.entries[index.get()];
            let (block, row) = documents.place(index);
            let day = Day::of(block.time(row));
            let tally = days.entry(day).or_insert(DayTally {
                day,
                delivered: 0,
                dropped: 0,
                dead: 0,
            });
            if let Some(death) = &entry.dead {
                outcomes.push(Outcome::Dead(reason(death.index)));
                tally.dead += 1;
                let (cause, reason) = (death.cause.clone(), death.reason.clone());
                dead.push(DeadLetter::new(block, row, cause, reason));
            } else if entry.delivered {
                outcomes.push(Outcome::Delivered);
                tally.delivered += 1;
            } else {
                outcomes.push(Outcome::Dropped(reason(entry.dropped.unwrap_or(0))));
                tally.dropped += 1;
            }
        }
        Finished {
            entries,
            outcomes,
            reasons,
            days: days.into_values().collect(),
            dead,
        }
    }
}

#[cfg(test)]
mod tests {
    use lockgate_model::contract::MappedDocument;

    use super::*;
    use crate::testing;

    fn mapped(payload: &str) -> MappedDocument {
        MappedDocument {
            payload: payload.into(),
            attributes: Vec::new(),
        }
    }

    #[test]
    fn an_entry_is_final_when_all_its_documents_are() {
        let mut documents = testing::documents(&["a", "b", "c"]);
        let mut fates = Fates::new(3);
        let [first, second, third] = [0, 1, 2].map(DocumentIndex::new);
        documents.replace(first, vec![mapped(r#"{"x":1}"#), mapped(r#"{"x":2}"#)]);
        fates.add(EntryIndex::new(0), 1);
        let added = DocumentIndex::new(3);
        fates.settle(&documents, second, "stage 1", Fate::Dropped("empty".into()));
        assert_eq!(
            fates.open(&documents),
            [first, added, third],
            "in the order of the events"
        );
        assert_eq!(
            (documents.event(first).key, documents.event(added).key),
            ("a#0", "a#1")
        );

        let mut settle = |document, fate| fates.settle(&documents, document, "sink", fate);
        let passed = [
            settle(first, Fate::Delivered),
            settle(added, Fate::Dead("refused".into())),
            settle(third, Fate::Delivered),
            settle(third, Fate::Delivered),
        ];
        assert_eq!(passed, [false, false, true, false], "an entry counts once");
        assert!(fates.all_final());

        let finished = fates.take_final(&documents, false);
        assert_eq!(finished.len(), 1);
        let finished = &finished[0];
        assert_eq!(finished.outcomes.count(), (1, 1, 1));
        let letter = &finished.dead[0];
        assert_eq!(
            (letter.seq, letter.cause.as_str(), letter.key.as_str()),
            (1, "sink", "a")
        );
        assert_eq!(finished.reasons, ["refused", "empty"]);
    }

    #[test]
    fn final_entries_are_taken_once_and_in_runs() {
        let documents = testing::documents(&["a", "b", "c", "d", "e"]);
        let taken = |fates: &mut Fates, is_redrive| -> Vec<(Vec<Seq>, Vec<String>)> {
            let finished = fates.take_final(&documents, is_redrive).into_iter();
            finished
                .map(|finished| (finished.entries.iter().collect(), finished.reasons))
                .collect()
        };
        let settle = |fates: &mut Fates, document, reason: Option<&str>| {
            let fate = reason.map_or(Fate::Delivered, |reason| Fate::Dead(reason.to_owned()));
            fates.settle(&documents, DocumentIndex::new(document), "sink", fate);
        };
        let mut fates = Fates::new(5);
        settle(&mut fates, 0, None);
        settle(&mut fates, 1, Some("refused"));
        settle(&mut fates, 4, Some("too large"));
        let mut redriven = fates.clone();
        let runs = taken(&mut fates, false);
        let reasons = |reasons: &[&str]| reasons.iter().map(|&text| text.to_owned()).collect();
        assert_eq!(
            runs,
            [
                (vec![1, 2], reasons(&["refused"])),
                (vec![5], reasons(&["too large"]))
            ]
        );
        assert!(!fates.has_uncommitted());
        settle(&mut fates, 2, None);
        assert!(fates.has_uncommitted());
        assert_eq!(taken(&mut fates, false), [(vec![3], reasons(&[]))]);
        assert_eq!(
            taken(&mut redriven, true),
            [(vec![1, 2, 5], reasons(&["refused", "too large"]))]
        );
    }
}
