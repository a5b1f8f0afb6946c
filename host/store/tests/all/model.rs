//! Random histories against the simplest thing that could be right: a list of events, and a map
//! from entry to outcome.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use lockgate_model::{Books, Day, Outcome};
use lockgate_store::{Ledger, LedgerError, Options, Store};
use proptest::prelude::*;

use crate::common::*;

#[derive(Clone, Debug)]
enum Step {
    Append {
        count: u64,
        spread: u64,
    },
    /// A pipeline, how far above its lowest waiting entry, how many, a seed for outcomes.
    Commit {
        pipeline: usize,
        above: u64,
        count: u64,
        seed: u64,
    },
    Register {
        pipeline: usize,
    },
    Reopen {
        clean: bool,
    },
}

const PIPELINES: [&str; 3] = ["a", "b", "c"];

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (1u64..30, 1u64..40).prop_map(|(count, spread)| Step::Append { count, spread }),
        5 => (0usize..3, 0u64..30, 1u64..20, any::<u64>()).prop_map(|(pipeline, above, count, seed)| Step::Commit { pipeline, above, count, seed }),
        1 => (0usize..3).prop_map(|pipeline| Step::Register { pipeline }),
        1 => any::<bool>().prop_map(|clean| Step::Reopen { clean }),
    ];
    prop::collection::vec(step, 1..40)
}

#[derive(Default)]
struct Model {
    /// Key and time of entry 1, 2, …
    events: Vec<(String, i64)>,
    cursor: Option<String>,
    outcomes: HashMap<&'static str, BTreeMap<u64, Outcome>>,
}

impl Model {
    fn books(&self, pipeline: &str, only: Option<Day>) -> Books {
        let mut books = Books::default();
        for (seq, (_, time)) in (1..).zip(&self.events) {
            if only.is_some_and(|day| day != Day::of(*time)) {
                continue;
            }
            books.read += 1;
            match self.outcomes[pipeline].get(&seq) {
                None => books.waiting += 1,
                Some(Outcome::Delivered) => books.delivered += 1,
                Some(Outcome::Dropped(_)) => books.dropped += 1,
                Some(Outcome::Dead(_)) => books.dead += 1,
            }
        }
        books
    }

    fn check(&self, store: &Store) {
        let head = *store.head(AUDIT).borrow();
        assert_eq!(head, self.events.len() as u64 + 1);
        assert_eq!(
            store.reads().cursors("teleport").unwrap().remove("c"),
            self.cursor
        );
        for (seq, (key, time)) in (1..).zip(&self.events) {
            let block = store.block_at(AUDIT, seq).unwrap().unwrap();
            let view = block.view((seq - block.first_seq) as usize);
            assert_eq!((view.key, view.time), (key.as_str(), *time));
        }
        for (&pipeline, outcomes) in &self.outcomes {
            assert_eq!(
                store.reads().books(pipeline).unwrap(),
                [(AUDIT.to_owned(), self.books(pipeline, None))]
            );
            let mut days: Vec<Day> = self.events.iter().map(|(_, time)| Day::of(*time)).collect();
            days.sort();
            days.dedup();
            let days: Vec<(Day, Books)> = days
                .into_iter()
                .map(|day| (day, self.books(pipeline, Some(day))))
                .collect();
            assert_eq!(store.reads().days(pipeline).unwrap(), days);
            let mut dead: Vec<u64> = letters_of(store.reads(), pipeline, 10_000)
                .unwrap()
                .into_iter()
                .map(|kept| kept.letter.seq)
                .collect();
            dead.sort_unstable();
            let expected: Vec<u64> = outcomes
                .iter()
                .filter(|(_, fate)| matches!(fate, Outcome::Dead(_)))
                .map(|(seq, _)| *seq)
                .collect();
            assert_eq!(dead, expected);
            store.reads().verify_chain(pipeline).unwrap();
        }
    }

    fn waiting(&self, pipeline: &str) -> Vec<u64> {
        (1..=self.events.len() as u64)
            .filter(|seq| !self.outcomes[pipeline].contains_key(seq))
            .collect()
    }
}

async fn run(directory: &Path, steps: Vec<Step>) {
    let options = || Options {
        tail_bytes: 2000,
        ..options(directory)
    };
    let mut store = Store::open(options()).unwrap();
    let mut model = Model::default();
    for step in steps {
        match step {
            Step::Append { count, spread } => {
                let first = model.events.len() as u64;
                let keys: Vec<String> = (0..count).map(|nth| format!("k{}", first + nth)).collect();
                let mut parts = events(&keys, |key| format!(r#"{{"uid":"{key}"}}"#));
                parts
                    .times
                    .iter_mut()
                    .enumerate()
                    .for_each(|(nth, time)| *time = DAY + (nth as u64 * spread * 7_200_000) as i64);
                model
                    .events
                    .extend(keys.into_iter().zip(parts.times.iter().copied()));
                model.cursor = Some(format!("{}", first + count));
                let block = store
                    .append(append_of(parts, &[("c", model.cursor.as_ref().unwrap())]))
                    .await
                    .unwrap()
                    .unwrap();
                assert_eq!(block.first_seq, first + 1);
            }
            Step::Commit {
                pipeline,
                above,
                count,
                seed,
            } => {
                let name = PIPELINES[pipeline];
                let Some(start) = model.outcomes.get(name).map(|_| {
                    model
                        .waiting(name)
                        .first()
                        .map_or(model.events.len() as u64, |first| first + above)
                }) else {
                    continue;
                };
                let range = start.max(1)..start.max(1) + count;
                let fate = |seq: u64| {
                    [Outcome::Delivered, Outcome::Dropped(1), Outcome::Dead(0)]
                        [Dice(seed ^ seq).roll(3) as usize]
                };
                let result = store
                    .commit(commit_of(&store, name, range.clone(), fate))
                    .await;
                let outcomes = model.outcomes.get_mut(name).unwrap();
                let allowed = range.end <= model.events.len() as u64 + 1
                    && !range.clone().any(|seq| outcomes.contains_key(&seq));
                if allowed {
                    result.unwrap();
                    outcomes.extend(range.map(|seq| (seq, fate(seq))));
                } else {
                    assert!(
                        matches!(result, Err(LedgerError::Conflict(_))),
                        "{range:?}: {result:?}"
                    );
                }
            }
            Step::Register { pipeline } => {
                let registration = register(&store, PIPELINES[pipeline], &[AUDIT]).await;
                model.outcomes.entry(PIPELINES[pipeline]).or_default();
                let progress = &registration.streams[0];
                let (waiting, next) = (
                    model.waiting(PIPELINES[pipeline]),
                    model.events.len() as u64 + 1,
                );
                assert_eq!(progress.watermark, waiting.first().copied().unwrap_or(next));
                let done: Vec<u64> = progress.done.iter().cloned().flatten().collect();
                let expected: Vec<u64> = (progress.watermark..next)
                    .filter(|seq| !waiting.contains(seq))
                    .collect();
                assert_eq!(done, expected);
            }
            Step::Reopen { clean } => {
                if clean {
                    store.close().await.unwrap();
                } else {
                    let mut failed = store.failed();
                    drop(store);
                    failed.wait_for(Option::is_some).await.unwrap();
                }
                store = Store::open(options()).unwrap();
                model.check(&store);
            }
        }
    }
    model.check(&store);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn the_books_balance_after_any_sequence_of_operations(steps in steps()) {
        let directory = tempfile::tempdir().unwrap();
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(run(directory.path(), steps));
    }
}
