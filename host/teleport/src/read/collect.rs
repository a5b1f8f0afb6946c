//! Collects events into blocks.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use lockgate_model::{
    BlockBuilder, BlockParts, FeedKind, FeedRef, Head, Millis, key_of, payload_hash,
};

use super::{KnownRecordings, PendingRecording, Seen};
use crate::Intake;
use crate::json::{Captured, Converter};
use crate::locks::FailedLogin;
use crate::proto::auditlog::EventUnstructured;
use crate::source::Source;
use crate::time::of_proto;

const UPLOAD: &str = "session.upload";
const ACCESS: &str = "session.recording.access";
/// The type that a server gives to an event whose type it does not know.
const UNKNOWN: &str = "unknown";

/// The feed that events are collected for.
#[derive(Clone, Debug)]
pub(crate) enum Feed {
    /// The audit log: only these types (all, if empty), and only from this time on.
    Audit {
        types: Arc<HashSet<String>>,
        start: Millis,
        /// Teleport's events about our own downloads are left out. `None`: they are kept.
        own: Option<OwnAccess>,
    },
    /// The complete recording of this session.
    Recording { sid: String },
}

/// Tells the events that Teleport writes when this source opens a recording.
#[derive(Clone, Debug)]
pub(crate) struct OwnAccess {
    /// The user of the credentials.
    pub(crate) user: Arc<Mutex<Option<String>>>,
    pub(crate) recordings: Arc<KnownRecordings>,
}

impl OwnAccess {
    fn is(&self, event_type: &str, captured: &Captured<'_>) -> bool {
        event_type == ACCESS && self.recordings.has(captured.sid) && {
            let user = self.user.lock().unwrap_or_else(PoisonError::into_inner);
            user.as_deref().is_some_and(|user| user == captured.user)
        }
    }
}

/// Collects events into a block: filters them, converts them to JSON, suppresses duplicates, and
/// collects the announced recordings.
pub(crate) struct Collector {
    feed: Feed,
    converter: Converter,
    block: BlockBuilder,
    announced: Vec<PendingRecording>,
    /// `None`: they are not wanted.
    failed_logins: Option<Vec<FailedLogin>>,
    duplicates: u64,
    filtered: u64,
    unreadable: u64,
    own_accesses: u64,
    /// Events collected so far.
    total: u64,
}

/// Everything collected since the last call of [`Collector::take`].
pub(crate) struct Collected {
    pub(crate) events: BlockParts,
    pub(crate) announced: Vec<PendingRecording>,
    pub(crate) failed_logins: Vec<FailedLogin>,
    pub(crate) duplicates: u64,
    pub(crate) filtered: u64,
    pub(crate) unreadable: u64,
    pub(crate) own_accesses: u64,
}

impl Collector {
    pub(crate) fn new(feed: Feed) -> Collector {
        Collector {
            feed,
            converter: Converter::new(),
            block: BlockBuilder::new(),
            announced: Vec::new(),
            failed_logins: None,
            duplicates: 0,
            filtered: 0,
            unreadable: 0,
            own_accesses: 0,
            total: 0,
        }
    }

    pub(crate) fn audit<I: Intake>(source: &Source<I>) -> Collector {
        Collector::audit_from(source, source.start())
    }

    /// Of the audit log from this time on, also if another reader has read on to a later one.
    pub(crate) fn audit_from<I: Intake>(source: &Source<I>, start: Millis) -> Collector {
        let collector = Collector::new(Feed::Audit {
            types: source.types.clone(),
            start,
            own: (!source.settings.keep_own_access && source.settings.sessions).then(|| {
                OwnAccess {
                    user: source.connector.user(),
                    recordings: source.known_recordings.clone(),
                }
            }),
        });
        Collector {
            failed_logins: source.locks.as_ref().map(|_| Vec::new()),
            ..collector
        }
    }

    pub(crate) fn feed(&self) -> FeedKind {
        match self.feed {
            Feed::Audit { .. } => FeedKind::Audit,
            Feed::Recording { .. } => FeedKind::Sessions,
        }
    }

    pub(crate) fn is_full(&self) -> bool {
        self.block.is_full()
    }

    /// How many events it has collected so far.
    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.block.is_empty()
    }

    /// Returns whether the event went into the block. Otherwise it is counted, as filtered or as a
    /// duplicate of an event in `seen`.
    pub(crate) fn push(&mut self, event: &EventUnstructured, seen: Option<&mut Seen>) -> bool {
        let time = of_proto(event.time.as_ref());
        if let Feed::Audit { start, .. } = self.feed
            && time < start
        {
            self.filtered += 1;
            return false;
        }
        if !self.wants(&event.r#type, None) {
            self.filtered += 1;
            return false;
        }
        let converted = self
            .converter
            .append(&event.unstructured, self.block.text());
        let captured = converted.unwrap_or_default();
        if !self.wants(&event.r#type, Some(captured.unknown_event)) {
            self.block.abandon();
            self.filtered += 1;
            return false;
        }
        if let Feed::Audit { own: Some(own), .. } = &self.feed
            && own.is(&event.r#type, &captured)
        {
            self.block.abandon();
            self.filtered += 1;
            self.own_accesses += 1;
            return false;
        }
        if let Err(error) = converted {
            tracing::warn!(
                id = event.id,
                event_type = event.r#type,
                "storing an event as raw bytes: {error}"
            );
            self.unreadable += 1;
        }
        self.finish(event, converted.ok(), time, seen)
    }

    /// Returns everything collected, and leaves the collector empty.
    pub(crate) fn take(&mut self) -> Collected {
        Collected {
            events: self.block.take(),
            announced: std::mem::take(&mut self.announced),
            failed_logins: (self.failed_logins.as_mut())
                .map(std::mem::take)
                .unwrap_or_default(),
            duplicates: std::mem::take(&mut self.duplicates),
            filtered: std::mem::take(&mut self.filtered),
            unreadable: std::mem::take(&mut self.unreadable),
            own_accesses: std::mem::take(&mut self.own_accesses),
        }
    }

    /// Events that are read again on purpose are not counted.
    pub(crate) fn forget_duplicates(&mut self) {
        self.duplicates = 0;
    }

    /// Called before the payload is read (`original` is `None`) and after. An event of a type that
    /// the server does not know is matched by its original type.
    fn wants(&self, event_type: &str, original: Option<&str>) -> bool {
        match &self.feed {
            Feed::Audit { types, .. } if !types.is_empty() => {
                types.contains(event_type)
                    || event_type == UNKNOWN
                        && original.is_none_or(|original| types.contains(original))
            }
            _ => true,
        }
    }

    fn finish(
        &mut self,
        event: &EventUnstructured,
        captured: Option<Captured<'_>>,
        time: Millis,
        seen: Option<&mut Seen>,
    ) -> bool {
        let readable = captured.is_some();
        let captured = captured.unwrap_or_default();
        let payload = if readable {
            self.block.pending().as_bytes()
        } else {
            &event.unstructured[..]
        };
        let (key, session) = match &self.feed {
            Feed::Audit { .. } if !captured.uid.is_empty() => {
                (Cow::Borrowed(captured.uid), captured.sid)
            }
            Feed::Audit { .. } => (
                Cow::Owned(key_of(FeedRef::Audit, "", payload)),
                captured.sid,
            ),
            Feed::Recording { sid } => (
                Cow::Owned(key_of(FeedRef::Session(sid), captured.uid, payload)),
                sid.as_str(),
            ),
        };
        if let Some(seen) = seen
            && !seen.insert(time, payload_hash(&key, payload))
        {
            self.block.abandon();
            self.duplicates += 1;
            return false;
        }
        if event.r#type == UPLOAD && self.feed() == FeedKind::Audit && !captured.sid.is_empty() {
            self.announced
                .push(PendingRecording::new(captured.sid, time));
        }
        if let (Some(logins), true) = (&mut self.failed_logins, readable) {
            logins.extend(FailedLogin::of(&event.r#type, &key, payload, time));
        }
        let head = Head {
            key: &key,
            event_type: &event.r#type,
            code: captured.code,
            time,
            index: event.index,
            session,
        };
        self.total += 1;
        if readable {
            self.block.finish(head);
        } else {
            self.block.push_raw(head, &event.unstructured);
        }
        true
    }
}

#[cfg(test)]
mod tests;
