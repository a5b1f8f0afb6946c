//! Outcomes of entries, as runs.

use crate::SeqRange;

/// Index into [`Commit::reasons`](crate::Commit).
pub type ReasonIndex = u16;

/// The final outcome of an entry. An entry without one is waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    Delivered,
    /// Dropped on purpose, by a filter or a mapper.
    Dropped(ReasonIndex),
    /// Kept as a dead letter.
    Dead(ReasonIndex),
}

/// An outcome with its reason as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    Delivered,
    Dropped(String),
    Dead(String),
}

/// The same outcome for `len` consecutive entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutcomeRun {
    pub outcome: Outcome,
    pub len: u32,
}

/// Outcomes of the entries of one range, run-length encoded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcomes {
    pub runs: Vec<OutcomeRun>,
}

impl Outcomes {
    pub fn push(&mut self, outcome: Outcome) {
        match self.runs.last_mut() {
            Some(run) if run.outcome == outcome => run.len += 1,
            _ => self.runs.push(OutcomeRun { outcome, len: 1 }),
        }
    }

    pub fn len(&self) -> u64 {
        self.runs.iter().map(|run| u64::from(run.len)).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// (delivered, dropped, dead), counted.
    pub fn count(&self) -> (u64, u64, u64) {
        self.runs
            .iter()
            .fold((0, 0, 0), |(delivered, dropped, dead), run| {
                let len = u64::from(run.len);
                match run.outcome {
                    Outcome::Delivered => (delivered + len, dropped, dead),
                    Outcome::Dropped(_) => (delivered, dropped + len, dead),
                    Outcome::Dead(_) => (delivered, dropped, dead + len),
                }
            })
    }

    pub fn iter(&self) -> impl Iterator<Item = Outcome> {
        self.runs
            .iter()
            .flat_map(|run| std::iter::repeat_n(run.outcome, run.len as usize))
    }

    /// Whether there is exactly one outcome for each sequence of the range.
    pub fn covers(&self, range: &SeqRange) -> bool {
        self.len() == range.end - range.start
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_merge_and_count() {
        let mut outcomes = Outcomes::default();
        for outcome in [
            Outcome::Delivered,
            Outcome::Delivered,
            Outcome::Dropped(0),
            Outcome::Dropped(1),
            Outcome::Dead(2),
        ] {
            outcomes.push(outcome);
        }
        assert_eq!(outcomes.runs.len(), 4);
        assert_eq!(outcomes.count(), (2, 2, 1));
        assert!(outcomes.covers(&(7..12)));
        assert_eq!(outcomes.iter().nth(3), Some(Outcome::Dropped(1)));
    }
}
