//! The rules of every ledger over the SQLite store.

use lockgate_ledger::conformance::Subject;
use lockgate_model::Books;
use lockgate_store::{Ledger, Options, Retention, Store};

use crate::common::options;

struct OnDisk {
    directory: tempfile::TempDir,
    retention: Option<u64>,
}

impl Subject for OnDisk {
    type Ledger = Store;

    fn new(retention: Option<u64>) -> OnDisk {
        OnDisk {
            directory: tempfile::tempdir().unwrap(),
            retention,
        }
    }

    fn open(&mut self) -> Store {
        let retention = Retention {
            age: None,
            bytes: self.retention,
        };
        Store::open(Options {
            retention,
            ..options(self.directory.path())
        })
        .unwrap()
    }

    /// Dropped, not closed: the log stays for the next one. `kill.rs` ends whole processes.
    async fn end(&mut self, store: Store) {
        let mut failed = store.failed();
        drop(store);
        failed.wait_for(Option::is_some).await.unwrap();
    }

    /// Counted, checked by day, and held against the chain.
    fn books(&self, store: &Store, pipeline: &str, stream: &str) -> Books {
        let all = store.reads().books(pipeline).unwrap();
        let mut by_day = Books::default();
        for (day, books) in store.reads().days(pipeline).unwrap() {
            assert!(books.balance(), "{day}: {books:?}");
            by_day += books;
        }
        let mut sum = Books::default();
        all.iter().for_each(|(_, books)| sum += *books);
        assert_eq!(by_day, sum);
        store.reads().verify_chain(pipeline).unwrap();
        let (_, books) = all.into_iter().find(|(name, _)| name == stream).unwrap();
        assert!(books.balance(), "{books:?}");
        books
    }
}

lockgate_ledger::conformance!(OnDisk);
