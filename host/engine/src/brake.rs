//! Stops dead-lettering if too much of a stream would end there.

use std::collections::{BTreeMap, VecDeque};

use lockgate_model::show_size;
use serde::{Deserialize, Serialize};

/// Entries that the share is counted over.
const WINDOW: u32 = 1000;

/// Causes that are counted apart. There is one for each component of a pipeline, and one of the
/// host's own: events that cannot be read.
const CAUSES_MAX: usize = 64;

/// The operator's `dead-letters`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BrakeLimits {
    /// Dead letters in a row.
    pub in_a_row: u32,
    /// Most dead letters among the last 1,000 entries: thousandths.
    pub share: u32,
    /// Bytes of all dead letters that the pipeline keeps.
    pub bytes: u64,
}

impl Default for BrakeLimits {
    fn default() -> BrakeLimits {
        BrakeLimits {
            in_a_row: 16,
            share: 10,
            bytes: 1 << 30,
        }
    }
}

/// Which limit is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engaged {
    InARow(u32),
    Share { dead: u32, share: u32 },
    Bytes(u64),
}

impl Engaged {
    /// What ends it, without the operator's release.
    pub(crate) fn passes_when(&self) -> &'static str {
        match self {
            Engaged::InARow(_) | Engaged::Share { .. } => "more events are delivered",
            Engaged::Bytes(_) => "some are dropped",
        }
    }
}

impl std::fmt::Display for Engaged {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Engaged::InARow(1) => write!(f, "1 dead letter in a row"),
            Engaged::InARow(count) => write!(f, "{count} dead letters in a row"),
            Engaged::Share { dead, share } => {
                let percent = f64::from(*share) / 10.0;
                let are = if *dead == 1 {
                    "is a dead letter"
                } else {
                    "are dead letters"
                };
                write!(
                    f,
                    "{dead} of the last 1,000 events {are}, and {percent}% is the limit"
                )
            }
            Engaged::Bytes(bytes) => {
                write!(f, "dead letters fill their quota of {}", show_size(*bytes))
            }
        }
    }
}

/// Counts per cause, over batches and restarts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Brake {
    causes: BTreeMap<String, Window>,
}

/// The last entries that met one cause, as runs: (dead, entries).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Window {
    runs: VecDeque<(bool, u32)>,
}

impl Brake {
    /// Reads the text of [`text`](Self::text). A text of another version counts as nothing seen.
    pub(crate) fn parse(text: &str) -> Brake {
        serde_json::from_str(text).unwrap_or_default()
    }

    pub(crate) fn text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Entries were not dead-lettered by this cause.
    pub(crate) fn passed(&mut self, cause: &str, entries: u32) {
        // A cause that never had a dead letter needs no count.
        if entries > 0
            && let Some(window) = self.causes.get_mut(cause)
        {
            window.push(false, entries);
            if window.dead() == 0 {
                self.causes.remove(cause);
            }
        }
    }

    /// Whether one more entry may be dead-lettered by this cause. `bytes`: of all dead letters
    /// with this one.
    pub(crate) fn check(
        &self,
        cause: &str,
        bytes: u64,
        limits: &BrakeLimits,
    ) -> Result<(), Engaged> {
        if bytes > limits.bytes {
            return Err(Engaged::Bytes(limits.bytes));
        }
        let Some(window) = self.causes.get(cause) else {
            return Ok(());
        };
        let in_a_row = window.in_a_row();
        if in_a_row >= limits.in_a_row {
            return Err(Engaged::InARow(in_a_row));
        }
        let dead = window.dead();
        if dead >= limits.share {
            return Err(Engaged::Share {
                dead,
                share: limits.share,
            });
        }
        Ok(())
    }

    /// An entry was dead-lettered by this cause.
    pub(crate) fn died(&mut self, cause: &str) {
        if !self.causes.contains_key(cause) && self.causes.len() >= CAUSES_MAX {
            self.causes.pop_first();
        }
        self.causes
            .entry(cause.to_owned())
            .or_default()
            .push(true, 1);
    }

    /// The operator releases it: counting begins anew.
    pub(crate) fn release(&mut self) {
        self.causes.clear();
    }
}

impl Window {
    fn push(&mut self, dead: bool, entries: u32) {
        let entries = entries.min(WINDOW);
        match self.runs.back_mut() {
            Some((last, count)) if *last == dead => *count = (*count + entries).min(WINDOW),
            _ => self.runs.push_back((dead, entries)),
        }
        let mut excess = self
            .runs
            .iter()
            .map(|(_, count)| count)
            .sum::<u32>()
            .saturating_sub(WINDOW);
        while excess > 0
            && let Some((_, count)) = self.runs.front_mut()
        {
            let removed = excess.min(*count);
            *count -= removed;
            excess -= removed;
            if *count == 0 {
                self.runs.pop_front();
            }
        }
    }

    fn dead(&self) -> u32 {
        self.runs
            .iter()
            .filter(|(dead, _)| *dead)
            .map(|(_, count)| count)
            .sum()
    }

    fn in_a_row(&self) -> u32 {
        self.runs
            .back()
            .filter(|(dead, _)| *dead)
            .map_or(0, |&(_, count)| count)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: BrakeLimits = BrakeLimits {
        in_a_row: 16,
        share: 10,
        bytes: 1000,
    };

    #[test]
    fn sixteen_in_a_row_engage_it() {
        let limits = BrakeLimits {
            share: 1000,
            ..LIMITS
        };
        let mut brake = Brake::default();
        for _ in 0..16 {
            assert_eq!(brake.check("sink", 0, &limits), Ok(()));
            brake.died("sink");
        }
        assert_eq!(brake.check("sink", 0, &limits), Err(Engaged::InARow(16)));
        assert_eq!(
            brake.check("stage 1", 0, &limits),
            Ok(()),
            "causes are counted apart"
        );
        brake.passed("sink", 1);
        assert_eq!(brake.check("sink", 0, &limits), Ok(()), "the row is broken");
    }

    #[test]
    fn more_than_one_percent_engages_it_until_others_pass() {
        let mut brake = Brake::default();
        for _ in 0..10 {
            assert_eq!(brake.check("sink", 0, &LIMITS), Ok(()));
            brake.died("sink");
            brake.passed("sink", 50);
        }
        assert!(matches!(
            brake.check("sink", 0, &LIMITS),
            Err(Engaged::Share { dead: 10, .. })
        ));
        let brake_of_next_start = Brake::parse(&brake.text());
        assert_eq!(brake_of_next_start, brake);
        brake.passed("sink", 600);
        assert_eq!(brake.check("sink", 0, &LIMITS), Ok(()));
    }

    #[test]
    fn each_limit_is_named_by_its_message() {
        for (engaged, text) in [
            (Engaged::InARow(16), "16 dead letters in a row"),
            (
                Engaged::Share { dead: 5, share: 5 },
                "5 of the last 1,000 events are dead letters, and 0.5% is the limit",
            ),
            (
                Engaged::Bytes(1 << 30),
                "dead letters fill their quota of 1 GiB",
            ),
        ] {
            assert_eq!(engaged.to_string(), text);
        }
    }

    #[test]
    fn bytes_engage_it_and_a_release_starts_the_count_anew() {
        let mut brake = Brake::default();
        assert_eq!(
            brake.check("sink", 1001, &LIMITS),
            Err(Engaged::Bytes(1000))
        );
        (0..16).for_each(|_| brake.died("sink"));
        brake.release();
        assert_eq!(brake.check("sink", 1000, &LIMITS), Ok(()));
    }

    proptest! {
        #[test]
        fn a_window_counts_as_a_list_of_the_last_entries_does(
            steps in prop::collection::vec((any::<bool>(), 1u32..300), 0..60),
        ) {
            let mut window = Window::default();
            let mut list: Vec<bool> = Vec::new();
            for (dead, entries) in steps {
                window.push(dead, entries);
                list.extend(std::iter::repeat_n(dead, entries as usize));
                let last = &list[list.len().saturating_sub(WINDOW as usize)..];
                let dead_of_last = last.iter().filter(|&&dead| dead).count();
                prop_assert_eq!(window.dead() as usize, dead_of_last);
                let in_a_row = last.iter().rev().take_while(|&&dead| dead).count();
                prop_assert_eq!(window.in_a_row() as usize, in_a_row);
            }
        }
    }
}
