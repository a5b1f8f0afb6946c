//! The functions of the three worlds, with what is passed in borrowed and what comes back checked.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lockgate_lookup::Lookups;
use lockgate_model::request::{
    CheckedRequest, Delivery, DocumentFate, Method, Request, Response, check_indexes,
};
use lockgate_model::{DocumentView, EventView, FeedRef, Millis};

use crate::bindings::filter::exports::lockgate::plugin::filtering;
use crate::bindings::filter::lockgate::plugin::{events, types};
use crate::bindings::mapper::exports::lockgate::plugin::mapping;
use crate::bindings::sink::exports::lockgate::plugin::http_encoding as http;
use crate::error::CallError;
use crate::instance::World;
use crate::json;
use crate::log::line;
use crate::setup::Needs;
use crate::stage::{Call, Stage};

/// What a component is told about a batch.
#[derive(Clone, Debug)]
pub struct Context {
    /// The batch's id, stable across retries.
    pub batch: String,
    pub pipeline: Arc<str>,
    /// Name of the source, such as `teleport`.
    pub source: Arc<str>,
    /// When the batch was read. The only clock that a component has.
    pub read_at: Millis,
    /// What it may look up meanwhile.
    pub lookups: Lookups,
}

/// What a filter says of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Keep,
    /// Left out on purpose; the value indexes [`Setup::reasons`](crate::Setup::reasons), which has
    /// been checked.
    Drop(u32),
}

/// What a mapper makes of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mapped {
    /// Texts of documents, each one JSON object with the guarantees of an event's payload. None:
    /// dropped, with the reason `empty`.
    Emit(Vec<String>),
    /// The value indexes [`Setup::reasons`](crate::Setup::reasons), which has been checked.
    Drop(u32),
    /// This one event cannot be mapped.
    Reject(String),
}

/// What a sink makes of documents. Each of them stands in exactly one request or one rejection.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Encoded {
    pub requests: Vec<CheckedRequest>,
    pub rejected: Vec<(u32, String)>,
}

impl Stage {
    /// One verdict for each event, in order. A filter that needs nothing is not called: it keeps
    /// what its type lists let through.
    pub fn filter(
        &self,
        context: &Context,
        events: &[EventView<'_>],
    ) -> Result<Vec<Verdict>, CallError> {
        self.filter_once(context, events, false)
    }

    /// One outcome for each event, in order.
    pub fn transform(
        &self,
        context: &Context,
        events: &[EventView<'_>],
    ) -> Result<Vec<Mapped>, CallError> {
        self.transform_once(context, events, false)
    }

    /// Requests that carry the documents. `operator_headers`: names that the operator set, in lower
    /// case; a component cannot set them.
    pub fn encode(
        &self,
        context: &Context,
        documents: &[DocumentView<'_>],
        operator_headers: &[String],
    ) -> Result<Encoded, CallError> {
        self.encode_once(context, documents, operator_headers, 0, false)
    }

    /// What became of a request's documents, by the response. A component that fails here is tried
    /// once more, on a fresh instance.
    pub fn classify(
        &self,
        method: Method,
        path_suffix: &str,
        carries: &[u32],
        response: &Response,
    ) -> Result<Delivery, CallError> {
        let classify = |again| self.classify_once(method, path_suffix, carries, response, again);
        classify(false).or_else(|_| classify(true))
    }

    pub(crate) fn filter_once(
        &self,
        context: &Context,
        events: &[EventView<'_>],
        again: bool,
    ) -> Result<Vec<Verdict>, CallError> {
        if events.is_empty() || self.setup().needs == Needs::Nothing {
            return Ok(vec![Verdict::Keep; events.len()]);
        }
        let (lowered, input) = self.lower(events);
        let verdicts = self.call(
            Call {
                batch: &context.batch,
                lookups: context.lookups.clone(),
                input,
                again,
            },
            |world, store| match world {
                World::Filter(world) => world
                    .lockgate_plugin_filtering()
                    .call_filter(store, self.context(context), &lowered)
                    .map(Ok),
                _ => Ok(Err(self.wrong_kind("filter"))),
            },
        )?;
        let verdicts = verdicts?.map_err(failed)?;
        self.check_count(events.len(), verdicts.len())?;
        let check = |verdict| match verdict {
            filtering::Verdict::Keep => Ok(Verdict::Keep),
            filtering::Verdict::Drop(reason) => self.check_reason(reason).map(Verdict::Drop),
        };
        verdicts.into_iter().map(check).collect()
    }

    pub(crate) fn transform_once(
        &self,
        context: &Context,
        events: &[EventView<'_>],
        again: bool,
    ) -> Result<Vec<Mapped>, CallError> {
        if events.is_empty() {
            return Ok(Vec::new());
        }
        let (lowered, input) = self.lower(events);
        let outcomes = self.call(
            Call {
                batch: &context.batch,
                lookups: context.lookups.clone(),
                input,
                again,
            },
            |world, store| match world {
                World::Mapper(world) => world
                    .lockgate_plugin_mapping()
                    .call_transform(store, self.context(context), &lowered)
                    .map(Ok),
                _ => Ok(Err(self.wrong_kind("transform"))),
            },
        )?;
        let outcomes = outcomes?.map_err(failed)?;
        self.check_count(events.len(), outcomes.len())?;
        let check = |(index, outcome)| match outcome {
            mapping::Outcome::Emit(texts) => {
                for text in &texts {
                    json::check_object(text).map_err(|fault| {
                        CallError::contract(format!("a document it made of event {index} of the batch is not allowed: {fault}"))
                    })?;
                }
                Ok(Mapped::Emit(texts))
            }
            mapping::Outcome::Drop(reason) => self.check_reason(reason).map(Mapped::Drop),
            mapping::Outcome::Reject(reason) => Ok(Mapped::Reject(line(&reason))),
        };
        outcomes.into_iter().enumerate().map(check).collect()
    }

    /// `first`: what to add to the indexes, where these documents are a part of a batch.
    pub(crate) fn encode_once(
        &self,
        context: &Context,
        documents: &[DocumentView<'_>],
        operator_headers: &[String],
        first: u32,
        again: bool,
    ) -> Result<Encoded, CallError> {
        if documents.is_empty() {
            return Ok(Encoded::default());
        }
        let payloads = self.setup().needs == Needs::Payloads;
        let mut input = 0;
        let lowered: Vec<http::Document<'_>> = documents
            .iter()
            .map(
                |&DocumentView {
                     key,
                     event_type,
                     time,
                     feed: of,
                     payload,
                 }| {
                    let payload = if payloads { payload } else { "" };
                    input += key.len() + event_type.len() + payload.len();
                    http::Document {
                        key,
                        event_type,
                        time,
                        feed: feed(of),
                        payload,
                    }
                },
            )
            .collect();
        let encoded = self.call(
            Call {
                batch: &context.batch,
                lookups: context.lookups.clone(),
                input,
                again,
            },
            |world, store| match world {
                World::HttpSink(world) => world
                    .lockgate_plugin_http_encoding()
                    .call_encode(store, self.context(context), &lowered)
                    .map(Ok),
                _ => Ok(Err(self.wrong_kind("encode"))),
            },
        )?;
        let http::Encoded { requests, rejected } = encoded?.map_err(failed)?;
        check_indexes(
            documents.len(),
            requests.iter().map(|request| &request.carries[..]),
            rejected.iter().map(|rejection| rejection.index),
        )?;
        let check = |request| Ok(lifted(request, first).check(operator_headers)?);
        Ok(Encoded {
            requests: requests
                .into_iter()
                .map(check)
                .collect::<Result<_, CallError>>()?,
            rejected: rejected
                .into_iter()
                .map(|rejection| (rejection.index + first, line(&rejection.reason)))
                .collect(),
        })
    }

    fn classify_once(
        &self,
        method: Method,
        path_suffix: &str,
        carries: &[u32],
        response: &Response,
        again: bool,
    ) -> Result<Delivery, CallError> {
        let headers: Vec<types::PairParam<'_>> = response
            .headers
            .iter()
            .map(|(name, value)| types::PairParam { name, value })
            .collect();
        let input = response.body.len()
            + headers
                .iter()
                .map(|header| header.name.len() + header.value.len())
                .sum::<usize>()
            + carries.len() * 4;
        let lowered = http::Response {
            status: response.status,
            headers: &headers,
            body: &response.body,
            truncated: response.truncated,
        };
        let delivery = self.call(
            Call {
                batch: "classify",
                lookups: Lookups::default(),
                input,
                again,
            },
            |world, store| match world {
                World::HttpSink(world) => world
                    .lockgate_plugin_http_encoding()
                    .call_classify(store, method.as_str(), path_suffix, carries, lowered)
                    .map(Ok),
                _ => Ok(Err(self.wrong_kind("classify"))),
            },
        )??;
        let delivery = match delivery {
            http::Delivery::Delivered => Delivery::Delivered,
            http::Delivery::Mixed(fates) => Delivery::Mixed(
                fates
                    .into_iter()
                    .map(|(index, of)| (index, fate(of)))
                    .collect(),
            ),
            http::Delivery::Retry(http::Postponement { message, after }) => Delivery::Retry {
                message: line(&message),
                after,
            },
            http::Delivery::Split(message) => Delivery::Split(line(&message)),
            http::Delivery::Rejected(reason) => Delivery::Rejected(line(&reason)),
        };
        Ok(delivery.check(carries)?)
    }

    /// Events as the guest will see them, and their bytes. Nothing is copied here.
    fn lower<'a>(&self, events: &'a [EventView<'a>]) -> (Vec<events::Event<'a>>, usize) {
        let payloads = self.setup().needs == Needs::Payloads;
        let mut input = 0;
        let lowered = events
            .iter()
            .map(
                |&EventView {
                     key,
                     event_type,
                     code,
                     time,
                     index,
                     feed: of,
                     payload,
                 }| {
                    let payload = if payloads { payload } else { "" };
                    input += key.len() + event_type.len() + code.len() + payload.len();
                    events::Event {
                        key,
                        event_type,
                        code,
                        time,
                        index,
                        feed: feed(of),
                        payload,
                    }
                },
            )
            .collect();
        (lowered, input)
    }

    fn context<'a>(&'a self, context: &'a Context) -> types::BatchContext<'a> {
        let Context {
            batch,
            pipeline,
            source,
            read_at,
            ..
        } = context;
        types::BatchContext {
            id: batch,
            pipeline,
            stage: self.label(),
            source,
            read_at: *read_at,
            extra: &[],
        }
    }

    fn check_count(&self, expected: usize, got: usize) -> Result<(), CallError> {
        if expected == got {
            Ok(())
        } else {
            Err(CallError::WrongCount { expected, got })
        }
    }

    fn check_reason(&self, reason: u32) -> Result<u32, CallError> {
        let reasons = self.setup().reasons.len();
        if (reason as usize) < reasons {
            Ok(reason)
        } else {
            Err(CallError::contract(format!(
                "`drop({reason})` is none of the {reasons} reasons it declared"
            )))
        }
    }
}

fn feed(feed: FeedRef<'_>) -> types::Feed<'_> {
    match feed {
        FeedRef::Audit => types::Feed::Audit,
        FeedRef::Session(id) => types::Feed::Session(id),
    }
}

fn failed(failure: types::Failure) -> CallError {
    let types::Failure {
        message,
        retryable,
        retry_after,
    } = failure;
    CallError::Failure {
        message: line(&message),
        retryable,
        retry_after: retry_after.map(|after| Duration::from_millis(after.into())),
    }
}

fn lifted(request: http::Request, first: u32) -> Request {
    let http::Request {
        method,
        path_suffix,
        query,
        headers,
        body,
        mut carries,
    } = request;
    let pairs = |pairs: Vec<types::PairResult>| {
        pairs
            .into_iter()
            .map(|pair| (pair.name, pair.value))
            .collect()
    };
    carries.iter_mut().for_each(|index| *index += first);
    let body = match body {
        http::Body::Text(text) => Bytes::from(text),
        http::Body::Bytes(bytes) => Bytes::from(bytes),
    };
    Request {
        method,
        path_suffix,
        query: pairs(query),
        headers: pairs(headers),
        body,
        carries,
    }
}

fn fate(fate: http::Fate) -> DocumentFate {
    match fate {
        http::Fate::Delivered => DocumentFate::Delivered,
        http::Fate::Rejected(reason) => DocumentFate::Rejected(line(&reason)),
        http::Fate::Retry => DocumentFate::Retry,
    }
}
