//! A child process that works until it is killed or the disk is full: appends from three tasks,
//! commits from one, and says on its standard output what was acknowledged. And how its parent
//! holds it to that.

#![allow(
    clippy::disallowed_methods,
    reason = "the test starts itself as a child and passes it the directory by a variable"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use lockgate_model::Outcome;
use lockgate_store::{DeadLetters, Inspector, Ledger, LedgerError, Options, Retention, Store};

use crate::common::*;

pub const DIRECTORY: &str = "LOCKGATE_STORE_TEST_DIRECTORY";
const READERS: u64 = 3;

/// Not a test of its own: what the re-executed test binary runs, see `kill.rs` and `full.rs`.
#[test]
fn child_process() {
    if let Some(directory) = std::env::var_os(DIRECTORY) {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .build()
            .unwrap();
        runtime.block_on(work(Path::new(&directory)));
    }
}

pub const FOLDING: &str = "LOCKGATE_STORE_TEST_FOLDING";

/// The same: events are removed as soon as they are finished, and their commits folded.
#[test]
fn folding_child_process() {
    if let Some(directory) = std::env::var_os(FOLDING) {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_time()
            .build()
            .unwrap();
        runtime.block_on(fold(Path::new(&directory)));
    }
}

/// Keeps nothing that is finished.
pub fn forgetful(directory: &Path) -> Options {
    Options {
        retention: Retention {
            age: Some(Duration::from_secs(3600)),
            bytes: None,
        },
        clock: Arc::new(|| DAY + 7_200_000),
        elapsed: hours_at_each_call(),
        fold_links: 8,
        ..options(directory)
    }
}

/// Appends and finishes, and does what an operator does to letters, with pauses in which the store
/// folds.
async fn fold(directory: &Path) {
    let store = Store::open(forgetful(directory)).unwrap();
    let mut next = register(&store, "siem", &[AUDIT]).await.streams[0].watermark;
    let mut dice = Dice(next);
    // What a kill left unfinished.
    let head = *store.head(AUDIT).borrow();
    loop {
        if next >= head.max(*store.head(AUDIT).borrow()) {
            append(&store, dice.roll(30) + 1).await;
        }
        let end = (next + dice.roll(12) + 1).min(*store.head(AUDIT).borrow());
        let fate = |seq: u64| {
            if seq.is_multiple_of(7) {
                Outcome::Dead(1)
            } else {
                Outcome::Dropped((seq % 2) as u16)
            }
        };
        store
            .commit(commit_of(&store, "siem", next..end, fate))
            .await
            .unwrap();
        next = end;
        let letters = letters_of(store.reads(), "siem", 50).unwrap();
        if let Some(letter) = letters.last().filter(|_| dice.roll(3) == 0) {
            let seqs = [letter.letter.seq];
            match dice.roll(3) {
                0 => store.drop_letters("siem", AUDIT, &seqs, DAY).await.unwrap(),
                1 => drop(store.expire_letters("siem", DAY + 1, DAY).await.unwrap()),
                _ => store.retry("siem", AUDIT, &seqs, DAY).await.unwrap(),
            }
        }
        say(&format!("F {end}"));
        tokio::time::sleep(Duration::from_millis(dice.roll(3))).await;
    }
}

async fn work(directory: &Path) {
    let store = match Store::open(options(directory)) {
        Ok(store) => store,
        Err(error) if error.is_full() => return say("FULL"),
        Err(error) => return say(&format!("BROKEN {error}")),
    };
    let results = tokio::join!(
        read(&store, 0),
        read(&store, 1),
        read(&store, 2),
        finish(&store)
    );
    for error in [results.0, results.1, results.2, results.3] {
        say(&if error.is_full() {
            "FULL".to_owned()
        } else {
            format!("BROKEN {error}")
        });
    }
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    // The parent may be gone.
    let _ = writeln!(out, "\n{line}").and_then(|()| out.flush());
}

/// Appends from where its cursor stands: what a reader does after a restart.
async fn read(store: &Store, reader: u64) -> LedgerError {
    let cursor = format!("reader-{reader}");
    let cursors = match store.reads().cursors("teleport") {
        Ok(cursors) => cursors,
        Err(error) => return error,
    };
    let mut next: u64 = cursors
        .get(&cursor)
        .map_or(0, |cursor| cursor.parse().unwrap());
    let mut dice = Dice(next * READERS + reader);
    loop {
        let count = dice.roll(40) + 1;
        let keys: Vec<String> = (next..next + count)
            .map(|nth| format!("{reader}-{nth}"))
            .collect();
        let filler: String = (0..dice.roll(2000))
            .map(|_| (b'a' + dice.roll(26) as u8) as char)
            .collect();
        let parts = events(&keys, |key| {
            format!(r#"{{"uid":"{key}","filler":"{filler}"}}"#)
        });
        match store
            .append(append_of(parts, &[(&cursor, &format!("{}", next + count))]))
            .await
        {
            Ok(_) => say(&format!("A {reader} {}", next + count)),
            Err(error) => return error,
        }
        next += count;
    }
}

/// Finishes what waits in pieces, out of order.
async fn finish(store: &Store) -> LedgerError {
    let generation = lockgate_model::Generation {
        pipeline: "siem".into(),
        description: "{}".into(),
    };
    let mut progress = match store.register(generation, &[AUDIT.to_owned()], DAY).await {
        Ok(mut registration) => registration.streams.remove(0),
        Err(error) => return error,
    };
    let mut head = store.head(AUDIT);
    let mut done: BTreeSet<u64> = progress.done.drain(..).flatten().collect();
    let (mut watermark, mut dice) = (progress.watermark, Dice(progress.watermark));
    loop {
        let mut failed = store.failed();
        let next = tokio::select! {
            next = head.wait_for(|next| *next > watermark + 20) => *next.unwrap(),
            error = failed.wait_for(Option::is_some) => return error.unwrap().clone().unwrap(),
        };
        let mut start = watermark + dice.roll(20);
        while done.contains(&start) {
            start += 1;
        }
        let end = (start + 1..=start + dice.roll(30))
            .take_while(|seq| *seq < next && !done.contains(seq))
            .last()
            .unwrap_or(start)
            + 1;
        if end > next {
            start = watermark;
        }
        let end = end.min(next);
        let fate = |seq| {
            [Outcome::Delivered, Outcome::Dropped(0), Outcome::Dead(1)]
                [if seq % 7 == 0 { 2 } else { (seq % 2) as usize }]
        };
        let commit = match try_commit_of(store, "siem", start..end, fate) {
            Ok(commit) => commit,
            Err(error) => return error,
        };
        match store.commit(commit).await {
            Ok(_) => say(&format!("C {start} {end}")),
            Err(error) => return error,
        }
        done.extend(start..end);
        while done.remove(&watermark) {
            watermark += 1;
        }
    }
}

/// Everything that children said was acknowledged.
#[derive(Default)]
pub struct Acknowledged {
    cursors: BTreeMap<u64, u64>,
    commits: Vec<(u64, u64)>,
}

impl Acknowledged {
    /// False for a line that says something else.
    pub fn hear(&mut self, line: &str) -> bool {
        let mut words = line.split(' ');
        let kind = words.next();
        let numbers: Vec<u64> = words.filter_map(|word| word.parse().ok()).collect();
        match (kind, &numbers[..]) {
            (Some("A"), &[reader, cursor]) => drop(self.cursors.insert(reader, cursor)),
            (Some("C"), &[start, end]) => self.commits.push((start, end)),
            _ => return false,
        }
        true
    }

    pub fn len(&self) -> usize {
        self.commits.len() + self.cursors.values().sum::<u64>() as usize
    }

    /// Opens the store that is left, and closes it again.
    pub async fn check(&self, directory: &Path) {
        if self.len() == 0 && !directory.join("store.db").exists() {
            // There was no room for a store at all. Now there is.
            return Store::open(options(directory))
                .unwrap()
                .close()
                .await
                .unwrap();
        }
        // An auditor may look first, at what the killed process left.
        let before = Inspector::open(directory).unwrap().streams().unwrap();
        let store = Store::open(Options {
            tail_bytes: 0,
            ..options(directory)
        })
        .unwrap();
        assert_eq!(store.reads().streams().unwrap(), before);
        // 1: a cursor never passes an event that is not on disk, and none is there twice.
        let mut seen: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
        let (mut seq, head) = (1, *store.head(AUDIT).borrow());
        while seq < head {
            let block = store.block_at(AUDIT, seq).unwrap().unwrap();
            assert_eq!(block.first_seq, seq);
            for row in 0..block.len() {
                let (reader, nth) = block.view(row).key.split_once('-').unwrap();
                seen.entry(reader.parse().unwrap())
                    .or_default()
                    .push(nth.parse().unwrap());
            }
            seq = block.range().end;
        }
        let cursors = store.reads().cursors("teleport").unwrap();
        for (reader, mut nths) in seen {
            let cursor: u64 = cursors[&format!("reader-{reader}")].parse().unwrap();
            nths.sort_unstable();
            assert!(
                nths.into_iter().eq(0..cursor),
                "reader {reader} at {cursor}"
            );
        }
        for (reader, acknowledged) in &self.cursors {
            let cursor: u64 = cursors[&format!("reader-{reader}")].parse().unwrap();
            assert!(
                cursor >= *acknowledged,
                "reader {reader}: {cursor} < {acknowledged}"
            );
        }
        // 2 and 3: outcomes are there once, and the books balance.
        if !self.commits.is_empty() {
            for &(start, end) in &self.commits {
                let again = deliver(&store, "siem", start..end).await;
                assert!(
                    matches!(again, Err(LedgerError::Conflict(_))),
                    "{start}..{end}: {again:?}"
                );
            }
            let books = store.reads().books("siem").unwrap()[0].1;
            assert!(
                books.balance() && books.read == head - 1,
                "{books:?} at {head}"
            );
            let final_ones = books.delivered + books.dropped + books.dead;
            assert!(
                final_ones >= self.commits.iter().map(|(start, end)| end - start).sum(),
                "{books:?}"
            );
            assert_eq!(
                letters_of(store.reads(), "siem", usize::MAX).unwrap().len() as u64,
                books.dead
            );
            let days = store.reads().days("siem").unwrap();
            assert!(days.iter().all(|(_, books)| books.balance()), "{days:?}");
            store.reads().verify_chain("siem").unwrap();
        }
        store.close().await.unwrap();
    }
}
