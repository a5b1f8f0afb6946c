//! The answers that an engine has observed, and whether they justify its dead letters.

use std::collections::HashMap;
use std::time::Duration;

use lockgate_engine::{SendFailure, Uptime};
use lockgate_model::request::Response;
use lockgate_model::{DeadLetter, Seq};

/// Since the engine started.
#[derive(Default)]
pub struct AnswersSeen {
    /// Answers of each endpoint that accepted documents.
    accepted: Vec<u64>,
    /// Documents by stream and key.
    documents: HashMap<(usize, String), Observed>,
    /// Entries below it may be dead-lettered without evidence, for each stream.
    pub released: Vec<Seq>,
}

/// The answers observed for a document.
#[derive(Default)]
struct Observed {
    /// Times that it was refused alone: what the endpoint had accepted by then, and the status.
    refused: Vec<(u64, u16)>,
    /// When it was first in a request that failed, and what had been accepted by then.
    first_failed: Option<(Uptime, u64)>,
}

impl AnswersSeen {
    pub fn new(endpoints: usize, streams: usize) -> AnswersSeen {
        AnswersSeen {
            accepted: vec![0; endpoints],
            documents: HashMap::new(),
            released: vec![0; streams],
        }
    }

    /// The engine is given this answer to a request that carries these documents.
    pub fn observe(
        &mut self,
        now: Uptime,
        endpoint: usize,
        carried: &[(usize, String, Seq)],
        answer: Result<&Response, &SendFailure>,
    ) {
        let accepted = self.accepted[endpoint];
        let mut fail = || {
            for (stream, key, _) in carried {
                let observed = self.documents.entry((*stream, key.clone())).or_default();
                observed.first_failed.get_or_insert((now, accepted));
            }
        };
        match answer {
            Ok(response) => match response.status {
                200..=299 => {
                    // Those that it did not take may count as failing from now on.
                    let again = response.body.split(|&byte| byte == b' ').skip(1).count();
                    if again > 0 {
                        fail();
                    }
                    if again < carried.len() {
                        self.accepted[endpoint] += 1;
                    }
                }
                status @ (400 | 413) if carried.len() == 1 => {
                    let (stream, key, _) = &carried[0];
                    let observed = self.documents.entry((*stream, key.clone())).or_default();
                    observed.refused.push((accepted, status));
                }
                500.. => fail(),
                _ => {}
            },
            Err(SendFailure::Timeout(_)) => fail(),
            Err(_) => {}
        }
    }

    /// Forgets an event that is redriven: earlier answers do not count against the new attempt.
    pub fn forget(&mut self, stream: usize, event: &str) {
        self.documents
            .retain(|(of, key), _| *of != stream || key.split('#').next() != Some(event));
    }

    /// A dead letter has the evidence that its reason names.
    pub fn check(&self, now: Uptime, endpoint: usize, stream: usize, letter: &DeadLetter) {
        let reason = &letter.reason;
        let proof = Proof {
            now,
            accepted: self.accepted[endpoint],
            is_released: letter.seq < self.released[stream],
        };
        let of_event = |((of, key), _): &(&(usize, String), &Observed)| {
            *of == stream && key.split('#').next() == Some(&letter.key)
        };
        let mut observed = self
            .documents
            .iter()
            .filter(of_event)
            .map(|(_, observed)| observed);
        let is_justified = if !letter.cause.starts_with("sink") {
            letter.cause.starts_with("stage") || letter.cause == "unreadable"
        } else if reason.contains("it was released") {
            observed.any(|observed| proof.was_released(observed))
        } else if reason.starts_with("the receiver refused it 3 times") {
            observed.any(|observed| proof.was_refused(observed))
        } else if reason.starts_with("it is larger than the receiver takes") {
            observed.any(|observed| proof.is_too_large(observed))
        } else if reason.starts_with("it failed for 10 minutes") {
            observed.any(|observed| proof.failed_for_long(observed))
        } else {
            false
        };
        assert!(is_justified, "{} of stream {stream}: {reason}", letter.key);
    }

    /// There is enough evidence against a document that its entry may be a dead letter.
    pub fn may_be_given_up(
        &self,
        now: Uptime,
        endpoint: usize,
        stream: usize,
        seq: Seq,
        key: &str,
    ) -> bool {
        let proof = Proof {
            now,
            accepted: self.accepted[endpoint],
            is_released: seq < self.released[stream],
        };
        let observed = self.documents.get(&(stream, key.to_owned()));
        observed.is_some_and(|observed| {
            proof.was_released(observed)
                || proof.was_refused(observed)
                || proof.is_too_large(observed)
                || proof.failed_for_long(observed)
        })
    }
}

/// What counts against a document, besides its own answers.
struct Proof {
    now: Uptime,
    /// Answers of the endpoint that accepted documents.
    accepted: u64,
    /// The operator lets it be dead-lettered without evidence.
    is_released: bool,
}

impl Proof {
    fn was_released(&self, observed: &Observed) -> bool {
        let refused = observed.refused.len();
        self.is_released && (refused >= 3 || observed.was_too_large() && refused >= 2)
    }

    fn was_refused(&self, observed: &Observed) -> bool {
        let mut by_then: Vec<u64> = observed.refused.iter().map(|&(by, _)| by).collect();
        by_then.dedup();
        let count = observed.refused.len();
        by_then.len() >= 3 || observed.was_too_large() && self.accepted > 0 && count >= 3
    }

    fn is_too_large(&self, observed: &Observed) -> bool {
        self.accepted > 0 && observed.was_too_large() && observed.refused.len() >= 2
    }

    fn failed_for_long(&self, observed: &Observed) -> bool {
        observed.first_failed.is_some_and(|(since, by_then)| {
            let has_others = self.accepted > by_then || self.is_released;
            has_others && self.now >= since + Duration::from_secs(600)
        })
    }
}

impl Observed {
    fn was_too_large(&self) -> bool {
        self.refused.iter().any(|&(_, status)| status == 413)
    }
}
