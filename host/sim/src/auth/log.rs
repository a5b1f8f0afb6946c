//! The audit log as it is at one moment: with a rate, events appear as time passes.

use std::time::SystemTime;

use lockgate_model::{Day, Millis};
use tokio::time::Instant;

use super::{Late, Options};
use crate::certificate::since_epoch;
use crate::generate::{CHUNK, Generator};

/// With a rate, an export chunk gathers the events of about so many seconds.
const GATHERED: f64 = 5.0;
/// Divisors of [`CHUNK`], so that an export chunk lies within one chunk of the generator.
const EXPORT_SIZES: [u64; 12] = [5_000, 2_500, 1_250, 1_000, 500, 250, 125, 100, 50, 25, 10, 5];

pub(super) struct Log {
    pub(super) generator: Generator,
    rate: Option<f64>,
    late: Option<Late>,
    started: Instant,
    /// Events of one export chunk.
    chunk: u64,
}

impl Log {
    pub(super) fn new(options: &Options) -> Log {
        let mut events = options.events.clone();
        let mut chunk = CHUNK;
        if let Some(rate) = options.rate {
            events.start = since_epoch(SystemTime::now()).as_secs() as Millis * 1000;
            events.event_rate = rate;
            chunk = EXPORT_SIZES.into_iter().find(|size| *size as f64 <= rate * GATHERED).unwrap_or(5);
        }
        Log { generator: Generator::new(events), rate: options.rate, late: options.late, started: Instant::now(), chunk }
    }

    /// How many events have appeared.
    pub(super) fn visible(&self) -> u64 {
        let count = self.generator.count();
        self.rate.map_or(count, |rate| ((self.started.elapsed().as_secs_f64() * rate) as u64).min(count))
    }

    /// Ids of the complete chunks that hold events of a day, in no order that means anything.
    pub(super) fn chunks(&self, day: Day) -> Vec<String> {
        let positions = self.generator.positions_on(day);
        if positions.is_empty() {
            return Vec::new();
        }
        let last = (positions.end - 1) / self.chunk;
        let mut ids: Vec<String> = (positions.start / self.chunk..=last)
            .filter(|number| self.listed(*number))
            .map(|number| self.generator.chunk_id(number))
            .collect();
        ids.sort_unstable();
        ids
    }

    /// The positions of a day's events in a chunk; `None` if the day has no such chunk (yet).
    pub(super) fn chunk(&self, day: Day, id: &str) -> Option<std::ops::Range<u64>> {
        let number = self.generator.chunk_number(id).filter(|number| self.listed(*number))?;
        let positions = self.generator.positions_on(day);
        let range = (number * self.chunk).max(positions.start)..((number + 1) * self.chunk).min(positions.end);
        (!range.is_empty()).then_some(range)
    }

    fn listed(&self, number: u64) -> bool {
        let late = self.late.is_some_and(|late| number < late.chunks && self.started.elapsed() < late.after);
        let complete = number.checked_add(1).and_then(|next| next.checked_mul(self.chunk));
        complete.is_some_and(|end| end.min(self.generator.count()) <= self.visible() && end - self.chunk < self.generator.count()) && !late
    }
}
