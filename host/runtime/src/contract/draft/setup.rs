//! Answers of `configure`.

use lockgate_model::contract::{Access, Inspect, SinkSetup, StageSetup, TypeLists};

use super::bindings::filter::exports::lockgate::plugin::filtering;
use super::bindings::filter::lockgate::plugin::types;
use super::bindings::mapper::exports::lockgate::plugin::mapping;
use super::bindings::sink::exports::lockgate::plugin::http_encoding as http;
use crate::limits::RESPONSE_MAX_DEFAULT;
use crate::setup::ConfigIssue;

pub(super) fn of_filter(setup: filtering::Setup) -> StageSetup {
    stage(setup.subscription, setup.reasons)
}

pub(super) fn of_mapper(setup: mapping::Setup) -> StageSetup {
    stage(setup.subscription, setup.reasons)
}

pub(super) fn of_sink(setup: http::Setup) -> SinkSetup {
    SinkSetup {
        types: TypeLists {
            only: setup.only.map(|types| types.into_iter().collect()),
            skip: setup.skip.into_iter().collect(),
            skip_in_sessions: Default::default(),
        },
        access: access(setup.access),
        time_member: setup.time_member,
        max_documents: setup.max_documents,
        max_bytes: setup.max_bytes,
        inspect: match setup.inspect {
            http::Inspect::Never => Inspect::Never,
            http::Inspect::Failures => Inspect::Failures,
            http::Inspect::Always => Inspect::Always,
        },
        max_response_bytes: setup.max_response_bytes.unwrap_or(RESPONSE_MAX_DEFAULT),
    }
}

pub(super) fn issue(issue: types::ConfigIssue) -> ConfigIssue {
    ConfigIssue {
        path: issue.path,
        message: issue.message,
        help: issue.help,
    }
}

fn stage(subscription: types::Subscription, reasons: Vec<String>) -> StageSetup {
    StageSetup {
        types: TypeLists {
            only: subscription.only.map(|types| types.into_iter().collect()),
            skip: subscription.skip.into_iter().collect(),
            skip_in_sessions: subscription.skip_in_sessions.into_iter().collect(),
        },
        access: access(subscription.access),
        reasons,
    }
}

fn access(access: types::Access) -> Access {
    match access {
        types::Access::Types => Access::Types,
        types::Access::Metadata => Access::Metadata,
        types::Access::Payload => Access::Payload,
    }
}
