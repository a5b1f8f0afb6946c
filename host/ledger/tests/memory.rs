//! The rules of every ledger over the one in memory, and what only that one can do: crash.

use lockgate_ledger::conformance::Subject;
use lockgate_ledger::memory::{Appended, MemoryCore, MemoryLedger, Recorded};
use lockgate_ledger::{Ledger, LedgerError};
use lockgate_model::{
    Append, BlockBuilder, Books, Commit, Day, DayTally, DeadLetter, Entries, FeedKind, Generation,
    Head, Outcome, Outcomes,
};

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

const STREAM: &str = "teleport/audit";

/// One event, and a pipeline that reads it.
fn sample() -> MemoryCore {
    let mut builder = BlockBuilder::new();
    let head = Head {
        key: "k",
        event_type: "exec",
        code: "",
        time: 0,
        index: 0,
        session: "",
    };
    builder.push(head, "{}");
    let mut core = MemoryCore::new(None);
    let appended = core.append(Append {
        source: "teleport".into(),
        feed: FeedKind::Audit,
        read_at: 0,
        events: builder.take(),
        cursors: Vec::new(),
        gaps: Vec::new(),
        duplicates: 0,
    });
    assert!(matches!(appended, Appended::Done(Some(_))));
    let generation = Generation {
        pipeline: "siem".into(),
        description: "{}".to_owned(),
    };
    core.register(generation, &[STREAM.to_owned()]).unwrap();
    core
}

fn commit(core: &MemoryCore, entries: Entries, outcome: Outcome) -> Commit {
    let block = core.block_at(STREAM, 1).unwrap();
    let is_dead = matches!(outcome, Outcome::Dead(_));
    let mut outcomes = Outcomes::default();
    outcomes.push(outcome);
    Commit {
        pipeline: "siem".into(),
        stream: STREAM.into(),
        epoch: 1,
        generation: 1,
        entries,
        outcomes,
        reasons: vec!["refused".to_owned()],
        days: vec![DayTally {
            day: Day(0),
            delivered: u64::from(!is_dead),
            dropped: 0,
            dead: u64::from(is_dead),
        }],
        dead: is_dead
            .then(|| DeadLetter::new(&block, 0, "sink".to_owned(), "refused".to_owned()))
            .into_iter()
            .collect(),
        ..Commit::default()
    }
}

#[tokio::test]
async fn a_crash_in_a_write_leaves_all_of_it_or_nothing() {
    for applied in [true, false] {
        let core = sample();
        let commit = commit(&core, Entries::Range(1..2), Outcome::Delivered);
        let ledger = MemoryLedger::open(core);
        ledger.crash_in_next_write(applied);
        let answer = ledger.commit(commit.clone()).await;
        assert!(matches!(
            answer,
            Err(LedgerError::Closed { full: false, .. })
        ));
        assert!(ledger.failed().borrow().is_some());
        let core = ledger.crash();
        assert_eq!(core.outcomes("siem", STREAM, 1).len(), usize::from(applied));
        let again = MemoryLedger::open(core).commit(commit).await;
        assert_eq!(matches!(again, Err(LedgerError::Conflict(_))), applied);
        assert_eq!(again.is_ok(), !applied);
    }
}

#[test]
fn all_that_happened_to_an_entry_is_recorded() {
    let mut core = sample();
    let dead = commit(&core, Entries::Range(1..2), Outcome::Dead(0));
    core.commit(dead).unwrap();
    core.retry("siem", STREAM, &[1]).unwrap();
    // Before the crash and after it are two ledgers.
    let crashed = core.clone();
    let delivered = commit(&core, Entries::Redriven(vec![1]), Outcome::Delivered);
    core.commit(delivered).unwrap();
    let recorded = [
        Recorded::Dead("refused".to_owned()),
        Recorded::Retried,
        Recorded::Delivered,
    ];
    assert_eq!(core.outcomes("siem", STREAM, 1), recorded);
    assert_eq!(crashed.outcomes("siem", STREAM, 1), &recorded[..2]);
    let waits = |core: &MemoryCore| core.redrive("siem", STREAM, 9, 9999).is_some();
    assert_eq!((waits(&crashed), waits(&core)), (true, false));
}
