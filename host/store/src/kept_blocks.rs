//! The blocks of a stream at one moment: where each lies and its checksum, and the days of its
//! events.

use std::collections::BTreeMap;
use std::sync::Arc;

use lockgate_model::{Books, Day, Millis, Outcome, Outcomes, Seq, SeqRange};
use rusqlite::Connection;

use crate::blocks::{self, Extent};
use crate::error::ReadError;
use crate::rows::Stream;
use crate::schema::Checksum;

/// The blocks that were kept when this was made.
pub struct KeptBlocks {
    pub stream: Stream,
    /// Ascending.
    pub extents: Vec<Extent>,
    /// The last block that was decoded, and the times of its events.
    decoded: Option<(Seq, Arc<Vec<Millis>>)>,
}

impl KeptBlocks {
    pub fn new(connection: &Connection, stream: Stream) -> rusqlite::Result<KeptBlocks> {
        Ok(KeptBlocks {
            extents: blocks::extents(connection, stream.id, 0, stream.next)?,
            stream,
            decoded: None,
        })
    }

    pub fn oldest(&self) -> Seq {
        self.stream.oldest
    }

    pub fn next(&self) -> Seq {
        self.stream.next
    }

    /// The checksum of the block that begins there.
    pub fn checksum(&self, first_seq: Seq) -> Option<Checksum> {
        let at = self
            .extents
            .binary_search_by_key(&first_seq, |extent| extent.first_seq);
        at.ok().map(|at| self.extents[at].checksum)
    }

    /// Outcomes by the days of the events. `None` if an event is not kept.
    pub fn count(
        &mut self,
        connection: &Connection,
        range: &SeqRange,
        outcomes: &Outcomes,
    ) -> Result<Option<BTreeMap<Day, Books>>, ReadError> {
        let mut days: BTreeMap<Day, Books> = BTreeMap::new();
        let mut start = range.start;
        for run in &outcomes.runs {
            let end = start + u64::from(run.len);
            while start < end {
                let Some(extent) = self.holding(start) else {
                    return Ok(None);
                };
                let part = start..end.min(extent.end());
                let mut add = |day, count| {
                    let books = days.entry(day).or_default();
                    match run.outcome {
                        Outcome::Delivered => books.delivered += count,
                        Outcome::Dropped(_) => books.dropped += count,
                        Outcome::Dead(_) => books.dead += count,
                    }
                };
                match one_day(&extent) {
                    Some(day) => add(day, part.end - part.start),
                    None => {
                        let times = self.times(connection, &extent)?;
                        let row = |seq| ((seq - extent.first_seq) as usize).min(times.len());
                        for &time in &times[row(part.start)..row(part.end)] {
                            add(Day::of(time), 1);
                        }
                    }
                }
                start = part.end;
            }
        }
        Ok(Some(days))
    }

    /// The day of an entry. `None` if it is not kept.
    pub fn day_of(&mut self, connection: &Connection, seq: Seq) -> Result<Option<Day>, ReadError> {
        let Some(extent) = self.holding(seq) else {
            return Ok(None);
        };
        if let Some(day) = one_day(&extent) {
            return Ok(Some(day));
        }
        let times = self.times(connection, &extent)?;
        let time = times.get((seq - extent.first_seq) as usize);
        Ok(time.map(|&time| Day::of(time)))
    }

    fn holding(&self, seq: Seq) -> Option<Extent> {
        let at = self
            .extents
            .partition_point(|extent| extent.first_seq <= seq);
        let extent = self.extents.get(at.checked_sub(1)?)?;
        (seq < extent.end()).then_some(*extent)
    }

    fn times(
        &mut self,
        connection: &Connection,
        extent: &Extent,
    ) -> Result<Arc<Vec<Millis>>, ReadError> {
        if let Some((first_seq, times)) = &self.decoded
            && *first_seq == extent.first_seq
        {
            return Ok(times.clone());
        }
        let stored = blocks::at(connection, &self.stream, extent.first_seq)?;
        let heads = stored
            .map(|stored| stored.heads(&self.stream))
            .transpose()?
            .unwrap_or_default();
        let times = Arc::new(heads.times);
        self.decoded = Some((extent.first_seq, times.clone()));
        Ok(times)
    }
}

/// The day of all events of a block, if they have one: most have.
fn one_day(extent: &Extent) -> Option<Day> {
    let (first, last) = (Day::of(extent.times.0), Day::of(extent.times.1));
    (first == last).then_some(first)
}
