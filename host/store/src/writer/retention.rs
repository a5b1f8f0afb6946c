//! Removes the oldest blocks, by age and by bytes. Never one that a configured pipeline has not
//! finished, unless that has reached its lag limit.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use lockgate_model::{
    BatchRecord, Commit, Day, DayTally, Entries, Generation, Millis, Outcome, OutcomeRun, Outcomes,
    Seq, SeqRange,
};
use rusqlite::params;

use super::{Asked, Fault, Unfinished, Writer};
use crate::blocks::{self, Extent};
use crate::encoded::{EncodedCommit, count_days};
use crate::error::ReadError;
use crate::tallies::Tallied;
use crate::{LagLimit, Retention, limits};

/// How long a running pipeline that is past its lag limit may take to finish what it has in flight.
/// Longer than the host gives it.
const YIELD_PATIENCE: Duration = Duration::from_secs(30);

/// What a pipeline has given up, because it has reached its lag limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Yielded {
    Nothing,
    Some {
        /// There is more to give up.
        more: bool,
    },
}

impl Writer {
    /// Limits by the names of streams, in place of those that were given before.
    pub fn retain(&mut self, streams: BTreeMap<String, Retention>) {
        self.options.streams = streams;
        for stream in &mut self.streams {
            stream.limit = self.options.retention_of(&stream.row.name);
        }
    }

    /// By the names of pipelines, in place of those that were given before.
    pub fn limit_lag(&mut self, limits: BTreeMap<String, LagLimit>) {
        self.lag_limits = limits;
    }

    /// Makes room for a block in its stream, as far as that is allowed. An empty stream takes a
    /// block of any size.
    pub(super) fn make_room(&mut self, stream: usize, bytes: u64) -> Result<bool, Fault> {
        let Some(limit) = self.streams[stream].limit.bytes else {
            return Ok(true);
        };
        while self.streams[stream].row.bytes > 0
            && self.streams[stream].row.bytes.saturating_add(bytes) > limit
        {
            if !self.evict(stream, "bytes", bytes)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Removes what is too old or too much now. True if more is left to remove.
    pub fn remove_old_blocks(&mut self) -> Result<bool, Fault> {
        if !self.is_configured {
            return Ok(false);
        }
        let now = self.shown_now((self.clock)());
        for stream in 0..self.streams.len() {
            let mut steps = 0;
            while let Some(key) = self.due(stream, now)
                && self.evict(stream, key, 0)?
            {
                steps += 1;
                if steps == limits::RETENTION_STEP {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    pub fn now(&self) -> Millis {
        (self.clock)()
    }

    /// The time by which age is measured: the local one as far as events show that it has been
    /// reached.
    pub(super) fn shown_now(&self, local: Millis) -> Option<Millis> {
        self.shown_time.now(local, (self.elapsed)())
    }

    pub fn anything_due(&self) -> bool {
        if !self.is_configured {
            return false;
        }
        let now = self.shown_now((self.clock)());
        (0..self.streams.len()).any(|stream| {
            self.due(stream, now).is_some()
                && !self.is_front_damaged(stream)
                && (self.holders(stream, 0).next().is_none() || !self.to_ask(stream, 0).is_empty())
        })
    }

    /// Gives pages back to the disk, a few at a time. True if more are left.
    pub fn vacuum(&mut self) -> Result<bool, Fault> {
        let free: u32 = self
            .connection
            .pragma_query_value(None, "freelist_count", |row| row.get(0))?;
        let Some(spare) = free
            .checked_sub(limits::FREE_PAGES_KEPT)
            .filter(|&spare| spare > 0)
        else {
            return Ok(false);
        };
        let step = spare.min(limits::VACUUM_STEP);
        let mut statement = self
            .connection
            .prepare(&format!("PRAGMA incremental_vacuum({step})"))?;
        let mut rows = statement.query([])?;
        while rows.next()?.is_some() {}
        Ok(spare > step)
    }

    /// The pipelines that the oldest block waits for.
    pub fn holders_of(&self, stream: &Arc<str>) -> Vec<String> {
        let Some(&stream) = self.by_name.get(stream) else {
            return Vec::new();
        };
        self.holders(stream, 0).map(str::to_owned).collect()
    }

    /// Whether the oldest block is known to be damaged in such a way that it cannot be removed.
    pub fn is_kept_damaged(&self, stream: &Arc<str>) -> bool {
        let stream = self.by_name.get(stream);
        stream.is_some_and(|&stream| self.is_front_damaged(stream))
    }

    fn is_front_damaged(&self, stream: usize) -> bool {
        let stream = &self.streams[stream];
        let front = stream.front.map(|block| block.first_seq);
        front.is_some() && front == stream.damaged_block
    }

    /// Whether the oldest block waits only for pipelines that were asked to give up their events.
    pub fn is_being_given_up(&self, stream: &Arc<str>) -> bool {
        let Some(&stream) = self.by_name.get(stream) else {
            return false;
        };
        let is_asked = |pipeline: &str| {
            let asked = self.asked.get(pipeline);
            asked.is_some_and(|asked| asked.streams.contains_key(&stream))
        };
        let mut holders = self.holders(stream, 0).peekable();
        holders.peek().is_some() && holders.all(is_asked)
    }

    /// `adding`: bytes that are about to be appended.
    fn holders(&self, stream: usize, adding: u64) -> impl Iterator<Item = &str> {
        let end = self.streams[stream].front.map_or(0, |block| block.end());
        self.epochs
            .iter()
            .filter(move |epoch| {
                epoch.stream == stream && epoch.row.active && epoch.row.progress.watermark < end
            })
            .map(|epoch| &*epoch.row.pipeline)
            .chain(self.not_begun_on(stream))
            .filter(move |pipeline| {
                self.is_waited_for(pipeline) || !self.is_past_lag_limit(stream, pipeline, adding)
            })
    }

    /// The pipelines that have not begun to read the stream.
    fn not_begun_on(&self, stream: usize) -> impl Iterator<Item = &str> {
        let name = &*self.streams[stream].row.name;
        let not_begun = self.not_begun.iter();
        let of_stream = not_begun.filter(move |(_, streams)| {
            let streams = streams.as_ref();
            streams.is_none_or(|streams| streams.contains(name))
        });
        of_stream.map(|(pipeline, _)| pipeline.as_str())
    }

    /// Whether it runs, so that what it has in flight may finish before its events are given up.
    /// One that does not answer is not waited for any longer.
    fn is_waited_for(&self, pipeline: &str) -> bool {
        let asked = self.asked.get(pipeline);
        let is_patient = |asked: &Asked| (self.elapsed)().saturating_sub(asked.at) < YIELD_PATIENCE;
        self.registered.contains(pipeline) && asked.is_none_or(is_patient)
    }

    /// A pipeline that was asked for room does not answer.
    pub fn waits_in_vain(&self) -> bool {
        let mut asked = self.asked.keys();
        asked.any(|pipeline| !self.is_waited_for(pipeline))
    }

    /// The pipelines that have to give up events so that the oldest block can go, unless they have
    /// been asked. None if another one holds it anyway, or if it cannot go because it is damaged.
    fn to_ask(&self, stream: usize, adding: u64) -> Vec<Arc<str>> {
        let mut names = Vec::new();
        if self.is_front_damaged(stream) {
            return names;
        }
        for pipeline in self.holders(stream, adding) {
            if !self.is_past_lag_limit(stream, pipeline, adding) {
                return Vec::new();
            }
            let asked = self.asked.get(pipeline);
            if asked.is_none_or(|asked| !asked.streams.contains_key(&stream)) {
                names.push(Arc::from(pipeline));
            }
        }
        names
    }

    fn ask(&mut self, stream: usize, adding: u64) {
        let at = (self.elapsed)();
        for pipeline in self.to_ask(stream, adding) {
            *self.room_wanted.entry(pipeline.clone()).or_default() += 1;
            let streams = BTreeMap::new();
            let asked = self.asked.entry(pipeline);
            let asked = asked.or_insert(Asked { at, streams });
            asked.streams.insert(stream, None);
        }
    }

    /// Gives up what a pipeline has not finished and what is past its lag limit, and some more, in
    /// the streams in which it was asked for room: what is past it when that begins. It has nothing
    /// in flight, and is registered again before it goes on.
    pub fn give_up(&mut self, pipeline: &str) -> Result<Yielded, Fault> {
        self.registered.remove(pipeline);
        let limit = self.lag_limits.get(pipeline).map(LagLimit::with_margin);
        let asked = self.asked.get(pipeline).map(|asked| asked.streams.clone());
        let (Some(limit), Some(asked)) = (limit, asked) else {
            self.asked.remove(pipeline);
            return Ok(Yielded::Nothing);
        };
        let (mut steps, mut events) = (0, 0);
        for index in 0..self.epochs.len() {
            let epoch = &self.epochs[index];
            let stream = epoch.stream;
            let Some(&begun) = asked.get(&stream) else {
                continue;
            };
            if *epoch.row.pipeline != *pipeline || !epoch.row.active {
                continue;
            }
            let end = match begun {
                Some(end) => end,
                None => self.end_of_excess(stream, &limit)?,
            };
            if let Some(asked) = self.asked.get_mut(pipeline) {
                asked.streams.insert(stream, Some(end));
            }
            let id = self.streams[stream].row.id;
            let start = self.epochs[index].row.progress.watermark;
            let max = limits::RETENTION_STEP - steps;
            for block in blocks::first_extents(&self.connection, id, start, end, max)? {
                match self.drop_for(index, &block, "") {
                    Err(Fault::Damaged(what)) => {
                        self.keep_damaged(stream, block.first_seq, &what);
                        break;
                    }
                    dropped => events += dropped?,
                }
                steps += 1;
                if steps == limits::RETENTION_STEP {
                    return Ok(Yielded::Some { more: true });
                }
            }
        }
        self.asked.remove(pipeline);
        Ok(match events {
            0 => Yielded::Nothing,
            _ => Yielded::Some { more: false },
        })
    }

    /// The sequence after the last block of a stream that is past the limit.
    fn end_of_excess(&self, stream: usize, limit: &LagLimit) -> Result<Seq, Fault> {
        let now = self.shown_now((self.clock)());
        let row = &self.streams[stream].row;
        let (mut end, mut left) = (row.oldest, row.bytes);
        for block in blocks::extents(&self.connection, row.id, row.oldest, row.next)? {
            let read_at = block.read_at.max(block.times.0);
            if !limit.is_exceeded(read_at, left, now) {
                break;
            }
            left = left.saturating_sub(block.bytes);
            end = block.end();
        }
        Ok(end)
    }

    /// Whether retention does not wait for the pipeline to finish the oldest block.
    fn is_past_lag_limit(&self, stream: usize, pipeline: &str, adding: u64) -> bool {
        let Some(limit) = self.lag_limits.get(pipeline) else {
            return false;
        };
        let stream = &self.streams[stream];
        // What it reads has not been said: no books can be opened for it.
        if self.not_begun.get(pipeline).is_some_and(Option::is_none) {
            return false;
        }
        let now = self.shown_now((self.clock)());
        let front = stream.front;
        let bytes = stream.row.bytes.saturating_add(adding);
        front.is_some_and(|block| {
            // As for retention: a clock that was behind made it look older.
            let read_at = block.read_at.max(block.times.0);
            limit.is_exceeded(read_at, bytes, now)
        })
    }

    /// Opens the books of pipelines that have not begun to read the stream, for what is given up of
    /// them.
    fn open_books(&mut self, stream: usize) -> Result<(), Fault> {
        let ahead: Vec<Arc<str>> = self.not_begun_on(stream).map(Arc::from).collect();
        let name = self.streams[stream].row.name.to_string();
        let at = (self.clock)();
        for pipeline in ahead {
            let Some(Some(streams)) = self.not_begun.get_mut(&*pipeline) else {
                continue;
            };
            if let Some(known) = self.pipelines.get(&pipeline) {
                streams.remove(&name);
                let epoch = known.epoch;
                self.epoch(&pipeline, stream, epoch, at)?;
                continue;
            }
            let streams: Vec<String> = streams.iter().cloned().collect();
            let description = "{}".to_owned();
            let generation = Generation {
                pipeline,
                description,
            };
            // A refusal is of names that cannot be read: nothing is given up then.
            if self.register(&generation, &streams, at)?.is_ok() {
                self.registered.remove(&generation.pipeline);
            }
        }
        Ok(())
    }

    /// The key in `retain` whose limit the oldest block has reached. `now`: as far as it is shown.
    fn due(&self, stream: usize, now: Option<Millis>) -> Option<&'static str> {
        let stream = &self.streams[stream];
        let block = stream.front?;
        let age = stream.limit.age.zip(now);
        let old = age.is_some_and(|(age, now)| {
            // A block that was read before its own events was read by a clock that was behind.
            let read_at = block.read_at.max(block.times.0);
            now.saturating_sub(read_at) > age.as_millis().min(i64::MAX as u128) as i64
        });
        let many = stream.limit.bytes;
        let many = many.is_some_and(|limit| stream.row.bytes > limit);
        old.then_some("age").or(many.then_some("bytes"))
    }

    /// Removes the oldest block, if every configured pipeline is done with it.
    fn evict(&mut self, stream: usize, key: &'static str, adding: u64) -> Result<bool, Fault> {
        if self.holders(stream, adding).next().is_some() {
            self.ask(stream, adding);
            return Ok(false);
        }
        let id = self.streams[stream].row.id;
        let Some(block) = self.streams[stream].front else {
            return Ok(false);
        };
        let days = match self.days_in(stream, &block, &(block.first_seq..block.end())) {
            Err(Fault::Damaged(what)) => {
                self.keep_damaged(stream, block.first_seq, &what);
                return Ok(false);
            }
            days => days?,
        };
        self.open_books(stream)?;
        let unfinished = |epoch: &super::Epoch| {
            epoch.stream == stream && epoch.row.progress.watermark < block.end()
        };
        for index in 0..self.epochs.len() {
            if unfinished(&self.epochs[index]) {
                self.drop_for(index, &block, key)?;
            }
        }
        for (day, count) in days {
            let sql =
                "UPDATE stream_days SET removed = removed + ?3 WHERE stream_id = ?1 AND day = ?2";
            self.connection
                .prepare_cached(sql)?
                .execute(params![id, day.0, count])?;
        }
        for sql in [
            "DELETE FROM blocks WHERE stream_id = ?1 AND first_seq = ?2",
            "DELETE FROM block_filters WHERE stream_id = ?1 AND first_seq = ?2",
        ] {
            self.connection
                .prepare_cached(sql)?
                .execute(params![id, block.first_seq])?;
        }
        let next = blocks::oldest(&self.connection, id)?;
        let stream = &mut self.streams[stream];
        stream.row.bytes = stream.row.bytes.saturating_sub(block.bytes);
        stream.row.oldest = block.end();
        stream.front = next;
        stream.dirty = true;
        self.removed
            .push((stream.row.name.clone(), block.first_seq));
        self.folding.removed_blocks += 1;
        Ok(true)
    }

    /// Its events cannot be counted by day any more, so the books would not balance without it.
    fn keep_damaged(&mut self, stream: usize, first_seq: Seq, what: &str) {
        let stream = &mut self.streams[stream];
        if stream.damaged_block.replace(first_seq) != Some(first_seq) {
            tracing::error!(
                stream = %stream.row.name,
                "retention cannot remove a damaged block, nor anything newer: {what}. Stop the host, \
                 then run `lockgate store repair`"
            );
        }
    }

    /// Drops the entries that a pipeline has not finished, because it is not configured to read
    /// them any more, or has reached its lag limit: its books must balance all the same.
    /// Answers how many.
    fn drop_for(&mut self, index: usize, block: &Extent, key: &'static str) -> Result<u64, Fault> {
        let mut dropped = 0;
        let epoch = &self.epochs[index];
        let stream = epoch.stream;
        let waiting = epoch.row.progress.waiting(block.end());
        for range in waiting
            .into_iter()
            .map(|range| range.start..range.end.min(block.end()))
            .filter(|range| !range.is_empty())
        {
            let days = self.days_in(stream, block, &range)?;
            let epoch = &self.epochs[index].row;
            let is_given_up = epoch.active;
            let len = u32::try_from(range.end - range.start)
                .map_err(|_| Fault::Damaged(format!("a block of {range:?}")))?;
            let commit = Commit {
                pipeline: epoch.pipeline.clone(),
                stream: self.streams[stream].row.name.clone(),
                epoch: epoch.epoch,
                generation: self.current_generation(&epoch.pipeline),
                outcomes: Outcomes {
                    runs: vec![OutcomeRun {
                        outcome: Outcome::Dropped(0),
                        len,
                    }],
                },
                reasons: vec![if is_given_up { LAG_LIMIT } else { RETENTION }.to_owned()],
                days: days
                    .into_iter()
                    .map(|(day, dropped)| DayTally {
                        day,
                        delivered: 0,
                        dropped,
                        dead: 0,
                    })
                    .collect(),
                batch: BatchRecord {
                    id: match is_given_up {
                        true => lag_limit_batch(range.start),
                        false => retention_batch(range.start),
                    },
                    at: (self.clock)(),
                    requests: Vec::new(),
                },
                entries: Entries::Range(range),
                ..Commit::default()
            };
            let pass = (commit.pipeline.clone(), commit.stream.clone());
            self.apply(&EncodedCommit::new(commit)?)??;
            dropped += u64::from(len);
            if is_given_up {
                *self.given_up.entry(pass).or_default() += u64::from(len);
                continue;
            }
            let unfinished = Unfinished { events: 0, key };
            let unfinished = self.unfinished.entry(pass).or_insert(unfinished);
            unfinished.events += u64::from(len);
        }
        Ok(dropped)
    }

    /// The events of a part of a block by day, counted.
    fn days_in(
        &self,
        stream: usize,
        block: &Extent,
        range: &SeqRange,
    ) -> Result<BTreeMap<Day, u64>, Fault> {
        let row = &self.streams[stream].row;
        days_in(&self.connection, row, block, range).map_err(|error| match error {
            // Without the advice for a store that cannot be used at all.
            ReadError::Damaged(what) => Fault::Damaged(what),
            error => error.into(),
        })
    }
}

/// The reasons of what retention drops.
pub const RETENTION: &str = "retention";
pub const LAG_LIMIT: &str = "lag-limit";

/// The id of the batch that records what was given up of a block by a lag limit, from this sequence
/// on.
pub fn lag_limit_batch(first: Seq) -> String {
    format!("lag-limit-{first}")
}

/// As what the dropped entries of a batch count, by its id. A pipeline's own batches have other
/// ids, with slashes.
pub fn drops_of(batch: &str, first: Seq) -> Tallied {
    if batch == retention_batch(first) {
        Tallied::Removed
    } else if batch == lag_limit_batch(first) {
        Tallied::GivenUp
    } else {
        Tallied::Dropped
    }
}

/// The id of the batch that records what retention removed of a block, from this sequence on.
pub fn retention_batch(first: Seq) -> String {
    format!("retention-{first}")
}

/// The events of a part of a block by day. Blocks of one day, which most are, tell it without their
/// columns.
pub fn days_in(
    connection: &rusqlite::Connection,
    stream: &crate::rows::Stream,
    block: &Extent,
    range: &SeqRange,
) -> Result<BTreeMap<Day, u64>, ReadError> {
    let (first, last) = (Day::of(block.times.0), Day::of(block.times.1));
    if first == last {
        return Ok(BTreeMap::from([(first, range.end - range.start)]));
    }
    let stored = blocks::before(connection, stream, block.first_seq)?;
    let heads = stored
        .map(|stored| stored.heads(stream))
        .transpose()?
        .unwrap_or_default();
    let row = |seq: u64| (seq.saturating_sub(block.first_seq) as usize).min(heads.len());
    Ok(count_days(&heads.times[row(range.start)..row(range.end)]))
}
