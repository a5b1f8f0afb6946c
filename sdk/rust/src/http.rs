use crate::{Body, Delivery, Pair, Postponement, Rejection, Request, Response};

/// What `classify` knows of the request that was answered.
#[derive(Clone, Copy, Debug)]
pub struct Sent<'a> {
    pub method: &'a str,
    pub path_suffix: &'a str,
    /// Which documents of the batch it carried, by index.
    pub carries: &'a [u32],
}

impl Request {
    /// A POST to the operator's URL.
    pub fn post(content_type: &str, body: impl Into<Body>, carries: Vec<u32>) -> Request {
        Request {
            method: "POST".into(),
            path_suffix: String::new(),
            query: vec![],
            headers: vec![Pair::new("content-type", content_type)],
            body: body.into(),
            carries,
        }
    }

    /// What is appended to the path of the operator's URL: `[A-Za-z0-9._~/-]*`, no `..`, no `//`.
    pub fn path_suffix(mut self, suffix: impl Into<String>) -> Request {
        self.path_suffix = suffix.into();
        self
    }
}

impl Rejection {
    pub fn new(index: u32, reason: impl Into<String>) -> Rejection {
        Rejection {
            index,
            reason: reason.into(),
        }
    }
}

impl From<String> for Body {
    fn from(text: String) -> Body {
        Body::Text(text)
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Body {
        Body::Bytes(bytes)
    }
}

impl Response {
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The value of a header, whatever its case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|header| header.name.eq_ignore_ascii_case(name))
            .map(|header| header.value.as_str())
    }

    /// Milliseconds that a `Retry-After` of seconds asks for. (The host respects the header by
    /// itself, dates included.)
    pub fn retry_after(&self) -> Option<u32> {
        let seconds: u32 = self.header("retry-after")?.trim().parse().ok()?;
        Some(seconds.saturating_mul(1000))
    }

    /// One sentence for people: the status and the beginning of the body.
    pub fn summary(&self) -> String {
        let body = self.body.trim();
        if body.is_empty() {
            return format!("the receiver answered {}", self.status);
        }
        let excerpt: String = body.chars().take(200).collect();
        let dots = if excerpt.len() < body.len() {
            "…"
        } else {
            ""
        };
        format!("the receiver answered {}: {excerpt}{dots}", self.status)
    }
}

impl Delivery {
    /// What a status means where a receiver says nothing more: 2xx delivered; 400, 413 and 422
    /// split, for they may be one document's fault; everything else is no document's fault, so
    /// hold and retry.
    pub fn by_status(response: &Response) -> Delivery {
        match response.status {
            200..300 => Delivery::Delivered,
            400 | 413 | 422 => Delivery::Split(response.summary()),
            _ => Delivery::retry(response),
        }
    }

    /// Hold, and send the same again.
    pub fn retry(response: &Response) -> Delivery {
        Delivery::Retry(Postponement {
            message: response.summary(),
            after: response.retry_after(),
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::{Delivery, Postponement, test};

    #[test]
    fn statuses_are_delivered_split_or_retried_never_dropped() {
        for (status, body, expected) in [
            (201, "", Delivery::Delivered),
            (
                400,
                "bad\n",
                Delivery::Split("the receiver answered 400: bad".into()),
            ),
            (413, "", Delivery::Split("the receiver answered 413".into())),
            (
                404,
                "",
                Delivery::Retry(Postponement {
                    message: "the receiver answered 404".into(),
                    after: Some(7000),
                }),
            ),
            (
                503,
                "",
                Delivery::Retry(Postponement {
                    message: "the receiver answered 503".into(),
                    after: Some(7000),
                }),
            ),
        ] {
            let mut response = test::response(status, body);
            response.headers.push(crate::Pair::new("Retry-After", "7"));
            assert_eq!(Delivery::by_status(&response), expected);
        }
        let long = test::response(500, &"é".repeat(300)).summary();
        assert_eq!(
            long,
            format!("the receiver answered 500: {}…", "é".repeat(200))
        );
    }
}
