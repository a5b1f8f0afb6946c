//! The part of gRPC over HTTP/2 that a server needs: it reads a request message, and answers with a
//! stream of framed messages and a status.
//!
//! Not tonic's server, because many messages share one DATA frame here and messages are already
//! encoded.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response};
use http_body_util::{BodyExt, Limited};
use hyper::body::{Body, Frame, Incoming};
use tonic::Status;

/// Largest request, in bytes. Requests of this interface are small.
const REQUEST_MAX: usize = 1 << 20;
/// Bytes collected before they are passed to HTTP/2.
const FRAME: usize = 64 << 10;

/// A source of gRPC messages.
pub(super) trait Messages: Send + Unpin {
    /// Appends one message with [`frame`], or returns false at the end.
    fn write(&mut self, out: &mut Vec<u8>) -> bool;
}

/// Encoded messages, each of which gets its frame.
impl Messages for std::vec::IntoIter<Vec<u8>> {
    fn write(&mut self, out: &mut Vec<u8>) -> bool {
        self.next()
            .map(|message| frame(out, |out| out.extend_from_slice(&message)))
            .is_some()
    }
}

/// The body of a reply.
#[derive(Default)]
pub(super) struct Reply {
    messages: Option<Box<dyn Messages>>,
    sent: u64,
    /// The stream ends before this message, with this status.
    breaks: Option<(u64, Status)>,
    counter: Arc<AtomicU64>,
    status: Option<Status>,
}

impl Reply {
    /// `counter` is incremented for each message sent.
    pub(super) fn new(
        messages: impl Messages + 'static,
        counter: &Arc<AtomicU64>,
        breaks: Option<(u64, Status)>,
    ) -> Reply {
        Reply {
            messages: Some(Box::new(messages)),
            sent: 0,
            breaks,
            counter: Arc::clone(counter),
            status: None,
        }
    }

    pub(super) fn response(self) -> Response<Reply> {
        let mut response = Response::new(self);
        response.headers_mut().insert(
            http::header::CONTENT_TYPE,
            HeaderValue::from_static("application/grpc"),
        );
        response
    }

    fn trailers(&mut self, status: &Status) -> Frame<Bytes> {
        let mut trailers = HeaderMap::new();
        if status.add_header(&mut trailers).is_err() {
            trailers.insert("grpc-status", HeaderValue::from_static("2"));
        }
        Frame::trailers(trailers)
    }
}

impl Body for Reply {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let mut out = Vec::new();
        if let Some(mut messages) = self.messages.take() {
            out.reserve(FRAME + 4096);
            let before = self.sent;
            let status = loop {
                let sent = self.sent;
                if out.len() >= FRAME {
                    break None;
                }
                if let Some((_, status)) = self.breaks.take_if(|(at, _)| *at == sent) {
                    break Some(status);
                }
                if !messages.write(&mut out) {
                    break Some(Status::ok(""));
                }
                self.sent += 1;
            };
            self.counter
                .fetch_add(self.sent - before, Ordering::Relaxed);
            match status {
                None => self.messages = Some(messages),
                status => self.status = status,
            }
        }
        if !out.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(Bytes::from(out)))));
        }
        match self.status.take() {
            Some(status) => Poll::Ready(Some(Ok(self.trailers(&status)))),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.messages.is_none() && self.status.is_none()
    }
}

/// Appends a gRPC message: uncompressed, its length, then the bytes that `write` appends.
pub(super) fn frame(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    out.extend_from_slice(&[0; 5]);
    write(out);
    let len = (out.len() - at - 5) as u32;
    out[at + 1..at + 5].copy_from_slice(&len.to_be_bytes());
}

/// The one message of a request.
pub(super) async fn request<M: prost::Message + Default>(body: Incoming) -> Result<M, Status> {
    let bytes = Limited::new(body, REQUEST_MAX)
        .collect()
        .await
        .map_err(|error| Status::internal(error.to_string()))?
        .to_bytes();
    let Some((head, message)) = bytes.split_at_checked(5) else {
        return Err(Status::internal("the request has no message"));
    };
    if head[0] != 0 {
        return Err(Status::unimplemented(
            "compressed requests are not supported",
        ));
    }
    M::decode(message)
        .map_err(|error| Status::internal(format!("the request cannot be decoded: {error}")))
}
