//! The one event that a component cannot take is found and left behind; the rest goes on.

use std::ops::Range;
use std::time::Duration;

use lockgate_model::{DocumentView, EventView};

use crate::calls::{Context, Encoded, Mapped, Verdict};
use crate::error::CallError;
use crate::stage::Stage;

/// After this many events in a row that a component could not take, it is the component that is
/// broken and not the events: nothing more of the batch is given up. (Each may cost a call's whole
/// time.)
pub const DEAD_IN_A_ROW_MAX: usize = 16;

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

impl Stage {
    /// As [`Stage::filter`]; an event that the filter cannot take is found and set apart.
    pub fn filter_isolated(
        &self,
        context: &Context,
        events: &[EventView<'_>],
    ) -> Result<Vec<Isolated<Verdict>>, Postponed> {
        isolate(events.len(), |range, again| {
            self.filter_once(context, &events[range], again)
        })
        .map(flat)
    }

    /// As [`Stage::transform`]; an event that the mapper cannot take is found and set apart.
    pub fn transform_isolated(
        &self,
        context: &Context,
        events: &[EventView<'_>],
    ) -> Result<Vec<Isolated<Mapped>>, Postponed> {
        isolate(events.len(), |range, again| {
            self.transform_once(context, &events[range], again)
        })
        .map(flat)
    }

    /// As [`Stage::encode`]; a document that the sink cannot take is found and stands among the
    /// rejected. The others then come in more requests than they would have otherwise.
    pub fn encode_isolated(
        &self,
        context: &Context,
        documents: &[DocumentView<'_>],
        operator_headers: &[String],
    ) -> Result<Encoded, Postponed> {
        let pieces = isolate(documents.len(), |range, again| {
            let first = range.start as u32;
            self.encode_once(context, &documents[range], operator_headers, first, again)
        })?;
        let mut whole = Encoded::default();
        for (range, piece) in pieces {
            match piece {
                Ok(encoded) => {
                    whole.requests.extend(encoded.requests);
                    whole.rejected.extend(encoded.rejected);
                }
                Err(reason) => whole
                    .rejected
                    .extend(range.map(|index| (index as u32, reason.clone()))),
            }
        }
        Ok(whole)
    }
}

/// Parts of a batch, in order and without gaps, each with its result or with why its events are
/// dead.
type Pieces<R> = Vec<(Range<usize>, Result<R, String>)>;

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
            Err(CallError::Failure {
                message,
                retryable: true,
                retry_after,
            }) => {
                return Err(Postponed {
                    message,
                    after: retry_after,
                });
            }
            Err(CallError::Host(message)) => {
                return Err(Postponed {
                    message,
                    after: None,
                });
            }
            // Its own word for all of them.
            Err(CallError::Failure { message, .. }) => {
                self.pieces.push((range, Err(message)));
                return Ok(false);
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
    !matches!(error, CallError::Failure { .. } | CallError::Host(_))
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn trap() -> CallError {
        CallError::Trap {
            message: "boom".into(),
        }
    }

    /// A component that cannot take some events; gives the answers and the number of calls.
    fn run(len: usize, bad: &BTreeSet<usize>) -> (Result<Vec<Isolated<usize>>, Postponed>, usize) {
        let mut calls = 0;
        let pieces = isolate(len, |range, again| {
            assert_eq!(
                again,
                calls > 0,
                "only the first call may use an instance that was used before"
            );
            calls += 1;
            if range.clone().any(|index| bad.contains(&index)) {
                Err(trap())
            } else {
                Ok(range.collect::<Vec<_>>())
            }
        });
        (pieces.map(flat), calls)
    }

    #[test]
    fn a_fault_that_a_fresh_instance_mends_costs_one_call() {
        let mut calls = 0;
        let pieces = isolate(8, |range, _| {
            calls += 1;
            if calls == 1 { Err(trap()) } else { Ok(range) }
        });
        assert_eq!((pieces, calls), (Ok(vec![(0..8, Ok(0..8))]), 2));
    }

    #[test]
    fn one_bad_event_of_500_costs_few_calls() {
        for bad in [0, 1, 249, 250, 499] {
            let (answers, calls) = run(500, &BTreeSet::from([bad]));
            assert_eq!(
                answers
                    .unwrap()
                    .iter()
                    .filter(|answer| matches!(answer, Isolated::Dead(_)))
                    .count(),
                1
            );
            assert!(calls <= 20, "{calls} calls for event {bad}");
        }
    }

    #[test]
    fn a_component_that_takes_nothing_holds_the_batch() {
        let (answers, calls) = run(500, &(0..500).collect());
        assert!(
            answers
                .unwrap_err()
                .message
                .starts_with("16 events in a row"),
            "nothing may be final"
        );
        assert!(calls < 60, "{calls}");
    }

    #[test]
    fn the_component_s_own_word_is_not_questioned() {
        let failure = |retryable| CallError::Failure {
            message: "no".into(),
            retryable,
            retry_after: Some(Duration::from_secs(3)),
        };
        for (error, expected) in [
            (
                failure(true),
                Err(Postponed {
                    message: "no".into(),
                    after: Some(Duration::from_secs(3)),
                }),
            ),
            (failure(false), Ok(vec![Isolated::Dead("no".into()); 3])),
            (
                CallError::Host("full".into()),
                Err(Postponed {
                    message: "full".into(),
                    after: None,
                }),
            ),
        ] {
            let mut calls = 0;
            let answers = isolate(3, |_, _| {
                calls += 1;
                Err::<Vec<()>, _>(error.clone())
            });
            assert_eq!((answers.map(flat), calls), (expected, 1));
        }
    }

    #[test]
    fn a_fault_of_the_whole_that_no_part_has_kills_nobody() {
        let pieces = isolate(100, |range, _| {
            if range.len() > 30 {
                Err(CallError::Memory { limit: 1 })
            } else {
                Ok(range.collect::<Vec<_>>())
            }
        });
        let answers = flat(pieces.unwrap());
        assert_eq!(answers, (0..100).map(Isolated::Result).collect::<Vec<_>>());
    }

    proptest! {
        #[test]
        fn exactly_the_bad_events_are_dead(len in 0..300usize, bad in proptest::collection::btree_set(0..300usize, 0..DEAD_IN_A_ROW_MAX)) {
            let (answers, _) = run(len, &bad);
            let expected: Vec<_> = (0..len)
                .map(|index| if bad.contains(&index) { Isolated::Dead(trap().to_string()) } else { Isolated::Result(index) })
                .collect();
            prop_assert_eq!(answers.unwrap(), expected);
        }
    }
}
