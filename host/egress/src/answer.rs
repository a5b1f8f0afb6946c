//! Reads a receiver's answer within its limits.

use std::time::{Duration, SystemTime};

use http::StatusCode;
use http::header::{HeaderMap, RETRY_AFTER};
use hyper::body::Incoming;
use lockgate_model::Masks;
use lockgate_model::request::{RETRY_AFTER_MAX, Response};
use tokio::time::{Instant, timeout_at};

use crate::http_client::chunk;

/// The rest of a body longer than requested is read and discarded within these limits, so that the
/// connection can be reused. Beyond them, the connection is closed.
const DISCARD_BYTES: usize = 256 * 1024;
const DISCARD_TIME: Duration = Duration::from_millis(250);
/// Pieces of a body that are read, however small they are: each costs more than its bytes. One for
/// each 32 bytes that are wanted, and so many more.
const PIECES_MIN: usize = 1024;
const PIECE_BYTES: usize = 32;

/// Reads the answer to one request.
pub struct ResponseReader<'a> {
    pub masks: &'a Masks,
    /// Bytes of the body to return.
    pub body_max: usize,
    pub deadline: Instant,
    pub now: SystemTime,
    /// The pipeline's name, for the log.
    pub name: &'a str,
}

impl ResponseReader<'_> {
    /// Reads the answer. Only the status decides the outcome, so an answer with an incomplete body
    /// is valid, and marked as truncated.
    pub async fn read(self, mut response: http::Response<Incoming>) -> Response {
        let status = response.status().as_u16();
        let headers = headers(response.headers(), self.masks);
        let retry_after = self.retry_after(response.status(), response.headers());
        // Read a little more, to recognise a secret that lies across the cut.
        let wanted = self.body_max.saturating_add(self.masks.longest());
        let mut body = Vec::new();
        let mut whole = false;
        let mut pieces = PIECES_MIN + self.body_max / PIECE_BYTES;
        while body.len() <= wanted && pieces > 0 {
            pieces -= 1;
            match timeout_at(self.deadline, chunk(&mut response)).await {
                Ok(Ok(Some(chunk))) => {
                    body.extend_from_slice(&chunk);
                }
                Ok(Ok(None)) => {
                    whole = true;
                    break;
                }
                Ok(Err(_)) | Err(_) => break,
            }
        }
        if !whole && pieces > 0 {
            self.discard(response, pieces).await;
        }
        let cut = body.len() > self.body_max;
        let mut body = self.masks.mask_prefix(&body, self.body_max).into_owned();
        if cut {
            // A cut in the middle of a character would make the text invalid UTF-8.
            body.truncate(whole_characters(&body));
        }
        Response {
            status,
            headers,
            body: body.into(),
            truncated: cut || !whole,
            retry_after,
            place: None,
        }
    }

    async fn discard(&self, mut response: http::Response<Incoming>, pieces: usize) {
        let read_on = async {
            let mut left = DISCARD_BYTES;
            for _ in 0..pieces {
                let Ok(Some(chunk)) = chunk(&mut response).await else {
                    break;
                };
                left = match left.checked_sub(chunk.len()) {
                    Some(left) => left,
                    None => break,
                };
            }
        };
        // The answer is complete either way; an unfinished connection is closed.
        let _ = timeout_at(self.deadline.min(Instant::now() + DISCARD_TIME), read_on).await;
    }

    fn retry_after(&self, status: StatusCode, headers: &HeaderMap) -> Option<u64> {
        let wait = parse_retry_after(headers.get(RETRY_AFTER)?.to_str().ok()?, self.now)?;
        if wait > RETRY_AFTER_MAX && !status.is_success() {
            tracing::warn!(
                pipeline = self.name,
                seconds = wait.as_secs(),
                "the receiver's `Retry-After` is too long; waiting {} s",
                RETRY_AFTER_MAX.as_secs()
            );
        }
        Some(wait.min(RETRY_AFTER_MAX).as_millis() as u64)
    }
}

fn headers(headers: &HeaderMap, masks: &Masks) -> Vec<(String, String)> {
    let text =
        |value: &[u8]| String::from_utf8_lossy(&masks.mask_prefix(value, value.len())).into_owned();
    headers
        .iter()
        .map(|(name, value)| {
            (
                masks.mask(name.as_str()).into_owned(),
                text(value.as_bytes()),
            )
        })
        .collect()
}

/// The length of a text without an incomplete character at its end. If the bytes are not UTF-8 for
/// another reason, their full length.
fn whole_characters(bytes: &[u8]) -> usize {
    match std::str::from_utf8(bytes) {
        Err(error) if error.error_len().is_none() => error.valid_up_to(),
        _ => bytes.len(),
    }
}

/// RFC 9110, 10.2.3: seconds, or a date. A date in the past means now.
fn parse_retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(Duration::from_secs(value.parse().unwrap_or(u64::MAX)));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777 - 30);
        for (value, seconds) in [
            ("120", Some(120)),
            (" 0 ", Some(0)),
            ("99999999999999999999999", Some(u64::MAX)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(30)),
            ("Sunday, 06-Nov-94 08:49:37 GMT", Some(30)),
            ("Sun Nov  6 08:49:37 1994", Some(30)),
            ("Sun, 06 Nov 1994 08:00:00 GMT", Some(0)),
            ("", None),
            ("-1", None),
            ("1.5", None),
            ("soon", None),
        ] {
            assert_eq!(
                parse_retry_after(value, now).map(|wait| wait.as_secs()),
                seconds,
                "{value:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn parsing_never_panics(value in "\\PC{0,40}") {
            parse_retry_after(&value, SystemTime::UNIX_EPOCH);
        }
    }
}
