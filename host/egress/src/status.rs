//! What the host makes of an answer's status.

/// The meaning of an answer's status, unless the sink overrides it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatusClass {
    /// The receiver has the documents.
    Delivered,
    /// The receiver cannot take them now: hold, back off, and send the same request again.
    Retry,
    /// The operator must act, at one end or the other: hold, back off, and report that the pipeline
    /// is not ready. Nothing is dropped.
    NotReady,
    /// The receiver refuses some of the documents: bisect to find them. TLS may also be the cause,
    /// because nginx answers 400 to a client without a certificate. So a document is dead-lettered
    /// only after another one has been accepted.
    Refused,
    /// More than the receiver takes at once: split, and remember the size.
    TooLarge,
}

impl StatusClass {
    /// Follows the failure table of ARCHITECTURE.md. Redirects are not followed, because they mean
    /// a wrong address.
    pub fn of(status: u16) -> StatusClass {
        match status {
            200..=299 => StatusClass::Delivered,
            408 | 425 | 429 | 500.. => StatusClass::Retry,
            400 | 422 => StatusClass::Refused,
            413 => StatusClass::TooLarge,
            _ => StatusClass::NotReady,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::StatusClass::{self, Delivered, NotReady, Refused, Retry, TooLarge};

    #[test]
    fn statuses_have_the_class_of_the_failure_table() {
        for (class, statuses) in [
            (Delivered, &[200, 201, 204, 299][..]),
            (Retry, &[408, 425, 429, 500, 503]),
            (NotReady, &[100, 301, 307, 401, 403, 404, 405, 418]),
            (Refused, &[400, 422]),
            (TooLarge, &[413]),
        ] {
            for &status in statuses {
                assert_eq!(StatusClass::of(status), class, "{status}");
            }
        }
    }
}
