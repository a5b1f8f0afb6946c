//! The circuit of an endpoint: what may be sent, and when the next probe is due.

use std::time::Duration;

use lockgate_backoff::{Backoff, Random};

use crate::Uptime;
use crate::answer::RequestedWait;
use crate::condition::WaitRequester;
use crate::index::RequestId;
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
    /// The longest wait that anyone has asked for since it opened, and who did. A later answer that
    /// asks for none does not shorten it.
    asked: Option<(Uptime, WaitRequester)>,
    /// The probe that has not come back.
    probe: Option<RequestId>,
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
            Some(open) if open.probe.is_some() => Allowed::Nothing,
            Some(open) if open.next_probe <= now => Allowed::Probe,
            Some(open) => Allowed::NothingUntil(open.next_probe),
        }
    }

    /// Whether it is the probe that has not come back. A probe that was sent before the circuit
    /// closed and opened again does not count.
    pub(crate) fn is_probe(&self, id: RequestId) -> bool {
        self.open
            .as_ref()
            .is_some_and(|open| open.probe == Some(id))
    }

    /// If the circuit is open, the request is its probe.
    pub(crate) fn begin_probe(&mut self, id: RequestId, is_part: bool) {
        if let Some(open) = &mut self.open {
            open.probe = Some(id);
            open.has_probed_part = is_part;
        }
    }

    /// A request failed for the endpoint's sake. Those that were sent before the circuit opened say
    /// nothing new.
    pub(crate) fn fail(
        &mut self,
        now: Uptime,
        failure: Failure,
        id: RequestId,
        random: &mut Random,
    ) {
        let was_probe = self.is_probe(id);
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
            asked: None,
            probe: None,
            has_probed_part: true,
            narrowing_steps: 0,
            is_narrowed_down: false,
        });
        open.ask(now, asked);
        if !was_probe && open.failures > 0 {
            return open.probe_at(open.next_probe, open.asked_by);
        }
        open.reason = reason;
        open.message = message;
        let next_probe = now + asked.at_least + backoff(random, open.failures);
        open.probe_at(next_probe, asked.by);
        open.failures = open.failures.saturating_add(1);
        open.probe = None;
    }

    /// A probe failed and is sent again in halves. As long as nothing was accepted, it may be the
    /// endpoint that fails: a half waits for its turn as any other probe does. The first search for
    /// a document that is at fault has shorter waits, because it ends after few halves.
    pub(crate) fn narrow(
        &mut self,
        now: Uptime,
        failure: Failure,
        id: RequestId,
        random: &mut Random,
    ) {
        let Some(open) = &mut self.open else { return };
        if open.is_narrowed_down {
            return self.fail(now, failure, id, random);
        }
        let step = open.narrowing_steps.min(NARROWING_BACKOFF);
        open.narrowing_steps += 1;
        open.reason = failure.reason;
        open.message = failure.message;
        open.ask(now, failure.asked);
        let next_probe = now + failure.asked.at_least + backoff(random, step);
        open.probe_at(next_probe, failure.asked.by);
        open.probe = None;
    }

    pub(crate) fn has_probed_part(&self) -> bool {
        self.open.as_ref().is_some_and(|open| open.has_probed_part)
    }

    pub(crate) fn narrowed_down(&mut self) {
        if let Some(open) = &mut self.open {
            open.is_narrowed_down = true;
        }
    }

    /// The probe came back without a word on the endpoint's health: another may go at once, unless
    /// somebody has asked for a wait.
    pub(crate) fn probe_undecided(&mut self, now: Uptime) {
        if let Some(open) = &mut self.open {
            open.probe = None;
            open.probe_at(now, None);
        }
    }

    /// The operator wants it tried: the next probe does not wait.
    pub(crate) fn probe_now(&mut self, now: Uptime) {
        if let Some(open) = &mut self.open {
            open.asked = None;
            open.next_probe = open.next_probe.min(now);
        }
    }

    /// A request succeeded, or none waits. True if the circuit was open.
    pub(crate) fn succeed(&mut self) -> bool {
        self.open.take().is_some()
    }
}

impl Open {
    /// Keeps the longest wait that anyone asks for.
    fn ask(&mut self, now: Uptime, asked: RequestedWait) {
        let until = asked.by.map(|by| (now + asked.at_least, by));
        let is_longer = |&(until, _): &(Uptime, WaitRequester)| {
            self.asked.is_none_or(|(before, _)| until > before)
        };
        self.asked = until.filter(is_longer).or(self.asked);
    }

    /// The next probe goes out then, but not before the time that was asked for.
    fn probe_at(&mut self, at: Uptime, asked_by: Option<WaitRequester>) {
        (self.next_probe, self.asked_by) = match self.asked {
            Some((until, by)) if until > at => (until, Some(by)),
            _ => (at, asked_by),
        };
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

    const PROBE: RequestId = RequestId(1);
    const OTHER: RequestId = RequestId(2);

    fn fail(circuit: &mut Circuit, now: u64, id: RequestId) {
        fail_and_ask(circuit, now, id, RequestedWait::NONE);
    }

    fn fail_and_ask(circuit: &mut Circuit, now: u64, id: RequestId, asked: RequestedWait) {
        let mut random = Random::seeded(now);
        let failure = Failure {
            asked,
            ..unavailable()
        };
        circuit.fail(Duration::from_secs(now), failure, id, &mut random);
    }

    #[test]
    fn one_probe_goes_out_while_it_is_open_and_a_success_closes_it() {
        let mut circuit = Circuit::default();
        assert_eq!(circuit.allowed(Duration::ZERO), Allowed::Everything);
        fail(&mut circuit, 10, OTHER);
        let later = Duration::from_secs(100);
        assert_eq!(circuit.allowed(later), Allowed::Probe);
        circuit.begin_probe(PROBE, false);
        assert_eq!(circuit.allowed(later), Allowed::Nothing);
        fail(&mut circuit, 100, PROBE);
        assert!(matches!(circuit.allowed(later), Allowed::NothingUntil(_)));
        assert_eq!(circuit.open().unwrap().since, Duration::from_secs(10));
        assert!(circuit.succeed());
        assert_eq!(circuit.allowed(later), Allowed::Everything);
    }

    #[test]
    fn failures_of_requests_sent_before_it_opened_do_not_lengthen_the_wait() {
        let mut circuit = Circuit::default();
        (0..8).for_each(|_| fail(&mut circuit, 10, OTHER));
        assert_eq!(circuit.open().unwrap().failures, 1);
        assert!(circuit.open().unwrap().next_probe <= Duration::from_millis(10_500));
    }

    #[test]
    fn a_probe_of_an_outage_that_is_over_does_not_end_the_wait_for_the_next_one() {
        let mut circuit = Circuit::default();
        fail(&mut circuit, 10, OTHER);
        circuit.begin_probe(PROBE, false);
        circuit.succeed();
        fail(&mut circuit, 20, OTHER);
        let later = Duration::from_secs(100);
        circuit.begin_probe(RequestId(3), false);
        fail(&mut circuit, 100, PROBE);
        assert_eq!(circuit.allowed(later), Allowed::Nothing, "one probe is out");
    }

    #[test]
    fn no_other_answer_shortens_the_wait_that_a_receiver_asks_for() {
        let hour = Duration::from_secs(3600);
        let asked = RequestedWait {
            at_least: hour,
            by: Some(WaitRequester::Receiver),
        };
        let mut circuit = Circuit::default();
        fail(&mut circuit, 10, OTHER);
        circuit.begin_probe(PROBE, false);
        fail_and_ask(&mut circuit, 11, OTHER, asked);
        let until = Duration::from_secs(11) + hour;
        let waits = |circuit: &Circuit| {
            let open = circuit.open().unwrap();
            assert_eq!(open.next_probe, until);
            assert_eq!(open.asked_by, Some(WaitRequester::Receiver));
        };
        fail(&mut circuit, 12, PROBE);
        waits(&circuit);
        circuit.probe_undecided(Duration::from_secs(13));
        waits(&circuit);
        let mut random = Random::seeded(1);
        circuit.narrow(Duration::from_secs(14), unavailable(), PROBE, &mut random);
        waits(&circuit);
        circuit.probe_now(Duration::from_secs(15));
        assert_eq!(circuit.allowed(Duration::from_secs(15)), Allowed::Probe);
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
