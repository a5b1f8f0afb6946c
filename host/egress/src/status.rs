/// What a status means where the sink does not say otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The receiver has the events.
    Delivered,
    /// It cannot take them now: hold, back off, send the same again, for ever.
    Retry,
    /// Something must be set right first, here or there: hold, back off, and say that the pipeline
    /// is not ready. Nothing is dropped.
    NotReady,
    /// It does not want these events: find the ones it means by bisecting. It may also be TLS's
    /// fault (nginx answers 400 to a client that shows no certificate), so that no event is
    /// dead-lettered before another one was taken.
    Refused,
    /// More than it takes at once: split, and remember the size.
    TooLarge,
}

/// The failure table of ARCHITECTURE.md. Redirects are not followed, so that they are a wrong
/// address.
pub fn verdict(status: u16) -> Verdict {
    match status {
        200..=299 => Verdict::Delivered,
        408 | 425 | 429 | 500.. => Verdict::Retry,
        400 | 422 => Verdict::Refused,
        413 => Verdict::TooLarge,
        _ => Verdict::NotReady,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_status_has_the_verdict_of_the_failure_table() {
        for (status, expected) in [
            (100, Verdict::NotReady),
            (200, Verdict::Delivered),
            (201, Verdict::Delivered),
            (204, Verdict::Delivered),
            (299, Verdict::Delivered),
            (301, Verdict::NotReady),
            (307, Verdict::NotReady),
            (400, Verdict::Refused),
            (401, Verdict::NotReady),
            (403, Verdict::NotReady),
            (404, Verdict::NotReady),
            (405, Verdict::NotReady),
            (408, Verdict::Retry),
            (413, Verdict::TooLarge),
            (418, Verdict::NotReady),
            (422, Verdict::Refused),
            (425, Verdict::Retry),
            (429, Verdict::Retry),
            (500, Verdict::Retry),
            (503, Verdict::Retry),
        ] {
            assert_eq!(verdict(status), expected, "{status}");
        }
    }
}
