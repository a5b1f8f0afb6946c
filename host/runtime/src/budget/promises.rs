//! Memory that is promised to calls which others have kept from it.

use lockgate_model::contract::Holder;

use super::{Account, StageKey, key};
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
    /// Bytes that are promised to other stages, that these do not have yet, and that an instance
    /// that needs this much must leave to them. `of_slow`: only what is promised out of the half of
    /// slow calls.
    pub(super) fn promised_to_others(
        &self,
        stage: &StageKey,
        needs: usize,
        of_slow: bool,
    ) -> usize {
        let least = |one: &Promise| match one.is_claim {
            true => KEPT_FOR_SMALLER[0].0,
            false => KEPT_FOR_SMALLER[KEPT_FOR_SMALLER.len() - 1].0,
        };
        let promises = self.promises.iter().filter(|one| {
            one.to != *stage && needs > least(one) && (!of_slow || one.is_slow && !one.is_exempt)
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
        let mut promises = self.promises.iter();
        self.exempt.is_some() || promises.any(|one| one.is_exempt && one.to != key(holder))
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
