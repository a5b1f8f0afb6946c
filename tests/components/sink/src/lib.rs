//! A sink that misbehaves as its `mode` and `classify` say; see README.md.

use lockgate_plugin::{
    Access, Batch, ConfigIssue, Delivery, Disposition, Document, Encoded, Failure, HttpSink,
    Inspect, Pair, Part, Rejection, Request, RequestBody, Response, ResponseBody, Retry, Sent,
    SinkSetup,
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
    /// Payloads stay with the host.
    #[serde(default)]
    metadata: bool,
    /// Of one call.
    #[serde(default)]
    max_documents: Option<u32>,
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
    ForeignDocument,
    ForwardedUser,
    PathBoundary,
    LongTag,
    Tag,
    Parts,
    Reject,
    RejectAll,
    Fail,
    FailRetry,
    FailHold,
}

#[derive(Clone, Copy, Deserialize, PartialEq)]
#[serde(rename_all = "kebab-case")]
enum Classify {
    ByStatus,
    Delivered,
    Hold,
    /// Rejects, and says what it was shown.
    Echo,
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

    fn configure(config: Config) -> Result<(Hostile, SinkSetup), Vec<ConfigIssue>> {
        let inspect = if config.classify.is_some() {
            Inspect::Always
        } else {
            Inspect::Failures
        };
        let access = if config.metadata {
            Access::Metadata
        } else {
            Access::Payload
        };
        let mut setup = SinkSetup::new(access).time_member("time").inspect(inspect);
        if let Some(documents) = config.max_documents {
            setup = setup.max_documents(documents);
        }
        Ok((Hostile { config }, setup))
    }

    fn encode(&self, _: &Batch, documents: Vec<Document>) -> Result<Encoded, Failure> {
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
                "hostile component: trap on the document {}",
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
                .push(Pair::new("accept", "b\r\nHost: evil.example")),
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
            Mode::ForeignDocument => {
                request.body = RequestBody::Parts(vec![Part::Document(u32::MAX)]);
            }
            Mode::ForwardedUser => request.headers.push(Pair::new("X-Forwarded-User", "root")),
            Mode::PathBoundary => request.path_suffix = "23/evil".into(),
            Mode::LongTag => request.tag = "t".repeat(1025),
            Mode::Tag => request.tag = "tag of this request".into(),
            // One text a document: what the plugin was shown, and the document as a string.
            Mode::Parts => {
                let parts = (0..).zip(&documents).flat_map(|(index, document)| {
                    let attributes = document.attributes.iter();
                    let attributes: Vec<String> = attributes
                        .map(|pair| format!("{}={}", pair.name, pair.value))
                        .collect();
                    let shown = format!(
                        "{} {} {} {} {:?} {} {:?} ",
                        document.key,
                        document.code,
                        document.index,
                        document.feed,
                        document.session,
                        attributes.join(","),
                        document.payload
                    );
                    [
                        Part::Text(shown),
                        Part::DocumentAsString(index),
                        Part::Text("\n".into()),
                    ]
                });
                request.body = RequestBody::Parts(parts.collect());
            }
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
            Mode::Fail => return Err(Failure::isolate("this batch cannot be encoded")),
            Mode::FailRetry => {
                return Err(Failure::retry_after("not yet", 10));
            }
            Mode::FailHold => return Err(Failure::hold("its licence has expired")),
        }
        Ok(encoded)
    }

    fn classify(&self, batch: &Batch, sent: &Sent, response: &Response) -> Delivery {
        let first = sent.carries.first().copied().unwrap_or(0);
        match self.config.classify {
            None | Some(Classify::ByStatus) => Delivery::ByStatus,
            Some(Classify::Delivered) => Delivery::Delivered,
            Some(Classify::MixedReject) => Delivery::Mixed(vec![(
                first,
                Disposition::Rejected("the first is bad".into()),
            )]),
            Some(Classify::MixedRetry) => Delivery::Mixed(vec![(first, Disposition::Retry)]),
            Some(Classify::ForeignIndex) => Delivery::Mixed(vec![
                (first, Disposition::Delivered),
                (u32::MAX, Disposition::Delivered),
            ]),
            Some(Classify::Split) => Delivery::Split("too much at once".into()),
            Some(Classify::Rejected) => Delivery::Rejected("none of them is good".into()),
            Some(Classify::Retry) => Delivery::Retry(Retry {
                message: "not yet".into(),
                after: Some(10),
            }),
            Some(Classify::Hold) => Delivery::Hold("the index is missing".into()),
            Some(Classify::Echo) => Delivery::Rejected(format!(
                "{} {} {} {:?} {} {:?} {} {}",
                batch.id,
                sent.method,
                sent.path_suffix,
                sent.tag,
                response.status,
                response.headers,
                match &response.body {
                    ResponseBody::Text(text) => format!("text {text}"),
                    ResponseBody::Bytes(bytes) => format!("bytes {bytes:?}"),
                },
                response.truncated,
            )),
            Some(Classify::Trap) => {
                panic!("hostile component: trap on the answer {}", response.status)
            }
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
