//! The functions of the three worlds: arguments are borrowed, answers become plain data. What an
//! answer must keep is checked by the callers.

use std::time::Duration;

use bytes::Bytes;
use lockgate_model::contract::{BatchContext, CallError, Mapped, MappedDocument, Verdict};
use lockgate_model::request::{Body, Classification, Disposition, Part, Request, Response, Sent};
use lockgate_model::{DocumentView, EventView};
use wasmtime::Store;
use wasmtime::component::InstancePre;

use super::bindings::filter::exports::lockgate::plugin::filtering;
use super::bindings::filter::lockgate::plugin::{events, types};
use super::bindings::mapper::exports::lockgate::plugin::mapping;
use super::bindings::sink::exports::lockgate::plugin::http_encoding as http;
use super::bindings::{filter, mapper, sink};
use super::setup;
use crate::host::InstanceHost;
use crate::interface::Kind;
use crate::log::line;
use crate::setup::{ConfigIssue, Setup};

/// The result of `encode`, unchecked: requests, and rejected documents with their reasons.
type EncodedParts = (Vec<Request>, Vec<(u32, String)>);

/// The result of a component's function, or why it did not return.
type Returned<T> = wasmtime::Result<Result<T, CallError>>;

/// A component whose imports are linked and whose exports are known.
#[derive(Clone)]
pub(crate) enum Pre {
    Filter(filter::FilterPre<InstanceHost>),
    Mapper(mapper::MapperPre<InstanceHost>),
    HttpSink(sink::HttpSinkPre<InstanceHost>),
}

/// The exports of an instance.
pub(crate) enum Exports {
    Filter(filter::Filter),
    Mapper(mapper::Mapper),
    HttpSink(sink::HttpSink),
}

impl Pre {
    pub(crate) fn new(kind: Kind, linked: InstancePre<InstanceHost>) -> wasmtime::Result<Pre> {
        match kind {
            Kind::Filter => filter::FilterPre::new(linked).map(Pre::Filter),
            Kind::Mapper => mapper::MapperPre::new(linked).map(Pre::Mapper),
            Kind::HttpSink => sink::HttpSinkPre::new(linked).map(Pre::HttpSink),
        }
    }

    pub(crate) fn instantiate(&self, store: &mut Store<InstanceHost>) -> wasmtime::Result<Exports> {
        match self {
            Pre::Filter(pre) => pre.instantiate(store).map(Exports::Filter),
            Pre::Mapper(pre) => pre.instantiate(store).map(Exports::Mapper),
            Pre::HttpSink(pre) => pre.instantiate(store).map(Exports::HttpSink),
        }
    }
}

impl Exports {
    pub(crate) fn configure(
        &self,
        store: &mut Store<InstanceHost>,
        config: &str,
    ) -> wasmtime::Result<Result<Setup, Vec<ConfigIssue>>> {
        let answer = match self {
            Exports::Filter(world) => world
                .lockgate_plugin_filtering()
                .call_configure(store, config)?
                .map(|setup| Setup::Stage(setup::of_filter(setup))),
            Exports::Mapper(world) => world
                .lockgate_plugin_mapping()
                .call_configure(store, config)?
                .map(|setup| Setup::Stage(setup::of_mapper(setup))),
            Exports::HttpSink(world) => world
                .lockgate_plugin_http_encoding()
                .call_configure(store, config)?
                .map(|setup| Setup::Sink(setup::of_sink(setup))),
        };
        Ok(answer.map_err(|issues| issues.into_iter().map(setup::issue).collect()))
    }

    pub(crate) fn filter(
        &self,
        store: &mut Store<InstanceHost>,
        batch: &BatchContext,
        stage: &str,
        events: &[EventView<'_>],
    ) -> Returned<Vec<Verdict>> {
        let Exports::Filter(world) = self else {
            return Ok(Err(wrong_world("filter")));
        };
        let events: Vec<_> = events.iter().map(event).collect();
        let verdicts =
            world
                .lockgate_plugin_filtering()
                .call_filter(store, lowered(batch, stage), &events)?;
        Ok(verdicts.map_err(failure).map(|verdicts| {
            verdicts
                .into_iter()
                .map(|verdict| match verdict {
                    filtering::Verdict::Keep => Verdict::Keep,
                    filtering::Verdict::Drop(reason) => Verdict::Drop(reason),
                })
                .collect()
        }))
    }

    pub(crate) fn transform(
        &self,
        store: &mut Store<InstanceHost>,
        batch: &BatchContext,
        stage: &str,
        events: &[EventView<'_>],
    ) -> Returned<Vec<Mapped>> {
        let Exports::Mapper(world) = self else {
            return Ok(Err(wrong_world("transform")));
        };
        let events: Vec<_> = events.iter().map(event).collect();
        let outcomes = world.lockgate_plugin_mapping().call_transform(
            store,
            lowered(batch, stage),
            &events,
        )?;
        Ok(outcomes
            .map_err(failure)
            .map(|outcomes| outcomes.into_iter().map(mapped).collect()))
    }

    pub(crate) fn encode(
        &self,
        store: &mut Store<InstanceHost>,
        batch: &BatchContext,
        stage: &str,
        documents: &[DocumentView<'_>],
    ) -> Returned<EncodedParts> {
        let Exports::HttpSink(world) = self else {
            return Ok(Err(wrong_world("encode")));
        };
        let attributes: Vec<types::PairParam<'_>> = documents
            .iter()
            .flat_map(|document| pairs(document.attributes))
            .collect();
        let mut rest = &attributes[..];
        let lowered_documents: Vec<http::Document<'_>> = documents
            .iter()
            .map(|document| {
                let (attributes, others) = rest.split_at(document.attributes.len());
                rest = others;
                let event = &document.event;
                http::Document {
                    key: event.key,
                    event_type: event.event_type,
                    code: event.code,
                    time: event.time,
                    index: event.index,
                    feed: event.feed.of_event(),
                    session: event.session,
                    attributes,
                    payload: event.payload,
                }
            })
            .collect();
        let encoded = world.lockgate_plugin_http_encoding().call_encode(
            store,
            lowered(batch, stage),
            &lowered_documents,
        )?;
        Ok(encoded.map_err(failure).map(|encoded| {
            let http::Encoded { requests, rejected } = encoded;
            (
                requests.into_iter().map(request).collect(),
                rejected
                    .into_iter()
                    .map(|rejection| (rejection.index, line(&rejection.reason)))
                    .collect(),
            )
        }))
    }

    pub(crate) fn classify(
        &self,
        store: &mut Store<InstanceHost>,
        batch: &BatchContext,
        stage: &str,
        sent: &Sent,
        response: &Response,
    ) -> Returned<Classification> {
        let Exports::HttpSink(world) = self else {
            return Ok(Err(wrong_world("classify")));
        };
        let headers: Vec<_> = pairs(&response.headers).collect();
        let sent = http::Sent {
            method: sent.method.as_str(),
            path_suffix: &sent.path_suffix,
            tag: &sent.tag,
            carries: &sent.carries,
        };
        let response = http::Response {
            status: response.status,
            headers: &headers,
            body: match std::str::from_utf8(&response.body) {
                Ok(text) => http::ResponseBody::Text(text),
                Err(_) => http::ResponseBody::Bytes(&response.body),
            },
            truncated: response.truncated,
        };
        let answer = world.lockgate_plugin_http_encoding().call_classify(
            store,
            lowered(batch, stage),
            sent,
            response,
        )?;
        Ok(Ok(classification(answer)))
    }
}

// === arguments ===

fn lowered<'a>(batch: &'a BatchContext, stage: &'a str) -> types::Batch<'a> {
    types::Batch {
        id: &batch.id,
        pipeline: &batch.pipeline,
        stage,
        source: &batch.source,
        read_at: batch.read_at,
        extra: &[],
    }
}

fn event<'a>(event: &EventView<'a>) -> events::Event<'a> {
    events::Event {
        key: event.key,
        event_type: event.event_type,
        code: event.code,
        time: event.time,
        index: event.index,
        feed: event.feed.of_event(),
        session: event.session,
        payload: event.payload,
    }
}

fn pairs(pairs: &[(String, String)]) -> impl Iterator<Item = types::PairParam<'_>> {
    pairs
        .iter()
        .map(|(name, value)| types::PairParam { name, value })
}

// === answers ===

fn failure(failure: types::Failure) -> CallError {
    match failure {
        types::Failure::Retry(retry) => CallError::Retry {
            message: line(&retry.message),
            after: retry.after.map(|after| Duration::from_millis(after.into())),
        },
        types::Failure::Isolate(message) => CallError::Isolate(line(&message)),
        types::Failure::Hold(message) => CallError::Hold(line(&message)),
    }
}

fn mapped(outcome: mapping::Outcome) -> Mapped {
    match outcome {
        mapping::Outcome::Emit(documents) => Mapped::Emit(
            documents
                .into_iter()
                .map(|document| MappedDocument {
                    payload: document.payload,
                    attributes: owned(document.attributes),
                })
                .collect(),
        ),
        mapping::Outcome::Drop(reason) => Mapped::Drop(reason),
        mapping::Outcome::Reject(reason) => Mapped::Reject(line(&reason)),
    }
}

fn request(request: http::Request) -> Request {
    let part = |part| match part {
        http::Part::Text(text) => Part::Text(text),
        http::Part::Document(index) => Part::Document(index),
        http::Part::DocumentAsString(index) => Part::DocumentAsString(index),
        http::Part::Documents(http::Joined {
            documents: indexes,
            separator,
        }) => Part::Documents { indexes, separator },
    };
    Request {
        method: request.method,
        path_suffix: request.path_suffix,
        query: owned(request.query),
        headers: owned(request.headers),
        body: match request.body {
            http::RequestBody::Parts(parts) => Body::Parts(parts.into_iter().map(part).collect()),
            http::RequestBody::Bytes(bytes) => Body::Bytes(Bytes::from(bytes)),
        },
        tag: request.tag,
        carries: request.carries,
    }
}

fn classification(delivery: http::Delivery) -> Classification {
    let disposition = |(index, of)| match of {
        http::Disposition::Delivered => (index, Disposition::Delivered),
        http::Disposition::Rejected(reason) => (index, Disposition::Rejected(line(&reason))),
        http::Disposition::Retry => (index, Disposition::Retry),
    };
    match delivery {
        http::Delivery::ByStatus => Classification::ByStatus,
        http::Delivery::Delivered => Classification::Delivered,
        http::Delivery::Mixed(documents) => {
            Classification::Mixed(documents.into_iter().map(disposition).collect())
        }
        http::Delivery::Retry(retry) => Classification::Retry {
            message: line(&retry.message),
            after: retry.after,
        },
        http::Delivery::Split(message) => Classification::Split(line(&message)),
        http::Delivery::Rejected(reason) => Classification::Rejected(line(&reason)),
        http::Delivery::Hold(message) => Classification::Hold(line(&message)),
    }
}

fn owned(pairs: Vec<types::PairResult>) -> Vec<(String, String)> {
    pairs
        .into_iter()
        .map(|pair| (pair.name, pair.value))
        .collect()
}

fn wrong_world(function: &str) -> CallError {
    CallError::Host(format!(
        "`{function}` was called, which its world does not have"
    ))
}
