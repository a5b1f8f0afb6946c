//! The receiver, which the test plays.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lockgate_model::request::Response;

use super::TestPipeline;
use crate::documents::Documents;
use crate::index::RequestId;
use crate::{Input, OutgoingRequest, SendFailure};

impl TestPipeline {
    /// Keys of the documents of each request that is out, with a space between.
    pub(crate) fn sent(&self) -> Vec<String> {
        let keys = |(outgoing, documents): &(OutgoingRequest, Arc<Documents>)| {
            let key = |&document: &_| documents.event(document).key.to_owned();
            let keys: Vec<String> = outgoing.documents.iter().map(key).collect();
            keys.join(" ")
        };
        self.sent.values().map(keys).collect()
    }

    /// The receiver answers the request that carries these keys.
    pub(crate) fn answer(&mut self, keys: &str, status: u16) {
        let request = self.request(keys);
        self.respond(request, status, None);
    }

    /// The receiver answers the first request that is out. False if none is.
    pub(crate) fn answer_first(&mut self, status: u16) -> bool {
        let first = self.sent.keys().next().copied();
        if let Some(request) = first {
            self.respond(request, status, None);
        }
        first.is_some()
    }

    fn respond(&mut self, request: RequestId, status: u16, retry_after: Option<u64>) {
        self.sent.remove(&request);
        let response = Response {
            status,
            headers: Vec::new(),
            body: Bytes::new(),
            truncated: false,
            place: None,
            retry_after,
        };
        self.give(Input::Answered { request, response });
    }

    /// The receiver answers the request that carries these keys, and wants the next one so much
    /// later.
    pub(crate) fn answer_with_retry_after(&mut self, keys: &str, status: u16, after: Duration) {
        let request = self.request(keys);
        let after = after.as_millis() as u64;
        self.respond(request, status, Some(after));
    }

    /// No answer comes in time to the request that carries these keys.
    pub(crate) fn time_out(&mut self, keys: &str) {
        let failure = SendFailure::Timeout("no answer in time".into());
        self.fail_to_send(keys, failure);
    }

    /// The request that carries these keys does not get an answer.
    pub(crate) fn fail_to_send(&mut self, keys: &str, failure: SendFailure) {
        let request = self.request(keys);
        self.sent.remove(&request);
        self.give(Input::NotSent { request, failure });
    }

    fn request(&self, keys: &str) -> RequestId {
        let at = self.sent().iter().position(|sent| sent == keys);
        let at = at.unwrap_or_else(|| panic!("{keys} is not among {:?}", self.sent()));
        *self.sent.keys().nth(at).expect("it is there")
    }

    /// The receiver cannot be reached by any request that is out.
    pub(crate) fn lose_all(&mut self) {
        for (request, _) in std::mem::take(&mut self.sent) {
            let failure = SendFailure::Connection("refused".into());
            self.give(Input::NotSent { request, failure });
        }
    }
}
