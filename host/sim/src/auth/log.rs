//! The audit log as it is at one moment: with a rate, events appear as time passes.

use std::ops::Range;
use std::time::{Duration, SystemTime};

use lockgate_model::{Day, Millis};

use super::{AuthOptions, Late};
use crate::certificate::since_epoch;
use crate::generate::{CHUNK, Generator};

/// With a rate, an export chunk contains the events of about this many seconds.
const CHUNK_SECONDS: f64 = 5.0;
/// Divisors of [`CHUNK`], so that an export chunk lies within one chunk of the generator.
const EXPORT_SIZES: [u64; 12] = [
    5_000, 2_500, 1_250, 1_000, 500, 250, 125, 100, 50, 25, 10, 5,
];

/// `now` is the time since the server started.
pub(super) struct AuditLog {
    pub(super) generator: Generator,
    rate: Option<f64>,
    late: Option<Late>,
    /// Events per export chunk.
    size: u64,
}

impl AuditLog {
    pub(super) fn new(options: &AuthOptions, started: SystemTime) -> AuditLog {
        let mut events = options.events.clone();
        let mut size = CHUNK;
        if let Some(rate) = options.rate {
            events.start = since_epoch(started).as_secs() as Millis * 1000;
            events.event_rate = rate;
            size = EXPORT_SIZES
                .into_iter()
                .find(|size| *size as f64 <= rate * CHUNK_SECONDS)
                .unwrap_or(5);
        }
        AuditLog {
            generator: Generator::new(events),
            rate: options.rate,
            late: options.late,
            size,
        }
    }

    /// How many events have appeared.
    pub(super) fn visible(&self, now: Duration) -> u64 {
        let count = self.generator.count();
        self.rate
            .map_or(count, |rate| ((now.as_secs_f64() * rate) as u64).min(count))
    }

    /// Ids of the complete chunks with events of a day, in arbitrary order.
    pub(super) fn chunks(&self, now: Duration, day: Day) -> Vec<String> {
        let positions = self.generator.positions_on(day);
        let numbers = positions.start / self.size..positions.end.div_ceil(self.size);
        let listed = numbers.filter(|number| !positions.is_empty() && self.listed(now, *number));
        let mut ids: Vec<String> = listed
            .map(|number| self.generator.chunk_id(number))
            .collect();
        ids.sort_unstable();
        ids
    }

    /// The positions of a day's events in a chunk. `None` if the day does not have the chunk, or
    /// not yet.
    pub(super) fn chunk(&self, now: Duration, day: Day, id: &str) -> Option<Range<u64>> {
        let number = self
            .generator
            .chunk_number(id)
            .filter(|number| self.listed(now, *number))?;
        let positions = self.generator.positions_on(day);
        let range = (number * self.size).max(positions.start)
            ..((number + 1) * self.size).min(positions.end);
        (!range.is_empty()).then_some(range)
    }

    fn listed(&self, now: Duration, number: u64) -> bool {
        let count = self.generator.count();
        let late = self
            .late
            .is_some_and(|late| number < late.chunks && now < late.after);
        number < count.div_ceil(self.size)
            && ((number + 1) * self.size).min(count) <= self.visible(now)
            && !late
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate;

    fn log(options: AuthOptions, events: u64) -> AuditLog {
        let events = generate::GeneratorOptions {
            events,
            ..generate::GeneratorOptions::default()
        };
        AuditLog::new(
            &AuthOptions { events, ..options },
            SystemTime::UNIX_EPOCH + Duration::from_secs(20_000 * 86_400),
        )
    }

    fn listed(log: &AuditLog, seconds: u64) -> usize {
        log.chunks(Duration::from_secs(seconds), Day::of(log.generator.time(0)))
            .len()
    }

    #[test]
    fn with_a_rate_events_appear_at_their_wall_clock_time() {
        let log = log(
            AuthOptions {
                rate: Some(100.0),
                ..AuthOptions::default()
            },
            2_100,
        );
        let start = Day(20_000).start();
        assert!((start..start + 10).contains(&log.generator.time(0)));
        assert!((start + 20_990..start + 21_000).contains(&log.generator.time(2_099)));
        for (seconds, visible, chunks) in [
            (0, 0, 0),
            (4, 400, 0),
            (5, 500, 1),
            (19, 1_900, 3),
            (20, 2_000, 4),
            (21, 2_100, 5),
            (99, 2_100, 5),
        ] {
            assert_eq!(
                (
                    log.visible(Duration::from_secs(seconds)),
                    listed(&log, seconds)
                ),
                (visible, chunks),
                "after {seconds} s"
            );
        }
        let first = log.generator.chunk_id(0);
        assert_eq!(log.chunk(Duration::from_secs(4), Day(20_000), &first), None);
        assert_eq!(
            log.chunk(Duration::from_secs(5), Day(20_000), &first),
            Some(0..500)
        );
        assert_eq!(log.chunk(Duration::from_secs(5), Day(20_001), &first), None);
    }

    #[test]
    fn a_low_rate_gives_small_chunks_soon() {
        let log = log(
            AuthOptions {
                rate: Some(1.0),
                ..AuthOptions::default()
            },
            100,
        );
        assert_eq!([4, 5, 10].map(|seconds| listed(&log, seconds)), [0, 1, 2]);
    }

    #[test]
    fn a_late_chunk_is_listed_after_its_delay() {
        let late = Some(Late {
            chunks: 1,
            after: Duration::from_secs(60),
        });
        let log = log(
            AuthOptions {
                late,
                ..AuthOptions::default()
            },
            15_000,
        );
        assert_eq!([0, 59, 60].map(|seconds| listed(&log, seconds)), [2, 2, 3]);
    }

    #[test]
    fn without_a_rate_everything_is_there_at_once() {
        let log = log(AuthOptions::default(), 10_001);
        assert_eq!(
            (
                log.visible(Duration::ZERO),
                listed(&log, 0),
                log.generator.time(0) / 1000
            ),
            (10_001, 3, generate::START / 1000)
        );
    }
}
