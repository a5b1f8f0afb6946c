//! The one event that a component cannot take is found and left behind; the rest goes on.

use std::ops::Range;
use std::time::Duration;

use lockgate_model::contract::{BatchInfo, CallError, Encoded, Mapped, Verdict};
use lockgate_model::request::RequestRules;
use lockgate_model::{DocumentView, EventView, StateOverlay};
use lockgate_runtime::{CallContext, Sink, Stage};

/// After this many events in a row that a component could not take, it is the component that is
/// broken and not the events: nothing more of the batch is given up. (Each may cost a call's whole
/// time.)
const DEAD_IN_A_ROW_MAX: usize = 16;

/// What became of one event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Isolated<T> {
    Result(T),
    /// It belongs to the dead letters, for this reason.
    Dead(String),
}

/// Nothing is final: the same batch is to be tried again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Postponed {
    pub message: String,
    /// Not before this much time, where the component said so.
    pub after: Option<Duration>,
}

/// As [`Stage::filter`]; an event that the filter cannot take is found and set apart.
pub fn filter(
    stage: &Stage,
    context: &CallContext<'_>,
    events: &[EventView<'_>],
    state: &mut StateOverlay,
) -> Result<Vec<Isolated<Verdict>>, Postponed> {
    isolate(events.len(), |range, fresh| {
        stage.filter(context, &events[range], state, fresh).result
    })
    .map(flat)
}

/// As [`Stage::transform`]; an event that the mapper cannot take is found and set apart.
pub fn transform(
    stage: &Stage,
    context: &CallContext<'_>,
    events: &[EventView<'_>],
    state: &mut StateOverlay,
) -> Result<Vec<Isolated<Mapped>>, Postponed> {
    isolate(events.len(), |range, fresh| {
        stage
            .transform(context, &events[range], state, fresh)
            .result
    })
    .map(flat)
}

/// As [`Sink::encode`]; a document that the sink cannot take is found. Each part comes with the
/// range of the documents that its indexes count from, or with why its document is rejected.
pub fn encode(
    sink: &Sink,
    batch: &BatchInfo,
    documents: &[DocumentView<'_>],
    rules: &RequestRules,
) -> Result<Pieces<Encoded>, Postponed> {
    isolate(documents.len(), |range, fresh| {
        sink.encode(batch, &documents[range], rules, fresh).result
    })
}

/// Parts of a batch, in order and without gaps, each with its result or with why its events are
/// dead.
pub type Pieces<R> = Vec<(Range<usize>, Result<R, String>)>;

/// Calls for the whole batch; where that fails once more on a fresh instance; then for halves, down
/// to single events. The second argument of `call`: these events were tried before.
fn isolate<R>(
    len: usize,
    call: impl FnMut(Range<usize>, bool) -> Result<R, CallError>,
) -> Result<Pieces<R>, Postponed> {
    let mut search = Search {
        call,
        pieces: Vec::new(),
        dead_in_a_row: 0,
    };
    let first = (search.call)(0..len, false);
    let first = match first {
        Err(error) if is_worth_a_second_try(&error) => (search.call)(0..len, true),
        other => other,
    };
    search.judge(0..len, first)?;
    Ok(search.pieces)
}

struct Search<R, C> {
    call: C,
    pieces: Pieces<R>,
    dead_in_a_row: usize,
}

impl<R, C: FnMut(Range<usize>, bool) -> Result<R, CallError>> Search<R, C> {
    /// True where the whole range was fine.
    fn search(&mut self, range: Range<usize>) -> Result<bool, Postponed> {
        let result = (self.call)(range.clone(), true);
        self.judge(range, result)
    }

    fn judge(
        &mut self,
        range: Range<usize>,
        result: Result<R, CallError>,
    ) -> Result<bool, Postponed> {
        let error = match result {
            Ok(result) => {
                self.dead_in_a_row = 0;
                self.pieces.push((range, Ok(result)));
                return Ok(true);
            }
            Err(CallError::Retry { message, after }) => return Err(Postponed { message, after }),
            Err(error @ (CallError::Host(_) | CallError::Hold(_))) => {
                return Err(Postponed {
                    message: error.to_string(),
                    after: None,
                });
            }
            Err(error) => error,
        };
        if range.len() > 1 {
            return self.halves(range);
        }
        self.dead_in_a_row += 1;
        if self.dead_in_a_row >= DEAD_IN_A_ROW_MAX {
            let message = format!(
                "{DEAD_IN_A_ROW_MAX} events in a row could not be taken, so the batch is held; the last one: {error}"
            );
            return Err(Postponed {
                message,
                after: None,
            });
        }
        self.pieces.push((range, Err(error.to_string())));
        Ok(false)
    }

    fn halves(&mut self, range: Range<usize>) -> Result<bool, Postponed> {
        let middle = range.start + range.len() / 2;
        let left_was_fine = self.search(range.start..middle)?;
        let right = middle..range.end;
        // Then it is in the right half: to call for all of that again would cost a call and teach
        // nothing.
        if left_was_fine && right.len() > 1 {
            self.halves(right)?
        } else {
            self.search(right)?
        };
        Ok(false)
    }
}

/// What a fresh instance may mend. What the component said in good order it would say again.
fn is_worth_a_second_try(error: &CallError) -> bool {
    error.may_be_one_event() && !matches!(error, CallError::Isolate(_))
}

/// One answer for each event.
fn flat<T>(pieces: Pieces<Vec<T>>) -> Vec<Isolated<T>> {
    let mut answers = Vec::with_capacity(pieces.last().map_or(0, |(range, _)| range.end));
    for (range, piece) in pieces {
        match piece {
            Ok(results) => answers.extend(results.into_iter().map(Isolated::Result)),
            Err(reason) => answers.extend(range.map(|_| Isolated::Dead(reason.clone()))),
        }
    }
    answers
}
