//! Faults that only some requests meet.

/// A fault that takes the place of a normal answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is refused with this status.
    Status(u16),
    /// It is read and held, neither counted nor answered, until
    /// [`ReceiverControl::release`](super::ReceiverControl::release).
    Hang,
    /// Its documents are accepted and counted, but the answer waits for
    /// [`ReceiverControl::release`](super::ReceiverControl::release).
    AnswerLate,
}

/// A fault, and the requests that meet it: those to which every condition applies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    pub fault: Fault,
    /// The path of the request begins with this text.
    pub path: String,
    /// The body contains this text.
    pub body: String,
    /// The request carries more than this many documents.
    pub more_than: usize,
}

impl Rule {
    /// For every request.
    pub fn new(fault: Fault) -> Rule {
        Rule {
            fault,
            path: String::new(),
            body: String::new(),
            more_than: 0,
        }
    }

    pub(super) fn matches(&self, path: &str, body: &[u8], documents: usize) -> bool {
        let text = self.body.as_bytes();
        path.starts_with(&self.path)
            && documents > self.more_than
            && (text.is_empty() || body.windows(text.len()).any(|window| window == text))
    }
}
