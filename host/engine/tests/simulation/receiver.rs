//! A receiver with scripted faults.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use lockgate_engine::{Documents, OutgoingRequest, SendFailure, Uptime};
use lockgate_model::request::Response;

use crate::plugins::{HUGE, POISON_400, POISON_500};
use crate::random::Random;

/// The behaviour of a receiver for a while.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Behaviour {
    Healthy,
    Down,
    /// 503 to everything.
    Busy,
    /// 429 with `Retry-After` to everything.
    Throttling,
    /// 401 to everything.
    Unauthorized,
    /// 503 to half of the requests.
    HalfBusy,
    /// 413 above a size.
    Small(usize),
    /// Refuses this share of requests with 400, at random.
    RefusesAtRandom(f64),
    /// Takes a request, but the answer is lost.
    LosesAnswers,
    /// Takes every request, and answers too late if it has more than so many documents.
    SlowAbove(usize),
    /// Takes a part of each request, where the sink looks.
    TakesParts,
}

/// An answer and how long it takes.
pub struct Reaction {
    pub answer: Result<Response, SendFailure>,
    pub after: Duration,
    /// The documents that it has now.
    pub took: Vec<usize>,
}

pub struct Receiver {
    /// From which time on which behaviour rules.
    behaviours: BTreeMap<Uptime, Behaviour>,
}

impl Receiver {
    pub fn new(behaviours: BTreeMap<Uptime, Behaviour>) -> Receiver {
        Receiver { behaviours }
    }

    pub fn has_behaviours(&self, is: impl Fn(&Behaviour) -> bool) -> bool {
        self.behaviours.values().any(is)
    }

    pub fn react(
        &self,
        now: Uptime,
        random: &mut Random,
        outgoing: &OutgoingRequest,
        documents: &Documents,
        inspected: bool,
    ) -> Reaction {
        let behaviour = self
            .behaviours
            .range(..=now)
            .next_back()
            .map_or(Behaviour::Healthy, |(_, &behaviour)| behaviour);
        let after = Duration::from_millis(random.below(200));
        let all: Vec<usize> = (0..outgoing.documents.len()).collect();
        let answer = |status: u16, body: String| Ok(response(status, body, None));
        let none = |answer| Reaction {
            answer,
            after,
            took: Vec::new(),
        };
        match behaviour {
            Behaviour::Down => return none(Err(SendFailure::Connection("refused".into()))),
            Behaviour::Busy => return none(answer(503, "busy".into())),
            Behaviour::Throttling => return none(Ok(response(429, "slow".into(), Some(2_000)))),
            Behaviour::Unauthorized => return none(answer(401, "who".into())),
            Behaviour::HalfBusy if random.chance(0.5) => return none(answer(503, "busy".into())),
            Behaviour::Small(size) if outgoing.body_len(documents) > size => {
                return none(answer(413, "large".into()));
            }
            Behaviour::RefusesAtRandom(share) if random.chance(share) => {
                return none(answer(400, "no".into()));
            }
            _ => {}
        }
        let has = |event_type: &str| {
            let mut carried = outgoing.documents.iter();
            carried.any(|&document| documents.event(document).event_type == event_type)
        };
        if has(HUGE) {
            return none(answer(413, "large".into()));
        }
        if has(POISON_400) {
            return none(answer(400, "bad".into()));
        }
        if has(POISON_500) {
            return none(answer(500, "oops".into()));
        }
        let is_too_late = match behaviour {
            Behaviour::LosesAnswers => random.chance(0.5),
            Behaviour::SlowAbove(most) => all.len() > most,
            _ => false,
        };
        if is_too_late {
            let answer = Err(SendFailure::Timeout("no answer".into()));
            return Reaction {
                answer,
                after: Duration::from_secs(5),
                took: all,
            };
        }
        if behaviour == Behaviour::TakesParts && inspected && all.len() > 1 {
            let (took, again): (Vec<usize>, Vec<usize>) =
                all.into_iter().partition(|_| random.chance(0.5));
            let places: Vec<String> = again.iter().map(usize::to_string).collect();
            let body = format!("again {}", places.join(" "));
            let body = if again.is_empty() {
                String::new()
            } else {
                body
            };
            return Reaction {
                answer: answer(200, body),
                after,
                took,
            };
        }
        Reaction {
            answer: answer(200, String::new()),
            after,
            took: all,
        }
    }
}

fn response(status: u16, body: String, retry_after: Option<u64>) -> Response {
    Response {
        status,
        headers: Vec::new(),
        body: Bytes::from(body),
        truncated: false,
        place: None,
        retry_after,
    }
}
