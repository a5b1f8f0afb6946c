//! The body of a request, in a form that reqwest does not keep.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

/// A body that cannot be cloned. reqwest keeps a clone of any other until the answer, which may
/// take as long as the time-out; this one is freed as soon as it is written.
pub struct UnkeptBody {
    left: Option<Bytes>,
}

impl UnkeptBody {
    pub fn new(bytes: Bytes) -> UnkeptBody {
        UnkeptBody {
            left: Some(bytes).filter(|bytes| !bytes.is_empty()),
        }
    }
}

impl Body for UnkeptBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.left.take().map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.left.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left.as_ref().map_or(0, |bytes| bytes.len() as u64))
    }
}
