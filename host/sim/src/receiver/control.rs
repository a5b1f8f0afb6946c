//! What tests and operators change while a receiver runs.

use std::fs::File;
use std::io::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};

use super::documents::Documents;
use super::schedule::Answers;
use super::tally::Tally;
use super::{Schedule, Totals};
use crate::listener::Connections;

/// A handle on a running receiver; clones act on the same one.
#[derive(Clone)]
pub struct Control {
    pub(super) shared: Arc<Shared>,
    pub(super) connections: Connections,
}

pub(super) struct Shared {
    state: Mutex<State>,
    release: Notify,
    distinct: watch::Sender<u64>,
    capture: Option<Mutex<File>>,
    seed: u64,
}

struct State {
    answers: Answers,
    latency: Duration,
    tally: Tally,
    hang: u64,
    lose: u64,
}

/// What to do with one request.
pub(super) struct Plan {
    pub(super) status: u16,
    pub(super) latency: Duration,
    pub(super) hang: bool,
    pub(super) lose: bool,
}

impl Control {
    pub fn set_status(&self, schedule: Schedule) {
        let seed = self.shared.seed;
        self.shared.state().answers = Answers::new(schedule, seed);
    }

    /// How long each answer waits.
    pub fn set_latency(&self, latency: Duration) {
        self.shared.state().latency = latency;
    }

    /// The next `count` requests are read and then held, neither counted nor answered, until [`Self::release`].
    pub fn hang_next(&self, count: u64) {
        self.shared.state().hang = count;
    }

    /// Lets the held requests go on.
    pub fn release(&self) {
        self.shared.state().hang = 0;
        self.shared.release.notify_waiters();
    }

    /// The next `count` requests are taken and counted, but their connections close without an answer: the sender has to send again.
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

    /// Waits until so many different documents have arrived.
    pub async fn reached(&self, distinct: u64) {
        // The sender lives as long as `self`, so waiting cannot fail.
        let _ = self.shared.distinct.subscribe().wait_for(|seen| *seen >= distinct).await;
    }
}

impl Shared {
    pub(super) fn new(schedule: Schedule, latency: Duration, capture: Option<File>, seed: u64) -> Shared {
        let answers = Answers::new(schedule, seed);
        Shared {
            state: Mutex::new(State { answers, latency, tally: Tally::default(), hang: 0, lose: 0 }),
            release: Notify::new(),
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
        Plan { status: state.answers.next(), latency: state.latency, hang, lose }
    }

    pub(super) async fn released(&self) {
        self.release.notified().await;
    }

    /// Counts documents and writes them to the capture file. They are on their way to the disk before the sender hears of it.
    pub(super) fn accept(&self, path: &str, documents: &Documents) -> std::io::Result<()> {
        if let Some(capture) = &self.capture {
            capture.lock().unwrap_or_else(PoisonError::into_inner).write_all(&documents.lines)?;
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
