//! An intake in memory, in place of a store.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use lockgate_model::{Append, FeedKind, Gap, KnownEvents, Millis, payload_hash};
use lockgate_teleport::{Closed, Intake, Resume};
use tokio::sync::watch;

use crate::fixture::in_time;

#[derive(Clone, Debug, PartialEq)]
pub struct StoredEvent {
    pub feed: FeedKind,
    pub time: Millis,
    pub key: String,
    pub event_type: String,
    pub session: String,
    pub index: i64,
    pub payload: String,
    pub is_raw: bool,
}

#[derive(Clone, Debug, Default)]
pub struct Contents {
    pub events: Vec<StoredEvent>,
    pub cursors: BTreeMap<String, String>,
    pub gaps: BTreeMap<String, Gap>,
    pub duplicates: u64,
    /// Sizes of the blocks.
    pub blocks: Vec<usize>,
    /// The earliest and the latest time of each block of the audit log.
    pub times: Vec<(Millis, Millis)>,
    /// The time of the latest event that was removed.
    pub removed: Option<Millis>,
    /// Keys of the events, and the cursors, of each append.
    pub appends: Vec<(Vec<String>, Vec<String>)>,
}

pub struct MemoryIntake {
    contents: watch::Sender<Contents>,
    /// Accepts this many more events, then waits forever.
    room: Mutex<usize>,
}

impl MemoryIntake {
    pub fn new() -> Arc<MemoryIntake> {
        MemoryIntake::with_room(usize::MAX)
    }

    pub fn with_room(events: usize) -> Arc<MemoryIntake> {
        Arc::new(MemoryIntake {
            contents: watch::Sender::default(),
            room: Mutex::new(events),
        })
    }

    pub fn grow(&self) {
        *self.room.lock().expect("no panic") = usize::MAX;
    }

    pub fn contents(&self) -> Contents {
        self.contents.borrow().clone()
    }

    /// Keys of the events of a feed, as they came.
    pub fn keys(&self, feed: FeedKind) -> Vec<String> {
        let contents = self.contents.borrow();
        contents
            .events
            .iter()
            .filter(|event| event.feed == feed)
            .map(|event| event.key.clone())
            .collect()
    }

    pub fn resume(&self) -> Resume {
        let contents = self.contents.borrow();
        Resume {
            cursors: contents.cursors.clone(),
            recent_times: contents.times.iter().rev().copied().collect(),
            gaps: contents.gaps.values().cloned().collect(),
        }
    }

    /// Removes all events, as retention does. The cursors stay.
    pub fn remove_all(&self) {
        self.contents.send_modify(|contents| {
            contents.removed = contents.events.iter().map(|event| event.time).max();
            contents.events.clear();
            contents.times.clear();
        });
    }

    /// The gaps on the books, in the order of their times.
    pub fn gaps(&self) -> Vec<Gap> {
        let mut gaps: Vec<Gap> = self.contents.borrow().gaps.values().cloned().collect();
        gaps.sort_by_key(|gap| gap.from);
        gaps
    }

    pub async fn holds(&self, what: impl FnMut(&Contents) -> bool) {
        in_time(self.contents.subscribe().wait_for(what))
            .await
            .expect("it is there");
    }

    /// Asserts that each key is there once or, if its time is in `fault`, in an open gap.
    pub fn assert_each_once_or_in_a_gap(
        &self,
        expected: &[(String, Millis)],
        fault: std::ops::RangeInclusive<Millis>,
    ) -> usize {
        let keys: std::collections::HashSet<String> =
            self.keys(FeedKind::Audit).into_iter().collect();
        let gaps = self.gaps();
        let is_in_open_gap = |time: Millis| {
            let mut open = gaps.iter().filter(|gap| gap.is_open());
            fault.contains(&time) && open.any(|gap| gap.contains(time))
        };
        let missing = expected.iter().filter(|(key, _)| !keys.contains(key));
        let (in_gaps, lost): (Vec<_>, Vec<_>) =
            missing.partition(|(_, time)| is_in_open_gap(*time));
        assert!(
            lost.is_empty(),
            "missing, and in no gap: {lost:?}; {gaps:?}"
        );
        let there = expected.iter().filter(|(key, _)| keys.contains(key));
        self.assert_each_once(FeedKind::Audit, there.map(|(key, _)| key.clone()));
        in_gaps.len()
    }

    /// Asserts that each key is there once, in any order.
    pub fn assert_each_once(&self, feed: FeedKind, expected: impl IntoIterator<Item = String>) {
        let mut expected: Vec<String> = expected.into_iter().collect();
        let mut keys = self.keys(feed);
        expected.sort_unstable();
        keys.sort_unstable();
        let missing: Vec<_> = expected
            .iter()
            .filter(|key| keys.binary_search(key).is_err())
            .collect();
        assert!(missing.is_empty(), "missing: {missing:?}");
        let more: Vec<_> = keys
            .chunk_by(|a, b| a == b)
            .filter(|same| same.len() > 1 || !expected.contains(&same[0]))
            .collect();
        assert!(more.is_empty(), "twice, or not expected: {more:?}");
    }
}

impl Intake for MemoryIntake {
    async fn append(&self, append: Append) -> Result<(), Closed> {
        let len = append.events.times.len();
        let fits = {
            let mut room = self.room.lock().expect("no panic");
            let fits = len <= *room;
            if fits {
                *room -= len;
            }
            fits
        };
        if !fits {
            std::future::pending::<()>().await;
        }
        assert_eq!(append.stream(), format!("teleport/{}", append.feed.name()));
        self.contents.send_modify(|contents| {
            let parts = &append.events;
            for row in 0..len {
                let raw = parts.raw.get(&(row as u32));
                contents.events.push(StoredEvent {
                    feed: append.feed,
                    time: parts.times[row],
                    key: parts.keys.at(row).to_owned(),
                    event_type: parts.types.at(row).to_owned(),
                    session: parts.sessions.at(row).to_owned(),
                    index: parts.indexes[row],
                    payload: parts.payloads.at(row).to_owned(),
                    is_raw: raw.is_some(),
                });
            }
            let keys = (0..len).map(|row| parts.keys.at(row).to_owned()).collect();
            contents.appends.push((
                keys,
                append
                    .cursors
                    .iter()
                    .map(|cursor| cursor.key.clone())
                    .collect(),
            ));
            contents.duplicates += append.duplicates;
            if len > 0 {
                contents.blocks.push(len);
                if append.feed == FeedKind::Audit {
                    let times = parts.times.iter().copied();
                    contents.times.extend(times.clone().min().zip(times.max()));
                }
            }
            for gap in append.gaps {
                contents.gaps.insert(gap.key.clone(), gap);
            }
            for cursor in append.cursors {
                match cursor.value {
                    Some(value) => contents.cursors.insert(cursor.key, value),
                    None => contents.cursors.remove(&cursor.key),
                };
            }
        });
        Ok(())
    }

    async fn known(&self, from: Millis, to: Millis, max: usize) -> Result<KnownEvents, Closed> {
        let contents = self.contents.borrow();
        let events = contents
            .events
            .iter()
            .filter(|event| event.feed == FeedKind::Audit && (from..=to).contains(&event.time));
        let mut events: Vec<(Millis, u64)> = events
            .map(|event| {
                let hash = payload_hash(&event.key, event.payload.as_bytes());
                (event.time, hash)
            })
            .collect();
        events.sort_unstable();
        let until = match (events.get(max - 1), events.get(max)) {
            (Some((last, _)), Some((next, _))) => *last.max(&(next - 1)),
            _ => to,
        };
        events.retain(|&(time, _)| time <= until);
        Ok(KnownEvents {
            events,
            until,
            is_complete: contents.removed.is_none_or(|removed| removed < from),
        })
    }
}
