//! Memory that is promised to calls which others have kept from it.

use lockgate_model::contract::Holder;

use super::{Account, PipelineName, is_large};
use crate::limits::KEPT_FOR_SMALLER;

/// Memory that a pipeline may count on for a call that is made again. It has one at a time.
pub(super) struct Promise {
    pub(super) id: u64,
    pub(super) to: PipelineName,
    /// What the instances of the pipeline that are in use may have together.
    pub(super) bytes: usize,
    /// The call is slow.
    pub(super) is_slow: bool,
    /// Its call may be [`Allowance::Exempt`].
    pub(super) is_exempt: bool,
    /// It was made before there was room for it. It binds only instances above the largest size in
    /// [`KEPT_FOR_SMALLER`]: what is kept for smaller ones is not kept for it.
    pub(super) is_claim: bool,
}

impl Account {
    /// Bytes that an instance that needs this much must leave to other pipelines: what is promised
    /// to them, and they do not have yet. A slow call also leaves what is reserved for quick ones.
    pub(super) fn promised_to_others(
        &self,
        pipeline: &PipelineName,
        needs: usize,
        is_slow: bool,
    ) -> usize {
        let reserved = match is_large(needs) {
            true => self.reserved_for_others(pipeline, is_slow),
            false => 0,
        };
        self.promised(pipeline, needs, |_| true) + reserved
    }

    /// The part of it that is promised out of the half of slow calls.
    pub(super) fn promised_of_half(&self, pipeline: &PipelineName, needs: usize) -> usize {
        self.promised(pipeline, needs, |one| one.is_slow && !one.is_exempt)
    }

    /// The part of it that is promised to quick calls. None if the pipeline has been promised
    /// memory itself.
    pub(super) fn promised_by_quick(&self, pipeline: &PipelineName, needs: usize) -> Option<usize> {
        let is_free = self.promise_to(pipeline).is_none();
        is_free.then(|| self.promised(pipeline, needs, |one| !one.is_slow))
    }

    fn promised(
        &self,
        pipeline: &PipelineName,
        needs: usize,
        counts: impl Fn(&Promise) -> bool,
    ) -> usize {
        let least = |one: &Promise| match one.is_claim {
            true => KEPT_FOR_SMALLER[0].0,
            false => KEPT_FOR_SMALLER[KEPT_FOR_SMALLER.len() - 1].0,
        };
        // A claim does not bind a call that was promised its memory before.
        let own = self.promise_to(pipeline).filter(|own| needs <= own.bytes);
        let promises = self.promises.iter().filter(|one| {
            let is_later = one.is_claim && own.is_some();
            one.to != *pipeline && needs > least(one) && !is_later && counts(one)
        });
        promises
            .map(|one| one.bytes.saturating_sub(self.in_use_by(&one.to)))
            .sum()
    }

    /// Whether the pipeline of `holder` has been promised this much.
    pub(super) fn is_promised(&self, holder: &Holder, bytes: usize) -> bool {
        let mut promises = self.promises.iter();
        promises.any(|one| one.to == holder.pipeline && bytes <= one.bytes)
    }

    /// Whether another call is [`Allowance::Exempt`], or that has been promised to another
    /// pipeline.
    pub(super) fn exempts_another(&self, holder: &Holder) -> bool {
        let pipeline = &holder.pipeline;
        let is_promised = (self.promise_to(pipeline)).is_some_and(|own| own.is_exempt);
        let mut promises = self.promises.iter();
        self.exempt.is_some()
            || !is_promised && promises.any(|one| one.is_exempt && one.to != *pipeline)
    }

    /// What a pipeline has been promised, unless that is a claim.
    pub(super) fn promise_to(&self, pipeline: &PipelineName) -> Option<&Promise> {
        let mut promises = self.promises.iter();
        promises.find(|one| one.to == *pipeline && !one.is_claim)
    }

    pub(super) fn promise(&mut self, promise: Promise) -> u64 {
        let id = self.next_promise;
        self.next_promise += 1;
        self.promises.push(Promise { id, ..promise });
        id
    }

    pub(super) fn take_back(&mut self, promise: u64) {
        self.promises.retain(|one| one.id != promise);
    }
}
