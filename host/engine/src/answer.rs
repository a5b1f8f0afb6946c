//! The meaning of a receiver's answer: the table of delivery.

use std::time::Duration;

use lockgate_model::request::{Classification, Disposition, RETRY_AFTER_MAX, Response};

use crate::condition::WaitRequester;
use crate::excerpt::excerpt;

/// The meaning of an answer, or of the lack of one, for a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Judgement {
    /// By index in the request's `carries`-numbering; what is not in the list was delivered.
    Taken(Vec<(u32, Disposition)>),
    /// None of its documents is wanted; the request may still hold good ones.
    AllRejected(String),
    /// 400, 422, or the sink asks for a split: one of the documents is refused.
    Refused(String),
    /// 413.
    TooLarge(String),
    /// The sink's request cannot be sent to any receiver: one of the documents is at fault.
    Unsendable(String),
    /// The receiver cannot take it now.
    Wait {
        message: String,
        asked: RequestedWait,
        /// A document in it may be what the receiver fails on.
        failure: Option<FailureKind>,
    },
    /// Somebody has to fix a setting of this host or of the receiver first.
    NeedsOperator(String),
}

/// A wait before the next attempt that somebody asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestedWait {
    pub at_least: Duration,
    /// `None`: nobody asked.
    pub by: Option<WaitRequester>,
}

impl RequestedWait {
    pub(crate) const NONE: RequestedWait = RequestedWait {
        at_least: Duration::ZERO,
        by: None,
    };

    fn new(millis: u64, by: WaitRequester) -> RequestedWait {
        let at_least = Duration::from_millis(millis).min(RETRY_AFTER_MAX);
        RequestedWait {
            at_least,
            by: (!at_least.is_zero()).then_some(by),
        }
    }

    fn longer(self, other: RequestedWait) -> RequestedWait {
        match other.at_least > self.at_least {
            true => other,
            false => self,
        }
    }
}

/// How a receiver failed on a request that may itself be the cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// 5xx.
    Error,
    /// No answer in time.
    Slow,
}

/// Why a request got no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SendFailure {
    /// Connecting failed, or the connection broke.
    Connection(String),
    /// No answer in time.
    Timeout(String),
    /// TLS and certificates, on either side.
    Tls(String),
    /// This host could not send, whatever the receiver is like: it has no file descriptor left, or
    /// no space on the disk.
    Host(String),
    /// Somebody has to change a setting of this host first: it does not connect there as it is
    /// configured, or a file has other permissions.
    Operator(String),
    /// The request breaks a rule that only shows when its URL is built.
    Contract(String),
}

impl SendFailure {
    pub fn message(&self) -> &str {
        match self {
            SendFailure::Connection(message)
            | SendFailure::Timeout(message)
            | SendFailure::Tls(message)
            | SendFailure::Host(message)
            | SendFailure::Operator(message)
            | SendFailure::Contract(message) => message,
        }
    }
}

/// Whether the sink may decide on this status: the receiver has looked at the documents. After all
/// others no plugin can declare delivered, or discard, what a receiver did not take.
fn sink_may_decide(status: u16) -> bool {
    matches!(status, 200..=299 | 400 | 409 | 412 | 422)
}

/// Whether the sink may say that all documents were delivered. A receiver that answers 409 may have
/// them already.
fn sink_may_accept_all(status: u16) -> bool {
    matches!(status, 200..=299 | 409)
}

/// The host's table for a status.
pub fn by_status(response: &Response) -> Judgement {
    let message = describe(response);
    let wait = |failure| Judgement::Wait {
        message: message.clone(),
        asked: retry_after(response),
        failure,
    };
    match response.status {
        200..=299 => Judgement::Taken(Vec::new()),
        400 | 422 => Judgement::Refused(message),
        413 => Judgement::TooLarge(format!("{message}; {TOO_LARGE}")),
        408 | 425 | 429 => wait(None),
        500.. => wait(Some(FailureKind::Error)),
        status => Judgement::NeedsOperator(match remedy(status) {
            Some(remedy) => format!("{message}; {remedy}"),
            None => message,
        }),
    }
}

const TOO_LARGE: &str = "raise the receiver's limit on the size of a request";

/// The way out, if an operator has to act.
fn remedy(status: u16) -> Option<&'static str> {
    Some(match status {
        300..=399 => {
            "redirects are not followed: set `url` to the address that the receiver names in \
             `Location`"
        }
        401 => "check the credentials in `auth` or `headers` of this sink",
        403 => {
            "the receiver does not accept these credentials there: allow them to write there, or \
             check `auth`, `headers` and `tls` of this sink"
        }
        404 | 405 | 410 => {
            "check the path of `url`, and that the receiver accepts the plugin's requests there"
        }
        411 | 415 | 406 => {
            "the receiver does not understand this sink's requests: check `plugin` and `url`"
        }
        407 => "a proxy wants credentials: name the receiver itself in `url`",
        421 => "the server is not responsible for this host: check the host in `url`",
        _ => return None,
    })
}

/// The judgement by the sink's result. The second value is true if the status overrides it.
pub fn by_sink(response: &Response, classification: Classification) -> (Judgement, bool) {
    let decides = sink_may_decide(response.status);
    let accepts_all = sink_may_accept_all(response.status);
    let is_accepted =
        |(_, disposition): &(u32, Disposition)| *disposition == Disposition::Delivered;
    let judgement = match classification {
        Classification::ByStatus => by_status(response),
        Classification::Retry { message, after } => {
            let asked = RequestedWait::new(after.unwrap_or(0).into(), WaitRequester::Sink);
            Judgement::Wait {
                message,
                asked: asked.longer(retry_after(response)),
                failure: (response.status >= 500).then_some(FailureKind::Error),
            }
        }
        Classification::Hold(message) => Judgement::NeedsOperator(message),
        Classification::Split(message) if decides => Judgement::Refused(message),
        Classification::Delivered if accepts_all => Judgement::Taken(Vec::new()),
        Classification::Mixed(dispositions)
            if decides && (accepts_all || !dispositions.iter().all(is_accepted)) =>
        {
            Judgement::Taken(dispositions)
        }
        Classification::Rejected(reason) if decides => Judgement::AllRejected(reason),
        _ => return (by_status(response), true),
    };
    (judgement, false)
}

pub fn by_failure(failure: SendFailure) -> Judgement {
    match failure {
        SendFailure::Connection(message) | SendFailure::Host(message) => Judgement::Wait {
            message,
            asked: RequestedWait::NONE,
            failure: None,
        },
        SendFailure::Timeout(message) => Judgement::Wait {
            message,
            asked: RequestedWait::NONE,
            failure: Some(FailureKind::Slow),
        },
        SendFailure::Tls(message) | SendFailure::Operator(message) => {
            Judgement::NeedsOperator(message)
        }
        SendFailure::Contract(message) => Judgement::Unsendable(message),
    }
}

fn describe(response: &Response) -> String {
    let excerpt = excerpt(response);
    let status = response.status;
    if excerpt.is_empty() {
        format!("the receiver answered {status}")
    } else {
        format!("the receiver answered {status}: {excerpt}")
    }
}

fn retry_after(response: &Response) -> RequestedWait {
    let millis = response.retry_after.unwrap_or(0);
    RequestedWait::new(millis, WaitRequester::Receiver)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn response(status: u16) -> Response {
        Response {
            status,
            headers: Vec::new(),
            body: Bytes::from_static(b"no\n"),
            truncated: false,
            retry_after: None,
            place: None,
        }
    }

    /// One word for a judgement, to compare tables with.
    fn word(judgement: &Judgement) -> &'static str {
        match judgement {
            Judgement::Taken(_) => "taken",
            Judgement::AllRejected(_) => "rejected",
            Judgement::Refused(_) => "refused",
            Judgement::TooLarge(_) => "too large",
            Judgement::Unsendable(_) => "unsendable",
            Judgement::Wait {
                failure: Some(_), ..
            } => "suspicious",
            Judgement::Wait { .. } => "wait",
            Judgement::NeedsOperator(_) => "operator",
        }
    }

    #[test]
    fn each_status_has_the_meaning_of_the_table() {
        for (status, expected) in [
            (100, "operator"),
            (200, "taken"),
            (204, "taken"),
            (301, "operator"),
            (400, "refused"),
            (401, "operator"),
            (403, "operator"),
            (404, "operator"),
            (408, "wait"),
            (413, "too large"),
            (418, "operator"),
            (422, "refused"),
            (425, "wait"),
            (429, "wait"),
            (500, "suspicious"),
            (503, "suspicious"),
        ] {
            assert_eq!(word(&by_status(&response(status))), expected, "{status}");
        }
    }

    #[test]
    fn what_the_host_lacks_is_not_held_against_the_receiver_or_the_documents() {
        let failure = SendFailure::Host("no file descriptor is left".into());
        assert_eq!(word(&by_failure(failure)), "wait");
        let failure = SendFailure::Operator("`/log/a` cannot be opened".into());
        assert_eq!(word(&by_failure(failure)), "operator");
    }

    #[test]
    fn an_answer_that_needs_the_operator_names_the_way_out() {
        for (status, way_out) in [
            (301, "set `url` to the address"),
            (401, "check the credentials in `auth`"),
            (403, "allow them to write there, or"),
            (404, "check the path of `url`"),
            (413, "raise the receiver's limit"),
        ] {
            let (Judgement::NeedsOperator(message) | Judgement::TooLarge(message)) =
                by_status(&response(status))
            else {
                panic!("{status}");
            };
            let begin = format!("the receiver answered {status}: no; ");
            assert!(
                message.starts_with(&begin) && message.contains(way_out),
                "{message}"
            );
        }
    }

    #[test]
    fn a_sink_cannot_decide_on_what_a_receiver_did_not_take() {
        let deciding = [
            Classification::Delivered,
            Classification::Rejected("bad".into()),
            Classification::Mixed(vec![(0, Disposition::Rejected("bad".into()))]),
            Classification::Split("half".into()),
        ];
        for status in [
            301, 401, 402, 403, 404, 405, 407, 408, 410, 413, 425, 429, 500, 503,
        ] {
            for delivery in &deciding {
                let (judgement, disbelieved) = by_sink(&response(status), delivery.clone());
                assert!(disbelieved, "{status} {delivery:?}");
                assert_eq!(
                    judgement,
                    by_status(&response(status)),
                    "{status} {delivery:?}"
                );
            }
            let hold = by_sink(
                &response(status),
                Classification::Hold("wrong index".into()),
            );
            assert_eq!(
                hold,
                (Judgement::NeedsOperator("wrong index".into()), false)
            );
        }
        for (delivery, expected) in deciding
            .into_iter()
            .zip(["taken", "rejected", "taken", "refused"])
        {
            let (judgement, disbelieved) = by_sink(&response(409), delivery);
            assert_eq!((word(&judgement), disbelieved), (expected, false));
        }
        for status in [400, 412, 422] {
            for classification in [
                Classification::Delivered,
                Classification::Mixed(Vec::new()),
                Classification::Mixed(vec![(0, Disposition::Delivered)]),
            ] {
                let (judgement, disbelieved) = by_sink(&response(status), classification);
                assert_eq!(
                    (judgement, disbelieved),
                    (by_status(&response(status)), true)
                );
            }
            let part = vec![(1, Disposition::Rejected("bad".into()))];
            let judged = by_sink(&response(status), Classification::Mixed(part.clone()));
            assert_eq!(
                judged,
                (Judgement::Taken(part), false),
                "it took the others"
            );
        }
    }
}
