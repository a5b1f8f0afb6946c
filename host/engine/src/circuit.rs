//! The circuit of an endpoint: what may be sent, and when the next probe is due.

use std::time::Duration;

use lockgate_backoff::{Backoff, Random};

use crate::Uptime;
use crate::answer::RequestedWait;
use crate::condition::WaitRequester;
use crate::limits::{BACKOFF_BASE, BACKOFF_MAX, NARROWING_BACKOFF};

/// Why nothing is sent to an endpoint but probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OpenReason {
    /// It cannot be reached, or cannot take anything now.
    Unavailable,
    /// It needs its operator: wrong address, credentials, certificates.
    Operator,
    /// It refuses single documents, and has accepted none between.
    RefusesAll,
}

/// All requests to one endpoint share it: while the circuit is open a single probe goes out
/// at a time, and the first success closes it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Circuit {
    open: Option<Open>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Open {
    pub(crate) reason: OpenReason,
    pub(crate) message: String,
    pub(crate) since: Uptime,
    pub(crate) failures: u32,
    pub(crate) next_probe: Uptime,
    /// The one who asked for the wait until then.
    pub(crate) asked_by: Option<WaitRequester>,
    pub(crate) probing: bool,
    /// The last probe was a part of a request that had failed or had been refused. True at first:
    /// a request of which nothing is known goes before the parts.
    has_probed_part: bool,
    /// Probes that were split, one after the other.
    narrowing_steps: u32,
    /// They led to a document that failed alone.
    pub(crate) is_narrowed_down: bool,
}

/// A failure that an answer shows of its endpoint.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) reason: OpenReason,
    pub(crate) message: String,
    pub(crate) asked: RequestedWait,
}

/// The requests that may be sent now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Allowed {
    Everything,
    Probe,
    NothingUntil(Uptime),
    /// Until the probe that is out has come back.
    Nothing,
}

impl Circuit {
    pub(crate) fn open(&self) -> Option<&Open> {
        self.open.as_ref()
    }

    pub(crate) fn allowed(&self, now: Uptime) -> Allowed {
        match &self.open {
            None => Allowed::Everything,
            Some(open) if open.probing => Allowed::Nothing,
            Some(open) if open.next_probe <= now => Allowed::Probe,
            Some(open) => Allowed::NothingUntil(open.next_probe),
        }
    }

    pub(crate) fn begin_probe(&mut self, is_part: bool) {
        if let Some(open) = &mut self.open {
            open.probing = true;
            open.has_probed_part = is_part;
        }
    }

    /// A request failed for the endpoint's sake. `was_probe`: it was sent while the circuit was
    /// open. Others were sent before it opened, and their failures say nothing new.
    pub(crate) fn fail(
        &mut self,
        now: Uptime,
        failure: Failure,
        was_probe: bool,
        random: &mut Random,
    ) {
        let Failure {
            reason,
            message,
            asked,
        } = failure;
        let open = self.open.get_or_insert_with(|| Open {
            reason,
            message: String::new(),
            since: now,
            failures: 0,
            next_probe: now,
            asked_by: None,
            probing: false,
            has_probed_part: true,
            narrowing_steps: 0,
            is_narrowed_down: false,
        });
        if !was_probe && open.failures > 0 {
            if now + asked.at_least > open.next_probe {
                open.next_probe = now + asked.at_least;
                open.asked_by = asked.by;
            }
            return;
        }
        open.reason = reason;
        open.message = message;
        open.next_probe = now + asked.at_least + backoff(random, open.failures);
        open.asked_by = asked.by;
        open.failures = open.failures.saturating_add(1);
        open.probing = false;
    }

    /// A probe failed and is sent again in halves. As long as nothing was accepted, it may be the
    /// endpoint that fails: a half waits for its turn as any other probe does. The first search for
    /// a document that is at fault has shorter waits, because it ends after few halves.
    pub(crate) fn narrow(&mut self, now: Uptime, failure: Failure, random: &mut Random) {
        let Some(open) = &mut self.open else { return };
        if open.is_narrowed_down {
            return self.fail(now, failure, true, random);
        }
        let step = open.narrowing_steps.min(NARROWING_BACKOFF);
        open.narrowing_steps += 1;
        open.reason = failure.reason;
        open.message = failure.message;
        open.next_probe = now + failure.asked.at_least + backoff(random, step);
        open.asked_by = failure.asked.by;
        open.probing = false;
    }

    pub(crate) fn has_probed_part(&self) -> bool {
        self.open.as_ref().is_some_and(|open| open.has_probed_part)
    }

    pub(crate) fn narrowed_down(&mut self) {
        if let Some(open) = &mut self.open {
            open.is_narrowed_down = true;
        }
    }

    /// The probe came back without a word on the endpoint's health: another may go at once.
    pub(crate) fn probe_undecided(&mut self, now: Uptime) {
        if let Some(open) = &mut self.open {
            open.probing = false;
            open.next_probe = now;
        }
    }

    /// The operator wants it tried: the next probe does not wait.
    pub(crate) fn probe_now(&mut self, now: Uptime) {
        if let Some(open) = &mut self.open {
            open.next_probe = open.next_probe.min(now);
        }
    }

    /// A request succeeded, or none waits. True if the circuit was open.
    pub(crate) fn succeed(&mut self) -> bool {
        self.open.take().is_some()
    }
}

/// The wait before the next attempt after this many failures in a row, with full jitter.
pub(crate) fn backoff(random: &mut Random, failures: u32) -> Duration {
    let backoff = Backoff::new(BACKOFF_BASE, BACKOFF_MAX);
    backoff.ceiling(failures).mul_f64(random.fraction())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unavailable() -> Failure {
        Failure {
            reason: OpenReason::Unavailable,
            message: "503".to_owned(),
            asked: RequestedWait::NONE,
        }
    }

    fn fail(circuit: &mut Circuit, now: u64, was_probe: bool) {
        let mut random = Random::seeded(now);
        circuit.fail(
            Duration::from_secs(now),
            unavailable(),
            was_probe,
            &mut random,
        );
    }

    #[test]
    fn one_probe_goes_out_while_it_is_open_and_a_success_closes_it() {
        let mut circuit = Circuit::default();
        assert_eq!(circuit.allowed(Duration::ZERO), Allowed::Everything);
        fail(&mut circuit, 10, false);
        let later = Duration::from_secs(100);
        assert_eq!(circuit.allowed(later), Allowed::Probe);
        circuit.begin_probe(false);
        assert_eq!(circuit.allowed(later), Allowed::Nothing);
        fail(&mut circuit, 100, true);
        assert!(matches!(circuit.allowed(later), Allowed::NothingUntil(_)));
        assert_eq!(circuit.open().unwrap().since, Duration::from_secs(10));
        assert!(circuit.succeed());
        assert_eq!(circuit.allowed(later), Allowed::Everything);
    }

    #[test]
    fn failures_of_requests_sent_before_it_opened_do_not_lengthen_the_wait() {
        let mut circuit = Circuit::default();
        (0..8).for_each(|_| fail(&mut circuit, 10, false));
        assert_eq!(circuit.open().unwrap().failures, 1);
        assert!(circuit.open().unwrap().next_probe <= Duration::from_millis(10_500));
    }

    #[test]
    fn waits_grow_to_half_a_minute() {
        let mut random = Random::seeded(7);
        for failures in 0..100 {
            let ceiling = Duration::from_millis(500 << failures.min(6)).min(BACKOFF_MAX);
            assert!(backoff(&mut random, failures) <= ceiling);
        }
        let longest = (0..1000).map(|_| backoff(&mut random, 50)).max().unwrap();
        assert!(longest > Duration::from_secs(28), "{longest:?}");
    }
}
