//! Which events of a range of time a store holds: a reader recognises by them what it reads again.

use crate::{Block, Millis, payload_hash};

/// Stored events of a range of time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KnownEvents {
    /// Time and [`payload_hash`] of each, in no particular order.
    pub events: Vec<(Millis, u64)>,
    /// The last millisecond up to which they are listed: at most the end of the range.
    pub until: Millis,
    /// False if retention may have removed others of this time.
    pub is_complete: bool,
}

/// Lists stored events, block by block. If there are too many it shortens the range, so that
/// memory is bounded.
#[derive(Debug)]
pub struct KnownEventsBuilder {
    from: Millis,
    until: Millis,
    max: usize,
    events: Vec<(Millis, u64)>,
}

impl KnownEventsBuilder {
    /// For `from..=to`. Lists more than `max` events only if they have the same time.
    pub fn new(from: Millis, to: Millis, max: usize) -> KnownEventsBuilder {
        KnownEventsBuilder {
            from,
            until: to,
            max: max.max(1),
            events: Vec::new(),
        }
    }

    /// Blocks that only hold later events need not be added.
    pub fn until(&self) -> Millis {
        self.until
    }

    pub fn add(&mut self, block: &Block) {
        for row in 0..block.len() {
            let event = block.view(row);
            if (self.from..=self.until).contains(&event.time) {
                let payload = block.raw(row).unwrap_or(event.payload.as_bytes());
                self.events
                    .push((event.time, payload_hash(event.key, payload)));
            }
        }
        if self.events.len() > 2 * self.max {
            self.shorten();
        }
    }

    pub fn finish(mut self, is_complete: bool) -> KnownEvents {
        self.shorten();
        KnownEvents {
            events: self.events,
            until: self.until,
            is_complete,
        }
    }

    fn shorten(&mut self) {
        if self.events.len() <= self.max {
            return;
        }
        self.events.sort_unstable();
        // Events of the same time stay together.
        let (last, _) = self.events[self.max - 1];
        let (next, _) = self.events[self.max];
        let until = if next > last { next - 1 } else { last };
        self.until = self.until.min(until);
        self.events.retain(|&(time, _)| time <= until);
    }
}

#[cfg(test)]
mod tests {
    use crate::{BlockBuilder, FeedKind, Head};

    use super::*;

    #[test]
    fn a_range_with_too_many_events_is_shortened_but_not_within_a_millisecond() {
        let block = |times: &[Millis]| {
            let mut builder = BlockBuilder::new();
            for &time in times {
                let head = Head {
                    key: &time.to_string(),
                    event_type: "t",
                    code: "",
                    time,
                    index: 0,
                    session: "",
                };
                builder.push(head, "{}");
            }
            Block::new("s/audit".into(), FeedKind::Audit, 1, 0, builder.take())
        };
        for (max, until, listed) in [(9, 90, 7), (3, 19, 3), (2, 10, 3), (4, 29, 4), (6, 30, 7)] {
            let mut known = KnownEventsBuilder::new(5, 90, max);
            known.add(&block(&[30, 10, 10, 91]));
            known.add(&block(&[4, 20, 10, 30, 30]));
            let known = known.finish(true);
            assert_eq!((known.until, known.events.len()), (until, listed), "{max}");
            assert!(known.events.iter().all(|&(time, _)| time <= until));
        }
    }
}
