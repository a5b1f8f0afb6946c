//! From a stream to batches: which events are asked for, and when.

use std::collections::VecDeque;

use lockgate_model::contract::BatchContext;
use lockgate_model::{Batch, Seq, SeqRange};

use crate::Uptime;
use crate::batches::{BatchInFlight, Phase};
use crate::finished::FinishedEntries;
use crate::index::{BatchId, EndpointIndex, StreamIndex};
use crate::io::Action;
use crate::limits::{
    BATCH_SPAN, DISPATCH_WINDOW, PARKED_BATCHES_MAX, PARKED_DOCUMENTS_MAX, URGENT_BATCH_BYTES,
};
use crate::pipeline::Pipeline;
use crate::settings::StreamSettings;

/// The state of a stream.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) finished: FinishedEntries,
    /// The sequence that the next event will get.
    pub(crate) head: Seq,
    /// Where the next batch begins, at the earliest.
    next: Seq,
    is_ended: bool,
    /// A batch has been asked for.
    is_collecting: bool,
    /// It must not wait for memory.
    is_urgent: bool,
    /// Since when events that are too few for a batch have waited.
    waiting_since: Option<Uptime>,
    /// Events before it wait for no others: they have waited long enough, or were asked for with a
    /// batch that was too large for all of them.
    due_to: Seq,
    /// When those become a batch, however few they are.
    pub(crate) close_at: Option<Uptime>,
    /// Halves of batches that were too much at once.
    backlog: VecDeque<(Batch, u32)>,
}

/// Whether another batch of a stream may begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Room {
    Free,
    /// The limit of batches in flight is reached, or another would not help.
    Busy,
    /// As many documents wait as may.
    TooManyWait,
}

impl Stream {
    pub(crate) fn new(settings: &StreamSettings) -> Stream {
        let finished = FinishedEntries::new(settings.watermark, settings.done.iter().cloned());
        Stream {
            next: finished.watermark(),
            head: finished.watermark(),
            finished,
            is_ended: false,
            is_collecting: false,
            is_urgent: false,
            waiting_since: None,
            due_to: 0,
            close_at: None,
            backlog: VecDeque::new(),
        }
    }

    pub(crate) fn has_waiting(&self) -> bool {
        // The entry at the watermark has no outcome.
        self.finished.watermark() < self.head
    }

    /// Whether a queued half of a batch uses this generation.
    pub(crate) fn has_generation(&self, generation: u32) -> bool {
        self.backlog.iter().any(|&(_, of)| of == generation)
    }

    pub(crate) fn is_collecting(&self) -> bool {
        self.is_collecting
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.is_ended && !self.has_waiting()
    }

    /// Where the events of the next batch are, at most this many, and whether it need not wait for
    /// more. None if there are no events for one, or it may not begin yet.
    fn next_ranges(&self, events: usize) -> Option<(Vec<SeqRange>, bool)> {
        let mut ranges: Vec<SeqRange> = Vec::new();
        let mut available = 0;
        for range in self.finished.unfinished(self.next) {
            let first = ranges.first().map_or(range.start, |range| range.start);
            if range.start >= self.head || range.start > first + BATCH_SPAN {
                break;
            }
            let wanted = events as u64 - available;
            let range = range.start..range.end.min(self.head).min(range.start + wanted);
            available += range.end - range.start;
            ranges.push(range);
            if available == events as u64 {
                break;
            }
        }
        let (first, last) = (ranges.first()?.start, ranges.last()?.end);
        let is_complete =
            available == events as u64 || last < self.head || first < self.due_to || self.is_ended;
        self.is_in_window().then_some((ranges, is_complete))
    }

    /// Its next batch is near enough to the watermark to begin.
    fn is_in_window(&self) -> bool {
        let next = self.finished.unfinished(self.next).next();
        next.is_some_and(|range| range.start < self.finished.watermark() + DISPATCH_WINDOW)
    }
}

impl Pipeline {
    pub(crate) fn head_moved(&mut self, now: Uptime, stream: StreamIndex, next: Seq, ended: bool) {
        let had_waiting = self.has_waiting();
        let stream = &mut self.streams[stream.get()];
        stream.head = stream.head.max(next);
        stream.is_ended = ended;
        if !had_waiting {
            self.restart_stall_timer(now);
        }
    }

    pub(crate) fn batch_collected(&mut self, index: StreamIndex, batch: Batch, generation: u32) {
        let stream = &mut self.streams[index.get()];
        stream.is_collecting = false;
        stream.is_urgent = false;
        if batch.is_empty() {
            return;
        }
        stream.next = batch.range().end;
        stream.waiting_since = None;
        self.begin_batch(index, batch, generation);
    }

    fn begin_batch(&mut self, stream: StreamIndex, batch: Batch, generation: u32) {
        let context = self.context(stream, &batch, "");
        self.add_batch(BatchInFlight::new(
            stream, batch, false, generation, context,
        ));
    }

    pub(crate) fn begin_redrive(
        &mut self,
        now: Uptime,
        stream: StreamIndex,
        batch: Batch,
        generation: u32,
    ) {
        if !self.has_waiting() {
            self.restart_stall_timer(now);
        }
        let context = self.context(stream, &batch, "redrive-");
        self.add_batch(BatchInFlight::new(stream, batch, true, generation, context));
    }

    fn context(&self, stream: StreamIndex, batch: &Batch, kind: &str) -> BatchContext {
        let settings = &self.settings.streams[stream.get()];
        let (pipeline, name) = (&self.settings.pipeline, &settings.name);
        let first = batch.seqs().next().unwrap_or(0);
        let last = batch.seqs().last().unwrap_or(0);
        BatchContext {
            id: format!("{pipeline}/{name}/{kind}{first}-{last}").into(),
            pipeline: pipeline.clone(),
            source: settings.source.clone(),
            read_at: batch.slices.last().map_or(0, |slice| slice.block.read_at),
        }
    }

    /// A batch was too much at once: its second half has its turn later.
    pub(crate) fn put_back(&mut self, stream: StreamIndex, batch: Batch, generation: u32) {
        self.streams[stream.get()]
            .backlog
            .push_front((batch, generation));
    }

    /// Asks for the next batch if there is room for one and enough events, or if they have
    /// waited long enough.
    pub(crate) fn collect(&mut self, now: Uptime, index: StreamIndex, actions: &mut Vec<Action>) {
        self.streams[index.get()].close_at = None;
        if self.room(index) != Room::Free {
            return;
        }
        // Also while a batch is being collected: that one may wait for the memory of this half.
        if let Some((batch, generation)) = self.streams[index.get()].backlog.pop_front() {
            self.begin_batch(index, batch, generation);
            return self.collect(now, index, actions);
        }
        if self.streams[index.get()].is_collecting {
            return;
        }
        let limits = self.settings.batch;
        let endpoint = self.settings.streams[index.get()].endpoint;
        // A receiver that answered 413, or not in time, showed its limit: stay below it.
        let bytes = self.endpoints[endpoint.get()]
            .sizes
            .below_limit(limits.bytes);
        let stream = &mut self.streams[index.get()];
        let Some((within, is_complete)) = stream.next_ranges(limits.events) else {
            return;
        };
        let since = *stream.waiting_since.get_or_insert(now);
        if !is_complete && now < since + limits.age {
            stream.close_at = Some(since + limits.age);
            return;
        }
        stream.is_collecting = true;
        stream.due_to = within.last().map_or(0, |range| range.end);
        actions.push(Action::Collect {
            stream: index,
            within,
            events: limits.events,
            bytes,
        });
    }

    /// Lets the batch that was asked for wait for memory no longer if no other brings the
    /// pipeline further: memory that is held by batches which wait for that one would never come
    /// back.
    pub(crate) fn collect_urgently(&mut self, index: StreamIndex, actions: &mut Vec<Action>) {
        let stream = &self.streams[index.get()];
        if !stream.is_collecting || stream.is_urgent || self.batches.is_empty() {
            return;
        }
        let endpoint = self.settings.streams[index.get()].endpoint;
        if self
            .batches
            .iter()
            .any(|(&id, batch)| self.goes_on(id, batch, endpoint))
        {
            return;
        }
        self.streams[index.get()].is_urgent = true;
        let bytes = self.settings.batch.bytes.min(URGENT_BATCH_BYTES);
        let bytes = self.endpoints[endpoint.get()].sizes.below_limit(bytes);
        actions.push(Action::CollectNow {
            stream: index,
            bytes,
        });
    }

    /// The batch goes on without another, as far as the endpoint of a stream can know.
    fn goes_on(&self, id: BatchId, batch: &BatchInFlight, endpoint: EndpointIndex) -> bool {
        match batch.phase {
            // The batches before it are held.
            Phase::Queued | Phase::Held => false,
            Phase::InStages { .. } | Phase::Committing => true,
            Phase::Delivering { .. } => {
                let own = self.settings.streams[batch.stream.get()].endpoint;
                let accepts = self.endpoints[own.get()].open_reason().is_none();
                (own == endpoint || accepts) && !self.is_parked(id, batch)
            }
        }
    }

    /// Whether the stream's next batch waits until some documents are final, because too many of
    /// them wait, or one has waited too long.
    pub(crate) fn reached_a_limit(&self, index: StreamIndex) -> bool {
        let stream = &self.streams[index.get()];
        let next = stream.finished.unfinished(stream.next).next();
        let has_more = next.is_some_and(|range| range.start < stream.head);
        has_more
            && match self.room(index) {
                Room::Free => !stream.is_in_window(),
                Room::Busy => false,
                Room::TooManyWait => true,
            }
    }

    fn room(&self, stream: StreamIndex) -> Room {
        let settings = &self.settings.streams[stream.get()];
        let (mut active, mut parked, mut waiting, mut no_probes) = (0, 0, 0, 0);
        for (&id, batch) in &self.batches {
            if batch.stream != stream || batch.is_redrive {
                continue;
            }
            if self.is_parked(id, batch) {
                parked += 1;
                waiting += batch.open_documents();
            } else {
                active += 1;
            }
            no_probes += usize::from(self.has_no_probe(id, batch));
        }
        let one_by_one = settings.in_session_order || self.settings.uses_state();
        let most = if one_by_one {
            1
        } else {
            self.settings.batches_in_flight
        };
        if active >= most {
            return Room::Busy;
        }
        let are_many = active + parked >= most + PARKED_BATCHES_MAX;
        if are_many || parked > 1 && waiting >= PARKED_DOCUMENTS_MAX {
            return Room::TooManyWait;
        }
        // While nothing can be delivered, one batch more is enough of a probe.
        if self.is_unavailable(stream) && active + parked > most + no_probes {
            return Room::Busy;
        }
        Room::Free
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{TestPipeline, TestSettings};

    /// Its stages and databases are needed for as long as it may pass them again.
    #[test]
    fn a_generation_is_known_until_its_last_batch_is_over() {
        let mut pipeline = TestPipeline::new(TestSettings::default());
        pipeline.read(&[("a", ""), ("b", "")]);
        assert!(pipeline.engine.has_generation(1));
        pipeline.answer("a", 200);
        assert!(pipeline.engine.has_generation(1));
        pipeline.answer("b", 200);
        assert!(!pipeline.engine.has_generation(1));
    }
}
