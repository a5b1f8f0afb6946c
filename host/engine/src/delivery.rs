//! Requests: which go out, what their answers mean, what happens to refused documents.
//!
//! The rules are the table in ARCHITECTURE.md under "Rules of delivery". `answers` has an arm for
//! each of its rows, `evidence` decides whether a request or its endpoint is at fault, and
//! `session_order` keeps sessions in their order.

mod answers;
mod dispatch;
mod endpoint;
mod evidence;
mod history;
mod parked;
mod report;
mod request;
mod requests;
mod session_order;
mod sizes;
#[cfg(test)]
mod tests;

pub(crate) use endpoint::Endpoint;
pub(crate) use history::History;
pub(crate) use request::RequestState;
pub(crate) use requests::Requests;
