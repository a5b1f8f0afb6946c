//! The rules of every ledger over the one in memory, and what only that one can do: crash.

use lockgate_ledger::conformance::Subject;
use lockgate_ledger::memory::{MemoryCore, MemoryLedger};
use lockgate_model::Books;

struct InMemory(MemoryCore);

impl Subject for InMemory {
    type Ledger = MemoryLedger;

    fn new(retention: Option<u64>) -> InMemory {
        InMemory(MemoryCore::new(retention))
    }

    fn open(&mut self) -> MemoryLedger {
        MemoryLedger::open(self.0.clone())
    }

    async fn end(&mut self, ledger: MemoryLedger) {
        self.0 = ledger.crash();
    }

    fn books(&self, ledger: &MemoryLedger, pipeline: &str, stream: &str) -> Books {
        let books = ledger.with(|core| core.books(pipeline));
        let (_, books) = books.into_iter().find(|(name, _)| name == stream).unwrap();
        assert!(books.balance(), "{books:?}");
        books
    }
}

lockgate_ledger::conformance!(InMemory);
