//! The generation of a pipeline: a new one begins when a granted database is replaced.

use std::sync::Arc;

use lockgate_ledger::{Ledger, LedgerError, Registration};
use lockgate_lookup::{Databases, Lookups};
use lockgate_model::{Day, Generation};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::blocking::blocking;
use crate::clock::now;
use crate::limits::DATABASE_CHECK_INTERVAL;

/// All that decides a pipeline's output besides the events.
#[derive(Clone, Debug)]
pub(crate) struct Description {
    /// Digests and `with` tables of its components.
    pub(crate) components: Value,
    /// One of them looks things up.
    pub(crate) looks_up: bool,
}

impl Description {
    /// Equal text is the same generation.
    pub(crate) fn text(&self, lookups: &Lookups) -> String {
        let mut all = self.components.clone();
        if self.looks_up {
            all["lookup"] = json!(lookups.digests());
        }
        all.to_string()
    }
}

/// The generation that a pipeline's batches are made in. There is a new one when a database that it
/// looks things up in was replaced.
#[derive(Clone, Debug)]
pub(crate) struct CurrentGeneration {
    pub(crate) generation: u32,
    pub(crate) lookups: Lookups,
    pipeline: Arc<str>,
    streams: Arc<[String]>,
    description: Description,
    granted: watch::Receiver<Lookups>,
}

impl CurrentGeneration {
    /// Makes the pipeline known to the store.
    pub(crate) async fn register<L: Ledger>(
        ledger: &L,
        pipeline: Arc<str>,
        streams: Vec<String>,
        description: Description,
        mut granted: watch::Receiver<Lookups>,
    ) -> Result<(CurrentGeneration, Registration), LedgerError> {
        let lookups = granted.borrow_and_update().clone();
        let mut current = CurrentGeneration {
            generation: 0,
            lookups,
            pipeline,
            streams: streams.into(),
            description,
            granted,
        };
        let registration = current.register_again(ledger).await?;
        Ok((current, registration))
    }

    /// Before each batch.
    pub(crate) async fn renew<L: Ledger>(&mut self, ledger: &L) -> Result<(), LedgerError> {
        if !self.description.looks_up || !self.granted.has_changed().unwrap_or(false) {
            return Ok(());
        }
        self.lookups = self.granted.borrow_and_update().clone();
        self.register_again(ledger).await.map(|_| ())
    }

    async fn register_again<L: Ledger>(&mut self, ledger: &L) -> Result<Registration, LedgerError> {
        let generation = Generation {
            pipeline: self.pipeline.clone(),
            description: self.description.text(&self.lookups),
        };
        let registration = ledger.register(generation, &self.streams, now()).await?;
        self.generation = registration.generation;
        Ok(registration)
    }
}

/// Looks at the granted files for as long as it is polled, and publishes new content.
pub(crate) async fn keep_current(mut databases: Databases, granted: watch::Sender<Lookups>) {
    if databases.is_fixed() {
        return;
    }
    let mut ticks = tokio::time::interval(DATABASE_CHECK_INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let refreshed;
        (databases, refreshed) = blocking(move || {
            let refreshed = databases.refresh();
            (databases, refreshed)
        })
        .await;
        for error in &refreshed.failed {
            tracing::error!(
                "the database granted as `{}` has changed and cannot be used; keeping the previous \
                 one: {error}",
                error.database
            );
        }
        for replaced in &refreshed.replaced {
            tracing::info!(
                sha256 = replaced.digest,
                "the database granted as `{}` was replaced by a `{}` of {}; batches from now on \
                 are a new generation",
                replaced.database,
                replaced.kind,
                Day::of(replaced.built.saturating_mul(1000) as i64)
            );
        }
        if !refreshed.replaced.is_empty() {
            granted.send_replace(databases.lookups());
        }
    }
}
