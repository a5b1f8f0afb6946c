//! A sink that misbehaves as its `mode` and `classify` say; see README.md.

use lockgate_plugin::{
    BatchContext, ConfigIssue, Delivery, Document, Encoded, Failure, Fate, HttpSink, Inspect,
    Needs, Pair, Postponement, Rejection, Request, Response, Sent, Setup,
};
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Config {
    #[serde(default)]
    mode: Mode,
    /// Present: every answer is inspected, and this is what it means.
    #[serde(default)]
    classify: Option<Classify>,
    /// Key of the document that sets `mode` off; absent: every one does.
    #[serde(default)]
    on: Option<String>,
    /// Of a huge body.
    #[serde(default = "gibibyte")]
    bytes: usize,
}

fn gibibyte() -> usize {
    1 << 30
}

#[derive(Clone, Copy, Default, Deserialize, PartialEq)]
#[serde(rename_all = "kebab-case")]
enum Mode {
    #[default]
    Array,
    Each,
    Trap,
    Loop,
    Huge,
    BadMethod,
    BadPath,
    BadPathUp,
    BadHeader,
    HeaderInjection,
    ManyHeaders,
    SecretPlaceholder,
    Twice,
    Missing,
    OutOfRange,
    CarriedAndRejected,
    CarriesNothing,
    Reject,
    RejectAll,
    Fail,
    FailRetryable,
}

#[derive(Clone, Copy, Deserialize, PartialEq)]
#[serde(rename_all = "kebab-case")]
enum Classify {
    Delivered,
    MixedReject,
    MixedRetry,
    ForeignIndex,
    Split,
    Rejected,
    Retry,
    Trap,
    Loop,
}

struct Hostile {
    config: Config,
}

impl HttpSink for Hostile {
    type Config = Config;

    fn configure(config: Config) -> Result<(Hostile, Setup), Vec<ConfigIssue>> {
        let inspect = if config.classify.is_some() {
            Inspect::Always
        } else {
            Inspect::Failures
        };
        Ok((
            Hostile { config },
            Setup::new(Needs::Payloads).inspect(inspect),
        ))
    }

    fn encode(&self, _: &BatchContext, documents: Vec<Document>) -> Result<Encoded, Failure> {
        let is_target = |document: &Document| {
            self.config
                .on
                .as_ref()
                .is_none_or(|key| *key == document.key)
        };
        let target = documents
            .iter()
            .position(is_target)
            .map(|index| index as u32);
        let Some(target) = target else {
            return Ok(whole(&documents));
        };

        let mut encoded = whole(&documents);
        let request = &mut encoded.requests[0];
        match self.config.mode {
            Mode::Array => {}
            Mode::Each => {
                encoded.requests = (0..)
                    .zip(&documents)
                    .map(|(index, document)| array(&[document], vec![index]))
                    .collect()
            }
            Mode::Trap => panic!(
                "cannot stand the document {}",
                documents[target as usize].key
            ),
            Mode::Loop => spin(),
            Mode::Huge => {
                request.body = format!(r#"[{{"a":"{}"}}]"#, "x".repeat(self.config.bytes)).into()
            }
            Mode::BadMethod => request.method = "DELETE".into(),
            Mode::BadPath => request.path_suffix = "@evil.example/".into(),
            Mode::BadPathUp => request.path_suffix = "/../../admin".into(),
            Mode::BadHeader => request
                .headers
                .push(Pair::new("Authorization", "Bearer stolen")),
            Mode::HeaderInjection => request
                .headers
                .push(Pair::new("x-a", "b\r\nHost: evil.example")),
            Mode::ManyHeaders => request
                .headers
                .extend((0..1000).map(|n| Pair::new(format!("x-{n}"), "y"))),
            Mode::SecretPlaceholder => {
                request.headers.push(Pair::new(
                    "x-placeholder",
                    "${env:HOME} ${file:/etc/passwd} ${secret:token}",
                ));
                request.query.push(Pair::new("placeholder", "${env:HOME}"));
            }
            Mode::Twice => request.carries.push(target),
            Mode::Missing => request.carries.retain(|index| *index != target),
            Mode::OutOfRange => request.carries.push(u32::MAX),
            Mode::CarriedAndRejected => encoded
                .rejected
                .push(Rejection::new(target, "carried all the same")),
            Mode::CarriesNothing => encoded.requests.push(array(&[], vec![])),
            Mode::Reject => {
                let is_kept = |index: &u32| *index != target;
                let kept: Vec<u32> = (0..documents.len() as u32).filter(is_kept).collect();
                let payloads: Vec<&Document> = kept
                    .iter()
                    .map(|&index| &documents[index as usize])
                    .collect();
                let requests = if kept.is_empty() {
                    vec![]
                } else {
                    vec![array(&payloads, kept.clone())]
                };
                encoded = Encoded {
                    requests,
                    rejected: vec![Rejection::new(
                        target,
                        "cannot be encoded\u{1b}[31m\nforged: line",
                    )],
                };
            }
            Mode::RejectAll => {
                let rejected = (0..documents.len() as u32)
                    .map(|index| Rejection::new(index, "x".repeat(5000)));
                encoded = Encoded {
                    requests: vec![],
                    rejected: rejected.collect(),
                };
            }
            Mode::Fail => return Err(Failure::fatal("this batch cannot be encoded")),
            Mode::FailRetryable => {
                return Err(Failure {
                    retry_after: Some(10),
                    ..Failure::retryable("not yet")
                });
            }
        }
        Ok(encoded)
    }

    fn classify(&self, sent: &Sent<'_>, response: &Response) -> Delivery {
        let first = sent.carries.first().copied().unwrap_or(0);
        match self.config.classify {
            None => Delivery::by_status(response),
            Some(Classify::Delivered) => Delivery::Delivered,
            Some(Classify::MixedReject) => {
                Delivery::Mixed(vec![(first, Fate::Rejected("the first is bad".into()))])
            }
            Some(Classify::MixedRetry) => Delivery::Mixed(vec![(first, Fate::Retry)]),
            Some(Classify::ForeignIndex) => {
                Delivery::Mixed(vec![(first, Fate::Delivered), (u32::MAX, Fate::Delivered)])
            }
            Some(Classify::Split) => Delivery::Split("too much at once".into()),
            Some(Classify::Rejected) => Delivery::Rejected("none of them is good".into()),
            Some(Classify::Retry) => Delivery::Retry(Postponement {
                message: "not yet".into(),
                after: Some(10),
            }),
            Some(Classify::Trap) => panic!("cannot stand the answer {}", response.status),
            Some(Classify::Loop) => spin(),
        }
    }
}

/// A batch as one array.
fn whole(documents: &[Document]) -> Encoded {
    let all: Vec<&Document> = documents.iter().collect();
    Encoded {
        requests: vec![array(&all, (0..documents.len() as u32).collect())],
        rejected: vec![],
    }
}

fn array(documents: &[&Document], carries: Vec<u32>) -> Request {
    let payloads: Vec<&str> = documents
        .iter()
        .map(|document| document.payload.as_str())
        .collect();
    Request::post(
        "application/json",
        format!("[{}]", payloads.join(",")),
        carries,
    )
}

#[allow(clippy::empty_loop)]
fn spin() -> ! {
    loop {
        std::hint::black_box(());
    }
}

lockgate_plugin::http_sink!(Hostile);
