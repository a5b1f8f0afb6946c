use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::Arc;

use lockgate_model::{
    BlockBuilder, BlockParts, FeedKind, FeedRef, Head, Millis, key_of, payload_hash,
};

use super::{Pending, Seen};
use crate::Intake;
use crate::connect::of_proto;
use crate::context::Context;
use crate::json::{Captured, Converter};
use crate::proto::auditlog::EventUnstructured;

const UPLOAD: &str = "session.upload";
/// What a server calls an event whose type it does not know.
const UNKNOWN: &str = "unknown";

/// What events are collected for.
#[derive(Clone, Debug)]
pub(crate) enum Feed {
    /// The audit log: only these types (all, where there are none), not before this time.
    Audit {
        types: Arc<HashSet<String>>,
        start: Millis,
    },
    /// The recording of this session, whole.
    Recording { sid: String },
}

/// Collects events into a block: filters, converts, suppresses what was read before, notes which
/// recordings were announced.
pub(crate) struct Collector {
    feed: Feed,
    converter: Converter,
    block: BlockBuilder,
    announced: Vec<Pending>,
    duplicates: u64,
    filtered: u64,
    unreadable: u64,
}

/// What was collected since the last time.
pub(crate) struct Taken {
    pub(crate) events: BlockParts,
    pub(crate) announced: Vec<Pending>,
    pub(crate) duplicates: u64,
    pub(crate) filtered: u64,
    pub(crate) unreadable: u64,
}

impl Collector {
    pub(crate) fn new(feed: Feed) -> Collector {
        Collector {
            feed,
            converter: Converter::new(),
            block: BlockBuilder::new(),
            announced: Vec::new(),
            duplicates: 0,
            filtered: 0,
            unreadable: 0,
        }
    }

    pub(crate) fn audit<I: Intake>(context: &Context<I>) -> Collector {
        Collector::new(Feed::Audit {
            types: context.types.clone(),
            start: context.start(),
        })
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

    pub(crate) fn is_empty(&self) -> bool {
        self.block.is_empty()
    }

    /// True where the event went into the block; otherwise it is counted as filtered, or as one
    /// that `seen` knew.
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

    /// What was collected; the collector is empty then.
    pub(crate) fn take(&mut self) -> Taken {
        Taken {
            events: self.block.take(),
            announced: std::mem::take(&mut self.announced),
            duplicates: std::mem::take(&mut self.duplicates),
            filtered: std::mem::take(&mut self.filtered),
            unreadable: std::mem::take(&mut self.unreadable),
        }
    }

    /// Before the payload is read (`None`), and after: an event that the server does not know goes
    /// by the type it came with.
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
            && !seen.insert(payload_hash(&key, payload))
        {
            self.block.abandon();
            self.duplicates += 1;
            return false;
        }
        if event.r#type == UPLOAD && self.feed() == FeedKind::Audit && !captured.sid.is_empty() {
            self.announced.push(Pending::new(captured.sid, time));
        }
        let head = Head {
            key: &key,
            event_type: &event.r#type,
            code: captured.code,
            time,
            index: event.index,
            session,
        };
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
