//! The books of a pipeline: how many events were read, and their outcomes.

use crate::Day;

/// How many events were read, and how many have which outcome. Each figure is counted; none is
/// computed from the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Books {
    /// Events in the stream since the pipeline's epoch began.
    pub read: u64,
    pub delivered: u64,
    pub dropped: u64,
    pub dead: u64,
    /// Entries without an outcome.
    pub waiting: u64,
}

impl Books {
    /// Whether read = delivered + dropped + dead + waiting.
    pub fn balance(&self) -> bool {
        self.read == self.delivered + self.dropped + self.dead + self.waiting
    }
}

impl std::ops::AddAssign for Books {
    fn add_assign(&mut self, other: Books) {
        self.read += other.read;
        self.delivered += other.delivered;
        self.dropped += other.dropped;
        self.dead += other.dead;
        self.waiting += other.waiting;
    }
}

/// Outcomes of one commit that fall on one Teleport day (UTC, by event time).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DayTally {
    pub day: Day,
    pub delivered: u64,
    pub dropped: u64,
    pub dead: u64,
}
