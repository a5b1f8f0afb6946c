//! The gaps in a report, compared with those of the store. A gap that vanishes would turn events
//! that Teleport never returned into events that never were.

use lockgate_model::{Day, Gap, Millis, utc};
use serde_json::{Map, Value, json};

use super::text_of;
use crate::audit::Finding;
use crate::gaps::READ_KEPT;

/// What a report says of a gap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ReportedGap {
    source: String,
    /// `None`: the report is of version 2, which did not name it.
    key: Option<String>,
    feed: String,
    from: Millis,
    to: Millis,
    since: Millis,
    attempts: u64,
    what: String,
    state: String,
    ended_at: Option<Millis>,
    events: u64,
}

pub(super) fn of_gap(source: &str, gap: &Gap) -> Value {
    json!({
        "source": source, "key": gap.key, "feed": gap.feed.name(), "from": gap.from, "to": gap.to,
        "since": gap.since, "attempts": gap.attempts, "what": gap.what, "error": gap.error,
        "state": gap.state.name(), "ended-at": gap.state.at(), "events": gap.state.events(),
    })
}

pub(super) fn reported_gap(value: &Value) -> Option<ReportedGap> {
    let members = value.as_object()?;
    let text = |name: &str| text_of(members, name).map(str::to_owned);
    let millis = |members: &Map<String, Value>, name: &str| members.get(name)?.as_i64();
    Some(ReportedGap {
        source: text("source")?,
        key: text("key"),
        feed: text("feed")?,
        from: millis(members, "from")?,
        to: millis(members, "to")?,
        since: millis(members, "since")?,
        attempts: members.get("attempts")?.as_u64()?,
        what: text("what")?,
        state: text("state")?,
        ended_at: millis(members, "ended-at"),
        events: members.get("events")?.as_u64()?,
    })
}

impl ReportedGap {
    /// What the store says otherwise; `None` if it agrees.
    pub(super) fn compare(&self, now: &[(String, Gap)]) -> Option<Finding> {
        let mut of_source = now.iter().filter(|(source, _)| *source == self.source);
        let found = of_source.clone().find(|(_, gap)| self.is_same_as(gap));
        let what = match found {
            Some((_, gap)) => self.difference(gap)?,
            // A gap that was read is deleted 90 days later, when the next gap of the source is
            // read.
            None if of_source.any(|(_, gap)| self.may_be_removed_by(gap)) => return None,
            None => "the report has it, and the store does not".to_owned(),
        };
        let (from, to) = (self.from, self.to);
        Some(Finding {
            pipeline: None,
            stream: Some(format!("{}/{}", self.source, self.feed)),
            day: Some(Day::of(from)),
            place: format!("the gap from {} to {} ({})", utc(from), utc(to), self.what),
            what,
        })
    }

    fn is_same_as(&self, gap: &Gap) -> bool {
        match &self.key {
            Some(key) => gap.key == *key,
            None => gap.feed.name() == self.feed && gap.since == self.since,
        }
    }

    fn may_be_removed_by(&self, gap: &Gap) -> bool {
        let ended = self.ended_at.filter(|_| self.state == "read");
        let later = gap.state.at().filter(|_| !gap.is_missing());
        ended
            .zip(later)
            .is_some_and(|(ended, later)| later.saturating_sub(READ_KEPT) > ended)
    }

    fn difference(&self, now: &Gap) -> Option<String> {
        // It opened again later, under the same name.
        if now.since > self.since {
            return None;
        }
        let found = (now.state.name(), now.state.at(), now.state.events());
        let said = (&*self.state, self.ended_at, self.events);
        let is_over = self.state != "open";
        let is_older = now.since < self.since || now.attempts < self.attempts;
        if !is_older && (!is_over || found == said) {
            return None;
        }
        Some(format!(
            "the report has it {} after {} attempts, and the store {} after {}",
            self.state,
            self.attempts,
            now.state.name(),
            now.attempts
        ))
    }
}

#[cfg(test)]
mod tests {
    use lockgate_model::{FeedKind, GapState};

    use super::*;

    const DAY: Millis = 86_400_000;

    fn gap(key: &str, state: GapState) -> Gap {
        Gap {
            key: key.to_owned(),
            feed: FeedKind::Audit,
            from: 10,
            to: 20,
            since: 100,
            attempts: 3,
            what: "events".to_owned(),
            error: "it answers Internal".to_owned(),
            state,
        }
    }

    #[test]
    fn a_gap_may_end_and_may_not_vanish_or_begin_anew() {
        let (open, lost) = (GapState::Open, GapState::Lost(200));
        let read = |at| GapState::Read { at, events: 4 };
        let agrees = |said: &Gap, now: &[Gap]| {
            let said = reported_gap(&of_gap("teleport", said)).unwrap();
            let now = now.iter().map(|gap| ("teleport".to_owned(), gap.clone()));
            said.compare(&now.collect::<Vec<_>>()).is_none()
        };
        for state in [open, lost, read(200)] {
            let said = gap("a", state);
            assert!(agrees(&said, &[gap("b", open), said.clone()]), "{state:?}");
            assert!(!agrees(&said, &[gap("b", open)]), "{state:?} is gone");
            let again = Gap {
                since: 300,
                attempts: 1,
                ..gap("a", open)
            };
            assert!(agrees(&said, &[again]), "{state:?} opened again");
        }
        assert!(agrees(&gap("a", open), &[gap("a", read(200))]));
        assert!(agrees(&gap("a", open), &[gap("a", lost)]));
        assert!(!agrees(&gap("a", lost), &[gap("a", read(200))]));
        assert!(!agrees(&gap("a", read(200)), &[gap("a", read(201))]));
        let earlier = Gap {
            attempts: 2,
            ..gap("a", open)
        };
        assert!(!agrees(&gap("a", open), &[earlier]), "an older copy");
        let later = gap("b", read(200 + 91 * DAY));
        assert!(agrees(&gap("a", read(200)), std::slice::from_ref(&later)));
        assert!(!agrees(&gap("a", lost), &[later]));
    }

    #[test]
    fn a_gap_without_a_name_is_known_by_when_it_began() {
        let mut said = of_gap("teleport", &gap("a", GapState::Open));
        said.as_object_mut().unwrap().remove("key");
        let said = reported_gap(&said).unwrap();
        let now = |since| {
            let open = gap("a", GapState::Open);
            [("teleport".to_owned(), Gap { since, ..open })]
        };
        assert_eq!(said.compare(&now(100)), None);
        let found = said.compare(&now(101)).unwrap().to_string();
        assert!(
            found.contains("the report has it, and the store does not"),
            "{found}"
        );
    }
}
