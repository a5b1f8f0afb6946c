//! Changes to a running receiver.

use std::fs::File;
use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};

use super::documents::Documents;
use super::fault::{Fault, Rule};
use super::schedule::Answers;
use super::tally::Tally;
use super::{Schedule, Totals};
use crate::listener::Connections;

/// A handle on a running receiver. Clones control the same receiver.
#[derive(Clone)]
pub struct ReceiverControl {
    pub(super) shared: Arc<Shared>,
    pub(super) connections: Connections,
}

pub(super) struct Shared {
    state: Mutex<State>,
    release: Notify,
    holding: AtomicU64,
    distinct: watch::Sender<u64>,
    /// The capture file, and how many more lines to write.
    capture: Option<Mutex<(File, u64)>>,
    seed: u64,
}

struct State {
    answers: Answers,
    latency: Duration,
    tally: Tally,
    hang: u64,
    lose: u64,
    rules: Vec<Rule>,
}

/// How to treat one request.
pub(super) struct Plan {
    pub(super) status: u16,
    pub(super) latency: Duration,
    pub(super) hang: bool,
    pub(super) lose: bool,
}

impl ReceiverControl {
    pub fn set_status(&self, schedule: Schedule) {
        let seed = self.shared.seed;
        self.shared.state().answers = Answers::new(schedule, seed);
    }

    /// Replaces all rules. For a request that the schedule accepts, the first rule that it matches
    /// decides. What is held stays held until [`Self::release`].
    pub fn set_rules(&self, rules: Vec<Rule>) {
        self.shared.state().rules = rules;
    }

    /// Sets the delay before each answer.
    pub fn set_latency(&self, latency: Duration) {
        self.shared.state().latency = latency;
    }

    /// The next `count` requests are read and then held, neither counted nor answered, until
    /// [`Self::release`].
    pub fn hang_next(&self, count: u64) {
        self.shared.state().hang = count;
    }

    /// How many requests are held now.
    pub fn holding(&self) -> u64 {
        self.shared.holding.load(Ordering::Relaxed)
    }

    /// Releases the held requests.
    pub fn release(&self) {
        self.shared.state().hang = 0;
        self.shared.release.notify_waiters();
    }

    /// The next `count` requests are accepted and counted, but their connections close without an
    /// answer, so the sender must send again.
    pub fn lose_next_answers(&self, count: u64) {
        self.shared.state().lose = count;
    }

    /// Cuts every connection; new ones are accepted.
    pub fn drop_connections(&self) {
        self.connections.drop_all();
    }

    pub fn totals(&self) -> Totals {
        self.shared.totals()
    }

    /// Waits until this many distinct documents have arrived.
    pub async fn reached(&self, distinct: u64) {
        // The sender lives as long as `self`, so waiting cannot fail.
        let _ = self
            .shared
            .distinct
            .subscribe()
            .wait_for(|seen| *seen >= distinct)
            .await;
    }
}

impl Shared {
    pub(super) fn new(
        schedule: Schedule,
        latency: Duration,
        capture: Option<(File, u64)>,
        seed: u64,
    ) -> Shared {
        let answers = Answers::new(schedule, seed);
        Shared {
            state: Mutex::new(State {
                answers,
                latency,
                tally: Tally::default(),
                hang: 0,
                lose: 0,
                rules: Vec::new(),
            }),
            release: Notify::new(),
            holding: AtomicU64::new(0),
            distinct: watch::Sender::new(0),
            capture: capture.map(Mutex::new),
            seed,
        }
    }

    pub(super) fn captures(&self) -> bool {
        self.capture.is_some()
    }

    pub(super) fn plan(&self) -> Plan {
        let mut state = self.state();
        let (hang, lose) = (state.hang > 0, state.lose > 0);
        state.hang = state.hang.saturating_sub(1);
        state.lose = state.lose.saturating_sub(1);
        Plan {
            status: state.answers.next(),
            latency: state.latency,
            hang,
            lose,
        }
    }

    pub(super) fn fault(&self, path: &str, body: &[u8], documents: usize) -> Option<Fault> {
        let state = self.state();
        let rule = state
            .rules
            .iter()
            .find(|rule| rule.matches(path, body, documents));
        rule.map(|rule| rule.fault)
    }

    /// Holds a request until [`ReceiverControl::release`] or until its connection closes. It is
    /// counted as soon as a release would reach it.
    pub(super) async fn hold(&self) {
        struct Held<'a>(&'a AtomicU64);
        impl Drop for Held<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::Relaxed);
            }
        }

        let mut released = std::pin::pin!(self.release.notified());
        released.as_mut().enable();
        self.holding.fetch_add(1, Ordering::Relaxed);
        let _held = Held(&self.holding);
        released.await;
    }

    /// Counts documents and writes them to the capture file before the sender gets its answer.
    pub(super) fn accept(&self, path: &str, documents: &Documents) -> std::io::Result<()> {
        if let Some(capture) = &self.capture {
            let (file, left) = &mut *capture.lock().unwrap_or_else(PoisonError::into_inner);
            if *left > 0 {
                let lines = documents
                    .lines
                    .split_inclusive(|&byte| byte == b'\n')
                    .take(usize::try_from(*left).unwrap_or(usize::MAX));
                let (count, bytes) = lines.fold((0, 0), |(count, bytes), line| {
                    (count + 1, bytes + line.len())
                });
                file.write_all(&documents.lines[..bytes])?;
                *left -= count;
            }
        }
        let distinct = {
            let mut state = self.state();
            state.tally.accept(path, &documents.ids);
            state.tally.totals().distinct
        };
        self.distinct.send_if_modified(|seen| {
            let more = distinct > *seen;
            *seen = distinct.max(*seen);
            more
        });
        Ok(())
    }

    pub(super) fn refuse(&self, path: &str) {
        self.state().tally.refuse(path);
    }

    pub(super) fn totals(&self) -> Totals {
        self.state().tally.totals().clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
