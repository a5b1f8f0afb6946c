//! Requests: which go out, what their answers mean, what happens to refused documents.
//!
//! The rules are the table in ARCHITECTURE.md under "Rules of delivery": `answers` has one arm for
//! each of its rows, `evidence` decides who is at fault, `order` keeps sessions in their order.

mod answers;
mod dispatch;
mod endpoint;
mod evidence;
mod order;
mod report;
mod request;

pub(crate) use endpoint::Endpoint;
pub(crate) use request::{History, Request};
