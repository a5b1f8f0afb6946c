//! Memory that is promised to calls which others have kept from it.

use lockgate_model::contract::Holder;

use super::{Account, StageKey, is_large, key};
use crate::limits::KEPT_FOR_SMALLER;

/// Memory that a stage may count on for a call that is made again. A stage has one at a time.
pub(super) struct Promise {
    pub(super) id: u64,
    pub(super) to: StageKey,
    /// What the instances of the stage that are in use may have together.
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
    /// Bytes that an instance that needs this much must leave to other stages: what is promised to
    /// them, and they do not have yet. A slow call also leaves what is reserved for quick ones.
    pub(super) fn promised_to_others(
        &self,
        stage: &StageKey,
        needs: usize,
        is_slow: bool,
    ) -> usize {
        let reserved = match is_large(needs) {
            true => self.reserved_for_others(stage, is_slow),
            false => 0,
        };
        self.promised(stage, needs, |_| true) + reserved
    }

    /// The part of it that is promised out of the half of slow calls.
    pub(super) fn promised_of_half(&self, stage: &StageKey, needs: usize) -> usize {
        self.promised(stage, needs, |one| one.is_slow && !one.is_exempt)
    }

    /// The part of it that is promised to quick calls. None if the stage has been promised memory
    /// itself.
    pub(super) fn promised_by_quick(&self, stage: &StageKey, needs: usize) -> Option<usize> {
        let is_free = self.promise_to(stage).is_none();
        is_free.then(|| self.promised(stage, needs, |one| !one.is_slow))
    }

    fn promised(&self, stage: &StageKey, needs: usize, counts: impl Fn(&Promise) -> bool) -> usize {
        let least = |one: &Promise| match one.is_claim {
            true => KEPT_FOR_SMALLER[0].0,
            false => KEPT_FOR_SMALLER[KEPT_FOR_SMALLER.len() - 1].0,
        };
        // A claim does not bind a call that was promised its memory before.
        let own = self.promise_to(stage).filter(|own| needs <= own.bytes);
        let promises = self.promises.iter().filter(|one| {
            let is_later = one.is_claim && own.is_some();
            one.to != *stage && needs > least(one) && !is_later && counts(one)
        });
        promises
            .map(|one| one.bytes.saturating_sub(self.in_use_by(&one.to)))
            .sum()
    }

    /// Whether the stage of `holder` has been promised this much.
    pub(super) fn is_promised(&self, holder: &Holder, bytes: usize) -> bool {
        let mut promises = self.promises.iter();
        promises.any(|one| one.to == key(holder) && bytes <= one.bytes)
    }

    /// Whether another call is [`Allowance::Exempt`], or that has been promised to another stage.
    pub(super) fn exempts_another(&self, holder: &Holder) -> bool {
        let stage = key(holder);
        let is_promised = self.promise_to(&stage).is_some_and(|own| own.is_exempt);
        let mut promises = self.promises.iter();
        self.exempt.is_some()
            || !is_promised && promises.any(|one| one.is_exempt && one.to != stage)
    }

    /// What a stage has been promised, unless that is a claim.
    pub(super) fn promise_to(&self, stage: &StageKey) -> Option<&Promise> {
        let mut promises = self.promises.iter();
        promises.find(|one| one.to == *stage && !one.is_claim)
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
