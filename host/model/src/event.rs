//! Events and documents as views, and the feeds that they come from.

use std::fmt;

use sha2::{Digest, Sha256};

use crate::Millis;

/// The two feeds of Teleport. A stream carries one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FeedKind {
    Audit,
    Sessions,
}

impl FeedKind {
    /// The second half of a stream's name: `teleport/audit`, `teleport/sessions`.
    pub fn name(self) -> &'static str {
        match self {
            FeedKind::Audit => "audit",
            FeedKind::Sessions => "sessions",
        }
    }

    /// The feed of a single event, as the plugin contract calls it.
    pub fn of_event(self) -> &'static str {
        match self {
            FeedKind::Audit => "audit",
            FeedKind::Sessions => "session",
        }
    }
}

/// Where an event came from in Teleport.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FeedRef<'a> {
    /// The cluster's audit log.
    Audit,
    /// The recording of the session with this id.
    Session(&'a str),
}

/// One event as a stage sees it, borrowed from a block or from a mapper's document.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EventView<'a> {
    /// Idempotency key, see [`key_of`].
    pub key: &'a str,
    pub event_type: &'a str,
    pub code: &'a str,
    pub time: Millis,
    /// Teleport's `ei`.
    pub index: i64,
    pub feed: FeedKind,
    /// The session the event belongs to, if any.
    pub session: Option<&'a str>,
    /// One JSON object. Empty for an event that could not be converted to JSON.
    pub payload: &'a str,
}

/// A document as a sink sees it: its event, with its own key and payload.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DocumentView<'a> {
    /// `key` is the document's: `KEY#n` if a mapper made several documents of one event. `payload`
    /// is the mapper's output, or the event's own payload.
    pub event: EventView<'a>,
    /// The attributes that the mapper set.
    pub attributes: &'a [(String, String)],
}

/// An event's attributes apart from its payload.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Head<'a> {
    pub key: &'a str,
    pub event_type: &'a str,
    pub code: &'a str,
    pub time: Millis,
    pub index: i64,
    /// Teleport's `sid`; empty if the event belongs to no session.
    pub session: &'a str,
}

/// The idempotency key of an event: equal for equal input, unique per feed.
///
/// It is Teleport's `uid`, or else the SHA-256 of the payload. In a recording it begins with the
/// session id, because the same event may be in the audit log and in a recording.
pub fn key_of(feed: FeedRef<'_>, uid: &str, payload: &[u8]) -> String {
    let id = if uid.is_empty() {
        Hex(&Sha256::digest(payload)).to_string()
    } else {
        uid.to_owned()
    };
    match feed {
        FeedRef::Audit => id,
        FeedRef::Session(sid) => format!("{sid}/{id}"),
    }
}

/// 64 bits of SHA-256 over key and payload, by which readers recognise duplicates. The key alone is
/// not enough, because an agent may choose the uid.
pub fn payload_hash(key: &str, payload: &[u8]) -> u64 {
    let mut hasher = Sha256::new();
    hasher.update((key.len() as u64).to_le_bytes());
    hasher.update(key);
    hasher.update(payload);
    let digest = hasher.finalize();
    u64::from_le_bytes(digest[..8].try_into().expect("eight bytes"))
}

struct Hex<'a>(&'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_from_the_uid_or_the_payload_and_differ_per_feed() {
        assert_eq!(key_of(FeedRef::Audit, "u-1", b"{}"), "u-1");
        assert_eq!(key_of(FeedRef::Session("s-1"), "u-1", b"{}"), "s-1/u-1");
        assert_eq!(
            key_of(FeedRef::Audit, "", b"{}"),
            "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
        );
    }

    #[test]
    fn hashes_depend_on_key_and_payload() {
        assert_eq!(payload_hash("u", b"{}"), payload_hash("u", b"{}"));
        assert_ne!(payload_hash("u", b"{}"), payload_hash("u", b"{ }"));
        assert_ne!(payload_hash("ua", b"b"), payload_hash("u", b"ab"));
    }
}
