//! Earlier refusals and failures of a request's documents, and the evidence against them.

use crate::Uptime;
use crate::answer::FailureKind;
use crate::index::RequestId;
use crate::limits::{FAILING_MAX, FAILURES_BEFORE_SPLIT, REFUSALS_MAX, REFUSALS_TOO_LARGE_MAX};

#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    /// Answers that may have been its documents' fault.
    pub(crate) failures: u32,
    first_failed: Option<Uptime>,
    accepted_at_failure: u64,
    /// Others were accepted after it had failed.
    fails_alone: bool,
    /// How it failed last.
    last_failure: Option<FailureKind>,
    /// The failure to expect, from the request that it was split from.
    expected: Option<FailureKind>,
    /// The request that it was split from, if that got no answer in time.
    half_of: Option<RequestId>,
    /// A request that held its documents was refused.
    is_part_of_refused: bool,
    /// Times that it was refused alone with evidence, and the first time.
    proven_refusals: u32,
    accepted_at_refusal: u64,
    /// Times that it was refused alone.
    refusals: u32,
    refused_since: Option<Uptime>,
    /// The last answer.
    pub(crate) message: String,
}

/// The state of an endpoint when it refuses or fails.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EndpointSnapshot {
    /// Answers of the endpoint that accepted documents so far.
    pub(crate) accepted: u64,
    /// The operator lets documents like this be dead-lettered without evidence.
    pub(crate) is_released: bool,
}

/// A document that the receiver will not take, as far as can be known.
#[derive(Debug)]
pub(crate) struct Undeliverable {
    pub(crate) reason: String,
    /// When it was refused, or failed, for the first time.
    pub(crate) since: Uptime,
}

/// Whether a document that has been failing since then has failed for too long.
pub(crate) fn is_too_long(now: Uptime, since: Uptime) -> bool {
    now >= since + FAILING_MAX
}

impl History {
    /// The history of documents that the sink wants sent again. `accepted`: how many answers of the
    /// endpoint accepted documents, this one included.
    pub(crate) fn after_part(
        &self,
        now: Uptime,
        took_some: bool,
        accepted: u64,
        message: String,
    ) -> History {
        let (first_failed, accepted_at_failure) = match self.first_failed {
            Some(first) => (first, self.accepted_at_failure),
            None => (now, accepted),
        };
        History {
            failures: if took_some { 0 } else { self.failures + 1 },
            first_failed: Some(first_failed),
            accepted_at_failure,
            message,
            ..History::default()
        }
    }

    /// Of one half of the documents.
    pub(crate) fn of_half(&self, whole: RequestId) -> History {
        let expected = self.last_failure.filter(|_| self.fails_often());
        History {
            expected,
            half_of: (expected == Some(FailureKind::Slow)).then_some(whole),
            is_part_of_refused: self.is_part_of_refused,
            first_failed: self.first_failed,
            accepted_at_failure: self.accepted_at_failure,
            message: self.message.clone(),
            ..History::default()
        }
    }

    /// When it was refused, or failed, for the first time.
    pub(crate) fn since(&self) -> Option<Uptime> {
        self.refused_since.or(self.first_failed)
    }

    /// The more of them, the likelier it is at fault itself.
    pub(crate) fn failed_attempts(&self) -> u32 {
        self.failures + self.refusals
    }

    /// Several documents were refused together.
    pub(crate) fn refuse_together(&mut self) {
        self.is_part_of_refused = true;
    }

    /// Nothing is known against its documents.
    pub(crate) fn is_clean(&self) -> bool {
        !self.is_part_of_refused && self.failed_attempts() == 0
    }

    /// Times that it was refused alone.
    pub(crate) fn refusal_count(&self) -> u32 {
        self.refusals
    }

    /// A single document was refused.
    pub(crate) fn refuse(
        &mut self,
        now: Uptime,
        message: &str,
        is_too_large: bool,
        endpoint: EndpointSnapshot,
    ) -> Option<Undeliverable> {
        let EndpointSnapshot {
            accepted,
            is_released,
        } = endpoint;
        let since = *self.refused_since.get_or_insert(now);
        self.refusals += 1;
        message.clone_into(&mut self.message);
        // An answer that blames the size needs no acceptance after it, but one at all.
        let has_evidence = self.proven_refusals > 0
            && (accepted > self.accepted_at_refusal || is_too_large && accepted > 0);
        if self.proven_refusals == 0 || has_evidence {
            self.proven_refusals += 1;
            self.accepted_at_refusal = accepted;
        }
        let most = if is_too_large {
            REFUSALS_TOO_LARGE_MAX
        } else {
            REFUSALS_MAX
        };
        let is_proved = self.proven_refusals > most || has_evidence && self.proven_refusals == most;
        let is_given_up = is_released && self.refusals >= most;
        if !is_proved && !is_given_up {
            return None;
        }
        let reason = if !is_proved {
            let refusals = self.refusals;
            format!("the receiver refused it {refusals} times, and it was released: {message}")
        } else if is_too_large {
            format!("it is larger than the receiver takes: {message}")
        } else {
            format!("the receiver refused it {most} times while it accepted others: {message}")
        };
        Some(Undeliverable { reason, since })
    }

    /// The endpoint failed, perhaps on one of the documents. True if others were accepted since.
    pub(crate) fn fail(
        &mut self,
        now: Uptime,
        how: FailureKind,
        endpoint: EndpointSnapshot,
    ) -> bool {
        self.last_failure = Some(how);
        // An expectation holds for one kind of failure only.
        self.expected = self.expected.filter(|&expected| expected == how);
        if self.first_failed.is_none() {
            self.first_failed = Some(now);
            self.accepted_at_failure = endpoint.accepted;
        }
        self.failures += 1;
        self.try_again(endpoint.accepted);
        self.fails_alone || endpoint.is_released
    }

    /// It is sent again. `accepted`: how many answers of the endpoint have accepted documents.
    pub(crate) fn try_again(&mut self, accepted: u64) {
        self.fails_alone |= self.failures > 0 && accepted > self.accepted_at_failure;
    }

    /// It failed, and others were accepted since: it may be at fault itself.
    pub(crate) fn fails_alone(&self) -> bool {
        self.fails_alone
    }

    /// True after a single failure if that was expected.
    pub(crate) fn fails_often(&self) -> bool {
        let most = match self.expected {
            Some(_) => 1,
            None => FAILURES_BEFORE_SPLIT,
        };
        self.failures >= most
    }

    /// Its endpoint is known to fail like this.
    pub(crate) fn expect(&mut self, how: FailureKind) {
        self.expected = Some(how);
    }

    /// A half of a request that failed often, which has not been tried yet.
    pub(crate) fn is_untried_half(&self) -> bool {
        self.expected.is_some() && self.failed_attempts() == 0
    }

    /// A part of a request that failed often or was refused, which has not been tried yet.
    pub(crate) fn is_untried_part(&self) -> bool {
        (self.expected.is_some() || self.is_part_of_refused) && self.failed_attempts() == 0
    }

    pub(crate) fn half_of(&self) -> Option<RequestId> {
        self.half_of
    }

    /// It may be at fault itself, so that its next failure says nothing of the endpoint.
    pub(crate) fn is_suspect(&self) -> bool {
        self.fails_often() || self.refusals > 0
    }

    /// Since when it fails, if that is often.
    pub(crate) fn failing_since(&self) -> Option<Uptime> {
        self.first_failed.filter(|_| self.fails_often())
    }

    /// A single document has failed for too long.
    pub(crate) fn failed_for_too_long(&self, now: Uptime) -> Option<Undeliverable> {
        let since = self.first_failed.filter(|&since| is_too_long(now, since))?;
        let message = &self.message;
        let minutes = FAILING_MAX.as_secs() / 60;
        let reason =
            format!("it failed for {minutes} minutes while others were accepted: {message}");
        Some(Undeliverable { reason, since })
    }
}
