//! The documents of a batch, and the entries that they belong to.

use std::collections::BTreeMap;
use std::sync::Arc;

use lockgate_model::contract::{BatchContext, MappedDocument};
use lockgate_model::{Batch, Block, DocumentView, EventView, Seq};

use crate::index::{DocumentIndex, EntryIndex};

/// The documents of a batch: its events, or what mappers made of them.
#[derive(Debug)]
pub struct Documents {
    context: BatchContext,
    batch: Batch,
    /// Where each entry is: slice of the batch, row of its block. [`GONE`] where it has been let
    /// go.
    places: Vec<(u32, u32)>,
    /// Events that it keeps in memory, its own and others of their blocks.
    rows_in_memory: usize,
    documents: Vec<Document>,
}

/// The place of an entry that nothing needs any more.
const GONE: (u32, u32) = (u32::MAX, u32::MAX);

/// Without a mapper a document is its event; then nothing is kept but the entry.
#[derive(Debug)]
struct Document {
    entry: EntryIndex,
    key: Option<Box<str>>,
    payload: Option<String>,
    attributes: Vec<(String, String)>,
}

impl Document {
    fn of(entry: EntryIndex) -> Document {
        Document {
            entry,
            key: None,
            payload: None,
            attributes: Vec::new(),
        }
    }
}

impl Documents {
    pub fn new(context: BatchContext, batch: Batch) -> Documents {
        let places: Vec<_> = places(&batch).collect();
        let documents = (0..places.len())
            .map(|entry| Document::of(EntryIndex::new(entry)))
            .collect();
        Documents {
            context,
            rows_in_memory: rows_in_memory(&batch),
            batch,
            places,
            documents,
        }
    }

    pub fn context(&self) -> &BatchContext {
        &self.context
    }

    /// Sequence of an entry.
    pub fn seq(&self, entry: EntryIndex) -> Seq {
        let (block, row) = self.place(entry);
        block.first_seq + row as Seq
    }

    pub fn entries(&self) -> usize {
        self.places.len()
    }

    pub fn len(&self) -> usize {
        self.documents.len()
    }

    pub fn is_empty(&self) -> bool {
        self.documents.is_empty()
    }

    pub fn entry(&self, document: DocumentIndex) -> EntryIndex {
        self.documents[document.get()].entry
    }

    /// The event that an entry stands for, as it was read.
    pub(crate) fn original(&self, entry: EntryIndex) -> EventView<'_> {
        let (block, row) = self.place(entry);
        block.view(row)
    }

    /// The bytes of an event that could not be turned into JSON.
    pub(crate) fn raw(&self, entry: EntryIndex) -> Option<&[u8]> {
        let (block, row) = self.place(entry);
        block.raw(row)
    }

    /// The document as a filter or mapper sees it.
    pub fn event(&self, document: DocumentIndex) -> EventView<'_> {
        let document = &self.documents[document.get()];
        let mut view = self.original(document.entry);
        view.key = document.key.as_deref().unwrap_or(view.key);
        view.payload = document.payload.as_deref().unwrap_or(view.payload);
        view
    }

    /// The document as a sink sees it.
    pub fn view(&self, document: DocumentIndex) -> DocumentView<'_> {
        DocumentView {
            event: self.event(document),
            attributes: &self.documents[document.get()].attributes,
        }
    }

    pub fn payload(&self, document: DocumentIndex) -> &str {
        let document = &self.documents[document.get()];
        document.payload.as_deref().unwrap_or_else(|| {
            let (block, row) = self.place(document.entry);
            block.payload(row)
        })
    }

    /// The session of the event that the document was made of; empty if there is none.
    pub(crate) fn session(&self, document: DocumentIndex) -> &str {
        let (block, row) = self.place(self.documents[document.get()].entry);
        block.session(row)
    }

    /// Puts what a mapper made in a document's place. The first replaces it, the others are added
    /// at the end. Each keeps the attributes that the document had, except those whose names its
    /// own have. `mapped`: at least one.
    pub(crate) fn replace(&mut self, document: DocumentIndex, mapped: Vec<MappedDocument>) {
        let Document {
            entry, attributes, ..
        } = &mut self.documents[document.get()];
        let entry = *entry;
        let inherited = std::mem::take(attributes);
        let several = mapped.len() > 1;
        let key = if several {
            self.event(document).key.to_owned()
        } else {
            String::new()
        };
        for (
            ordinal,
            MappedDocument {
                payload,
                attributes,
            },
        ) in mapped.into_iter().enumerate()
        {
            let key = several.then(|| format!("{key}#{ordinal}").into());
            let attributes = with_inherited(&inherited, attributes);
            if ordinal == 0 {
                let first = &mut self.documents[document.get()];
                first.payload = Some(payload);
                first.attributes = attributes;
                first.key = key.or(first.key.take());
            } else {
                self.documents.push(Document {
                    entry,
                    key,
                    payload: Some(payload),
                    attributes,
                });
            }
        }
    }

    /// Lets go of whatever the open documents do not need. All other entries must be committed.
    pub(crate) fn shrink(&mut self, is_open: impl Fn(DocumentIndex) -> bool) {
        let mut needed = BTreeMap::new();
        for index in (0..self.documents.len()).map(DocumentIndex::new) {
            let entry = self.entry(index);
            if is_open(index) {
                needed.insert(self.seq(entry), entry);
            } else {
                self.documents[index.get()] = Document::of(entry);
            }
        }
        self.batch = self.batch.copy_of(|seq| needed.contains_key(&seq));
        self.rows_in_memory = self.batch.len();
        self.places.fill(GONE);
        for (entry, place) in needed.values().zip(places(&self.batch)) {
            self.places[entry.get()] = place;
        }
    }

    /// Bytes of its events as they were read, and of what mappers made of them.
    pub(crate) fn payload_bytes(&self) -> usize {
        let mapped = self.documents.iter().filter_map(|one| one.payload.as_ref());
        self.batch.payload_bytes() + mapped.map(String::len).sum::<usize>()
    }

    /// Bytes of the attributes that mappers gave the document.
    pub(crate) fn attribute_bytes(&self, document: DocumentIndex) -> usize {
        let attributes = self.documents[document.get()].attributes.iter();
        attributes
            .map(|(name, value)| name.len() + value.len())
            .sum()
    }

    pub(crate) fn rows_in_memory(&self) -> usize {
        self.rows_in_memory
    }

    pub(crate) fn place(&self, entry: EntryIndex) -> (&Arc<Block>, usize) {
        let (slice, row) = self.places[entry.get()];
        (&self.batch.slices[slice as usize].block, row as usize)
    }
}

/// The last attribute of each name.
fn with_inherited(
    inherited: &[(String, String)],
    own: Vec<(String, String)>,
) -> Vec<(String, String)> {
    let mut attributes = Vec::with_capacity(inherited.len() + own.len());
    for (name, value) in inherited.iter().cloned().chain(own) {
        attributes.retain(|(earlier, _)| *earlier != name);
        attributes.push((name, value));
    }
    attributes
}

fn places(batch: &Batch) -> impl Iterator<Item = (u32, u32)> {
    let slices = batch.slices.iter().enumerate();
    slices.flat_map(|(slice, rows)| rows.rows.clone().map(move |row| (slice as u32, row as u32)))
}

fn rows_in_memory(batch: &Batch) -> usize {
    let mut blocks: Vec<&Arc<Block>> = batch.slices.iter().map(|slice| &slice.block).collect();
    blocks.dedup_by(|left, right| Arc::ptr_eq(left, right));
    blocks.iter().map(|block| block.len()).sum()
}
