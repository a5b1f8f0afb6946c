//! Events, commits and expectations that the rules share.

use std::collections::BTreeMap;

use lockgate_model::{
    Append, BatchRecord, BlockBuilder, Books, Commit, CursorUpdate, Day, DayTally, DeadLetter,
    Entries, FeedKind, Generation, Head, Millis, Outcome, Redrive, Seq,
};

use crate::{Ledger, LedgerError, LetterQuery, Registration};

pub(super) const AUDIT: &str = "teleport/audit";
pub(super) const SIEM: &str = "siem";
/// 2026-01-05.
pub(super) const DAY: Millis = 1_767_571_200_000;
const HOUR: Millis = 3_600_000;

/// Events that continue the audit stream, an hour apart; the cursor names the next one.
pub(super) fn events(first: Seq, count: u64, filler: usize) -> Append {
    let mut builder = BlockBuilder::new();
    for nth in first..first + count {
        let head = Head {
            key: &format!("k{nth}"),
            event_type: if nth % 2 == 0 { "user.login" } else { "exec" },
            code: "T1000I",
            time: DAY + nth as Millis * HOUR,
            index: nth as i64,
            session: if nth % 3 == 0 { "s-1" } else { "" },
        };
        if nth % 10 == 9 {
            builder.push_raw(head, format!("raw {nth}").as_bytes());
        } else {
            let filler = noise(nth, filler);
            builder.push(head, &format!(r#"{{"uid":"k{nth}","filler":"{filler}"}}"#));
        }
    }
    Append {
        source: "teleport".into(),
        feed: FeedKind::Audit,
        read_at: DAY + first as Millis,
        events: builder.take(),
        cursors: vec![CursorUpdate {
            key: "next".to_owned(),
            value: Some((first + count).to_string()),
        }],
        gaps: Vec::new(),
        duplicates: 0,
    }
}

/// Letters that do not compress.
fn noise(seed: u64, len: usize) -> String {
    let mut state = seed;
    let letter = |_| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        char::from(b'a' + ((state >> 33) % 26) as u8)
    };
    (0..len).map(letter).collect()
}

pub(super) async fn append(ledger: &impl Ledger, count: u64) {
    let next = *ledger.head(AUDIT).borrow();
    ledger
        .append(events(next, count, 0))
        .await
        .expect("appended");
}

pub(super) async fn register(ledger: &impl Ledger, pipeline: &str) -> Registration {
    let streams = [AUDIT.to_owned()];
    ledger
        .register(generation(pipeline, "{}"), &streams, DAY)
        .await
        .expect("registered")
}

pub(super) fn generation(pipeline: &str, description: &str) -> Generation {
    Generation {
        pipeline: pipeline.into(),
        description: description.to_owned(),
    }
}

/// A commit of the pipeline's first generation, its parts made from the events.
pub(super) async fn commit(
    ledger: &impl Ledger,
    pipeline: &str,
    range: std::ops::Range<Seq>,
    outcome: impl Fn(Seq) -> Outcome,
) -> Commit {
    let mut letters = Vec::new();
    for seq in range.clone() {
        let block = ledger.block_at(AUDIT, seq).await.expect("read");
        letters.push(match block {
            Some(block) => letter(&block, (seq - block.first_seq) as usize),
            None => DeadLetter {
                seq,
                ..DeadLetter::default()
            },
        });
    }
    of(pipeline, Entries::Range(range), letters, outcome)
}

/// The commit of a redrive.
pub(super) fn redriven(redrive: &Redrive, outcome: impl Fn(Seq) -> Outcome) -> Commit {
    let rows = redrive.batch.rows();
    let letters = rows.map(|(block, row)| letter(block, row)).collect();
    let entries = Entries::Redriven(redrive.batch.seqs().collect());
    of(&redrive.pipeline, entries, letters, outcome)
}

fn letter(block: &lockgate_model::Block, row: usize) -> DeadLetter {
    DeadLetter::new(block, row, "sink (x)".to_owned(), "refused".to_owned())
}

fn of(
    pipeline: &str,
    entries: Entries,
    letters: Vec<DeadLetter>,
    outcome: impl Fn(Seq) -> Outcome,
) -> Commit {
    let mut days: BTreeMap<Day, DayTally> = BTreeMap::new();
    let first = entries.iter().next().unwrap_or(0) as Millis;
    let mut commit = Commit {
        pipeline: pipeline.into(),
        stream: AUDIT.into(),
        epoch: 1,
        generation: 1,
        reasons: vec!["refused".to_owned(), "not wanted".to_owned()],
        batch: BatchRecord {
            id: "b".to_owned(),
            at: DAY + first,
            requests: Vec::new(),
        },
        entries,
        ..Commit::default()
    };
    for letter in letters {
        let day = Day::of(letter.time);
        let tally = days.entry(day).or_insert(DayTally {
            day,
            delivered: 0,
            dropped: 0,
            dead: 0,
        });
        let outcome = outcome(letter.seq);
        commit.outcomes.push(outcome);
        match outcome {
            Outcome::Delivered => tally.delivered += 1,
            Outcome::Dropped(_) => tally.dropped += 1,
            Outcome::Dead(_) => {
                tally.dead += 1;
                commit.dead.push(letter);
            }
        }
    }
    commit.days = days.into_values().collect();
    commit
}

pub(super) fn delivered(_: Seq) -> Outcome {
    Outcome::Delivered
}

pub(super) fn dead(_: Seq) -> Outcome {
    Outcome::Dead(0)
}

pub(super) fn all() -> LetterQuery {
    LetterQuery {
        limit: 1000,
        ..LetterQuery::default()
    }
}

pub(super) fn figures(read: u64, delivered: u64, dropped: u64, dead: u64, waiting: u64) -> Books {
    Books {
        read,
        delivered,
        dropped,
        dead,
        waiting,
    }
}

pub(super) fn is_conflict<T: std::fmt::Debug>(result: Result<T, LedgerError>) {
    assert!(
        matches!(result, Err(LedgerError::Conflict(_))),
        "{result:?}"
    );
}

pub(super) fn is_invalid<T: std::fmt::Debug>(result: Result<T, LedgerError>) {
    assert!(matches!(result, Err(LedgerError::Invalid(_))), "{result:?}");
}
