//! A receiver that is well, or is not.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use lockgate_engine::{Documents, OutgoingRequest, SendFailure, Uptime};
use lockgate_model::request::Response;

use crate::plugins::{HUGE, POISON_400, POISON_500};
use crate::random::Random;

/// What a receiver does for a while.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mood {
    Well,
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
    /// From which time on which mood rules.
    moods: BTreeMap<Uptime, Mood>,
}

impl Receiver {
    pub fn new(moods: BTreeMap<Uptime, Mood>) -> Receiver {
        Receiver { moods }
    }

    pub fn has_moods(&self, is: impl Fn(&Mood) -> bool) -> bool {
        self.moods.values().any(is)
    }

    pub fn react(
        &self,
        now: Uptime,
        random: &mut Random,
        outgoing: &OutgoingRequest,
        documents: &Documents,
        inspected: bool,
    ) -> Reaction {
        let mood = self
            .moods
            .range(..=now)
            .next_back()
            .map_or(Mood::Well, |(_, &mood)| mood);
        let after = Duration::from_millis(random.below(200));
        let all: Vec<usize> = (0..outgoing.documents.len()).collect();
        let answer = |status: u16, body: String| Ok(response(status, body, None));
        let none = |answer| Reaction {
            answer,
            after,
            took: Vec::new(),
        };
        match mood {
            Mood::Down => return none(Err(SendFailure::Connection("refused".into()))),
            Mood::Busy => return none(answer(503, "busy".into())),
            Mood::Throttling => return none(Ok(response(429, "slow".into(), Some(2_000)))),
            Mood::Unauthorized => return none(answer(401, "who".into())),
            Mood::HalfBusy if random.chance(0.5) => return none(answer(503, "busy".into())),
            Mood::Small(size) if outgoing.body_len(documents) > size => {
                return none(answer(413, "large".into()));
            }
            Mood::RefusesAtRandom(share) if random.chance(share) => {
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
        if mood == Mood::LosesAnswers && random.chance(0.5) {
            let answer = Err(SendFailure::Timeout("no answer".into()));
            return Reaction {
                answer,
                after: Duration::from_secs(5),
                took: all,
            };
        }
        if mood == Mood::TakesParts && inspected && all.len() > 1 {
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
        retry_after,
    }
}
