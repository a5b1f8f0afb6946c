use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use lockgate_lookup::Lookups;
use lockgate_model::{Batch, BatchRecord, Commit, Seq, SeqRange};
use lockgate_runtime::{Context, Postponed};
use lockgate_store::{Ledger, Store, StoreError};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::backoff::backoff;
use crate::batcher::{self, BatchLimits};
use crate::clock::now;
use crate::delivery::{Delivered, Outlet, Stopping};
use crate::generation::Current;
use crate::progress::Progress;
use crate::stop::Stop;
use crate::work::Work;

/// Nothing is dispatched further than this past the watermark: 64 blocks of 512 events. It bounds
/// the done ranges that a commit saves.
const WINDOW: Seq = 64 * 512;

/// One pipeline on one stream: makes batches, keeps several in flight, commits each when it is
/// final.
pub(crate) struct Consumer {
    pub(crate) outlet: Arc<Outlet>,
    pub(crate) store: Store,
    pub(crate) stream: Arc<str>,
    pub(crate) source: Arc<str>,
    pub(crate) in_session_order: bool,
    pub(crate) epoch: u32,
    pub(crate) current: Current,
    pub(crate) limits: BatchLimits,
    /// A batch is closed at this age, however small it is.
    pub(crate) age: Duration,
    pub(crate) in_flight: usize,
    pub(crate) progress: Progress,
}

impl Consumer {
    /// Runs until stopped, or until the stream has `ended` and everything in it is final.
    ///
    /// Batches in flight finish first; those that are held are left waiting. Fails only with the
    /// store.
    pub(crate) async fn run(
        mut self,
        mut ended: watch::Receiver<bool>,
        mut stop: Stop,
    ) -> Result<(), StoreError> {
        let mut head = self.store.head(&self.stream);
        let mut next = self.progress.watermark();
        let mut waiting_since: Option<Instant> = None;
        let mut batches: JoinSet<Result<Option<SeqRange>, StoreError>> = JoinSet::new();
        loop {
            while let Some(finished) = batches.try_join_next() {
                self.settle(finished)?;
            }
            // In this order: what was appended before the end is then seen.
            let at_end = *ended.borrow_and_update();
            let end = *head.borrow_and_update();
            let gap = self.progress.gap(next);
            let available = end.min(gap.end).saturating_sub(gap.start);
            if stop.is_draining() || (at_end && available == 0 && gap.start >= end) {
                break;
            }
            let in_flight = if self.in_session_order {
                1
            } else {
                self.in_flight
            };
            let room = batches.len() < in_flight && gap.start < self.progress.watermark() + WINDOW;
            let mut deadline = None;
            if room && available > 0 {
                let since = *waiting_since.get_or_insert_with(Instant::now);
                let full = available >= self.limits.events as u64 || gap.end <= end || at_end;
                if full || since.elapsed() >= self.age {
                    waiting_since = None;
                    let batch = self.collect(gap.start..gap.end.min(end)).await?;
                    if !batch.is_empty() {
                        next = batch.range().end;
                        self.current.renew(&self.store).await?;
                        self.dispatch(batch, &mut batches, &stop);
                        continue;
                    }
                }
                deadline = Some(since + self.age);
            }
            tokio::select! {
                Some(finished) = batches.join_next() => self.settle(finished)?,
                changed = head.changed() => if changed.is_err() { break },
                Ok(()) = ended.changed() => {}
                () = async { tokio::time::sleep_until(deadline.unwrap_or_else(Instant::now)).await }, if deadline.is_some() => {}
                () = stop.draining() => {}
            }
        }
        while let Some(finished) = batches.join_next().await {
            self.settle(finished)?;
        }
        Ok(())
    }

    fn settle(
        &mut self,
        finished: Result<Result<Option<SeqRange>, StoreError>, tokio::task::JoinError>,
    ) -> Result<(), StoreError> {
        match finished {
            Ok(Ok(Some(range))) => self.progress.finish(range),
            // Left waiting: the next start sends it.
            Ok(Ok(None)) => {}
            Ok(Err(error)) => return Err(error),
            Err(panic) => {
                tracing::error!(pipeline = %self.outlet.pipeline, "a batch ended with a bug in the host and stays waiting: {panic}")
            }
        }
        Ok(())
    }

    async fn collect(&self, within: SeqRange) -> Result<Batch, StoreError> {
        let (store, stream) = (self.store.clone(), self.stream.clone());
        let mut limits = self.limits;
        // A receiver that answered 413 told its limit; stay below it rather than split every batch.
        limits.bytes = limits
            .bytes
            .min(
                self.outlet
                    .too_large
                    .load(Ordering::Relaxed)
                    .saturating_mul(3)
                    / 4,
            )
            .max(1);
        let collected = tokio::task::spawn_blocking(move || {
            batcher::collect(within, limits, |seq| store.block_at(&stream, seq))
        })
        .await;
        // A panic of the task goes on here.
        collected.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
    }

    fn dispatch(
        &self,
        batch: Batch,
        batches: &mut JoinSet<Result<Option<SeqRange>, StoreError>>,
        stop: &Stop,
    ) {
        let flight = Flight {
            outlet: self.outlet.clone(),
            store: self.store.clone(),
            stream: self.stream.clone(),
            source: self.source.clone(),
            in_session_order: self.in_session_order,
            epoch: self.epoch,
            generation: self.current.generation,
            lookups: self.current.lookups.clone(),
        };
        let (outlet, mut stop) = (self.outlet.clone(), stop.clone());
        outlet
            .board
            .pipeline(&outlet.pipeline, |state| state.in_flight += 1);
        batches.spawn(async move {
            let mut waits = backoff();
            let result = loop {
                // A task of its own, ended with this one: a bug must not leave a hole in the stream
                // that nobody fills.
                let mut attempt = JoinSet::new();
                attempt.spawn(flight.clone().fly(batch.clone(), stop.clone()));
                match attempt.join_next().await {
                    Some(Ok(Ok(None))) if !stop.is_draining() => {}
                    Some(Ok(result)) => break result,
                    Some(Err(panic)) => {
                        tracing::error!(pipeline = %outlet.pipeline, "a bug in the host: {panic}")
                    }
                    None => {}
                }
                let message = "a batch ended with a bug in the host; it is tried again";
                if outlet
                    .wait_after(message, None, &mut waits, &mut stop)
                    .await
                    .is_err()
                {
                    break Ok(None);
                }
            };
            outlet.board.pipeline(&outlet.pipeline, |state| {
                state.in_flight -= 1;
                if let Ok(Some(range)) = &result {
                    state.finished += range.end - range.start;
                }
            });
            result
        });
    }
}

/// One batch in flight.
#[derive(Clone)]
struct Flight {
    outlet: Arc<Outlet>,
    store: Store,
    stream: Arc<str>,
    source: Arc<str>,
    in_session_order: bool,
    epoch: u32,
    generation: u32,
    lookups: Lookups,
}

impl Flight {
    /// The finished range, or `None` where the batch was left waiting.
    async fn fly(self, batch: Batch, mut stop: Stop) -> Result<Option<SeqRange>, StoreError> {
        let range = batch.range();
        let id = format!(
            "{}/{}/{}-{}",
            self.outlet.pipeline,
            self.stream,
            range.start,
            range.end - 1
        );
        let read_at = batch.slices.last().map_or(0, |slice| slice.block.read_at);
        let lookups = self.lookups.clone();
        let context = Context {
            batch: id.clone(),
            pipeline: self.outlet.pipeline.clone(),
            source: self.source.clone(),
            read_at,
            lookups,
        };
        let Ok((mut work, delivered)) = self.deliver(batch, &context, &mut stop).await else {
            return Ok(None);
        };
        for (document, fate) in delivered.fates {
            work.settle(document, self.outlet.chain.sink().label(), fate);
        }
        if !work.open().is_empty() {
            tracing::error!(pipeline = %self.outlet.pipeline, batch = id, "a bug in the host: documents without a fate");
            return Ok(None);
        }
        let finished = work.finish();
        for letter in &finished.dead {
            tracing::warn!(
                pipeline = %self.outlet.pipeline, stream = %self.stream, seq = letter.seq, key = letter.key, cause = letter.cause,
                "dead letter: {}", letter.reason
            );
        }
        let commit = Commit {
            pipeline: self.outlet.pipeline.clone(),
            stream: self.stream.clone(),
            epoch: self.epoch,
            generation: self.generation,
            range: range.clone(),
            outcomes: finished.outcomes,
            reasons: finished.reasons,
            days: finished.days,
            batch: BatchRecord {
                id,
                at: now(),
                requests: delivered.requests,
            },
            dead: finished.dead,
            state: Vec::new(),
        };
        self.store.commit(commit).await?;
        Ok(Some(range))
    }

    async fn deliver(
        &self,
        batch: Batch,
        context: &Context,
        stop: &mut Stop,
    ) -> Result<(Work, Delivered), Stopping> {
        let work = Arc::new(self.prepare(batch, context, stop).await?);
        let encoded = self
            .outlet
            .encode(&work, work.open(), context, stop)
            .await?;
        let delivered = self
            .outlet
            .deliver(&work, encoded, self.in_session_order, context, stop)
            .await?;
        // Every task that shared it has ended.
        let work = Arc::into_inner(work).ok_or(Stopping)?;
        Ok((work, delivered))
    }

    /// Filters and mappers. A plugin that says `retryable` gets the same batch again.
    async fn prepare(
        &self,
        batch: Batch,
        context: &Context,
        stop: &mut Stop,
    ) -> Result<Work, Stopping> {
        let mut waits = backoff();
        loop {
            let (chain, batch, context) =
                (self.outlet.chain.clone(), batch.clone(), context.clone());
            let applied = self.outlet.queue.run(move || {
                let mut work = Work::new(batch);
                chain.apply(&mut work, &context).map(|()| work)
            });
            match applied.await.map(|ran| ran.result) {
                Ok(Ok(work)) => return Ok(work),
                Ok(Err(Postponed { message, after })) => {
                    self.outlet
                        .wait_after(&message, after, &mut waits, stop)
                        .await?
                }
                Err(error) => {
                    self.outlet
                        .wait_after(&error.to_string(), None, &mut waits, stop)
                        .await?
                }
            }
        }
    }
}
